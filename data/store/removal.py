"""Removing what nobody needs from a store, unless somebody uses it by now."""

from __future__ import annotations

import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from data.store import kernel, locks
from data.store.files import is_link, kind, make

if TYPE_CHECKING:
    from data.store.folder import Store

Stamp: TypeAlias = tuple[tuple[int, int], ...]
"""Inode and time of the last change, in nanoseconds."""
_USED = "a process is using it"


class Removal(NamedTuple):
    """What nobody needs: a folder, a file or a link."""

    folder: Path
    reason: str
    bytes: int
    """What its removal frees: 0 of a link, and of a file that has another name elsewhere."""
    fault: str = ""
    """Why it is there still, in a few words; empty where it is gone."""


def stamp_of(path: Path) -> Stamp:
    """What tells a file, or a folder with all in it, from what it was before and from one that was used since."""
    found = []
    with suppress(OSError):
        looked = kernel.lstat(path)
        names = sorted(kernel.listdir(path)) if stat.S_ISDIR(looked.st_mode) else []
        found = [looked, *(kernel.lstat(path / name) for name in names)]
    return tuple((one.st_ino, one.st_mtime_ns) for one in found)


def remove(store: Store, removal: Removal, stamp: Stamp) -> Removal:
    """Remove it, and say what that has freed."""
    path = removal.folder
    try:
        fault = _try(store, path, stamp)
    except FileNotFoundError:
        return removal
    except OSError as error:
        fault = error.strerror or type(error).__name__
    if not fault:
        return removal
    return removal._replace(bytes=max(removal.bytes - size(path, Counter()), 0), fault=fault)


def _try(store: Store, path: Path, stamp: Stamp) -> str:
    """Remove something unless it is in use, or was since; why it was left, empty where it is gone.

    Raises:
        OSError: it is gone already, or cannot be removed.
    """
    where = path.parent.relative_to(store.root).as_posix()
    if is_link(path):
        kernel.unlink(path)
    elif where in ("tmp", "locks") or path.suffix == ".new":
        with locks.alone(path) as free:
            if not free:
                return _USED
            _remove(path)
    elif where == "reports":
        with store.alone(f"reports-{path.stem}") as free:
            if not free or any(kind(store.root / stage / path.stem) for stage in store.stages()):
                return _USED  # it is a report of what was made again
            _remove(path)
            kernel.unlink(store.root / "locks" / f"reports-{path.stem}")
    else:
        with store.alone(f"{where}-{path.name}") as free:
            if not free or stamp_of(path) != stamp:
                return _USED
            if where == "checkpoints":
                _remove(path)
            elif fault := _take_away(store, path, stamp):
                return fault
            kernel.unlink(store.root / "locks" / f"{where}-{path.name}")
    return ""


def _take_away(store: Store, folder: Path, stamp: Stamp) -> str:
    """Remove an artifact at once: whoever looks finds all of it, or none."""
    make(store.own("tmp"))
    aside = store.aside(folder.parent.name, folder.name)
    with locks.alone(folder) as free:
        if not free:
            return _USED
        kernel.rename(folder, aside)
    if stamp_of(aside) != stamp:  # somebody has come between
        kernel.rename(aside, folder)
        return _USED
    _remove(aside)
    return ""


def _remove(path: Path) -> None:
    if not stat.S_ISDIR(kind(path)):
        kernel.unlink(path)
        return
    kernel.rmtree(path, ignore_errors=True)
    if kind(path):
        kernel.rmtree(path)  # what is left says why


def size(path: Path, seen: Counter[tuple[int, int]]) -> int:
    """Bytes that are gone with a file, or with all that a folder holds; of a file with several names with the last."""
    size, waiting = 0, [path]
    while waiting:
        path = waiting.pop()
        with suppress(OSError):
            found = kernel.lstat(path)
            if stat.S_ISDIR(found.st_mode):
                waiting += [path / name for name in kernel.listdir(path)]
            elif not stat.S_ISLNK(found.st_mode):
                seen[found.st_dev, found.st_ino] += 1
                size += found.st_size if seen[found.st_dev, found.st_ino] >= found.st_nlink else 0
    return size
