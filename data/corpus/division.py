"""Which split each document of a corpus belongs to, where none is cut."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Division = NDArray[np.uint8]
    """Document → the number of its split."""

_WHOLE = 1 << 64


def by_content(digests: Iterable[bytes], shares: Sequence[float], seed: int) -> Division:
    """A document's split follows from its content and the seed alone: whatever else comes or goes, it stays there, and
    its copies are with it.

    Args:
        digests: of the documents, SHA-256.
        shares: of the splits, which add up to 1.
        seed: another one divides them otherwise.
    """
    borders = [int(share * _WHOLE) for share in _added(shares)]
    salt = f"{seed}:".encode()
    places = (int.from_bytes(hashlib.sha256(salt + digest).digest()[:8]) for digest in digests)
    return np.fromiter((sum(place >= border for border in borders[:-1]) for place in places), np.uint8)


def by_order(digests: Sequence[bytes], sizes: Sequence[int], shares: Sequence[float]) -> Division:
    """The first documents are the first split's, up to its share of the bytes. A copy is where the first of its like
    is, and of no weight.

    Args:
        digests: as above.
        sizes: of the documents, bytes.
        shares: as above.
    """
    weights = [0 if again else size for size, again in zip(sizes, copies(digests), strict=True)]
    borders = [share * sum(weights) for share in _added(shares)]
    first: dict[bytes, int] = {}
    division, before = np.empty(len(digests), np.uint8), 0
    for number, (digest, weight) in enumerate(zip(digests, weights, strict=True)):
        # Where most of it lies.
        split = sum(2 * before + weight > 2 * border for border in borders[:-1])
        division[number] = first.setdefault(digest, split)
        before += weight
    return division


def copies(digests: Iterable[bytes]) -> list[bool]:
    """Of each document whether one like it, to the byte, came before."""
    seen, found = set[bytes](), list[bool]()
    for digest in digests:
        found.append(digest in seen)
        seen.add(digest)
    return found


def _added(shares: Sequence[float]) -> list[Fraction]:
    """Where each split ends. The shares are taken as the decimals that were written."""
    ends = [Fraction(0)]
    for share in shares:
        ends.append(ends[-1] + Fraction(str(share)))
    return ends[1:]
