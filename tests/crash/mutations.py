"""What the store leaves out, does too late or does not lock is noticed: each of it in turn.

The places are those where the scenes come by, as the calls stand in the code; nobody has to think of them.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
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
SEEDS = 1000
"""How many times processes take turns, until somebody notices that a lock is missing."""
PAUSES = (0, 4, 16, 64)
"""How many turns the others have where a lock is missing: it is there that they may come between."""
BESIDE = {
    "folder.publish": "a step late is in time still, for other steps come before the name",
    "collect.stays": "what is used is looked at once more as it goes; tests/test_crash.py notices",
    "collect._begun": "who reads holds what it reads; tests/data/store/test_collect.py notices",
    "collect._leftovers": "what is used is looked at once more as it goes; tests/data/store/test_collect.py notices",
    "collect._locks": "what is used is looked at once more as it goes; tests/data/store/test_collect.py notices",
    "removal._take_away": "who used it has touched it; tests/data/store/test_collect.py notices",
    "removal._try": "among so many turns too rare; tests/data/store/test_collect.py notices",
}
"""Places where what is left out is the second of two that keep a thing, or is missed so seldom that a test asks for
it."""


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


def without(at: str) -> str:
    """What is noticed where a sync is left out, empty if nothing."""

    def skip(there: str, own: Callable[..., None], disk: Disk, handle: int, *arguments: Any) -> None:
        if there != at:
            own(disk, handle, *arguments)

    with asked("fsync", skip):
        return after_a_cut()


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


def unlocked(at: str) -> str:
    """What is noticed where a lock is left out and others come by then, empty if nothing."""
    rng = random.Random(at)

    def skip(there: str, own: Callable[..., None], disk: Disk, handle: int, *arguments: Any) -> None:
        if there != at:
            own(disk, handle, *arguments)
            return
        for _ in range(rng.choice(PAUSES)):
            disk.before("a lock that is left out", None)

    with asked("flock", skip):
        return in_turns()


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
        ("without the sync", without, "fsync"),
        ("synced too late", late, "fsync"),
        ("without the lock", unlocked, "flock"),
    ]
    unnoticed = 0
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        for name, mutate, call in ways:
            found = places(call)
            for at, said in zip(found, pool.map(mutate, found), strict=True):
                why = said or BESIDE.get(at.partition(":")[0], "")
                unnoticed += not why
                print(f"{name:16}  {at:45}  {why or 'NOBODY NOTICES'}", flush=True)
    return unnoticed
