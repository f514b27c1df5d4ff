"""The manifest of an artifact, ``manifest.json``: what its files are and where they come from."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from data.store.shape import FEW, MOMENT, fits

FORMAT: Final = 1
"""The newest that there is; a manifest without a number is of the first."""
Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_-]*$")]
"""Of a stage."""
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
File = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
"""A file's name: it leads nowhere else, and can be shown on a terminal."""


class Output(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True)

    bytes: Annotated[int, Field(ge=0, lt=1 << 63)]
    sha256: Digest


class Components(BaseModel):
    """What a key is made of, as far as it has these: a sweep's has not."""

    stage: str = ""
    version: int = 0
    config: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    code: dict[str, dict[str, str]] = {}
    libraries: dict[str, str] = {}


class Commit(BaseModel):
    """Of the clone that an artifact was made in."""

    commit: Annotated[str, Field(pattern="^[0-9a-f]{4,64}$")]
    dirty: bool


class Manifest(BaseModel):
    """What an artifact is and where it comes from; ``manifest.json`` in its folder."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), allow_inf_nan=False)

    format: Literal[1] = FORMAT
    stage: Name
    key: Digest
    """The digest of ``components``."""
    components: Annotated[dict[str, Any], fits(Components)]
    """Everything the key is made of, ``inputs`` (file → SHA-256), ``code`` and ``libraries`` among it."""
    outputs: Annotated[dict[File, Output], FEW]
    """File name → its size and digest."""
    config: dict[str, Any]
    """The stage's whole configuration, with the fields that the key leaves out."""
    parents: Annotated[dict[Name, Digest], FEW]
    """Stage → key of each artifact this one was made from."""
    device: Annotated[str, Field(pattern="^[a-z]+$")] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    versions: dict[str, str] = {}
    git: Annotated[dict[str, Any], fits(Commit)] | None = None
    created: Annotated[str, Field(pattern=MOMENT)]
    """UTC, ISO 8601."""
    timing: dict[str, float] = {}
    """``seconds`` of work, and what else the stage measured of its own speed."""
