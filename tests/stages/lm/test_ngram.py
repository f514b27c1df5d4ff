"""Models that count: against counting in dictionaries, as distributions, and on real text."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.errors import ConfigError
from data.tables.tokens import END_ID
from stages.lm import counts, ngram
from stages.lm.ngram import NGram

ROOT = Path(__file__).parents[3]
TEXTS = {
    "few tokens": (random.Random(0).choices([1, 1, 1, 2, 3, 4], k=300), 6),
    "many tokens": (random.Random(1).choices(range(1, 90), k=300), 100),
    "in an order": ([number % 7 for number in range(200)], 8),
    "one token": ([3] * 50, 5),
    "shorter than an n-gram": ([1, 2, 1], 4),
    "a single token": ([1], 3),
    "two tokens": ([1, 2], 3),
    "documents": ([1 if at % 9 == 8 else random.Random(at).randrange(2, 6) for at in range(250)], 6),
    "documents of nothing": ([1, 1, 2, 1, 1, 1, 3, 2, 1], 4),
    "ids as large as they get": (random.Random(2).choices([0, 7, 2**31, 2**32 - 1], k=200), 2**32),
}
SMALL = [name for name, (_, vocab_size) in TEXTS.items() if vocab_size <= 100]


class Dictionaries:
    """Interpolated modified Kneser-Ney as it is written down, a sum at a time."""

    def __init__(
        self, text: list[int], vocab_size: int, order: int = ngram.ORDER, ends: bool = False, min_count: int = 1
    ) -> None:
        self.vocab_size, self.ends = vocab_size, ends
        text = [END_ID, *text] if ends and order > 1 else text
        seen = {
            length: Counter(
                gram
                for gram in (tuple(text[at : at + length]) for at in range(len(text) - length + 1))
                if not ends or END_ID not in gram[1:-1]
            )
            for length in range(1, order + 1)
        }
        seen = {length: some for length, some in seen.items() if some}
        counts = {max(seen): dict(seen[max(seen)])}
        for length in range(1, max(seen)):
            before: dict[tuple[int, ...], set[int]] = {gram: set() for gram in seen[length]}
            for longer in seen[length + 1]:
                before[longer[1:]].add(longer[0])
            counts[length] = {gram: len(tokens) for gram, tokens in before.items()}
            if ends and length > 1:
                counts[length] |= {gram: number for gram, number in seen[length].items() if gram[0] == END_ID}
        self.discounts = {length: self.estimated(Counter(some.values())) for length, some in counts.items()}
        self.kept = {
            gram for length in counts for gram, often in seen[length].items() if length < 3 or often >= min_count
        }
        self.order = max(map(len, self.kept))
        self.followers: dict[tuple[int, ...], dict[int, int]] = {}
        for length in range(1, self.order + 1):
            for gram, number in counts[length].items():
                if number and (length == 1 or gram[:-1] in self.kept):
                    self.followers.setdefault(gram[:-1], {})[gram[-1]] = number

    def estimated(self, n: Counter[int]) -> tuple[float, ...]:
        if all(n[j] for j in (1, 2, 3, 4)):
            y = n[1] / (n[1] + 2 * n[2])
            discounts = 0.0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]
            if min(discounts[1:]) > 0:
                return discounts
        return 0.0, 0.5, 1.0, 1.5

    def parts(self, token: int, context: tuple[int, ...]) -> tuple[float, float] | None:
        """What a context gives to a token, and leaves to the shorter one; None where none followed it that is kept."""
        followers = self.followers.get(context, {})
        total, discounts = sum(followers.values()), self.discounts[len(context) + 1]
        own = {one: (c - discounts[min(c, 3)]) / total for one, c in followers.items() if (*context, one) in self.kept}
        return (own.get(token, 0.0), 1 - math.fsum(own.values())) if own else None

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        shorter = self.probability(token, context[1:]) if context else 1 / self.vocab_size
        own, rest = self.parts(token, context) or (0.0, 1.0)
        return shorter * rest + own

    def context(self, read: list[int]) -> tuple[int, ...]:
        known = read[max(len(read) - self.order + 1, 0) :]
        if self.ends and END_ID in known:
            known = known[len(known) - 1 - known[::-1].index(END_ID) :]
        return tuple(known)

    def found(self, context: tuple[int, ...]) -> int:
        return max((n for n in range(len(context) + 1) if n and self.parts(0, context[len(context) - n :])), default=0)


def losses(model: NGram, ids: list[int]) -> list[float]:
    return [float(loss) for chunk in model.losses(np.array(ids, np.uint32)) for loss in chunk]


def array(ids: list[int]) -> np.ndarray:
    return np.array(ids, np.uint32)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("ends", "min_count"), [(False, 1), (True, 1), (False, 2), (True, 3)])
def test_it_is_what_counting_in_dictionaries_gives(name: str, ends: bool, min_count: int) -> None:
    text, vocab_size = TEXTS[name]
    rng = random.Random(3)
    unseen = [rng.choice([*text, 0, vocab_size - 1]) for _ in range(60)]
    for order in range(1, 7):
        model = NGram.fit(array(text), vocab_size, order, ends=ends, min_count=min_count)
        slow = Dictionaries(text, vocab_size, order, ends, min_count)
        assert len(model.orders) == slow.order
        for ids in (text[:60], unseen, [0, 0, 0, text[0]]):
            contexts = [slow.context(ids[:at]) for at in range(1, len(ids))]
            nats, found = model.read(array(ids), model.zero_state())
            expected = [-math.log(slow.probability(*one)) for one in zip(ids[1:], contexts, strict=True)]
            assert nats == pytest.approx(expected, rel=1e-12, abs=1e-12)
            assert found.tolist() == [slow.found(context) for context in contexts]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("order", "ends", "min_count"), [(1, False, 1), (2, True, 1), (5, True, 1), (6, False, 2)])
def test_a_token_at_a_time_it_says_what_it_reads(name: str, order: int, ends: bool, min_count: int) -> None:
    text, vocab_size = TEXTS[name]
    model = NGram.fit(array(text), vocab_size, order, ends=ends, min_count=min_count)
    rng = random.Random(4)
    ids = [*text[:40], *(rng.choice([*text, 0, vocab_size - 1]) for _ in range(60)), 0, 0, *text[:9]]
    last, states = model.zero_state(), model.zero_state()
    nats, found = model.read(array(ids), last)
    for at, id_ in enumerate(ids):
        probabilities = model.probabilities(states)
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)
        if at:
            assert -np.log(probabilities[[id_]]) == nats[at - 1]  # to the bit
            assert model.found(states) == found[at - 1]
        np.testing.assert_array_equal(model.readout(2)(states), np.log(probabilities[2:]).astype(np.float32))
        probabilities[:] = 0  # what is remembered is not the caller's
        if at == len(ids) - 1:
            np.testing.assert_array_equal(states, last)
        [(rows,)] = states
        before = rows.copy()
        model.advance(id_, states)
        np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("order", "ends"), [(1, False), (5, True), (6, False)])
def test_several_texts_side_by_side_are_what_each_is_alone(name: str, order: int, ends: bool) -> None:
    text, vocab_size = TEXTS[name]
    model = NGram.fit(array(text), vocab_size, order, ends=ends)
    texts = random.Random(5).choices([*text, 0, vocab_size - 1], k=20 * 6)
    columns, alone = model.zero_state(6), [model.zero_state() for _ in range(6)]
    for start in range(0, len(texts), 6):
        np.testing.assert_array_equal(columns, np.stack(alone, axis=-1))
        together = model.probabilities_columns(columns)
        np.testing.assert_array_equal(together, [model.probabilities(states) for states in alone])
        said = model.readout_columns(1)(columns)
        np.testing.assert_array_equal(said, [model.readout(1)(states) for states in alone])
        assert model.found(columns).tolist() == [model.found(states) for states in alone]
        ids = texts[start : start + 6]
        model.advance_columns(np.array(ids, np.uint8), columns)
        for id_, states in zip(ids, alone, strict=True):
            model.advance(id_, states)


@pytest.mark.parametrize("ends", [False, True])
def test_it_may_be_read_in_pieces(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    text, vocab_size = TEXTS["few tokens"]
    model = NGram.fit(array(text), vocab_size, ends=ends)
    last = model.zero_state()
    whole = model.read(array(text), last)
    for cut in (1, 2, 3, 4, 6, 17, 150, 299, 300):
        states = model.zero_state()
        parts = [model.read(array(part), states) for part in (text[:cut], text[cut - 1 :])]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
        np.testing.assert_array_equal(states, last)
    monkeypatch.setattr(ngram, "_CHUNK", 7)
    states = model.zero_state()
    np.testing.assert_array_equal(model.read(array(text), states), whole)
    np.testing.assert_array_equal(states, last)
    empty, none = model.read(array([]), states)
    assert (len(empty), len(none)) == (0, 0)
    np.testing.assert_array_equal(states, last)


def test_a_document_costs_the_same_whatever_stands_before_it() -> None:
    rng = random.Random(6)
    documents = [[*rng.choices([2, 3, 4, 5], k=rng.randrange(12)), END_ID] for _ in range(60)]
    text = [id_ for one in documents for id_ in one]
    model = NGram.fit(array(text), 6, ends=True)
    for document in documents[:9]:
        costs = {
            tuple(model.read(array([*before, END_ID, *document]), model.zero_state())[0][-len(document) :])
            for before in ([], [2], [3, 3, 4, 2, 5], [END_ID, 4])
        }
        assert len(costs) == 1
    # In another order, they are counted the same.
    rng.shuffle(documents)
    again = NGram.fit(array([id_ for one in documents for id_ in one]), 6, ends=True)
    nats, others = (some.read(array(text), some.zero_state())[0] for some in (model, again))
    np.testing.assert_array_equal(nats, others)


def test_what_comes_seldom_is_left_out_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    text, vocab_size = TEXTS["few tokens"]
    sizes = [NGram.fit(array(text), vocab_size, min_count=least).orders for least in (1, 2, 5, 1000)]
    assert [len(some) for some in sizes] == [5, 5, 5, 2]
    assert {some[:2] for some in sizes} == {sizes[3]}
    assert sum(sizes[0]) > sum(sizes[1]) > sum(sizes[2])
    monkeypatch.setattr(counts, "LARGEST", sum(sizes[1]))
    NGram.fit(array(text), vocab_size, min_count=2)
    with pytest.raises(ConfigError, match=r"set train\.ngram_min_count above 1, or train\.ngram below 4"):
        NGram.fit(array(text), vocab_size)


@pytest.mark.parametrize("order", [0, 65])
def test_an_order_that_cannot_be_is_refused(order: int) -> None:
    with pytest.raises(ConfigError, match=f"train.ngram must be 1 to 64, not {order}"):
        NGram.fit(array([1, 2, 3]), 4, order)


@pytest.mark.parametrize("min_count", [1, 2])
def test_what_was_written_says_the_same_to_the_bit(tmp_path: Path, min_count: int) -> None:
    text, vocab_size = TEXTS["few tokens"]
    model = NGram.fit(array(text), vocab_size, 6, ends=True, min_count=min_count)
    model.write(tmp_path / "a.arrow")
    opened = NGram.open(tmp_path / "a.arrow", vocab_size)
    opened.write(tmp_path / "b.arrow")
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()
    assert (opened.orders, opened.vocab_size, opened.ends) == (model.orders, vocab_size, True)
    for one, other in zip(*(some.read(array(text), some.zero_state()) for some in (model, opened)), strict=True):
        np.testing.assert_array_equal(one, other)
    states = model.beginning()
    model.advance(2, states)
    np.testing.assert_array_equal(model.probabilities(states), opened.probabilities(states))


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
    assert math.isnan(model.loss(np.array(text[:1], np.uint8)))


def test_a_token_that_depends_on_four_others_is_foreseen() -> None:
    rng = random.Random(5)
    text = [1, 2, 2, 1]
    for _ in range(8000):  # whether the last four add up to something odd, but for one time in ten
        text.append(1 + (sum(text[-4:]) + (rng.random() < 0.1)) % 2)
    ids = np.array(text, np.uint8)
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert NGram.fit(ids[:4000], 3).loss(ids[4000:]) == pytest.approx(entropy, rel=0.05)
    assert NGram.fit(ids[:4000], 3, order=4).loss(ids[4000:]) == pytest.approx(math.log(2), rel=0.05)


@pytest.mark.parametrize(
    ("level", "order", "share", "expected"),
    [
        ("char", 5, 90, 1.5612),
        ("char", 6, 90, 1.523),
        ("char", 8, 90, 1.519),
        ("char", 8, 85, 1.679),
        ("word", 5, 90, 7.3074),
    ],
)
def test_tiny_shakespeare(level: str, order: int, share: int, expected: float) -> None:
    path = ROOT.parent / "shared" / "corpora" / "tinyshakespeare.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    text = path.read_text(encoding="utf-8")
    tokens = list(text) if level == "char" else text.split()
    stop, begin = len(tokens) * share // 100, len(tokens) * 9 // 10
    known = {token: id_ for id_, token in enumerate(sorted(set(tokens[:stop])), 1)}
    ids = np.array([known.get(token, 0) for token in tokens], np.uint16)
    model = NGram.fit(ids[:stop], len(known) + 1, order)
    assert model.loss(ids[begin:]) == pytest.approx(expected, abs=1e-4 if order == 5 else 5e-4)
