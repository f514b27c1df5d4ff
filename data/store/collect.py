"""What a store may lose, and why: the sweeping that `rnnlm gc` and every night do."""

from __future__ import annotations

import logging
import re
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import StoreError
from data.store import cache, disk, locks
from data.store.artifact import Artifact, touched
from data.store.files import is_link, kind, settle
from data.store.removal import Removal, remove, size, stamp_of

if TYPE_CHECKING:
    from data.store.folder import Store

logger = logging.getLogger(__name__)

KEPT_DAYS = 30
KEPT_MODELS = 10
"""Of the models that were trained last, so many stay after a night, however old."""
KEPT_DAYS_FINISHED = 7
"""Of checkpoints whose training has ended: what they are good for is to train longer, and they are most of a store."""
_DAY = 86_400
_KEY = re.compile("[0-9a-f]{16}")
_BUILDING = re.compile("([a-z][a-z0-9_-]*-[0-9a-f]{16})-[0-9a-f]{8}(-aside)?")
_LOCK = re.compile("[a-z][a-z0-9_-]*-[0-9a-f]{16}")
_WRITTEN = re.compile(r"(champion\.json|index\.html|[a-z0-9-]+\.(json|jsonl|html|md|svg))\.new")


def collect(
    store: Store,
    *,
    finished: Collection[str] = (),
    newer: Collection[str] = (),
    dry_run: bool = False,
    days: float = KEPT_DAYS,
    keep: int = 0,
    checkpoints: bool = False,
    limit: float = inf,
    elsewhere: Collection[str] | None = None,
) -> list[Removal]:
    """Delete what nobody needs and return it; with ``dry_run`` only return it.

    That is, in this order: leftovers of runs that were killed; checkpoints of trainings that have ended, after a week
    or ``days``; damaged artifacts, and those that neither they nor anything made from them was used for ``days``; other
    checkpoints, reports of what is gone and locks that nobody holds, after as long. The champions of all names, the ten
    before each and the ``keep`` models that were trained last stay, with all that they were made from; where a folder
    cannot be read all that are sound; what a newer version of this program made, and whatever a store does not name
    like this. What is used while this looks, or is at work, is left alone; no model becomes the champion meanwhile.

    Args:
        store: where.
        finished: the names of folders of checkpoints whose trainings have ended.
        newer: the names of those that a newer version keeps, which stay.
        dry_run: whether to leave all of it.
        days: how long what is not used is kept.
        keep: how many of the models that were trained last stay, however old; a ``limit`` goes before that.
        checkpoints: whether those of ``finished`` go, however young.
        limit: bytes that the store may have. Above it what was used longest ago goes, too, checkpoints first, and of
            the last day nothing.
        elsewhere: the places of artifacts that are on the remote, for with one only these go beyond the limit.

    Raises:
        StoreError: a champion's record that cannot be read, so that nobody knows what to keep; a file system without
            locks.
    """
    with disk.told(store.root):
        _checked(store)  # which may take long, and is remembered: nobody needs to wait for it
        with nullcontext() if dry_run else _no_promotions(store):
            # Before anything is decided: what is another one by the time that it is to go was used meanwhile.
            before = {path: stamp_of(path) for name in (*store.stages(), "checkpoints") for path in store.folders(name)}
            removals = _unneeded(store, finished, newer, days, keep, checkpoints, limit, elsewhere)
            if dry_run:
                return removals
            _settled(store)
            cache.sweep(time.time() - KEPT_DAYS * _DAY)
            return [remove(store, one, before.get(one.folder, ())) for one in removals]


def _settled(store: Store) -> None:
    """Wait until the disk has what this went by, which a process that was killed may not have waited for: or a power
    cut would bring back a champion whose model is gone."""
    for name in ("", "champions", *store.stages()):
        with suppress(FileNotFoundError):
            settle(store.root / name, store.root)


@contextmanager
def _no_promotions(store: Store) -> Iterator[None]:
    """While this holds, no model becomes the champion."""
    with ExitStack() as stack:
        try:
            stack.enter_context(store.lock("champion", "", _waiting))
        except StoreError as error:
            # A disk without room for the file of a lock has none for a promotion's either, and is what this is for.
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in disk.FULL:
                raise
        yield


def _waiting() -> None:
    logger.info("another process is changing the champion; waiting for it")


