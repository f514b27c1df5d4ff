"""Whether a new model is better than the champion, by more than chance and on text that neither was trained on.

The text is the new model's test split, and both models tell how many bits each stretch of it takes them: whatever their
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

from data.corpus import text
from data.errors import StoreError
from data.store.fingerprint import file_digest
from data.tables.tokens import Ids, IndexTable
from stages.lm.model import LanguageModel
from stages.tokenize import index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from data.progress import Progress

    Mask = NDArray[np.bool_]
    Floats = NDArray[np.float64]

WINDOW = 50
"""Characters in a row that, found in a training split as well, count as seen there."""
BLOCKS = 100
"""About as many blocks are made of the text that counts: as few, and so as long, as still tell how far they scatter.
What sets two models apart goes on for long, the longer the less alike they are: on 56,000 characters of Tiny
Shakespeare the standard error of the difference of two alike comes out as 0.0032 bits by blocks of 100 characters,
0.0040 by 400 and 0.0043 by 1,600, that of one trained on it and one trained on The Time Machine as 0.010, 0.014 and
0.021. Short blocks take chance for merit."""
SHORTEST_BLOCK = 100
"""Characters."""
FEWEST_CHARACTERS = 1_000
FEWEST_BLOCKS = 20
DRAWS = 10_000
_RESAMPLED = 1 << 20
"""Blocks drawn at once."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SPACES = np.array([chr(code).isspace() for code in range(0x3002)])
"""Code point → whether it is white space. The last entry, False, stands for all code points from there."""


@dataclass(frozen=True)
class Contender:
    """A model and what it was made from: three folders."""

    model: Path
    """Of `train`: ``model.safetensors``, ``config.json``, ``vocab.arrow``."""
    tokens: Path
    """Of `tokenize`: ``tokens.arrow``, which says where the splits lie."""
    corpus: Path
    """Of `download`: ``corpus.txt``, which says what the ids of unknown tokens do not."""


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


def judge(candidate: Contender, champion: Contender | None, progress: Progress | None = None) -> Verdict:
    """Compare a candidate with the champion on the candidate's test split.

    Both read that text with their own vocabulary and level, the state carried through all of it. Characters count but
    for the first token's, which nothing predicts, and those in a stretch of ``WINDOW`` characters that stands in the
    training split of either model as well. The candidate is promoted when the whole 99 % interval of the difference is
    above zero. Where there is no champion, a finite candidate is promoted.

    How levels and normalisers that differ are dealt with:

    - The same normaliser, both `char` or both `word`: the text as that level has it, words with a space behind each.
    - `char` and `word`: the text of the characters. The word model, which knows nothing of the white space between
      words, is charged for it too: each run costs -log2 of its share of those so far, plus one (Laplace's rule) for
      each of the kinds that this text has. A stretch counts by whole words, so that both are charged for the same.
    - `char` and `word` by `book`, which joins lines with nothing for one and with a space for the other, or two
      different normalisers: the models predict different texts, and no figure would be fair. Not promoted; the reason
      tells to do it by hand.

    What a model calls ``<unk>`` it still has to tell, or a small vocabulary would pay:

    - an unknown character costs -log2 p(<unk>) + log2 K, with K the number of different characters of this text that
      the model does not know;
    - an unknown word of n characters costs -log2 p(<unk>) + (n + 1) · log2(A + 1): spelled out, all A different
      characters of this text (but white space) and the end of the word being as likely.

    Args:
        candidate: the new model.
        champion: the model to beat, or None.
        progress: told of tokens measured.

    Raises:
        StoreError: folders that are damaged or do not belong together.
    """
    ours = _Side(candidate)
    theirs = _Side(champion) if champion else None
    if theirs and (reason := _why_not(ours, theirs)):
        return Verdict(False, reason)
    sides = [ours, theirs] if theirs else [ours]
    joined = all(side.model.level == "word" for side in sides)
    by_words = any(side.model.level == "word" for side in sides)
    passage = _Passage(ours.split("test", joined=joined), by_words=by_words, joined=joined)
    # A training split that both have is read once.
    trainings = {(side.table.corpus_sha256, side.table.level, side.table.splits["train"]): side for side in sides}
    seen = seen_in(passage.codes, *(side.split("train", joined=joined) for side in trainings.values()))
    seen = passage.whole(seen)
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

    bits: list[Floats] = []
    for number, side in enumerate(sides):

        def advance(done: int, of: int, number: int = number) -> None:
            if progress:
                progress(number * of + done, len(sides) * of, "comparing with the champion" if theirs else "measuring")

        bits.append(side.bits(passage, np.where(counted, blocks, -1), len(characters), advance)[kept])
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


