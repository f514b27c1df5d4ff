"""An artifact: a folder of plain files with ``manifest.json``, which says what they are and where they come from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.store import kernel
from data.store.fingerprint import digest
from data.store.reading import NONE_THERE, SMALL, known, read

if TYPE_CHECKING:
    from pathlib import Path

    from data.store.manifest import Manifest

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A published artifact: a folder and its manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def read(cls, folder: Path) -> Artifact | None:
        """The artifact in a folder, its files unverified; None without a manifest, or with one that is not true to its
        own key, to its place, or to JSON.

        Raises:
            FormatError: a newer version's.
            OSError: nobody knows whether one is there, for the disk or the system does not tell.
        """
        try:
            manifest = parse(read(folder / MANIFEST, SMALL), folder / MANIFEST)
        except OSError as error:
            if error.errno not in NONE_THERE:
                raise
            return None
        true = manifest is not None and folder.parts[-2:] == (manifest.stage, manifest.key[:16])
        return cls(folder, manifest) if manifest and true else None

    def sha256(self, name: str) -> str:
        """The digest of one of its files, as the manifest records it."""
        return self.manifest.outputs[name].sha256

    @property
    def place(self) -> str:
        """Where it lies, below its store or a remote: ``train/0123456789abcdef``."""
        return f"{self.manifest.stage}/{self.manifest.key[:16]}"

    @property
    def bytes(self) -> int:
        """Of its files, but for the manifest."""
        return sum(output.bytes for output in self.manifest.outputs.values())

    @property
    def used(self) -> float:
        """When it was last published or reused, in seconds since the epoch."""
        return max(touched(self.folder), touched(self.folder / MANIFEST))


def parse(written: bytes, place: Path | str) -> Manifest | None:
    """The manifest that lies at a place; None where it is not true to its own key, or to JSON.

    Raises:
        FormatError: a newer version's.
    """
    from data.store.manifest import FORMAT, Manifest  # slow to load, and not needed where nothing is read
    from data.store.shape import parsed

    try:
        manifest = parsed(Manifest, written)
        settings = manifest.components.get("config", {})
        true = settings.items() <= manifest.config.items()
        return manifest if true and digest(manifest.components) == manifest.key else None
    except (ValueError, RecursionError):  # ValueError is also what not-a-number and huge integers end in
        known(place, written, FORMAT)
        return None


def touched(path: Path) -> float:
    """When a file or a link was last changed, seconds since the epoch; now, where nobody can tell, for another process
    has just taken it away."""
    try:
        return kernel.lstat(path).st_mtime
    except OSError:
        return time.time()
