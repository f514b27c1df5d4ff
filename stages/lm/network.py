"""A recurrent network in NumPy: ids in, logits and losses out. It knows no text.

Text is made and measured with a state (`beginning`), one token more (`advance`), what may follow (`readout`), and what
given ids cost (`losses`). Where documents have ends, whoever reads one does so at the zero state.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.tables.tokens import END_ID
from stages.lm import metrics, separate, side_by_side
from stages.lm.layers import Layer, State, Vector, reset
from stages.lm.parameters import GATES

if TYPE_CHECKING:
    from stages.lm.parameters import Architecture, Parameters

_NUMBERS = 1 << 22
"""Logits, or gates, held at once while losses are computed: 16 MB."""
_ROWS = 4096
"""Time steps, or windows, at most that are computed at once."""


@contextmanager
def one_thread() -> Iterator[None]:
    """While this holds, NumPy's products take one thread: how many there are changes their last bits, and must not
    follow from the machine. Losses are computed so; who samples and keeps what is said asks for it.

    Where several threads ask for it, the last to leave gives back what the first one found.
    """
    with _asking:
        _held.append(ExitStack())
        _held[-1].enter_context(_blas().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _asking:
            _held.pop().close()


_asking = threading.Lock()
_held: list[ExitStack] = []
"""A limit for each that asks. Whoever leaves takes the newest, so that the first one's is left for the last."""


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


