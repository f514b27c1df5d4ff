"""A remote: the mirror of a store that machines share, and the four verbs that it knows.

    <address>/<stage>/<16 digits of the key>/manifest.json
    <address>/<stage>/<16 digits of the key>/<16 digits of its SHA-256>-<file>
    <address>/champions/<name>.json

`find` reads a manifest, `pull` brings the files that it promises, and looks whether they are those; `push` sends files
first and the manifest last, which is created only where there is none; and `swap`, which is that of its `Objects`,
changes an object that nobody else has changed. So whatever is killed in the middle, a reader sees all of an entry or
nothing, and whoever loses a race knows it.

There is no lease. Two machines that miss the same key both work; the manifest that comes first is the entry, and the
other one takes that for its own. What that wastes is minutes of a small model's training, and rarely; a lease would
need a holder that renews it while it trains, and one that was killed would keep everybody else waiting.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from data.errors import DeniedError, FormatError, RemoteError
from data.store import disk, reading
from data.store.artifact import MANIFEST, parse
from data.store.files import created
from data.store.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from data.store.artifact import Artifact
    from data.store.manifest import Manifest
    from data.store.objects import Tag

logger = logging.getLogger(__name__)

PIECE = 1 << 23
"""Bytes of a file that are asked for at a time."""


def named(address: str | None) -> Remote | None:
    """The remote at this address, else at ``$RNNLM_REMOTE``, else none; nothing is sent where ``$RNNLM_PULL_ONLY`` is
    set.

    Raises:
        ConfigError: an address that is none.
    """
    place = os.environ.get("RNNLM_REMOTE") if address is None else address
    return Remote(place, pull_only=bool(os.environ.get("RNNLM_PULL_ONLY"))) if place else None


class Entry(NamedTuple):
    """An artifact of a remote, its files unseen."""

    manifest: Manifest | None
    """None where what lies in its place is no such."""
    content: bytes
    tag: Tag


class Remote:
    """Artifacts below one address, and the champions' records.

    Args:
        address: ``s3://bucket/prefix``, ``gs://…`` or ``az://…``.
        pull_only: nothing is to be written there.

    Raises:
        ConfigError: an address that is none.
    """

    def __init__(self, address: str, *, pull_only: bool = False) -> None:
        self.objects = Objects(address)
        self.address = self.objects.address
        self.writes = not pull_only
        """Whether anything is written there: not once that was denied."""
        self.answers = True
        """Whether it is asked at all: not once it did not answer."""
        self.spoilt: dict[tuple[str, str], Tag] = {}
        """Entries that are not what they promise, by stage and key: to be replaced, if nobody else does."""

    def find(self, stage: str, key: str) -> Entry | None:
        """The entry of a key; None where there is none.

        Raises:
            RemoteError: as all of these verbs, a service that does not answer, or does not let us.
        """
        found = self.objects.read(f"{_folder(stage, key)}/{MANIFEST}")
        if found is None:
            return None
        try:
            manifest = parse(found.content, f"{self.address}/{_folder(stage, key)}/{MANIFEST}")
        except FormatError as error:
            raise RemoteError(str(error)) from None
        true = manifest is not None and (manifest.stage, manifest.key) == (stage, key)
        return Entry(manifest if true else None, found.content, found.tag)

    def pull(self, manifest: Manifest, folder: Path) -> str:
        """Bring the files of an entry into an empty folder.

        Returns:
            What is wrong with them in a few words; empty where nothing is.
        """
        for name, output in manifest.outputs.items():
            place = f"{_folder(manifest.stage, manifest.key)}/{stored(name, output.sha256)}"
            digest = hashlib.sha256()
            with created(folder / name) as write:
                for start in range(0, output.bytes, PIECE):
                    stop = min(start + PIECE, output.bytes)
                    piece = self.objects.piece(place, start, stop)
                    if piece is None:
                        return f"{name} is missing, or ends early"
                    digest.update(piece)
                    write(piece)
            if digest.hexdigest() != output.sha256:
                return f"the content of {name} is not what was published"
        return ""

    def push(self, artifact: Artifact, over: Tag | None = None) -> Entry | None:
        """Send an artifact, which is sound.

        Args:
            artifact: of the local store.
            over: the entry to replace; None creates one.

        Returns:
            The entry that stands there instead, since another machine was faster; None where it is this one.
        """
        stage, key = artifact.manifest.stage, artifact.manifest.key
        if over is None and (found := self.find(stage, key)):
            return found
        for name, output in artifact.manifest.outputs.items():
            place = f"{_folder(stage, key)}/{stored(name, output.sha256)}"
            with disk.told(artifact.folder.parents[1]), reading.opened(artifact.folder / name) as file:
                self.objects.put(place, file)
        with disk.told(artifact.folder.parents[1]):
            content = reading.read(artifact.folder / MANIFEST)
        while not self.objects.swap(f"{_folder(stage, key)}/{MANIFEST}", content, over):
            if found := self.find(stage, key):
                return found
            over = None  # what was there has gone meanwhile
        return None

    def touch(self, entry: Entry) -> None:
        """Note that an entry is in use, by which its age is counted anew; who may not write there need not."""
        if entry.manifest and self.writes:
            place = f"{_folder(entry.manifest.stage, entry.manifest.key)}/{MANIFEST}"
            with suppress(DeniedError):
                self.objects.swap(place, entry.content, entry.tag)

    def places(self) -> set[str]:
        """Where it has entries: ``train/0123456789abcdef``."""
        return {
            one.name.removesuffix(f"/{MANIFEST}") for one in self.objects.listed() if one.name.endswith(f"/{MANIFEST}")
        }

    def at(self, place: str) -> Manifest | None:
        """The manifest of a place; None where there is none that can be read.

        Raises:
            FormatError: a newer version's.
        """
        found = self.objects.read(f"{place}/{MANIFEST}")
        manifest = parse(found.content, f"{self.address}/{place}/{MANIFEST}") if found else None
        return manifest if manifest and _folder(manifest.stage, manifest.key) == place else None

    @contextmanager
    def spared(self) -> Iterator[None]:
        """Go on without the remote where it fails, and say so once."""
        try:
            yield
        except DeniedError as error:
            if self.writes:
                logger.warning("%s: going on, and nothing is sent there", error)
            self.writes = False
        except RemoteError as error:
            if self.answers:
                logger.warning("%s: going on with the local store; `rnnlm push` makes up for it", error)
            self.answers = False


def _folder(stage: str, key: str) -> str:
    return f"{stage}/{key[:16]}"


def stored(name: str, sha256: str) -> str:
    """What a file of an entry is called there: another content has another name, and never takes its place."""
    return f"{sha256[:16]}-{name}"
