"""Dynamic evaluation: predicted first, then learnt from."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from data import cores
from data.errors import ConfigError
from data.tables.tokens import Ids
from data.tables.vocab import Vocab
from stages.lm.layers import State, Vector
from stages.lm.model import LanguageModel
from stages.lm.network import Network
from stages.lm.parameters import Architecture, Parameters
from stages.training import adaptation, bptt
from stages.training.adaptation import SEGMENT

RATE = 0.02
LETTERS = Vocab(["<unk>", *" abcdefgh"], [0] * 10)
CELLS = [
    Architecture("rnn", "relu", 16, 1, len(LETTERS)),
    Architecture("gru", "tanh", 16, 2, len(LETTERS), 6),
    Architecture("lstm", "tanh", 16, 2, len(LETTERS), 16, True),
]
every_cell = pytest.mark.parametrize("architecture", CELLS, ids=lambda architecture: architecture.cell)
IDS = np.random.default_rng(3).integers(0, len(LETTERS), 7 * SEGMENT + 5).astype(np.uint8)


def weights(architecture: Architecture, seed: int = 1) -> Parameters:
    return architecture.initial("uniform", seed)


def read(architecture: Architecture, rate: float, *pieces: Ids, seeds: tuple[int, ...] = (1,)) -> Vector:
    """What each token of a text costs the networks of these seeds."""
    networks = [weights(architecture, seed) for seed in seeds]
    return np.concatenate([*adaptation.losses(architecture, networks, rate, pieces)])


def standing_still(architecture: Architecture, ids: Ids, seed: int = 1) -> Vector:
    model = LanguageModel(architecture, weights(architecture, seed), LETTERS, "char", "lower")
    return np.concatenate([*model.network.losses(ids)])


@every_cell
def test_weights_that_hardly_move_measure_what_weights_that_stand_still_do(architecture: Architecture) -> None:
    np.testing.assert_allclose(read(architecture, 1e-9, IDS), standing_still(architecture, IDS), rtol=2e-5)


@every_cell
def test_a_segment_is_predicted_before_it_is_learnt_from(architecture: Architecture) -> None:
    expected, found = standing_still(architecture, IDS), read(architecture, RATE, IDS)
    np.testing.assert_allclose(found[:SEGMENT], expected[:SEGMENT], rtol=1e-5)
    assert not np.isclose(found[SEGMENT], expected[SEGMENT], rtol=1e-3)


@pytest.mark.parametrize("at", [1, 2 * SEGMENT, 3 * SEGMENT + 7])
@pytest.mark.parametrize("seeds", [(1,), (1, 2)], ids=str)
def test_what_comes_later_changes_nothing(seeds: tuple[int, ...], at: int) -> None:
    permuted = IDS.copy()
    permuted[at + 1 :] = np.random.default_rng(at).permutation(permuted[at + 1 :])
    whole, changed = (read(CELLS[2], RATE, ids, seeds=seeds) for ids in (IDS, permuted))
    np.testing.assert_array_equal(changed[:at], whole[:at])
    assert (changed[at:] != whole[at:]).any()


def mean(network: Network, ids: Ids, states: list[State]) -> float:
    """Of the losses, from these states on, in the type of the weights."""
    return float(np.concatenate([*network.losses(ids, [*states])]).mean())


def slopes(architecture: Architecture, given: Mapping[str, Any], ids: Ids, states: list[State]) -> dict[str, Any]:
    """Of the mean loss, by differences."""

    def slope(name: str, place: tuple[int, ...]) -> float:
        sides = []
        for moved in (1e-5, -1e-5):
            weights = {**given, name: given[name].copy()}
            weights[name][place] += moved
            sides.append(mean(Network(architecture, weights), ids, states))
        return (sides[0] - sides[1]) / 2e-5

    return {
        name: np.array([slope(name, place) for place in np.ndindex(array.shape)]).reshape(array.shape)
        for name, array in given.items()
    }


@every_cell
@pytest.mark.parametrize("clip_norm", [adaptation.CLIP_NORM, 0.05])
def test_after_a_segment_the_weights_take_the_step_that_the_formula_says(
    architecture: Architecture, clip_norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "CLIP_NORM", clip_norm)
    small, rate, kept = replace(architecture, hidden_size=4), 0.01, 0.999
    small = replace(small, embedding_size=4 if small.tie_weights else 0)
    given: dict[str, Any] = {name: array.astype(np.float64) for name, array in weights(small).items()}
    states, squares, expected = Network(small, given).zero_state(), dict.fromkeys(given, 0.0), []
    for number in range(3):
        ids = IDS[number * SEGMENT : (number + 1) * SEGMENT + 1]
        slope = slopes(small, given, ids, states)
        norm = np.sqrt(sum((array**2).sum() for array in slope.values()))
        assert 0.05 < norm < 1, "one of the two clips"
        expected += [*Network(small, given).losses(ids, states)]
        for name, array in slope.items():
            g = min(1, clip_norm / norm) * array
            squares[name] = kept * squares[name] + (1 - kept) * g**2
            root = np.sqrt(squares[name] / (1 - kept ** (number + 1)))
            given[name] = given[name] - rate * g / (root + 1e-4)
    np.testing.assert_allclose(read(small, rate, IDS[: 3 * SEGMENT + 1]), np.concatenate(expected), rtol=1e-5)


@every_cell
def test_what_comes_again_is_foreseen(architecture: Architecture) -> None:
    again = np.tile(np.arange(1, 9, dtype=np.uint8), 100)
    found = read(architecture, RATE, again)
    assert found[-100:].mean() < standing_still(architecture, again)[-100:].mean() - 0.5


@pytest.mark.parametrize("rate", [1e-9, RATE])
@every_cell
def test_several_networks_say_the_mean_of_their_probabilities_and_each_learns_by_its_own(
    architecture: Architecture, rate: float
) -> None:
    alone = np.stack([read(architecture, rate, IDS, seeds=(seed,)) for seed in (1, 2, 3)])
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    together = read(architecture, rate, IDS, seeds=(1, 2, 3))
    np.testing.assert_allclose(together, -np.log(np.exp(-alone.astype(np.float64)).mean(axis=0)), rtol=1e-6)
    np.testing.assert_array_equal(read(architecture, rate, IDS, seeds=(2, 2)), alone[1])


def test_large_networks_learn_on_as_many_cores_as_there_are_and_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = read(CELLS[2], RATE, IDS, seeds=(1, 2, 3)), set()

    def forward(*given: Any, own: Any = bptt.Unrolled.forward) -> None:
        seen.add(threading.current_thread())
        own(*given)

    monkeypatch.setattr(bptt.Unrolled, "forward", forward)
    monkeypatch.setattr(cores, "available", lambda: 2)
    np.testing.assert_array_equal(read(CELLS[2], RATE, IDS, seeds=(1, 2, 3)), before)
    assert seen == {threading.current_thread()}  # for small ones that would take longer
    monkeypatch.setattr(adaptation, "_LARGE", CELLS[2].weights())
    np.testing.assert_array_equal(read(CELLS[2], RATE, IDS, seeds=(1, 2, 3)), before)
    assert len(seen - {threading.current_thread()}) in (1, 2)
    with pytest.raises(ConfigError, match="diverges"):
        read(CELLS[2], 1e30, IDS, seeds=(1, 2))


@pytest.mark.parametrize("size", [1, 7, SEGMENT, SEGMENT + 1, 50])
def test_where_a_text_is_cut_does_not_show(size: int) -> None:
    pieces = [IDS[at : at + size] for at in range(0, len(IDS), size)]
    np.testing.assert_array_equal(read(CELLS[0], RATE, *pieces), read(CELLS[0], RATE, IDS))


def test_the_weights_that_were_given_stay() -> None:
    given = weights(CELLS[1])
    list(adaptation.losses(CELLS[1], [given], RATE, [IDS]))
    for name, array in weights(CELLS[1]).items():
        np.testing.assert_array_equal(given[name], array)


def test_a_score_is_of_the_whole_text() -> None:
    model = LanguageModel(CELLS[2], weights(CELLS[2]), LETTERS, "char", "lower")
    text = "a bad cabbage had a bad egg " * 30
    score = model.score(text, partial(adaptation.losses, CELLS[2], [weights(CELLS[2])], RATE))
    ids = np.array(LETTERS.ids(text), np.uint8)
    assert score.loss == pytest.approx(read(CELLS[2], RATE, ids).mean(), rel=1e-6)
    assert score.tokens == len(text) - 1
    assert score.loss < model.score(text).loss


def test_one_thread_computes_whatever_the_machine_and_the_others_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends, blas, seen = replace(CELLS[2], ends=True), ThreadpoolController().select(user_api="blas"), set()

    def threads() -> set[int]:
        return {library["num_threads"] for library in blas.info()}

    def forward(*given: Any, own: Any = bptt.Unrolled.forward) -> None:
        seen.update(threads())
        own(*given)

    monkeypatch.setattr(bptt.Unrolled, "forward", forward)
    with blas.limit(limits=3):
        for _ in adaptation.losses(ends, [weights(ends)], RATE, [IDS]):
            assert threads() == {3}
    assert seen == {1}


def test_a_mean_square_without_a_gradient_does_not_end_in_numbers_that_a_cpu_is_slow_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adaptation, "_KEPT", 1e-3)  # so that it soon comes to them
    seen: list[Any] = []

    def sqrt(squares: Any, own: Any = np.sqrt, **out: Any) -> Any:
        seen.append(squares.copy())
        return own(squares, **out)

    monkeypatch.setattr(np, "sqrt", sqrt)
    read(CELLS[1], RATE, np.append(IDS[:SEGMENT], np.full(30 * SEGMENT, 7, np.uint8)))
    assert len(seen) == 31
    assert not any(((squares != 0) & (squares < np.finfo(np.float32).tiny)).any() for squares in seen)


@pytest.mark.parametrize("seeds", [(1,), (1, 2)], ids=str)
def test_a_rate_that_is_too_high_is_one_sentence(seeds: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"at a rate of 1e\+30 the model does not learn .* lower it"):
        read(CELLS[0], 1e30, IDS, seeds=seeds)
