"""The store, a folder of content-addressed artifacts: find, lock, build, publish, verify.

    <store>/<stage>/<first 16 digits of the key>/   manifest.json and the stage's files
    <store>/checkpoints/<identity>/                 unfinished (and finished, resumable) training
    <store>/champion.json, champions/, nights/      who is champion, and what each night decided
    <store>/index.html, reports/                    a page of the nights, and one per run with what belongs to it
    <store>/tmp/, <store>/locks/                    work in progress

An artifact is built in ``tmp`` on the same file system, synced, and renamed into place with its manifest inside, so
that a reader sees all of it or nothing. What a manifest promises is checked before a content is used; whether an
artifact is there to be reused goes by what was found of these very files before.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import FormatError, StoreError
from data.store import cache, disk, kernel, locks, place, reading
from data.store.artifact import MANIFEST, Artifact
from data.store.files import created, is_link, kind, make, move, settle, sync

if TYPE_CHECKING:
    from data.store.manifest import Manifest
    from data.store.remote import Remote

logger = logging.getLogger(__name__)

_KEY = re.compile("[0-9a-f]{16}")
_OTHER_FOLDERS = ("tmp", "locks", "checkpoints", "reports", "champions", "nights")


def open_store(folder: str | None, remote: str | None = None) -> Store:
    """The store in this folder, else where `place.folder` finds it.

    Args:
        folder: where artifacts live.
        remote: the address of the remote behind it, else that in ``$RNNLM_REMOTE``, else none; nothing is sent there
            where ``$RNNLM_PULL_ONLY`` is set.

    Raises:
        ConfigError: an address in a folder's place, or what cannot be a folder or a remote.
        StoreError: the name of a file.
    """
    root = place.folder(folder)
    if not (os.environ.get("RNNLM_REMOTE") if remote is None else remote):
        return Store(root)

    from data.store.remote import named

    return Store(root, named(remote))


class Store:
    """Artifacts below one folder, shared by any number of processes of one machine, and behind it a remote or none."""

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.root = root
        self.remote = remote
        self._verified: set[tuple[Path, str]] = set()
        self._warned: set[Path] = set()
        self.unread: set[Path] = set()
        """Folders that could not be read, or only by a newer version: nobody knows what lies there, and what that was
        made from."""

    def folder(self, stage: str, key: str) -> Path:
        """Where the artifact with this key lies, or would lie."""
        return self.root / stage / key[:16]

    def folders(self, name: str = "") -> list[Path]:
        """The folders in the store's folder ``name``, or in the store itself, by name; none where it has no such."""
        return [path for path in self.entries(name) if self._leads_on(path)]

    def _leads_on(self, path: Path) -> bool:
        """Whether it is a folder, or leads to one."""
        try:
            return stat.S_ISDIR(kernel.stat(path).st_mode)
        except OSError as error:
            if error.errno not in reading.NONE_THERE:
                self._pass_over(path, error)
            return False

    def entries(self, name: str = "") -> list[Path]:
        """All that lies in the store's folder ``name``; nothing where it has no such, or with a warning none that can
        be read."""
        folder = self.root / name
        try:
            return [folder / entry for entry in sorted(kernel.listdir(folder))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._pass_over(folder, error)
            return []

    def own(self, *names: str) -> Path:
        """A place to write at, for nothing is written through a link that lies in the store.

        Raises:
            StoreError: a link on the way there.
        """
        path = self.root
        for name in names:
            path = path / name
            with disk.told(self.root):
                link = is_link(path)
            if link:
                raise StoreError(
                    f"{path} is a link, and nothing is written through one: put a folder there, or name another store "
                    "with --store or RNNLM_STORE"
                )
        return path

    def stages(self) -> list[str]:
        """The names of the stages that have a folder here."""
        return [folder.name for folder in self.folders() if folder.name not in _OTHER_FOLDERS]

    def checkpoints(self, identity: str) -> Path:
        """Where a training run with this identity keeps its checkpoints; see `own`."""
        return self.own("checkpoints", identity[:16])

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact with this key, unverified; None when there is none or its manifest cannot be read, of which a
        warning says so where that is the disk's fault.

        Raises:
            FormatError: a newer version's, which this one neither uses nor makes again.
        """
        artifact = self._read(self.folder(stage, key))
        return artifact if artifact is not None and artifact.manifest.key == key else None

    def began(self, stage: str, key: str) -> bool:
        """Whether a process ever set out to build this artifact here."""
        return bool(kind(self._lock_file(stage, key)))

    def artifacts(self, stage: str | None = None) -> list[Artifact]:
        """All artifacts (of a stage), the last created first; a warning names those that cannot be read."""
        found = []
        for folder, artifact in self.published(stage):
            if artifact is None:
                self._warn(folder, "has no manifest that can be read and is passed over: `rnnlm gc` removes it")
            else:
                found.append(artifact)
        return sorted(found, key=lambda artifact: artifact.manifest.created, reverse=True)

    def published(self, stage: str | None = None) -> Iterator[tuple[Path, Artifact | None]]:
        """What a store calls an artifact, of all stages or of one: its folder, and None where its manifest cannot be
        read. A newer version's is passed over, with a warning."""
        for name in [stage] if stage else self.stages():
            for folder in self.folders(name):
                if not _KEY.fullmatch(folder.name):
                    continue
                try:
                    yield folder, self._read(folder)
                except FormatError:
                    self.unread.add(folder)
                    self._warn(folder, "was made by a newer version of rnnlm and is passed over: upgrade rnnlm")

    def _read(self, folder: Path) -> Artifact | None:
        try:
            return Artifact.read(folder)
        except OSError as error:
            self._pass_over(folder, error)
            return None

    def damage(self, artifact: Artifact, *, again: bool = False) -> str | None:
        """What is wrong with an artifact's files in a few words, or None.

        Presence and size are looked at every time. The content is read where nobody has read it as it lies there, by
        all that the file system says of it; with ``again`` it is read in any case, as who uses it has to.
        """
        mark = (artifact.folder, artifact.manifest.created)
        digest = reading.digest if again else partial(cache.digest, how=reading.digest)
        self._verified -= {mark} if again else set()
        for name, output in artifact.manifest.outputs.items():
            path = artifact.folder / name
            try:
                found = kernel.stat(path)
                if not stat.S_ISREG(found.st_mode):
                    return f"{name} is no file"
                if found.st_size != output.bytes:
                    return f"{name} has {found.st_size:,} bytes instead of {output.bytes:,}"
                if mark not in self._verified and digest(path) != output.sha256:
                    return f"the content of {name} is not what was published"
            except FileNotFoundError:
                return f"{name} is missing"
            except OSError as error:
                if error.errno not in reading.NONE_THERE:
                    self.unread.add(artifact.folder)
                return f"{name} cannot be read ({error.strerror})"
        self._verified.add(mark)
        return None

    def touch(self, artifact: Artifact) -> bool:
        """Note that an artifact was used, so that it is not collected; a read-only store cannot, and need not. False
        where it was collected at this moment."""
        with suppress(OSError):
            try:
                kernel.utime(artifact.folder)
            except FileNotFoundError:
                return False
        return True

    @contextmanager
    def lock(self, stage: str, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the only right to build an artifact; ``waiting`` is called once if another process has it."""
        with self._lock(self._lock_file(stage, key), waiting):
            yield

    @contextmanager
    def alone(self, what: str) -> Iterator[bool]:
        """Whether nobody else is at something that only one process may do at a time, and until the block ends nobody
        will be. The kernel frees the place however the process ends."""
        with self._lock(self.root / "locks" / what) as free:
            yield free

    @contextmanager
    def _lock(self, path: Path, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
        with ExitStack() as stack:
            with disk.told(self.root):
                make(self.own("locks"))
                free = stack.enter_context(locks.held(path, waiting))
            yield free

    @contextmanager
    def building(self, stage: str, key: str) -> Iterator[Path]:
        """A fresh folder to build an artifact in; it is gone afterwards, whatever happened, unless published.

        Raises:
            StoreError: the disk is full, or the store cannot be written.
        """
        with disk.told(self.root):
            make(self.own("tmp"))
            while True:
                folder = self.aside(stage, key)
                kernel.mkdir(folder)
                # Held while the folder is in use: `collect` looks, and may have looked before it was.
                try:
                    handle = kernel.open(folder, os.O_RDONLY)
                except FileNotFoundError:
                    continue
                try:
                    locks.take(handle, folder, shared=True, wait=True)
                    if not locks.same(handle, folder):
                        continue
                    yield folder
                    return
                finally:
                    kernel.close(handle)
                    kernel.rmtree(folder, ignore_errors=True)

    def aside(self, stage: str, key: str) -> Path:
        """A new name for what is no artifact yet or no longer; `collect` removes what a killed process leaves."""
        return self.root / "tmp" / f"{stage}-{key[:16]}-{secrets.token_hex(4)}"

    def publish(self, folder: Path, manifest: Manifest) -> Artifact:
        """Make the files of a ``building`` folder an artifact, at once and whole, in place of one with the same key."""
        with disk.told(self.root):
            for name in sorted(kernel.listdir(folder)):
                sync(folder / name)
            with created(folder / MANIFEST) as write:
                write(f"{manifest.model_dump_json(indent=1)}\n".encode())
            sync(folder / MANIFEST)
            sync(folder)
            target = self.own(manifest.stage) / manifest.key[:16]
            make(target.parent)
            if stat.S_ISDIR(kind(target)):
                with suppress(OSError):  # what cannot be read is replaced
                    Artifact.read(target)  # what a newer version has made stays
            move(folder, target)
            self.settle(manifest.stage)
        self._verified.add((target, manifest.created))
        return Artifact(target, manifest)

    def settle(self, stage: str) -> None:
        """Wait until the disk has the names of a stage's artifacts."""
        with disk.told(self.root):
            settle(self.root / stage, self.root)

    def _lock_file(self, stage: str, key: str) -> Path:
        return self.root / "locks" / f"{stage}-{key[:16]}"

    def _pass_over(self, path: Path, error: OSError) -> None:
        """Say that nobody knows what lies there."""
        self.unread.add(path)
        self._warn(path, f"cannot be read ({error.strerror}) and is passed over: make it readable")

    def _warn(self, path: Path, what: str) -> None:
        """Say once what is wrong with something in the store that others can do without."""
        if path not in self._warned:
            self._warned.add(path)
            logger.warning("%s %s", path, what)
