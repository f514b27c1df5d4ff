"""Nights by the year: how often the judge promotes a model that is no better, and how soon one that is better.

    .venv/bin/python -P tests/years.py CORPUS [--lstm]     (-P, or the folder tests/data would be taken for the package)

A pool of models of one recipe: 5-grams that each lack a random tenth of 100,000 characters, or seeds of a small LSTM.
Each night of a year one of them is drawn and meets the champion on the newest characters of the text that follows, of
which some are new since the night before: its test text and that which the champion had, as the judge has it. A
promoted model is worse where it is so, on the text of the month after, than the one that it replaced.

What is truly better is made of a model of the pool and of a 5-gram that has also counted every third thousand of the
characters that follow, which no model is compared on: each character's bits lie between those of the two, so that on
all the text the champion needs 0.05 bits per character more, or 0.2. That is what the weighted geometric mean of their
probabilities costs at most (by Hölder's inequality, what it sums up to is at most 1).

Prints a row for each length of text; exit code 1 where one lacks what is asked for. A corpus of a million characters,
and a minute; seeds take a few more the first time, and are kept in the store.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.progress import LogLines
from data.store.folder import open_store
from data.tables.tokens import Ids, IndexTable
from data.tables.vocab import Vocab
from stages.config import PromotionConfig, RunConfig
from stages.lm.model import LanguageModel
from stages.lm.ngram import NGram
from stages.pipeline.run import Walk, perform
from stages.promotion.interval import blocks, cut
from stages.promotion.judge import Text, compare, decide
from stages.promotion.measure import Measured

TRAINED = 100_000
"""Characters that the models of a pool come from."""
STRETCH = 1_000
"""Of three such stretches of what follows, the better 5-gram counts one."""
GRAMS, SEEDS = 30, 8
"""Models of a pool."""
LSTM = {
    "cell": "lstm",
    "hidden_size": 96,
    "embedding_size": 32,
    "initializer": "uniform",
    "output_dropout": 0.3,
    "epochs": 16,
    "optimizer": "adamw",
    "learning_rate": 0.012,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "warmup_epochs": 1.0,
    "averaging": 0.0,
    "device": "cpu",
}
SIZES = {2_500: 250, 25_000: 500, 100_000: 1_000}
"""Characters of the text that models are compared on → how many of them are new each night."""
YEARS, CASES = 48, 100
NIGHTS, MONTH, WEEK = 365, 30, 7
WAITS = (0, MONTH - 1)
"""Nights before what is better appears."""
LARGE = 25_000
MOST_PROMOTIONS = 1.0
"""A year, of candidates of one recipe."""
LEAST_POWER = 0.9

Bits = NDArray[np.floating[Any]]
Pair = tuple[Bits, Bits]
"""What candidate and champion need for each character of a text."""
Rule = Callable[[Pair, Pair], bool]
"""Whether a candidate is promoted, by today's text and by the champion's own."""


def main() -> None:
    """Print a row per size; exit code 1 where one lacks something."""
    corpus, lstm = Path(sys.argv[1]), "--lstm" in sys.argv[2:]
    folder = made(corpus, "tokenize")
    ids, vocab_size = IndexTable.open(folder / "tokens.arrow").ids, len(Vocab.read(folder / "vocab.arrow"))
    pool = seeds(corpus, ids, vocab_size) if lstm else grams(ids, vocab_size)
    gains = " | ".join(f"{gain:g} bits at once, from night 30" for gain in (0.05, 0.2))
    print(f"| characters, new a night | promotions a year | of them worse | {gains} |\n|---|---|---|---|---|")
    failed = False
    for size, new in SIZES.items():
        row = measure(pool, size, new, judged)
        print(row, flush=True)
        for what in lacking(row):
            failed = True
            print(f"{size:,} characters: {what}", file=sys.stderr)
    sys.exit(failed)


def judged(today: Pair, ground: Pair, config: PromotionConfig | None = None) -> bool:
    """As the judge decides."""
    rule = config or PromotionConfig()
    texts: dict[Text, Pair] = {"today": today, "champion": ground}
    # What speaks against most candidates is today's text.
    if not decide([compare("today", parted(today, rule), rule)]).promoted:
        return False
    return decide([compare(text, parted(pair, rule), rule) for text, pair in texts.items()]).promoted


def parted(pair: Pair, rule: PromotionConfig) -> Measured:
    """Bits of each part of each block, as the judge measures them."""
    shape = blocks(len(pair[0]), rule)
    number = shape[0] * shape[1]
    starts = cut(len(pair[0]), number).searchsorted(np.arange(number))
    characters = np.diff(starts, append=len(pair[0])).astype(np.float64).reshape(shape)
    return Measured(characters, tuple(np.add.reduceat(bits, starts, dtype=np.float64).reshape(shape) for bits in pair))


@dataclass(frozen=True)
class Pool:
    """Models of one recipe."""

    bits: Bits
    """What each model needs for each character of what follows, which comes twice; shape (models, characters)."""
    better: Bits
    """The same of the 5-gram that has counted more, shape (characters,)."""

    @cached_property
    def needs(self) -> list[float]:
        """What each model needs per character of all the text, the better 5-gram last."""
        return [float(bits.mean(dtype=np.float64)) for bits in (*self.bits, self.better)]

    def improved(self, champion: int, model: int, gain: float, where: slice) -> Bits:
        """What a model needs that is so far on the way to the better 5-gram that it gains on the champion."""
        ours = self.needs[model]
        share = (ours - self.needs[champion] + gain) / (ours - self.needs[-1])
        if not 0 <= share <= 1:
            raise SystemExit(f"the better 5-gram does not make {gain:g} bits of gain: the corpus is too short")
        bits: Bits = self.bits[model, where] + np.float32(share) * (self.better[where] - self.bits[model, where])
        return bits


class Deployment:
    """Nights of one champion, begun at a random place with a random model of the pool.

    Args:
        pool: the models.
        size: characters of today's test text.
        new: how many of them are new each night.
        lasts: nights that there has to be text for.
    """

    def __init__(self, pool: Pool, size: int, new: int, promotes: Rule, lasts: int, rng: np.random.Generator) -> None:
        self._pool, self._size, self._new, self._promotes, self._rng = pool, size, new, promotes, rng
        once = pool.bits.shape[1] // 2
        if (missing := size + lasts * new - once) > 0:
            raise SystemExit(f"the text that follows is {missing:,} characters too short")
        self.end = size + int(rng.integers(once))
        """Where today's text ends."""
        self.champion = int(rng.integers(len(pool.bits)))
        self._own = self._today

    @property
    def _today(self) -> slice:
        return slice(self.end - self._size, self.end)

    def night(self, gain: float = 0.0) -> bool:
        """Another model of the pool meets the champion, made better than it by ``gain`` if that is above zero; the text
        has grown after it.

        Returns:
            Whether it was promoted.
        """
        champion, own, today = self.champion, self._own, self._today
        other = int(self._rng.integers(len(self._pool.bits) - 1))
        model = other + (other >= champion)
        pool = self._pool

        def pair(where: slice) -> Pair:
            ours = pool.improved(champion, model, gain, where) if gain else pool.bits[model, where]
            return ours, pool.bits[champion, where]

        promoted = self._promotes(pair(today), pair(own))
        if promoted:
            self.champion, self._own = model, today
        self.end += self._new
        return promoted

    def worse(self, before: int) -> bool:
        """Whether the champion is worse, on the text of the next month, than the model before it."""
        month = slice(self.end - self._new, self.end + (MONTH - 1) * self._new)
        return bool(self._pool.bits[self.champion, month].mean() > self._pool.bits[before, month].mean())


