"""Commands that list what is known by name."""

from __future__ import annotations

from data.corpus import catalogue
from stages.pipeline.presets import presets as found


def presets() -> None:
    """List the presets: runs worth repeating."""
    for name, path in found().items():
        print(f"{name:12} {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")


def corpora() -> None:
    """List the corpora that are known by name."""
    for name, corpus in catalogue.catalogue().items():
        print(f"{name:16} {corpus.title} ({corpus.licence})")