def _unneeded(
    store: Store,
    finished: Collection[str],
    newer: Collection[str],
    days: float,
    keep: int,
    checkpoints: bool,
    limit: float,
    elsewhere: Collection[str] | None,
) -> list[Removal]:
    """What is to go, in this order."""
    from data.store import champions  # slow to load

    pinned = champions.pinned(store)
    oldest = time.time() - days * _DAY
    unused = f"not used for {days:g} days"
    sound, damaged = _checked(store)
    models = [artifact.manifest for artifact in sound.values() if artifact.manifest.stage == champions.STAGE]
    latest = [one.key for one in sorted(models, key=lambda one: one.created, reverse=True)[:keep]]
    needed = _needed(sound, -inf if store.unread else min([oldest, *_begun(store)]), {*pinned, *latest})
    told = {folder.name for folder in needed | store.unread}
    oldest_finished = time.time() - min(days, KEPT_DAYS_FINISHED) * _DAY if not checkpoints else inf
    ended = [folder for folder in _checkpoints(store, oldest_finished, newer) if folder.name in finished]
    unneeded = [
        *((path, "left by a run that was killed") for path in _leftovers(store)),
        *((folder, "checkpoints of a training that has ended") for folder in ended),
        *damaged,
        *((artifact.folder, unused) for artifact in sound.values() if artifact.folder not in needed),
        *((folder, unused) for folder in _checkpoints(store, oldest, newer) if folder not in ended),
        *((path, "a report of what is gone") for path in _reports(store, told, oldest)),
        *((path, "a lock that nobody holds") for path in _locks(store, oldest)),
    ]
    seen: Counter[tuple[int, int]] = Counter()
    removals = [Removal(path, reason, size(path, seen)) for path, reason in unneeded if _own(store, path)]
    if limit < inf:
        kept = _needed(sound, -inf if store.unread else min([time.time() - _DAY, *_begun(store)]), pinned)
        spare = [artifact for artifact in sound.values() if artifact.folder not in kept and artifact.folder in needed]
        spare = [one for one in spare if elsewhere is None or one.place in elsewhere]
        oldest_first = [
            *(folder for folder in _checkpoints(store, inf, newer) if folder.name in finished and folder not in ended),
            *(artifact.folder for artifact in sorted(spare, key=lambda artifact: artifact.used)),
        ]
        removals += _beyond(store, limit, removals, oldest_first, seen)
    return removals


def _beyond(
    store: Store, limit: float, before: list[Removal], oldest_first: list[Path], seen: Counter[tuple[int, int]]
) -> Iterator[Removal]:
    """What has to go beside others, so that the store is no larger than this."""
    left = size(store.root, Counter()) - sum(removal.bytes for removal in before)
    for path in oldest_first:
        if left <= limit:
            return
        one = Removal(path, "used longest ago, and the store is too large", size(path, seen))
        left -= one.bytes
        yield one


def _own(store: Store, path: Path) -> bool:
    """Whether it lies in the store itself, and not where a link leads from there."""
    return path.parent == store.root or not is_link(path.parent)


def _leftovers(store: Store) -> Iterator[Path]:
    for folder in store.folders("tmp"):
        if _BUILDING.fullmatch(folder.name) and (is_link(folder) or locks.free(folder)):
            yield folder
    for name in ("", "champions", "nights", "reports"):
        for path in store.entries(name):
            if _WRITTEN.fullmatch(path.name):
                what = kind(path)
                if stat.S_ISLNK(what) or (stat.S_ISREG(what) and locks.free(path)):
                    yield path


def _checked(store: Store) -> tuple[dict[tuple[str, str], Artifact], list[tuple[Path, str]]]:
    """The sound artifacts by stage and key, and the folders of the others with what is wrong with them."""
    sound: dict[tuple[str, str], Artifact] = {}
    damaged: list[tuple[Path, str]] = []
    for folder, artifact in store.published():
        if artifact is None:
            damaged.append((folder, "its manifest cannot be read"))
        elif damage := store.damage(artifact):
            damaged.append((folder, damage))
        else:
            sound[artifact.manifest.stage, artifact.manifest.key] = artifact
    return sound, [(folder, damage) for folder, damage in damaged if folder not in store.unread]


def _needed(sound: Mapping[tuple[str, str], Artifact], oldest: float, pinned: Collection[str]) -> set[Path]:
    """The folders of artifacts that are in use, were used since ``oldest`` or are pinned, and of what those were made
    from."""

    def stays(artifact: Artifact) -> bool:
        folder = artifact.folder
        in_use = not (is_link(folder) or locks.free(folder))
        return in_use or artifact.used >= oldest or artifact.manifest.key in pinned

    needed: set[Path] = set()
    waiting = [which for which, artifact in sound.items() if stays(artifact)]
    while waiting:
        artifact = sound.get(waiting.pop())
        if artifact is not None and artifact.folder not in needed:
            needed.add(artifact.folder)
            waiting.extend(artifact.manifest.parents.items())
    return needed


def _begun(store: Store) -> Iterator[float]:
    """A day before each stage that is at work began: what it reads was used since."""
    for folder in store.folders("tmp"):
        if (building := _BUILDING.fullmatch(folder.name)) and not locks.free(folder):
            yield touched(store.root / "locks" / building[1]) - _DAY


def _checkpoints(store: Store, before: float, newer: Collection[str]) -> Iterator[Path]:
    """Folders of checkpoints that were not touched since, but for a newer version's."""
    for folder in store.folders("checkpoints"):
        if _KEY.fullmatch(folder.name) and folder.name not in newer:
            last = max(map(touched, (folder, *store.entries(f"checkpoints/{folder.name}"))))
            if last < before:
                yield folder


def _reports(store: Store, needed: Collection[str], oldest: float) -> Iterator[Path]:
    """Files of reports that no artifact stands behind and no page of the nights leads to."""
    from data.store import nights

    linked = nights.pages(store)
    for path in store.entries("reports"):
        kept = path.stem in needed or f"reports/{path.stem}.html" in linked
        if _KEY.fullmatch(path.stem) and not kept and touched(path) < oldest:
            yield path


def _locks(store: Store, oldest: float) -> Iterator[Path]:
    for path in store.entries("locks"):
        if _LOCK.fullmatch(path.name) and touched(path) < oldest and (is_link(path) or locks.free(path)):
            yield path
