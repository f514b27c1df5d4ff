"""N-grams that go on counting: against models that were fitted on all that was read, and with another future."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from data.tables.tokens import END_ID
from stages.lm import counting, smoothing
from stages.lm.counting import Counting
from stages.lm.ngram import NGram

ROOT = Path(__file__).parents[3]
RANDOM = random.Random(0)
TEXT = [*RANDOM.choices([2, 2, 2, 3, 4, 5], k=120), *[2, 4, 3, 5, 5, 0, 3] * 12, *RANDOM.choices(range(1, 7), k=60)]
DOCUMENTS = [1 if at % 9 == 8 else token for at, token in enumerate(TEXT)]
VOCAB_SIZE = 7


def array(ids: list[int]) -> np.ndarray:
    return np.array(ids, np.uint8)


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discounts that do not depend on the text."""
    monkeypatch.setattr(smoothing, "discounts", lambda counts: (0.5, 1.0, 1.5))


@pytest.mark.usefixtures("constant")
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize(("text", "ends"), [(TEXT, False), (DOCUMENTS, True), ([3] * 200, False)])
def test_it_says_what_a_model_says_that_was_fitted_on_all_before(order: int, text: list[int], ends: bool) -> None:
    fitted, later = text[:100], text[100:]
    model = NGram.fit(array(fitted), VOCAB_SIZE, order, ends=ends)
    states = model.zero_state()
    model.read(array(fitted), states)
    nats, found = Counting(model).read(array([fitted[-1], *later]), states)
    for at in range(0, len(later), 7):
        before = [*fitted, *later[:at]]
        again = NGram.fit(array(before), VOCAB_SIZE, order, ends=ends)
        expected = again.read(array([*before, later[at]]), again.zero_state())
        assert nats[at] == pytest.approx(expected[0][-1], rel=1e-12)
        assert found[at] == expected[1][-1]


@pytest.mark.parametrize(("min_count", "most"), [(1, counting.MOST), (3, counting.MOST), (1, 5), (1, 0)])
def test_the_probabilities_of_what_may_follow_add_up_to_one(
    min_count: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MOST", most)
    model = NGram.fit(array(DOCUMENTS[:100]), VOCAB_SIZE, 4, ends=True, min_count=min_count)
    for read in (
        *(DOCUMENTS[:at] for at in (60, 64, 70, 99)),  # in places something follows that was left out
        DOCUMENTS[100:101],
        DOCUMENTS[100:140],
        [0, 6, 6, 0],
        [*DOCUMENTS[100:130], END_ID],
    ):
        nats = [Counting(model).read(array([*read, token]), model.zero_state())[0][-1] for token in range(VOCAB_SIZE)]
        assert math.fsum(np.exp(-np.array(nats)).tolist()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("ends", [False, True])
def test_nothing_is_learnt_from_a_token_before_it_was_predicted(ends: bool) -> None:
    model = NGram.fit(array(DOCUMENTS[:80]), VOCAB_SIZE, 4, ends=ends)
    text = DOCUMENTS[80:]
    nats, found = Counting(model).read(array(text), model.zero_state())
    for at in range(1, len(text), 11):
        future = text[at + 1 :]
        random.Random(at).shuffle(future)
        others = Counting(model).read(array([*text[: at + 1], *future]), model.zero_state())
        np.testing.assert_array_equal(others[0][:at], nats[:at])
        np.testing.assert_array_equal(others[1][:at], found[:at])


def test_it_may_be_read_in_pieces() -> None:
    model = NGram.fit(array(DOCUMENTS[:80]), VOCAB_SIZE, 4, ends=True)
    last = model.zero_state()
    whole = Counting(model).read(array(DOCUMENTS), last)
    for cut in (1, 2, 3, 9, 10, 100, len(DOCUMENTS)):
        ours, states = Counting(model), model.zero_state()
        parts = [ours.read(array(part), states) for part in (DOCUMENTS[:cut], DOCUMENTS[cut - 1 :])]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
        np.testing.assert_array_equal(states, last)


def test_the_model_stays_as_it_is_and_says_the_first_token(tmp_path: Path) -> None:
    fitted = NGram.fit(array(TEXT[:120]), VOCAB_SIZE, 4)
    fitted.write(tmp_path / "ngrams.arrow")
    model = NGram.open(tmp_path / "ngrams.arrow", VOCAB_SIZE)  # of which nothing can be changed
    before = model.read(array(TEXT), model.zero_state())
    counted = Counting(model).read(array(TEXT), model.zero_state())
    assert counted[0][0] == before[0][0]
    assert counted[0].sum() < before[0].sum() - 50  # it repeats itself
    np.testing.assert_array_equal(model.read(array(TEXT), model.zero_state())[0], before[0])
    nothing = Counting(model).read(array([]), model.zero_state())
    assert [len(some) for some in nothing] == [0, 0]


def test_tiny_shakespeare() -> None:
    path = ROOT.parent / "shared" / "corpora" / "tinyshakespeare.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    text = path.read_text(encoding="utf-8")
    known = {character: id_ for id_, character in enumerate(sorted(set(text)), 1)}
    ids, stop = np.array([known[character] for character in text], np.uint8), len(text) * 9 // 10
    model = NGram.fit(ids[:stop], len(known) + 1, 6)
    part = ids[stop : stop + 20_000]
    nats = [some.read(part, model.zero_state())[0].mean() for some in (model, Counting(model))]
    assert nats == pytest.approx([1.4451, 1.4072], abs=1e-4)
