"""A model's parameters: their names, shapes, order and first values, whatever engine trains them.

Names, shapes and gate order are those of ``torch.nn``, so the weights load there unpermuted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Parameters = dict[str, npt.NDArray[np.float32]]

FORMAT = 1
"""Of the model that a folder holds, as its ``config.json`` says."""
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Gates per cell, stacked along the first axis: `gru` reset, update, new; `lstm` input, forget, cell, output."""


def shapes(cell: str, hidden_size: int, layers: int, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Name → shape, in the one order that everything here keeps."""
    rows = GATES[cell] * hidden_size
    result: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        result[f"rnn.weight_ih_l{layer}"] = (rows, hidden_size if layer else vocab_size)
        result[f"rnn.weight_hh_l{layer}"] = (rows, hidden_size)
        result[f"rnn.bias_ih_l{layer}"] = (rows,)
        result[f"rnn.bias_hh_l{layer}"] = (rows,)
    result["dense.weight"] = (vocab_size, hidden_size)
    result["dense.bias"] = (vocab_size,)
    return result


def initial(cell: str, hidden_size: int, layers: int, vocab_size: int, seed: int) -> Parameters:
    """The weights before training: drawn from Normal(0, 0.01), biases zero, as in the book; float32."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(0.0, 0.01, shape) if "weight" in name else np.zeros(shape)).astype(np.float32)
        for name, shape in shapes(cell, hidden_size, layers, vocab_size).items()
    }
