"""An artifact: a folder of plain files with ``manifest.json``, which says what they are and where they come from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from data.store.fingerprint import canonical, digest
from data.store.reading import read

MANIFEST = "manifest.json"

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_-]*$")]
"""Of a stage."""
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
File = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
"""A file's name: it leads nowhere else, and can be shown on a terminal."""


class Output(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True)

    bytes: Annotated[int, Field(ge=0)]
    sha256: Digest


class Manifest(BaseModel):
    """What an artifact is and where it comes from; ``manifest.json`` in its folder."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), allow_inf_nan=False)

    stage: Name
    key: Digest
    """The digest of ``components``."""
    components: dict[str, Any]
    """Everything the key is made of, ``inputs`` (file → SHA-256), ``code`` and ``libraries`` among it."""
    outputs: dict[File, Output]
    """File name → its size and digest."""
    config: dict[str, Any]
    """The stage's whole configuration, with the fields that the key leaves out."""
    parents: dict[Name, Digest]
    """Stage → key of each artifact this one was made from."""
    device: str | None = None
    seed: int | None = None
    versions: dict[str, str] = {}
    git: dict[str, Any] | None = None
    created: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.+]+$")]
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
        own key, to its place, or to JSON."""
        try:
            manifest = Manifest.model_validate_json(read(folder / MANIFEST))
            canonical([manifest.config, manifest.git])
            true = digest(manifest.components) == manifest.key
        except (OSError, ValueError, RecursionError):  # ValueError is also what not-a-number and huge integers end in
            return None
        return cls(folder, manifest) if true and folder.parts[-2:] == (manifest.stage, manifest.key[:16]) else None

    def sha256(self, name: str) -> str:
        """The digest of one of its files, as the manifest records it."""
        return self.manifest.outputs[name].sha256

    @property
    def used(self) -> float:
        """When it was last published or reused, in seconds since the epoch."""
        return max(touched(self.folder), touched(self.folder / MANIFEST))


def touched(path: Path) -> float:
    """When a file or a link was last changed, seconds since the epoch; now, where nobody can tell, for another process
    has just taken it away."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()
