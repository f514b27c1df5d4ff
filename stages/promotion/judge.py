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
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from stages.promotion.contender import Side
from stages.promotion.interval import interval
from stages.promotion.measure import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from data.tables.tokens import Ids
    from stages.config import PromotionConfig
    from stages.promotion.contender import Contender
    from stages.promotion.measure import Measured

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
    and on no other text the whole interval lies below zero and the gain below -``rule.largest_setback``. Where there is
    no champion, a candidate of finite figures is promoted.

    How levels and normalisers that differ are dealt with:

    - The same normaliser and level: the text as that level has it, words with a space behind each.
    - `char` or `bpe` and `word`: the text of the characters. The word model, which knows nothing of the white space
      between words, is charged for it too (`passage.adaptive_cost`, each different run of white space being a symbol).
      Here characters count by whole words, so that both are charged for the same.
    - `bpe`: a subword's bits are spread evenly over the characters that it has a part in.
    - Two levels by `book`, which joins lines with nothing for one and with a space for the others, or two different
      normalisers: the models predict different texts, and no figure would be fair. Not promoted; the reason tells to do
      it by hand.

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
        first = _first(Bench([ours], rule).measure(_test(ours), fewest=1))
        return Verdict(bool(first.passed), first.reason, (first,))
    theirs = Side(champion)
    if why := _why_not(ours, theirs):
        return Verdict(False, why)
    measure = partial(Bench([ours, theirs], rule).measure, fewest=rule.fewest_characters)
    today = measure(_test(ours))
    tests = [compare("today", today, rule)]
    if ground and ours.which("test") == theirs.which("test"):
        same = compare("champion", today, rule)
        tests.append(replace(same, reason=f"{same.reason}; it is the same text as today's"))
    elif ground:
        tests.append(compare("champion", measure(_test(theirs)), rule))
    if reference:
        pinned = measure(lambda joined: ours.other(reference / "corpus.txt", joined=joined))
        tests.append(compare("reference", pinned, rule))
    return decide(tests)


def decide(tests: Sequence[Comparison]) -> Verdict:
    """The verdict on a candidate: promoted where today's text speaks for it, and none of the others against it."""
    against = [test.reason for test in tests if test.passed is False or (test.text == "today" and not test.passed)]
    return Verdict(not against, "; ".join(against) or tests[0].reason, tuple(tests))


def compare(text: Text, measured: Measured, rule: PromotionConfig) -> Comparison:
    """What a text says of a candidate and the champion.

    Args:
        text: which one it is.
        measured: what the candidate and the champion need for it, in this order.
        rule: what is asked for.
    """
    what, total = NAMES[text], measured.total
    found = Comparison(text, None, "", characters=total, left_out=measured.left_out)
    if (missing := rule.fewest_characters - total) > 0:
        few = f"{what} has {total:,} unseen characters, {missing:,} too few to tell anything{_seen(measured)}"
        return replace(found, reason=few)
    ours, theirs = measured.bits
    bits, bits_champion = _finite(float(ours.sum()) / total), _finite(float(theirs.sum()) / total)
    found = replace(found, bits=bits, bits_champion=bits_champion)
    if bits is None:
        return replace(found, passed=False, reason=f"what this model makes of {what} is not finite")
    figures = f"it needs {bits:.3f} bits per character"
    if bits_champion is None:
        reason = f"on {what} {figures}, and what the champion makes of it is not finite"
        return replace(found, passed=True, reason=reason)
    if not measured.characters.sum(1).all():
        return replace(found, reason=f"{what} falls into too few words to tell anything")
    gain = bits_champion - bits
    lower, upper = interval(theirs - ours, measured.characters, rule.confidence)
    if text == "today":
        passed, margin = lower > rule.smallest_gain, rule.smallest_gain
        said = "better" if passed else "worse" if upper < 0 else "no better"
    else:
        margin = rule.largest_setback
        passed = upper >= 0 or gain >= -margin
        said = "not worse" if passed else "worse"
    beyond = "" if said == "worse" and text == "today" else " by more than chance"
    beyond += f" and {margin:g} bits" if beyond and margin else ""
    reason = (
        f"on {what} this model is {said} than the champion{beyond}: {figures} and the champion {bits_champion:.3f} "
        f"(gain {gain:+.3f}, {100 * rule.confidence:.6g} % interval {lower:+.3f} to {upper:+.3f}, of these two models "
        f"on these {total:,} characters)"
    )
    figured = replace(found, gain=gain, lower=lower, upper=upper, confidence=rule.confidence, blocks=len(ours))
    return replace(figured, passed=passed, reason=reason)


def _first(measured: Measured) -> Comparison:
    """What is said of a model where there is no champion."""
    what, total = NAMES["today"], measured.total
    found = Comparison("today", None, "", characters=total, left_out=measured.left_out)
    if not total:
        return replace(found, reason=f"{what} holds no character that it was not trained on{_seen(measured)}")
    bits = _finite(float(measured.bits[0].sum()) / total)
    if bits is None:
        return replace(found, passed=False, reason=f"what this model makes of {what} is not finite")
    needs = f"this model needs {bits:.3f} bits per character of {what} ({total:,} unseen characters)"
    return replace(found, passed=True, bits=bits, reason=f"there is no champion yet, and {needs}")


def _test(side: Side) -> Callable[[bool], Iterator[Ids]]:
    return lambda joined: side.split("test", joined=joined)


def _seen(measured: Measured) -> str:
    return f", {measured.left_out:,} having been seen in training" if measured.left_out else ""


def _why_not(ours: Side, theirs: Side) -> str | None:
    """Why there is nothing to compare, or None."""
    if ours.model.normalizer != theirs.model.normalizer:
        both = f"normalizer={ours.model.normalizer} and normalizer={theirs.model.normalizer}"
    elif ours.level.name != theirs.level.name and ours.model.normalizer.startswith("book"):
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
