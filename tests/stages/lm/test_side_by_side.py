"""Many rows side by side give what one pass from the beginning gives, also where nothing is forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from stages.lm import side_by_side
from stages.lm.layers import State
from stages.lm.network import Network
from stages.lm.parameters import Architecture

HIDDEN, VOCAB = 9, 7
LENGTH = side_by_side.ROWS * side_by_side.SHORTEST + 300
Ids = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def network(scale: float = 1.0, hold: float | None = None, **changes: Any) -> Network:
    settings = {"cell": "lstm", "activation": "tanh", "hidden_size": HIDDEN, "layers": 2, "vocab_size": VOCAB}
    architecture = Architecture(**{**settings, **changes})
    weights = {name: array * np.float32(scale) for name, array in architecture.initial("uniform", 1).items()}
    if hold is not None:  # nothing is ever forgotten: hidden(t) = hidden(t - 1) + a little, far below the cell's bounds
        for layer in range(architecture.layers):
            weights[f"rnn.weight_hh_l{layer}"] = np.float32(hold) * np.eye(HIDDEN, dtype=np.float32)
            weights[f"rnn.weight_ih_l{layer}"] = np.abs(weights[f"rnn.weight_ih_l{layer}"]) * np.float32(1e-4)
    return Network(architecture, weights)


def counter(forget: float) -> Network:
    """Cells that go up by one with every token of the lower ids, and down with every other one; what shows of them is
    whether they are above or below zero. ``forget`` is what the forget gate is before its sigmoid."""
    architecture = Architecture("lstm", "tanh", HIDDEN, 1, VOCAB)
    weights = {name: np.zeros(shape, np.float32) for name, shape in architecture.shapes().items()}
    entering, forgetting, new, leaving = (slice(gate * HIDDEN, (gate + 1) * HIDDEN) for gate in range(4))
    weights["rnn.bias_ih_l0"][entering] = weights["rnn.bias_ih_l0"][leaving] = 9
    weights["rnn.bias_ih_l0"][forgetting] = forget
    weights["rnn.weight_ih_l0"][new] = np.where(np.arange(VOCAB) < 5, 4, -4)
    weights["dense.weight"][:] = np.arange(VOCAB)[:, None] / HIDDEN
    return Network(architecture, weights)


def ids(length: int = LENGTH) -> Ids:
    return np.random.default_rng(0).integers(0, VOCAB, length).astype(np.uint8)


def losses(ours: Network, ids: Ids, states: list[State] | None = None) -> Floats:
    return np.concatenate([*ours.losses(ids, states)])


def one_by_one(ours: Network, ids: Ids, monkeypatch: pytest.MonkeyPatch) -> Floats:
    with monkeypatch.context() as patch:
        patch.setattr(side_by_side, "SHORTEST", len(ids))
        return losses(ours, ids)


MODELS: list[dict[str, Any]] = [
    {},
    {"scale": 3.0},
    {"cell": "gru", "scale": 3.0},
    {"cell": "rnn", "scale": 2.0},
    {"cell": "rnn", "activation": "relu"},
    {"cell": "rnn", "activation": "relu", "hold": 1.0},
]


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_the_losses_are_those_of_one_pass(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = network(**changes)
    expected = one_by_one(ours, ids(), monkeypatch)
    found = losses(ours, ids())
    assert found.shape == expected.shape == (LENGTH - 1,)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.mean() == pytest.approx(expected.mean(), abs=1e-5)


def test_a_state_is_carried_across_a_cut() -> None:
    ours, text = network(scale=3.0), ids()
    whole = losses(ours, text)
    for cut in (1, 5_000, LENGTH - 20):
        states = ours.zero_state()
        both = losses(ours, text[: cut + 1], states), losses(ours, text[cut:], states)
        np.testing.assert_allclose(np.concatenate(both), whole, atol=1e-4)


def test_what_a_cell_counts_is_not_forgotten_where_it_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = counter(14)
    text = np.where(np.arange(LENGTH) % 700 < 350, ids() % 5, 5).astype(np.uint8)  # up for a while, and down again
    expected = one_by_one(ours, text, monkeypatch)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(losses(ours, text), expected, atol=1e-4)


@pytest.mark.parametrize("ours", [network(), counter(3)], ids=["small states", "cells far from zero"])
def test_what_is_forgotten_is_not_read_twice(ours: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    layer = ours._layers[0]
    step = layer.step_columns

    def counted(projected: Floats, state: State) -> State:
        rows.append(state[0].shape[1])
        assert all(array.flags.c_contiguous for array in state)  # else a step takes a third longer
        return step(projected, state)

    monkeypatch.setattr(layer, "step_columns", counted)
    length = side_by_side.ROWS * side_by_side.LONGEST
    losses(ours, ids(length + 1))
    assert sum(rows) < 1.1 * length
    assert max(rows) == side_by_side.ROWS
