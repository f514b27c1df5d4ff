"""Several jobs at a time: each one's share of the cores, and what ends them all."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from data.errors import Interrupted, StoreError
from stages.sweep import pool
from stages.sweep.worker import Answer, Job, Stopped
from stages.training import cores


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A sweep that ends leaves signals ignored, as its process ends with it; this one has more tests to run."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


JOBS = [Job(config="{}", upstream={}, store=str(number), code="") for number in range(3)]


@pytest.mark.parametrize(("at_a_time", "threads"), [(1, 8), (2, 4), (3, 2), (20, 2)])
def test_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch, at_a_time: int, threads: int) -> None:
    monkeypatch.setattr(cores, "available", lambda: 8)

    def do(job: Job, stopped: Stopped) -> Answer:
        return Answer(f"{job.store} on {job.threads}")

    with pool.processes(at_a_time, do) as workers:
        answers = dict(workers(JOBS))
    assert {position: answer.key for position, answer in answers.items()} == {
        position: f"{position} on {threads}" for position in range(3)
    }


def test_as_many_are_trained_at_a_time_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available", lambda: 8)
    assert pool.at_a_time(None, 20) == 8
    assert pool.at_a_time(3, 20) == 3
    assert pool.at_a_time(3, 2) == 2


def test_what_is_under_way_is_stopped_with_the_sweep() -> None:
    def do(job: Job, stopped: Stopped) -> Answer:
        while not stopped():
            pass
        return Answer()

    def interrupted() -> None:
        with pool.processes(2, do) as workers:
            workers(JOBS)
            raise Interrupted("interrupted", signal.SIGINT)

    with pytest.raises(Interrupted, match="the same command goes on from there") as caught:
        interrupted()
    assert caught.value.signum == signal.SIGINT


@pytest.mark.parametrize(("error", "raised"), [("StoreError", StoreError), ("Interrupted", Interrupted)])
def test_what_no_trial_could_go_on_with_ends_the_sweep(error: str, raised: type[Exception]) -> None:
    with pytest.raises(raised), pool.processes(1, lambda job, stopped: Answer(error=error)) as workers:
        list(workers(JOBS))


# --- Dask


def test_processes_of_this_machine_are_a_cluster() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(StoreError, match="the code of train is not the same"), pool.cluster("local:1") as workers:
        list(workers(JOBS))
