"""The MXNet engine: the chapter's model in Gluon, and a training step that loses no time.

The only file that imports MXNet, a retired framework. Where the book's loop waits for the device in every step, here
the whole step is one compiled graph, clipping and the optimizer take a handful of fused operators, and nothing waits
until a figure is read. What comes out is the same; a test holds the two loops against each other.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import contextmanager, suppress
from itertools import groupby
from types import ModuleType
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import numpy.typing as npt

from data.tables.tokens import END_ID
from stages.lm.parameters import Architecture
from stages.training.engine import MOMENTS, EngineState, Figures, Recipe, Step, beginnings, recurrent_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stages.training.device import Device
    from stages.training.engine import Arrays
    from stages.training.minibatches import Minibatch

logger = logging.getLogger(__name__)

# MXNet 2.0.0b1 looks these up while it is imported. NumPy 2 dropped them, and nothing here uses them.
_NUMPY_1_NAMES = (
    *("PZERO", "NZERO", "PINF", "NINF", "NAN", "NaN", "Inf", "alltrue", "sometrue", "product"),
    *("round_", "in1d", "msort", "trapz", "mirr", "npv", "pmt", "ppmt", "pv", "rate"),
)


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


@contextmanager
def _what_mxnet_expects() -> Iterator[None]:
    # MXNet calls logging.info, which puts a handler on a root logger without one, for good.
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    absent = [name for name in _NUMPY_1_NAMES if name not in vars(np)]
    for name in absent:
        setattr(np, name, None)
    # It compares NumPy's version by what left Python's library in 3.12, and warns of that before.
    versions = ModuleType("distutils.version")
    vars(versions).update(StrictVersion=_version, LooseVersion=_version)
    before = sys.modules.get(versions.__name__)
    sys.modules[versions.__name__] = versions
    try:
        yield
    finally:
        del sys.modules[versions.__name__]
        if before is not None:
            sys.modules[versions.__name__] = before
        for name in absent:
            delattr(np, name)
        logging.root.removeHandler(handler)


@contextmanager
def _without_its_note() -> Iterator[None]:
    # MXNet's C++ tells standard error which storage manager it takes; whatever else comes meanwhile is passed on.
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        with suppress(OSError), os.fdopen(read, "rb") as pipe:
            os.write(2, b"".join(line for line in pipe if b"src/storage/storage.cc" not in line))


# What they say to MXNet and to oneDNN in it would change what comes out under one key, or end this process.
for _name in [name for name in os.environ if name.startswith(("MXNET_", "DMLC_", "DNNL_", "ONEDNN_"))]:
    logger.info("%s in the environment is not heeded: a training follows from its configuration alone", _name)
    del os.environ[_name]
with _what_mxnet_expects():
    import mxnet as mx
    from mxnet import autograd, gluon, nd, npx
    from mxnet import np as mnp
with _without_its_note():
    nd.zeros(1).wait_to_read()


class RNNModel(gluon.HybridBlock):  # type: ignore[misc]
    """One-hot (or an embedding) of the transposed inputs, recurrent layers, a dense layer over (steps · batch, hidden).

    The layers are built on the operator that Gluon's own are built on, one by one: on a CPU that operator forgets the
    dropout between the layers of a stack, and it takes no mask for the recurrent weights.

    Args:
        architecture: of the model; its parameters go by the names of `Architecture.shapes`.
        masked: names of the masks (see `stages.training.dropout`) that `forward` is given, in their order.
    """

    def __init__(self, architecture: Architecture, masked: Sequence[str] = ()) -> None:
        super().__init__()
        self.architecture = architecture
        self._masked = masked
        self._mode = f"rnn_{architecture.activation}" if architecture.cell == "rnn" else architecture.cell
        for name, shape in architecture.shapes().items():
            setattr(self, name, gluon.Parameter(name, shape=shape))

    def forward(
        self, inputs: Any, state: list[Any], masks: Sequence[Any] = (), begun: Sequence[int] = ()
    ) -> tuple[Any, list[Any]]:
        """Ids (batch, steps) and a state of (layers, batch, hidden) each → logits (steps · batch, vocab), new state.

        ``begun`` are the steps in which a row begins a document (see `stages.training.engine.beginnings`).
        """
        chance = dict(zip(self._masked, masks, strict=True)) if masks else {}
        within = {step: (inputs[:, step : step + 1] != END_ID).astype("float32") for step in begun}
        outputs, state = self.recur(self.embed(inputs), state, chance, within)
        outputs = self._dropped(outputs, chance.get("output")).reshape(-1, self.architecture.hidden_size)
        weight = self._weight("embedding.weight" if self.architecture.tie_weights else "dense.weight")
        logits = npx.fully_connected(
            outputs, weight, self._weight("dense.bias"), num_hidden=self.architecture.vocab_size, no_bias=False
        )
        return logits, state

    def embed(self, inputs: Any) -> Any:
        """Ids (batch, steps) → (steps, batch, vocab or embedding)."""
        vocab, size = self.architecture.vocab_size, self.architecture.embedding_size
        if not size:
            return npx.one_hot(inputs.T, vocab)
        return npx.embedding(inputs.T, self._weight("embedding.weight"), input_dim=vocab, output_dim=size)

    def recur(
        self, outputs: Any, state: list[Any], masks: Mapping[str, Any], within: Mapping[int, Any]
    ) -> tuple[Any, list[Any]]:
        """(steps, batch, in) and a state of (layers, batch, hidden) each → (steps, batch, hidden), new state.

        ``within`` is a factor of what comes into a step: 0 in the rows that begin a document there.
        """
        outputs = self._dropped(outputs, masks.get("input"))
        states = []
        for layer in range(self.architecture.layers):
            if layer:
                outputs = self._dropped(outputs, masks.get(f"hidden{layer}"))
            weight_ih, weight_hh, *biases = (
                self._weight(f"rnn.{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            weight_hh = self._dropped(weight_hh, masks.get(f"recurrent{layer}"))
            # As the operator has them: one vector, weights before biases. Made of rows it takes a quarter of the time.
            parts = [array.reshape(1, -1) for array in (weight_ih, weight_hh, *biases)]
            flat = mnp.concatenate(parts, axis=1).reshape(-1)
            before = [array[layer : layer + 1] for array in state]
            if within or "gradient" in masks:
                outputs, after = self._cut(outputs, before, flat, within, masks.get("gradient"))
            else:
                outputs, *after = self._layer(outputs, before, flat)
            states.append(after)
        return outputs, [
            mnp.concatenate(layers) if len(layers) > 1 else layers[0] for layers in zip(*states, strict=True)
        ]

    def begin_state(self, batch_size: int, device: Any) -> list[Any]:
        """Zeros: one array of shape (layers, batch, hidden), for an LSTM two."""
        shape = (self.architecture.layers, batch_size, self.architecture.hidden_size)
        return [mnp.zeros(shape, device=device) for _ in range(2 if self.architecture.cell == "lstm" else 1)]

    def _layer(self, inputs: Any, state: list[Any], flat: Any) -> list[Any]:
        """One layer over all steps → outputs and its new state."""
        names = ("state", "state_cell")[: len(state)]
        result: list[Any] = npx.rnn(
            data=inputs,
            parameters=flat,
            **dict(zip(names, state, strict=True)),
            mode=self._mode,
            state_size=self.architecture.hidden_size,
            num_layers=1,
            state_outputs=True,
        )
        return result

    def _cut(
        self, inputs: Any, state: list[Any], flat: Any, within: Mapping[int, Any], factors: Any
    ) -> tuple[Any, list[Any]]:
        """The same, cut where a document begins; with ``factors`` one step at a time, and what flows back into the step
        before is multiplied by that step's factor."""
        outputs = []
        starts = [step for step in (within if factors is None else range(len(inputs))) if step]
        for start, rows in zip([0, *starts], mnp.split(inputs, starts, axis=0), strict=True):
            if start and factors is not None:
                passed = [array * factors[start] for array in state]
                state = [npx.stop_gradient(array - own) + own for array, own in zip(state, passed, strict=True)]
            if start in within:
                state = [array * within[start] for array in state]
            output, *state = self._layer(rows, state, flat)
            outputs.append(output)
        return mnp.concatenate(outputs), state

    def _weight(self, name: str) -> Any:
        return getattr(self, name).data()

    @staticmethod
    def _dropped(values: Any, mask: Any) -> Any:
        return values if mask is None else values * mask


