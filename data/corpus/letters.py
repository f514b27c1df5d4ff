"""Capitals as shifts and small letters, so that `The`, `THE` and `the` are spelt with the same three letters.

A typewriter's two shifts: `SHIFT` stands before each capital; but after two in a row all letters of the word are
capitals, as far as there is an `UNSHIFT`, or its end. So `The KING` is `⇧the ⇧k⇧ing`, and `TVs` is `⇧t⇧v⇩s`. A text
that goes on is spelt as it was, wherever it is cut.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

SHIFTS = SHIFT, UNSHIFT = "\x0e", "\x0f"
"""The control characters SHIFT OUT and SHIFT IN, which hardly any text has: where one does, it is read as U+FFFD."""
_RUN = re.compile(r"(\x0e[^\x0e]\x0e[^\x0e])((?:\x0e[^\x0e]|[\d_])*)(?=([^\W\d_])?)")
"""Capitals in a row, each with its shift; and the letter behind them, if it is none."""


def spell(chunks: Iterable[str]) -> Iterator[str]:
    """A text in small letters and shifts. What has no small letter of its own, or one that has another capital, such as
    `İ`, stays."""
    before = ""
    for chunk in chunks:
        spelt = _spelt(before + chunk)
        yield spelt[2 * len(before) :]
        before = _before(spelt)


def spelt(text: str) -> str:
    """The same of a short text."""
    return "".join(spell([text]))


class Told:
    """The text that letters and shifts stand for, one after the other. A shift before what has no capital says nothing.

    Args:
        after: those that come before.
    """

    def __init__(self, after: str = "") -> None:
        self._shifted, self._capitals = False, 0
        for letter in after:
            self.add(letter)

    def add(self, letter: str) -> str:
        """What one adds to the text."""
        if letter in SHIFTS:
            self._shifted = letter == SHIFT
            self._capitals *= self._shifted
            return ""
        capital, shifted, self._shifted = _capital(letter), self._shifted, False
        if shifted and capital != letter:
            self._capitals += 1
        elif self._capitals < 2 or not _within(letter):
            self._capitals = 0
        return capital if self._capitals else letter


def after(text: str) -> str:
    """The last of some letters and shifts: as many as say which case the next one has."""
    start = len(text)
    while start and (text[start - 1] in SHIFTS or _within(text[start - 1])):
        start -= 1
    return text[start:]


def characters(codes: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """Which of some code points, letters and shifts, are characters of the text: all but the shifts."""
    found: NDArray[np.bool_] = (codes != ord(SHIFT)) & (codes != ord(UNSHIFT))
    return found


def _within(letter: str) -> bool:
    """Whether it ends no word; in a name such as `MOST_MARKS` the line does not."""
    return letter.isalnum() or letter == "_"


def _spelt(text: str) -> str:
    shifted = text.translate(_spellings())
    return _RUN.sub(_shortened, shifted) if SHIFT in shifted else shifted


def _shortened(run: re.Match[str]) -> str:
    first, others, small = run.groups("")
    return first + others.replace(SHIFT, "") + UNSHIFT * bool(small)


def _before(spelt: str) -> str:
    """As many capitals as whatever comes next goes on from: two and more are alike."""
    last = spelt.rfind(SHIFT)
    rest = spelt[last + 1 :]
    if last < 0 or not re.fullmatch(r"\w+", rest):
        return ""
    if last >= 2 and spelt[last - 2] == SHIFT:
        return "AA"
    return "A" if len(rest) == 1 else ""


def _capital(letter: str) -> str:
    upper = letter.upper()
    return upper if len(upper) == 1 else letter


@cache
def _spellings() -> dict[int, str]:
    """By code point, of the characters that are spelt otherwise than they are."""
    pairs = ((chr(code), chr(code).lower()) for code in range(sys.maxunicode + 1))
    capitals = {
        ord(letter): SHIFT + small
        for letter, small in pairs
        if small != letter and len(small) == 1 and small.upper() == letter
    }
    return capitals | dict.fromkeys(map(ord, SHIFTS), "\N{REPLACEMENT CHARACTER}")
