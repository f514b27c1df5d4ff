"""First weights: what each initializer draws."""

from __future__ import annotations

import numpy as np
import pytest

from stages.lm.parameters import Architecture

HIDDEN = 6
CELLS = ("rnn", "gru", "lstm")


def architecture(cell: str) -> Architecture:
    return Architecture(cell, "tanh", HIDDEN, layers=2, vocab_size=9, embedding_size=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", CELLS)
def test_forgetful_listens_more_to_inputs_than_to_the_past(cell: str) -> None:
    uniform, forgetful = (architecture(cell).initial(name, seed=3) for name in ("uniform", "forgetful"))
    for name, values in forgetful.items():
        if "weight" in name:
            times = 5 if name == "embedding.weight" else 2 if "weight_ih" in name else 1
            np.testing.assert_allclose(values, times * uniform[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
def test_forgetful_begins_with_the_forget_gates_of_an_lstm_closed(cell: str) -> None:
    """By one of the two biases, for they add up; no other bias is anything but zero."""
    first = architecture(cell).initial("forgetful", seed=3)
    for name, values in first.items():
        if "bias" in name:
            gates = np.zeros(len(values))
            if cell == "lstm" and "bias_ih" in name:
                gates[HIDDEN : 2 * HIDDEN] = -1  # torch.nn has them second: input, forget, cell, output
            np.testing.assert_array_equal(values, gates, err_msg=name)


def test_the_seed_decides() -> None:
    one, same, other = (architecture("lstm").initial("forgetful", seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["rnn.weight_hh_l0"], other["rnn.weight_hh_l0"])
