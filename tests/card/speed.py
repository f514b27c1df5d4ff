"""How fast the engine `torch` is on a device, and what bounds it; that nothing waits or grows while it trains."""

from __future__ import annotations

import statistics
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stages.training import dropout
from stages.training.engine import EngineState, Recipe, Step
from stages.training.torch import TorchEngine
from tests.card.bounds import Bounds, stretch
from tests.card.plain import RATE, PlainLoop
from tests.card.preset import settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stages.config import TrainConfig
    from stages.training.minibatches import Minibatch
    from tests.card.table import Table, Trial

FLAT = 500
"""Steps over which memory must not grow."""
FEW = 4
"""Steps whose kernels are counted."""
BOOK, SHAKESPEARE = 28, 65
"""Sizes of vocabularies."""
DROPPING = partial(settings, "shakespeare", networks=1, num_steps=128, weight_dropout=0.15)
"""One network, of the weights between steps some dropped too."""


def speed(trial: Trial, table: Table) -> None:
    """Speed, in turn with a plain loop over torch.nn, full float32 in both"""
    rates = {}
    for name, config, vocab_size, aim in _models(trial):
        pair = _Pair.of(trial, config, vocab_size)
        tokens = sum(step.inputs.size for step in pair.steps)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            expected = float(pair.plain())
            away = abs(pair.ours() / expected - 1)
            times = [(stretch(trial.place, pair.plain), stretch(trial.place, pair.ours)) for _ in range(trial.rounds)]
        table.require(away <= 1e-3, f"{name}: loss of both, apart", f"{away:.1e}", f"of {expected:.4f}, at most 1e-03")
        plain, rates[name] = (tokens / statistics.median(column) for column in zip(*times, strict=True))
        # Of pairs, so that a machine that drifts cancels out.
        ratio = statistics.median(slow / fast for slow, fast in times)
        table.note(f"{name}: tokens/s, plain", f"{plain:,.0f}")
        beside = f"{ratio:.2f} × plain; aim {aim:.0f} ×"
        table.aim(ratio >= aim, f"{name}: tokens/s, torch", f"{rates[name]:,.0f}", beside)
    name, rate = next(iter(rates.items()))
    table.aim(rate >= 4e6, f"{name}: and in itself", f"{rate:,.0f}", "aim, on an H100: 4,000,000")


def bounds(trial: Trial, table: Table) -> None:
    """What bounds it: launches, and arithmetic"""
    device = Bounds(trial.place, trial.rounds)
    table.note("one large matrix product", f"{device.peak / 1e12:.2f} TFLOP/s", "the rate of operations below")
    if trial.gpu:
        alone, node, graph = device.launches
        table.note("an empty kernel, launched alone", f"{alone * 1e6:.2f} µs")
        table.note(
            "an empty kernel, one of many in a graph", f"{node * 1e6:.2f} µs", f"a graph of one: {graph * 1e6:.2f} µs"
        )
    for name, config, vocab_size, _ in _models(trial):
        tokens = config.batch_size * config.num_steps
        architecture = Recipe.of(config, vocab_size).architecture
        seconds, operations = device.products(architecture, config.batch_size, config.num_steps)
        at_most = f"at most {tokens / seconds:,.0f} tokens/s"
        table.note(f"{name}: a step's matrix products alone", f"{seconds * 1e3:.3f} ms", at_most)
        at_most = f"at that rate at most {tokens * device.peak / operations:,.0f} tokens/s"
        table.note(f"{name}: a step's operations", f"{operations / 1e9:.2f} GFLOP", at_most)
        if trial.gpu:
            pair = _Pair.of(trial, config, vocab_size, FEW)
            kernels = device.kernels(pair.plain) / FEW
            at_most = f"each alone, at most {tokens / (kernels * alone):,.0f} tokens/s"
            table.note(f"{name}: kernels of a step, plain", f"{kernels:.0f}", at_most)
            kernels = device.kernels(pair.ours) / FEW
            at_most = f"in a graph, at most {tokens / (kernels * node + graph):,.0f} tokens/s"
            table.note(f"{name}: kernels of a step, torch", f"{kernels:.0f}", at_most)


def masks(trial: Trial, table: Table) -> None:
    """What masks cost that are drawn on the host: the preset `shakespeare`, with recurrent weights dropped"""
    dropping = DROPPING(hidden_size=2 * trial.hidden)
    plain = DROPPING(hidden_size=2 * trial.hidden, input_dropout=0.0, output_dropout=0.0, weight_dropout=0.0)
    minibatches = _minibatches(trial, dropping, SHAKESPEARE)
    tokens = sum(inputs.size for inputs, _ in minibatches)
    bare, dropped = (_engine(trial, config, SHAKESPEARE) for config in (plain, dropping))
    drawn = list(_steps(dropping, SHAKESPEARE, minibatches))
    ways = {
        "no masks": lambda: bare.run(_steps(plain, SHAKESPEARE, minibatches)),
        "masks, drawn before": lambda: dropped.run(drawn),
        "masks, drawn meanwhile": lambda: dropped.run(_steps(dropping, SHAKESPEARE, minibatches)),
    }
    for name, run in ways.items():
        seconds = Bounds(trial.place, trial.rounds).seconds(run)
        table.note(f"{name}: tokens/s", f"{tokens / seconds:,.0f}", f"{seconds / len(minibatches) * 1e3:.2f} ms a step")


