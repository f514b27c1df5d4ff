"""What is the engine bptt's own: buffers that are allocated once, its number of threads, and no numbers near zero."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from stages.config import TrainConfig
from stages.training import bptt, dropout
from stages.training.bptt import BpttEngine
from stages.training.device import Device
from stages.training.engine import EngineState, Recipe, Step
from stages.training.minibatches import Minibatches

VOCAB = 20
CONFIG: dict[str, Any] = {"hidden_size": 64, "batch_size": 16, "num_steps": 20, "initializer": "uniform"}
DROPOUTS = {"input_dropout": 0.3, "hidden_dropout": 0.4, "output_dropout": 0.5, "weight_dropout": 0.3}


def begun(**changes: Any) -> tuple[BpttEngine, list[Step]]:
    """An engine before training, and an epoch: its last minibatch is shorter."""
    config = TrainConfig(**{**CONFIG, **changes})
    recipe = Recipe.of(config, VOCAB)
    engine = BpttEngine(recipe, Device("cpu"))
    engine.restore(EngineState.initial(recipe, recipe.architecture.initial("uniform", seed=0)))
    rng = np.random.default_rng(0)
    ids = rng.integers(1, VOCAB, 16 * 70).astype(np.uint8)  # 0 never comes
    steps = [
        Step(
            inputs=inputs,
            targets=targets,
            learning_rate=0.1,
            number=number,
            masks=dropout.masks(config, recipe.architecture, inputs.shape[1], number),
        )
        for number, (inputs, targets) in enumerate(Minibatches(ids, 16, 20, "sequential", rng), 1)
    ]
    assert len({step.inputs.shape for step in steps}) == 2
    return engine, steps


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "activation": "tanh"},
        {"optimizer": "adam", "cell": "gru", "weight_decay": 0.1, "averaging": 0.5},
        {"optimizer": "adamw", "cell": "lstm", "layers": 2, "embedding_size": 64, "tie_weights": True, **DROPOUTS},
    ],
    ids=str,
)
def test_memory_is_allocated_once(changes: dict[str, Any]) -> None:
    engine, steps = begun(**changes)
    tracemalloc.start()
    try:
        engine.run(steps)
        first, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        engine.run(steps * 5)
        last, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    numbers = 4 * 16 * 20 * 64  # the bytes of one gate in all steps
    assert first > 5 * numbers, "the buffers have to be seen by what measures"
    assert last - first < 20_000
    assert peak - first < 1.5 * numbers


def test_memory_of_shapes_long_past_is_given_back_at_once() -> None:
    engine, steps = begun(cell="lstm")
    shorter = [
        replace(steps[0], inputs=steps[0].inputs[:, :length], targets=steps[0].targets[:, :length])
        for length in range(1, 20)
    ]
    gc.disable()
    tracemalloc.start()
    try:
        engine.run(steps)
        first, _ = tracemalloc.get_traced_memory()
        engine.run(shorter)
        last, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert last < 4 * first


@pytest.mark.parametrize(("hidden", "expected"), [(255, 1), (256, 2)])
def test_the_number_of_threads_follows_from_the_model_and_is_given_back(
    monkeypatch: pytest.MonkeyPatch, hidden: int, expected: int
) -> None:
    engine, steps = begun(hidden_size=hidden)
    start = engine.state()
    blas, seen = ThreadpoolController().select(user_api="blas"), []

    def threads() -> set[int]:
        return {library["num_threads"] for library in blas.info()}

    def forward(*given: Any, own: Any = bptt.Unrolled.forward) -> None:
        seen.append(threads())
        own(*given)

    monkeypatch.setattr(bptt.Unrolled, "forward", forward)
    bits = []
    for user in (1, 3):
        with blas.limit(limits=user):
            engine.restore(start)
            engine.run(steps[:1])
            engine.loss([(steps[0].inputs, steps[0].targets)])
            assert threads() == {user}
        bits.append([array.tobytes() for array in engine.state().parameters.values()])
    assert seen == [{expected}] * 4
    assert bits[0] == bits[1]


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "adamw"])
def test_moments_without_a_gradient_do_not_end_in_numbers_that_a_cpu_is_slow_with(optimizer: Any) -> None:
    engine, steps = begun(optimizer=optimizer, embedding_size=8)
    state = engine.state()
    for array in state.moments.values():
        array.fill(1.2e-38)  # a few steps before the smallest of normal numbers, for id 0 is never read
    engine.restore(state)
    engine.run(steps * 3)
    smallest = np.finfo(np.float32).tiny
    for name, array in engine.state().moments.items():
        assert not ((array != 0) & (np.abs(array) < smallest)).any(), name
