"""What a store asks of the operating system: every call by which its files are read, changed and locked.

Nothing else in the store, its champions and the checkpoints speaks to the disk, so that a test can record all of it,
let any of it fail, or put a disk in memory in its place: it exchanges the names in `CALLS`, and nothing else. What a
stage writes into the folder that it is given, and reads of what was published, is the stage's own.
"""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CALLS = (
    "open", "close", "read", "lseek", "write", "fsync", "fstat", "flock", "stat", "lstat", "listdir", "utime",
    "mkdir", "rename", "exchange", "unlink", "rmtree",
)  # fmt: skip

open, close, read, lseek, write = os.open, os.close, os.read, os.lseek, os.write
fsync, fstat, stat, lstat, listdir, utime = os.fsync, os.fstat, os.stat, os.lstat, os.listdir, os.utime
mkdir, rename, unlink, rmtree = os.mkdir, os.rename, os.unlink, shutil.rmtree


def flock(handle: int, operation: int) -> None:
    """Lock an open file or folder as ``fcntl.flock`` does, which not every system has."""
    import fcntl

    fcntl.flock(handle, operation)


def exchange(one: Path, other: Path) -> None:
    """Swap two folders at once, so that neither name is ever without one (Linux: renameat2 with RENAME_EXCHANGE).

    Raises:
        OSError: ENOSYS where the system has no such call, EINVAL where the file system cannot.
    """
    import ctypes  # slow to load

    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(other))
    if rename(here, os.fsencode(one), here, os.fsencode(other), swap) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
