"""A suggestion as a preset: TOML, and its reasons as prose."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

from stages.suggestion.rule import Chosen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stages.suggestion.rule import Suggestion
    from stages.suggestion.speed import Speed
    from stages.suggestion.text import Text

_WIDTH = 118
_COLUMN = 28
"""Where a comment begins behind a value."""
_NOUNS = {"char": "characters", "letter": "letters", "word": "words", "bpe": "subwords"}


def sections(suggestion: Suggestion, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Chosen]]:
    """Stage → field → value: what the rules chose, and what the user did, which holds."""
    chosen = {
        "download": {},
        "tokenize": suggestion.tokenize,
        "train": suggestion.train,
        "evaluate": {},
        "promotion": {},
    }
    return {
        stage: {**fields, **{field: Chosen(value) for field, value in given.get(stage, {}).items()}}
        for stage, fields in chosen.items()
        if fields or given.get(stage)
    }


def preset(
    suggestion: Suggestion, text: Text, speed: Speed, minutes: float, given: Mapping[str, Mapping[str, Any]]
) -> str:
    """The file for ``rnnlm run --preset FILE``.

    Args:
        suggestion: the settings.
        text: what they are for.
        speed: of the machine that they are for.
        minutes: that were given.
        given: stage → field → value that the user set.
    """
    noun, train = _NOUNS[text.level], suggestion.train
    networks, stands = "An LSTM", "stands"
    if "networks" in train:
        networks, stands = f"{train['networks'].value} LSTMs", "stand"
    made = (
        f"A suggestion for this text, {text.tokens:,} {noun} of {text.vocab_size:,} kinds, and {minutes:g} minutes "
        "at most.\n"
        f"It trains for about {max(suggestion.minutes, 0.1):.1f} of them at the speed {speed}: microseconds per token, "
        "and as many more for each million weights. `rnnlm suggest` measures that; with --speed it makes this file "
        "again, on any machine.\n"
        f"{networks} of {train['hidden_size'].value} units {stands} beside an n-gram of order {train['ngram'].value}, "
        "for they err in different places. Counting alone is quick and good on short texts; the shares of both are "
        "chosen on the validation split, so that the mixture hardly ever falls behind either."
    )
    if text.level == "letter":
        made += (
            "\nCapitals are small letters behind a shift, so that `The` and `the` are one word: `--set "
            "tokenize.level=char` leaves them as they are."
        )
    paragraphs = [*made.split("\n"), *(f"Note: {said}." for said in suggestion.warnings)]
    head = "\n#\n".join(map(_prose, paragraphs))
    body = "\n".join(
        "\n".join(["", f"[{stage}]", *_lines(fields)]) for stage, fields in sections(suggestion, given).items()
    )
    return f"{head}\n{body}\n"


def _prose(paragraph: str) -> str:
    return textwrap.fill(paragraph, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _lines(fields: Mapping[str, Chosen]) -> Iterator[str]:
    for field, (value, reason) in fields.items():
        line = f"{field} = {_toml(value)}"
        yield f"{line:{_COLUMN - 1}} # {reason}" if reason else line


def _toml(value: Any) -> str:
    """A string, number, truth or list of strings, which JSON writes as TOML reads them; and nothing invisible."""
    text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)
