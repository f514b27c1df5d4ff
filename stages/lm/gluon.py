"""The MXNet engine: the chapter's model in Gluon, and a training step that loses no time.

The only file that imports MXNet, a retired framework. Where the book's loop waits for the device in every step, here
the whole step is one compiled graph, clipping and SGD take a handful of fused operators, and nothing waits until a
figure is read. What comes out is the same; a test holds the two loops against each other.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import numpy.typing as npt

from stages.lm.parameters import Parameters, shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stages.lm.device import Device

# MXNet 2.0.0b1 looks these up while it is imported. NumPy 2 dropped them, and nothing here uses them.
_NUMPY_1_NAMES = (
    *("PZERO", "NZERO", "PINF", "NINF", "NAN", "NaN", "Inf", "alltrue", "sometrue", "product"),
    *("round_", "in1d", "msort", "trapz", "mirr", "npv", "pmt", "ppmt", "pv", "rate"),
)


@contextmanager
def _what_mxnet_expects() -> Iterator[None]:
    # MXNet calls logging.info, which puts a handler on a root logger without one, for good.
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    absent = [name for name in _NUMPY_1_NAMES if name not in vars(np)]
    for name in absent:
        setattr(np, name, None)
    try:
        yield
    finally:
        for name in absent:
            delattr(np, name)
        logging.root.removeHandler(handler)


with _what_mxnet_expects():
    import mxnet as mx
    from mxnet import autograd, gluon, nd, npx
    from mxnet import np as mnp

Minibatch = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


class RNNModel(gluon.HybridBlock):  # type: ignore[misc]
    """One-hot of the transposed inputs, the recurrent layer, a dense layer over (steps · batch, hidden)."""

    def __init__(self, cell: str, hidden_size: int, layers: int, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        layer = {"rnn": gluon.rnn.RNN, "gru": gluon.rnn.GRU, "lstm": gluon.rnn.LSTM}[cell]
        self.rnn = layer(hidden_size, layers)  # a plain RNN of Gluon's has the ReLU activation
        self.dense = gluon.nn.Dense(vocab_size, in_units=hidden_size)

    def forward(self, inputs: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        """Ids (batch, steps) and a state of (layers, batch, hidden) each → logits (steps · batch, vocab), new state."""
        outputs, state = self.rnn(npx.one_hot(inputs.T, self.vocab_size), state)
        return self.dense(outputs.reshape(-1, outputs.shape[-1])), state

    def begin_state(self, batch_size: int, device: Any) -> list[Any]:
        """Zeros: one array of shape (layers, batch, hidden), for an LSTM two."""
        state: list[Any] = self.rnn.begin_state(batch_size=batch_size, device=device)
        return state


class _Loss(gluon.HybridBlock):  # type: ignore[misc]
    """From ids to the mean negative log-likelihood of the targets, as one graph."""

    def __init__(self, model: RNNModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, targets: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        logits, state = self.model(inputs, state)
        return -npx.pick(npx.log_softmax(logits), targets.T.reshape(-1)).mean(), state


class GluonEngine:
    """Trains one model on one device, in the thread that made it.

    Args:
        cell: `rnn`, `gru` or `lstm`.
        hidden_size: units per layer.
        layers: recurrent layers.
        vocab_size: ids run from 0 to this.
        batch_size: rows of every minibatch.
        clip_norm: L2 norm over all parameters that a longer gradient is scaled down to; 0 never clips.
        device: where to compute.
    """

    def __init__(
        self,
        cell: str,
        hidden_size: int,
        layers: int,
        vocab_size: int,
        batch_size: int,
        clip_norm: float,
        device: Device,
    ) -> None:
        npx.set_np()  # holds for this thread only
        self._shapes = shapes(cell, hidden_size, layers, vocab_size)
        self._state_names = ("hidden", "cell") if cell == "lstm" else ("hidden",)
        self._batch_size = batch_size
        self._clip_norm = clip_norm
        self._device = mx.gpu(device.index) if device.kind == "gpu" else mx.cpu()
        self._model = RNNModel(cell, hidden_size, layers, vocab_size)
        self._model.initialize(mx.init.Zero(), device=self._device)
        # The size of the layer's flat parameter is known only once inputs have passed.
        self._model(self._array(np.zeros((1, 1), np.int32)), self._model.begin_state(1, self._device))
        self._training, self._measuring = _Loss(self._model), _Loss(self._model)
        self._measuring.hybridize()
        self._training.hybridize(static_alloc=True, static_shape=True)

        trained = [self._model.rnn.rnn_param, self._model.dense.weight, self._model.dense.bias]
        # The fused operators are of the older interface; these are views of the same memory.
        self._weights = [parameter.data().as_nd_ndarray() for parameter in trained]
        self._gradients = [parameter.grad().as_nd_ndarray() for parameter in trained]
        self._averages = [weight.copy() for weight in self._weights]
        self._ones = nd.ones((len(trained),), ctx=self._device)
        self._no_decay = nd.zeros((len(trained),), ctx=self._device)
        self._state = self._model.begin_state(batch_size, self._device)

    def parameters(self) -> Parameters:
        """A copy of the weights, by the names and in the order of `stages.lm.parameters`."""
        return self._named(self._weights)

    def averages(self) -> Parameters:
        """A copy of the weights' running average, in the same form."""
        return self._named(self._averages)

    def load_parameters(self, values: Parameters) -> None:
        """Take these weights, named as `parameters` names them; their running average begins anew from them."""
        self._fill(self._weights, values)
        self._fill(self._averages, values)

    def load_averages(self, values: Parameters) -> None:
        """Take the running average that `averages` gave."""
        self._fill(self._averages, values)

    def average(self, share: float) -> None:
        """Move the running average towards the weights, by this share of the way."""
        for average, weight in zip(self._averages, self._weights, strict=True):
            average[:] = average * (1 - share) + weight * share

    def _named(self, arrays: list[Any]) -> Parameters:
        flat = arrays[0].asnumpy()
        result = {"dense.weight": arrays[1].asnumpy(), "dense.bias": arrays[2].asnumpy()}
        start = 0
        for name in self._flat_order():
            shape = self._shapes[name]
            stop = start + int(np.prod(shape))
            result[name] = flat[start:stop].reshape(shape).copy()
            start = stop
        return {name: result[name] for name in self._shapes}

    def _fill(self, arrays: list[Any], values: Parameters) -> None:
        flat = np.concatenate([values[name].ravel() for name in self._flat_order()])
        for array, value in zip(arrays, (flat, values["dense.weight"], values["dense.bias"]), strict=True):
            array[:] = value

    def upload(self, minibatches: Sequence[Minibatch]) -> list[tuple[Any, Any]]:
        """Bring minibatches to the device, for `step`.

        A copy waits for all that the device was given before it. So one copy serves all steps in a row of one shape.
        """
        uploaded: list[tuple[Any, Any]] = []
        for _, alike in groupby(minibatches, key=lambda minibatch: minibatch[0].shape):
            arrays = self._array(np.array(list(alike)))
            uploaded.extend((arrays[index, 0], arrays[index, 1]) for index in range(len(arrays)))
        return uploaded

    def step(self, inputs: Any, targets: Any, learning_rate: float) -> tuple[SupportsFloat, SupportsFloat]:
        """One minibatch of truncated backpropagation through time and one step of SGD; the state is carried, detached.

        Returns at once: the mean loss (nats per token) and the gradient's L2 norm before clipping are figures that
        `float` waits for.

        Args:
            inputs: uploaded ids of shape (batch, steps).
            targets: the ids that follow, same shape.
            learning_rate: of this step.
        """
        with autograd.record():
            loss, state = self._training(inputs, targets, self._state)
        loss.backward()
        self._state = [array.detach() for array in state]
        norm = nd.sqrt(nd.sum(nd.multi_sum_sq(*self._gradients, num_arrays=len(self._gradients))))
        rates = self._ones * learning_rate
        if self._clip_norm:
            rates = nd.broadcast_mul(rates, nd.minimum(self._clip_norm / norm, 1.0))
        pairs = [array for pair in zip(self._weights, self._gradients, strict=True) for array in pair]
        nd.preloaded_multi_sgd_update(*pairs, rates, self._no_decay, num_weights=len(self._weights), out=self._weights)
        return loss, norm.as_np_ndarray()

    def loss(self, minibatches: Iterable[Minibatch]) -> float:
        """The mean loss (nats per token) of the averaged weights over neighbouring minibatches, from a zero state."""
        state = self._model.begin_state(self._batch_size, self._device)
        total, tokens = 0.0, 0
        with self._averaged():
            for inputs, targets in minibatches:
                loss, state = self._measuring(self._array(inputs), self._array(targets), state)
                total += float(loss) * inputs.size
                tokens += inputs.size
        return total / tokens

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model computes with the averaged weights while this holds."""
        kept = [weight.copy() for weight in self._weights]
        for weight, average in zip(self._weights, self._averages, strict=True):
            weight[:] = average
        try:
            yield
        finally:
            for weight, own in zip(self._weights, kept, strict=True):
                weight[:] = own

    def state(self) -> dict[str, npt.NDArray[np.float32]]:
        """A copy of the recurrent state: `hidden`, for an LSTM `cell` too, of shape (layers, batch, hidden) each."""
        return {name: array.asnumpy() for name, array in zip(self._state_names, self._state, strict=True)}

    def load_state(self, values: dict[str, npt.NDArray[np.float32]]) -> None:
        """Take the recurrent state that `state` gave."""
        self._state = [self._array(values[name]) for name in self._state_names]

    def reset_state(self) -> None:
        """Set the recurrent state to zero."""
        self._state = self._model.begin_state(self._batch_size, self._device)

    def _flat_order(self) -> list[str]:
        """The recurrent layers' flat parameter: all weights, layer by layer, then all biases."""
        recurrent = [name for name in self._shapes if name.startswith("rnn.")]
        return sorted(recurrent, key=lambda name: "bias" in name)

    def _array(self, values: npt.NDArray[Any]) -> Any:
        return mnp.array(values, dtype=values.dtype, device=self._device)


def probe(device: Device) -> None:
    """Train one step on a device; whatever is wrong with MXNet, its libraries or the card comes up here."""
    engine = GluonEngine("rnn", 2, 1, 3, 1, 1.0, device)
    ids = np.zeros((1, 2), np.int32)
    [(inputs, targets)] = engine.upload([(ids, ids)])
    float(engine.step(inputs, targets, 1.0)[0])
