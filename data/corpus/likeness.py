"""Which documents are much alike: told by a sketch of each, of the same size whatever the document's.

A document is taken for the set of its passages of `PASSAGE` bytes, in lower case, every run of what is neither letter
nor digit being one space. Of two documents the share of passages that both have, of those that either has, is told from
the `SKETCH` passages of each whose hashes are the lowest (Broder, "On the resemblance and containment of documents",
1997): the lowest of both together are a sample of all that they have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
_TOGETHER = 1000
"""Documents that are looked up at once."""
_ODD = 0x9E3779B97F4A7C15
_SPACED = bytes(code if chr(code).isalnum() or code > 0x7F else ord(" ") for code in range(256))


def sketches(texts: Iterable[bytes]) -> Iterator[Hashes]:
    """The lowest hashes of each document's passages, ascending, `SKETCH` of them at most.

    Args:
        texts: the first `LONGEST` bytes of each document or all of it, UTF-8.
    """
    waiting, size = list[bytes](), 0
    for text in texts:
        content = b" ".join(text[:LONGEST].lower().translate(_SPACED).split()).ljust(PASSAGE)
        if size + len(content) > LONGEST:
            yield from _sketched(waiting)
            waiting, size = [], 0
        waiting.append(content)
        size += len(content)
    yield from _sketched(waiting)


def _sketched(contents: Sequence[bytes]) -> Iterator[Hashes]:
    """Of documents that have `LONGEST` bytes together at most."""
    if not contents:
        return
    hashes = _hashes(b"".join(contents))
    lengths = np.array([*map(len, contents)])
    starts = lengths.cumsum() - lengths
    windows = lengths - PASSAGE + 1
    # Of many passages those with low hashes do, but where they say the same time and again.
    most = np.minimum(4 * SKETCH / windows, 1) * (2.0**64 - 2**12)
    owners = np.repeat(np.arange(len(contents)), lengths)[: len(hashes)]
    low = hashes <= np.repeat(most.astype(np.uint64), lengths)[: len(hashes)]
    low |= np.repeat(windows <= 4 * SKETCH, lengths)[: len(hashes)]
    low &= np.arange(len(hashes)) < (starts + windows)[owners]
    found, owners = hashes[low], owners[low]
    order = np.lexsort((found, owners))
    found, owners = found[order], owners[order]
    first = np.ones(len(found), np.bool_)
    first[1:] = (found[1:] != found[:-1]) | (owners[1:] != owners[:-1])
    found, owners = found[first], owners[first]
    ends = owners.searchsorted(np.arange(len(contents) + 1))
    for start, width, (begin, end) in zip(starts.tolist(), windows.tolist(), pairwise(ends.tolist()), strict=True):
        if end - begin < min(SKETCH, width) and width > 4 * SKETCH:
            yield np.unique(hashes[start : start + width])[:SKETCH]
        else:
            yield found[begin : min(end, begin + SKETCH)]


def _hashes(content: bytes) -> Hashes:
    """Of each passage, from each byte on: the sum of its bytes, each times a power of an odd number, divided by that of
    the first; spread over all bits."""
    codes = np.frombuffer(content, np.uint8).astype(np.uint64)
    powers, inverses = _powers()
    sums = np.concatenate((np.zeros(1, np.uint64), (codes * powers[: len(codes)]).cumsum(dtype=np.uint64)))
    hashes: Hashes = (sums[PASSAGE:] - sums[:-PASSAGE]) * inverses[: len(codes) - PASSAGE + 1]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finalizer of splitmix64
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes


@cache
def _powers() -> tuple[Hashes, Hashes]:
    """Of an odd number and of its inverse modulo 2⁶⁴, as many as documents have bytes that are looked at together."""
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
    each: Sequence[Hashes]
    """By document."""

    @classmethod
    def of(cls, each: Sequence[Hashes]) -> Sketches:
        hashes, owners = _joined(each)
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], owners[order], each)

    def like(self, others: Iterable[Hashes]) -> Iterator[list[int]]:
        """For each of other documents, given their sketches: those among these that are much like it."""
        others = iter(others)
        while some := list(islice(others, _TOGETHER)):
            hashes, places = _joined(some)
            order = np.argsort(hashes)  # so that looking up goes through the memory in order
            hashes, places = hashes[order], places[order]
            starts = self.hashes.searchsorted(hashes)
            lengths = np.minimum(self.hashes.searchsorted(hashes, "right") - starts, _COMMON)
            rows = np.repeat(starts - (lengths.cumsum() - lengths), lengths) + np.arange(lengths.sum())
            pairs = np.repeat(places, lengths) * len(self.each) + self.owners[rows]
            pairs, shared = np.unique(pairs, return_counts=True)
            found: list[list[int]] = [[] for _ in some]
            for pair, number in zip(pairs.tolist(), shared.tolist(), strict=True):
                place, owner = divmod(pair, len(self.each))
                # Of the lowest of both together, which are as many as either has at least, so many are in both.
                if number >= ALIKE * len(some[place]) and alike(self.each[owner], some[place]):
                    found[place].append(owner)
            yield from found


def alike(one: Hashes, other: Hashes) -> bool:
    """Whether two documents are much alike, by their sketches."""
    both = np.sort(np.concatenate((one, other)))
    again = both[1:] == both[:-1]
    rank = (~again).cumsum() + 1  # among the different ones, from the second on
    most = min(int(rank[-1]), SKETCH)
    return bool(np.count_nonzero(again & (rank <= most)) >= ALIKE * most)


def _joined(each: Sequence[Hashes]) -> tuple[Hashes, NDArray[np.int64]]:
    """All hashes, and the place of the document that each belongs to."""
    hashes = np.concatenate([np.empty(0, np.uint64), *each])
    return hashes, np.repeat(np.arange(len(each)), [*map(len, each)])
