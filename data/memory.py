"""How much memory this process may have, and whether that is enough."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from data.errors import TrainingError

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container finds what it may have; elsewhere they say nothing, or more than there is."""


def available() -> int:
    """Bytes: all of the machine's, or what its container may have of them."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for place in _LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            found = min(found, int(Path(place).read_text(encoding="ascii")))
    return found


def check(what: str, needed: int, remedy: str) -> None:
    """Refuse what could not be held: the system would end the process in the middle of it, without a word.

    Raises:
        TrainingError: it takes more bytes than there are.
    """
    if needed > available():
        raise TrainingError(
            f"{what} would need {needed / 1e9:,.1f} GB and this machine has {available() / 1e9:,.1f}: set {remedy}"
        )
