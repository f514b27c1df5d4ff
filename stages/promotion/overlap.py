"""Which characters of a text were seen in training: those in windows that stand in a training text as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable

    from data.tables.tokens import Ids

WINDOW = 50
"""Characters in a row that, found in a training text as well, count as seen there."""
_ODD = np.uint64(0x9E3779B97F4A7C15)


def seen_in(codes: Ids, *trainings: Iterable[Ids]) -> NDArray[np.bool_]:
    """Which characters lie in a window of ``WINDOW`` characters that stands in one of the training texts, too.

    Windows are told apart by 64-bit hashes: of 10^9 training characters and 10^7 others, about one in 2,000 times a
    window is taken for another and left out without need. Memory goes with ``codes``, not with the training texts.

    Args:
        codes: code points of shape (characters,).
        trainings: training texts, each as code points in pieces that are cut anywhere.

    Returns:
        One truth value per character, shape (characters,).
    """
    windows, where = np.unique(_hashes(codes), return_inverse=True)
    found = np.zeros(len(windows), np.bool_)
    for pieces in trainings:
        begun = codes[:0]  # the last characters so far, in which a window may have begun
        for piece in pieces:
            begun = np.concatenate((begun, piece))
            hashes = np.sort(_hashes(begun))  # so that looking up goes through the memory in order
            begun = begun[-(WINDOW - 1) :]
            if len(windows):
                rows = np.minimum(windows.searchsorted(hashes), len(windows) - 1)
                found[rows[windows[rows] == hashes]] = True
    # A window that was found begins at its first character and ends WINDOW characters on.
    hits = found[where]
    edges = np.zeros(len(codes) + 1, np.int32)
    edges[: len(hits)] += hits
    edges[len(edges) - len(hits) :] -= hits
    seen: NDArray[np.bool_] = edges.cumsum()[:-1] > 0
    return seen


def _hashes(codes: Ids) -> NDArray[np.uint64]:
    """The hash of each window, shape (characters - WINDOW + 1,), or (0,) where the text is shorter than one.

    It is a polynomial of the characters modulo 2^64. That of 2k characters is put together of two of k, so that 50
    characters take eight passes instead of fifty.
    """
    if len(codes) < WINDOW:
        return np.empty(0, np.uint64)
    # Spread over all bits first (the finalizer of splitmix64), or the low bits would know the low bits only.
    hashes = codes.astype(np.uint64) + _ODD
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    singles, length = hashes, 1
    for bit in f"{WINDOW:b}"[1:]:
        hashes = hashes[:-length] * _power(length) + hashes[length:]
        length *= 2
        if bit == "1":
            hashes = hashes[:-1] * _ODD + singles[length:]
            length += 1
    return hashes


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(int(_ODD), exponent, 1 << 64))
