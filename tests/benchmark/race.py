"""Contenders that take turns, each in a process of its own, and what their seconds are worth beside each other."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ROUNDS = 7
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")
"""How many threads MXNet and torch, NumPy, XLA, tokenizers and polars take."""
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Where they are set, NumPy's matrix products are slower than they could be."""
SPINNING = 0.15
"""Seconds: OpenBLAS's threads look out for more work for a tenth of one, and take a core from whoever is next."""


def environment(**more: str) -> dict[str, str]:
    """What every process here is started with: this checkout, and no setting of threads that is not its own."""
    kept = {name: value for name, value in os.environ.items() if name not in (*THREADS, *SLOWING)}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]), **more}


class Contender:
    """A process that does one thing, a turn whenever it is told to (`contender.py`).

    Args:
        module: of this folder; its ``CONTENDERS`` has who does it.
        name: among them.
        task: what to do, as keywords.
        threads: for whoever reads their number from the environment; None leaves them their own choice.
        cores: that it may use; None is all.
        spins: wait after each turn until OpenBLAS's threads sleep.
    """

    def __init__(
        self,
        module: str,
        name: str,
        task: Mapping[str, Any],
        *,
        threads: int | None = None,
        cores: int | None = None,
        spins: bool = False,
    ) -> None:
        self.name, self.threads = name, threads
        self.seconds: list[float] = []
        """Of each turn."""
        self.peak = 0
        """Bytes of memory, the most so far."""
        self._spins = spins
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "contender.py"), json.dumps((module, name, task, cores))],
            env=environment(**dict.fromkeys(THREADS, str(threads)) if threads else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def answer(self) -> Any:
        """What it says next: after the turn that warms it up what came out, after any other the seconds."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended: {self._process.communicate()[1]}")
        said, self.peak = json.loads(line)
        return said

    def go(self) -> float:
        """Let it take a turn."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.seconds.append(float(self.answer()))
        if self._spins:
            time.sleep(SPINNING)
        return self.seconds[-1]


def alternate(turns: Sequence[Callable[[], float]], rounds: int = ROUNDS) -> list[list[float]]:
    """The seconds that each turn says it took, in every round; every other round goes backwards."""
    taken: list[list[float]] = [[] for _ in turns]
    for number in range(rounds):
        order = range(len(turns)) if number % 2 == 0 else reversed(range(len(turns)))
        for index in order:
            taken[index].append(turns[index]())
    return taken


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """A turn that calls a function and says how many seconds it took."""

    def turn() -> float:
        began = time.perf_counter()
        function()
        return time.perf_counter() - began

    return turn


@dataclass(frozen=True)
class Spread:
    """The median of some figures and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        low, median, high = statistics.quantiles(figures, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Pair:
    """Two contenders of a race, to be compared."""

    ours: str
    other: str
    aim: float = 0
    """How many times as fast ours ought to be; 0 where nobody asks."""


@dataclass(frozen=True)
class Race:
    """Seconds of contenders that took turns at the same thing."""

    name: str
    seconds: Mapping[str, Sequence[float]]
    """Contender → those of each round."""
    pairs: Sequence[Pair]
    unit: str = "ms"
    amount: float = 0
    """What a turn did, such as so many tokens, for a figure in ``unit`` per second; 0 for milliseconds a turn."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Contender → what stands behind its figure, such as its threads."""

    def rate(self, seconds: float) -> float:
        """Seconds as a figure in ``unit``."""
        return self.amount / seconds if self.amount else 1000 * seconds

    def ratio(self, pair: Pair) -> Spread:
        """How many times as fast ours is, round by round, so that a machine that drifts cancels out."""
        both = zip(self.seconds[pair.ours], self.seconds[pair.other], strict=True)
        return Spread.of([other / ours for ours, other in both])

    def json(self) -> dict[str, Any]:
        """All that is known of it; pairs of whom one did not take part are left out."""
        present = [pair for pair in self.pairs if pair.ours in self.seconds and pair.other in self.seconds]
        return {
            "name": self.name,
            "unit": self.unit,
            "figures": {
                name: {
                    **asdict(Spread.of([*map(self.rate, seconds)])),
                    "setting": self.settings.get(name, ""),
                    "seconds": [round(one, 6) for one in seconds],
                }
                for name, seconds in self.seconds.items()
            },
            "ratios": [{**asdict(pair), **asdict(self.ratio(pair))} for pair in present],
        }
