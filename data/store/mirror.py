"""What a store and its remote have of each other: what one misses is brought from there, what it has made is sent."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from data.errors import StoreError
from data.store.artifact import Artifact

if TYPE_CHECKING:
    from data.store.folder import Store
    from data.store.remote import Remote

logger = logging.getLogger(__name__)

RESTED = 43_200
"""Seconds after its last use here from which on the use of an artifact is noted on the remote, too: half of the day
that nothing in use is collected for."""


def obtain(store: Store, stage: str, key: str) -> tuple[Artifact | None, str]:
    """The artifact with this key, from the remote where none is here that is sound; and what is wrong with it in a few
    words, empty where nothing is."""
    here = store.find(stage, key)
    damage = "it is gone" if here is None else store.damage(here, again=True)
    if damage and (brought := bring(store, stage, key)):
        return brought, ""
    return here, damage or ""


def bring(store: Store, stage: str, key: str) -> Artifact | None:
    """Bring an artifact from the remote into the store; None where it has none that is sound, or does not answer."""
    remote = store.remote
    if remote is None or not remote.answers:
        return None
    with remote.spared():
        entry = remote.find(stage, key)
        if entry is None:
            return None
        wrong = "its manifest cannot be read"
        if entry.manifest is not None:
            with store.building(stage, key) as folder:
                wrong = remote.pull(entry.manifest, folder)
                if not wrong:
                    artifact = store.publish(folder, entry.manifest)
                    with remote.spared():
                        remote.touch(entry)
                    return artifact
        remote.spoilt[stage, key] = entry.tag
        logger.warning(
            "%s: the entry %s of the remote %s is damaged (%s) and is not used", stage, key[:16], remote.address, wrong
        )
    return None


def promised(store: Store, stage: str, key: str) -> Artifact | None:
    """The artifact that `bring` would bring, as its manifest has it, without its files; None where there is no such."""
    remote = store.remote
    if remote is None or not remote.answers:
        return None
    with remote.spared():
        entry = remote.find(stage, key)
        return Artifact(store.folder(stage, key), entry.manifest) if entry and entry.manifest else None
    return None


def send(store: Store, artifact: Artifact, *, instead: bool = False) -> Artifact:
    """Send an artifact to the remote, as far as that can be had.

    Args:
        store: where it lies.
        artifact: which was just made.
        instead: replace what another machine has sent, and not only what is damaged.

    Returns:
        The artifact to go on with: another machine's, where that has sent one of the same key and other bytes before,
        for what is made of it here has to go with what is made of it there.
    """
    remote = store.remote
    if remote is None or not (remote.answers and remote.writes):
        return artifact
    with remote.spared():
        return _agreed(store, remote, artifact, instead=instead)
    return artifact


def share(store: Store, stage: str, key: str) -> None:
    """See that the remote, if there is one, has an artifact and, as far as they are here, all that it was made from.

    Raises:
        StoreError: it is neither here nor there, or one of them cannot be read.
        RemoteError: it does not take them.
    """
    remote, waiting = store.remote, [(stage, key)]
    while remote is not None and waiting:
        which = waiting.pop()
        artifact = store.find(*which)
        if artifact is not None:
            _agreed(store, remote, artifact, instead=False)
            waiting.extend(artifact.manifest.parents.items())
        elif (which == (stage, key) or store.folder(*which) in store.unread) and remote.find(*which) is None:
            raise StoreError(
                f"{store.folder(*which)} is gone or cannot be read, and the remote {remote.address} does not have it: "
                "make it readable, or run again"
            )


def _agreed(store: Store, remote: Remote, artifact: Artifact, *, instead: bool) -> Artifact:
    """Send an artifact; what stands there in the end, as it lies here."""
    stage, key = artifact.manifest.stage, artifact.manifest.key
    over = remote.spoilt.pop((stage, key), None)
    if instead and over is None and (found := remote.find(stage, key)):
        over = found.tag
    theirs = remote.push(artifact, over)
    if theirs is None or (theirs.manifest and theirs.manifest.outputs == artifact.manifest.outputs):
        return artifact
    if brought := bring(store, stage, key):
        logger.info("%s: another machine was first with %s, and its artifact is taken", stage, key[:16])
        return brought
    remote.push(artifact, remote.spoilt.pop((stage, key), None))
    return artifact


def used(store: Store, artifact: Artifact) -> bool:
    """Note that an artifact was used, here and, now and then, on the remote; whether it is still here."""
    remote, rested = store.remote, time.time() - artifact.used > RESTED
    if not store.touch(artifact):
        return False
    if remote is not None and rested and remote.answers and remote.writes:
        with remote.spared():
            if entry := remote.find(artifact.manifest.stage, artifact.manifest.key):
                remote.touch(entry)
    return True
