"""The store, a folder of content-addressed artifacts: find, lock, build, publish, verify.

    <store>/<stage>/<first 16 digits of the key>/   manifest.json and the stage's files
    <store>/checkpoints/<identity>/                 unfinished (and finished, resumable) training
    <store>/champion.json, champions/, nights/      who is champion, and what each night decided
    <store>/index.html, reports/                    a page of the nights, and one per run with what belongs to it
    <store>/tmp/, <store>/locks/                    work in progress

An artifact is built in ``tmp`` on the same file system, synced, and renamed into place with its manifest inside, so
that a reader sees all of it or nothing. What a manifest promises is checked before an artifact is used.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from data.errors import ConfigError, StoreError
from data.store import fingerprint
from data.store.artifact import MANIFEST, Artifact, Manifest
from data.store.files import sync

_OTHER_FOLDERS = ("tmp", "locks", "checkpoints", "reports", "champions", "nights")


def open_store(folder: str | None) -> Store:
    """The store in this folder, else in ``$RNNLM_STORE``, else in the default one.

    That is ``data/artifacts`` of a clone. The installed program keeps its store in the user's data folder, for what
    lies among installed packages goes with them.

    Raises:
        ConfigError: an address, or a name that cannot be a folder's.
        StoreError: the name of a file.
    """
    place = folder or os.environ.get("RNNLM_STORE") or str(_default())
    if "://" in place:
        raise ConfigError(f"the store {place} is an address: this version keeps artifacts in a folder, name one")
    try:
        root = Path(place).expanduser().absolute()
        taken = root.exists() and not root.is_dir()
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"the store {place[:80]} cannot be a folder ({error}): name another one") from None
    if taken:
        raise StoreError(f"the store {root} is a file: name a folder with --store or RNNLM_STORE")
    return Store(root)


class Store:
    """Artifacts below one folder, shared by any number of processes of one machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: set[tuple[Path, str]] = set()

    def folder(self, stage: str, key: str) -> Path:
        """Where the artifact with this key lies, or would lie."""
        return self.root / stage / key[:16]

    def folders(self, name: str = "") -> list[Path]:
        """The folders in the store's folder ``name``, or in the store itself, by name; none where it has no such."""
        place = self.root / name
        return sorted(entry for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []

    def stages(self) -> list[str]:
        """The names of the stages that have a folder here."""
        return [folder.name for folder in self.folders() if folder.name not in _OTHER_FOLDERS]

    def checkpoints(self, identity: str) -> Path:
        """Where a training run with this identity keeps its checkpoints."""
        return self.root / "checkpoints" / identity[:16]

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact with this key, unverified; None when there is none or its manifest cannot be read."""
        artifact = Artifact.read(self.folder(stage, key))
        return artifact if artifact is not None and artifact.manifest.key == key else None

    def began(self, stage: str, key: str) -> bool:
        """Whether a process ever set out to build this artifact here."""
        return self._lock_file(stage, key).exists()

    def artifacts(self, stage: str | None = None) -> list[Artifact]:
        """All artifacts (of a stage), the last created first."""
        folders = [folder for name in ([stage] if stage else self.stages()) for folder in self.folders(name)]
        found = [artifact for folder in folders if (artifact := Artifact.read(folder)) is not None]
        return sorted(found, key=lambda artifact: artifact.manifest.created, reverse=True)

    def damage(self, artifact: Artifact, *, again: bool = False) -> str | None:
        """What is wrong with an artifact's files in a few words, or None.

        Presence and size are looked at every time, the content once per process unless ``again``.
        """
        mark = (artifact.folder, artifact.manifest.created)
        for name, output in artifact.manifest.outputs.items():
            path = artifact.folder / name
            try:
                size = path.stat().st_size
                if size != output.bytes:
                    return f"{name} has {size:,} bytes instead of {output.bytes:,}"
                if (mark not in self._verified or again) and fingerprint.file_digest(path) != output.sha256:
                    return f"the content of {name} is not what was published"
            except FileNotFoundError:
                return f"{name} is missing"
            except OSError as error:
                return f"{name} cannot be read ({error.strerror})"
        self._verified.add(mark)
        return None

    def touch(self, artifact: Artifact) -> None:
        """Note that an artifact was used, so that it is not collected; a read-only store cannot, and need not."""
        try:
            os.utime(artifact.folder / MANIFEST)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT):
                raise

    @contextmanager
    def lock(self, stage: str, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the only right to build an artifact; ``waiting`` is called once if another process has it."""
        with self._lock(self._lock_file(stage, key)) as (file, free):
            if not free:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def alone(self, what: str) -> Iterator[bool]:
        """Whether nobody else is at something that only one process may do at a time, and until the block ends nobody
        will be. The kernel frees the place however the process ends."""
        with self._lock(self.root / "locks" / what) as (_, free):
            yield free

    @contextmanager
    def _lock(self, path: Path) -> Iterator[tuple[IO[str], bool]]:
        """The file of a lock, and whether the lock was free and is held from now on."""
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                free = False
            yield file, free

    @contextmanager
    def building(self, stage: str, key: str) -> Iterator[Path]:
        """A fresh folder to build an artifact in; it is gone afterwards, whatever happened, unless published.

        Raises:
            StoreError: the disk is full, or the store cannot be written.
        """
        with self._errors():
            folder = self.root / "tmp" / f"{stage}-{key[:16]}-{secrets.token_hex(4)}"
            folder.mkdir(parents=True)
            # Held while the folder is in use, and freed by the kernel however this process ends: `collect` looks.
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_SH)
            try:
                yield folder
            finally:
                os.close(handle)
                shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, manifest: Manifest) -> Artifact:
        """Make the files of a ``building`` folder an artifact, at once and whole, in place of one with the same key."""
        with self._errors():
            for path in sorted(folder.iterdir()):
                sync(path)
            written = folder / MANIFEST
            written.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
            sync(written)
            sync(folder)
            target = self.folder(manifest.stage, manifest.key)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_symlink() or target.is_file():
                target.unlink()
            if target.exists():
                _exchange(folder, target)  # what was there goes the way of the folder it was built in
            else:
                folder.rename(target)
            sync(target.parent)
        self._verified.add((target, manifest.created))
        return Artifact(target, manifest)

    def _lock_file(self, stage: str, key: str) -> Path:
        return self.root / "locks" / f"{stage}-{key[:16]}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StoreError(
                    f"no space is left for the store {self.root}: free some, `rnnlm gc` for one, and run again; "
                    "what was published before is untouched"
                ) from error
            # The stage's own files are not the store's business: only what lies below the root is.
            if error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(self.root):
                raise StoreError(
                    f"the store {self.root} cannot be used ({error.strerror}: {error.filename}): "
                    "name a folder of your own with --store or RNNLM_STORE"
                ) from error
            raise


def _default() -> Path:
    """The store of somebody who names none."""
    if fingerprint.in_clone():
        return fingerprint.ROOT / "data" / "artifacts"

    import platformdirs

    return platformdirs.user_data_path("rnnlm")


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders at once, so that neither name is ever without one (Linux: renameat2 with RENAME_EXCHANGE)."""
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return
    aside = one.with_name(f"{one.name}-aside")  # other systems, and file systems that cannot: a moment without
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    shutil.rmtree(aside, ignore_errors=True)
