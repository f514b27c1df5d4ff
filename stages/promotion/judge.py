"""Whether a new model is better than the champion, by more than chance and on text that neither was trained on.

It compares two models on given texts: on today's, the new model's test split, the gain has to be more than chance and
a margin; on yesterday's, the champion's own test split, and on a text that the user may pin, the new model must not be
worse by more than these. Both models give the bits that each of their tokens takes them: whatever their vocabularies,
they describe the same characters, so bits per character compare (`stages.promotion.passage`). How far a gain may be
chance, `stages.promotion.interval` says.

Nothing here compares two recipes, or an old text with a new one: of the same recipe on the same text, another seed
makes a model that is better or worse, and the better one is promoted. Several seeds of each tell recipes apart.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stages.promotion.contender import Side
from stages.promotion.interval import cut, interval
from stages.promotion.overlap import seen_in
from stages.promotion.passage import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from data.tables.tokens import Ids
    from stages.config import PromotionConfig
    from stages.promotion.contender import Contender

Text = Literal["today", "champion", "reference"]
"""The candidate's test split, the champion's own, the text that was pinned."""
NAMES: dict[Text, str] = {
    "today": "today's test text",
    "champion": "the champion's own test text",
    "reference": "the reference text",
}


@dataclass(frozen=True)
class Comparison:
    """One text that both models are held to; a figure is None where it was not measured or is not finite."""

    text: Text
    passed: bool | None
    """None where the text says nothing, which counts neither for nor against."""
    reason: str
    """What came of it, for people: a clause."""
    bits: float | None = None
    """Bits per character that the candidate needs."""
    bits_champion: float | None = None
    gain: float | None = None
    """Bits per character that the champion needs more than the candidate."""
    lower: float | None = None
    """Where the interval of the gain begins."""
    upper: float | None = None
    characters: int = 0
    """How many were compared."""
    left_out: int = 0
    """Characters of the text that one of the models was trained on."""
    blocks: int = 0
    """How many the interval was made from."""
    confidence: float | None = None
    """The probability that the interval is meant to hold the gain with."""


@dataclass(frozen=True)
class Verdict:
    """What came of a night's comparisons."""

    promoted: bool
    reason: str
    """One sentence for people."""
    tests: tuple[Comparison, ...] = ()
    """Of today's text, the champion's and the reference, those that there are; none where texts are not to compare."""

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "tests": [asdict(test) for test in self.tests]}


def judge(
    candidate: Contender,
    champion: Contender | None,
    rule: PromotionConfig,
    reference: Path | None = None,
    *,
    ground: bool = True,
) -> Verdict:
    """Compare a candidate with the champion, text by text.

    Both read each text with their own vocabulary and level, the state carried through all of it. Characters count but
    for the first token's, which nothing predicts, and those in a window (of `overlap.WINDOW` characters) that stands in
    the training split of either model as well. With less than ``rule.fewest_characters`` of them a text says nothing.

    The candidate is promoted when, on today's text, the whole interval of its gain lies above ``rule.smallest_gain``,
    and on no other text the whole interval lies below -``rule.largest_setback``. Where there is no champion, a
    candidate of finite figures is promoted.

    How levels and normalisers that differ are dealt with:

    - The same normaliser, both `char` or both `word`: the text as that level has it, words with a space behind each.
    - `char` and `word`: the text of the characters. The word model, which knows nothing of the white space between
      words, is charged for it too (`passage.adaptive_cost`, each different run of white space being a symbol). Here
      characters count by whole words, so that both are charged for the same.
    - `char` and `word` by `book`, which joins lines with nothing for one and with a space for the other, or two
      different normalisers: the models predict different texts, and no figure would be fair. Not promoted; the reason
      tells to do it by hand.

    What a model calls ``<unk>`` costs -log2 p(<unk>) and what it takes to tell one unknown token from another
    (`passage.Passage.read`).

    Args:
        candidate: the new model.
        champion: the model to beat, or None.
        rule: how much better it has to be, and how sure of it one has to be.
        reference: a folder with a ``corpus.txt`` that no champion may get worse on, or None. It is normalised as the
            candidate's text was.
        ground: whether the champion's own test text counts; where another corpus is to take its place, it cannot.

    Raises:
        CorpusError: a reference that cannot be read.
        StoreError: folders that are damaged or do not belong together.
    """
    ours = Side(candidate)
    if champion is None:
        first = _first(_Measure([ours], rule).of("today", ours))
        return Verdict(bool(first.passed), first.reason, (first,))
    theirs = Side(champion)
    if why := _why_not(ours, theirs):
        return Verdict(False, why)
    measure = _Measure([ours, theirs], rule)
    measured = [measure.of("today", ours)]
    if ground:
        # A text that both have is read once.
        same = ours.which("test") == theirs.which("test")
        measured.append(replace(measured[0], text="champion") if same else measure.of("champion", theirs))
    if reference:
        measured.append(measure.of("reference", ours, reference / "corpus.txt"))
    tests = tuple(_decided(one, rule) for one in measured)
    against = [test.reason for test in tests if test.passed is False or (test.text == "today" and not test.passed)]
    return Verdict(not against, "; ".join(against) or tests[0].reason, tests)


