"""Files that are there whole or not at all, whatever happens to the process or the machine."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from data.errors import StoreError
from data.store import locks

if TYPE_CHECKING:
    from pathlib import Path

_NOT_TO_BE_SYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What network drives say of a folder."""


def replace(path: Path, content: bytes) -> None:
    """Put a whole new file in the place of an old one or of none; one process at a time.

    Raises:
        OSError: what was there before is there still.
    """
    written = path.with_name(f"{path.name}.new")  # one name: what a killed process left goes, and is not gathered
    with suppress(FileNotFoundError):
        written.unlink()
    # Exclusively: a link that somebody puts there meanwhile is not followed.
    handle = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(handle, "wb") as file:
        with suppress(StoreError):  # where there are no locks, `collect` does not come either
            locks.take(handle, written)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        written.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's names, are on the disk; a folder where that cannot be asked for is passed over.

    Raises:
        OSError: a disk that fails, with the path.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_SYNCED or not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)


def exchange(one: Path, other: Path) -> None:
    """Swap two folders at once, so that neither name is ever without one (Linux: renameat2 with RENAME_EXCHANGE)."""
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return
    aside = one.with_name(f"{one.name}-aside")  # other systems, and file systems that cannot: a moment without
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    shutil.rmtree(aside, ignore_errors=True)
