"""Many stretches side by side give what one pass from the beginning gives, also where nothing is forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from data.tables.vocab import Vocab
from stages.lm import side_by_side
from stages.lm.model import LanguageModel
from stages.lm.parameters import Architecture

HIDDEN, VOCAB = 9, 7
LENGTH = side_by_side.COLUMNS * side_by_side.SHORTEST + 300


def model(scale=1.0, hold=None, **changes):
    settings = {"cell": "lstm", "activation": "tanh", "hidden_size": HIDDEN, "layers": 2, "vocab_size": VOCAB}
    architecture = Architecture(**{**settings, **changes})
    weights = {name: array * np.float32(scale) for name, array in architecture.initial("uniform", 1).items()}
    if hold is not None:  # nothing is ever forgotten: hidden(t) = hidden(t - 1) + a little, far below the cell's bounds
        for layer in range(architecture.layers):
            weights[f"rnn.weight_hh_l{layer}"] = np.float32(hold) * np.eye(HIDDEN, dtype=np.float32)
            weights[f"rnn.weight_ih_l{layer}"] = np.abs(weights[f"rnn.weight_ih_l{layer}"]) * np.float32(1e-4)
    vocab = Vocab(["<unk>", *"abcdef"], [0] * VOCAB)
    return LanguageModel(architecture, weights, vocab, "char", "none")


def ids(length=LENGTH):
    return np.random.default_rng(0).integers(0, VOCAB, length).astype(np.uint8)


def one_by_one(model, ids, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(side_by_side, "SHORTEST", len(ids))
        return np.concatenate([*model.losses(ids)])


MODELS = [
    {},
    {"scale": 3.0},
    {"cell": "gru", "scale": 3.0},
    {"cell": "rnn", "scale": 2.0},
    {"cell": "rnn", "activation": "relu"},
    {"cell": "rnn", "activation": "relu", "hold": 1.0},
]


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_the_losses_are_those_of_one_pass(changes, monkeypatch):
    made = model(**changes)
    expected = one_by_one(made, ids(), monkeypatch)
    found = np.concatenate([*made.losses(ids())])
    assert found.shape == expected.shape == (LENGTH - 1,)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.mean() == pytest.approx(expected.mean(), abs=1e-5)


def test_a_state_is_carried_across_a_cut(monkeypatch):
    made, text = model(scale=3.0), ids()
    whole = np.concatenate([*made.losses(text)])
    for cut in (1, 5_000, LENGTH - 20):
        states = made.zero_state()
        first = [*made.losses(text[: cut + 1], states)]
        second = [*made.losses(text[cut:], states)]
        np.testing.assert_allclose(np.concatenate([*first, *second]), whole, atol=1e-4)


def test_what_is_forgotten_is_not_read_twice(monkeypatch):
    made = model(scale=1.0)
    columns = []
    step = made._layers[0].step
    monkeypatch.setattr(made._layers[0], "step", lambda row, state: columns.append(row[0].size) or step(row, state))
    for _ in made.losses(ids(side_by_side.COLUMNS * side_by_side.LONGEST + 1)):
        pass
    assert sum(columns) < 1.2 * side_by_side.COLUMNS * side_by_side.LONGEST
    assert max(columns) == side_by_side.COLUMNS
