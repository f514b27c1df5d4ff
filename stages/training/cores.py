"""How many of the CPU's cores there are, and how many MXNet uses: that changes how long it takes and no bit."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data.cores import available as available
from data.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stages.lm.parameters import Architecture

_VARIABLE = "OMP_NUM_THREADS"
_NUMBER, _MOST = re.compile(r" *0*[1-9][0-9]{0,3} *"), 1024
"""What MXNet takes for a number of threads, and one that a process is given."""
_WEIGHTS_PER_CORE = 1 << 19
"""Of the largest matrix of a step. On two cores instead of one an LSTM of 512 (a million of them) trains 1.4 times as
fast, and one of 256 that predicts 4,500 words the same; a ReLU RNN of 256 trains half as fast: its steps are so small
that the cores wait for each other."""


def suited(architecture: Architecture) -> int:
    """How many make a training by MXNet fastest, at most those that there are."""
    from stages.lm.parameters import GATES

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
    given = os.environ.get(_VARIABLE)
    if given is not None:
        if not _NUMBER.fullmatch(given) or int(given) > _MOST:
            raise ConfigError(
                f"MXNet cannot take {given!r} for a number of threads, which is what {_VARIABLE} says in the "
                f"environment: set it to 1 to {_MOST:,}, or unset it"
            )
        yield
        return
    os.environ[_VARIABLE] = str(suited(architecture))
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
