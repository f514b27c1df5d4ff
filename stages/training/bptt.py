"""The engine in NumPy alone: backpropagation through time, written out.

What the chapter derives for one weight matrix ("Backpropagation Through Time", Dive into Deep Learning) is done here
for every cell that there is. A vector is a column, as in the derivation, and a minibatch's rows stand side by side as
columns, so that the formulas below are the code, with δa for ∂L/∂a, ∘ for the product of entries, σ for the logistic
function. The first entry of every input and every state is 1: what a weight matrix has there, in its first column, is
the bias, and no formula has to name it.

Forward, for t = 1 … T, from h₀ of the minibatch before (its gradient ends there):

    x_t = 1-hot of the input, or its embedding E[input]     in a deeper layer: h_t of the layer below
    z_t = W_x x_t, for all t in one product;  s_t = W_h h_{t-1}, one product per step
    RNN   h_t = φ(z_t + s_t), φ = max(·, 0) or tanh                                                        (Elman 1990)
    GRU   r, u = σ(z_t + s_t);  n = tanh(z_t + r ∘ s_t);  h_t = (1 - u) ∘ n + u ∘ h_{t-1}      (Cho et al. 2014; torch)
    LSTM  i, f, o = σ(z_t + s_t);  g = tanh(z_t + s_t)             (Hochreiter and Schmidhuber 1997; Gers et al. 2000)
          c_t = f ∘ c_{t-1} + i ∘ g;  h_t = o ∘ tanh(c_t)
    o_t = W_q h_t of the last layer;  p_t = softmax(o_t);  L = -1/(T · rows) Σ log p_t[target]

where a gate takes its own rows of z_t and s_t. Backward, by the chain rule, for t = T … 1:

    δo_t = (p_t - 1-hot of the target) / (T · rows);  δW_q = Σ δo_t h_tᵀ
    δh_t = W_qᵀ δo_t + what step t + 1 sends back           in a lower layer W_xᵀ δz_t of the one above, for W_qᵀ δo_t
    RNN   δz_t = δh_t ∘ φ'(z_t + s_t);  φ' = [h_t > 0] or 1 - h_t²
    GRU   δn = δh_t ∘ (1 - u) ∘ (1 - n²);  δu = δh_t ∘ (h_{t-1} - n) ∘ u ∘ (1 - u)
          δr = δn ∘ s_t ∘ r ∘ (1 - r);  and δs_t is δz_t, but δn ∘ r in the rows of n
    LSTM  δo = δh_t ∘ tanh(c_t) ∘ o ∘ (1 - o);  δc_t = δh_t ∘ o ∘ (1 - tanh(c_t)²) + f ∘ δc_{t+1}, with step t + 1's f
          δi = δc_t ∘ g ∘ i ∘ (1 - i);  δf = δc_t ∘ c_{t-1} ∘ f ∘ (1 - f);  δg = δc_t ∘ i ∘ (1 - g²)
    step t sends back ξ_t W_hᵀ δs_t (GRU: and ξ_t u ∘ δh_t), and ξ_t f ∘ δc_t
    δW_h = Σ δs_t h_{t-1}ᵀ;  δW_x = Σ δz_t x_tᵀ;  δE[input] += W_xᵀ δz_t

where a gate's δ is that of what its function is applied to. The sums over t are one product each, of matrices with the
columns of all steps. ξ_t is 1, or with randomised truncation the factor that `stages.training.dropout` draws.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from stages.lm.parameters import GATES
from stages.training.engine import MOMENTS, EngineState, Figures, Recipe, Step, recurrent_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stages.lm.parameters import Architecture
    from stages.training.device import Device
    from stages.training.dropout import Masks
    from stages.training.engine import Arrays
    from stages.training.minibatches import Minibatch

Array = npt.NDArray[Any]

_DECAY_RATES = 0.9, 0.999
"""Of the moments; the first is the momentum of `momentum` too."""
_EPSILON = 1e-8
_THREADS = 2


class Vector:
    """A number for each parameter, in one vector: weights, gradient, averages, moments. The matrices are parts of it.

    Args:
        architecture: of the model.
        dtype: of the numbers.
    """

    def __init__(self, architecture: Architecture, dtype: npt.DTypeLike = np.float32) -> None:
        hidden, vocab, embedding = architecture.hidden_size, architecture.vocab_size, architecture.embedding_size
        gates, layers = GATES[architecture.cell] * hidden, range(architecture.layers)
        own_table = bool(embedding) and not architecture.tie_weights
        shapes = [(gates, 1 + (hidden if layer else embedding or vocab)) for layer in layers]
        shapes += [(gates, 1 + hidden)] * len(layers) + [(vocab, 1 + hidden)] + [(vocab, embedding)] * own_table
        self.all = np.zeros(sum(rows * columns for rows, columns in shapes), dtype)
        ends = np.cumsum([rows * columns for rows, columns in shapes])
        blocks = [part.reshape(shape) for part, shape in zip(np.split(self.all, ends[:-1]), shapes, strict=True)]
        self.w_x, self.w_h, self.w_q = (
            blocks[: len(layers)],
            blocks[len(layers) : 2 * len(layers)],
            blocks[2 * len(layers)],
        )
        self.table = blocks[-1]
        """What has the embeddings as its last columns."""
        self.named: dict[str, Array] = {}
        """The parts by the names, and in the order, of `Architecture.shapes`."""
        for name in architecture.shapes():
            kind, _, layer = name.removeprefix("rnn.").partition("_l")
            block = {"weight_ih": self.w_x, "bias_ih": self.w_x, "weight_hh": self.w_h, "bias_hh": self.w_h}.get(kind)
            matrix = block[int(layer)] if block else self.w_q
            if name == "embedding.weight":
                self.named[name] = self.table[:, -embedding:]
            else:
                self.named[name] = matrix[:, 1:] if "weight" in name else matrix[:, 0]

    def fill(self, values: Arrays) -> None:
        """Take these."""
        for name, part in self.named.items():
            part[:] = values[name]

    def copies(self) -> Arrays:
        """By name, each contiguous."""
        return {name: part.copy() for name, part in self.named.items()}


def _sigmoid(z: Array) -> None:
    """In place: σ(z) = (1 + tanh(z / 2)) / 2."""
    z *= 0.5
    np.tanh(z, out=z)
    z += 1
    z *= 0.5


class Rnn:
    """All steps of one layer of the cell `rnn`; what the cells have in common stands here.

    Attributes:
        h: the states, (1 + hidden, steps + 1, rows); the first row is 1, and ``h[:, 0]`` the state before.
        z: what comes in, W_x x, and on the way back its gradient in the same memory: (gates · hidden, steps, rows).
        d_h: the gradient of ``h[1:, 1:]`` that comes from above.
    """

    def __init__(self, architecture: Architecture, steps: int, rows: int, dtype: npt.DTypeLike) -> None:
        hidden = architecture.hidden_size
        self.relu = architecture.activation == "relu"
        self.steps = steps
        self.h = np.zeros((1 + hidden, steps + 1, rows), dtype)
        self.h[0] = 1
        self.z = np.empty((hidden, steps, rows), dtype)
        self.d_h = np.empty((hidden, steps, rows), dtype)
        self.state = [self.h[1:, 0]]
        self.end = [self.h[1:, -1]]
        self.s = np.empty((hidden, rows), dtype)
        self.back = np.empty((hidden, rows), dtype)

    def forward(self, w_h: Array) -> None:
        s = self.s
        for t in range(self.steps):
            np.matmul(w_h, self.h[:, t], out=s)
            s += self.z[:, t]
            if self.relu:
                np.maximum(s, 0, out=self.h[1:, t + 1])
            else:
                np.tanh(s, out=self.h[1:, t + 1])

    def backward(self, w_h: Array, xi: Array | None) -> None:
        slope, back = self.s, self.back
        back.fill(0)
        for t in reversed(range(self.steps)):
            h, d_z = self.h[1:, t + 1], self.z[:, t]
            back += self.d_h[:, t]
            if self.relu:
                np.sign(h, out=slope)
            else:
                np.multiply(h, h, out=slope)
                np.subtract(1, slope, out=slope)
            np.multiply(back, slope, out=d_z)
            np.matmul(w_h[:, 1:].T, d_z, out=back)
            if xi is not None:
                back *= xi[t]

    def to_input(self) -> None:
        """Make ``z`` the gradient of what comes in, where it is that of what comes from the state."""


class Gru:
    def __init__(self, architecture: Architecture, steps: int, rows: int, dtype: npt.DTypeLike) -> None:
        hidden = architecture.hidden_size
        self.steps, self.hidden = steps, hidden
        self.h = np.zeros((1 + hidden, steps + 1, rows), dtype)
        self.h[0] = 1
        self.z = np.empty((3 * hidden, steps, rows), dtype)
        self.d_h = np.empty((hidden, steps, rows), dtype)
        self.state = [self.h[1:, 0]]
        self.end = [self.h[1:, -1]]
        self.s = np.empty((steps, 3, hidden, rows), dtype)
        self.n = np.empty((steps, hidden, rows), dtype)
        self.d_n = np.empty((hidden, steps, rows), dtype)
        self.back = np.empty((hidden, rows), dtype)
        self.a = np.empty((hidden, rows), dtype)
        self.b = np.empty((hidden, rows), dtype)

    def forward(self, w_h: Array) -> None:
        hidden = self.hidden
        for t in range(self.steps):
            s, n, before, after = self.s[t], self.n[t], self.h[1:, t], self.h[1:, t + 1]
            flat = s.reshape(3 * hidden, -1)
            np.matmul(w_h, self.h[:, t], out=flat)
            gates = flat[: 2 * hidden]
            gates += self.z[: 2 * hidden, t]
            _sigmoid(gates)
            r, u, s_n = s
            np.multiply(r, s_n, out=n)
            n += self.z[2 * hidden :, t]
            np.tanh(n, out=n)
            np.subtract(before, n, out=self.a)
            self.a *= u
            np.add(self.a, n, out=after)

    def backward(self, w_h: Array, xi: Array | None) -> None:
        hidden, back, a, b = self.hidden, self.back, self.a, self.b
        back.fill(0)
        for t in reversed(range(self.steps)):
            (r, u, s_n), n, before = self.s[t], self.n[t], self.h[1:, t]
            d_r, d_u, d_sn, d_n = (
                self.z[:hidden, t],
                self.z[hidden : 2 * hidden, t],
                self.z[2 * hidden :, t],
                self.d_n[:, t],
            )
            d_h = back
            d_h += self.d_h[:, t]
            np.subtract(1, u, out=a)
            a *= d_h  # (1 - u) δh
            np.subtract(before, n, out=b)
            b *= u
            np.multiply(a, b, out=d_u)
            np.multiply(n, n, out=b)
            np.subtract(1, b, out=b)
            b *= a  # δn
            d_n[:] = b
            np.multiply(b, r, out=d_sn)
            b *= s_n
            np.subtract(1, r, out=a)
            a *= r
            np.multiply(a, b, out=d_r)
            d_h *= u
            np.matmul(w_h[:, 1:].T, self.z[:, t], out=a)
            d_h += a
            if xi is not None:
                d_h *= xi[t]

    def to_input(self) -> None:
        self.z[2 * self.hidden :] = self.d_n


class Lstm:
    def __init__(self, architecture: Architecture, steps: int, rows: int, dtype: npt.DTypeLike) -> None:
        hidden = architecture.hidden_size
        self.steps, self.hidden = steps, hidden
        self.h = np.zeros((1 + hidden, steps + 1, rows), dtype)
        self.h[0] = 1
        self.c = np.zeros((steps + 1, hidden, rows), dtype)
        self.z = np.empty((4 * hidden, steps, rows), dtype)
        self.d_h = np.empty((hidden, steps, rows), dtype)
        self.state = [self.h[1:, 0], self.c[0]]
        self.end = [self.h[1:, -1], self.c[-1]]
        self.gates = np.empty((steps, 4, hidden, rows), dtype)
        self.tanh_c = np.empty((steps, hidden, rows), dtype)
        self.back = np.empty((hidden, rows), dtype)
        self.d_c = np.empty((hidden, rows), dtype)
        self.a = np.empty((hidden, rows), dtype)
        self.b = np.empty((hidden, rows), dtype)

    def forward(self, w_h: Array) -> None:
        hidden = self.hidden
        for t in range(self.steps):
            flat = self.gates[t].reshape(4 * hidden, -1)
            np.matmul(w_h, self.h[:, t], out=flat)
            flat += self.z[:, t]
            i, f, g, o = self.gates[t]
            _sigmoid(flat[: 2 * hidden])
            np.tanh(g, out=g)
            _sigmoid(o)
            c = self.c[t + 1]
            np.multiply(f, self.c[t], out=c)
            np.multiply(i, g, out=self.a)
            c += self.a
            np.tanh(c, out=self.tanh_c[t])
            np.multiply(o, self.tanh_c[t], out=self.h[1:, t + 1])

    def backward(self, w_h: Array, xi: Array | None) -> None:
        hidden, d_h, d_c, a, b = self.hidden, self.back, self.d_c, self.a, self.b
        d_h.fill(0)
        d_c.fill(0)
        for t in reversed(range(self.steps)):
            (i, f, g, o), tanh_c = self.gates[t], self.tanh_c[t]
            d_i, d_f, d_g, d_o = self.z.reshape(4, hidden, self.steps, -1)[:, :, t]
            d_h += self.d_h[:, t]
            d_h *= o
            np.subtract(1, o, out=a)
            a *= d_h
            np.multiply(a, tanh_c, out=d_o)
            np.multiply(tanh_c, tanh_c, out=a)
            np.subtract(1, a, out=a)
            a *= d_h
            d_c += a
            np.multiply(d_c, i, out=a)
            np.multiply(g, g, out=b)
            np.subtract(1, b, out=b)
            np.multiply(a, b, out=d_g)
            a *= g
            np.subtract(1, i, out=b)
            np.multiply(a, b, out=d_i)
            d_c *= f
            np.subtract(1, f, out=b)
            b *= self.c[t]
            np.multiply(d_c, b, out=d_f)
            np.matmul(w_h[:, 1:].T, self.z[:, t], out=d_h)
            if xi is not None:
                d_h *= xi[t]
                d_c *= xi[t]

    def to_input(self) -> None:
        pass


_CELLS: dict[str, Any] = {"rnn": Rnn, "gru": Gru, "lstm": Lstm}


class Unrolled:
    """The network over all steps of a minibatch, with room for what each computes.

    Args:
        architecture: of the model.
        steps: time steps of the minibatch.
        rows: its rows.
        masked: names of the masks that `forward` is given.
        dtype: of all numbers.
    """

    def __init__(
        self,
        architecture: Architecture,
        steps: int,
        rows: int,
        masked: Sequence[str] = (),
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.architecture = architecture
        vocab, hidden, embedding = architecture.vocab_size, architecture.hidden_size, architecture.embedding_size
        self.layers = [_CELLS[architecture.cell](architecture, steps, rows, dtype) for _ in range(architecture.layers)]
        self.shape = steps, rows
        count = steps * rows
        self.columns = np.arange(count)

        def with_ones(size: int) -> Array:
            array = np.zeros((1 + size, count), dtype)
            array[0] = 1
            return array

        self.inputs = np.empty((steps, rows), np.intp)
        self.targets = np.empty((steps, rows), np.intp)
        self.x = [with_ones(embedding or vocab)]
        for layer in range(1, len(self.layers)):
            below = self.layers[layer - 1].h.reshape(1 + hidden, -1)[:, rows:]
            self.x.append(with_ones(hidden) if f"hidden{layer}" in masked else below)
        last = self.layers[-1].h.reshape(1 + hidden, -1)[:, rows:]
        self.x.append(with_ones(hidden) if "output" in masked else last)
        self.logits = np.empty((vocab, count), dtype)
        self.scale = np.empty(count, dtype)
        self.picked = np.empty(count, dtype)
        if embedding:
            self.rows = np.empty((count, embedding + (1 if architecture.tie_weights else 0)), dtype)
            self.d_x = np.empty((embedding, count), dtype)
        self.w_h: dict[int, Array] = {
            layer: np.empty((GATES[architecture.cell] * hidden, 1 + hidden), dtype)
            for layer in range(architecture.layers)
            if f"recurrent{layer}" in masked
        }

    def begin(self, state: Sequence[Array]) -> None:
        """The state before the first step, each array (layers, hidden, rows)."""
        for number, layer in enumerate(self.layers):
            for own, array in zip(layer.state, state, strict=True):
                own[:] = array[number]

    def end(self, state: Sequence[Array]) -> None:
        """Write the state after the last step there."""
        for number, layer in enumerate(self.layers):
            for own, array in zip(layer.end, state, strict=True):
                array[number] = own

    def forward(self, weights: Vector, inputs: Array, masks: Masks) -> None:
        """From ids (rows, steps) to logits (vocabulary, steps · rows)."""
        self.inputs[:] = inputs.T
        ids, x, embedding = self.inputs.reshape(-1), self.x[0], self.architecture.embedding_size
        mask = masks.get("input")
        if embedding:
            np.take(weights.table, ids, axis=0, out=self.rows, mode="clip")
            x[1:] = self.rows[:, -embedding:].T
            if mask is not None:
                self._mask(x, mask, x)
        else:
            x[1:] = 0
            if mask is None:
                x[1 + ids, self.columns] = 1
            else:
                steps, rows = self.shape
                whole = np.broadcast_to(mask, (steps, *mask.shape[1:]))
                x[1 + ids, self.columns] = whole[self.columns // rows, self.columns % rows, ids]
        for number, layer in enumerate(self.layers):
            x = self.x[number]
            if number and (mask := masks.get(f"hidden{number}")) is not None:
                self._mask(self.layers[number - 1].h, mask, x)
            np.matmul(weights.w_x[number], x, out=layer.z.reshape(-1, x.shape[1]))
            layer.forward(self._recurrent(weights, number, masks))
        if (mask := masks.get("output")) is not None:
            self._mask(self.layers[-1].h, mask, self.x[-1])
        np.matmul(weights.w_q, self.x[-1], out=self.logits)

    def nats(self, targets: Array) -> Array:
        """The targets' negative log-likelihoods, (steps · rows); the logits become softmax's numerators."""
        self.targets[:] = targets.T
        logits, scale = self.logits, self.scale
        np.max(logits, axis=0, out=scale)
        logits -= scale
        self.picked[:] = logits[self.targets.reshape(-1), self.columns]
        np.exp(logits, out=logits)
        np.sum(logits, axis=0, out=scale)
        nats: Array = np.log(scale) - self.picked
        return nats

    def backward(self, weights: Vector, gradient: Vector, masks: Masks) -> None:
        """The gradient of the mean of `nats`, after it."""
        d_o, count = self.logits, len(self.columns)
        self.scale *= count
        d_o /= self.scale
        d_o[self.targets.reshape(-1), self.columns] -= 1 / count
        np.matmul(d_o, self.x[-1].T, out=gradient.w_q)
        hidden = self.architecture.hidden_size
        d_h = self.layers[-1].d_h.reshape(hidden, -1)
        np.matmul(weights.w_q[:, 1:].T, d_o, out=d_h)
        self._mask_back(d_h, masks.get("output"))
        factors = masks.get("gradient")
        xi = None if factors is None else factors[:, :, 0]
        for number in reversed(range(len(self.layers))):
            layer = self.layers[number]
            layer.backward(self.w_h.get(number, weights.w_h[number]), xi)
            d_z = layer.z.reshape(len(layer.z), -1)
            before = layer.h.reshape(1 + hidden, -1)[:, :count]
            np.matmul(d_z, before.T, out=gradient.w_h[number])
            if number in self.w_h:
                gradient.w_h[number][:, 1:] *= masks[f"recurrent{number}"]
            layer.to_input()
            np.matmul(d_z, self.x[number].T, out=gradient.w_x[number])
            w_x = weights.w_x[number][:, 1:]
            if number:
                d_below = self.layers[number - 1].d_h.reshape(hidden, -1)
                np.matmul(w_x.T, d_z, out=d_below)
                self._mask_back(d_below, masks.get(f"hidden{number}"))
            elif self.architecture.embedding_size:
                np.matmul(w_x.T, d_z, out=self.d_x)
                self._mask_back(self.d_x, masks.get("input"))
                self._embed_back(gradient)

    def _embed_back(self, gradient: Vector) -> None:
        embedding = self.architecture.embedding_size
        part = gradient.table[:, -embedding:]
        if not self.architecture.tie_weights:
            part[:] = 0
        np.add.at(part, self.inputs.reshape(-1), self.d_x.T)

    def _recurrent(self, weights: Vector, number: int, masks: Masks) -> Array:
        w_h = weights.w_h[number]
        mask = masks.get(f"recurrent{number}")
        if mask is None:
            return w_h
        masked = self.w_h[number]
        masked[:, 0] = w_h[:, 0]
        np.multiply(w_h[:, 1:], mask, out=masked[:, 1:])
        return masked

    def _mask(self, source: Array, mask: Array, out: Array) -> None:
        steps, rows = self.shape
        source = source.reshape(len(source), -1, rows)[1:, -steps:]
        np.multiply(source, mask.transpose(2, 0, 1), out=out.reshape(len(out), steps, rows)[1:])

    def _mask_back(self, d: Array, mask: Array | None) -> None:
        if mask is not None:
            shaped = d.reshape(len(d), *self.shape)
            shaped *= mask.transpose(2, 0, 1)


class BpttEngine:
    """The engine as `stages.training.engine.Engine` describes it.

    Args:
        recipe: what to build.
        device: the CPU, whatever it says.
    """

    def __init__(self, recipe: Recipe, device: Device) -> None:
        architecture = recipe.architecture
        self._recipe = recipe
        self._weights, self._gradient, self._averages, self._scratch = (Vector(architecture) for _ in range(4))
        self._moments = {moment: Vector(architecture) for moment in MOMENTS[recipe.optimizer]}
        self._decay = Vector(architecture)
        for name, part in self._decay.named.items():
            part[:] = recipe.weight_decay * ("weight" in name)
        shape = architecture.layers, architecture.hidden_size, recipe.batch_size
        self._state = [np.zeros(shape, np.float32) for _ in recurrent_names(architecture)]
        self._threads = ThreadpoolController()

        @lru_cache(maxsize=4)
        def unrolled(steps: int, rows: int, masked: tuple[str, ...]) -> Unrolled:
            return Unrolled(architecture, steps, rows, masked)

        self._unrolled = unrolled

    def run(self, steps: Sequence[Step]) -> list[Figures]:
        """Train these steps."""
        with self._threads.limit(limits=_THREADS, user_api="blas"), np.errstate(all="ignore"):
            return [self._step(step) for step in steps]

    def loss(self, minibatches: Iterable[Minibatch]) -> float:
        """The mean loss of the averaged weights."""
        total, tokens = 0.0, 0
        state: list[Array] | None = None
        architecture = self._recipe.architecture
        with self._threads.limit(limits=_THREADS, user_api="blas"), np.errstate(all="ignore"):
            for inputs, targets in minibatches:
                rows, steps = inputs.shape
                if state is None:
                    shape = architecture.layers, architecture.hidden_size, rows
                    state = [np.zeros(shape, np.float32) for _ in self._state]
                unrolled = self._unrolled(steps, rows, ())
                unrolled.begin(state)
                unrolled.forward(self._averages, inputs, {})
                unrolled.end(state)
                counted = targets >= 0
                nats = unrolled.nats(np.where(counted, targets, 0))
                total += float(nats[counted.T.reshape(-1)].sum(dtype=np.float64))
                tokens += int(counted.sum())
        return total / tokens

    def state(self) -> EngineState:
        """A copy of all that decides how training goes on."""
        return EngineState(
            parameters=self._weights.copies(),
            averages=self._averages.copies(),
            moments={
                f"{moment}/{name}": array
                for moment, vector in self._moments.items()
                for name, array in vector.copies().items()
            },
            recurrent={
                name: np.ascontiguousarray(array.transpose(0, 2, 1))
                for name, array in zip(recurrent_names(self._recipe.architecture), self._state, strict=True)
            },
        )

    def restore(self, state: EngineState) -> None:
        """Take what `state` gave."""
        self._weights.fill(state.parameters)
        self._averages.fill(state.averages)
        for moment, vector in self._moments.items():
            vector.fill({name: state.moments[f"{moment}/{name}"] for name in vector.named})
        for name, array in zip(recurrent_names(self._recipe.architecture), self._state, strict=True):
            array[:] = state.recurrent[name].transpose(0, 2, 1)

    def _step(self, step: Step) -> Figures:
        if step.reset_state:
            for array in self._state:
                array.fill(0)
        rows, steps = step.inputs.shape
        unrolled = self._unrolled(steps, rows, self._recipe.masks)
        unrolled.begin(self._state)
        unrolled.forward(self._weights, step.inputs, step.masks)
        unrolled.end(self._state)
        loss = float(unrolled.nats(step.targets).mean(dtype=np.float64))
        unrolled.backward(self._weights, self._gradient, step.masks)
        g = self._gradient.all
        norm = float(np.sqrt(np.dot(g, g)))
        clip_norm = self._recipe.clip_norm
        if clip_norm and norm > clip_norm:
            g *= clip_norm / norm
        if self._recipe.optimizer in ("adam", "adamw"):
            self._adam(step.learning_rate, step.number)
        else:
            self._sgd(step.learning_rate)
        self._average(step.averaging)
        return Figures(loss, norm)

    def _sgd(self, rate: float) -> None:
        """w ← w - η (g + λ · w); with momentum v ← μ · v - η (g + λ · w), w ← w + v."""
        w, g, scratch = self._weights.all, self._gradient.all, self._scratch.all
        if self._recipe.weight_decay:
            np.multiply(w, self._decay.all, out=scratch)
            g += scratch
        g *= rate
        if "momentum" in self._moments:
            v = self._moments["momentum"].all
            v *= _DECAY_RATES[0]
            v -= g
            w += v
        else:
            w -= g

    def _adam(self, rate: float, number: int) -> None:
        w, g, scratch = self._weights.all, self._gradient.all, self._scratch.all
        m, v = self._moments["mean"].all, self._moments["variance"].all
        beta1, beta2 = _DECAY_RATES
        if self._recipe.weight_decay:
            np.multiply(w, self._decay.all, out=scratch)
            if self._recipe.optimizer == "adam":
                g += scratch
            else:
                scratch *= rate
                w -= scratch
        m *= beta1
        np.multiply(g, 1 - beta1, out=scratch)
        m += scratch
        v *= beta2
        g *= g
        g *= 1 - beta2
        v += g
        np.sqrt(v, out=scratch)
        scratch += _EPSILON
        np.divide(m, scratch, out=scratch)
        scratch *= rate * (1 - beta2**number) ** 0.5 / (1 - beta1**number)
        w -= scratch

    def _average(self, fraction: float) -> None:
        """a ← a + α (w - a)."""
        w, a, scratch = self._weights.all, self._averages.all, self._scratch.all
        if fraction == 1:
            a[:] = w
        elif fraction:
            np.subtract(w, a, out=scratch)
            scratch *= fraction
            a += scratch
