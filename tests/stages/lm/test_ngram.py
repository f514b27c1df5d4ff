"""Models that count: against counting in dictionaries, as distributions, and on real text."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stages.lm import metrics, ngram
from stages.lm.ngram import NGram

ROOT = Path(__file__).parents[3]
TEXTS = {
    "few tokens": (random.Random(0).choices([1, 1, 1, 2, 3, 4], k=300), 6),
    "many tokens": (random.Random(1).choices(range(1, 90), k=300), 100),
    "in an order": ([number % 7 for number in range(200)], 8),
    "one token": ([3] * 50, 5),
    "shorter than an n-gram": ([1, 2, 1], 4),
    "a single token": ([1], 3),
    "ids as large as they get": (random.Random(2).choices([0, 7, 2**31, 2**32 - 1], k=200), 2**32),
}


class Dictionaries:
    """Interpolated modified Kneser-Ney as it is written down, a sum at a time."""

    def __init__(self, text: list[int], vocab_size: int) -> None:
        self.order = min(ngram.ORDER, len(text))
        self.vocab_size = vocab_size
        seen = {
            length: Counter(tuple(text[at : at + length]) for at in range(len(text) - length + 1))
            for length in range(1, self.order + 1)
        }
        self.counts = {self.order: dict(seen[self.order])}
        for length in range(1, self.order):
            before = {gram: {longer[0] for longer in seen[length + 1] if longer[1:] == gram} for gram in seen[length]}
            self.counts[length] = {gram: len(tokens) for gram, tokens in before.items()}

    def discount(self, length: int, count: int) -> float:
        if count == 0:
            return 0.0
        n = Counter(self.counts[length].values())
        fallback = {1: 0.5, 2: 1.0, 3: 1.5}[min(count, 3)]
        if not all(n[j] for j in (1, 2, 3, 4)):
            return fallback
        y = n[1] / (n[1] + 2 * n[2])
        discounts = {1: 1 - 2 * y * n[2] / n[1], 2: 2 - 3 * y * n[3] / n[2], 3: 3 - 4 * y * n[4] / n[3]}
        return discounts[min(count, 3)] if min(discounts.values()) > 0 else fallback

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        shorter = self.probability(token, context[1:]) if context else 1 / self.vocab_size
        length = len(context) + 1
        followers = {gram[-1]: count for gram, count in self.counts[length].items() if gram[:-1] == context and count}
        total = sum(followers.values())
        if not total:
            return shorter
        own = followers.get(token, 0)
        rest = sum(self.discount(length, count) for count in followers.values())
        return (own - self.discount(length, own)) / total + rest / total * shorter

    def losses(self, ids: list[int]) -> list[float]:
        longest = self.order - 1
        return [
            -math.log(self.probability(ids[at], tuple(ids[max(at - longest, 0) : at]))) for at in range(1, len(ids))
        ]


def losses(model: NGram, ids: list[int]) -> list[float]:
    return [float(loss) for chunk in model.losses(np.array(ids, np.uint32)) for loss in chunk]


@pytest.mark.parametrize("name", TEXTS)
def test_every_probability_is_that_of_counting_in_dictionaries(name: str) -> None:
    text, vocab_size = TEXTS[name]
    model = NGram.fit(np.array(text, np.uint32), vocab_size)
    slow = Dictionaries(text, vocab_size)
    rng = random.Random(3)
    unseen = [rng.choice([*text, 0, vocab_size - 1]) for _ in range(100)]
    for ids in (text, unseen, [0, 0, 0, text[0]]):
        assert losses(model, ids) == pytest.approx(slow.losses(ids), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in TEXTS if TEXTS[name][1] <= 100])
def test_the_probabilities_of_what_may_follow_add_up_to_one(name: str) -> None:
    text, vocab_size = TEXTS[name]
    model = NGram.fit(np.array(text, np.uint8), vocab_size)
    rng = random.Random(4)
    contexts = [text[at : at + 4] for at in range(0, len(text), 29)]
    contexts += [text[:1], text[:4], text[-4:], text[-1:], [0], [0] * 4, [vocab_size - 1] * 3]
    contexts += [[rng.randrange(vocab_size) for _ in range(4)] for _ in range(10)]
    contexts += [[0, *text[:3]], [*text[:3], 0]]
    for context in contexts:
        total = sum(math.exp(-losses(model, [*context, token])[-1]) for token in range(vocab_size))
        assert total == pytest.approx(1, abs=1e-6), context


def test_where_it_is_cut_into_chunks_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    text, vocab_size = TEXTS["few tokens"]
    model = NGram.fit(np.array(text, np.uint8), vocab_size)
    whole = losses(model, text)
    assert len(whole) == len(text) - 1
    for chunk in (1, 2, 3, 7, 298, 299):
        monkeypatch.setattr(ngram, "_CHUNK", chunk)
        assert losses(model, text) == whole
    assert model.loss(np.array(text, np.uint8)) == pytest.approx(sum(whole) / len(whole))
    assert losses(model, text[:1]) == losses(model, []) == []


def test_a_token_that_depends_on_four_others_is_foreseen() -> None:
    rng = random.Random(5)
    text = [1, 2, 2, 1]
    for _ in range(8000):  # whether the last four add up to something odd, but for one time in ten
        text.append(1 + (sum(text[-4:]) + (rng.random() < 0.1)) % 2)
    ids = np.array(text, np.uint8)
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert NGram.fit(ids[:4000], 3).loss(ids[4000:]) == pytest.approx(entropy, rel=0.05)
    assert NGram.fit(ids[:4000], 3, order=4).loss(ids[4000:]) == pytest.approx(math.log(2), rel=0.05)


@pytest.mark.parametrize(("level", "valid"), [("char", 1.5612), ("word", 7.3074)])
def test_tiny_shakespeare(level: str, valid: float) -> None:
    path = ROOT.parent / "shared" / "corpora" / "tinyshakespeare.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    text = path.read_text(encoding="utf-8")
    tokens = list(text) if level == "char" else text.split()
    stop = len(tokens) * 9 // 10
    known = {token: id_ for id_, token in enumerate(sorted(set(tokens[:stop])), 1)}
    ids = np.array([known.get(token, 0) for token in tokens], np.uint16)
    model = NGram.fit(ids[:stop], len(known) + 1)
    assert model.loss(ids[stop:]) == pytest.approx(valid, abs=1e-4)


def test_uniform_is_the_vocabulary_size() -> None:
    assert metrics.perplexity(ngram.uniform_loss(28)) == pytest.approx(28)


def test_unigram_counts_with_one_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "_CHUNK", 3)
    unigram = ngram.Unigram.fit(np.array([1, 1, 2, 1, 1, 1, 2], np.uint8), 4)
    np.testing.assert_allclose(np.exp(unigram.log_probabilities), [1 / 11, 6 / 11, 3 / 11, 1 / 11])
    expected = -(math.log(6 / 11) + math.log(1 / 11)) / 2
    assert unigram.loss(np.array([1, 3], np.uint8)) == pytest.approx(expected)
    assert unigram.loss(np.array([1, 3] * 50, np.uint16)) == pytest.approx(expected)