def seen_in(codes: Ids, *trainings: Iterable[Ids]) -> Mask:
    """Which characters lie in a stretch of ``WINDOW`` that stands in one of the training texts, word for word.

    Stretches are told apart by 64-bit hashes: of 10^9 training characters and 10^7 others, about one in 2,000 times a
    stretch is taken for another and left out without need. Memory goes with ``codes``, not with the training texts.

    Args:
        codes: code points of shape (characters,).
        trainings: each a training text, code points in pieces.
    """
    windows, where = np.unique(_hashes(codes), return_inverse=True)
    found = np.zeros(len(windows), np.bool_)
    for pieces in trainings:
        begun = codes[:0]
        for piece in pieces:
            begun = np.concatenate((begun, piece))
            hashes = np.sort(_hashes(begun))  # so that looking up goes through the memory in order
            begun = begun[-(WINDOW - 1) :]
            if len(windows):
                rows = np.minimum(windows.searchsorted(hashes), len(windows) - 1)
                found[rows[windows[rows] == hashes]] = True
    # A stretch that was found begins at its first character and ends WINDOW characters on.
    hits = found[where]
    edges = np.zeros(len(codes) + 1, np.int32)
    edges[: len(hits)] += hits
    edges[len(edges) - len(hits) :] -= hits
    seen: Mask = edges.cumsum()[:-1] > 0
    return seen


