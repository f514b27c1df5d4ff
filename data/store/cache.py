"""The user's cache: what took long to find out, for as long as nothing that it was found from has changed.

    ~/.cache/rnnlm/<kind>/<name>     (or below $XDG_CACHE_HOME), a JSON value each

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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

SETTLED = 2_000_000_000
"""Nanoseconds that a file must have been left alone for, before it is told by its times; file servers have clocks of
their own."""
Stamp: TypeAlias = list[int]
"""Device, inode, kind and rights, size in bytes, and when content and anything else last changed, in nanoseconds."""


def stamp(path: str | Path) -> Stamp | None:
    """What tells a file, or a folder with the names in it, from what it was before; None where there is nothing."""
    try:
        found = Path(path).stat()
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
    for kind in ("asked", "code", "files"):
        with suppress(OSError, RuntimeError):
            for entry in _folder(kind).iterdir():
                if entry.lstat().st_mtime < before:
                    entry.unlink()


def _folder(kind: str) -> Path:
    place = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (place if place.is_absolute() else Path("~/.cache").expanduser()) / "rnnlm" / kind
