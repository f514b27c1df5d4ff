"""A network or several, counts, or a mixture: whoever measures or writes a text cannot tell which of them it has."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data.errors import Interrupted
from data.tables.tokens import END_ID
from stages.lm import abreast, ngram, sampling, scoring, side_by_side, stretches
from stages.lm.ensemble import Ensemble
from stages.lm.mixture import Mixture
from stages.lm.ngram import NGram
from stages.lm.tally import Tally, summed
from tests.stages.lm.test_mixture import ORDER, SHARES, text
from tests.stages.lm.test_side_by_side import VOCAB, network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.lm.predictor import Predictor, State
    from stages.lm.tally import Sum


def documents(length: int, seed: int) -> NDArray[np.uint8]:
    ids = text(length, seed)
    ids[::23] = END_ID
    return ids


def made(kind: str) -> Predictor:
    """One that knows where documents end."""
    counts = NGram.fit(documents(3_000, 0), VOCAB, ORDER, ends=True)
    inner = network(ends=True)
    several = Ensemble([inner, network(1.3, ends=True), network(0.7, ends=True)])
    kinds: dict[str, Predictor] = {
        "network": inner,
        "networks": several,
        "n-gram": counts,
        "mixture": Mixture(inner, counts, SHARES),
        "mixture of several": Mixture(several, counts, SHARES),
    }
    return kinds[kind]


@pytest.fixture(params=["network", "networks", "n-gram", "mixture", "mixture of several"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return made(request.param)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of which a short text has many."""
    monkeypatch.setattr(ngram, "_CHUNK", 90)
    monkeypatch.setattr(side_by_side, "SHORTEST", 16)
    monkeypatch.setattr(side_by_side, "MOST", 32 * side_by_side.ROWS)


def losses(predictor: Predictor, ids: Any, states: list[State] | None = None) -> NDArray[Any]:
    return np.concatenate([np.empty(0), *predictor.losses(ids, states)])


def test_what_a_token_costs_is_what_was_said_of_it(predictor: Predictor) -> None:
    ids, states, readout = documents(200, 1), predictor.beginning(), predictor.readout()
    costs = losses(predictor, ids)
    for at, (id_, target) in enumerate(itertools.pairwise(ids.tolist())):
        predictor.advance(id_, states)
        logits = readout(states).astype(np.float64)
        assert costs[at] == pytest.approx(np.log(np.exp(logits).sum()) - logits[target], rel=1e-4, abs=1e-5)
        np.testing.assert_array_equal(predictor.readout(2)(states), readout(states)[2:])
    assert predictor.loss(ids) == pytest.approx(costs.mean(), rel=1e-6)
    assert np.isnan(predictor.loss(ids[:1]))


def test_a_text_begins_behind_an_end(predictor: Predictor) -> None:
    ids = documents(50, 2)
    after = losses(predictor, np.append([END_ID], ids), predictor.zero_state())[1:]
    np.testing.assert_allclose(losses(predictor, ids), after, atol=1e-5)
    states = predictor.zero_state()
    predictor.advance(END_ID, states)
    np.testing.assert_array_equal(predictor.readout()(states), predictor.readout()(predictor.beginning()))


@pytest.mark.usefixtures("short")
def test_it_is_read_in_chunks_and_goes_on_behind_each(predictor: Predictor) -> None:
    ids = documents(7_000, 3)
    states, ahead = predictor.beginning(), predictor.beginning()
    chunks, done = [*predictor.losses(ids, ahead)], 0
    lengths = [*predictor.chunks(len(ids) - 1)]
    assert [len(chunk) for chunk in chunks] == lengths
    assert len(lengths) > 3
    for chunk, length in zip(chunks, lengths, strict=True):
        assert [*predictor.chunks(length)] == [length]
        np.testing.assert_array_equal(losses(predictor, ids[done : done + length + 1], states), chunk)
        done += length
    assert stretches._same(states, ahead)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("window", [1, 7, 64, 1_000])
def test_a_window_knows_nothing_of_the_one_before(predictor: Predictor, window: int) -> None:
    ids, span = documents(1_200, 4), predictor.windowed_span(window)
    assert span % window == 0
    parts = (ids[start : start + window + 1] for start in range(0, len(ids) - 1, window))
    each = np.concatenate([losses(predictor, part, predictor.zero_state()) for part in parts])
    found = np.concatenate([*predictor.windowed_losses(ids, window)])
    np.testing.assert_allclose(np.sort(found), np.sort(each), atol=1e-5)
    after = np.concatenate([*predictor.windowed_losses(ids[min(span, len(ids) - 1) :], window), np.empty(0)])
    np.testing.assert_allclose(after, found[len(found) - len(after) :], atol=1e-5)


def test_columns_are_what_each_text_is_alone(predictor: Predictor) -> None:
    texts = np.stack([documents(40, seed) for seed in range(9)])
    texts[::2, 17] = END_ID
    columns, alone = predictor.zero_state(len(texts)), [predictor.zero_state() for _ in texts]
    for ids in texts.T:
        predictor.advance_columns(ids, columns)
        for id_, states in zip(ids.tolist(), alone, strict=True):
            predictor.advance(id_, states)
        singly = np.stack([predictor.readout(1)(states) for states in alone])
        np.testing.assert_allclose(predictor.readout_columns(1)(columns), singly, rtol=1e-5, atol=1e-5)


