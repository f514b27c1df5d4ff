"""The guard before training: whether a text that was fetched again may still be the corpus that it was.

A corpus may grow, be edited, or come in another edition; what it may not do is turn into something else overnight.
Both texts are read in chunks, and judged by a few figures: their length, how often each character occurs, how much of
them is HTML tags, and how much of them comes again. Then the champion reads today's text.

How much of a text comes again, in windows of 50 characters, was measured: nothing of The Time Machine, 0.02 % of Tiny
Shakespeare, 6 % of 100 kB of Python code and 26 % of 7 MB of the same, 11 to 16 % of a package manager's log, up to
34 % of lists of packages; but 50 % of any text that stands there twice, 77 % of Shakespeare and 82 % of The Time
Machine with each line ten times, 90 % of a tenth of either ten times. (They compress to 5 %, a log to 10 %: how far a
text compresses does not tell.)
"""

from __future__ import annotations

import filecmp
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.corpus import text
from data.errors import CorpusError
from data.tables.counts import count
from stages.promotion.overlap import repeated
from stages.promotion.surprise import surprise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from data.tables.tokens import Ids
    from stages.config import PromotionConfig
    from stages.promotion.contender import Contender
    from stages.promotion.surprise import Surprise

LEAST_COMMON = 0.5
"""Fraction of each text's characters that must occur in the other one, too."""
FOREIGN = 0.25
"""Fraction of the letters up to which a script does not count as one that a text is written in."""
MARKUP = 0.05
"""Fraction of a text's characters that may stand within HTML tags: more than in a text about HTML, less than in a
page."""
REPETITION = 0.3
"""How much more of a text may come again in it than of the accepted one, as a fraction of its windows."""

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


def check(corpus: Path, champion: Contender | None, rule: PromotionConfig) -> str:
    """Refuse the text in ``corpus/corpus.txt`` where it cannot be a later state of the one the champion learnt from.

    Without a champion, only HTML is refused. In turn:

    - it became HTML: it starts with ``<!doctype html`` or ``<html``, or more than 5 % of its characters stand within
      tags and twice as many as before; a text whose accepted state was HTML may stay so;
    - another script: most of its letters are of a script that made up less than a quarter of them before;
    - it shrank: more than the fraction ``rule.largest_loss`` of the characters are gone;
    - it lost most of its characters: less than half of the accepted text's character occurrences are of characters that
      still occur, or less than half of today's are of characters that occurred before; white space does not count,
      neither does case;
    - it repeats itself: of its windows of 50 characters as many come again in it as before, and another 30 % of all;
    - it surprises the champion by more than ``rule.largest_surprise`` bits per character.

    Returns:
        One sentence with the figures of a text that passes.

    Raises:
        CorpusError: one sentence with the figures of one that does not.
        StoreError: the champion's folders are damaged or do not belong together.
    """
    path = corpus / "corpus.txt"
    if champion is None:
        today = _measure(path)
        _refuse(path, _became_html(today, None))
        return f"the corpus is fit to train on: it has {today.characters:,} characters, and there is no champion yet"
    accepted = champion.corpus / "corpus.txt"
    if filecmp.cmp(path, accepted, shallow=False):
        return "the corpus is fit to train on: it is the one that the champion was trained on"
    today, before = _measure(path), _measure(accepted)
    _refuse(path, _became_html(today, before) or _differs(today, before, rule.largest_loss) or _repeats(path, accepted))
    found = surprise(champion, corpus, rule.fewest_characters)
    told = _told(found)
    if found and not found.excess <= rule.largest_surprise:  # so that what is not a number does not pass
        _refuse(path, f"{told}, where {rule.largest_surprise:g} are let pass")
    size = f"it has {today.characters:,} characters, the accepted one {before.characters:,}"
    return f"the corpus is fit to train on: {size}, and it {told}"


def _refuse(path: Path, what: str) -> None:
    if what:
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
    return ""


def _repeats(path: Path, accepted: Path) -> str:
    """How a text repeats itself that did not; empty where it does not, or always did."""
    again = repeated(lambda: _codes(path))
    if again <= REPETITION or again - (before := repeated(lambda: _codes(accepted))) <= REPETITION:
        return ""
    return f"says the same over and over: {again:.0%} of it comes again further on, {before:.0%} of the accepted text"


def _codes(path: Path) -> Iterator[Ids]:
    return map(text.code_points, text.read(path))


def _told(found: Surprise | None) -> str:
    """How much a text surprises the champion, in words."""
    if found is None:
        return "may surprise the champion or not, whose own test text is too short to tell"
    if not found.share:
        return "holds nothing that the champion was not trained on"
    return (
        f"surprises the champion by {found.excess:.3f} bits per character: what is new in it, {found.share:.0%}, takes "
        f"{found.bits:.3f}, and the champion's own test text {found.own:.3f}"
    )


def _measure(path: Path) -> _Figures:
    start = ""
    tags = 0
    counts: Counter[str] = Counter()
    for chunk in text.read(path):
        if len(start) < 1000:
            start = (start + chunk).lstrip()[:1000]
        counts.update(count(text.code_points(chunk)))
        tags += sum(len(tag[0]) for tag in _TAG.finditer(chunk))  # one that is cut between chunks does not matter
    occurrences: Counter[str] = Counter()
    for character, times in counts.items():
        for one in unicodedata.normalize("NFKD", character.lower()):
            if not one.isspace():
                occurrences[one] += times
    total = counts.total()
    return _Figures(total, bool(_START.match(start)), tags / max(total, 1), occurrences)
