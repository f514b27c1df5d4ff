"""Files that are there whole or not at all, whatever happens to the process or the machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Put a whole new file in the place of an old one or of none; one process at a time.

    Raises:
        OSError: what was there before is there still.
    """
    written = path.with_name(f"{path.name}.new")  # one name: what a killed process left is overwritten, not gathered
    with written.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    written.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
