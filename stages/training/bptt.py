"""The engine in NumPy alone: backpropagation through time, written out.

What the chapter derives for one cell (Dive into Deep Learning, "Backpropagation Through Time"; Werbos, "Backpropagation
Through Time: What It Does and How to Do It", 1990) is done here for all of them. A vector is a column, as it is there,
and a minibatch's rows stand side by side as columns: so the formulas below are the code. δa is ∂L/∂a, ∘ the product of
entries, σ the logistic function. Every input and every state has a 1 before its first entry, and a weight matrix its
bias as the first column, so that no formula has to name it.

Forward, t = 1 … T; h_0 (and c_0) is what the last minibatch ended with, and no gradient goes there. A column in which
x_t ends a document has zeros for h_{t-1} and c_{t-1}:

    x_t = 1-hot of the id, or its column of the embedding; in deeper layers h_t of the layer below
    z_t = W_x x_t, for all t at once;  s_t = W_h h_{t-1}, step by step
    RNN   h_t = φ(z_t + s_t), φ = max(·, 0) or tanh (Elman, "Finding Structure in Time", 1990)
    GRU   r, u = σ(z_t + s_t);  n = tanh(z_t + r ∘ s_t);  h_t = (1 - u) ∘ n + u ∘ h_{t-1} (Cho et al., "Learning Phrase
          Representations using RNN Encoder–Decoder", 2014; with r behind the product, as cuDNN and torch have it)
    LSTM  i, f, o = σ(z_t + s_t);  g = tanh(z_t + s_t);  c_t = f ∘ c_{t-1} + i ∘ g;  h_t = o ∘ tanh(c_t) (Hochreiter and
          Schmidhuber, "Long Short-Term Memory", 1997; f from Gers, Schmidhuber and Cummins, "Learning to Forget", 2000)
    o_t = W_q h_t of the last layer;  p_t = softmax(o_t);  L = -Σ log p_t[target] / N, over all N targets

where each gate takes its own rows of z_t and s_t. Backward, t = T … 1, where a gate's δ is that of what φ, σ or tanh is
applied to:

    δo_t = (p_t - 1-hot of the target) / N;  δW_q = Σ δo_t h_tᵀ
    δh_t = W_qᵀ δo_t + b_{t+1}; in lower layers W_xᵀ δz_t of the layer above, for W_qᵀ δo_t
    RNN   δz_t = δh_t ∘ φ', φ' = [h_t > 0] or 1 - h_t ∘ h_t;  b_t = ξ_t W_hᵀ δz_t
    GRU   δn = δh_t ∘ (1 - u) ∘ (1 - n ∘ n);  δu = δh_t ∘ (h_{t-1} - n) ∘ u ∘ (1 - u);  δr = δn ∘ s_t ∘ r ∘ (1 - r)
          b_t = ξ_t (W_hᵀ δs_t + u ∘ δh_t), where δs_t is δz_t but for δn ∘ r in place of δn
    LSTM  δo = δh_t ∘ tanh(c_t) ∘ o ∘ (1 - o);  δc_t = δh_t ∘ o ∘ (1 - tanh(c_t) ∘ tanh(c_t)) + e_{t+1}
          δi = δc_t ∘ g ∘ i ∘ (1 - i);  δf = δc_t ∘ c_{t-1} ∘ f ∘ (1 - f);  δg = δc_t ∘ i ∘ (1 - g ∘ g)
          b_t = ξ_t W_hᵀ δz_t;  e_t = ξ_t f ∘ δc_t
    δW_h = Σ δs_t h_{t-1}ᵀ;  δW_x = Σ δz_t x_tᵀ;  the embedding's column of an id: Σ W_xᵀ δz_t where it is read

with b_{T+1} = e_{T+1} = 0. ξ_t is 1, or what randomised truncation draws (see `stages.training.dropout`), but 0 in a
column in which x_t ends a document. A sum over t is one product, of matrices that have the columns of all steps side by
side. The mean loss's gradient is then clipped,
g ← min(θ / ‖g‖, 1) g ("Recurrent Neural Network Implementation from Scratch" there; Pascanu, Mikolov and Bengio, 2013).
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from data.tables.tokens import END_ID
from stages.lm.parameters import GATES
from stages.training.engine import MOMENTS, EngineState, Figures, Recipe, Step, beginnings, recurrent_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stages.lm.parameters import Architecture
    from stages.training.device import Device
    from stages.training.dropout import Masks
    from stages.training.engine import Arrays
    from stages.training.minibatches import Minibatch

Array = npt.NDArray[Any]

_TWO_THREADS_FROM = 1 << 16
"""Weights in the largest matrix. With one thread in place of two a minibatch of 32 × 35 takes 1.2 times as long, on two
cores, where there are as many (RNN 256, LSTM 128), 1.4 times in an LSTM of 512, and the same with a quarter of them."""
_DECAY_RATES = 0.9, 0.999
"""Of the moments; the first is the momentum of `momentum` too."""
_PIECE = 1 << 15
"""Parameters that the optimizer takes at once, so that they stay in the cache from one operation to the next."""
_TINY = 1e-30
"""Added to moments. One whose gradient stays zero would else end in numbers so small that a CPU takes a hundred times
as long for each; against what a gradient leaves there it is nothing."""


class Vector:
    """A number for each parameter, in one vector: weights, gradient, averages and moments. The matrices are its parts.

    Args:
        architecture: of the model.
        dtype: of the numbers.
    """

    def __init__(self, architecture: Architecture, dtype: npt.DTypeLike = np.float32) -> None:
        hidden, vocab, embedding = architecture.hidden_size, architecture.vocab_size, architecture.embedding_size
        gates, layers = GATES[architecture.cell] * hidden, architecture.layers
        shapes = [(gates, 1 + (hidden if layer else embedding or vocab)) for layer in range(layers)]
        shapes += [(gates, 1 + hidden)] * layers + [(vocab, 1 + hidden)]
        shapes += [(vocab, embedding)] if embedding and not architecture.tie_weights else []
        ends = np.cumsum([rows * columns for rows, columns in shapes])
        self.all = np.zeros(ends[-1], dtype)
        parts = np.split(self.all, ends[:-1])
        matrices = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.w_x, self.w_h, self.w_q = matrices[:layers], matrices[layers : 2 * layers], matrices[2 * layers]
        self.table = matrices[-1]
        """Its last columns are the embedding, a row for each id."""
        self.named: dict[str, Array] = {}
        """The parts by the names, and in the order, of `Architecture.shapes`."""
        for name in architecture.shapes():
            kind, _, layer = name.removeprefix("rnn.").partition("_l")
            matrix = self.w_q if not layer else (self.w_x if "ih" in kind else self.w_h)[int(layer)]
            self.named[name] = matrix[:, 1:] if "weight" in name else matrix[:, 0]
        if embedding:
            self.named["embedding.weight"] = self.table[:, -embedding:]

    def fill(self, values: Arrays) -> None:
        """Take these, by name."""
        for name, part in self.named.items():
            part[:] = values[name]

    def copies(self) -> Arrays:
        """All by name, each contiguous."""
        return {name: part.copy() for name, part in self.named.items()}


class Layer:
    """One recurrent layer over all steps of a minibatch, with room for what it computes.

    A step's numbers lie together, (steps, …, rows), as most work goes step by step. The products for the weights'
    gradients need the columns of all steps side by side, (…, steps, rows): they are copied once all are there.
    """

    def __init__(self, architecture: Architecture, steps: int, rows: int, dtype: npt.DTypeLike) -> None:
        hidden, gates = architecture.hidden_size, GATES[architecture.cell] * architecture.hidden_size
        self.h = np.ones((steps + 1, 1 + hidden, rows), dtype)
        """1 and h_t, from that before the first step on."""
        self.z = np.empty((steps, gates, rows), dtype)
        """What comes in, z; in its place a cell keeps its gates, and on the way back leaves δs."""
        self.d_h = np.empty((steps, hidden, rows), dtype)
        """First only what is above each step gives; a cell adds what comes back through time."""
        self.d_n: Array | None = None
        """The last rows of δz where δs has others; see `Gru`."""
        self.h_columns = np.empty((1 + hidden, steps + 1, rows), dtype)
        self.d_z_columns = np.empty((gates, steps, rows), dtype)
        self.before, self.after = [self.h[0, 1:]], [self.h[-1, 1:]]
        self.begun: dict[int, Array] = {}
        """The steps in which a document begins, and of each a row: 0 in its columns, else 1."""
        self._read = np.ones((1 + hidden, rows), dtype)
        self._w_h, self._w_h_t = np.empty((gates, 1 + hidden), dtype), np.empty((hidden, gates), dtype)
        self._cell: Rnn | Gru | Lstm = _CELLS[architecture.cell](self, architecture)

    def forward(self, w_x: Array, w_h: Array, x: Array, mask: Array | None) -> None:
        """All steps, from inputs (1 + size, steps, rows); ``mask`` is that of the recurrent weights."""
        np.matmul(w_x, x.transpose(1, 0, 2), out=self.z)
        if mask is not None:
            self._w_h[:] = w_h
            self._w_h[:, 1:] *= mask
            w_h = self._w_h
        self._w_h_t[:] = w_h[:, 1:].T  # products with this one take two thirds of the time
        self._cell.forward(self, w_h)
        self.h_columns[:] = self.h.transpose(1, 0, 2)

    def read(self, t: int) -> Array:
        """1 and h_{t-1} as step t, from 0 on, reads it."""
        if t not in self.begun:
            read: Array = self.h[t]
            return read
        np.multiply(self.h[t, 1:], self.begun[t], out=self._read[1:])
        return self._read

    def backward(self, d_w_x: Array, d_w_h: Array, x: Array, mask: Array | None, xi: Array | None) -> None:
        """From ``d_h`` the gradients of the weights, and in ``d_z_columns`` that of what came in."""
        self._cell.backward(self, self._w_h_t, xi)
        for t, kept in self.begun.items():
            self.h_columns[1:, t] *= kept  # what is above this layer has read it
        self.d_z_columns[:] = self.z.transpose(1, 0, 2)
        np.matmul(_flat(self.d_z_columns), _flat(self.h_columns[:, :-1]).T, out=d_w_h)
        if mask is not None:
            d_w_h[:, 1:] *= mask
        if self.d_n is not None:
            self.d_z_columns[-self.d_n.shape[1] :] = self.d_n.transpose(1, 0, 2)
        np.matmul(_flat(self.d_z_columns), _flat(x).T, out=d_w_x)


class Rnn:
    """The cell `rnn`."""

    def __init__(self, layer: Layer, architecture: Architecture) -> None:
        self._relu = architecture.activation == "relu"
        self._a = np.empty_like(layer.d_h[0])
        self._zero = np.zeros_like(self._a)  # with a number, the maximum takes three times as long

    def forward(self, layer: Layer, w_h: Array) -> None:
        h, z, a = layer.h, layer.z, self._a
        for t in range(len(z)):
            np.matmul(w_h, layer.read(t), out=a)
            a += z[t]
            if self._relu:
                np.maximum(a, self._zero, out=h[t + 1, 1:])
            else:
                np.tanh(a, out=h[t + 1, 1:])

    def backward(self, layer: Layer, w_h_t: Array, xi: Array | None) -> None:
        h, d_h, d_z, a = layer.h, layer.d_h, layer.z, self._a
        for t in reversed(range(len(d_z))):
            if self._relu:
                np.greater(h[t + 1, 1:], 0, out=d_z[t])
            else:
                np.subtract(1, np.square(h[t + 1, 1:], out=a), out=d_z[t])
            d_z[t] *= d_h[t]
            if t:
                np.matmul(w_h_t, d_z[t], out=a)
                if xi is not None:
                    a *= xi[t]
                d_h[t - 1] += a


class Gru:
    """The cell `gru`; r stands between s and z, so that δs is not δz in the rows of n."""

    def __init__(self, layer: Layer, architecture: Architecture) -> None:
        self._hidden = architecture.hidden_size
        self._s = np.empty_like(layer.z[0])
        self._r_s, self._h_n, self._d_n = (np.empty_like(layer.d_h) for _ in range(3))  # r ∘ s_t and h_{t-1} - n
        self._a, self._b = (np.empty_like(layer.d_h[0]) for _ in range(2))
        layer.d_n = self._d_n

    def forward(self, layer: Layer, w_h: Array) -> None:
        hidden, h, s, a = self._hidden, layer.h, self._s, self._a
        for t, (z, r_s, h_n) in enumerate(zip(layer.z, self._r_s, self._h_n, strict=True)):
            r_u, r, u, n = z[: 2 * hidden], z[:hidden], z[hidden : 2 * hidden], z[2 * hidden :]
            before = layer.read(t)
            np.matmul(w_h, before, out=s)
            r_u += s[: 2 * hidden]
            r_u *= 0.5  # σ(a) = (tanh(a / 2) + 1) / 2, and NumPy's tanh is fast
            np.tanh(r_u, out=r_u)
            r_u *= 0.5
            r_u += 0.5
            n += np.multiply(r, s[2 * hidden :], out=r_s)
            np.tanh(n, out=n)
            np.subtract(before[1:], n, out=h_n)
            np.add(n, np.multiply(u, h_n, out=a), out=h[t + 1, 1:])

    def backward(self, layer: Layer, w_h_t: Array, xi: Array | None) -> None:
        hidden, d_h, a, b = self._hidden, layer.d_h, self._a, self._b
        for t in reversed(range(len(d_h))):
            z, d_n = layer.z[t], self._d_n[t]
            r, u, n = z[:hidden], z[hidden : 2 * hidden], z[2 * hidden :]
            np.subtract(1, u, out=a)
            a *= d_h[t]
            d_h[t] *= u  # sent back past W_h
            np.multiply(u, self._h_n[t], out=b)
            np.multiply(a, b, out=u)  # δu
            np.subtract(1, np.square(n, out=b), out=b)
            np.multiply(a, b, out=d_n)
            np.multiply(d_n, r, out=n)  # δs in the rows of n
            np.subtract(1, r, out=a)
            a *= self._r_s[t]
            np.multiply(d_n, a, out=r)  # δr
            if t:
                np.matmul(w_h_t, z, out=a)
                a += d_h[t]
                if xi is not None:
                    a *= xi[t]
                d_h[t - 1] += a


class Lstm:
    """The cell `lstm`; its state is c too."""

    def __init__(self, layer: Layer, architecture: Architecture) -> None:
        steps, hidden, rows = layer.d_h.shape
        self._gates = layer.z.reshape(steps, 4, hidden, rows)
        self._c, self._tanh_c = np.empty((steps + 1, hidden, rows), layer.h.dtype), np.empty_like(layer.d_h)
        self._s = np.empty_like(layer.z[0])
        self._slope = self._s.reshape(4, hidden, rows)
        self._a, self._d_c, self._e = (np.empty_like(layer.d_h[0]) for _ in range(3))
        # σ(a) = (tanh(a / 2) + 1) / 2: so one tanh does for all gates.
        self._scale = np.array([0.5, 0.5, 1, 0.5], layer.h.dtype)[:, None, None]
        self._shift = 1 - self._scale
        layer.before.append(self._c[0])
        layer.after.append(self._c[-1])

    def forward(self, layer: Layer, w_h: Array) -> None:
        h, s, c, a = layer.h, self._s, self._c, self._a
        for t, (z, gates, tanh_c) in enumerate(zip(layer.z, self._gates, self._tanh_c, strict=True)):
            np.matmul(w_h, layer.read(t), out=s)
            if t in layer.begun:
                c[t] *= layer.begun[t]
            z += s
            gates *= self._scale
            np.tanh(z, out=z)
            gates *= self._scale
            gates += self._shift
            i, f, g, o = gates
            np.multiply(f, c[t], out=c[t + 1])
            c[t + 1] += np.multiply(i, g, out=a)
            np.tanh(c[t + 1], out=tanh_c)
            np.multiply(o, tanh_c, out=h[t + 1, 1:])

    def backward(self, layer: Layer, w_h_t: Array, xi: Array | None) -> None:
        d_h, d_c, e, a, slope = layer.d_h, self._d_c, self._e, self._a, self._slope
        d_c.fill(0)
        for t in reversed(range(len(d_h))):
            gates, tanh_c = self._gates[t], self._tanh_c[t]
            i, f, g, o = gates
            np.square(gates, out=slope)
            np.subtract(gates[:2], slope[:2], out=slope[:2])  # σ' = σ - σ ∘ σ
            np.subtract(1, slope[2], out=slope[2])
            np.subtract(o, slope[3], out=slope[3])
            for row, other in zip(slope, (g, self._c[t], i, tanh_c), strict=True):
                row *= other
            np.subtract(1, np.square(tanh_c, out=a), out=a)
            a *= o
            a *= d_h[t]
            d_c += a
            np.multiply(f, d_c, out=e)
            np.multiply(slope[:3], d_c, out=gates[:3])  # δi, δf, δg
            np.multiply(slope[3], d_h[t], out=o)  # δo
            if t:
                np.matmul(w_h_t, layer.z[t], out=a)
                if xi is not None:
                    a *= xi[t]
                    e *= xi[t]
                d_h[t - 1] += a
            d_c, e = e, d_c


_CELLS: dict[str, Any] = {"rnn": Rnn, "gru": Gru, "lstm": Lstm}


class Unrolled:
    """The network over all steps of a minibatch, with room for what it computes.

    Args:
        architecture: of the model.
        steps: time steps of the minibatch.
        rows: its rows.
        masked: names of the masks that `forward` is given.
        dtype: of all numbers.
    """

    def __init__(
        self, architecture: Architecture, steps: int, rows: int, masked: Sequence[str] = (), dtype: Any = np.float32
    ) -> None:
        vocab, hidden, embedding = architecture.vocab_size, architecture.hidden_size, architecture.embedding_size
        count, layers = steps * rows, range(architecture.layers)
        self._architecture, self._dtype = architecture, dtype
        self._layers = [Layer(architecture, steps, rows, dtype) for _ in layers]
        self._ids, self._targets = (np.empty((steps, rows), np.intp) for _ in range(2))
        self._columns = np.arange(count)
        # What goes into each layer, and into the output: h of the layer below, but where some of it is dropped.
        self._x = [np.ones((1 + (embedding or vocab), steps, rows), dtype)]
        for number, layer in enumerate(self._layers, 1):
            name = f"hidden{number}" if number in layers else "output"
            self._x.append(np.ones((1 + hidden, steps, rows), dtype) if name in masked else layer.h_columns[:, 1:])
        self._o, self._sums = np.empty((vocab, count), dtype), np.empty(count, dtype)
        self._embedding, self._tied = embedding, architecture.tie_weights
        if embedding:
            self._rows = np.empty((count, embedding + self._tied), dtype)
            self._d_x = np.empty((embedding, steps, rows), dtype)
            self._one_hot = np.empty((min(vocab, count), count), dtype)

    def begin(self, state: Sequence[Array]) -> None:
        """Take the state before the first step: arrays of shape (layers, hidden, rows)."""
        for number, layer in enumerate(self._layers):
            for own, array in zip(layer.before, state, strict=True):
                own[:] = array[number]

    def end(self, state: Sequence[Array]) -> None:
        """Put the state after the last step there."""
        for number, layer in enumerate(self._layers):
            for own, array in zip(layer.after, state, strict=True):
                array[number] = own

    def forward(self, weights: Vector, inputs: Array, masks: Masks) -> None:
        """From ids (rows, steps) to logits."""
        self._ids[:] = inputs.T
        self._look_up(weights, masks.get("input"))
        documents = {t: self._within(self._ids[t]) for t in beginnings(self._architecture, inputs)}
        for number, layer in enumerate(self._layers, 1):
            layer.begun = documents
            recurrent = masks.get(f"recurrent{number - 1}")
            layer.forward(weights.w_x[number - 1], weights.w_h[number - 1], self._x[number - 1], recurrent)
            mask = masks.get(f"hidden{number}" if number < len(self._layers) else "output")
            if mask is not None:
                np.multiply(layer.h_columns[1:, 1:], mask.transpose(2, 0, 1), out=self._x[number][1:])
        np.matmul(weights.w_q, _flat(self._x[-1]), out=self._o)

    def nats(self, targets: Array) -> Array:
        """The negative log-likelihood of each target, (steps · rows); what is left of the logits is exp(o - max o)."""
        self._targets[:] = targets.T
        o, sums = self._o, self._sums
        o -= np.max(o, axis=0, out=sums)
        own = o[self._targets.reshape(-1), self._columns]
        np.exp(o, out=o)
        np.sum(o, axis=0, out=sums)
        return np.subtract(np.log(sums), own, out=own)

    def backward(self, weights: Vector, gradient: Vector, masks: Masks) -> None:
        """The gradient of the mean of what `nats` gave."""
        (steps, rows), count, d_o = self._ids.shape, self._ids.size, self._o
        self._sums *= count
        d_o /= self._sums
        d_o[self._targets.reshape(-1), self._columns] -= 1 / count
        np.matmul(d_o, _flat(self._x[-1]).T, out=gradient.w_q)
        w, d, name = weights.w_q, d_o.reshape(-1, steps, rows), "output"
        xi = masks["gradient"][:, :, 0] if "gradient" in masks else None
        if self._layers[0].begun:
            within = self._within(self._ids)
            xi = within if xi is None else within * xi
        for number in reversed(range(len(self._layers))):
            layer = self._layers[number]
            np.matmul(w[:, 1:].T, d.transpose(1, 0, 2), out=layer.d_h)
            if name in masks:
                layer.d_h *= masks[name].transpose(0, 2, 1)
            recurrent = masks.get(f"recurrent{number}")
            layer.backward(gradient.w_x[number], gradient.w_h[number], self._x[number], recurrent, xi)
            w, d, name = weights.w_x[number], layer.d_z_columns, f"hidden{number}"
        if self._embedding:
            np.matmul(w[:, 1:].T, _flat(d), out=_flat(self._d_x))
            if "input" in masks:
                self._d_x *= masks["input"].transpose(2, 0, 1)
            self._look_up_backward(gradient)

    def _within(self, ids: Array) -> Array:
        """1 where an id is read within a document, 0 where it ends one."""
        within: Array = (ids != END_ID).astype(self._dtype)
        return within

    def _look_up(self, weights: Vector, mask: Array | None) -> None:
        """The first layer's inputs."""
        x, ids = self._x[0], self._ids
        if self._embedding:
            np.take(weights.table, ids.reshape(-1), axis=0, out=self._rows, mode="clip")
            _flat(x)[1:] = self._rows[:, -self._embedding :].T
            if mask is not None:
                x[1:] *= mask.transpose(2, 0, 1)
        else:
            steps, rows = np.ogrid[: x.shape[1], : x.shape[2]]
            x[1:] = 0
            x[1 + ids, steps, rows] = 1 if mask is None else mask[np.minimum(steps, len(mask) - 1), rows, ids]

    def _look_up_backward(self, gradient: Vector) -> None:
        """Add up what belongs to each id: a product with the 1-hot matrix of those that occur."""
        seen, places = np.unique(self._ids.reshape(-1), return_inverse=True)
        one_hot = self._one_hot[: len(seen)]
        one_hot.fill(0)
        one_hot[places, self._columns] = 1
        d_embedding = gradient.table[:, -self._embedding :]
        if not self._tied:
            d_embedding.fill(0)
        d_embedding[seen] += one_hot @ _flat(self._d_x).T


