"""What is PyTorch's own: nothing leaves the card within a call, and a captured step reads all that changes.

Without a card, the device `meta` stands in for one: it computes shapes only, and raises where a tensor on it meets one
on the host or is read. And a recorder stands in for a CUDA graph: it runs the same operators on the same memory again.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data.errors import TrainingError
from stages.config import TrainConfig
from stages.training import dropout
from stages.training.device import Device
from stages.training.engine import MOMENTS, EngineState, Recipe, Step

pytest.importorskip("torch", reason="torch is not installed here (requirements-torch.txt says how)")

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from stages.training import torch as engines
from stages.training.torch import TorchEngine, probe

VOCAB, BATCH, STEPS = 6, 3, 4
DROPOUTS = {"input_dropout": 0.3, "hidden_dropout": 0.4, "output_dropout": 0.5, "weight_dropout": 0.3}
TRAININGS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "clip_norm": 0.2},
    {"optimizer": "sgd", "activation": "tanh", "layers": 2, "weight_decay": 0.1, "bptt_keep": 0.8},
    {"optimizer": "momentum", "cell": "gru", "layers": 2, **DROPOUTS},
    {"optimizer": "adam", "cell": "lstm", "embedding_size": 4, "tie_weights": True, "weight_decay": 0.1},
    {"optimizer": "adamw", "cell": "lstm", "layers": 2, "weight_decay": 0.1, "clip_norm": 0.2, **DROPOUTS},
    {"optimizer": "adamw", "cell": "gru", "variational": False, "bptt_keep": 0.7, **DROPOUTS},
]
every_training = pytest.mark.parametrize("changes", TRAININGS, ids=str)
on_a_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here that torch can use")


def recipe(**changes: Any) -> tuple[TrainConfig, Recipe]:
    plain = {"hidden_size": 4, "batch_size": BATCH, "num_steps": STEPS, "clip_norm": 0, "initializer": "uniform"}
    config = TrainConfig(**{**plain, **changes})
    return config, Recipe.of(config, VOCAB)


def plan(config: TrainConfig, made: Recipe, lengths: tuple[int, ...] = (STEPS,) * 3) -> list[Step]:
    """Steps in which everything differs from one to the next."""
    rng = np.random.default_rng(3)
    return [
        Step(
            inputs=rng.integers(0, VOCAB, (BATCH, length)).astype(np.int32),
            targets=rng.integers(0, VOCAB, (BATCH, length)).astype(np.int32),
            learning_rate=0.1 / number,
            number=number,
            masks=dropout.masks(config, made.architecture, length, number),
            reset_state=number % 3 == 0,
            averaging=(1.0, 0.3, 0.0)[number % 3],
        )
        for number, length in enumerate(lengths, 1)
    ]


def begun(made: Recipe, device: Device | None = None) -> TorchEngine:
    engine = TorchEngine(made, device or Device("cpu"))
    engine.restore(EngineState.initial(made, made.architecture.initial("uniform", 1)))
    return engine


def bits(engine: TorchEngine) -> dict[str, bytes]:
    state = engine.state()
    kinds = (state.parameters, state.averages, state.moments, state.recurrent)
    return {f"{kind}/{name}": array.tobytes() for kind, named in enumerate(kinds) for name, array in named.items()}


# --- in bfloat16


@every_training
def test_in_bfloat16_it_trains_nearly_as_in_float32_and_measures_as_there(changes: dict[str, Any]) -> None:
    config, made = recipe(**{**changes, "hidden_size": 16, "embedding_size": 16})
    steps = plan(config, made, (STEPS,) * 8)
    full, half = begun(made), begun(replace(made, precision="bfloat16"))
    exact, rounded = (np.array(engine.run(steps)) for engine in (full, half))
    assert (rounded != exact).any()
    np.testing.assert_allclose(rounded, exact, rtol=0.05)
    again = begun(replace(made, precision="bfloat16"))
    again.run(steps[:3])
    again.restore(again.state())
    again.run(steps[3:])
    assert bits(again) == bits(half)
    assert half.state().fits(made)  # float32
    full.restore(half.state())
    minibatches = [(step.inputs, step.targets) for step in steps]
    assert full.loss(minibatches) == half.loss(minibatches)


# --- nothing leaves the card


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines compute on the device `meta`."""
    monkeypatch.setattr(engines, "_place", lambda device: torch.device("meta"))


def test_the_stand_in_for_a_card_raises_where_a_card_would_wait() -> None:
    far = torch.zeros(2, device="meta")
    for wait in (far.sum().item, far.numpy, far.tolist, lambda: bool(far.any()), lambda: far + torch.zeros(2)):
        with pytest.raises((RuntimeError, TypeError)):
            wait()


@pytest.mark.usefixtures("meta")
@every_training
def test_nothing_leaves_the_card_before_the_last_step_is_on_its_way(changes: dict[str, Any]) -> None:
    config, made = recipe(**changes)
    engine = begun(made)
    steps = plan(config, made, (STEPS, STEPS, 2))
    with engine._computing():
        figures = engine._enqueue(steps)
    assert figures.shape == (3, 2)
    assert figures.device.type == "meta"
    for read in (lambda: engine.run(steps), lambda: engine.loss([(steps[0].inputs, steps[0].targets)])):
        with pytest.raises(NotImplementedError, match="no data"):
            read()


