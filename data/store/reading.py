"""Files that anybody may have put there: what is none, a pipe or a device, is neither waited for nor read."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1 << 26
"""Bytes of a file that is read as a whole, at most."""


def read(path: Path) -> bytes:
    """The content of a file that is small.

    Raises:
        OSError: no file, or none that can be read, or a large one.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        found = os.fstat(handle)
        _check(found, path)
        if found.st_size > LARGEST:
            raise OSError(errno.EFBIG, "it is too large for what it should be", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def check(path: Path) -> Path:
    """See that something is a file, before a library opens it and waits.

    Raises:
        OSError: no file.
    """
    _check(path.stat(), path)
    return path


def _check(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