def _flat(array: Array) -> Array:
    """The columns of all steps side by side: (…, steps, rows) as (…, steps · rows), a view."""
    return array.reshape(len(array), -1)


class BpttEngine:
    """The engine as `stages.training.engine.Engine` describes it.

    Args:
        recipe: what to build.
        device: the CPU.
    """

    def __init__(self, recipe: Recipe, device: Device) -> None:
        architecture = recipe.architecture
        self._recipe = recipe
        self._weights, self._gradient, self._averages, self._decay, spare = (Vector(architecture) for _ in range(5))
        self._moments = {moment: Vector(architecture) for moment in MOMENTS[recipe.optimizer]}
        for name, part in self._decay.named.items():
            part[:] = recipe.weight_decay if "weight" in name else 0
        vectors = (self._weights, self._gradient, self._decay, spare, *self._moments.values())
        self._pieces = [
            tuple(vector.all[first : first + _PIECE] for vector in vectors)
            for first in range(0, len(spare.all), _PIECE)
        ]
        self._averaging = self._averages.all, self._weights.all, spare.all
        self._state = self._zero_state(recipe.batch_size)
        self._blas = ThreadpoolController()
        # The number of threads changes the last bits of a product: it must not follow from the machine.
        matrices = (*self._weights.w_h, self._weights.w_q)
        self._threads = 2 if max(matrix.size for matrix in matrices) >= _TWO_THREADS_FROM else 1
        # The last minibatch of an epoch is shorter, and so is that of what is measured.
        self._unrolled = lru_cache(maxsize=4)(partial(Unrolled, architecture))

    def run(self, steps: Iterable[Step]) -> list[Figures]:
        """Train these steps."""
        with self._blas.limit(limits=self._threads, user_api="blas"), np.errstate(all="ignore"):
            return [self._step(step) for step in steps]

    def loss(self, minibatches: Iterable[Minibatch]) -> float:
        """The mean loss of the averaged weights."""
        total, tokens, state = 0.0, 0, None
        with self._blas.limit(limits=self._threads, user_api="blas"), np.errstate(all="ignore"):
            for inputs, targets in minibatches:
                rows, steps = inputs.shape
                state = state or self._zero_state(rows)
                unrolled = self._unrolled(steps, rows)
                unrolled.begin(state)
                unrolled.forward(self._averages, inputs, {})
                unrolled.end(state)
                counted = targets >= 0
                nats = unrolled.nats(np.maximum(targets, 0))
                total += float(nats[counted.T.reshape(-1)].sum(dtype=np.float64))
                tokens += int(counted.sum())
        return total / tokens

    def state(self) -> EngineState:
        """A copy of all that decides how training goes on."""
        names = recurrent_names(self._recipe.architecture)
        return EngineState(
            parameters=self._weights.copies(),
            averages=self._averages.copies(),
            moments={
                f"{moment}/{name}": array
                for moment, vector in self._moments.items()
                for name, array in vector.copies().items()
            },
            recurrent={name: array.transpose(0, 2, 1).copy() for name, array in zip(names, self._state, strict=True)},
        )

    def restore(self, state: EngineState) -> None:
        """Take what `state` gave."""
        self._weights.fill(state.parameters)
        self._averages.fill(state.averages)
        for moment, vector in self._moments.items():
            vector.fill({name: state.moments[f"{moment}/{name}"] for name in vector.named})
        for name, array in zip(recurrent_names(self._recipe.architecture), self._state, strict=True):
            array[:] = state.recurrent[name].transpose(0, 2, 1)

    def _zero_state(self, rows: int) -> list[Array]:
        architecture = self._recipe.architecture
        shape = architecture.layers, architecture.hidden_size, rows
        return [np.zeros(shape, np.float32) for _ in recurrent_names(architecture)]

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
        norm = math.sqrt(np.dot(self._gradient.all, self._gradient.all))
        clip_norm = self._recipe.clip_norm
        scale = clip_norm / norm if 0 < clip_norm < norm else 1.0
        if self._recipe.optimizer in ("adam", "adamw"):
            self._adam(scale, step.learning_rate, step.number)
        else:
            self._sgd(scale, step.learning_rate)
        self._average(step.averaging)
        return Figures(loss, norm)

    def _sgd(self, scale: float, rate: float) -> None:
        """w ← w - η (s · g + λ · w), where s is ``scale``; with momentum v ← μ · v - η (s · g + λ · w), w ← w + v."""
        for w, g, decay, spare, *moments in self._pieces:
            g *= scale * rate
            if self._recipe.weight_decay:
                g += np.multiply(np.multiply(w, decay, out=spare), rate, out=spare)
            if moments:
                (v,) = moments
                v *= _DECAY_RATES[0]
                v -= g
                v += _TINY
                w += v
            else:
                w -= g

    def _adam(self, scale: float, rate: float, number: int) -> None:
        """m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², w ← w - η c m / (√v + ε), c = √(1 - β₂ᵗ) / (1 - β₁ᵗ).

        Kingma and Ba, "Adam", ICLR 2015, as at the end of its section 2. With `adam`, g holds the penalty λ · w too;
        `adamw` takes η · λ · w off the weights instead (Loshchilov and Hutter, "Decoupled Weight Decay Regularization",
        ICLR 2019).
        """
        beta1, beta2 = _DECAY_RATES
        corrected = rate * math.sqrt(1 - beta2**number) / (1 - beta1**number)
        for w, g, decay, spare, m, v in self._pieces:
            if scale != 1:
                g *= scale
            if self._recipe.weight_decay:
                np.multiply(w, decay, out=spare)
                if self._recipe.optimizer == "adam":
                    g += spare
                else:
                    spare *= rate
                    w -= spare
            m *= beta1
            m += np.multiply(g, 1 - beta1, out=spare)
            m += _TINY
            np.square(g, out=g)
            g *= 1 - beta2
            v *= beta2
            v += g
            v += _TINY
            np.sqrt(v, out=spare)
            spare += 1e-8
            np.divide(m, spare, out=spare)
            spare *= corrected
            w -= spare

    def _average(self, fraction: float) -> None:
        """a ← a + α (w - a)."""
        a, w, spare = self._averaging
        if fraction == 1:
            np.copyto(a, w)
        elif fraction:
            a += np.multiply(np.subtract(w, a, out=spare), fraction, out=spare)
