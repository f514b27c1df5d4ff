"""What a model makes of each of many texts: bits per character, and the word that it foresaw least.

A word is what stands between white space, of what runs on no more than `LONGEST` characters; where tokens are words,
each is one. What its tokens cost is its own, and so is what spelling out an unknown one takes; the first token of a
text, which nothing predicts, costs nothing.

Texts are read side by side (`stages.lm.separate`), those that are long alone. No figure depends, to the last bit, on
which others there are.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.errors import CorpusError
from stages.lm import metrics, side_by_side
from stages.lm.scoring import carried
from stages.lm.spelling import of_character, of_letter
from stages.scoring.tokens import Read, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from stages.lm.model import LanguageModel
    from stages.lm.predictor import Predictor

    Counts = NDArray[np.int64]
    Floats = NDArray[np.float64]

WINDOW = 1 << 20
"""Characters that are read at once."""
MOST = 1 << 24
"""Characters of a text."""
ALONE = side_by_side.ROWS * side_by_side.SHORTEST
"""Tokens of a text that is long: its own parts are then read side by side."""
LONGEST = 64
"""Characters of a word, where tokens are none."""
_LARGEST = sys.float_info.max
_WHITE = np.array([chr(code).isspace() for code in range(0x3001)] + [False])
"""By code point; the last one stands for all from there."""


@dataclass(frozen=True)
class Scored:
    """What a model makes of one text. Of fewer than two tokens nothing is predicted, and there are no figures."""

    characters: int
    """Of the text as the model reads it, words with a space or a line end behind each."""
    tokens: int
    """How many were predicted: all but the first."""
    bits_per_character: float | None = None
    """What `LanguageModel.score` says of the text."""
    unknown_rate: float | None = None
    """Fraction of all tokens that the vocabulary lacks."""
    span: str | None = None
    """The word that cost most, of equals the first; None where there is only white space."""
    span_at: int | None = None
    """The character with which it begins, from 0, of the text as the model reads it."""
    span_bits: float | None = None
    """What it cost."""


def score_each(model: LanguageModel, texts: Iterable[str]) -> Iterator[Scored]:
    """Measure many texts, each by itself, as ``model.score`` does.

    Args:
        model: any.
        texts: each without the end of its line. As many are taken at once as have `WINDOW` characters.

    Yields:
        What it makes of each, in their order.

    Raises:
        CorpusError: a text of more than `MOST` characters, or for words one that has none to speak of.
    """
    window, size = list[str](), 0
    for number, text in enumerate(texts, 1):
        if len(text) > MOST:
            raise CorpusError(
                f"text {number:,} has {len(text):,} characters, more than the {MOST:,} that one of many may have: "
                "measure it by itself with `rnnlm evaluate --on`"
            )
        window.append(text)
        size += len(text)
        if size >= WINDOW or len(window) >= WINDOW:
            yield from _scored(model, read(window, model))
            window, size = [], 0
    yield from _scored(model, read(window, model))


def _scored(model: LanguageModel, texts: Read) -> Iterator[Scored]:
    number = len(texts.lengths)
    of = np.repeat(np.arange(number), texts.lengths)
    nats = _nats(model.predictor, texts)
    unknown = (texts.ids == 0) & (not model.kind.merged)
    spelled = _spelled(texts, of, unknown, words=bool(model.kind.separator))
    total, spelling = (np.bincount(of, values, number).tolist() for values in (nats, spelled))
    lacking = np.bincount(of, unknown, number).tolist()
    at, size, bits = _words(texts, nats / math.log(2) + spelled, sys.maxsize if model.kind.separator else LONGEST)
    ends = texts.sizes.cumsum()
    # A word has a space behind it, the last one of a text too, unless that is the end of a line.
    behind = np.bool_(model.kind.separator) & (texts.sizes > 0)
    behind[behind] = texts.codes[ends[behind] - 1] != ord("\n")
    for text, (tokens, characters, end) in enumerate(
        zip(texts.lengths.tolist(), (texts.sizes + behind).tolist(), ends.tolist(), strict=True)
    ):
        predicted = tokens - 1
        if predicted < 1:
            yield Scored(characters, 0)
            continue
        figures = metrics.summarize(total[text] / predicted, predicted, characters, spelling[text])
        place, word = int(at[text]), None
        if place >= 0:
            codes = texts.codes[place : place + int(size[text])]
            word = codes.astype("<u4").tobytes().decode("utf-32-le")
        yield Scored(
            characters,
            predicted,
            figures["bits_per_character"],
            lacking[text] / tokens,
            word,
            place - end + int(texts.sizes[text]) if word else None,
            float(bits[text]) if word else None,
        )


def _nats(predictor: Predictor, texts: Read) -> Floats:
    """What each token costs, (tokens,); 0 for the first of each text."""
    lengths, starts = texts.lengths, texts.lengths.cumsum() - texts.lengths
    nats, first = np.zeros(len(texts.ids)), np.zeros(len(texts.ids), np.bool_)
    first[starts[lengths > 0]] = True
    short = np.repeat(lengths < ALONE, lengths)
    nats[short & ~first] = predictor.separate_losses(texts.ids[short], lengths[lengths < ALONE])
    for text in np.flatnonzero(lengths >= ALONE).tolist():
        ids = texts.ids[starts[text] : starts[text] + lengths[text]]
        nats[starts[text] + 1 : starts[text] + lengths[text]] = np.concatenate([*carried(predictor, [ids])])
    return nats


def _spelled(texts: Read, of: Counts, unknown: NDArray[np.bool_], *, words: bool) -> Floats:
    """The bits of spelling out each unknown token, (tokens,), but the first of a text (`stages.lm.spelling`)."""
    bits = np.zeros(len(of))
    ends, tokens = texts.sizes.cumsum(), texts.lengths.cumsum()
    for text in np.unique(of[unknown]).tolist():
        some = slice(tokens[text] - texts.lengths[text], tokens[text])
        codes = texts.codes[ends[text] - texts.sizes[text] : ends[text]]
        letter = of_letter(len({*np.unique(codes).tolist()} - {ord(" ")})) if words else 0.0
        price = letter or of_character(0 if texts.signs is None else len(np.unique(texts.signs[some][unknown[some]])))
        bits[some] = texts.letters[some] * unknown[some] * price
        bits[some.start] = 0
    return bits


def _words(texts: Read, bits: Floats, longest: int) -> tuple[Counts, Counts, Floats]:
    """The word of each text that cost most: the character it begins with, -1 where there is none, how many it has, and
    its bits, each (texts,)."""
    codes, number = texts.codes, len(texts.sizes)
    white = _WHITE.take(codes, mode="clip")
    begins = np.ones(len(codes), np.bool_)
    begins[1:] = white[:-1]
    begins[(texts.sizes.cumsum() - texts.sizes)[texts.sizes > 0]] = True
    begins &= ~white
    place = np.arange(len(codes))
    since = place - np.maximum.accumulate(np.where(begins, place, 0))
    begins |= ~white & (since % longest == 0)
    word = np.where(white, -1, begins.cumsum() - 1)
    starts = np.flatnonzero(begins)
    own = word[texts.last]
    with np.errstate(all="ignore"):
        costs = np.bincount(own[own >= 0], bits[own >= 0], len(starts))
    costs = np.nan_to_num(costs, nan=_LARGEST, posinf=_LARGEST)
    at, size, most = np.full(number, -1), np.zeros(number, np.int64), np.zeros(number)
    if len(starts):
        of = np.repeat(np.arange(number), texts.sizes)[starts]
        groups = np.flatnonzero(np.diff(of, prepend=-1))
        best = np.maximum.reduceat(costs, groups)
        equals = np.flatnonzero(costs == np.repeat(best, np.diff(groups, append=len(of))))
        first = equals[np.diff(of[equals], prepend=-1) > 0]
        at[of[first]], most[of[first]] = starts[first], costs[first]
        size[of[first]] = np.bincount(word[~white], minlength=len(starts))[first]
    return at, size, most
