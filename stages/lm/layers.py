"""The recurrent layers of a trained model in NumPy, one time step after the other.

The recurrences are those of ``torch.nn.RNN``, ``GRU`` and ``LSTM``. A state is one array (LSTM: two) of shape
(hidden,), or (hidden, columns) for as many sequences side by side: a step multiplies a matrix with a vector or with
columns, and the gates are the same rows of either product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stages.lm.parameters import Architecture, Parameters

Vector = npt.NDArray[np.float32]
State = tuple[Vector, ...]
Step = Callable[[Vector, State], State]

_ZERO, _HALF = np.zeros((), np.float32), np.full((), 0.5, np.float32)
"""Arrays, which NumPy takes up sooner than numbers: it tells in a step of some microseconds."""


class Layer:
    """One recurrent layer: what comes in is projected for many steps at once, the recurrence goes step by step."""

    project: Callable[[Any], Vector]
    """What comes in → what it adds to the gates, (…, gates · hidden). Into the first layer come ids of shape (…), into
    the others the outputs of the one below, (…, hidden)."""
    step: Step
    """``step(projected, state)``: the next state; its first array is the output. Of several columns ``projected`` is
    (gates · hidden, columns)."""

    def __init__(self, architecture: Architecture, weights: Parameters, layer: int) -> None:
        weight_ih, weight_hh, bias_ih, bias_hh = (
            weights[f"rnn.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        cell, size = architecture.cell, architecture.hidden_size
        bias = bias_ih + bias_hh
        # sigmoid(v) = (1 + tanh(v / 2)) / 2, and halving is exact: the gates' rows are halved here, once.
        half = np.ones(len(bias), np.float32)
        if cell == "lstm":
            half[: 2 * size] = half[3 * size :] = 0.5
        elif cell == "gru":
            half[: 2 * size] = 0.5
            bias[2 * size :] = bias_ih[2 * size :]  # the other one stands inside the reset gate
        bias *= half
        weight_ih, weight_hh = np.ascontiguousarray(weight_ih.T * half), np.ascontiguousarray(weight_hh * half[:, None])

        def project(inputs: Vector) -> Vector:
            projected: Vector = inputs @ weight_ih
            projected += bias
            return projected

        if layer:
            self.project = project
        elif not architecture.embedding_size:
            # A one-hot input times a matrix is a row of that matrix.
            weight_ih += bias
            self.project = weight_ih.__getitem__
        else:
            embedding = weights["embedding.weight"]
            if len(embedding) * len(bias) <= sum(array.size for array in weights.values()):
                self.project = project(embedding).__getitem__
            else:  # many words: a table of what they all add would be larger than the model
                self.project = lambda ids: project(embedding[ids])
        self._size = size
        self._arrays = 2 if cell == "lstm" else 1
        self.step = (
            _rnn(weight_hh, architecture.activation)
            if cell == "rnn"
            else _lstm(weight_hh, size)
            if cell == "lstm"
            else _gru(weight_hh, bias_hh[2 * size :], size)
        )

    def zero_state(self, *columns: int) -> State:
        """Zeros of shape (hidden,) or (hidden, columns)."""
        return tuple(np.zeros((self._size, *columns), np.float32) for _ in range(self._arrays))

    def run(self, projected: Vector, state: State) -> tuple[Vector, State]:
        """All steps of a chunk of one sequence → outputs (steps, hidden) and the state after it."""
        outputs = np.empty((len(projected), self._size), np.float32)
        step = self.step
        for row, output in zip(projected, outputs, strict=True):
            state = step(row, state)
            output[:] = state[0]
        return outputs, state


def _rnn(weight: Vector, activation: str) -> Step:
    def relu(projected: Vector, state: State) -> State:
        hidden = weight.dot(state[0])
        hidden += projected
        return (np.maximum(hidden, _ZERO, out=hidden),)

    def tanh(projected: Vector, state: State) -> State:
        hidden = weight.dot(state[0])
        hidden += projected
        return (np.tanh(hidden, out=hidden),)

    return relu if activation == "relu" else tanh


def _gru(weight: Vector, new_bias: Vector, size: int) -> Step:
    def step(projected: Vector, state: State) -> State:
        (hidden,) = state
        product = weight.dot(hidden)
        gates = np.tanh(projected[: 2 * size] + product[: 2 * size])
        gates *= _HALF
        gates += _HALF
        new = product[2 * size :]
        across = new.T  # so that one bias fits a vector and every column
        across += new_bias
        new *= gates[:size]
        new += projected[2 * size :]
        np.tanh(new, out=new)
        # (1 - z) · new + z · old
        return (new + gates[size:] * (hidden - new),)

    return step


def _lstm(weight: Vector, size: int) -> Step:
    def step(projected: Vector, state: State) -> State:
        hidden, cell = state
        gates = weight.dot(hidden)
        gates += projected
        np.tanh(gates, out=gates)
        new = gates[2 * size : 3 * size].copy()
        gates *= _HALF
        gates += _HALF
        cell = gates[size : 2 * size] * cell
        cell += gates[:size] * new
        return gates[3 * size :] * np.tanh(cell), cell

    return step
