"""The manifest of an artifact, ``manifest.json``: what its files are and where they come from."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

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

    bytes: Annotated[int, Field(ge=0)]
    sha256: Digest


class Manifest(BaseModel):
    """What an artifact is and where it comes from; ``manifest.json`` in its folder."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), allow_inf_nan=False)

    format: Literal[1] = FORMAT
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
