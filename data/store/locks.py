"""Locks between the processes of one machine: the kernel frees them however a process ends."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.errors import StoreError
from data.store import kernel
from data.store.reading import named

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH
except ImportError:
    raise StoreError(
        "this system has no locks for files, as Windows has none: use Linux there, which is WSL (`wsl --install`), and "
        "install and run this program inside of it"
    ) from None

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a file system says that has none."""


class NoLocksError(StoreError):
    """A file system without locks."""


def take(handle: int, path: Path, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file or folder; False where another process holds it and is not waited for.

    Raises:
        NoLocksError: a file system without locks.
        OSError: whatever else is wrong, with the path.
    """
    try:
        kernel.flock(handle, (LOCK_SH if shared else LOCK_EX) | (0 if wait else LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocksError(
                f"the file system of {path} has no locks ({error.strerror}): name a folder on a local disk with "
                "--store or RNNLM_STORE, or mount this one with them (Lustre: `-o flock`; NFS: without `nolock`)"
            ) from None
        raise OSError(error.errno, error.strerror, str(path)) from error
    return True


@contextmanager
def held(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Whether the lock that a file stands for is held, from now on until the block ends.

    Args:
        path: the file, made if need be; its content is left alone, and a link is not followed.
        waiting: called once where another process has the lock and is waited for; None does not wait.

    Raises:
        NoLocksError: a file system without locks.
        OSError: a file that cannot be opened.
    """
    while True:
        handle = kernel.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            free = take(handle, path)
            if not free and waiting is not None:
                waiting()
                free, waiting = take(handle, path, wait=True), _nothing
            if free and not same(handle, path):
                continue  # `remove` took the file away meanwhile: who comes now would lock another one
            if free:
                with suppress(OSError):
                    kernel.utime(handle)  # for `collect`
            yield free
            return
        finally:
            kernel.close(handle)


def free(path: Path) -> bool:
    """Whether no process holds a file or a folder; of what cannot be opened, nobody knows.

    Raises:
        NoLocksError: a file system without locks.
    """
    try:
        with _opened(path) as handle:
            return take(handle, path)
    except FileNotFoundError:
        return True
    except OSError:
        return False


@contextmanager
def alone(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether a file or a folder that is there is held by nobody else, and by this process until the block ends.

    With ``wait`` until nobody else has it; False is then said of what has gone, or was replaced, by that time.

    Raises:
        NoLocksError: a file system without locks.
        OSError: it is gone, or cannot be opened.
    """
    with _opened(path) as handle:
        yield take(handle, path, wait=wait) and same(handle, path)


class Hold:
    """Of what is in use: for as long as this object lives, no other process has it `alone`."""

    def __init__(self, handle: int) -> None:
        weakref.finalize(self, kernel.close, handle)


def hold(path: Path) -> Hold | None:
    """Hold a folder that is in use, together with all others who use it; None where that cannot be.

    Raises:
        FileNotFoundError: it is gone, or was replaced at this moment.
    """
    try:
        handle = kernel.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError:  # who cannot open it may still read what lies in it
        return None
    held = Hold(handle)
    with suppress(NoLocksError):
        take(handle, path, shared=True, wait=True)
    if not same(handle, path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return held


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = kernel.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield handle
    finally:
        kernel.close(handle)


def same(handle: int, path: Path) -> bool:
    """Whether an open file or folder is the one that has this name."""
    try:
        with named(path):
            return os.path.samestat(kernel.fstat(handle), kernel.lstat(path))
    except FileNotFoundError:
        return False


def _nothing() -> None:
    pass
