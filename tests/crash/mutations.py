"""What the store leaves out, does too late or does not lock is noticed: each of it in turn.

The places are those where the scenes come by, as the calls stand in the code; nobody has to think of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from multiprocessing import get_context
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
SEEDS = 1200
"""How many times processes take turns, until somebody notices that a lock is missing."""
AGAIN = {
    "collect.stays": "what goes is looked at once more as it goes, by `removal._take_away`",
    "collect._locks": "the same, by `removal._try`",
    "collect._leftovers": "the same, by `removal._try`",
    "collect._begun": "who reads holds what it reads; tests/data/store/test_stateful.py notices",
}
"""Places where a lock is looked at and not kept, so that nothing is lost without it: these are not tried."""


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


def without(call: str, at: str, noticed: Callable[[], str]) -> str:
    """What is noticed where that call is left out, empty if nothing."""

    def skip(there: str, own: Callable[..., None], disk: Disk, handle: int, *arguments: Any) -> None:
        if there != at:
            own(disk, handle, *arguments)

    with asked(call, skip):
        return noticed()


def _without_sync(at: str) -> str:
    return without("fsync", at, after_a_cut)


def _without_lock(at: str) -> str:
    return without("flock", at, in_turns)


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
        return after_a_cut()


def after_a_cut() -> str:
    """The first promise that is not kept when the machine stops."""
    seen = Seen()
    return _first(partial(cut, scene, seen, 64) for scene in SCENES)


def in_turns() -> str:
    """The first promise that processes do not keep which take turns."""
    return _first(Turns(seed, Seen(), 2).run for seed in range(SEEDS))


def _first(tries: Iterable[Callable[[], object]]) -> str:
    try:
        for one in tries:
            one()
    except (AssertionError, OSError) as error:
        return str(error.__cause__ or error).partition(": {")[0]
    return ""


def main() -> int:
    """Print what each mutation is noticed by; how many are not."""
    ways: list[tuple[str, Callable[[str], str], str]] = [
        ("without the sync", _without_sync, "fsync"),
        ("synced too late", late, "fsync"),
        ("without the lock", _without_lock, "flock"),
    ]
    unnoticed = 0
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        for name, mutate, call in ways:
            again = {at: AGAIN[where] for at in places(call) if (where := at.partition(":")[0]) in AGAIN}
            found = [at for at in places(call) if at not in again]
            for at, said in chain(again.items(), zip(found, pool.map(mutate, found), strict=True)):
                unnoticed += not said
                print(f"{name:16}  {at:45}  {said or 'NOBODY NOTICES'}", flush=True)
    return unnoticed
