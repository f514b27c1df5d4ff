"""What stands in a text more than once: windows of it that stand in a training text as well, or again in itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from data.tables.tokens import Ids

WINDOW = 50
"""Characters in a row that, found in a training text as well, count as seen there."""
SAMPLE = 1 << 16
"""Of a text's windows so many are looked for again, or up to twice as many."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(64 - 22)


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
        for joined in _overlapping(pieces):
            hashes = np.sort(_hashes(joined))  # so that looking up goes through the memory in order
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


def repeated(text: Callable[[], Iterable[Ids]]) -> float:
    """Fraction of a text's windows of ``WINDOW`` characters that come again further on; as many have come before.

    Of a text that stands there ten times it is 0.9, of one that is new throughout 0. Of a long text evenly spaced
    windows are looked for, so that memory does not grow with it. (A sample of all hashes, such as those of one
    remainder, would tell the same of most texts, but is likely to miss the one line that makes up half of a text.)

    Args:
        text: begins it anew each time it is called: code points in pieces that are cut anywhere.
    """
    step = max(1, (sum(map(len, text())) - WINDOW + 1) // SAMPLE)
    wanted = np.concatenate([np.empty(0, np.uint64), *_sampled(text(), step)])
    if not len(wanted):
        return 0.0
    windows, where = np.unique(wanted, return_inverse=True)
    maybe = np.zeros(1 << 22, np.bool_)  # by a hash's first bits whether it may be among them: most are not
    maybe[windows >> _FIRST] = True
    last = np.zeros(len(windows), np.int64)  # where each of them stands for the last time
    at = 0
    for hashes in map(_hashes, _overlapping(text())):
        places = np.flatnonzero(maybe[hashes >> _FIRST])
        rows = np.minimum(windows.searchsorted(hashes[places]), len(windows) - 1)
        hits = windows[rows] == hashes[places]
        last[rows[hits]] = at + places[hits]  # of several the last one stays
        at += len(hashes)
    return float(np.mean(last[where] > step * np.arange(len(wanted))))


def _sampled(pieces: Iterable[Ids], step: int) -> Iterator[NDArray[np.uint64]]:
    """The hash of every ``step``-th window of a text, the first one first."""
    at = 0
    for codes in _overlapping(pieces):
        starts = np.arange(-at % step, len(codes) - WINDOW + 1, step)
        chosen = codes[starts[:, None] + np.arange(WINDOW)]
        yield _hashes(chosen.ravel())[::WINDOW].copy()  # a view would keep the others
        at += max(len(codes) - WINDOW + 1, 0)


def _overlapping(pieces: Iterable[Ids]) -> Iterator[Ids]:
    """The pieces of a text, each behind the characters before it in which a window may have begun."""
    begun = np.empty(0, np.uint8)
    for piece in pieces:
        begun = np.concatenate((begun, piece))
        yield begun
        begun = begun[-(WINDOW - 1) :]


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
