"""Content-addressed artifacts: publish, find, verify, lock, collect.

    <store>/<stage>/<first 16 digits of the key>/   manifest.json and the stage's files
    <store>/checkpoints/<identity>/                 unfinished (and finished, resumable) training
    <store>/reports/                                a page per run
    <store>/tmp/, <store>/locks/                    work in progress

An artifact is built in ``tmp`` on the same file system, synced, and renamed into place with its manifest inside, so
that a reader sees all of it or nothing. What a manifest promises is checked before an artifact is used.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from data.errors import StoreError
from data.store.files import sync
from data.store.fingerprint import digest, file_digest

DEFAULT_ROOT = Path(__file__).parents[1] / "artifacts"
MANIFEST = "manifest.json"
KEPT_DAYS = 30
_KEY = re.compile("[0-9a-f]{16}")
_BUILT = re.compile("[a-z]+-[0-9a-f]{16}-[0-9a-f]{8}(-aside)?")
OTHER_FOLDERS = ("tmp", "locks", "checkpoints", "reports")


class Output(BaseModel):
    """One file of an artifact: its size in bytes and its SHA-256."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What an artifact is and where it comes from; ``manifest.json`` in its folder."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    stage: str
    key: str
    """64 hexadecimal digits: the digest of ``components``."""
    components: dict[str, Any]
    """Everything the key is made of, ``inputs`` (file → SHA-256), ``code`` and ``libraries`` among it."""
    outputs: dict[str, Output]
    config: dict[str, Any]
    """The stage's whole configuration, with the fields that the key leaves out."""
    parents: dict[str, str]
    """Stage → key of each artifact this one was made from."""
    device: str | None = None
    seed: int | None = None
    versions: dict[str, str] = {}
    git: dict[str, Any] | None = None
    created: str
    """UTC, ISO 8601."""
    timing: dict[str, float] = {}
    """``seconds`` of work, and what else the stage measured of its own speed."""


@dataclass(frozen=True)
class Artifact:
    """A published artifact: a folder and its manifest."""

    folder: Path
    manifest: Manifest

    def sha256(self, name: str) -> str:
        """The digest of one of its files, as the manifest records it."""
        return self.manifest.outputs[name].sha256

    @property
    def used(self) -> float:
        """When it was last published or reused, in seconds since the epoch."""
        return _touched(self.folder / MANIFEST)


class Store:
    """Artifacts below one folder, shared by any number of processes of one machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: set[tuple[Path, str]] = set()

    def folder(self, stage: str, key: str) -> Path:
        return self.root / stage / key[:16]

    def checkpoints(self, identity: str) -> Path:
        """Where a training run with this identity keeps its checkpoints."""
        return self.root / "checkpoints" / identity[:16]

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact with this key, unverified; None when there is none or its manifest cannot be read."""
        artifact = _read(self.folder(stage, key))
        return artifact if artifact is not None and artifact.manifest.key == key else None

    def began(self, stage: str, key: str) -> bool:
        """Whether a process ever set out to build this artifact here."""
        return self._lock_file(stage, key).exists()

    def artifacts(self, stage: str | None = None) -> list[Artifact]:
        """All artifacts (of a stage), the last created first."""
        stages = [stage] if stage else _subfolders(self.root, without=OTHER_FOLDERS)
        folders = [self.root / name / key for name in stages for key in _subfolders(self.root / name)]
        found = [artifact for folder in folders if (artifact := _read(folder)) is not None]
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
                if (mark not in self._verified or again) and file_digest(path) != output.sha256:
                    return f"the content of {name} is not what was published"
            except FileNotFoundError:
                return f"{name} is missing"
            except OSError as error:
                return f"{name} cannot be read ({error.strerror})"
        self._verified.add(mark)
        return None

    def touch(self, artifact: Artifact) -> None:
        """Note that an artifact was used, so that `collect` keeps it; a read-only store cannot, and need not."""
        try:
            os.utime(artifact.folder / MANIFEST)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT):
                raise

    @contextmanager
    def lock(self, stage: str, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the only right to build an artifact; ``waiting`` is called once if another process has it."""
        with self._errors():
            path = self._lock_file(stage, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def building(self, stage: str, key: str) -> Iterator[Path]:
        """A fresh folder to build an artifact in; it is gone afterwards, whatever happened, unless published.

        Raises:
            StoreError: the disk is full, or the store cannot be written.
        """
        with self._errors():
            folder = self.root / "tmp" / f"{stage}-{key[:16]}-{secrets.token_hex(4)}"
            folder.mkdir(parents=True)
            # Held while the folder is in use, and freed by the kernel however this process ends: see `collect`.
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

    def collect(
        self, *, pinned: Collection[str] = (), dry_run: bool = False, days: float = KEPT_DAYS
    ) -> list[tuple[Path, str, int]]:
        """Delete what nobody needs and return it: folder, why, bytes.

        Collected are leftovers of runs that were killed, damaged artifacts, artifacts that neither they nor anything
        made from them was used for ``days``, and checkpoints untouched for as long. Artifacts with a ``pinned`` key and
        what they were made from stay, and so does whatever a store does not name like this.
        """
        oldest = time.time() - days * 86_400
        doomed: list[tuple[Path, str]] = []
        for name in _subfolders(self.root / "tmp"):
            if _BUILT.fullmatch(name) and not _in_use(self.root / "tmp" / name):
                doomed.append((self.root / "tmp" / name, "left by a run that was killed"))
        sound: dict[tuple[str, str], Artifact] = {}
        for stage in _subfolders(self.root, without=OTHER_FOLDERS):
            for name in filter(_KEY.fullmatch, _subfolders(self.root / stage)):
                folder = self.root / stage / name
                artifact = _read(folder)
                if artifact is None:
                    doomed.append((folder, "its manifest cannot be read"))
                elif reason := self.damage(artifact):
                    doomed.append((folder, reason))
                else:
                    sound[stage, artifact.manifest.key] = artifact
        needed: set[tuple[str, str]] = set()
        waiting = [(stage, key) for (stage, key), artifact in sound.items() if artifact.used >= oldest or key in pinned]
        while waiting:
            stage_and_key = waiting.pop()
            if stage_and_key in sound and stage_and_key not in needed:
                needed.add(stage_and_key)
                waiting.extend(sound[stage_and_key].manifest.parents.items())
        doomed.extend(
            (artifact.folder, f"not used for {days:g} days")
            for stage_and_key, artifact in sound.items()
            if stage_and_key not in needed
        )
        for name in filter(_KEY.fullmatch, _subfolders(self.root / "checkpoints")):
            folder = self.root / "checkpoints" / name
            if max(map(_touched, (folder, *folder.iterdir()))) < oldest:
                doomed.append((folder, f"not used for {days:g} days"))
        collected = [(folder, why, _size(folder)) for folder, why in doomed]
        if not dry_run:
            for folder, _ in doomed:
                shutil.rmtree(folder, ignore_errors=True)
        return collected

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


def _read(folder: Path) -> Artifact | None:
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None
    return Artifact(folder, manifest) if digest(manifest.components) == manifest.key else None


def _subfolders(folder: Path, without: tuple[str, ...] = ()) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in without)


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


def _in_use(folder: Path) -> bool:
    """Whether a living process holds the folder that it builds in."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _touched(path: Path) -> float:
    """When a file was last changed, seconds since the epoch; now, where another process has just taken it away."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size
