"""The machine stops after each call, and any of what was not synced is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from math import prod
from typing import Any

from data.errors import RnnlmError
from tests.crash import service
from tests.crash.disk import Change, Disk, Image, copied, files, tree, ways
from tests.crash.scenes import Scene, Steps
from tests.crash.world import ROOT, Ledger, Promise, Thing, World, check, living

UNREAD = ("tmp", "locks")
"""Folders of a store of which nobody reads what lies in them."""
IN_FULL = 100
"""Of so many images that differ in these only one is checked all the same."""


@dataclass
class Seen:
    """The states that were tried so far."""

    images: set[int] = field(default_factory=set)
    """Different images of a disk."""
    checked: set[int] = field(default_factory=set)
    """Those that differ in what somebody reads, each with what was promised."""
    _disk: Disk = field(default_factory=Disk)

    def look(self, image: Image, promise: Promise, things: tuple[Thing, ...]) -> None:
        """See that a store keeps its promises on a disk.

        What was left in `tmp` or as a lock is removed and never read, which the disk sees to. So of images that differ
        in that only, most are counted when one of them is checked.

        Raises:
            AssertionError: it does not.
        """
        found = tree(image)
        whole, read = hash(found), hash((_read(found), promise))
        if read in self.checked and (whole in self.images or whole % IN_FULL):
            self.images.add(whole)
            return
        self.images.add(whole)
        self.checked.add(read)
        self._disk.mount(image)
        self._disk.unread = frozenset(_unread(image))
        with living(self._disk, fast=True):
            try:
                check(self._disk, promise, things)
            except (RnnlmError, OSError) as error:
                raise AssertionError(f"the store cannot be used: {error}") from error


def _read(found: Any) -> Any:
    """Of a disk what somebody reads."""
    shared = dict(found).get(service.FOLDER)
    for name in ROOT.parts[1:]:
        found = dict(found).get(name, ())
    return shared, tuple((name, name in UNREAD or inner) for name, inner in found)


def _unread(image: Image) -> Iterator[int]:
    """The files that nobody has a reason to read."""
    inode: int | None = 0
    for name in ROOT.parts[1:]:
        inode = _names(image, inode).get(name)
    for name in UNREAD:
        if (folder := _names(image, inode).get(name)) is not None:
            yield from files(image, folder)


def _names(image: Image, inode: int | None) -> dict[str, int]:
    node = {} if inode is None else image[inode]
    assert isinstance(node, dict)
    return node


@dataclass(frozen=True)
class Point:
    """A moment at which the machine may stop."""

    after: str
    kept: Image
    pending: tuple[Change, ...]
    promise: Promise


def begun(scene: Scene) -> World:
    """A world in which all that is before a scene is long over."""
    image, ledger = _before(scene.before, scene.remote)
    disk = Disk(exchanges=scene.exchanges)
    disk.mount(copied(image))
    return World(disk, Ledger(ledger.promise, {**ledger.made}))


@cache
def _before(steps: Steps, shared: bool) -> tuple[Image, Ledger]:
    disk = Disk()
    disk.mount({0: {ROOT.parts[1]: 1} | ({service.FOLDER: 2} if shared else {}), 1: {}, 2: {}})
    world = World(disk)
    with living(disk):
        steps(world)
    return disk.seen, world.ledger


def points(scene: Scene) -> tuple[list[Point], tuple[Thing, ...]]:
    """All moments of a scene that differ, and what is made in it."""
    world = begun(scene)
    disk, found, last = world.disk, list[Point](), None

    def note(call: str, path: object = None) -> None:
        nonlocal last
        now = disk.version, world.ledger.promise
        if now != last:
            last = now
            found.append(Point(f"{call} {path or ''}", copied(disk.kept), tuple(disk.pending), world.ledger.promise))

    disk.before = note
    with living(disk):
        scene.steps(world)
    note("the end")
    return found, tuple(world.ledger.made)


def choices(pending: tuple[Change, ...], most: int, rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Ways in which a power cut may come out: all, or where that are too many the simple ones and some by chance."""
    each = [ways(change) for change in pending]
    number = prod(map(len, each))
    if number <= most:
        yield from Disk(pending=list(pending)).choices()
        return
    size = len(pending)
    for base in (0, 1):
        yield (base,) * size
        for some in (1, 2):
            for places in combinations(range(size), some):
                yield tuple(1 - base if place in places else base for place in range(size))
    for _ in range(most):
        yield tuple(rng.choice(one) for one in each)


def cut(scene: Scene, seen: Seen, most: int) -> int:
    """Stop the machine at each moment of a scene, in up to so many ways each; how often that was.

    Raises:
        AssertionError: a store did not keep its promises; says where it was, and what was lost.
    """
    rng = random.Random(scene.name)
    moments, things = points(scene)
    cuts = 0
    for point in moments:
        disk = Disk(kept=point.kept, pending=list(point.pending))
        for chosen in choices(point.pending, most, rng):
            cuts += 1
            try:
                seen.look(disk.image(chosen), point.promise, things)
            except AssertionError as error:
                raise AssertionError(
                    f"{scene.name}, before {point.after}, of {point.pending} {chosen}: {error}"
                ) from error
    return cuts
