"""All that is tried, in two processes: power cuts, calls that fail, and processes that take turns."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from tests.crash import faults
from tests.crash.cuts import Seen, cut
from tests.crash.scenes import SCENES, Scene
from tests.crash.turns import Turns


@dataclass(frozen=True)
class Size:
    """How much is tried.

    Attributes:
        ways: in which one power cut may come out; where there are more, so many by chance.
        stride: of so many calls that may fail, with each error, one does.
        seeds: how many times processes take turns.
        ways_between: in which a power cut between their turns may come out.
        parts: into which all this is cut, that two processes have as much to do.
    """

    ways: int
    stride: int
    seeds: int
    ways_between: int
    parts: int


SUITE = Size(ways=8192, stride=64, seeds=50, ways_between=4096, parts=8)
ALL = Size(ways=1 << 20, stride=1, seeds=6_000, ways_between=2048, parts=200)


def tried(size: Size, told: Callable[[Counter[str]], None] = lambda counts: None) -> Counter[str]:
    """Try it all.

    Args:
        size: how much that is.
        told: called with what was counted so far.

    Returns:
        How many of what there were; ``states`` is how many different disk images in all.

    Raises:
        AssertionError: a promise was not kept.
    """
    states: set[int] = set()
    counts: Counter[str] = Counter()
    # Forked, so that to both an image has one hash.
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        for found, counted in pool.map(_part, [(size, part) for part in range(size.parts)]):
            states |= found
            counts += counted
            counts["states"] = len(states)
            told(counts)
    return counts


def _part(which: tuple[Size, int]) -> tuple[set[int], Counter[str]]:
    size, part = which
    logging.disable(logging.CRITICAL)  # what a store warns of is no news here
    seen, counts = Seen(), Counter[str]()
    for scene in SCENES[part :: size.parts]:
        counts["power cuts"] += cut(scene, seen, size.ways)
    for scene, number, error in list(_failures())[part * size.stride :: size.parts * size.stride]:
        faults.fail(scene, number, error, seen)
        counts["failed calls"] += 1
    for seed in range(part, size.seeds, size.parts):
        counts["turns"] += Turns(seed, seen, size.ways_between).run()
    counts["looked at in full"] = len(seen.checked)
    return seen.images, counts


def _failures() -> Iterator[tuple[Scene, int, int]]:
    for scene in SCENES:
        for number in range(1, faults.calls(scene) + 1):
            for error in faults.ERRORS:
                yield scene, number, error