class _Loss(gluon.HybridBlock):  # type: ignore[misc]
    """From ids to the mean negative log-likelihood of the targets, as one graph.

    oneDNN's log-softmax approximates the logarithm, to 3e-6 either way, so that a token's probabilities do not quite
    sum to 1. While a model knows little, the error is the same for all tokens of a minibatch (9e-7 where 28 are alike)
    and adds up where most of the gradient cancels out: after one epoch of the book's model its weights are 7.9e-6
    (relative) from float64's, and 1.4e-7 with log-softmax in single operators, as in NumPy's float32 (Intel Xeon).
    """

    def __init__(self, model: RNNModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, inputs: Any, targets: Any, state: list[Any], masks: Sequence[Any], begun: Sequence[int] = ()
    ) -> tuple[Any, list[Any]]:
        logits, state = self.model.forward(inputs, state, masks, begun)
        return -npx.pick(npx.log_softmax(logits), targets.T.reshape(-1)).mean(), state


class _Losses(gluon.HybridBlock):  # type: ignore[misc]
    """The same, target by target: (steps · batch)."""

    def __init__(self, model: RNNModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, targets: Any, state: list[Any], begun: Sequence[int] = ()) -> tuple[Any, list[Any]]:
        logits, state = self.model.forward(inputs, state, begun=begun)
        return -npx.pick(npx.log_softmax(logits), targets.T.reshape(-1)), state