class Network:
    """Weights, ready to compute with.

    The functions that read ids carry ``states``, a list with the state of each layer, which they change in place.

    Args:
        architecture: which model it is.
        weights: as `stages.lm.parameters` names them.
    """

    def __init__(self, architecture: Architecture, weights: Parameters) -> None:
        self.architecture = architecture
        with one_thread():
            self._layers = [Layer(architecture, weights, layer) for layer in range(architecture.layers)]
        dense = weights["embedding.weight" if architecture.tie_weights else "dense.weight"]
        self._dense = np.ascontiguousarray(dense), weights["dense.bias"]

    def zero_state(self, *columns: int) -> list[State]:
        """The state of each layer before anything is read, (hidden,), or (hidden, columns) for several texts."""
        return [layer.zero_state(*columns) for layer in self._layers]

    def beginning(self) -> list[State]:
        """Where a text begins: at the zero state, and where documents have ends, behind one."""
        states = self.zero_state()
        if self.architecture.ends:
            self.advance(END_ID, states)
        return states

    def advance(self, id_: int, states: list[State]) -> None:
        """Read one token."""
        if id_ == END_ID and self.architecture.ends:
            states[:] = self.zero_state()
        inputs: Any = id_
        for number, layer in enumerate(self._layers):
            states[number] = state = layer.step(layer.project(inputs), states[number])
            inputs = state[0]

    def readout(self, first: int = 0) -> Callable[[list[State]], Vector]:
        """From states to the logits of the token that comes next, (vocab - first,): those of the ids from ``first`` on.

        A function, for a cut of the weights for every token would be a tenth of a small network's time.
        """
        weight, bias = (array[first:] for array in self._dense)

        def logits(states: list[State]) -> Vector:
            result: Vector = weight.dot(states[-1][0])
            result += bias
            return result

        return logits

    def advance_columns(self, ids: npt.NDArray[Any], states: list[State]) -> None:
        """Read one token of each of several texts, (columns,)."""
        if self.architecture.ends and (ends := ids == END_ID).any():
            states[:] = reset(states, ends)
        inputs: Any = ids
        for number, layer in enumerate(self._layers):
            states[number] = layer.step_columns(layer.project_columns(inputs), states[number])
            inputs = states[number][0]

    def readout_columns(self, first: int = 0) -> Callable[[list[State]], Vector]:
        """As ``readout``, for states of several texts: logits (columns, vocab - first)."""
        weight, bias = (array[first:] for array in self._dense)

        def logits(states: list[State]) -> Vector:
            result: Vector = states[-1][0].T @ weight.T
            result += bias
            return result

        return logits

    def losses(self, ids: npt.NDArray[Any], states: list[State] | None = None) -> Iterator[Vector]:
        """The negative log-likelihood of each token but the first, nats, in chunks.

        Args:
            ids: integers of shape (tokens,).
            states: where the first token is read, and, once all is measured, where the last one is to be read: with it
                ``ids[:n]`` and then ``ids[n - 1:]`` give what ``ids`` gives. None is ``beginning()``.
        """
        states = self.beginning() if states is None else states
        done, held = 0, self._rows(self.architecture.vocab_size)
        for tokens in self.chunks(len(ids) - 1):
            inputs, targets = ids[done : done + tokens], ids[done + 1 : done + tokens + 1]
            with one_thread(), np.errstate(all="ignore"):
                if tokens >= side_by_side.ROWS * side_by_side.SHORTEST:
                    rows = inputs.reshape(side_by_side.ROWS, -1), targets.reshape(side_by_side.ROWS, -1)
                    losses = side_by_side.losses(self.advance_columns, self._nats, *rows, states, held)
                else:
                    begun = np.flatnonzero(inputs == END_ID).tolist() if self.architecture.ends else ()
                    outputs: Any = inputs
                    for number, layer in enumerate(self._layers):
                        outputs, states[number] = layer.run(layer.project(outputs), states[number], begun)
                    losses = self._nats(outputs.T, targets)
            yield losses
            done += tokens

    def chunks(self, left: int) -> Iterator[int]:
        """How many of so many ``losses`` are computed at once, one chunk behind another. A chunk alone is one, too."""
        while left > 0:
            steps = left // (math.ceil(left / side_by_side.MOST) * side_by_side.ROWS)  # no short rest is left over
            long_enough = steps >= side_by_side.SHORTEST
            held = self._rows(self.architecture.vocab_size)
            tokens = steps * side_by_side.ROWS if long_enough else min(left, held)
            yield tokens
            left -= tokens

    def loss(self, ids: npt.NDArray[Any]) -> float:
        """The mean of ``losses``, nats per token; not a number where there are none."""
        return metrics.mean(self.losses(ids))

    def separate_losses(self, ids: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> Vector:
        """The losses of many texts, each read from its beginning (see `stages.lm.separate`)."""
        with one_thread(), np.errstate(all="ignore"):
            return self._separate.losses(ids, lengths)

    @cached_property
    def _separate(self) -> separate.Columns:
        return separate.Columns(self.advance_columns, self._logits, self._nats, self.beginning())

    def windowed_losses(self, ids: npt.NDArray[Any], window: int) -> Iterator[Vector]:
        """The losses of all tokens but the first, nats, in chunks, where the state is zero every ``window`` tokens.

        Window k reads ``ids[k * window : (k + 1) * window]`` and predicts what stands one token further, so that each
        target counts once; the last window may be shorter. Many windows are computed side by side, as columns: all of
        a step's inputs stand ``window`` tokens apart, and a chunk is one step.

        Args:
            ids: integers of shape (tokens,).
            window: tokens.
        """
        span = self.windowed_span(window)
        for start in range(0, len(ids) - 1, span):
            chunk = ids[start : start + span + 1]
            states: list[State] | None = None
            for step in range(min(window, len(chunk) - 1)):
                inputs, targets = chunk[step:-1:window], chunk[step + 1 :: window]
                with one_thread(), np.errstate(all="ignore"):
                    # The last window may have ended.
                    states = [
                        tuple(array[:, : len(inputs)] for array in state)
                        for state in states or self.zero_state(len(inputs))
                    ]
                    self.advance_columns(inputs, states)
                    losses = self._nats(states[-1][0], targets)
                yield losses

    def windowed_span(self, window: int) -> int:
        """How many tokens ``windowed_losses`` computes side by side: after each multiple it begins anew."""
        gates = GATES[self.architecture.cell] * self.architecture.hidden_size
        return self._rows(max(self.architecture.vocab_size, gates)) * window

    def _logits(self, outputs: Vector) -> Vector:
        """Logits (vocab, columns), from outputs of the last layer (hidden, columns)."""
        weight, bias = self._dense
        logits: Vector = weight @ outputs
        logits += bias[:, None]
        return logits

    def _nats(self, outputs: Vector, targets: npt.NDArray[Any]) -> Vector:
        """The loss of each target, (columns,); outputs of the last layer (hidden, columns)."""
        logits = self._logits(outputs)
        logits -= logits.max(axis=0)
        chosen = logits[targets, np.arange(len(targets))]
        np.exp(logits, out=logits)
        # Added up in double precision: of many words, one after the other, the rare ones would be lost.
        losses: Vector = (np.log(logits.sum(axis=0, dtype=np.float64)) - chosen).astype(logits.dtype)
        return losses

    def _rows(self, numbers: int) -> int:
        """How many rows of so many numbers are computed at once."""
        return max(1, min(_ROWS, _NUMBERS // numbers))
