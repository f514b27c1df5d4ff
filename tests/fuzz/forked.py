"""A command in a process of its own that takes no time to start: forked, bounded in time and memory, and looked at."""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

SECONDS = 60.0
"""After which a command hangs."""


@dataclass(frozen=True)
class Ended:
    """What became of a command."""

    code: int
    """Its exit code; below 0 the signal that ended it, ``-SIGKILL`` where it took too long."""
    out: str
    err: str
    grown: int
    """Bytes that it held at most beyond what it began with."""


def command(
    *arguments: str | Path, environment: Mapping[str, str], cwd: Path, memory: int, seconds: float = SECONDS
) -> Ended:
    """Run ``rnnlm``, with no more memory than this beyond what is loaded already."""

    def work() -> None:
        from stages.cli.app import main

        sys.argv = ["rnnlm", *map(str, arguments)]
        main()

    return call(work, environment=environment, cwd=cwd, memory=memory, seconds=seconds)


def call(
    work: Callable[[], None], *, environment: Mapping[str, str], cwd: Path, memory: int, seconds: float = SECONDS
) -> Ended:
    """Call a function in a child of this process."""
    streams = [os.memfd_create(name) for name in ("out", "err", "grown")]
    child = os.fork()
    if not child:
        _child(work, streams, environment, cwd, memory)
    handle = os.pidfd_open(child)
    ended, _, _ = select.select([handle], [], [], seconds)
    if not ended:
        os.kill(child, signal.SIGKILL)
    os.close(handle)
    _, status = os.waitpid(child, 0)
    out, err, grown = (_text(stream) for stream in streams)
    return Ended(os.waitstatus_to_exitcode(status), out, err, int(grown or 0))


def _text(stream: int) -> str:
    with os.fdopen(stream, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


def _child(
    work: Callable[[], None], streams: list[int], environment: Mapping[str, str], cwd: Path, memory: int
) -> NoReturn:
    code = 1
    try:
        os.chdir(cwd)
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(streams[0], 1)
        os.dup2(streams[1], 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        Path("/proc/self/clear_refs").write_text("5")  # the largest that it was, from now on
        before = _memory("VmRSS")
        limit = _memory("VmSize") + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            work()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:  # what a process would end with
            traceback.print_exc()
        os.write(streams[2], str(max(_memory("VmHWM") - before, 0)).encode())
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _memory(which: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(which)
