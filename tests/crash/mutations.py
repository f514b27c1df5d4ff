"""What the store leaves out, does too late or does not lock is noticed: each of it in turn.

The places are those where the scenes come by, as the calls stand in the code; nobody has to think of them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePath
from types import FrameType
from typing import Any
from unittest.mock import patch

from tests.crash.cuts import Seen, cut
from tests.crash.disk import Change, Disk
from tests.crash.scenes import SCENES
from tests.crash.turns import Turns

HELPERS = {"sync", "_sync", "take", "named", "same", "held", "alone", "free", "_opened"}
"""Of a call these say nothing of what it is for."""
SEEDS = 300
"""How many times processes take turns, until somebody notices that a lock is missing."""


def place(path: str) -> str:
    """Where in the code the disk is asked, by whom, and for what."""
    frame: FrameType | None = sys._getframe(2)
    found: list[str] = []
    while frame is not None and len(found) < 2:
        file, function = Path(frame.f_code.co_filename), frame.f_code.co_name
        if file.parts[-2] in ("store", "training") and function not in HELPERS:
            found.append(f"{file.stem}.{function}:{frame.f_lineno}")
        frame = frame.f_back
    return f"{' < '.join(found)}, {re.sub('[0-9][0-9a-f-]{5,}', '…', PurePath(path).name)}"


@contextmanager
def asked(call: str, instead: Callable[[str, Callable[..., None], Disk, int, Any], None]) -> Iterator[None]:
    """While this holds, a call of a disk is answered otherwise, by the place that it comes from."""
    own = getattr(Disk, call)

    def answer(disk: Disk, handle: int, *arguments: Any) -> None:
        instead(place(disk.handles[handle].path), own, disk, handle, *arguments)

    with patch.object(Disk, call, answer):
        yield


def places(call: str) -> dict[str, None]:
    """All places where the scenes come by a call, in that order."""
    found: dict[str, None] = {}

    def note(at: str, own: Callable[..., None], disk: Disk, handle: int, *arguments: Any) -> None:
        found[at] = None
        own(disk, handle, *arguments)

    with asked(call, note):
        for scene in SCENES:
            cut(scene, Seen(), 1)
    return found


def without(call: str, at: str) -> str:
    """What is noticed where that call is left out, empty if nothing."""

    def skip(there: str, own: Callable[..., None], disk: Disk, handle: int, *arguments: Any) -> None:
        if there != at:
            own(disk, handle, *arguments)

    with asked(call, skip):
        return noticed()


def late(at: str) -> str:
    """What is noticed where a sync comes after the step that follows it, empty if nothing."""
    waiting: list[int] = []
    change = Disk._change

    def put_off(there: str, own: Callable[..., None], disk: Disk, handle: int, *arguments: Any) -> None:
        if there == at:
            waiting.append(disk.handles[handle].inode)
        else:
            own(disk, handle, *arguments)

    def changed(disk: Disk, what: Change) -> None:
        change(disk, what)
        if waiting:
            disk.before("a sync that is late", None)
        while waiting:
            disk.last(waiting.pop())

    with asked("fsync", put_off), patch.object(Disk, "_change", changed):
        return noticed()


def noticed() -> str:
    """The first promise that is not kept."""
    seen = Seen()
    try:
        for scene in SCENES:
            cut(scene, seen, 64)
        for seed in range(SEEDS):
            Turns(seed, seen, 16).run()
    except (AssertionError, OSError) as error:
        return str(error).rpartition(": ")[2] or os.fspath(type(error).__name__)
    return ""


def main() -> int:
    """Print what each mutation is noticed by; how many are not."""
    ways: list[tuple[str, Callable[[str], str], str]] = [
        ("without the sync", partial(without, "fsync"), "fsync"),
        ("synced too late", late, "fsync"),
    ]
    ways.append(("without the lock", partial(without, "flock"), "flock"))
    unnoticed = 0
    for name, mutate, call in ways:
        for at in places(call):
            found = mutate(at)
            unnoticed += not found
            print(f"{name:16}  {at:90}  {found or 'NOBODY NOTICES'}", flush=True)
    return unnoticed