class _Measure:
    """What the models of a comparison need for a text.

    Args:
        sides: the candidate, and the champion if there is one.
        rule: how texts are cut into blocks, and from which length on.
    """

    def __init__(self, sides: list[Side], rule: PromotionConfig) -> None:
        self._sides, self._rule = sides, rule
        of_words = [bool(side.level.separator) for side in sides]
        self._by_words, self._joined = any(of_words), all(of_words)
        # A training split that both have is read once.
        self._trainings = {side.which("train"): side for side in sides}.values()

    def of(self, text: Text, whose: Side, other: Path | None = None) -> Comparison:
        """Figures, and no decision yet, on the test split of one of them, or on another text as it is normalised there.

        Bits are None where the text is too short for them to say anything.
        """
        joined, rule = self._joined, self._rule
        pieces = whose.other(other, joined=joined) if other else whose.split("test", joined=joined)
        passage = Passage(pieces, by_words=self._by_words, joined=joined)
        trainings: list[Iterable[Ids]] = [side.split("train", joined=joined) for side in self._trainings]
        seen = passage.whole(seen_in(passage.codes, *trainings))
        counted = ~seen
        counted[passage.first] = False
        total = int(np.count_nonzero(counted))
        found = Comparison(text, None, "", characters=total, left_out=int(np.count_nonzero(seen)))
        if total < (rule.fewest_characters if len(self._sides) > 1 else 1):
            return found
        blocks = np.where(counted, passage.uncut(cut(total, rule)[np.cumsum(counted) - 1]), -1)
        characters = np.bincount(blocks[counted]).astype(np.float64)
        kept = characters > 0
        found = replace(found, blocks=int(np.count_nonzero(kept)))
        ours, *others = (side.bits(passage, blocks, len(characters))[kept] for side in self._sides)
        found = replace(found, bits=_finite(float(ours.sum()) / total))
        if not others:
            return found
        (theirs,) = others
        found = replace(found, bits_champion=_finite(float(theirs.sum()) / total))
        if found.bits is None or found.bits_champion is None or found.blocks < rule.fewest_blocks:
            return found
        lower, upper = interval(theirs - ours, characters[kept], rule.confidence)
        gain = found.bits_champion - found.bits
        return replace(found, gain=gain, lower=lower, upper=upper, confidence=rule.confidence)


def _first(found: Comparison) -> Comparison:
    """What is said of a model where there is no champion."""
    what = NAMES[found.text]
    if not found.characters:
        return replace(found, reason=f"{what} holds no character that it was not trained on{_seen(found)}")
    if found.bits is None:
        return replace(found, passed=False, reason=f"what this model makes of {what} is not finite")
    needs = f"this model needs {found.bits:.3f} bits per character of {what} ({found.characters:,} unseen characters)"
    return replace(found, passed=True, reason=f"there is no champion yet, and {needs}")


def _decided(found: Comparison, rule: PromotionConfig) -> Comparison:
    """The same figures with what they amount to."""
    what = NAMES[found.text]
    if (missing := rule.fewest_characters - found.characters) > 0:
        few = f"{what} has {found.characters:,} unseen characters, {missing:,} too few to tell anything{_seen(found)}"
        return replace(found, reason=few)
    if found.bits is None:
        return replace(found, passed=False, reason=f"what this model makes of {what} is not finite")
    figures = f"it needs {found.bits:.3f} bits per character"
    if found.bits_champion is None:
        return replace(
            found, passed=True, reason=f"on {what} {figures}, and what the champion makes of it is not finite"
        )
    if found.gain is None or found.lower is None or found.upper is None:
        return replace(found, reason=f"{what} falls into too few words to tell anything")
    figures += (
        f" and the champion {found.bits_champion:.3f} (gain {found.gain:+.3f}, {100 * rule.confidence:.6g} % interval "
        f"{found.lower:+.3f} to {found.upper:+.3f}, of these two models on these {found.characters:,} characters)"
    )
    if found.text == "today":
        passed = found.lower > rule.smallest_gain
        said = "better" if passed else "worse" if found.upper < 0 else "no better"
        margin = f"chance and {rule.smallest_gain:g} bits" if rule.smallest_gain else "chance"
    else:
        passed = found.upper >= -rule.largest_setback
        said = "not worse" if passed else "worse"
        margin = f"chance and {rule.largest_setback:g} bits" if rule.largest_setback else "chance"
    by = "" if said == "worse" and found.text == "today" else f" by more than {margin}"
    reason = f"on {what} this model is {said} than the champion{by}: {figures}"
    return replace(found, passed=passed, reason=reason)


def _seen(found: Comparison) -> str:
    return f", {found.left_out:,} having been seen in training" if found.left_out else ""


def _why_not(ours: Side, theirs: Side) -> str | None:
    """Why there is nothing to compare, or None."""
    if ours.model.normalizer != theirs.model.normalizer:
        both = f"normalizer={ours.model.normalizer} and normalizer={theirs.model.normalizer}"
    elif ours.level is not theirs.level and ours.model.normalizer == "book":
        both = f"level={ours.model.level} and level={theirs.model.level} with normalizer=book"
    elif ours.weights == theirs.weights and ours.model.vocab.tokens == theirs.model.vocab.tokens:
        return "it is the champion's equal: the same weights"
    else:
        return None
    return (
        f"no figure compares it with the champion, for {both} make different texts: promote it by hand if it is wanted"
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