def test_it_writes_what_is_likeliest(predictor: Predictor) -> None:
    prompt, states = [2, 5, 3], predictor.beginning()
    greedy = sampling.chooser(50, 0.0, 0, 0, 1.0)
    written = [*sampling.continuation(predictor, prompt, 50, greedy, first=1, probabilities=True)]
    for id_ in prompt:
        predictor.advance(id_, states)
    for id_, probability in written:
        logits = predictor.readout()(states).astype(np.float64)
        assert id_ == 1 + logits[1:].argmax()
        assert probability == pytest.approx(np.exp(logits[id_]) / np.exp(logits).sum())
        predictor.advance(id_, states)


@pytest.mark.parametrize("how", [(1.0, 0, 1.0), (0.7, 3, 1.0), (1.0, 0, 0.8)], ids=str)
def test_many_texts_at_once_are_what_each_is_alone(predictor: Predictor, how: tuple[float, int, float]) -> None:
    seeds = range(abreast.COLUMNS)
    together = abreast.continuations(predictor, [2, 5, 3], 70, seeds, how, first=1, ended=lambda ids: 4 in ids[:40])
    assert together is not None
    for seed, ids in zip(seeds, together, strict=True):
        draw = sampling.chooser(70, how[0], seed, *how[1:])
        alone = sampling.continuation(predictor, [2, 5, 3], 70, draw, first=1, probabilities=False)
        assert ids == [id_ for id_, _ in alone][: len(ids)]
        assert len(ids) == 70 or 4 in ids[:40]
    assert len({*map(tuple, together)}) > abreast.COLUMNS / 2


def test_a_score_does_not_depend_on_where_a_text_is_cut(predictor: Predictor) -> None:
    ids = documents(1_000, 5)
    scored = scoring.carried(predictor, [ids[:1], ids[1:300], ids[300:]])
    np.testing.assert_allclose(np.concatenate([*scored]), losses(predictor, ids), atol=1e-5)


@pytest.mark.usefixtures("short")
def test_a_sum_goes_on_where_it_was_interrupted(predictor: Predictor, tmp_path: Path) -> None:
    ids = documents(7_000, 6)

    def sums(done: int, states: list[State]) -> Any:
        return summed(predictor.losses(ids[done:], states))

    def stop(done: int) -> None:
        raise Interrupted("enough", 15)

    whole = Tally(tmp_path / "whole").means("one", sums, predictor.beginning(), lambda done: None)
    for _ in range(3):
        with pytest.raises(Interrupted):
            Tally(tmp_path / "cut").means("one", sums, predictor.beginning(), stop)
    assert Tally(tmp_path / "cut").means("one", sums, predictor.beginning(), lambda done: None) == whole


@pytest.mark.usefixtures("short")
def test_stretches_by_anyone_give_the_sums_of_one_pass(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "LENGTH", 800)
    ids, states, last = documents(9_000, 7), predictor.beginning(), predictor.beginning()
    expected = [*summed(predictor.losses(ids, last))]
    some = [*stretches.cut([*itertools.accumulate(predictor.chunks(len(ids) - 1), initial=0)], 0)]
    assert len(some) > 3
    found = [stretches.read(predictor, ids, stretch) for stretch in reversed(some)][::-1]
    joined: list[Sum] = [*stretches.joined(predictor, ids, some, found, states)]
    assert joined == expected
    assert stretches._same(states, last)


def test_of_the_stretches_of_counts_none_is_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "_CHUNK", 90)
    monkeypatch.setattr(stretches, "LENGTH", 800)
    predictor, ids = made("n-gram"), documents(9_000, 7)
    some = [*stretches.cut([*itertools.accumulate(predictor.chunks(len(ids) - 1), initial=0)], 0)]
    found = [stretches.read(predictor, ids, stretch) for stretch in some]
    monkeypatch.setattr(stretches, "_read", None)
    sums = [*stretches.joined(predictor, ids, some, found, predictor.beginning())]
    assert sums == [*summed(predictor.losses(ids))]


def test_texts_side_by_side_are_what_each_is_alone_to_the_last_bit(predictor: Predictor) -> None:
    drawn = np.random.default_rng(5)
    lengths = np.append(drawn.integers(0, 90, 150), [0, 1, 2, 700])
    texts = [documents(int(length), seed) for seed, length in enumerate(lengths)]
    found = np.split(predictor.separate_losses(np.concatenate(texts), lengths), np.maximum(lengths - 1, 0).cumsum())
    for ids, costs in zip(texts, found, strict=False):
        np.testing.assert_allclose(costs, losses(predictor, ids), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(costs, predictor.separate_losses(ids, np.array([len(ids)])))
    order = drawn.permutation(len(texts))
    moved = predictor.separate_losses(np.concatenate([texts[text] for text in order]), lengths[order])
    np.testing.assert_array_equal(moved, np.concatenate([found[text] for text in order]))