def is_kernel(function: Any) -> bool:
    """Whether an operator computes; a view does not."""
    return function._schema.is_mutable or not any(value.alias_info for value in function._schema.returns)


class Operators(TorchDispatchMode):
    """Counts what is done while it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.uploads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {tensor.device.type for tensor in (*args, result) if isinstance(tensor, torch.Tensor)}
        if devices == {"cpu", "meta"}:
            self.uploads += 1
        elif is_kernel(func):
            self.kernels[func.overloadpacket.__name__] += 1
        return result


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize(
    ("changes", "kernels"),
    [
        ({"optimizer": "sgd", "clip_norm": 1}, 33),
        ({"optimizer": "adamw", "cell": "lstm", "embedding_size": 4, "layers": 2, "weight_decay": 0.1, **DROPOUTS}, 61),
    ],
    ids=str,
)
def test_a_step_takes_a_handful_of_kernels_no_upload_and_nothing_is_read(
    changes: dict[str, Any], kernels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, made = recipe(**changes)
    engine = begun(made)

    # Where cuDNN computes, the layers are one operator; here they would be dozens.
    def layers(inputs: Any, state: Any, parameters: Any, **_: Any) -> Any:
        hidden = state if torch.is_tensor(state) else state[0]
        return inputs @ parameters[0][: hidden.shape[2]].T, *(
            2 * array for array in ((state,) if hidden is state else state)
        )

    monkeypatch.setattr(engine._model, "_operator", layers)
    counted = []
    for count in (1, 5):
        with engine._computing(), Operators() as operators:
            engine._enqueue(plan(config, made, (STEPS,) * count))
        assert operators.uploads == math.ceil(count / engines._AT_ONCE)
        assert not {"_local_scalar_dense", "item", "is_nonzero"} & operators.kernels.keys()
        counted.append(operators.kernels.total())
    assert (counted[1] - counted[0]) / 4 <= kernels


def test_the_device_computes_while_later_steps_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    config, made = recipe(optimizer="sgd")
    engine = begun(made)
    launched, seen = [], []
    launch = engine._launch

    def counted(*given: Any) -> None:
        launched.append(given)
        launch(*given)

    def drawn() -> Iterator[Step]:
        for step in plan(config, made, (STEPS,) * 9):
            seen.append(len(launched))
            yield step

    monkeypatch.setattr(engine, "_launch", counted)
    assert len(engine.run(drawn())) == 9
    assert seen == [0, 0, 0, 0, 4, 4, 4, 4, 8]


# --- a step that is captured


def memory(values: Any) -> Any:
    """The same tensors, without what autograd knows of them."""
    return tree_map(lambda value: value.detach() if isinstance(value, torch.Tensor) else value, values)


class Graph(TorchDispatchMode):
    """What a CUDA graph is to a step, on the CPU: its operators, on the memory that they had when it was captured."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ != "_local_scalar_dense", "a capture cannot wait for a number"
        for value, argument in zip(func._schema.arguments, args, strict=False):
            if value.alias_info and value.alias_info.is_write:
                self.before.setdefault(id(argument), (argument, argument.clone()))
        result = func(*args, **(kwargs or {}))
        if is_kernel(func):
            self.calls.append((func, *(memory(values) for values in (args, kwargs or {}, result))))
        return result

    def undo(self) -> None:
        """A capture computes nothing."""
        for tensor, before in self.before.values():
            tensor.copy_(before)

    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            with torch.enable_grad():  # or oneDNN's LSTM would keep nothing for its backward pass
                again = func(*args, **kwargs)
            if not func._schema.is_mutable:
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if new is not None:
                        old.copy_(new)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Engines on the CPU capture as on a card; every graph that was made."""
    made: list[Graph] = []

    class Cuda:
        @staticmethod
        def CUDAGraph() -> Graph:  # noqa: N802
            made.append(Graph())
            return made[-1]

        @staticmethod
        @contextmanager
        def graph(graph: Graph, **_: Any) -> Iterator[None]:
            with graph:
                yield
            graph.undo()

    monkeypatch.setattr(engines, "_cuda", Cuda)
    return made


@every_training
def test_a_graph_reads_all_that_changes_and_computes_what_its_step_does(
    captures: list[Graph], changes: dict[str, Any]
) -> None:
    config, made = recipe(**changes)
    steps = plan(config, made, (2, STEPS, STEPS, STEPS, 1, STEPS))
    plain, graphed = begun(made), begun(made)
    graphed._captures = True
    assert graphed.run(steps) == plain.run(steps)
    assert bits(graphed) == bits(plain)
    assert len(captures) == 3, "one for each length"


def test_every_step_is_a_replay_and_the_graphs_of_a_few_lengths_are_kept(
    captures: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what computes a step would depend on where a training was stopped, and many lengths would fill a card."""
    config, made = recipe()
    few, many = (1, 3, 3, 1), tuple(range(1, 11))
    engine, launched = begun(made), 0
    engine._captures = True
    own = engine._step

    def counted(*given: Any) -> None:
        nonlocal launched
        launched += 1
        own(*given)

    monkeypatch.setattr(engine, "_step", counted)
    engine.run(plan(config, made, few))
    assert (len(captures), launched) == (2, 2 * (engines._WARM_UPS + 1))
    engine.run(plan(config, made, many))
    assert len(captures) == 10
    assert len(engine._graphs) == engines._GRAPHS
    engine.run(plan(config, made, many[-engines._GRAPHS :]))
    assert len(captures) == 10, "the latest are kept"


