"""Whether a new model is better than the champion, by more than chance and on text that neither was trained on.

The text is the new model's test split, and both models give the bits that each of its tokens takes them: whatever their
vocabularies, they describe the same characters, so bits per character compare. The text is cut into blocks, and a
paired block bootstrap over these says how far the difference may be chance. Bootstrap and percentile interval: Efron
and Tibshirani, "An Introduction to the Bootstrap" (1993); blocks, for neighbouring characters are not independent:
Künsch, "The Jackknife and the Bootstrap for General Stationary Observations" (Annals of Statistics, 1989), here blocks
that do not overlap; both models on the same resampled text: Koehn, "Statistical Significance Tests for Machine
Translation Evaluation" (EMNLP 2004).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.corpus.level import LEVELS
from data.errors import StoreError
from data.store.fingerprint import file_digest
from data.tables.tokens import IndexTable
from stages.lm.model import LanguageModel
from stages.promotion.overlap import seen_in
from stages.promotion.passage import Passage, split

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from data.tables.tokens import Ids

    Floats = NDArray[np.float64]

BLOCKS = 100
"""About as many blocks are made of the text that counts: as few, and so as long, as still tell how far they scatter.
What sets two models apart goes on for long, the longer the less alike they are: on 56,000 characters of Tiny
Shakespeare the standard error of the difference of two alike comes out as 0.0032 bits by blocks of 100 characters,
0.0040 by 400 and 0.0043 by 1,600, that of one trained on it and one trained on The Time Machine as 0.010, 0.014 and
0.021. Short blocks take chance for merit."""
SHORTEST_BLOCK = 100
"""Characters."""
FEWEST_CHARACTERS, FEWEST_BLOCKS = 1_000, 20
"""With less unseen text than this, no candidate is said to be better than a champion."""
DRAWS = 10_000
"""How often the bootstrap resamples the blocks."""
_RESAMPLED = 1 << 20
"""Blocks drawn at once."""


@dataclass(frozen=True)
class Contender:
    """A model and what it was made from: three folders."""

    model: Path
    """Of `train`: ``model.safetensors``, ``config.json``, ``vocab.arrow``."""
    tokens: Path
    """``tokens.arrow``, which the model was trained on, and which says where the splits lie."""
    corpus: Path
    """``corpus.txt``, from which the tokens were made, and which says what the ids of unknown tokens do not."""


@dataclass(frozen=True)
class Verdict:
    """What came of a comparison; a figure is None where it was not measured or is not finite."""

    promoted: bool
    reason: str
    """One sentence for people."""
    candidate_bits: float | None = None
    """Bits per character of the text that was compared."""
    champion_bits: float | None = None
    difference: float | None = None
    """Bits per character that the champion needs more than the candidate."""
    low: float | None = None
    """Where the 99 % interval of the difference begins."""
    high: float | None = None
    characters: int = 0
    """How many were compared."""
    left_out: int = 0
    """Characters of the test split that one of the models was trained on."""
    blocks: int = 0
    """How many hold characters that were compared."""

    def json(self) -> dict[str, Any]:
        return asdict(self)


def judge(candidate: Contender, champion: Contender | None) -> Verdict:
    """Compare a candidate with the champion on the candidate's test split.

    Both read that text with their own vocabulary and level, the state carried through all of it. Characters count but
    for the first token's, which nothing predicts, and those in a window (of `overlap.WINDOW` characters) that stands in
    the training split of either model as well. The candidate is promoted when the whole 99 % interval of the difference
    is above zero. Where there is no champion, a candidate of finite figures is promoted.

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

    Raises:
        StoreError: folders that are damaged or do not belong together.
    """
    ours = _Side(candidate)
    theirs = _Side(champion) if champion else None
    if theirs and (reason := _why_not(ours, theirs)):
        return Verdict(False, reason)
    sides = [ours, theirs] if theirs else [ours]
    of_words = [bool(side.level.separator) for side in sides]
    joined = all(of_words)
    passage = Passage(ours.split("test", joined=joined), by_words=any(of_words), joined=joined)
    # A training split that both have is read once.
    trainings = {(side.table.corpus_sha256, side.table.level, side.table.splits["train"]): side for side in sides}
    seen = passage.whole(seen_in(passage.codes, *(side.split("train", joined=joined) for side in trainings.values())))
    counted = ~seen
    counted[passage.first] = False
    total = int(np.count_nonzero(counted))
    blocks = passage.blocks(max(total // BLOCKS, SHORTEST_BLOCK))
    characters = np.bincount(blocks[counted]).astype(np.float64)
    kept = characters > 0
    facts: dict[str, Any] = {
        "characters": total,
        "left_out": int(np.count_nonzero(seen)),
        "blocks": int(np.count_nonzero(kept)),
    }
    if not total or (theirs and (total < FEWEST_CHARACTERS or facts["blocks"] < FEWEST_BLOCKS)):
        other = f", {facts['left_out']:,} having been seen in training" if facts["left_out"] else ""
        reason = f"there is too little unseen text to tell: {total:,} characters of the test split{other}"
        return Verdict(False, reason, **facts)

    chosen = np.where(counted, blocks, -1)
    bits = [side.bits(passage, chosen, len(characters))[kept] for side in sides]
    mine, *others = (_finite(float(sums.sum()) / total) for sums in bits)
    facts["candidate_bits"] = mine
    if mine is None:
        return Verdict(False, "what it makes of the test split is not finite", **facts)
    if theirs is None:
        reason = f"there is no champion yet, and it needs {mine:.3f} bits per character on {total:,} unseen characters"
        return Verdict(True, reason, **facts)
    facts["champion_bits"] = champions = others[0]
    if champions is None:
        reason = f"it needs {mine:.3f} bits per character, and what the champion makes of that text is not finite"
        return Verdict(True, reason, **facts)
    low, high = bootstrap(bits[1] - bits[0], characters[kept])
    facts |= {"difference": champions - mine, "low": low, "high": high}
    figures = f"{mine:.3f} bits per character on {total:,} unseen characters and the champion {champions:.3f}"
    interval = f"{champions - mine:+.4f}, 99 % interval {low:+.4f} to {high:+.4f}"
    if low > 0:
        return Verdict(True, f"it is better by more than chance: it needs {figures} ({interval})", **facts)
    what = "it is worse than the champion" if high < 0 else "what sets it apart from the champion may be chance"
    return Verdict(False, f"{what}: it needs {figures} ({interval})", **facts)


def bootstrap(differences: Floats, characters: Floats, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The 99 % percentile interval of sum(differences) / sum(characters) over blocks drawn with replacement.

    Args:
        differences: bits of each block, shape (blocks,).
        characters: of each block, the same shape, all above zero.
        draws: how often the blocks are resampled, each time as many as there are.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _RESAMPLED // len(differences))
    means = np.empty(draws)
    for start in range(0, draws, at_once):
        these = means[start : start + at_once]
        chosen = rng.integers(len(differences), size=(len(these), len(differences)))
        these[:] = differences[chosen].sum(axis=1) / characters[chosen].sum(axis=1)
    low, high = np.quantile(means, (0.005, 0.995))
    return float(low), float(high)


class _Side:
    """A contender, opened.

    Raises:
        StoreError: folders that are damaged or do not belong together.
    """

    def __init__(self, contender: Contender) -> None:
        self.model = LanguageModel.load(contender.model)
        self.level = LEVELS[self.model.level]
        self.weights = file_digest(contender.model / "model.safetensors")
        self.table = IndexTable.open(contender.tokens / "tokens.arrow")
        self._corpus = contender.corpus / "corpus.txt"
        if (self.model.level, self.model.normalizer) != (self.table.level, self.table.normalizer):
            raise StoreError(f"the model in {contender.model} was not trained on {contender.tokens}: train again")
        try:
            belongs = file_digest(self._corpus) == self.table.corpus_sha256
        except OSError as error:
            raise StoreError(f"{self._corpus} cannot be read ({error.strerror}): download again") from None
        if not belongs:
            raise StoreError(f"{self._corpus} is not the text that {contender.tokens} was made from: tokenize again")

    def split(self, name: str, *, joined: bool) -> Iterator[Ids]:
        """The normalised text of a split, code points in pieces; ``joined``: one space for each run of white space."""
        return split(self._corpus, self.table, name, joined=joined)

    def bits(self, passage: Passage, blocks: NDArray[np.int32], number: int) -> Floats:
        """Bits that this model takes for each block, shape (number,).

        Args:
            passage: the text.
            blocks: the block of each character, or -1 where the character does not count; shape (characters,).
            number: of blocks.
        """
        reading = passage.read(self.level, self.model.vocab)
        blocks = blocks[reading.starts]
        sums = np.zeros(number)
        done = 1  # nothing predicts the first token
        for losses in self.model.network.losses(reading.ids):
            these = slice(done, done + len(losses))
            counted = blocks[these] >= 0
            bits = losses.astype(np.float64) / math.log(2) + reading.cost[these]
            np.add.at(sums, blocks[these][counted], bits[counted])
            done = these.stop
        return sums


def _why_not(ours: _Side, theirs: _Side) -> str | None:
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
