"""An artifact: a folder of plain files with ``manifest.json``, which says what they are and where they come from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from data.store.fingerprint import digest

MANIFEST = "manifest.json"


class Output(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    sha256: str
    """64 hexadecimal digits."""


class Manifest(BaseModel):
    """What an artifact is and where it comes from; ``manifest.json`` in its folder."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    stage: str
    key: str
    """64 hexadecimal digits: the digest of ``components``."""
    components: dict[str, Any]
    """Everything the key is made of, ``inputs`` (file → SHA-256), ``code`` and ``libraries`` among it."""
    outputs: dict[str, Output]
    """File name → its size and digest."""
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

    @classmethod
    def read(cls, folder: Path) -> Artifact | None:
        """The artifact in a folder, its files unverified; None without a manifest, or with one that is not true to its
        own key."""
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        except (OSError, ValidationError):
            return None
        return cls(folder, manifest) if digest(manifest.components) == manifest.key else None

    def sha256(self, name: str) -> str:
        """The digest of one of its files, as the manifest records it."""
        return self.manifest.outputs[name].sha256

    @property
    def used(self) -> float:
        """When it was last published or reused, in seconds since the epoch."""
        return touched(self.folder / MANIFEST)


def touched(path: Path) -> float:
    """When a file was last changed, seconds since the epoch; now, where another process has just taken it away."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
