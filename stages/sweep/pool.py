"""Several trainings of a sweep at a time, on this machine or on a Dask cluster."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import replace

from data.cluster import client
from data.errors import FormatError, Interrupted, StoreError, TrainingError
from stages.sweep import worker
from stages.sweep.worker import Answer, Do, Job
from stages.training import cores, signals

Workers = Callable[[Sequence[Job]], Iterator[tuple[int, Answer]]]
"""Do jobs side by side: (position of the job, answer), each as it comes."""


def at_a_time(asked: int | None, trials: int) -> int:
    """How many to train at a time: as many as are asked for, else one per core."""
    return min(asked or cores.available(), trials)


@contextmanager
def processes(at_a_time: int, do: Do = worker.do) -> Iterator[Workers]:
    """Train on this machine, each training with its share of the cores; at the end all of them are over.

    Args:
        at_a_time: how many.
        do: how one is done.
    """
    stop = threading.Event()

    def workers(jobs: Sequence[Job]) -> Iterator[tuple[int, Answer]]:
        threads = max(1, cores.available() // min(at_a_time, len(jobs)))
        return _answers([executor.submit(do, replace(job, threads=threads), stop.is_set) for job in jobs])

    with ThreadPoolExecutor(at_a_time) as executor, _stopping(stop.set):
        yield workers


@contextmanager
def cluster(named: str) -> Iterator[Workers]:
    """Train on a Dask cluster, as `data.cluster.client` has it, one training per thread of its workers, of one core
    each.

    Raises:
        ConfigError: there is no such cluster.
    """
    with client(named) as whole:
        from distributed import Event, KilledWorker

        name = f"rnnlm-{secrets.token_hex(8)}"
        executor = whole.get_executor(pure=False)

        def workers(jobs: Sequence[Job]) -> Iterator[tuple[int, Answer]]:
            return _answers([executor.submit(_do_on_cluster, job, name) for job in jobs], KilledWorker)

        def stop() -> None:
            with suppress(Exception):  # a cluster that has gone can be told nothing, and that was said
                Event(name, whole).set()
                executor.shutdown(wait=False)

        with _stopping(stop):
            yield workers


def _do_on_cluster(job: Job, name: str) -> Answer:
    """Do a job on a worker of the cluster, until the event of this name is set."""
    from distributed import Event

    def stopped() -> bool:
        try:
            return bool(Event(name).is_set())
        except Exception:  # whatever it is that has gone, nobody waits any more
            return True

    return worker.do(job, stopped)


@contextmanager
def _stopping(stop: Callable[[], object]) -> Iterator[None]:
    """However it ends, what is under way puts its checkpoint down and ends too."""
    try:
        yield
    except Interrupted as interrupted:
        if threading.current_thread() is threading.main_thread():
            for signum in signals.ending():
                signal.signal(signum, signal.SIG_IGN)  # asked twice it ends no sooner, and nobody may be left behind
        message = "the sweep was stopped and nothing is lost: the same command goes on from there"
        raise Interrupted(message, interrupted.signum) from None
    finally:
        stop()


def _answers(futures: Sequence[Future[Answer]], *died: type[Exception]) -> Iterator[tuple[int, Answer]]:
    """As they come; a future's error among ``died`` speaks of its own training only.

    Raises:
        Interrupted: somebody else has stopped one of them.
        StoreError: none could go on.
        TrainingError: the cluster is gone.
    """
    position = {future: number for number, future in enumerate(futures)}
    for future in as_completed(futures):
        try:
            answer = future.result()
        except died:
            sentence = "the Dask workers that trained it died: where memory is short, a smaller model needs less"
            answer = Answer(error=TrainingError.__name__, sentence=sentence)
        except CancelledError:
            raise TrainingError("the Dask cluster is gone and nothing is lost: the same command goes on") from None
        if answer.error in (StoreError.__name__, FormatError.__name__):
            raise StoreError(answer.sentence)
        if answer.error == Interrupted.__name__:
            raise Interrupted(answer.sentence, signal.SIGTERM)
        yield position[future], answer
