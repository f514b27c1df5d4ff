"""What the store leaves out, does too late or does not lock is noticed: each of it in turn.

The places are those where the scenes come by, as the calls stand in the code; nobody has to think of them.
"""

from __future__ import annotations

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
from tests.crash.world import ROOT

HELPERS = {"sync", "_sync", "take", "named", "same", "held", "alone", "free", "lock", "_lock", "_opened"}
"""Of a call these say nothing of what it is for."""
SEEDS = 60
"""How many times processes take turns, until somebody notices that a lock is missing."""


def place(path: str) -> str:
    """Where in the code the disk is asked, and for which folder or lock, if it is one of the store's."""
    frame: FrameType | None = sys._getframe(2)
    found = "a small writer"
    while frame is not None:
        file, function = Path(frame.f_code.co_filename), frame.f_code.co_name
        if file.parent.name in ("store", "training") and function not in HELPERS:
            found = f"{file.stem}.{function}:{frame.f_lineno}"
            break
        frame = frame.f_back
    of = PurePath(path)
    known = of.parent in (ROOT, *ROOT.parents, ROOT / "locks") and not of.suffix
    return f"{found} {re.sub('[0-9a-f]{16}', '…', of.name)}" if known else found


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
        return str(error.__cause__ or error).partition(": {")[0]
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
            print(f"{name:16}  {at:45}  {found or 'NOBODY NOTICES'}", flush=True)
    return unnoticed
