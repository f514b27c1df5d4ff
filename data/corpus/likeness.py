"""Which documents are much alike: told by a sketch of each, of the same size whatever the document's.

A document is taken for the set of its passages of `PASSAGE` bytes, in lower case, every run of what is neither letter
nor digit being one space. Of two documents the share of passages that both have, of those that either has, is told from
the `SKETCH` passages of each whose hashes are the lowest (Broder, "On the resemblance and containment of documents",
1997): the lowest of both together are a sample of all that they have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]
    Mask = NDArray[np.bool_]

PASSAGE = 32
SKETCH = 64
ALIKE = 0.5
"""Share of their passages that two documents have in common, from which on they are much alike. Of pages of The Time
Machine where one word in fifty, in twenty, in ten was replaced at random all, eight of ten, one of sixty are; of two
different pages none."""
LONGEST = 1 << 16
"""Bytes of a document that are looked at, its first ones."""
_COMMON = 128
"""Documents at most that are looked up by one passage: one that more of them have tells little."""
_ODD = 0x9E3779B97F4A7C15
_SPACED = bytes(code if chr(code).isalnum() or code > 0x7F else ord(" ") for code in range(256))


def sketch(text: bytes) -> Hashes:
    """The lowest hashes of a document's passages, ascending, `SKETCH` of them at most.

    Args:
        text: the first `LONGEST` bytes of the document or all of it, UTF-8.
    """
    content = b" ".join(text[:LONGEST].lower().translate(_SPACED).split()).ljust(PASSAGE)
    codes = np.frombuffer(content, np.uint8).astype(np.uint64)
    powers, inverses = _powers()
    # The sum of a passage's bytes, each times a power of an odd number, divided by the power of the first.
    sums = np.concatenate((np.zeros(1, np.uint64), (codes * powers[: len(codes)]).cumsum(dtype=np.uint64)))
    hashes = (sums[PASSAGE:] - sums[:-PASSAGE]) * inverses[: len(codes) - PASSAGE + 1]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finalizer of splitmix64
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    most = 4 * SKETCH  # of the lowest, among which nearly always as many are different as are needed
    while most < len(hashes):
        if len(lowest := np.unique(np.partition(hashes, most)[:most])) >= SKETCH:
            return lowest[:SKETCH]
        most *= 8
    return np.unique(hashes)[:SKETCH]


@cache
def _powers() -> tuple[Hashes, Hashes]:
    """Of an odd number and of its inverse modulo 2⁶⁴, as many as a document has bytes."""
    both = [np.full(LONGEST, factor, np.uint64) for factor in (_ODD, pow(_ODD, -1, 1 << 64))]
    for powers in both:
        powers[0] = 1
        np.multiply.accumulate(powers, out=powers)
    return both[0], both[1]


@dataclass(frozen=True)
class Sketches:
    """Of many documents, to be looked up."""

    hashes: Hashes
    """Of all of them, ascending, shape (hashes,)."""
    owners: NDArray[np.int64]
    """The document that each belongs to, shape (hashes,)."""
    each: list[Hashes]
    """By document."""

    @classmethod
    def of(cls, each: list[Hashes]) -> Sketches:
        hashes = np.concatenate([np.empty(0, np.uint64), *each])
        owners = np.repeat(np.arange(len(each)), [len(one) for one in each])
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], owners[order], each)

    def like(self, one: Hashes) -> list[int]:
        """The documents among these that are much like another one, by its sketch."""
        starts = self.hashes.searchsorted(one)
        stops = np.minimum(self.hashes.searchsorted(one, "right"), starts + _COMMON)
        rows = [self.owners[start:stop] for start, stop in zip(starts, stops, strict=True) if start < stop]
        if not rows:
            return []
        owners, shared = np.unique(np.concatenate(rows), return_counts=True)
        # Of two that are alike half or more of the passages in the sample of both are in either's own.
        return [owner for owner in owners[shared >= ALIKE * len(one) / 2].tolist() if alike(self.each[owner], one)]


def alike(one: Hashes, other: Hashes) -> bool:
    """Whether two documents are much alike, by their sketches."""
    lowest = np.union1d(one, other)[:SKETCH]
    both = np.isin(lowest, one) & np.isin(lowest, other)
    return bool(np.count_nonzero(both) >= ALIKE * len(lowest))
