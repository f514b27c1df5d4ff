"""Who trains in the benchmark: our engines, the loops of others, and the matrix products of a training alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from loops import Ids, Turn, book, plain_jax, plain_torch

from stages.config import TrainConfig
from stages.lm.parameters import GATES, Architecture
from stages.training import dropout, engines, schedule
from stages.training.engine import EngineState, Recipe, Step

if TYPE_CHECKING:
    from stages.lm.parameters import Parameters

Build = Callable[[TrainConfig, Architecture, "Parameters", Ids], Turn]


def given(build: Build, vocab_size: int, minibatches: int, train: dict[str, Any]) -> Turn:
    """A contender with the weights and ids that all of them are given."""
    config = TrainConfig(**train)
    architecture = Architecture.of(config, vocab_size)
    shape = minibatches, config.batch_size, config.num_steps + 1
    ids = np.random.default_rng(0).integers(1, vocab_size, shape).astype(np.int32)
    return build(config, architecture, architecture.initial(config.initializer, config.seed), ids)


def summary(losses: Sequence[float]) -> list[float]:
    """The curve of a turn: the loss of each of its minibatches."""
    return [float(loss) for loss in losses]


def engine(name: str, config: TrainConfig, architecture: Architecture, weights: Parameters, ids: Ids) -> Turn:
    """One of ours, with all that a step of the training loop costs: masks are drawn, the average is kept."""
    config = config.model_copy(update={"engine": name, "device": "cpu"})
    recipe = Recipe.of(config, architecture.vocab_size)
    built = engines.choose(config).build(recipe)
    built.restore(EngineState.initial(recipe, weights))
    numbers = itertools.count(1)

    def turn() -> Sequence[float]:
        steps = [
            Step(
                inputs=np.ascontiguousarray(rows[:, :-1]),
                targets=np.ascontiguousarray(rows[:, 1:]),
                learning_rate=config.learning_rate,
                number=number,
                masks=dropout.masks(config, architecture, config.num_steps, number),
                reset_state=index == 0,
                averaging=schedule.averaging(config, number),
            )
            for index, (rows, number) in enumerate(zip(ids, numbers, strict=False))
        ]
        return [figures.loss for figures in built.run(steps)]

    return turn


def products(config: TrainConfig, architecture: Architecture, weights: Parameters, ids: Ids) -> Turn:
    """No training: the matrix products of one in NumPy, of contiguous matrices, and nothing else.

    Forward the input's (where there is an embedding, for one-hot it is a look-up), the state's in every step and the
    output's; backward for each of them that of its weights and that of what it was applied to.
    """
    del weights
    hidden, inputs, vocab = architecture.hidden_size, architecture.embedding_size, architecture.vocab_size
    gates, rows = GATES[architecture.cell] * hidden, config.batch_size
    columns = rows * config.num_steps
    rng = np.random.default_rng(0)

    def product(m: int, k: int, n: int) -> Callable[[], object]:
        a, b = (rng.standard_normal(shape, np.float32) for shape in ((m, k), (k, n)))
        return partial(np.matmul, a, b, out=np.empty((m, n), np.float32))

    def three(m: int, k: int) -> list[Callable[[], object]]:
        return [product(m, k, columns), product(m, columns, k), product(k, m, columns)]

    at_once = [*three(vocab, hidden), product(gates, columns, hidden)]
    if inputs:
        at_once += three(gates, inputs)
    per_step = [product(gates, hidden, rows), product(hidden, gates, rows)]

    def turn() -> Sequence[float]:
        for _ in ids:
            for multiply in at_once:
                multiply()
            for multiply in per_step:
                for _ in range(config.num_steps):
                    multiply()
        return []

    return turn


BUILDS: dict[str, Build] = {
    "book": book,
    "plain torch": plain_torch,
    "JAX": plain_jax,
    "mxnet": partial(engine, "mxnet"),
    "bptt": partial(engine, "bptt"),
    "torch": partial(engine, "torch"),
    "products": products,
}
CONTENDERS = {name: partial(given, build) for name, build in BUILDS.items()}
