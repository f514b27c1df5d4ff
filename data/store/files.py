"""Files and folders that are there whole or not at all, whatever happens to the process or the machine."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from data.store import kernel, locks
from data.store.reading import named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NOT_TO_BE_SYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What network drives say of a folder."""
_NOT_TO_BE_EXCHANGED = (*_NOT_TO_BE_SYNCED, errno.EPERM)
"""What other systems say of two folders, and file systems that cannot."""

_ANOTHER = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def replace(path: Path, content: bytes, root: Path | None = None) -> None:
    """Put a whole new file in the place of an old one or of none; of two processes one waits for the other.

    Args:
        path: of the file.
        content: of the file.
        root: the store's folder; where it is given, the file is there after a power cut.

    Raises:
        OSError: what was there before is there still; or, of a disk that fails in the very end, nobody knows.
    """
    written = path.with_name(f"{path.name}.new")  # one name: what a killed process left goes, and is not gathered
    with _reserved(written) as handle:
        try:
            _write(handle, content, written)
            _sync(handle, written)
            kernel.rename(written, path)
        except OSError:
            with suppress(OSError):
                kernel.unlink(written)
            raise
    if root is not None:
        settle(path.parent, root)


@contextmanager
def _reserved(path: Path) -> Iterator[int]:
    """A new file that others, `collect` too, leave alone while it is open."""
    while True:
        try:
            # Exclusively: a link that somebody puts there meanwhile is not followed.
            handle = kernel.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            _clear(path)
            continue
        try:
            with suppress(locks.NoLocksError):  # where there are none, `collect` does not come either
                locks.take(handle, path, wait=True)
                if not locks.same(handle, path):
                    continue  # it came before the lock
            yield handle
            return
        finally:
            kernel.close(handle)


def _clear(path: Path) -> None:
    """Remove what a killed process left, or wait for the one that is writing it."""
    with suppress(FileNotFoundError):
        if is_link(path):
            kernel.unlink(path)
            return
        try:
            with locks.alone(path, wait=True) as free:
                if free:
                    kernel.unlink(path)
        except locks.NoLocksError:
            kernel.unlink(path)


@contextmanager
def created(path: Path) -> Iterator[Callable[[bytes], None]]:
    """What writes to a file where none was, which is not on the disk before it is synced.

    Raises:
        OSError: it is there, or cannot be written.
    """
    handle = kernel.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield lambda content: _write(handle, content, path)
    finally:
        kernel.close(handle)


def _write(handle: int, content: bytes, path: Path) -> None:
    left = memoryview(content)
    with named(path):
        while left:
            left = left[kernel.write(handle, left) :]


def make(folder: Path) -> None:
    """See that there is a folder, and those above it.

    Raises:
        OSError: what is there is none, or it cannot be made.
    """
    try:
        kernel.mkdir(folder)
    except FileExistsError:
        if not is_folder(folder):
            raise
    except FileNotFoundError:
        make(folder.parent)
        make(folder)


def settle(folder: Path, root: Path) -> None:
    """Wait until the disk has the names in a folder of a store, and all names down to it from the one above the store.

    Whoever made one of these may be at it still.

    Raises:
        OSError: a disk that fails, with the path.
    """
    sync(folder)
    if folder != root.parent:
        settle(folder.parent, root)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's names, are on the disk; a folder where that cannot be asked for is passed over.

    Raises:
        OSError: a disk that fails, with the path.
    """
    try:
        handle = kernel.open(path, os.O_RDONLY)
    except PermissionError:
        if is_folder(path):
            return  # one that nobody but its owner lists, above a store
        raise
    try:
        _sync(handle, path)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_SYNCED or not stat.S_ISDIR(kernel.fstat(handle).st_mode):
            raise
    finally:
        kernel.close(handle)


def _sync(handle: int, path: Path) -> None:
    with named(path):
        kernel.fsync(handle)


def move(folder: Path, place: Path) -> None:
    """Put a folder in a place, whatever is there: at once where that is none or, mostly, a folder.

    What was there lies where the folder was, or is gone.

    Raises:
        OSError: it cannot be put there, and what was there is there still.
    """
    while True:
        before = kind(place)
        try:
            if not before:
                kernel.rename(folder, place)
            elif stat.S_ISDIR(before):
                _exchange(folder, place)
            else:
                kernel.unlink(place)
                continue
            return
        except OSError as error:
            # Another process was there at the same moment, or has taken away what was there.
            if error.errno not in _ANOTHER and not (before and not kind(place)):
                raise


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders, so that the other's name is never without one; where that cannot be had, for a moment it is."""
    try:
        kernel.exchange(one, other)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_EXCHANGED:
            raise
        aside = one.with_name(f"{one.name}-aside")
        kernel.rename(other, aside)
        try:
            kernel.rename(one, other)
        except OSError:
            kernel.rename(aside, other)
            raise
        with suppress(OSError):
            kernel.rmtree(aside)


def kind(path: Path) -> int:
    """What has this name, a link for itself, as ``stat.S_IFMT`` has it; 0 where nothing has."""
    try:
        return stat.S_IFMT(kernel.lstat(path).st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return 0
        raise


def is_link(path: Path) -> bool:
    """Whether it is a link, wherever that leads."""
    return kind(path) == stat.S_IFLNK


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or leads to one; of what may not be looked at, it is not."""
    try:
        return stat.S_ISDIR(kernel.stat(path).st_mode)
    except OSError:
        return False
