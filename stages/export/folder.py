"""The folder that an export becomes: made aside, and there whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from data.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


def check(place: Path) -> None:
    """See that a folder can come to lie there, before anything takes long.

    Raises:
        ConfigError: something lies there already, or nothing can.
    """
    if place.is_dir():
        if any(place.iterdir()):
            raise ConfigError(f"{place} is not empty: name another folder, or empty it")
        if place.samefile(Path.cwd()):
            raise ConfigError(f"{place} is the folder that you are in, and is to be replaced: name it from outside")
    elif place.exists():
        raise ConfigError(f"{place} is a file: name a folder")
    elif not place.parent.is_dir():
        raise ConfigError(f"{place} is no place for a folder: name one in a folder that is there")


@contextmanager
def made(place: Path) -> Iterator[Path]:
    """An empty folder to be filled, which is what lies at a place once the block ends well; of one that fails nothing
    is left.

    Raises:
        ConfigError: see `check`; something came to lie there meanwhile, or the disk does not take it.
    """
    check(place)
    there = place.resolve()  # a link keeps leading to where the folder will be
    try:
        with TemporaryDirectory(prefix=f".{there.name}-", dir=there.parent) as aside:
            out = Path(aside) / "whole"  # which anybody may read who may read what lies beside it
            out.mkdir()
            yield out
            for path in out.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            out.rename(there)  # takes the place of an empty folder, and of no other
    except OSError as error:
        raise ConfigError(f"{place} cannot be written: {error.strerror or error}") from None
