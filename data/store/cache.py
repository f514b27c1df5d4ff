"""The user's cache: what took long to find out, for as long as nothing that it was found from has changed.

    ~/.cache/rnnlm/<kind>/<name>     (or below $XDG_CACHE_HOME), a JSON value each; of `folders`, one in each line

A file is told by what the file system says of it, as git does it: size, inode, and the times of its last changes. One
that changes within a tick of the clock may look as before, so what was that young when somebody began to look at it
(`SETTLED`) is not remembered. Nobody needs this folder: what cannot be read or written here is found out again.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

SETTLED = 2_000_000_000
"""Nanoseconds that a file must have been left alone for, before it is told by its times; file servers have clocks of
their own."""
Stamp: TypeAlias = list[int]
"""Device, inode, kind and rights, size in bytes, and when content and anything else last changed, in nanoseconds."""


def stamp(path: str | Path) -> Stamp | None:
    """What tells a file, or a folder with the names in it, from what it was before; None where there is nothing."""
    try:
        found = os.stat(path)  # noqa: PTH116 (of a million files, a path each)
    except (OSError, ValueError):
        return None
    return [found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def settled(stamp: Stamp | None, began: int) -> bool:
    """Whether what had this stamp was left alone for a while when somebody began to look, by ``time.time_ns``."""
    return stamp is None or max(stamp[-2:]) < began - SETTLED


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path, how: Callable[[Path], str] = _sha256) -> str:
    """SHA-256 of a file's bytes, which are read if they may be others than the last time, as ``how`` reads them.

    Raises:
        OSError: a file that cannot be read.
    """
    name, began, before = named(os.fsdecode(path.absolute())), time.time_ns(), stamp(path)
    found = get("files", name)
    if before is not None and stat.S_ISREG(before[2]) and isinstance(found, list) and found[:1] == [before]:
        return str(found[-1])
    sha256 = how(path)
    if before is not None and settled(before, began) and stamp(path) == before:
        put("files", name, [before, sha256])
    return sha256


def digests(place: str, files: Iterable[tuple[str, str]], how: Callable[[str, str], str]) -> Iterator[tuple[str, str]]:
    """The same of many files, which are remembered together: name and SHA-256 of each.

    What is known lies in the order of the files, and is read and written beside them: nothing is kept in memory.

    Args:
        place: what they are all the files of.
        files: name and path of each, in the order of the names' bytes.
        how: reads one, given its name and its path.
    """
    began, path = time.time_ns(), Path(os.devnull, "nowhere")
    with suppress(RuntimeError):  # a user without a home
        path = _folder("folders") / named(place)
    with _Beside(path) as beside:
        for name, file in files:
            before = stamp(file)
            found = beside.entry(name)
            if before is not None and isinstance(found, list) and found[1:2] == [before]:
                beside.keep()
                yield name, str(found[-1])
                continue
            sha256 = how(name, file)
            if settled(before, began) and stamp(file) == before:
                beside.add([name, before, sha256])
            yield name, sha256


class _Beside:
    """A file of lines that is read and written anew at once; it is exchanged if a line has changed, at the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._written = path, path.with_name(f"{path.name}.{os.urandom(4).hex()}")
        self._old: BinaryIO | None = None
        self._new: BinaryIO | None = None
        self._line = b""
        self._entry: list[Any] | None = None
        self._kept = 0
        """Bytes at the beginning of the old file that are the new one's so far."""

    def __enter__(self) -> _Beside:
        with suppress(OSError, RuntimeError):
            self._old = self._path.open("rb")
        self._step()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._line:
            self._begin()  # the last files are gone
        for file in (self._old, self._new):
            if file:
                with suppress(OSError):
                    file.close()
        with suppress(OSError):
            if self._new and kind is None:
                self._written.replace(self._path)
            elif self._new:
                self._written.unlink()

    def entry(self, name: str) -> Any:
        """What is known of a file: the entries of those before it are passed over."""
        wanted = os.fsencode(name)
        while self._line and (self._entry is None or os.fsencode(self._entry[0]) < wanted):
            self._begin()
            self._step()
        return self._entry if self._entry is not None and self._entry[0] == name else None

    def keep(self) -> None:
        """The entry that was found stays."""
        if self._new:
            self._put(self._line)
        else:
            self._kept += len(self._line)
        self._step()

    def add(self, entry: list[object]) -> None:
        """A new entry, in the place of that of its name."""
        self._begin()
        self._put(json.dumps(entry).encode() + b"\n")

    def _step(self) -> None:
        self._line, self._entry = b"", None
        if self._old:
            with suppress(OSError):
                self._line = self._old.readline()
            with suppress(ValueError, RecursionError):
                found = json.loads(self._line)
                if isinstance(found, list) and len(found) == 3 and isinstance(found[0], str):
                    os.fsencode(found[0])
                    self._entry = found

    def _begin(self) -> None:
        """From here on something is another."""
        if self._new is None and self._kept >= 0:
            with suppress(OSError, RuntimeError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._new = self._written.open("wb")
                if self._kept:
                    with self._path.open("rb") as old:
                        left = self._kept
                        while left and (piece := old.read(min(left, 1 << 18))):
                            self._put(piece)
                            left -= len(piece)

    def _put(self, line: bytes) -> None:
        if self._new:
            try:
                self._new.write(line)
            except OSError:  # no room: what is known so far stays
                self._new.close()
                with suppress(OSError):
                    self._written.unlink()
                self._new, self._kept = None, -1


def named(*parts: str | bytes) -> str:
    """A name for what is told apart by all of these."""
    written = (part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in written)).hexdigest()[:32]


def get(kind: str, name: str) -> Any:
    """What was put there; None where nothing was, or it is gone."""
    try:
        return json.loads((_folder(kind) / name).read_bytes())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a user without a home; or what nests too deep
        return None


def put(kind: str, name: str, value: object) -> None:
    """Remember a JSON value, in place of the one that has this name; a cache that cannot be written stays as it is."""
    with suppress(OSError, RuntimeError):
        path = _folder(kind) / name
        written = path.with_name(f"{name}.{os.urandom(4).hex()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        written.write_bytes(json.dumps(value).encode())
        written.replace(path)


def sweep(before: float) -> None:
    """Forget what was not put here since, in seconds as ``time.time`` has them."""
    for kind in ("asked", "code", "files", "folders"):
        with suppress(OSError, RuntimeError):
            for entry in _folder(kind).iterdir():
                if entry.lstat().st_mtime < before:
                    entry.unlink()


def _folder(kind: str) -> Path:
    place = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (place if place.is_absolute() else Path("~/.cache").expanduser()) / "rnnlm" / kind
