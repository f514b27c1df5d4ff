"""Sweeps without a command line: tiny trials, trained one after the other in the process of the tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.store.folder import Store
from stages.config import RunConfig
from stages.pipeline import run as pipeline
from stages.pipeline.settings import load
from stages.sweep import worker
from stages.sweep.search import prepare, search
from stages.sweep.space import configurations
from stages.sweep.trial import Trial
from stages.sweep.worker import Answer, Job

if TYPE_CHECKING:
    from stages.pipeline.decide import Upstream

Walk = Callable[[RunConfig], pipeline.Walk]


def silent(done: float, total: float, figures: str) -> None:
    """Progress that nobody sees."""


def in_turn(jobs: Sequence[Job]) -> Iterator[tuple[int, Answer]]:
    """Do jobs here and now, one after the other."""
    for position, job in enumerate(jobs):
        yield position, worker.train(job)


@pytest.fixture
def store(tiny: Path) -> Store:
    return Store(tiny.parent / "store")


@pytest.fixture
def walk(store: Store) -> Walk:
    """A walk over the stages of a configuration, here and now."""

    def begin(config: RunConfig) -> pipeline.Walk:
        def perform(name: str, upstream: Upstream) -> pipeline.Outcome:
            return pipeline.perform(name, config, upstream, store, silent)

        return pipeline.Walk(perform)

    return begin


@pytest.fixture
def trials(tiny: Path) -> Callable[..., list[Trial]]:
    """The trials of a space, ``trials("train.layers=1,2", settings=("train.epochs=3",))``."""

    def make(*vary: str, settings: Sequence[str] = ()) -> list[Trial]:
        return [Trial(*found) for found in configurations(load(str(tiny), None, settings), vary)]

    return make


@pytest.fixture
def sweep(trials: Callable[..., list[Trial]], walk: Walk, store: Store) -> Callable[..., list[Trial]]:
    """Sweep a space here and now; its trials, the best first."""

    def call(
        *vary: str,
        settings: Sequence[str] = (),
        keep: float = 0.5,
        workers: Callable[[Sequence[Job]], Iterator[tuple[int, Answer]]] = in_turn,
    ) -> list[Trial]:
        made = trials(*vary, settings=settings)
        prepare(made, walk)
        return search(made, keep, store, workers, silent)

    return call


@pytest.fixture
def job(trials: Callable[..., list[Trial]], walk: Walk, store: Store) -> Callable[..., Job]:
    """What a process is asked to train, ``job("train.epochs=3")``, with all that it is trained on in the store."""

    def make(*settings: str) -> Job:
        (trial,) = trials("train.seed=0", settings=settings)
        prepare([trial], walk)
        own = worker.code(trial.config.train)
        return Job(trial.config.model_dump_json(), trial.upstream, str(store.root), own)

    return make


@pytest.fixture
def trainings(store: Store) -> Callable[[], dict[int, list[str]]]:
    """The processes that train for this store: number → environment."""

    def find() -> dict[int, list[str]]:
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    command, environment = ((entry / name).read_bytes().decode() for name in ("cmdline", "environ"))
                except (OSError, UnicodeDecodeError):
                    continue
                if "\0stages.sweep.worker\0" in command and str(store.root) in command:
                    found[int(entry.name)] = environment.split("\0")
        return found

    return find


@pytest.fixture(scope="session")
def wait() -> Callable[[Callable[[], object]], None]:
    """Wait until something is so."""

    def until(what: Callable[[], object]) -> None:
        deadline = time.monotonic() + 90
        while not what():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    return until
