"""How many of the CPU's cores a training uses. It changes how long it takes and no bit of what comes out."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stages.lm.parameters import GATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stages.config import TrainConfig

_VARIABLE = "OMP_NUM_THREADS"
_WEIGHTS_PER_CORE = 1 << 19
"""Of a layer's recurrence. On two cores instead of one an LSTM of 512 (a million of them) trains 1.4 times as fast, and
a ReLU RNN of 256 half as fast: its steps are so small that the cores wait for each other."""


def available() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def suited(config: TrainConfig) -> int:
    """How many make a training fastest, at most those that there are."""
    weights = GATES[config.cell] * config.hidden_size**2
    return max(1, min(available(), weights // _WEIGHTS_PER_CORE))


@contextmanager
def told(config: TrainConfig) -> Iterator[None]:
    """While this holds, MXNet is told how many suit a training, unless the user's environment tells it.

    It looks once, while it is imported; told nothing it takes half of the cores for any model.
    """
    if _VARIABLE in os.environ:
        yield
        return
    os.environ[_VARIABLE] = str(suited(config))
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