_DECAY_RATES = 0.9, 0.999
"""Of the moments; the first is the momentum of `momentum` too."""


class GluonEngine:
    """The engine as `stages.training.engine.Engine` describes it.

    Args:
        recipe: what to build.
        device: where to compute.
    """

    def __init__(self, recipe: Recipe, device: Device) -> None:
        npx.set_np()  # holds for this thread only
        architecture = recipe.architecture
        self._recipe = recipe
        self._names = list(architecture.shapes())
        self._device = mx.gpu(device.index) if device.kind == "gpu" else mx.cpu()
        self._model = RNNModel(architecture, recipe.masks)
        self._model.initialize(mx.init.Zero(), device=self._device)
        self._training, self._measuring, self._counting = _Loss(self._model), _Loss(self._model), _Losses(self._model)
        if "gradient" not in recipe.masks:  # step by step, a graph would fit one number of steps only
            self._counting.hybridize()
            self._measuring.hybridize()
            self._training.hybridize(static_alloc=True, static_shape=True)

        trained = [getattr(self._model, name) for name in self._names]
        # The fused operators are of the older interface; these are views of the same memory.
        self._weights = [parameter.data().as_nd_ndarray() for parameter in trained]
        self._gradients = [parameter.grad().as_nd_ndarray() for parameter in trained]
        self._averages = [weight.copy() for weight in self._weights]
        self._moments = {
            moment: [nd.zeros_like(weight) for weight in self._weights] for moment in MOMENTS[recipe.optimizer]
        }
        self._decays = [recipe.weight_decay if "weight" in name else 0.0 for name in self._names]
        self._state = self._model.begin_state(recipe.batch_size, self._device)

    def run(self, steps: Iterable[Step]) -> list[Figures]:
        """Train these steps; nothing waits for the device until the last is on its way."""
        steps = list(steps)
        figures = []
        for step, (inputs, targets, masks) in zip(steps, self._upload(steps), strict=True):
            if step.reset_state:
                self._state = self._model.begin_state(self._recipe.batch_size, self._device)
            figures.append(self._step(step, inputs, targets, masks))
            self._average(step.averaging)
        return [Figures(float(loss), float(norm)) for loss, norm in figures]

    def loss(self, minibatches: Iterable[Minibatch]) -> float:
        """The mean loss of the averaged weights; a minibatch is read at once, whatever its number of rows."""
        state: list[Any] | None = None
        total, tokens = 0.0, 0
        with self._averaged():
            for inputs, targets in minibatches:
                state = state or self._model.begin_state(len(inputs), self._device)
                counted, begun = targets >= 0, beginnings(self._recipe.architecture, inputs)
                given = self._array(inputs), self._array(np.maximum(targets, 0)), state
                if counted.all() and not begun:
                    loss, state = self._measuring(*given, [])
                    total += float(loss) * inputs.size
                else:
                    losses, state = self._counting.forward(*given, begun) if begun else self._counting(*given)
                    total += float(losses.asnumpy()[counted.T.reshape(-1)].sum(dtype=np.float64))
                tokens += int(counted.sum())
        return total / tokens

    def state(self) -> EngineState:
        """A copy of all that decides how training goes on."""
        return EngineState(
            parameters=self._named(self._weights),
            averages=self._named(self._averages),
            moments={
                f"{moment}/{name}": array
                for moment, arrays in self._moments.items()
                for name, array in self._named(arrays).items()
            },
            recurrent={
                name: array.asnumpy()
                for name, array in zip(recurrent_names(self._recipe.architecture), self._state, strict=True)
            },
        )

    def restore(self, state: EngineState) -> None:
        """Take what `state` gave."""
        self._fill(self._weights, state.parameters)
        self._fill(self._averages, state.averages)
        for moment, arrays in self._moments.items():
            self._fill(arrays, {name: state.moments[f"{moment}/{name}"] for name in self._names})
        self._state = [self._array(state.recurrent[name]) for name in recurrent_names(self._recipe.architecture)]

    def _upload(self, steps: Sequence[Step]) -> list[tuple[Any, Any, list[Any]]]:
        """Bring what the steps come with to the device: inputs, targets and masks of each.

        A copy waits for all that the device was given before it. So one copy serves all steps in a row of one shape.
        """
        uploaded: list[tuple[Any, Any, list[Any]]] = []
        for _, group in groupby(steps, key=lambda step: step.inputs.shape):
            alike = list(group)
            ids = self._array(np.array([(step.inputs, step.targets) for step in alike]))
            masks = [self._array(np.array([step.masks[name] for step in alike])) for name in self._recipe.masks]
            uploaded.extend((ids[i, 0], ids[i, 1], [array[i] for array in masks]) for i in range(len(alike)))
        return uploaded

    def _step(self, step: Step, inputs: Any, targets: Any, masks: Sequence[Any]) -> tuple[SupportsFloat, SupportsFloat]:
        """One step on what was uploaded; the state is carried, detached.

        Returns at once: the mean loss and the gradient's norm are figures that `float` waits for.
        """
        with autograd.record():
            given, begun = (inputs, targets, self._state, masks), beginnings(self._recipe.architecture, step.inputs)
            # A graph would fit documents that begin in these steps only.
            loss, state = self._training.forward(*given, begun) if begun else self._training(*given)
        loss.backward()
        self._state = [array.detach() for array in state]
        # `dot` adds many numbers side by side: `multi_sum_sq`, one after another, is off by 5e-4 for a million.
        squares = [nd.dot(vector, vector) for vector in (gradient.reshape(-1) for gradient in self._gradients)]
        norm = nd.sqrt(nd.add_n(*squares))
        # What a gradient that is too long is multiplied by.
        clip_norm = self._recipe.clip_norm
        scale = nd.minimum(clip_norm / norm, 1.0) if clip_norm else nd.ones_like(norm)
        if self._recipe.optimizer in ("adam", "adamw"):
            self._adam(scale, step.learning_rate, step.number)
        else:
            self._sgd(scale, step.learning_rate)
        return loss, norm.as_np_ndarray()

    def _sgd(self, scale: Any, learning_rate: float) -> None:
        """w ← w - η (s · g + λ · w), where s is ``scale``; with momentum v ← μ · v - η (s · g + λ · w), w ← w + v."""
        for index, (weight, gradient, decay) in enumerate(
            zip(self._weights, self._gradients, self._decays, strict=True)
        ):
            moments = self._moments.get("momentum")
            moved = moments[index] if moments else weight
            kept = _DECAY_RATES[0] if moments else 1.0 - learning_rate * decay
            # As a product of matrices, which takes a factor from the device: half as long as the operators for SGD.
            row = moved.reshape(1, -1)
            factors = {"alpha": -learning_rate, "beta": kept}
            nd.linalg.gemm(scale.reshape(1, 1), gradient.reshape(1, -1), row, **factors, out=row)
            if moments:
                if decay:
                    nd.elemwise_sub(moved, learning_rate * decay * weight, out=moved)
                nd.elemwise_add(weight, moved, out=weight)

    def _adam(self, scale: Any, learning_rate: float, number: int) -> None:
        """m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², w ← w - η c m / (√v + ε), c = √(1 - β₂ᵗ) / (1 - β₁ᵗ).

        Kingma and Ba, "Adam", ICLR 2015. With `adam`, g holds the penalty λ · w too; `adamw` takes η · λ · w off the
        weights instead (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019). In
        this form, the one that Adam's paper has at the end of its section 2, ε is added to a √v that is not corrected
        yet. To torch, which corrects it first, ours would be ε / √(1 - β₂ᵗ): 3.2e-7 in the first step, at last 1e-8.
        """
        beta1, beta2 = _DECAY_RATES
        rate = learning_rate * (1 - beta2**number) ** 0.5 / (1 - beta1**number)
        decoupled = self._recipe.optimizer == "adamw"
        if not decoupled and any(self._decays):
            for gradient, weight, decay in zip(self._gradients, self._weights, self._decays, strict=True):
                gradient[:] = nd.broadcast_mul(gradient, scale.reshape((1,) * gradient.ndim)) + decay * weight
            scale = nd.ones_like(scale)
        for some in self._groups():
            rows = (self._weights, self._gradients, self._moments["mean"], self._moments["variance"])
            nd.contrib.multi_adamw_update(
                *([row[index] for index in some] for row in rows),
                scale,
                lrs=[rate] * len(some),
                wds=[learning_rate * self._decays[index] if decoupled else 0.0 for index in some],
                etas=[1.0] * len(some),
                beta1=beta1,
                beta2=beta2,
                epsilon=1e-8,
                out=[self._weights[index] for index in some],
                size=len(some),
            )

    def _groups(self) -> list[range]:
        """The parameters' indices, in runs that a fused operator takes."""
        return [range(start, min(start + 40, len(self._names))) for start in range(0, len(self._names), 40)]

    def _average(self, fraction: float) -> None:
        """Move the running average towards the weights, by this fraction of the way."""
        if fraction == 0:
            return
        if fraction == 1:
            for average, weight in zip(self._averages, self._weights, strict=True):
                weight.copyto(average)
            return
        # a - α · (a - w): a step of SGD with a "gradient" of -w and a decay of 1
        for average, weight in zip(self._averages, self._weights, strict=True):
            nd.sgd_update(average, weight, lr=fraction, wd=1.0, rescale_grad=-1.0, out=average)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model computes with the averaged weights while this holds."""
        kept = [weight.copy() for weight in self._weights]
        for weight, average in zip(self._weights, self._averages, strict=True):
            average.copyto(weight)
        try:
            yield
        finally:
            for weight, own in zip(self._weights, kept, strict=True):
                own.copyto(weight)

    def _named(self, arrays: list[Any]) -> Arrays:
        return {name: array.asnumpy() for name, array in zip(self._names, arrays, strict=True)}

    def _fill(self, arrays: list[Any], values: Arrays) -> None:
        for name, array in zip(self._names, arrays, strict=True):
            array[:] = values[name]

    def _array(self, values: npt.NDArray[Any]) -> Any:
        return mnp.array(values, dtype=values.dtype, device=self._device)


def probe(device: Device) -> None:
    """Train one step on a device; whatever is wrong with MXNet, its libraries or the card comes up here."""
    recipe = Recipe(architecture=Architecture("rnn", "relu", 2, 1, 3), batch_size=1, optimizer="sgd", clip_norm=1.0)
    ids = np.zeros((1, 2), np.int32)
    GluonEngine(recipe, device).run([Step(inputs=ids, targets=ids, learning_rate=1.0, number=1)])