def bootstrap(differences: Floats, characters: Floats, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The 99 % percentile interval of sum(differences) / sum(characters) over blocks drawn with replacement.

    Args:
        differences: bits of each block, shape (blocks,).
        characters: of each block, the same shape, all above zero.
        draws: how many times as many blocks as there are are drawn.
        seed: of what is drawn.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _RESAMPLED // len(differences))
    shares = np.empty(draws)
    for start in range(0, draws, rows):
        part = shares[start : start + rows]
        chosen = rng.integers(len(differences), size=(len(part), len(differences)))
        part[:] = differences[chosen].sum(axis=1) / characters[chosen].sum(axis=1)
    low, high = np.quantile(shares, (0.005, 0.995))
    return float(low), float(high)


class _Side:
    """A contender, opened."""

    def __init__(self, contender: Contender) -> None:
        self.model = LanguageModel.load(contender.model)
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
        table, split = self.table, self.table.splits[name]
        position, between = 0, True  # tokens that began before a piece, and whether the last one has ended
        for chunk in text.normalize(text.read(self._corpus), table.normalizer, table.level):
            if position > split.stop:
                return
            codes = text.code_points(chunk)
            space, begins = _words(codes, between)
            tokens = np.append(begins, len(codes)) if table.level == "word" else np.arange(len(codes) + 1)
            start, stop = tokens[np.clip([split.start - position, split.stop - position], 0, len(tokens) - 1)]
            if position > split.start:
                start = 0
            if joined:
                again = space & np.concatenate(([between], space[:-1]))
                yield np.where(space, np.uint8(ord(" ")), codes)[start:stop][~again[start:stop]]
            else:
                yield codes[start:stop]
            position += len(tokens) - 1
            between = bool(space[-1]) if len(space) else between

    def bits(
        self, passage: _Passage, blocks: NDArray[np.int32], number: int, progress: Callable[[int, int], None]
    ) -> Floats:
        """What this model takes for each block.

        Args:
            passage: the text.
            blocks: of each character, or -1 where it does not count.
            number: of blocks.
            progress: told of tokens done and all tokens.
        """
        if self.model.level == "word":
            ids = np.concatenate([index(piece, self.model.vocab) for piece in passage.words()])
            extra = passage.cost_of_words(ids == 0)
            blocks = blocks[passage.starts]
        else:
            ids = index(passage.codes, self.model.vocab)
            extra = passage.cost_of_characters(ids == 0)
        sums = np.zeros(number)
        done = 1
        for losses in self.model.network.losses(ids):
            part = slice(done, done + len(losses))
            counted = blocks[part] >= 0
            bits = losses.astype(np.float64) / math.log(2) + extra[part]
            np.add.at(sums, blocks[part][counted], bits[counted])
            done = part.stop
            progress(done, len(ids))
        return sums


class _Passage:
    """The text that is compared: its words, where a model reads words, and what it costs beside the models' bits."""

    def __init__(self, pieces: Iterable[Ids], *, by_words: bool, joined: bool) -> None:
        self.codes: Ids = np.concatenate([np.empty(0, np.uint8), *pieces])
        self._by_words = by_words
        self._joined = joined
        self._space, self.starts = _words(self.codes, True)
        if not len(self.starts):
            self.codes = self.codes[:0]
        self.starts[:1] = 0  # white space before the first word is taken for a part of it
        self._lengths = np.diff(self.starts, append=len(self.codes))
        self.first = slice(0, int(self._lengths[0]) if by_words and len(self._lengths) else 1)
        """The characters of the first token, which nothing predicts."""

    def blocks(self, length: int) -> NDArray[np.int32]:
        """The block of each character; the words that begin in one stay whole."""
        if self._by_words:
            return np.repeat((self.starts // length).astype(np.int32), self._lengths)
        return np.arange(len(self.codes), dtype=np.int32) // np.int32(length)

    def whole(self, mask: Mask) -> Mask:
        """The mask, where words are read with the rest of every word that it holds a part of."""
        if not self._by_words or not len(mask):
            return mask
        return np.repeat(np.logical_or.reduceat(mask, self.starts), self._lengths)

    def words(self) -> Iterator[pa.StringArray]:
        steps = range(0, len(self.codes), text.CHUNK)
        return text.words(_string(self.codes[step : step + text.CHUNK]) for step in steps)

    def cost_of_characters(self, unknown: Mask) -> Floats:
        """Bits that tell each unknown character from the others, shape (characters,)."""
        distinct = len(np.unique(self.codes[unknown]))
        return np.where(unknown, math.log2(max(distinct, 1)), 0.0)

    def cost_of_words(self, unknown: Mask) -> Floats:
        """Bits that spell each unknown word, and that tell the white space behind each word, shape (words,)."""
        letters = ~self._space
        lengths = np.add.reduceat(letters, self.starts, dtype=np.int64)
        alphabet = len(np.unique(self.codes[letters]))
        cost = np.where(unknown, (lengths + 1) * math.log2(alphabet + 1), 0.0)
        if self._joined:
            return cost
        ends = np.flatnonzero(letters & np.append(self._space[1:], True)) + 1
        whole = _string(self.codes)
        gaps = [whole[end:start] for end, start in zip(ends, [*self.starts[1:], len(whole)], strict=True)]
        return cost + adaptive_cost(np.unique(gaps, return_inverse=True)[1])


def _why_not(ours: _Side, theirs: _Side) -> str | None:
    """Why there is nothing to compare, or None."""
    if ours.model.normalizer != theirs.model.normalizer:
        both = f"normalizer={ours.model.normalizer} and normalizer={theirs.model.normalizer}"
    elif ours.model.level != theirs.model.level and ours.model.normalizer == "book":
        both = f"level={ours.model.level} and level={theirs.model.level} with normalizer=book"
    elif ours.weights == theirs.weights and ours.model.vocab.tokens == theirs.model.vocab.tokens:
        return "it is the champion's equal: the same weights"
    else:
        return None
    return (
        f"no figure compares it with the champion, for {both} make different texts: promote it by hand if it is wanted"
    )


def _words(codes: Ids, between: bool) -> tuple[Mask, NDArray[np.intp]]:
    """Where white space is, and where words begin; ``between``: what comes before does not end in a word."""
    space = _SPACES.take(codes, mode="clip")
    return space, np.flatnonzero(~space & np.concatenate(([between], space[:-1]))[: len(space)])


def _hashes(codes: Ids) -> NDArray[np.uint64]:
    """A polynomial of each stretch of ``WINDOW`` characters modulo 2^64, shape (characters - WINDOW + 1,) or (0,).

    A stretch of 2k is put together of two of k, so that 50 characters take eight passes instead of fifty.
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


def adaptive_cost(kinds: NDArray[np.intp]) -> Floats:
    """Bits of each symbol of a sequence for a code that knows the alphabet and counts as it goes (Laplace's rule).

    The k-th symbol costs -log2((times it came before + 1) / (k + alphabet)), k from 0.

    Args:
        kinds: symbols 0 to alphabet - 1, each of which occurs.
    """
    order = np.argsort(kinds, kind="stable")
    among = kinds[order]
    before = np.empty(len(kinds))
    before[order] = np.arange(len(kinds)) - among.searchsorted(among)
    alphabet = len(np.unique(kinds))
    cost: Floats = np.log2((np.arange(len(kinds)) + alphabet) / (before + 1))
    return cost


def _string(codes: Ids) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
