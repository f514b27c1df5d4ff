"""Files that anybody may have put there: what is none, a pipe or a device, is neither waited for nor read."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING

from data.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1 << 26
"""Bytes of a file that is read as a whole, at most."""
OTHER_STORE = "name another store with --store or RNNLM_STORE"


def read(path: Path) -> bytes:
    """The content of a file that is small.

    Raises:
        OSError: no file, or none that can be read, or a large one.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        found = os.fstat(handle)
        _check(found, path)
        if found.st_size > LARGEST:
            raise OSError(errno.EFBIG, "it is too large for what it should be", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def check(path: Path) -> Path:
    """See that something is a file, before a library opens it and waits.

    Raises:
        OSError: no file.
    """
    _check(path.stat(), path)
    return path


def known(place: Path | str, content: bytes | str, highest: int, instead: str = OTHER_STORE) -> None:
    """See that a file is of no newer format than this version reads, by the number in the JSON that it holds.

    What has no number is of the first format. Within one a version may write more than another reads, which passes over
    it; what nobody may pass over raises the number.

    Args:
        place: of the file.
        content: JSON; of anything else another one has to say what is wrong with it.
        highest: format that this version reads.
        instead: what to do but to upgrade.

    Raises:
        FormatError: a newer version has written it.
    """
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError):
        return
    found = facts.get("format") if isinstance(facts, dict) else None
    if type(found) is int and found > highest:
        raise FormatError(
            f"{place} has format {found}, of a newer version of rnnlm, and this one reads formats up to {highest}: "
            f"upgrade rnnlm, or {instead}"
        )


def _check(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
