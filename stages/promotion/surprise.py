"""How much a text surprises a champion: the bits that it needs for what is new, against those for its own test text.

A text may come to look like another one, noise or a translation, and keep its length, its letters and its script. Who
has learnt the text notices. Measured (`Surprise.excess`) of five champions: the preset `sample`, which needs 2.21 bits
per character of its test text; LSTMs of 96 units on The Time Machine (2.56) and on 300,000 characters of Tiny
Shakespeare as they are (2.35); one of 192 units that knows The Time Machine by heart (2.39 where it needs 1.37 of what
it was trained on); and one of its words (2.89):

| what became of the text | bits per character |
|---|---|
| nothing; a third gone; other case, line ends or order of lines (of prose) | -0.02 to 0.02 |
| lines of 60 or of 100 characters | -0.44 to 0.24 |
| typographic quotation marks and dashes | 0.03 to 0.15 |
| a tenth of the lines gone, `the` become `this` | -0.09 to 0.09 |
| a third, or half, as much again by another author | 0.14 to 0.35, or 0.20 to 0.50 |
| all of it by another author | 0.52 to 1.50 |
| 1 %, 5 % or 10 % of its characters replaced at random | 0.03 to 0.14, 0.41 to 0.93 or 1.02 to 2.19 |
| rot13 of the last tenth, the last quarter or all of it | 0.33 to 1.23, 0.68 to 2.56 or 2.75 to 10.2 |
| half of it random letters or Base64 | 1.17 to 8.1 |
| vowels or spaces gone, read backwards, letters in any order within each word | 2.2 to 10.3 |
| words in any order; every second word gone | -0.19 to 1.07; -0.10 to 0.91 |

So a limit of 0.5 lets edits pass, and neither a hundredth of noise nor words in any order are sure to be noticed. A
champion that has learnt next to nothing (24 units, one epoch, 4.12 bits) notices hardly anything: 0.04 for a tenth
replaced at random, 0.25 for a text read backwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from stages.promotion.contender import Side
from stages.promotion.overlap import seen_in
from stages.promotion.passage import END, Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from data.tables.tokens import Ids
    from stages.promotion.contender import Contender

STRETCHES, LENGTH = 25, 2_000
"""Of a text so many stretches are read at most, evenly spaced, of so many characters: a longer text takes no longer."""


@dataclass(frozen=True)
class Surprise:
    """What a champion makes of a text."""

    share: float
    """Fraction of its characters that are new: in no window of `overlap.WINDOW` characters that the champion was
    trained on."""
    bits: float
    """Bits per character of these."""
    own: float
    """The same of the champion's own test text."""

    @property
    def excess(self) -> float:
        """Bits per character of the whole text above those of the champion's own, what it was trained on counting as
        its own: a champion that has its text by heart would be glad of that, whatever else came with it."""
        return self.share * (self.bits - self.own) if self.share else 0.0


@dataclass(frozen=True)
class _Sum:
    bits: float
    """Of the new characters."""
    new: int
    characters: int


def surprise(champion: Contender, corpus: Path, fewest_characters: int) -> Surprise | None:
    """What the champion makes of the text in ``corpus/corpus.txt``; None where its own test text is too short to tell.

    Both texts are normalised as the champion's was and read in stretches, each from the zero state. All characters
    count but those of the first token, which nothing predicts, and, of words, the last, which may be cut. Unknown
    tokens are spelled out as the judge has it (`Passage.read`), and so is a stretch that has no other words.

    Args:
        champion: whoever is to be surprised.
        corpus: today's text.
        fewest_characters: with fewer of its own test text, as far as it was not trained on that, nothing can be said.

    Raises:
        CorpusError: today's text cannot be read.
        StoreError: the champion's folders are damaged or do not belong together.
    """
    side = Side(champion)
    joined = bool(side.level.separator)
    own = _read(side, partial(side.split, "test", joined=joined))
    if own.new < fewest_characters or not math.isfinite(own.bits):
        return None
    today = _read(side, partial(side.other, corpus / "corpus.txt", joined=joined))
    return Surprise(today.new / max(today.characters, 1), today.bits / max(today.new, 1), own.bits / own.new)


def _read(side: Side, text: Callable[[], Iterator[Ids]]) -> _Sum:
    words = bool(side.level.separator)
    stretches = _stretches(text)
    seen = seen_in(
        np.concatenate([np.empty(0, np.uint8), *stretches]), *(side.split(name, joined=words) for name in side.learnt)
    )
    bits, new, characters, start = 0.0, 0, 0, 0
    for codes in stretches:
        passage = Passage([codes], by_words=words, joined=words, merged=side.level.merged)
        if len(passage.codes):  # or it is all white space, where words are read
            left_out = np.zeros(len(codes), np.bool_)
            left_out[passage.first] = True
            left_out[-1] = words
            left_out = passage.whole(left_out)
            known = left_out | passage.whole(seen[start : start + len(codes)])
            if left_out.all() and not side.level.merged:  # noise without white space
                known, left_out = ~left_out, ~left_out
                bits += float(passage.read(side.level, side.model.vocab).cost.sum())
            else:
                bits += float(side.bits(passage, np.where(known, -1, 0).astype(np.int32), 1)[0])
            characters += int(np.count_nonzero(~left_out))
            new += int(np.count_nonzero(~known))
        start += len(codes)
    return _Sum(bits, new, characters)


def _stretches(text: Callable[[], Iterator[Ids]]) -> list[Ids]:
    """Stretches of a text, which is read twice: code points, shape (characters,) each; of documents as of one text."""
    total = sum(np.count_nonzero(piece != END) for piece in text())
    starts = (
        np.linspace(0, total - LENGTH, STRETCHES).astype(int)
        if total > STRETCHES * LENGTH
        else np.arange(0, total, LENGTH)
    )
    found: list[list[Ids]] = [[] for _ in starts]
    position = 0
    for piece in (piece[piece != END] for piece in text()):
        for parts, start in zip(found, starts - position, strict=True):
            parts.append(piece[max(start, 0) : max(start + LENGTH, 0)].copy())  # a view would keep the whole piece
        position += len(piece)
    return [np.concatenate(parts) for parts in found]
