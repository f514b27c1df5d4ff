"""The presets that come with the project."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "presets"
DEFAULT = "sample"


def presets() -> dict[str, Path]:
    """All of them, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