@dataclass(frozen=True)
class Row:
    """What a rule does at one size."""

    size: int
    new: int
    years: int
    promotions: int
    """Of candidates of one recipe."""
    worse: int
    """How many of them."""
    power: Mapping[float, list[float]]
    """True gain → the fraction of cases in which it is promoted within a week, for each of `WAITS`."""

    def __str__(self) -> str:
        worse = f"{self.worse} of {self.promotions}" if self.promotions else "–"
        power = (", ".join(f"{one:.2f}" for one in found) for found in self.power.values())
        cells = [f"{self.size:,}, {self.new:,}", f"{self.promotions / self.years:.2f}", worse, *power]
        return f"| {' | '.join(cells)} |"


def measure(
    pool: Pool, size: int, new: int, promotes: Rule, years: int = YEARS, cases: int = CASES, nights: int = NIGHTS
) -> Row:
    """Let a rule decide for years, and in cases in which a candidate is truly better."""
    rng = np.random.default_rng(0)
    worse: list[bool] = []
    for _ in range(years):
        nightly = Deployment(pool, size, new, promotes, nights + MONTH, rng)
        for _ in range(nights):
            before = nightly.champion
            if nightly.night():
                worse.append(nightly.worse(before))

    def week(gain: float, wait: int) -> bool:
        nightly = Deployment(pool, size, new, promotes, wait + WEEK, rng)
        for _ in range(wait):
            nightly.night()
        return any(nightly.night(gain) for _ in range(WEEK))

    power = {gain: [sum(week(gain, wait) for _ in range(cases)) / cases for wait in WAITS] for gain in (0.05, 0.2)}
    return Row(size, new, years, len(worse), sum(worse), power)


