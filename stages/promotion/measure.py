"""What models need for a text, part by part of its blocks, as far as none of them was trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stages.promotion.interval import blocks, cut
from stages.promotion.overlap import seen_in
from stages.promotion.passage import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from data.tables.tokens import Ids
    from stages.config import PromotionConfig
    from stages.promotion.contender import Side

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What came of reading a text."""

    characters: Floats
    """Of each part that count, shape (blocks, parts of a block)."""
    bits: tuple[Floats, ...]
    """Of each model, in the order they were given in, of the same shape; none where the text was too short to read."""
    left_out: int = 0
    """Characters that one of the models was trained on."""

    @property
    def total(self) -> int:
        """The characters that count."""
        return int(self.characters.sum())


class Bench:
    """Models that read the same texts.

    Args:
        sides: the models.
        rule: how texts are cut into blocks.
    """

    def __init__(self, sides: Sequence[Side], rule: PromotionConfig) -> None:
        self._sides, self._rule = sides, rule
        of_words = [bool(side.level.separator) for side in sides]
        self._by_words, self._joined = any(of_words), all(of_words)
        self._merged = any(side.level.merged for side in sides)
        # A split that several have learnt is read once.
        self._learnt = {side.which(name): (side, name) for side in sides for name in side.learnt}.values()

    def measure(self, text: Callable[[bool], Iterator[Ids]], fewest: int) -> Measured:
        """Read a text.

        Args:
            text: gives it in pieces, each run of white space as one space or not.
            fewest: characters to count that are worth reading.
        """
        passage = Passage(text(self._joined), by_words=self._by_words, joined=self._joined, merged=self._merged)
        learnt = [side.split(name, joined=self._joined) for side, name in self._learnt]
        seen = passage.whole(seen_in(passage.codes, *learnt))
        counted = ~seen
        counted[passage.first] = False
        total = int(np.count_nonzero(counted))
        left_out = int(np.count_nonzero(seen))
        if total < fewest:
            return Measured(np.array([[float(total)]]), (), left_out)
        shape = blocks(total, self._rule)
        number = shape[0] * shape[1]
        parts = np.where(counted, passage.uncut(cut(total, number)[np.cumsum(counted) - 1]), -1)
        characters = np.bincount(parts[counted], minlength=number).astype(np.float64).reshape(shape)
        return Measured(
            characters, tuple(side.bits(passage, parts, number).reshape(shape) for side in self._sides), left_out
        )
