"""What can be read only once, standard input or a pipe by its number, as a file that can be read again."""

from __future__ import annotations

import os
import re
import select
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from data.errors import CorpusError

CHUNK = 1 << 18
PATIENCE = 30.0
"""Seconds until somebody has begun to write into a pipe that has a name."""

_folders: dict[tuple[int, int, int], tempfile.TemporaryDirectory[str]] = {}
"""By number, device and inode: a folder with what was read. They last as long as the process."""


def number(name: str) -> int | None:
    """The number of an open file that a name means: ``-`` is standard input, ``/dev/fd/63`` what a shell's ``<(…)``
    gives; None for any other name."""
    if name in ("-", "/dev/stdin"):
        return 0
    found = re.fullmatch(r"(?:/dev|/proc/self)/fd/([0-9]{1,9})", name)
    return int(found[1]) if found else None


def spooled(name: str, opened: int, limit: int) -> Path:
    """A file with all that comes from an open file, which is read when it is asked for first.

    Args:
        name: for errors.
        opened: its number.
        limit: the most bytes that are read.

    Raises:
        CorpusError: it is closed, cannot be read or kept, or has more than ``limit`` bytes.
    """
    key = _key(name, opened)
    if key not in _folders:
        _folders[key] = _kept(name, _chunks(name, opened), limit)
    return Path(_folders[key].name) / "text"


def passing(name: str, opened: int, limit: int, wanted: Callable[[bytes], bool]) -> Iterator[bytes] | None:
    """What comes from an open file, in chunks as it comes, however much; None where it is not wanted, or was read
    before: then `spooled` has it.

    Args:
        name: for errors.
        opened: its number.
        limit: the most bytes that are read of what is not wanted.
        wanted: says of the first chunk whether it is.

    Raises:
        CorpusError: as `spooled` does, and so may what is given.
    """
    key = _key(name, opened)
    if key in _folders:
        return None
    chunks = _chunks(name, opened)
    first = next(chunks, b"")
    every = chain((first,), chunks)
    if wanted(first):
        return every
    _folders[key] = _kept(name, every, limit)
    return None


def piped(name: str, path: Path, limit: int) -> Path:
    """The same for a pipe that has a name, into which somebody has to begin to write while this waits.

    Raises:
        CorpusError: nobody does; and as `spooled` does.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not select.select([handle], [], [], PATIENCE)[0]:
            raise CorpusError(
                f"nobody writes into the pipe {name!r}, after {PATIENCE:g} s: begin there first, or use -"
            )
        os.set_blocking(handle, True)
        return spooled(name, handle, limit)
    finally:
        os.close(handle)


def no_room(name: str, error: OSError) -> CorpusError:
    """What is said where a text cannot be kept for as long as it is read."""
    return CorpusError(
        f"{name} cannot be kept among the temporary files ({error.strerror or error}): free some space there, "
        "or name a folder on another disk by TMPDIR"
    )


def _key(name: str, opened: int) -> tuple[int, int, int]:
    if opened == 0 and sys.stdin is None:  # and its number may be another file's by now
        raise CorpusError(f"{name} is closed; name a file")
    try:
        place = os.fstat(opened)
    except OSError as error:
        raise _unreadable(name, error) from None
    return opened, place.st_dev, place.st_ino


def _kept(name: str, chunks: Iterator[bytes], limit: int) -> tempfile.TemporaryDirectory[str]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="rnnlm-")
        try:
            with (Path(folder.name) / "text").open("wb") as copy:
                copy.writelines(_limited(name, chunks, limit))
        except BaseException:
            folder.cleanup()
            raise
    except OSError as error:
        raise no_room(name, error) from None
    return folder


def _limited(name: str, chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise CorpusError(f"{name} has more than the {limit:,} bytes that a corpus may have")
        yield chunk


def _chunks(name: str, opened: int) -> Iterator[bytes]:
    """All of it, each chunk as long as a file's, whatever a pipe gives at once: errors quote what stands around."""
    ended = False
    while not ended:
        chunk = bytearray()
        while len(chunk) < CHUNK and not ended:
            try:
                more = os.read(opened, CHUNK - len(chunk))
            except OSError as error:
                raise _unreadable(name, error) from None
            chunk += more
            ended = not more  # of a terminal's end nothing may be read again
        if chunk:
            yield bytes(chunk)


def _unreadable(name: str, error: OSError) -> CorpusError:
    return CorpusError(f"{name} cannot be read ({error.strerror}); name a file")
