"""The command that writes a preset for a text and an amount of time."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import ConfigError
from stages.cli import runs
from stages.cli.options import Corpus, Json, Place, Set, as_text, configured
from stages.cli.output import print_json
from stages.pipeline import graph

if TYPE_CHECKING:
    from pathlib import Path

    from stages.config import RunConfig
    from stages.suggestion.speed import Speed
    from stages.suggestion.text import Text

logger = logging.getLogger(__name__)

OWN = ("engine", "device", "precision", "seed")
"""Fields of `train` that are the user's to set."""
MOST = 1e7
"""Minutes, which are nineteen years."""
CAPITALS = 0.01
"""Of the characters of a text from which on capitals are spelt with shifts."""


@configured
def suggest(
    *,
    corpus: Corpus = None,
    minutes: Annotated[float, typer.Option(metavar="M", help="How long training may take.")],
    set_: Set = None,
    speed: Annotated[
        str | None,
        typer.Option(
            callback=as_text,
            metavar="TOKEN,WEIGHTS",
            help="The machine's, as a suggestion says it, instead of measuring it: the same speed, the same file.",
        ),
    ] = None,
    place: Place,
    as_json: Json = False,
) -> None:
    """Print a preset for a text and this much time: an LSTM beside an n-gram, with the reasons for its settings.

    Save it, and train it by `rnnlm run --preset FILE`. --set takes fields of download, tokenize and evaluate, and
    train.engine, device, precision and seed; they go into the file.
    """
    from data.tables.tokens import IndexTable
    from stages.pipeline import settings
    from stages.suggestion import written
    from stages.suggestion.rule import check_length
    from stages.suggestion.rule import suggest as chosen
    from stages.suggestion.speed import Speed
    from stages.suggestion.text import Text

    if not (math.isfinite(minutes) and 0 < minutes <= MOST):
        raise ConfigError(f"--minutes {minutes:g}: give a time above 0, and of {MOST:,.0f} minutes at most")
    told = Speed.parse(speed) if speed is not None else None
    asked = set_ or []
    config, given = _asked(corpus, asked)
    tokens = _tokens(config, place)
    if config.tokenize.normalizer == "none" and "tokenize.level" not in map(_field, asked) and _has_capitals(tokens):
        config, given = _asked(corpus, [*asked, "tokenize.level=letter"])
        tokens = _tokens(config, place)
    text = Text.of(IndexTable.open(tokens / "tokens.arrow"))
    check_length(text)
    at = told or _measured(config, text)
    suggestion = chosen(text, at, minutes)
    settled = written.sections(suggestion, given)
    settings.parse({stage: {name: one.value for name, one in fields.items()} for stage, fields in settled.items()})
    for said in suggestion.warnings:
        logger.warning("%s", said)
    preset = written.preset(suggestion, text, at, minutes, given)
    if not as_json:
        print(preset, end="")
        return
    print_json(
        {
            "preset": preset,
            "settings": {stage: {name: one.value for name, one in fields.items()} for stage, fields in settled.items()},
            "speed": str(at),
            "minutes": round(suggestion.minutes, 2),
            "warnings": list(suggestion.warnings),
        }
    )


def _field(assignment: str) -> str:
    return assignment.partition("=")[0].strip()


def _tokens(config: RunConfig, place: Place) -> Path:
    return runs.walk(config, place.open()).to(graph.STAGES["train"].inputs["tokens"].stage).folder


def _has_capitals(tokens: Path) -> bool:
    """Whether a text of characters has as many that spelling them with shifts pays."""
    from data.corpus.letters import spelt
    from data.tables.vocab import Vocab

    vocab = Vocab.read(tokens / "vocab.arrow")
    capitals = sum(count for token, count in zip(vocab.tokens, vocab.counts, strict=True) if spelt(token) != token)
    return capitals >= CAPITALS * max(sum(vocab.counts), 1)


def _asked(corpus: str | None, assignments: list[str]) -> tuple[RunConfig, dict[str, dict[str, Any]]]:
    """What the text is read with, and which of it goes into the file: the user's words, or what stands for a level."""
    from stages.pipeline import settings

    for assignment in assignments:
        stage, _, field = _field(assignment).partition(".")
        if (stage == "train" and field not in OWN) or field.endswith("_share"):
            raise ConfigError(
                f"--set {assignment}: the suggestion chooses that; leave it out, and change it in the file"
            )
    if corpus == "-":
        raise ConfigError("--corpus - is read once, and a preset is for a text that can be read again: name a file")
    base = ["tokenize.normalizer=none", *assignments]
    config = settings.load(corpus=corpus, assignments=base)
    level = config.tokenize.level
    if level == "word":
        base = ["tokenize.normalizer=lower", "tokenize.min_freq=3", *assignments]
    if level == "bpe":
        base = ["tokenize.normalizer=none", "tokenize.vocab_size=1000", *assignments]
    config = settings.load(corpus=corpus, assignments=base)
    named = [_field(one).split(".") for one in ("download.corpus=", "tokenize.level=", *base)]
    given: dict[str, dict[str, Any]] = {}
    for stage, field in named:
        given.setdefault(stage, {})[field] = getattr(getattr(config, stage), field)
    return config, given


def _measured(config: RunConfig, text: Text) -> Speed:
    from stages.config import TrainConfig
    from stages.suggestion import rule, speed
    from stages.training import engines

    own = {name: getattr(config.train, name) for name in OWN}
    sizes = [TrainConfig(**{**rule.timed(text.level, size), **own}) for size in rule.TIMED]
    choice = engines.choose(config.train)
    logger.info("measuring how fast %s trains on %s", choice.name, choice.device)
    return speed.measure(sizes[0], sizes[1], text.vocab_size, choice.build)
