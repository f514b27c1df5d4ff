"""Texts to measure with: of any size, the same ones everywhere, in pieces that are made on the way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

POOL = 20_000
"""Different words, the n-th of them 1/n times as frequent as the first, as in a language."""
LINE = 11
"""Words of a line."""
PIECE = 1 << 19
"""Characters that a stream yields at a time, about."""
SCRIPTS = {
    "latin": "etaoinshrdlucmfwypvbgkqjxz",
    "mixed": "etaoinshrdluαβγδεζηθικлмнопрстуфхцчшкитайのはひふへ語文字漢",
}
"""Letters of a text, the frequent ones first: one, two and three bytes long where they are mixed."""


def lines(script: str, seed: int = 0) -> Iterator[str]:
    """Lines without an end, each with a capital, a comma and a full stop, in pieces of about `PIECE` characters."""
    rng = np.random.default_rng(seed)
    letters = np.array(list(SCRIPTS[script]))
    weights = 1 / np.arange(2, len(letters) + 2)
    lengths = rng.integers(1, 11, POOL)
    drawn = "".join(rng.choice(letters, lengths.sum(), p=weights / weights.sum()))
    ends = lengths.cumsum()
    pool = np.array([drawn[end - length : end] for end, length in zip(ends, lengths, strict=True)], object)
    frequency = 1 / np.arange(1, POOL + 1)
    frequency /= frequency.sum()
    while True:
        words = rng.choice(pool, (PIECE // 75, LINE), p=frequency)
        yield "".join(f"{row[0].capitalize()} {' '.join(row[1:5])}, {' '.join(row[5:])}.\n" for row in words.tolist())


def stream(size: int, script: str = "latin") -> Iterator[str]:
    """``size`` characters in pieces, of which only the first few are made and then come again: hardly any time."""
    made = itertools.cycle(list(itertools.islice(lines(script), 8)))
    while size > 0:
        piece = next(made)[:size]
        size -= len(piece)
        yield piece


def write(path: Path, size: int, script: str = "latin", *, fresh: bool = False) -> Path:
    """A file of whole lines, of about ``size`` bytes and no more; ``fresh`` ones to the end, which takes time."""
    left = size
    with path.open("wb") as file:
        for piece in lines(script) if fresh else stream(size, script):
            lines_ = piece.encode()[:left]
            left -= file.write(lines_[: lines_.rfind(b"\n") + 1])
            if left < 500:
                return path
    return path