def lacking(row: Row) -> list[str]:
    """What a rule lacks of what is asked for."""
    found = []
    if row.promotions > MOST_PROMOTIONS * row.years:
        found.append(f"{row.promotions / row.years:.2f} promotions a year, where {MOST_PROMOTIONS:g} is let pass")
    let = 0.05 if row.size >= LARGE else 0.15
    if row.worse > let * row.promotions:
        found.append(f"{row.worse} of {row.promotions} promotions are worse, where {let:.0%} are let pass")
    gain = 0.05 if row.size >= LARGE else 0.2
    if min(row.power[gain]) < LEAST_POWER:
        found.append(
            f"a gain of {gain:g} bits is promoted within a week in {min(row.power[gain]):.0%} of cases, where "
            f"{LEAST_POWER:.0%} are asked for"
        )
    return found


def grams(ids: Ids, vocab_size: int, trained: int = TRAINED, models: int = GRAMS) -> Pool:
    """5-grams that each lack a random tenth of the beginning of a text, in stretches of a hundredth of it."""
    stretches = np.array_split(ids[:trained], 100)
    rng = np.random.default_rng(0)
    known, text = parts(ids, trained)

    def one() -> Bits:
        kept = np.sort(rng.permutation(len(stretches))[: len(stretches) * 9 // 10])
        return counted(np.concatenate([stretches[number] for number in kept]), text, vocab_size)

    return Pool(np.array([one() for _ in range(models)]), counted(known, text, vocab_size))


def seeds(corpus: Path, ids: Ids, vocab_size: int) -> Pool:
    """Seeds of a small LSTM."""
    known, text = parts(ids, TRAINED)

    def one(seed: int) -> Bits:
        return in_bits(LanguageModel.load(made(corpus, "train", seed)).network.losses(text))

    return Pool(np.array([one(seed) for seed in range(SEEDS)]), counted(known, text, vocab_size))


def parts(ids: Ids, trained: int) -> tuple[Ids, Ids]:
    """What the better 5-gram counts of a text, and what models are compared on."""
    number = (len(ids) - trained) // (3 * STRETCH)
    stretches = ids[trained:][: number * 3 * STRETCH].reshape(number, 3, STRETCH)
    return np.concatenate([ids[:trained], stretches[:, 0].ravel()]), stretches[:, 1:].ravel()


def counted(ids: Ids, text: Ids, vocab_size: int) -> Bits:
    """What a 5-gram of some tokens needs for each token of a text but the first."""
    return in_bits(NGram.fit(ids, vocab_size).losses(text))


def in_bits(losses: Iterable[Bits]) -> Bits:
    """Losses in nats, in pieces, as bits, all of them twice, so that a year may begin anywhere."""
    return np.tile((np.concatenate(list(losses)) / np.log(2)).astype(np.float32), 2)


def made(corpus: Path, stage: str, seed: int = 0) -> Path:
    """What a stage of the project makes of a text of which the first characters are for training."""
    share = TRAINED / len(corpus.read_text(encoding="utf-8"))
    tokenize = {"fit_vocab_on": "all", "train_share": share, "valid_share": 0, "test_share": 1 - share}
    config = RunConfig.model_validate(
        {"download": {"corpus": str(corpus)}, "tokenize": tokenize, "train": {**LSTM, "seed": seed}}
    )
    store = open_store(None)
    walk = Walk(lambda name, upstream: perform(name, config, upstream, store, LogLines(name)))
    return walk.to(stage).folder


if __name__ == "__main__":
    main()
