"""The PyTorch engine: the layers of ``torch.nn`` on current cards by cuDNN, a whole training step launched at once.

The only file that trains with PyTorch. Small models are bound by what it costs to launch a kernel, so that a step
(forward, backward, clip, update, average) is captured as one CUDA graph, and all that changes from step to step lies in
memory that the graph reads: what the steps of a call come with (ids, rates, masks) is uploaded a few steps at a time,
and nothing is read before the last of them is on its way.

It computes in full float32, no TF32, but for the recurrent layers where `train.precision` is `bfloat16`: those are
trained on copies of their weights, inputs and states. And it gives the same bits each time: by PyTorch's deterministic
algorithms, cuDNN's among them, and with cuBLAS's buffers of one size. What would cost that is not used: cuDNN takes its
algorithms by rule and tries none, and nothing is added up in whatever order it arrives but an embedding's gradient,
which PyTorch then sorts.

Masks are drawn on the host, for every engine alike, and that can take longer than the step: for the preset
`shakespeare` 8 ms and 4.3 MB a minibatch (on one core of 2023), nine tenths of it for the recurrent weights.

On a CPU that multiplies bfloat16 it is the fastest of the engines with it, and in float32 one of equals. No card was
at hand when this was written: what it does on one is for ``tests/acceptance.py`` to show. ROCm, which PyTorch calls
CUDA, and MPS, where nothing is captured, are untested altogether.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from contextlib import contextmanager
from itertools import groupby, islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from data.errors import TrainingError
from data.tables.tokens import END_ID
from stages.lm.parameters import GATES, Architecture
from stages.training.engine import MOMENTS, EngineState, Figures, Recipe, Step, beginnings, recurrent_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from stages.training.device import Device
    from stages.training.engine import Arrays
    from stages.training.minibatches import Minibatch

_cuda: Any = torch.cuda  # its classes have no types
Layout = tuple[tuple[str, tuple[int, ...]], ...]
"""Names and shapes of what one step comes with, in the order in which it is uploaded."""

# What the modules of torch.nn call. Taken without the modules, for these want their parameters for themselves: they
# neither take a masked weight nor leave one vector of all parameters as it is.
_OPERATORS: dict[str, Any] = {
    "relu": torch.rnn_relu,
    "tanh": torch.rnn_tanh,
    "gru": torch.gru,
    "lstm": torch.lstm,
}
_DECAY_RATES = 0.9, 0.999
"""Of the moments; the first is the momentum of `momentum` too."""
_AT_ONCE = 4
"""Steps that one copy brings to the device. While they compute, the next ones are drawn; more at once, and it would
have nothing to do until the first of a call are there."""
_WARM_UPS = 2
"""Steps before one is captured; libraries set up in the first what a capture must not."""
_GRAPHS = 8
"""Kept, one for each layout: in an epoch only the last minibatch may be shorter, by another length in some of them."""
_capturing = threading.Lock()  # PyTorch can capture one graph at a time


class _Model:
    """One-hot (or an embedding) of the inputs, recurrent layers, a dense layer: ids → logits.

    Args:
        architecture: of the model; the weights that its methods take go by the names of `Architecture.shapes`.
        device: where to compute.
        dtype: of what the recurrent layers compute with while gradients are asked for; all else is float32.
    """

    def __init__(self, architecture: Architecture, device: torch.device, dtype: torch.dtype) -> None:
        self._architecture, self._dtype = architecture, dtype
        self._operator = _OPERATORS[architecture.activation if architecture.cell == "rnn" else architecture.cell]
        self._vocabulary = torch.arange(architecture.vocab_size, dtype=torch.int32, device=device)

    def __call__(
        self,
        weights: Mapping[str, Tensor],
        inputs: Tensor,
        state: Sequence[Tensor],
        masks: Mapping[str, Tensor],
        begun: Sequence[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Ids (steps, batch) and a state of (layers, batch, hidden) each → logits (steps · batch, vocab), new state.

        ``begun`` are the steps in which a row begins a document (see `stages.training.engine.beginnings`).
        """
        within = {step: (inputs[step] != END_ID).to(torch.float32)[:, None] for step in begun}
        outputs, state = self._recur(weights, self._embed(weights, inputs), state, masks, within)
        outputs = _dropped(outputs, masks.get("output")).reshape(-1, self._architecture.hidden_size)
        output = "embedding.weight" if self._architecture.tie_weights else "dense.weight"
        return functional.linear(outputs, weights[output], weights["dense.bias"]), state

    def _embed(self, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Ids (steps, batch) → (steps, batch, vocab or embedding)."""
        if self._architecture.embedding_size:
            return functional.embedding(inputs, weights["embedding.weight"])
        return (inputs[..., None] == self._vocabulary).to(torch.float32)

    def _recur(
        self,
        weights: Mapping[str, Tensor],
        outputs: Tensor,
        state: Sequence[Tensor],
        masks: Mapping[str, Tensor],
        within: Mapping[int, Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """(steps, batch, in) and a state of (layers, batch, hidden) each → (steps, batch, hidden), new state.

        ``within`` is a factor of what comes into a step: 0 in the rows that begin a document there.
        """
        outputs = _dropped(outputs, masks.get("input"))
        layers = self._architecture.layers
        # One call for all layers, unless something happens within them that the operator knows nothing of.
        stacks = [[layer] for layer in range(layers)] if masks.keys() - {"input", "output"} else [[*range(layers)]]
        states = []
        for stack in stacks:
            outputs = _dropped(outputs, masks.get(f"hidden{stack[0]}"))
            parameters = [
                _dropped(
                    weights[f"rnn.{name}_l{layer}"], masks.get(f"recurrent{layer}") if name == "weight_hh" else None
                )
                for layer in stack
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            before = [array[stack[0] : stack[-1] + 1] for array in state]
            if within or "gradient" in masks:
                outputs, after = self._cut(outputs, before, parameters, within, masks.get("gradient"))
            else:
                outputs, after = self._layers(outputs, before, parameters)
            states.append(after)
        return outputs, [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*states, strict=True)]

    def _layers(self, inputs: Tensor, state: list[Tensor], parameters: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Layers upon each other over all steps → outputs of the last and their new state."""
        training = torch.is_grad_enabled()
        dtype = self._dtype if training else torch.float32
        hidden, *cell = [array.to(dtype) for array in state]
        outputs, *after = self._operator(
            inputs.to(dtype),
            [hidden, *cell] if cell else hidden,
            [parameter.to(dtype) for parameter in parameters],
            has_biases=True,
            num_layers=len(state[0]),
            dropout=0.0,
            train=training,
            bidirectional=False,
            batch_first=False,
        )
        return outputs.float(), [array.float() for array in after]

    def _cut(
        self,
        inputs: Tensor,
        state: list[Tensor],
        parameters: list[Tensor],
        within: Mapping[int, Tensor],
        factors: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The same, cut where a document begins; with ``factors`` one step at a time, and what flows back into the step
        before is multiplied by that step's factor."""
        outputs = []
        starts = [0, *(step for step in (within if factors is None else range(len(inputs))) if step)]
        sizes = [stop - start for start, stop in pairwise([*starts, len(inputs)])]
        for start, rows in zip(starts, torch.split(inputs, sizes), strict=True):
            if start and factors is not None:
                passed = [array * factors[start] for array in state]
                state = [(array - own).detach() + own for array, own in zip(state, passed, strict=True)]
            if start in within:
                state = [array * within[start] for array in state]
            output, state = self._layers(rows, state, parameters)
            outputs.append(output)
        return torch.cat(outputs), state


def _dropped(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask


class TorchEngine:
    """The engine as `stages.training.engine.Engine` describes it.

    The parameters are one vector, and so are their average, each moment and the gradient: what is done to all of them
    takes one kernel.

    Args:
        recipe: what to build.
        device: where to compute.

    Raises:
        TrainingError: from here and from every method: a card without enough memory.
    """

    def __init__(self, recipe: Recipe, device: Device) -> None:
        architecture = recipe.architecture
        self._recipe = recipe
        self._where = f"{device} ({device.card})" if device.card else str(device)
        self._device = _place(device)
        self._threads = _threads(architecture)
        self._captures = self._device.type == "cuda"
        self._stream: Any = None
        if self._captures:
            # Read when cuBLAS is first used. Buffers of one size, or what it computes depends on which is free.
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
            self._stream = _cuda.Stream(self._device)
        # In the order that cuDNN has them in: it takes memory that begins with the recurrent weights of all layers, and
        # then all of their biases, as it is, and would copy any other in each step.
        self._shapes = dict(
            sorted(architecture.shapes().items(), key=lambda item: (not item[0].startswith("rnn."), "bias" in item[0]))
        )
        self._sizes = [math.prod(shape) for shape in self._shapes.values()]
        with self._computing():
            self._model = _Model(architecture, self._device, getattr(torch, recipe.precision))
            self._weights = self._zeros(sum(self._sizes))
            self._averages = torch.zeros_like(self._weights)
            self._moments = {name: torch.zeros_like(self._weights) for name in MOMENTS[recipe.optimizer]}
            self._decay = torch.cat(
                [
                    torch.full((size,), recipe.weight_decay if "weight" in name else 0.0, device=self._device)
                    for name, size in zip(self._shapes, self._sizes, strict=True)
                ]
            )
            self._state = self._zero_state(recipe.batch_size)
            self._figures = self._zeros(2)
            # For each layout, the most recently used last: a row, and what launches the step that was captured on it.
            self._graphs: dict[Layout, tuple[Tensor, Callable[[], None]]] = {}

    def run(self, steps: Iterable[Step]) -> list[Figures]:
        """Train these steps; nothing waits for the device until the last is on its way."""
        with self._computing():
            return [Figures(*row) for row in self._enqueue(steps).tolist()]

    def loss(self, minibatches: Iterable[Minibatch]) -> float:
        """The mean loss of the averaged weights; nothing is read before the last minibatch is on its way."""
        state: list[Tensor] | None = None
        losses, tokens = [], 0
        with self._computing():
            weights = self._named(self._averages)
            for inputs, targets in minibatches:
                state = state or self._zero_state(len(inputs))
                ids = self._upload(np.array([inputs.T, np.maximum(targets.T, -1)]))
                logits, state = self._model(weights, ids[0], state, {}, beginnings(self._recipe.architecture, inputs))
                losses.append(_cross_entropy(logits, ids[1], "sum"))
                tokens += int((targets >= 0).sum())
            total: float = torch.stack(losses).cpu().numpy().sum(dtype=np.float64)
        return float(total) / tokens

    def state(self) -> EngineState:
        """A copy of all that decides how training goes on."""
        with self._computing():
            return EngineState(
                parameters=self._arrays(self._weights),
                averages=self._arrays(self._averages),
                moments={
                    f"{moment}/{name}": array
                    for moment, vector in self._moments.items()
                    for name, array in self._arrays(vector).items()
                },
                recurrent={
                    name: _array(tensor)
                    for name, tensor in zip(recurrent_names(self._recipe.architecture), self._state, strict=True)
                },
            )

    def restore(self, state: EngineState) -> None:
        """Take what `state` gave."""
        with self._computing():
            self._fill(self._weights, state.parameters)
            self._fill(self._averages, state.averages)
            for moment, vector in self._moments.items():
                self._fill(vector, {name: state.moments[f"{moment}/{name}"] for name in self._shapes})
            for name, tensor in zip(recurrent_names(self._recipe.architecture), self._state, strict=True):
                tensor.copy_(self._upload(np.array(state.recurrent[name])))

    def _enqueue(self, steps: Iterable[Step]) -> Tensor:
        """Give the device all of these steps, and a tensor (steps, 2) of their figures."""
        figures = [self._zeros(0, 2)]
        for layout, group in groupby(steps, key=_layout):
            while alike := list(islice(group, _AT_ONCE)):
                rows = self._upload(np.array([_row(step, layout) for step in alike]))
                figures.append(self._zeros(len(alike), 2))
                for step, row, measured in zip(alike, rows, figures[-1], strict=True):
                    if step.reset_state:
                        for tensor in self._state:
                            tensor.zero_()
                    self._launch(row, layout, beginnings(self._recipe.architecture, step.inputs))
                    measured.copy_(self._figures)
        return torch.cat(figures)

    def _launch(self, row: Tensor, layout: Layout, begun: Sequence[int]) -> None:
        """One step on what was uploaded, on a card as one graph, unless documents begin within it: hardly another one
        would have them in the same places.

        The first step of a layout is launched so too: what computes a step does not depend on where a training goes on.
        """
        if begun or not self._captures:
            self._step(row, layout, begun)
            return
        if layout in self._graphs:
            given, replay = self._graphs.pop(layout)
        else:
            given, replay = self._captured(row.clone(), layout)
        self._graphs[layout] = given, replay
        if len(self._graphs) > _GRAPHS:
            del self._graphs[next(iter(self._graphs))]  # the card has done what it was launched for: see `_captured`
        given.copy_(row)
        replay()

    def _captured(self, given: Tensor, layout: Layout) -> tuple[Tensor, Callable[[], None]]:
        """Capture a step on what lies in ``given``, which comes back with what launches it; nothing changes until then.

        Waits for the card.
        """
        changed = [self._weights, self._averages, *self._moments.values(), *self._state]
        kept = [tensor.clone() for tensor in changed]
        graph = _cuda.CUDAGraph()
        try:
            with _capturing:
                for _ in range(_WARM_UPS):
                    self._step(given, layout)
                # What other threads do meanwhile, another training say, is none of its business.
                with _cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                    self._step(given, layout)
        finally:
            for tensor, before in zip(changed, kept, strict=True):
                tensor.copy_(before)
        return given, graph.replay

    def _step(self, row: Tensor, layout: Layout, begun: Sequence[int] = ()) -> None:
        """One step on what was uploaded; all that changes is changed in place, its figures too."""
        given = _parts(row, layout)
        rate, corrected, fraction = given.pop("numbers").unbind()
        inputs, targets = given.pop("inputs"), given.pop("targets")
        with torch.enable_grad():
            weights = self._weights.detach().requires_grad_()  # the same memory, and nothing left of another step
            logits, state = self._model(self._named(weights), inputs, self._state, given, begun)
            loss = _cross_entropy(logits, targets, "mean")
        [gradient] = torch.autograd.grad(loss, [weights])
        norm = torch.linalg.vector_norm(gradient)
        if self._recipe.clip_norm:
            gradient.mul_((self._recipe.clip_norm / norm).clamp(max=1.0))
        self._update(gradient, rate, corrected)
        self._averages.lerp_(self._weights, fraction)  # exactly the weights at 1, and nothing at 0
        for held, new in zip(self._state, state, strict=True):
            held.copy_(new)
        self._figures.copy_(torch.stack([loss, norm]))

    def _update(self, gradient: Tensor, rate: Tensor, corrected: Tensor) -> None:
        """The optimizer's step, by the formulas that `stages.training.gluon.GluonEngine` documents.

        Args:
            gradient: clipped; overwritten.
            rate: η, the learning rate.
            corrected: η √(1 - β₂ᵗ) / (1 - β₁ᵗ).
        """
        optimizer, weights, moments = self._recipe.optimizer, self._weights, self._moments
        decays = self._recipe.weight_decay > 0
        if decays and optimizer != "adamw":
            gradient.addcmul_(self._decay, weights)
        if optimizer == "sgd":
            weights.addcmul_(gradient, rate, value=-1)
        elif optimizer == "momentum":
            moments["momentum"].mul_(_DECAY_RATES[0]).addcmul_(gradient, rate, value=-1)
            weights.add_(moments["momentum"])
        else:
            beta1, beta2 = _DECAY_RATES
            mean, variance = moments["mean"], moments["variance"]
            mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
            variance.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            if decays and optimizer == "adamw":
                weights.addcmul_(self._decay * rate, weights, value=-1)
            weights.addcmul_(mean / variance.sqrt().add_(1e-8), corrected, value=-1)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """PyTorch's settings are this engine's while this holds: threads, determinism, precision, the stream.

        Raises:
            TrainingError: instead of PyTorch's own error where the card's memory does not suffice.
        """
        threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
        matmul: Any = torch.backends.cuda.matmul
        memory: Any = torch.utils.deterministic
        tf32, fill = matmul.allow_tf32, memory.fill_uninitialized_memory
        torch.set_num_threads(self._threads)
        torch.set_deterministic_debug_mode("error")
        matmul.allow_tf32 = memory.fill_uninitialized_memory = False  # the latter is one more kernel for each tensor
        try:
            with (
                torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
                torch.cuda.stream(self._stream),
                torch.no_grad(),
                warnings.catch_warnings(),
            ):
                # Of weights that are masked, or of layers that are called one by one; those are copied in each step.
                warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
                yield
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            raise TrainingError(
                f"{self._where} has too little memory for this training: set a smaller train.batch_size, "
                "train.num_steps or train.hidden_size, or train.device=cpu"
            ) from error
        finally:
            torch.set_num_threads(threads)
            torch.set_deterministic_debug_mode(mode)
            matmul.allow_tf32, memory.fill_uninitialized_memory = tf32, fill

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self._device)

    def _zero_state(self, rows: int) -> list[Tensor]:
        architecture = self._recipe.architecture
        shape = (architecture.layers, rows, architecture.hidden_size)
        return [self._zeros(*shape) for _ in recurrent_names(architecture)]

    def _upload(self, values: npt.NDArray[Any]) -> Tensor:
        """Bring an array of one's own to the device; on a card nothing waits for that."""
        tensor = torch.from_numpy(values)
        if self._stream:
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def _named(self, vector: Tensor) -> dict[str, Tensor]:
        """The parameters as views of a vector. The gradient of it is put together in one go, as it is split in one."""
        parts = torch.split(vector, self._sizes)
        return {name: part.view(shape) for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)}

    def _arrays(self, vector: Tensor) -> Arrays:
        """Copies of what a vector holds, in the order of `Architecture.shapes`."""
        ends = np.cumsum(self._sizes)[:-1]
        parts = dict(zip(self._shapes, np.split(_array(vector), ends), strict=True))
        return {name: parts[name].reshape(shape) for name, shape in self._recipe.architecture.shapes().items()}

    def _fill(self, vector: Tensor, values: Arrays) -> None:
        vector.copy_(self._upload(np.concatenate([values[name].ravel() for name in self._shapes])))


def _cross_entropy(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Of logits (steps · batch, vocab) and int32 targets (steps, batch); those of -1 are not counted."""
    return functional.cross_entropy(logits, targets.reshape(-1).long(), ignore_index=-1, reduction=reduction)


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.cpu().numpy().copy()
    return array


def _layout(step: Step) -> Layout:
    shape = step.inputs.T.shape
    masks = tuple((name, mask.shape) for name, mask in step.masks.items())
    return (("numbers", (3,)), ("inputs", shape), ("targets", shape), *masks)


def _row(step: Step, layout: Layout) -> npt.NDArray[np.int32]:
    """All that a step comes with as words of four bytes, so that one copy brings it all."""
    beta1, beta2 = _DECAY_RATES
    rate = step.learning_rate
    corrected = rate * (1 - beta2**step.number) ** 0.5 / (1 - beta1**step.number)
    numbers = np.array([rate, corrected, step.averaging], np.float32)
    floats = [numbers, *(np.ascontiguousarray(step.masks[name], np.float32) for name, _ in layout[3:])]
    first, *rest = [array.ravel().view(np.int32) for array in floats]
    return np.concatenate([first, step.inputs.T.ravel(), step.targets.T.ravel(), *rest])


def _parts(row: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Views of an uploaded row: ids as int32, the rest as float32."""
    parts = torch.split(row, [math.prod(shape) for _, shape in layout])
    return {
        name: (part if name in ("inputs", "targets") else part.view(torch.float32)).view(shape)
        for part, (name, shape) in zip(parts, layout, strict=True)
    }


def _out_of_memory(error: BaseException | None) -> bool:
    """PyTorch, CUDA and its libraries say it each in their own words, and what ends a capture says something else."""
    while error:
        if "out of memory" in str(error) or "ALLOC_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _place(device: Device) -> torch.device:
    """Where PyTorch has a device; a card that it cannot use is for CUDA to say something about."""
    if device.kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available() and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cuda", device.index)


def _threads(architecture: Architecture) -> int:
    """On the CPU; as it changes bits, it follows from the model alone, whatever cores there are.

    On two of them, an LSTM of 128 units trains 1.3 times as fast with two threads as with one, one of 256 1.6 times, an
    RNN of 512 1.1 times; an RNN of 256 and a GRU of 256 take as long, a GRU of 128 longer.
    """
    return 2 if GATES[architecture.cell] * architecture.hidden_size**2 >= 1 << 16 else 1


def probe(device: Device) -> None:
    """Train one step on a device; whatever is wrong with PyTorch, its libraries or the card comes up here."""
    recipe = Recipe(architecture=Architecture("rnn", "relu", 2, 1, 3), batch_size=1, optimizer="sgd", clip_norm=1.0)
    ids = np.zeros((1, 2), np.int32)
    TorchEngine(recipe, device).run([Step(inputs=ids, targets=ids, learning_rate=1.0, number=1)])
