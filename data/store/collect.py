"""What a store may lose, and why: the sweeping that `rnnlm gc` and every night do."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data.store.artifact import Artifact, touched

if TYPE_CHECKING:
    from data.store.folder import Store

KEPT_DAYS = 30
_KEY = re.compile("[0-9a-f]{16}")
_BUILDING = re.compile("[a-z]+-[0-9a-f]{16}-[0-9a-f]{8}(-aside)?")


class Removal(NamedTuple):
    """A folder that nobody needs."""

    folder: Path
    reason: str
    bytes: int


def collect(
    store: Store, *, pinned: Collection[str] = (), dry_run: bool = False, days: float = KEPT_DAYS
) -> list[Removal]:
    """Delete what nobody needs and return it; with ``dry_run`` only return it.

    That is leftovers of runs that were killed, damaged artifacts, artifacts that neither they nor anything made from
    them was used for ``days``, and checkpoints untouched for as long. Artifacts with a ``pinned`` key and what they
    were made from stay, and so does whatever a store does not name like this.
    """
    oldest = time.time() - days * 86_400
    unused = f"not used for {days:g} days"
    sound, damaged = _checked(store)
    needed = _needed(sound, oldest, pinned)
    unneeded = [
        *((folder, "left by a run that was killed") for folder in _leftovers(store)),
        *damaged,
        *((artifact.folder, unused) for artifact in sound.values() if artifact.folder not in needed),
        *((folder, unused) for folder in _old_checkpoints(store, oldest)),
    ]
    removals = [Removal(folder, reason, _size(folder)) for folder, reason in unneeded]
    if not dry_run:
        for removal in removals:
            shutil.rmtree(removal.folder, ignore_errors=True)
    return removals


def _leftovers(store: Store) -> Iterator[Path]:
    for folder in store.folders("tmp"):
        if _BUILDING.fullmatch(folder.name) and not _in_use(folder):
            yield folder


def _checked(store: Store) -> tuple[dict[tuple[str, str], Artifact], list[tuple[Path, str]]]:
    """The sound artifacts by stage and key, and the folders of the others with what is wrong with them."""
    sound: dict[tuple[str, str], Artifact] = {}
    damaged: list[tuple[Path, str]] = []
    for stage in store.stages():
        for folder in store.folders(stage):
            if not _KEY.fullmatch(folder.name):
                continue
            artifact = Artifact.read(folder)
            if artifact is None:
                damaged.append((folder, "its manifest cannot be read"))
            elif damage := store.damage(artifact):
                damaged.append((folder, damage))
            else:
                sound[stage, artifact.manifest.key] = artifact
    return sound, damaged


def _needed(sound: Mapping[tuple[str, str], Artifact], oldest: float, pinned: Collection[str]) -> set[Path]:
    """The folders of artifacts that were used since ``oldest`` or are pinned, and of all that they were made from."""
    needed: set[Path] = set()
    waiting = [which for which, artifact in sound.items() if artifact.used >= oldest or which[1] in pinned]
    while waiting:
        artifact = sound.get(waiting.pop())
        if artifact is not None and artifact.folder not in needed:
            needed.add(artifact.folder)
            waiting.extend(artifact.manifest.parents.items())
    return needed


def _old_checkpoints(store: Store, oldest: float) -> Iterator[Path]:
    for folder in store.folders("checkpoints"):
        if _KEY.fullmatch(folder.name) and max(map(touched, (folder, *folder.iterdir()))) < oldest:
            yield folder


def _in_use(folder: Path) -> bool:
    """Whether a living process holds the folder that it builds in; see `Store.building`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size
