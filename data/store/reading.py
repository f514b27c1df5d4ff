"""Files that anybody may have put there: what is none, a pipe or a device, is neither waited for nor read."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from data.errors import FormatError
from data.store import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NONE_THERE = (
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO, errno.EFBIG, errno.ENAMETOOLONG,
)  # fmt: skip
"""What says that no file of ours is there, whoever asks and whenever; anything else says that nobody knows."""
_PIECE = 1 << 18
"""Bytes that are read at a time."""
LARGEST, SMALL = 1 << 24, 1 << 20
"""Bytes of a file that is read as a whole, at most, and of one that describes a single thing. JSON takes up to thirty
times as much of memory: half a gigabyte."""
OTHER_STORE = "name another store with --store or RNNLM_STORE"


def read(path: Path, largest: float = LARGEST) -> bytes:
    """The content of a file of no more bytes than that.

    Raises:
        OSError: no file, or none that can be read, or a large one.
    """
    with opened(path) as file:
        if kernel.stat(path).st_size > largest:
            raise OSError(errno.EFBIG, "it is too large for what it should be", str(path))
        return file.read()


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces.

    Raises:
        OSError: no file, or none that can be read.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


class _File(io.RawIOBase):
    """An open file as libraries take one, whose path is for who is told what fails."""

    def __init__(self, handle: int, path: Path) -> None:
        super().__init__()
        self.handle, self.path = handle, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with named(self.path):
            return kernel.lseek(self.handle, offset, whence)

    def readinto(self, buffer: Any) -> int:
        with named(self.path):
            piece = kernel.read(self.handle, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file that is read in pieces; what is none is not waited for.

    Raises:
        OSError: no file, or none that can be read.
    """
    handle = kernel.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        with named(path):
            _check(kernel.fstat(handle), path)
        yield io.BufferedReader(_File(handle, path), _PIECE)
    finally:
        kernel.close(handle)


def check(path: Path) -> Path:
    """See that something is a file, before a library opens it and waits.

    Raises:
        OSError: no file.
    """
    _check(kernel.stat(path), path)
    return path


def known(place: Path | str, content: bytes | str, highest: int, instead: str = OTHER_STORE) -> None:
    """See that a file is of no newer format than this version reads, by the number in the JSON that it holds.

    What has no number is of the first format. Within one a version may write more than another reads, which passes over
    it; what nobody may pass over raises the number.

    Args:
        place: of the file.
        content: JSON; of anything else another one has to say what is wrong with it.
        highest: format that this version reads.
        instead: what to do but to upgrade.

    Raises:
        FormatError: a newer version has written it.
    """
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError):
        return
    found = facts.get("format") if isinstance(facts, dict) else None
    if type(found) is int and found > highest:
        raise FormatError(
            f"{place} has format {found}, of a newer version of rnnlm, and this one reads formats up to {highest}: "
            f"upgrade rnnlm, or {instead}"
        )


def _check(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))


@contextmanager
def named(path: Path) -> Iterator[None]:
    """While this holds, what fails has the path of what it was about."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
