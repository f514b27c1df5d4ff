"""What a remote may lose, and why: what nobody has used, on any machine, and what a killed push left.

Ages are by the service's own clock. A run that is at work has used all that it reads within the last day, and using is
written down there as a new age; so nothing younger than a day goes, nor what that was made from.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from data.store import champions, reigns
from data.store.artifact import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from data.store.folder import Store
    from data.store.manifest import Manifest
    from data.store.objects import Listed
    from data.store.remote import Remote

DAY = timedelta(days=1)


class Pruned(NamedTuple):
    """What nobody needs of a remote."""

    place: str
    reason: str
    bytes: int


def prune(store: Store, remote: Remote, *, days: float, dry_run: bool) -> list[Pruned]:
    """Delete what nobody needs of a remote and return it; with ``dry_run`` only return it.

    That is entries that neither they nor anything made from them was used for ``days``, or a day at least, and files
    that no manifest names, of a push that was killed for one. Champions of all names, the last before them and all that
    these were made from stay, and an entry whose manifest cannot be read, which the next run that needs it replaces.

    Raises:
        StoreError: a champion's record that cannot be read, or an entry of a newer version, so that nobody knows what
            to keep.
        RemoteError: it does not answer, or lets nothing be deleted.
    """
    folders: dict[str, dict[str, Listed]] = {}
    for one in remote.objects.listed():
        place, _, name = one.name.rpartition("/")
        if place.count("/") == 1 and place.partition("/")[0] != reigns.FOLDER:
            folders.setdefault(place, {})[name] = one
    now = remote.objects.now()
    oldest = now - max(timedelta(days=min(days, 36_500)), DAY)
    manifests = {place: remote.at(place) for place, files in folders.items() if MANIFEST in files}
    needed = _needed(manifests, {place for place in manifests if folders[place][MANIFEST].changed >= oldest}, store)
    pruned = []
    for place, files in sorted(folders.items()):
        manifest = manifests.get(place)
        if place in manifests and manifest is None:
            continue
        if place in manifests and place not in needed:
            names, reason = {*files}, f"not used for {max(days, 1):g} days"
        else:
            names, reason = {*files} - _promised(manifest), "files that no manifest names"
            names = {name for name in names if files[name].changed < now - DAY}
        if names:
            pruned.append(Pruned(place, reason, sum(files[name].bytes for name in names)))
            if not dry_run:
                _delete(remote, place, names, now - DAY)
    return pruned


def _needed(manifests: dict[str, Manifest | None], recent: set[str], store: Store) -> set[str]:
    """The places of entries that were used, or are champions, and of all that they were made from."""
    standing = champions.pinned(store)
    pinned = {place for place, manifest in manifests.items() if manifest and manifest.key in standing}
    needed: set[str] = set()
    waiting = [*recent, *pinned]
    while waiting:
        place = waiting.pop()
        if place not in needed:
            needed.add(place)
            manifest = manifests.get(place)
            waiting += [f"{stage}/{key[:16]}" for stage, key in manifest.parents.items()] if manifest else []
    return needed


def _promised(manifest: Manifest | None) -> set[str]:
    from data.store.remote import stored

    if manifest is None:
        return set()
    return {MANIFEST, *(stored(name, output.sha256) for name, output in manifest.outputs.items())}


def _delete(remote: Remote, place: str, names: Iterable[str], before: datetime) -> None:
    """Delete files of an entry, its manifest first, so that nobody finds half of it; those that were changed meanwhile
    stay, for somebody is sending or using it."""
    again = {one.name.rpartition("/")[2]: one for one in remote.objects.listed(f"{place}/")}
    if MANIFEST in names and (MANIFEST not in again or again[MANIFEST].changed >= before):
        return
    gone = sorted((name for name in names if name in again and again[name].changed < before), key=MANIFEST.__ne__)
    remote.objects.delete([f"{place}/{name}" for name in gone])
