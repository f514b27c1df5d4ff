"""A contender's own process: it builds what is timed, and takes a turn whenever it is told to.

Started by `race.Contender`. Where pools of threads and their settings are each contender's own, none disturbs another;
one that is not told to go waits for a line, and its pools sleep.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Turn = Callable[[], Any]
"""Does the thing once, and gives what came out; the module's ``summary`` makes JSON of it."""


def main() -> None:
    """Build, and warm up by one turn; then for each line a turn, and a line with its seconds."""
    module, name, task, cores = json.loads(sys.argv[1])
    if cores:
        confine(cores)
    contenders = importlib.import_module(module)
    turn: Turn = contenders.CONTENDERS[name](**task)
    say(contenders.summary(turn()))
    for _ in sys.stdin:
        began = time.perf_counter()
        turn()
        say(time.perf_counter() - began)


def confine(cores: int) -> None:
    """Use so many cores and no more, the last ones, where the system lets a process choose (Linux)."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def say(what: object) -> None:
    """A line with this and the most memory that the process ever held, bytes."""
    print(json.dumps([what, peak()]), flush=True)


def peak() -> int:
    """The most memory that the process ever held, bytes."""
    if sys.platform == "linux":  # which counts what its parent held to what a process held, but not to its memory map
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