def flow(trial: Trial, table: Table) -> None:
    """Nothing waits between the first step of a call and its figures, and memory stays as it is"""
    for name, config, vocab_size in (
        ("the book's", settings("book", hidden_size=trial.hidden), BOOK),
        ("with masks", DROPPING(hidden_size=trial.hidden, num_steps=35), SHAKESPEARE),
    ):
        engine = _engine(trial, config, vocab_size)
        steps = list(_steps(config, vocab_size, _minibatches(trial, config, vocab_size, trial.steps)))
        engine.run(steps)
        if not trial.gpu:
            continue
        few, many = (_waits(engine, steps[:count]) for count in (2, len(steps)))
        table.require(few == many, f"{name}: waits in {len(steps)} steps", f"{many}", f"in 2 steps: {few}")
        before = torch.cuda.memory_allocated(trial.place)
        for _ in range(FLAT // len(steps)):
            engine.run(steps)
        grown = torch.cuda.memory_allocated(trial.place) - before
        table.require(grown <= 0, f"{name}: {FLAT} steps later, bytes more", f"{grown:,}", f"of {before:,}")
    if trial.gpu:
        table.note("memory at its highest", f"{torch.cuda.max_memory_reserved(trial.place) / 2**20:,.0f} MiB")
    else:
        table.note("waiting and the card's memory show on a card only")


@dataclass(frozen=True)
class _Pair:
    """The engine and the plain loop, with the same weights and minibatches."""

    engine: TorchEngine
    steps: list[Step]
    loop: PlainLoop
    uploaded: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, trial: Trial, config: TrainConfig, vocab_size: int, count: int = 0) -> _Pair:
        """For so many minibatches, or as many as the trial's tokens fill."""
        minibatches = _minibatches(trial, config, vocab_size, count)
        architecture = Recipe.of(config, vocab_size).architecture
        loop = PlainLoop(architecture, architecture.initial("uniform", seed=1), trial.place)
        steps = list(_steps(config, vocab_size, minibatches))
        return cls(_engine(trial, config, vocab_size), steps, loop, loop.upload(minibatches))

    def ours(self) -> float:
        """Train with the engine → the mean loss."""
        return statistics.fmean(figures.loss for figures in self.engine.run(self.steps))

    def plain(self) -> Tensor:
        """Train with the loop → the mean loss."""
        return self.loop.train_on(self.uploaded)


def _models(trial: Trial) -> list[tuple[str, TrainConfig, int, float]]:
    """Name, configuration, size of the vocabulary, and how many times as fast as the plain loop is aimed at."""
    small, large = trial.hidden, 2 * trial.hidden
    lstm: dict[str, Any] = {"cell": "lstm", "layers": 2, "hidden_size": large, "batch_size": 128, "num_steps": 64}
    return [
        (f"rnn {small}, 32 × 35", settings("book", hidden_size=small), BOOK, 2.0),
        (f"lstm 2 × {large}, 128 × 64", settings("book", **lstm), SHAKESPEARE, 1.0),
    ]


def _minibatches(trial: Trial, config: TrainConfig, vocab_size: int, count: int = 0) -> list[Minibatch]:
    """Neighbouring ones of any ids, so many or as many as the trial's tokens fill."""
    width = config.num_steps
    count = count or max(1, trial.tokens // (config.batch_size * width))
    ids = np.random.default_rng(0).integers(1, vocab_size, (config.batch_size, count * width + 1)).astype(np.int32)
    return [
        (np.ascontiguousarray(ids[:, at : at + width]), np.ascontiguousarray(ids[:, at + 1 : at + width + 1]))
        for at in range(0, count * width, width)
    ]


def _steps(config: TrainConfig, vocab_size: int, minibatches: Sequence[Minibatch]) -> Iterator[Step]:
    """Drawn as they are taken, which is how the training loop gives them to an engine."""
    architecture = Recipe.of(config, vocab_size).architecture
    for number, (inputs, targets) in enumerate(minibatches, 1):
        yield Step(
            inputs=inputs,
            targets=targets,
            masks=dropout.masks(config, architecture, inputs.shape[1], number),
            learning_rate=RATE if config.optimizer == "sgd" else config.learning_rate,
            number=number,
            reset_state=number == 1,
            averaging=0.1,
        )


def _engine(trial: Trial, config: TrainConfig, vocab_size: int) -> TorchEngine:
    recipe = Recipe.of(config, vocab_size)
    engine = TorchEngine(recipe, trial.device)
    engine.restore(EngineState.initial(recipe, recipe.architecture.initial("uniform", seed=1)))
    return engine


def _waits(engine: TorchEngine, steps: Sequence[Step]) -> int:
    """How often a call waits for the card, by what PyTorch says of itself."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            engine.run(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)
