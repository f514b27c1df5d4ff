"""The command line in processes that are forked from one which has loaded all of it: quick, and killed at any moment.

A moment is a number of seconds, or that of a system call which would change something: a process that is killed before
each of these in turn has been killed in every state that it leaves on the disk.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from tests.conftest import in_this_process

_CREATING = os.O_CREAT | os.O_TRUNC
_OPENAT = {"x86_64": 257, "aarch64": 56}
_CHANGING = {
    "x86_64": {1, 17, 18, 20, 74, 75, 76, 77, 82, 83, 84, 86, 87, 88, 258, 263, 264, 265, 266, 280, 285, 296, 316, 326},
    "aarch64": {34, 35, 36, 37, 38, 45, 46, 64, 66, 68, 70, 82, 83, 88, 276, 285},
}
"""write, pwrite, writev, truncate, rename, link, symlink, unlink, mkdir, rmdir, fsync, utimensat, fallocate and their
kin; of ``openat`` those that make or empty a file."""
_TRACEME, _SYSCALL, _SETOPTIONS, _INFO = 0, 24, 0x4200, 0x420E
_SYSGOOD, _EXITKILL = 1, 1 << 20


class Ended(NamedTuple):
    """A process that is over."""

    killed: bool
    code: int
    """Its exit code; of one that was killed the signal, below 0."""
    changes: int
    """System calls that changed something; counted only where one of them was the moment."""
    out: str
    err: str
    seconds: float


class _Info(ctypes.Structure):
    """``struct ptrace_syscall_info`` at the entry of a system call."""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    ]


def warm(*commands: tuple[str | Path, ...]) -> None:
    """Load what commands need, by running them here once, in a store that goes."""
    from stages.pipeline import run

    vars(run)["_git"] = lambda: None  # which commit this is takes longer to ask than all the rest
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            in_this_process(Path(folder, "store"), *command)


def inside(store: Path, *command: str | Path) -> int:
    """Run a command in this process; its exit code."""
    from stages.cli.app import main

    os.environ["RNNLM_STORE"] = str(store)
    sys.argv = ["rnnlm", *map(str, command)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


class Process(NamedTuple):
    """One that was forked."""

    pid: int
    out: BinaryIO
    """What it writes to standard output."""
    err: BinaryIO
    began: float


def start(store: Path, *command: str | Path, before: Callable[[], object] = bool, traced: bool = False) -> Process:
    """Fork a process that runs a command after ``before``."""
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
    pid = os.fork()
    if not pid:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        _child(store, command, before, traced)
    return Process(pid, out, err, time.monotonic())


def _child(store: Path, command: tuple[str | Path, ...], before: Callable[[], object], traced: bool) -> NoReturn:
    code = 70
    try:
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        before()
        if traced:
            _libc().ptrace(_TRACEME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
        code = inside(store, *command)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def end(process: Process, moment: float | None = None) -> Ended:
    """Wait for a process, or kill it at a moment: after so many seconds, or before so manieth change."""
    pid, changes = process.pid, 0
    if isinstance(moment, int):
        status, changes = _traced(pid, moment)
    else:
        status = _waited(pid, moment)
    return ended(process, status, changes)


def ended(process: Process, status: int, changes: int = 0) -> Ended:
    """What became of a process that was waited for."""
    code = os.waitstatus_to_exitcode(status)
    took = time.monotonic() - process.began
    return Ended(code == -signal.SIGKILL, code, changes, _read(process.out), _read(process.err), took)


def ran(store: Path, *command: str | Path, moment: float | None = None, **how: Callable[[], object]) -> Ended:
    """Run a command in a process of its own, to its end or to a moment."""
    return end(start(store, *command, traced=isinstance(moment, int), **how), moment)


def traceable() -> bool:
    """Whether this system lets one process see the system calls of another, and we know their numbers."""
    if os.uname().machine not in _OPENAT:
        return False
    pid = os.fork()
    if not pid:
        os._exit(0 if _libc().ptrace(_TRACEME, 0, None, None) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def _waited(pid: int, seconds: float | None) -> int:
    if seconds is None:
        return os.waitpid(pid, 0)[1]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(min(0.001, max(deadline - time.monotonic(), 0)))
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _traced(pid: int, last: int) -> tuple[int, int]:
    """Kill a process before its change number ``last``; how it ended, and how many it made."""
    libc, info, changes = _libc(), _Info(), 0
    changing, openat = _CHANGING[os.uname().machine], _OPENAT[os.uname().machine]
    _, status = os.waitpid(pid, 0)
    libc.ptrace(_SETOPTIONS, pid, None, _SYSGOOD | _EXITKILL)
    handed = 0
    while os.WIFSTOPPED(status):
        stopped = os.WSTOPSIG(status)
        if stopped == signal.SIGTRAP | 0x80:
            handed = 0
            libc.ptrace(_INFO, pid, ctypes.sizeof(info), ctypes.byref(info))
            said = info.args[0] in (1, 2)  # standard output and error are no store
            makes = info.nr == openat and info.args[2] & _CREATING
            if info.op == 1 and (makes or (info.nr in changing and not said)):
                if changes == last:
                    os.kill(pid, signal.SIGKILL)
                    return os.waitpid(pid, 0)[1], changes
                changes += 1
        else:
            handed = 0 if stopped == signal.SIGSTOP else stopped
        libc.ptrace(_SYSCALL, pid, None, handed)
        _, status = os.waitpid(pid, 0)
    return status, changes


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    return libc


def _read(stream: BinaryIO) -> str:
    with stream:
        stream.seek(0)
        return stream.read().decode(errors="replace")
