"""Locks between the processes of one machine: the kernel frees them however a process ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.errors import StoreError

try:
    import fcntl
except ImportError:
    raise StoreError(
        "this system has no locks for files, as Windows has none: use Linux there, which is WSL (`wsl --install`), and "
        "install and run this program inside of it"
    ) from None

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a file system says that has none."""


def take(handle: int, path: Path, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file or folder; False where another process holds it and is not waited for.

    Raises:
        StoreError: a file system without locks.
        OSError: whatever else is wrong, with the path.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise StoreError(
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
        StoreError: a file system without locks.
        OSError: a file that cannot be opened.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            free = take(handle, path)
            if not free and waiting is not None:
                waiting()
                free, waiting = take(handle, path, wait=True), _nothing
            if free and not _same(handle, path):
                continue  # `remove` took the file away meanwhile: who comes now would lock another one
            if free:
                with suppress(OSError):
                    os.utime(handle)  # for `collect`
            yield free
            return
        finally:
            os.close(handle)


def free(path: Path) -> bool:
    """Whether no process holds a file or a folder; of what cannot be opened, nobody knows.

    Raises:
        StoreError: a file system without locks.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return take(handle, path)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove the file of a lock that nobody holds.

    Raises:
        StoreError: a file system without locks.
        OSError: a file that cannot be removed.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if take(handle, path):
            path.unlink()
    finally:
        os.close(handle)


def _same(handle: int, path: Path) -> bool:
    """Whether an open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _nothing() -> None:
    pass
