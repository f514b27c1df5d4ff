"""How fast this machine trains: a time per token, and more of it for each weight that the token meets."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.errors import ConfigError
from stages.training import dropout
from stages.training.engine import EngineState, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages.config import TrainConfig
    from stages.training.engine import Engine

SECONDS = 1.5
"""That each of the two sizes is trained for."""
_STEPS = 4
"""Minibatches that are timed at once; the median of such times counts."""
_LARGEST = 1e9


@dataclass(frozen=True)
class Speed:
    """Time per token = ``token`` + ``weights`` · weights / 10⁶, both in microseconds."""

    token: float
    weights: float

    @classmethod
    def parse(cls, text: str) -> Speed:
        """What `str` wrote.

        Raises:
            ConfigError: something else.
        """
        try:
            token, weights = map(float, text.split(","))
        except ValueError:
            token = weights = math.nan
        if not (0 <= token <= _LARGEST and 0 <= weights <= _LARGEST and token + weights > 0):
            raise ConfigError(
                f"--speed {text}: write it as a suggestion says it, 11,45 for one: microseconds per token, and as many "
                "more for each million weights"
            )
        return cls(_rounded(token), _rounded(weights))

    @classmethod
    def between(cls, few: tuple[int, float], many: tuple[int, float]) -> Speed:
        """The line through two measurements, weights and microseconds per token each, of which neither end is below
        zero; rounded to two digits, so that two measurements of one machine mostly agree."""
        slope = max(0.0, (many[1] - few[1]) / (many[0] - few[0]))
        token = min(max(0.0, few[1] - slope * few[0]), many[1])
        return cls(_rounded(token), _rounded(1e6 * (many[1] - token) / many[0]))

    def __str__(self) -> str:
        return f"{self.token:g},{self.weights:g}"

    def seconds(self, weights: int) -> float:
        """Per token of a network of so many weights."""
        return (self.token + self.weights * weights / 1e6) / 1e6


def measure(
    few: TrainConfig,
    many: TrainConfig,
    vocab_size: int,
    build: Callable[[Recipe], Engine],
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Train two networks for a moment each, on tokens drawn at random.

    Args:
        few: the smaller one.
        many: the larger one.
        vocab_size: of both.
        build: makes the engine.
        clock: tells seconds.
    """
    one, other = (_timed(config, vocab_size, build, clock) for config in (few, many))
    return Speed.between(one, other)


def _timed(
    config: TrainConfig, vocab_size: int, build: Callable[[Recipe], Engine], clock: Callable[[], float]
) -> tuple[int, float]:
    """The weights that a token meets, and its microseconds."""
    recipe = Recipe.of(config, vocab_size)
    engine = build(recipe)
    engine.restore(EngineState.initial(recipe, recipe.architecture.initial(config.initializer, config.seed)))
    rng = np.random.default_rng(0)
    number, times = 0, list[float]()

    def step() -> Step:
        nonlocal number
        number += 1
        ids = rng.integers(vocab_size, size=(config.batch_size, config.num_steps + 1), dtype=np.int32)
        masks = dropout.masks(config, recipe.architecture, config.num_steps, number)
        return Step(inputs=ids[:, :-1], targets=ids[:, 1:], learning_rate=1e-6, number=number, masks=masks)

    engine.run([step()])  # whatever is done once is done
    began = clock()
    while not times or clock() - began < SECONDS:
        start = clock()
        engine.run(step() for _ in range(_STEPS))
        times.append(clock() - start)
    tokens = _STEPS * config.batch_size * config.num_steps
    return met(config, vocab_size), 1e6 * statistics.median(times) / tokens


def met(config: TrainConfig, vocab_size: int) -> int:
    """The weights of an LSTM that a token meets: those of its matrices, without the embedding, of which it takes a
    row."""
    hidden, width = config.hidden_size, config.embedding_size or vocab_size
    recurrent = sum(4 * hidden * (hidden + below) for below in [width, *[hidden] * (config.layers - 1)])
    return recurrent + hidden * vocab_size


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
