"""The recurrent layers of a trained model in NumPy, one time step after the other.

The recurrences are those of ``torch.nn.RNN``, ``GRU`` and ``LSTM``. A state is one array (LSTM: two) of shape
(hidden,), or (hidden, columns) for as many sequences side by side: a step multiplies a matrix with a vector or with
columns, and the gates are the same rows of either product.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stages.lm.parameters import Architecture, Parameters

Vector = npt.NDArray[np.float32]
State = tuple[Vector, ...]
Step = Callable[[Vector, State], State]
Product = Callable[[Vector], Vector]

_ZERO, _HALF = np.zeros((), np.float32), np.full((), 0.5, np.float32)
"""Arrays, which NumPy takes up sooner than numbers: it tells in a step of some microseconds."""
_APART = 16
"""Numbers between two rows of a table that is read as columns. Rows that stand a power of two apart take each other's
place in a processor's cache, and reading a column of them takes more than twice as long."""


class Layer:
    """One recurrent layer: what comes in is projected for many steps at once, the recurrence goes step by step."""

    project: Callable[[Any], Vector]
    """What comes in → what it adds to the gates, (…, gates · hidden). Into the first layer come ids of shape (…), into
    the others the outputs of the one below, (…, hidden)."""
    project_columns: Callable[[Any], Vector]
    """The same for sequences side by side: ids (columns,), or outputs (hidden, columns) → (gates · hidden, columns)."""
    step: Step
    """``step(projected, state)``: the next state of one sequence; its first array is the output."""
    step_columns: Step
    """The same for sequences side by side."""

    def __init__(self, architecture: Architecture, weights: Parameters, layer: int) -> None:
        weight_ih, weight_hh, bias_ih, bias_hh = (
            weights[f"rnn.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        cell, size = architecture.cell, architecture.hidden_size
        bias = bias_ih + bias_hh
        # sigmoid(v) = (1 + tanh(v / 2)) / 2, and halving is exact: the gates' rows are halved here, once.
        half = np.ones(len(bias), np.float32)
        order = np.arange(len(bias))
        if cell == "lstm":
            half[: 2 * size] = half[3 * size :] = 0.5
            order = np.concatenate(
                (order[: 2 * size], order[3 * size :], order[2 * size : 3 * size])
            )  # cell's row last
        elif cell == "gru":
            half[: 2 * size] = 0.5
            bias[2 * size :] = bias_ih[2 * size :]  # the other one stands inside the reset gate
        bias = (bias * half)[order]
        weight_ih, weight_hh = (
            np.ascontiguousarray((weight * half[:, None])[order]) for weight in (weight_ih, weight_hh)
        )
        self._project(architecture, weights, layer, weight_ih, bias)
        self._size = size
        self._arrays = 2 if cell == "lstm" else 1
        transposed = np.ascontiguousarray(weight_hh.T)
        # A vector times a matrix is faster than the transposed matrix times it, and for columns it is the other way.
        self.step, self.step_columns = (
            _rnn(product, architecture.activation)
            if cell == "rnn"
            else _lstm(product, size)
            if cell == "lstm"
            else _gru(product, bias_hh[2 * size :], size)
            for product in (lambda hidden: hidden.dot(transposed), weight_hh.dot)
        )

    def _project(
        self, architecture: Architecture, weights: Parameters, layer: int, weight: Vector, bias: Vector
    ) -> None:
        """Set ``project`` and ``project_columns``; ``weight`` is (gates · hidden, in)."""
        transposed, column = np.ascontiguousarray(weight.T), bias[:, None]

        def project(inputs: Vector) -> Vector:
            projected: Vector = inputs @ transposed
            projected += bias
            return projected

        def project_columns(inputs: Vector) -> Vector:
            projected: Vector = weight.dot(inputs)
            projected += column
            return projected

        self.project, self.project_columns = project, project_columns
        if layer:
            return
        embedding = weights.get("embedding.weight")
        if embedding is None:
            # A one-hot input times a matrix is a row of that matrix.
            table = transposed
            table += bias
        elif len(embedding) * len(bias) <= sum(array.size for array in weights.values()):
            table = project(embedding)
        else:  # many words: a table of what they all add would be larger than the model
            self.project = lambda ids: project(embedding[ids])
            self.project_columns = lambda ids: project_columns(embedding[ids].T)
            return
        apart = np.zeros((len(table), len(bias) + _APART), table.dtype)
        rows = apart[:, : len(bias)]
        rows[:] = table
        self.project = rows.__getitem__
        self.project_columns = lambda ids: apart.take(ids, 0)[:, : len(bias)].T

    def zero_state(self, *columns: int) -> State:
        """Zeros of shape (hidden,) or (hidden, columns)."""
        return tuple(np.zeros((self._size, *columns), np.float32) for _ in range(self._arrays))

    def run(self, projected: Vector, state: State, begun: Sequence[int] = ()) -> tuple[Vector, State]:
        """All steps of a chunk of one sequence → outputs (steps, hidden) and the state after it.

        ``begun`` are the steps, ascending, into which a zero state comes.
        """
        outputs = np.empty((len(projected), self._size), projected.dtype)
        step = self.step
        for number, (start, stop) in enumerate(itertools.pairwise([0, *begun, len(projected)])):
            state = self.zero_state() if number else state
            for row, output in zip(projected[start:stop], outputs[start:stop], strict=True):
                state = step(row, state)
                output[:] = state[0]
        return outputs, state


def reset(states: list[State], columns: npt.NDArray[np.bool_]) -> list[State]:
    """The states of several sequences, (hidden, columns), but zero in some columns."""
    return [tuple(np.where(columns, _ZERO, array) for array in state) for state in states]


def _rnn(product: Product, activation: str) -> Step:
    def relu(projected: Vector, state: State) -> State:
        hidden = product(state[0])
        hidden += projected
        return (np.maximum(hidden, _ZERO, out=hidden),)

    def tanh(projected: Vector, state: State) -> State:
        hidden = product(state[0])
        hidden += projected
        return (np.tanh(hidden, out=hidden),)

    return relu if activation == "relu" else tanh


def _gru(product: Product, new_bias: Vector, size: int) -> Step:
    def step(projected: Vector, state: State) -> State:
        (hidden,) = state
        both = product(hidden)
        gates, new = both[: 2 * size], both[2 * size :]
        gates += projected[: 2 * size]
        np.tanh(gates, out=gates)
        gates *= _HALF
        gates += _HALF
        across = new.T  # so that one bias fits a vector and every column
        across += new_bias
        new *= gates[:size]
        new += projected[2 * size :]
        np.tanh(new, out=new)
        # (1 - z) · new + z · old
        mixed = hidden - new
        mixed *= gates[size:]
        mixed += new
        return (mixed,)

    return step


def _lstm(product: Product, size: int) -> Step:
    def step(projected: Vector, state: State) -> State:
        hidden, cell = state
        gates = product(hidden)
        gates += projected
        np.tanh(gates, out=gates)
        doors, entering, new = gates[: 3 * size], gates[:size], gates[3 * size :]
        doors *= _HALF
        doors += _HALF
        entering *= new
        cell = gates[size : 2 * size] * cell
        cell += entering
        hidden = np.tanh(cell)
        hidden *= gates[2 * size : 3 * size]
        return hidden, cell

    return step
