"""A command of its own: machines that promote models at the same moment, a hundred thousand times.

    .venv/bin/python tests/races.py [RACES]

Two to four machines change one record on one remote, each whenever a seeded chance lets it come between another's read
and its swap. Each time all promotions have to stand in the record, each once, and each machine must have decided on
what stood there before its own. The remote's own code runs over objects in memory; the suite runs a thousand races.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from obstore.store import MemoryStore

from data.moment import now
from data.store import objects, reigns
from data.store.folder import Store
from data.store.remote import Remote


class Machine:
    """A store without a disk, on a remote that others change meanwhile."""

    def __init__(self, shared: Remote) -> None:
        self.remote, self.root = shared, Path("/nowhere-at-all")

    def lock(self, *what: object) -> Any:
        return nullcontext()


def race(rng: random.Random, service: MemoryStore, name: str) -> int:
    """One race; how many swaps were lost in it.

    Raises:
        AssertionError: a promotion was lost, doubled, or decided on what was no longer so.
    """
    with patch.object(objects, "_opened", lambda address: service):
        shared = Remote("s3://races/store")
    waiting = [f"{number:064x}" for number in range(rng.randint(2, 4))]
    rng.shuffle(waiting)
    asked: Counter[str] = Counter()

    def promote(key: str) -> None:
        def add(record: reigns.Record) -> list[str]:
            asked[key] += 1
            while waiting and rng.random() < 0.5:
                promote(waiting.pop())
            before = [reign.model for reign in record.reigns]
            record.reigns.append(reigns.Reign(model=key, since=now(), reason="better", figures={}))
            return before

        decided_on[key] = reigns.change(cast(Store, Machine(shared)), name, add)

    decided_on: dict[str, list[str]] = {}
    keys = {*waiting}
    while waiting:
        promote(waiting.pop())
    found, _ = reigns._shared(cast(Store, Machine(shared)), shared, name)
    order = [reign.model for reign in found.reigns]
    assert {*order} == keys, f"lost: {keys - {*order}}"
    assert len(order) == len(keys), f"doubled: {order}"
    assert all(decided_on[key] == order[: order.index(key)] for key in keys), "decided on what was no longer so"
    return asked.total() - len(keys)


def races(number: int) -> int:
    """That many; how many swaps were lost in all."""
    rng, lost = random.Random(16), 0
    with patch.object(reigns, "_note", lambda *what: None):
        for one in range(number):
            if one % 1000 == 0:
                service = MemoryStore()
            lost += race(rng, service, f"race-{one}")
    return lost


if __name__ == "__main__":
    NUMBER = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    BEGAN = time.monotonic()
    LOST = races(NUMBER)
    print(
        f"{NUMBER:,} races, {LOST:,} swaps lost and decided again, no promotion lost: {time.monotonic() - BEGAN:.0f} s"
    )
