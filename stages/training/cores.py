"""How many of the CPU's cores there are, and how many MXNet uses: that changes how long it takes and no bit."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data.errors import ConfigError
from stages.lm.parameters import GATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stages.lm.parameters import Architecture

_VARIABLE = "OMP_NUM_THREADS"
_COUNTS, _NUMBER, _MOST = re.compile(r"OMP_NUM_THREADS|MXNET_\w*THREADS"), re.compile(r" *0*[1-9][0-9]{0,8} *"), 1024
"""Variables that say how many threads MXNet takes, and what it takes for a number of them."""
_WEIGHTS_PER_CORE = 1 << 19
"""Of the largest matrix of a step. On two cores instead of one an LSTM of 512 (a million of them) trains 1.4 times as
fast, and one of 256 that predicts 4,500 words the same; a ReLU RNN of 256 trains half as fast: its steps are so small
that the cores wait for each other."""


def available() -> int:
    """Those that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def suited(architecture: Architecture) -> int:
    """How many make a training by MXNet fastest, at most those that there are."""
    recurrence = GATES[architecture.cell] * architecture.hidden_size**2
    output = architecture.vocab_size * architecture.hidden_size
    return max(1, min(available(), max(recurrence, output) // _WEIGHTS_PER_CORE))


@contextmanager
def set_for(architecture: Architecture) -> Iterator[None]:
    """While this holds, ``OMP_NUM_THREADS`` is the number that suits this model, unless the user has set it.

    MXNet reads it once, while it is imported; where it is not set it takes half of the cores for any model.

    Raises:
        ConfigError: a number of threads in the environment that MXNet would end this process for.
    """
    for name in sorted(os.environ):
        if _COUNTS.fullmatch(name) and not (_NUMBER.fullmatch(os.environ[name]) and int(os.environ[name]) <= _MOST):
            raise ConfigError(
                f"MXNet cannot take {os.environ[name]!r} for the number of threads that {name} says in the "
                f"environment: set it to 1 to {_MOST:,}, or unset it"
            )
    if _VARIABLE in os.environ:
        yield
        return
    os.environ[_VARIABLE] = str(suited(architecture))
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
