"""Commands about what machines share: send what is here, and bring what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from data.errors import ConfigError, RemoteError
from data.shown import line
from stages.cli.options import Place, configured

if TYPE_CHECKING:
    from data.store.folder import Store
    from data.store.remote import Remote


@configured
def push(place: Place) -> None:
    """Send to the remote what it does not have.

    That is every sound artifact of the store, and the champions of names that have none there. A run sends what it has
    made itself: this makes up for those that could not, and for a store that had no remote.
    """
    from data.store import champions, mirror, reigns
    from stages.report import words

    store, remote = _opened(place)
    if not remote.writes:
        raise ConfigError("RNNLM_PULL_ONLY is set, so that nothing is sent to the remote: unset it")
    there = remote.places()
    sent = 0
    for artifact in reversed(store.artifacts()):  # what others are made from comes first
        which = artifact.manifest.stage, artifact.manifest.key
        if artifact.place in there or store.damage(artifact, again=True):
            continue
        mirror.share(store, *which)
        sent += artifact.bytes
        print(f"{artifact.place}  {words.size(artifact.bytes)}")
    for name in reigns.names(store):
        if champions.publish(store, name):
            print(f"champion  {name}")
    print(f"sent {words.size(sent)} to {remote.address}")


@configured
def pull(
    *,
    every: Annotated[bool, typer.Option("--all", help="All that the remote has.")] = False,
    place: Place,
) -> None:
    """Bring from the remote the champions, with all that they were made from.

    Afterwards `rnnlm sample` needs no network. A run brings what it needs by itself.
    """
    from data.store import champions, mirror, reigns
    from stages.report import words

    store, remote = _opened(place)
    current = (champions.current(store, name) for name in reigns.names(store))
    waiting = [(champions.STAGE, reign.model) for reign in current if reign]
    if every:
        manifests = filter(None, map(remote.at, sorted(remote.places())))
        waiting += [(manifest.stage, manifest.key) for manifest in manifests]
    brought = 0
    seen = set(waiting)
    for which in waiting:  # which grows as manifests are read
        here = store.find(*which)
        artifact, damage = mirror.obtain(store, *which)
        if artifact is None or damage:
            print(f"{line(which[0])}/{which[1][:16]}  {damage}")
            continue
        if here is None or artifact.manifest.created != here.manifest.created:
            brought += artifact.bytes
            print(f"{artifact.place}  {words.size(artifact.bytes)}")
        more = [parent for parent in artifact.manifest.parents.items() if parent not in seen]
        waiting += more
        seen.update(more)
    if not remote.answers:
        raise RemoteError(f"the remote {remote.address} does not answer: pull again when it does")
    print(f"brought {words.size(brought)} from {remote.address}")


def _opened(place: Place) -> tuple[Store, Remote]:
    store = place.open()
    if store.remote is None:
        raise ConfigError("there is no remote: name one with --remote or RNNLM_REMOTE")
    return store, store.remote
