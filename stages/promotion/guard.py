"""The guard before training: whether a text that was fetched again may still be the corpus that it was.

A corpus may grow, be edited, or come in another edition; what it may not do is turn into something else overnight.
Both texts are read once, in chunks, and judged by a few figures: their length, how often each character occurs, how
much of them is HTML tags, and how far they compress.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.corpus import text
from data.errors import CorpusError
from stages.tokenize import count

if TYPE_CHECKING:
    from pathlib import Path

LEAST_COMMON = 0.5
"""Fraction of each text's characters that must occur in the other one, too."""
FOREIGN = 0.25
"""Fraction of the letters up to which a script does not count as one that a text is written in."""
MARKUP = 0.05
"""Fraction of a text's characters that may stand within HTML tags: more than in a text about HTML, less than in a
page."""
REPETITIVE = 0.02
"""Fraction of their size that the same few lines, over and over, compress to; prose comes to 0.4 to 0.5."""

_START = re.compile(r"(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL)
# The elements that pages are made of; <unk>, <stage direction> and the tags of other languages are none of them.
_TAG = re.compile(
    r"</?(?:a|abbr|article|aside|b|blockquote|body|br|button|center|cite|code|dd|div|dl|dt|em|figcaption|figure|font|"
    r"footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|noscript|ol|option|p|path|"
    r"picture|pre|script|section|select|small|source|span|strong|style|sub|summary|sup|svg|table|tbody|td|th|thead|"
    r"title|tr|u|ul|video)(?:[\s/][^<>]*)?>",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Figures:
    """What is judged of a text."""

    characters: int
    page: bool
    """Whether it starts as an HTML page does."""
    markup: float
    """Fraction of the characters that stand within HTML tags."""
    packed: float
    """Bytes after compression, as a fraction of those before."""
    occurrences: Counter[str]
    """Of each character but white space, whatever its case and however its accents are encoded."""

    @property
    def html(self) -> bool:
        return self.page or self.markup > MARKUP

    @property
    def scripts(self) -> dict[str, float]:
        """Script → fraction of the letters that are of it, the most frequent first. A script is the first word of a
        letter's Unicode name, such as LATIN or CJK."""
        letters: Counter[str] = Counter()
        for character, times in self.occurrences.items():
            if character.isalpha():
                letters[unicodedata.name(character, "unnamed").partition(" ")[0]] += times
        return {script: times / letters.total() for script, times in letters.most_common()}

    def known_to(self, other: _Figures) -> float:
        """Fraction of the character occurrences here that are of characters which occur in the other text."""
        known = sum(times for character, times in self.occurrences.items() if character in other.occurrences)
        return known / self.occurrences.total() if self.occurrences else 0


def check(corpus: Path, accepted: Path | None, *, largest_loss: float = 0.5) -> None:
    """Refuse the text in ``corpus/corpus.txt`` where it cannot be a later state of the one in ``accepted``.

    ``accepted`` is the corpus that the champion was trained on; without one, only HTML is refused. In turn:

    - it became HTML: it starts with ``<!doctype html`` or ``<html``, or more than 5 % of its characters stand within
      tags and twice as many as before; a text whose accepted state was HTML may stay so;
    - another script: most of its letters are of a script that made up less than a quarter of them before;
    - it shrank: more than the fraction ``largest_loss`` of the characters are gone;
    - it lost most of its characters: less than half of the accepted text's character occurrences are of characters that
      still occur, or less than half of today's are of characters that occurred before; white space does not count,
      neither does case;
    - it repeats itself: it compresses to less than 2 % of its size, and four times as far as before.

    Raises:
        CorpusError: one sentence with the figures.
    """
    path = corpus / "corpus.txt"
    today, before = _measure(path), _measure(accepted / "corpus.txt") if accepted else None
    if what := _became_html(today, before) or (before and _differs(today, before, largest_loss)):
        raise CorpusError(f"the corpus {what}; look at {path}, and at where it comes from")


def _became_html(today: _Figures, before: _Figures | None) -> str:
    if before and before.html:
        return ""
    if today.page:
        return "became an HTML page"
    if today.markup > max(MARKUP, 2 * before.markup if before else 0):
        earlier = f", {before.markup:.1%} before" if before else ""
        return f"became HTML: {today.markup:.1%} of its characters stand within tags{earlier}"
    return ""


def _differs(today: _Figures, before: _Figures, largest_loss: float) -> str:
    """What sets a text apart from its accepted state, in words; empty where it may be the same text."""
    script, earlier = next(iter(today.scripts), ""), next(iter(before.scripts), "")
    if script and earlier and before.scripts.get(script, 0) < FOREIGN:
        return (
            f"is written in another script: {today.scripts[script]:.0%} of its letters are {script}, "
            f"where {before.scripts[earlier]:.0%} were {earlier}"
        )
    if today.characters < (1 - largest_loss) * before.characters:
        return (
            f"shrank from {before.characters:,} to {today.characters:,} characters, by "
            f"{1 - today.characters / before.characters:.1%} where {largest_loss:.0%} are let pass"
        )
    if (kept := before.known_to(today)) < LEAST_COMMON:
        return f"lost most of its characters: those that still occur made up {kept:.0%} of the accepted text"
    if (known := today.known_to(before)) < LEAST_COMMON:
        return f"consists of other characters: only {known:.0%} of it are ones that the accepted text has"
    if today.packed < min(REPETITIVE, before.packed / 4):
        return (
            f"says the same over and over: it compresses to {today.packed:.1%} of its size, "
            f"the accepted text to {before.packed:.1%}"
        )
    return ""


def _measure(path: Path) -> _Figures:
    start = ""
    tags = size = packed = 0
    counts: Counter[str] = Counter()
    compressor = zlib.compressobj(4)
    for chunk in text.read(path):
        if len(start) < 1000:
            start = (start + chunk).lstrip()[:1000]
        counts.update(count(text.code_points(chunk)))
        tags += sum(len(tag[0]) for tag in _TAG.finditer(chunk))  # one that is cut between chunks does not matter
        encoded = chunk.encode()
        size += len(encoded)
        packed += len(compressor.compress(encoded))
    packed += len(compressor.flush())
    occurrences: Counter[str] = Counter()
    for character, times in counts.items():
        for one in unicodedata.normalize("NFKD", character.lower()):
            if not one.isspace():
                occurrences[one] += times
    total = counts.total()
    return _Figures(total, bool(_START.match(start)), tags / max(total, 1), packed / max(size, 1), occurrences)