def test_to_capture_changes_nothing(captures: list[Graph]) -> None:
    config, made = recipe(optimizer="adam", cell="lstm", layers=2)
    engine = begun(made)
    engine.run(plan(config, made))
    [step] = plan(config, made, (STEPS,))
    before = bits(engine)
    with engine._computing():
        layout = engines._layout(step)
        engine._captured(engine._upload(engines._row(step, layout)), layout)
    assert bits(engine) == before


@on_a_card
@every_training
def test_on_a_card_a_graph_gives_the_bits_of_its_kernels(changes: dict[str, Any]) -> None:
    config, made = recipe(**changes)
    steps = plan(config, made, (STEPS,) * 6)
    plain, graphed = (begun(made, Device("gpu", 0)) for _ in range(2))
    plain._captures = False
    assert graphed.run(steps) == plain.run(steps)
    assert bits(graphed) == bits(plain)


@on_a_card
def test_on_a_card_the_weights_are_taken_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN would copy them in each step, and torch would warn."""
    monkeypatch.setattr(warnings, "filterwarnings", lambda *_: None)
    for changes in ({}, {"cell": "gru", "layers": 2}, {"cell": "lstm", "layers": 3, "embedding_size": 4}):
        config, made = recipe(optimizer="sgd", **changes)
        with warnings.catch_warnings(record=True) as said:
            begun(made, Device("gpu", 0)).run(plan(config, made))
        assert not [warning for warning in said if "contiguous chunk" in str(warning.message)]


# --- what is said, and what is left as it was


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def a_context_without_memory() -> None:
    raise RuntimeError("CUDA error: out of memory")


def a_library_without_memory() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def a_capture_without_memory() -> None:
    """What ends the capture hides why it failed."""
    try:
        out_of_memory()
    finally:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


@pytest.mark.parametrize(
    "fail", [out_of_memory, a_context_without_memory, a_library_without_memory, a_capture_without_memory]
)
def test_a_card_without_enough_memory_is_one_sentence(
    fail: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_place", lambda device: torch.device("cpu"))
    config, made = recipe(optimizer="sgd")
    card = Device("gpu", 1, "NVIDIA T4")
    sentence = r"the GPU 1 \(NVIDIA T4\) has too little memory .* a smaller train.batch_size.* or train.device=cpu$"

    def full(*_: Any, **__: Any) -> Any:
        fail()

    engine = begun(made, card)
    monkeypatch.setattr(engine, "_model", full)
    steps = plan(config, made)
    for fails in (lambda: engine.run(steps), lambda: engine.loss([(steps[0].inputs, steps[0].targets)])):
        with pytest.raises(TrainingError, match=sentence):
            fails()
    monkeypatch.setattr(TorchEngine, "_zeros", full)
    with pytest.raises(TrainingError, match=sentence):
        TorchEngine(made, card)


def test_another_error_of_a_card_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config, made = recipe(optimizer="sgd")
    engine = begun(made)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(engine, "_model", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.run(plan(config, made))


def settings() -> tuple[Any, ...]:
    backends = torch.backends
    memory: Any = torch.utils.deterministic
    return (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        memory.fill_uninitialized_memory,
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
        backends.cudnn.deterministic,
        torch.is_grad_enabled(),
    )


def test_settings_are_the_engines_while_it_computes_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings()
    config, made = recipe(optimizer="sgd")
    engine = begun(made)
    seen = []
    model = engine._model

    def watched(*given: Any) -> Any:
        seen.append(settings())
        return model(*given)

    monkeypatch.setattr(engine, "_model", watched)
    engine.run(plan(config, made, (STEPS,)))
    assert seen == [(1, 2, False, False, False, True, True)]
    assert settings() == before
    with pytest.raises(KeyError):
        engine.restore(replace(engine.state(), recurrent={}))
    assert settings() == before


def test_moments_and_layout_are_those_of_every_engine() -> None:
    for optimizer, moments in MOMENTS.items():
        _, made = recipe(optimizer=optimizer, cell="lstm", layers=2, embedding_size=3)
        engine = begun(made)
        shapes = made.architecture.shapes()
        assert list(engine.state().moments) == [f"{moment}/{name}" for moment in moments for name in shapes]
        assert engine._weights.numel() == sum(math.prod(shape) for shape in shapes.values())


def test_the_probe_trains_a_step_and_lets_torch_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    probe(Device("cpu"))
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU here that torch can use")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    with pytest.raises((AssertionError, RuntimeError), match="CUDA"):
        probe(Device("gpu", 0))
