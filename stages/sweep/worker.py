"""One training of a sweep in a process of its own, and several of them side by side, here or on a Dask cluster.

Each process is a fresh one, so that none sees another's MXNet, its share of the cores is set before MXNet is loaded,
and one that dies takes nothing with it. It puts its checkpoint down when it is asked to stop, or is left alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from data.errors import ConfigError, Interrupted, RnnlmError, StoreError, TrainingError
from data.store import fingerprint
from data.store.folder import Store
from stages.config import RunConfig
from stages.pipeline import run as pipeline
from stages.pipeline.decide import decide
from stages.pipeline.settings import parse
from stages.training import cores

SECONDS_BETWEEN_LOOKS = 0.5
"""How often a training looks whether it is to stop, and whether somebody still waits for it."""


@dataclass(frozen=True)
class Training:
    """What is to be trained, in plain words that go to any process of any machine."""

    config: str
    """A `RunConfig` as JSON."""
    tokens: str
    """The key of the artifact of `tokenize` to train on."""
    store: str
    threads: int


@dataclass(frozen=True)
class Answer:
    """What became of a training: the key of a model, or an error's class and its sentence."""

    key: str = ""
    ran: bool = False
    """Whether it was trained now; else the store had it."""
    error: str = ""
    sentence: str = ""


_STOPPED = Answer(error=Interrupted.__name__, sentence="it was stopped; what it has learnt is kept")
Perform = Callable[[Training, Callable[[], bool]], Answer]
"""`train_apart`, or something around it."""
Train = Callable[[Sequence[tuple[RunConfig, str]]], Iterator[tuple[int, Answer]]]
"""Trains configurations, each on the tokens with a key, side by side: (position, answer) as they come."""


def jobs(asked: int | None, trials: int) -> int:
    """How many to train at a time: as many as are asked for, else one per core."""
    return min(asked or cores.available(), trials)


@contextmanager
def processes(store: Store, jobs: int, perform: Perform | None = None) -> Iterator[Train]:
    """Train on this machine, ``jobs`` at a time, each with its share of the cores; at the end all of them are over."""
    stop = threading.Event()

    def train(asked: Sequence[tuple[RunConfig, str]]) -> Iterator[tuple[int, Answer]]:
        trainings = _trainings(asked, store, max(1, cores.available() // min(jobs, len(asked))))
        return _answers([executor.submit(perform or train_apart, training, stop.is_set) for training in trainings])

    with ThreadPoolExecutor(jobs) as executor, _stopping(stop.set):
        yield train


@contextmanager
def cluster(store: Store, address: str) -> Iterator[Train]:
    """Train on the Dask cluster with this scheduler, one training per thread of its workers, of one core each.

    Raises:
        ConfigError: Dask is not installed, or nobody answers at the address.
    """
    try:
        from distributed import Client, Event, KilledWorker, Security
        from distributed.comm import connect
    except ImportError:
        raise ConfigError(
            "--dask needs Dask, which this project does not bring: `pip install distributed`, here and on the workers"
        ) from None
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what goes wrong is said here, in a sentence

    async def knock() -> None:
        (await connect(address, timeout=10, **Security().get_connection_args("client"))).abort()

    try:
        asyncio.run(knock())  # a client that never got through cannot be got rid of in silence
    except (OSError, ValueError) as error:
        raise ConfigError(f"--dask: no Dask scheduler answers at {address} ({error})") from None
    name = f"rnnlm-{secrets.token_hex(8)}"
    client = Client(address, set_as_default=False)
    executor = client.get_executor(pure=False)

    def train(asked: Sequence[tuple[RunConfig, str]]) -> Iterator[tuple[int, Answer]]:
        trainings = _trainings(asked, store, threads=1)
        return _answers([executor.submit(_on_cluster, training, name) for training in trainings], KilledWorker)

    def stop() -> None:
        with suppress(Exception):  # a cluster that has gone can be told nothing, and that was said
            Event(name, client).set()
            executor.shutdown(wait=False)
            client.close()

    with _stopping(stop):
        yield train


@contextmanager
def _stopping(stop: Callable[[], object]) -> Iterator[None]:
    """However it ends, what is under way puts its checkpoint down and ends too."""
    try:
        yield
    except Interrupted as interrupted:
        message = "the sweep was stopped and nothing is lost: the same command goes on from there"
        raise Interrupted(message, interrupted.signum) from None
    finally:
        stop()


def _trainings(asked: Sequence[tuple[RunConfig, str]], store: Store, threads: int) -> list[Training]:
    return [Training(config.model_dump_json(), tokens, str(store.root), threads) for config, tokens in asked]


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
        if answer.error == StoreError.__name__:
            raise StoreError(answer.sentence)
        if answer.error == Interrupted.__name__:
            raise Interrupted(answer.sentence, signal.SIGTERM)
        yield position[future], answer


def _on_cluster(training: Training, name: str) -> Answer:
    from distributed import Event

    def stopped() -> bool:
        try:
            return bool(Event(name).is_set())
        except Exception:  # whatever it is that has gone, nobody waits any more
            return True

    return train_apart(training, stopped)


def train_apart(training: Training, stopped: Callable[[], bool]) -> Answer:
    """Run the stage `train` in a process of its own, until ``stopped()``; none is needed for what the store has."""
    if stopped():
        return _STOPPED
    if known := _train(training, only_look=True):
        return known
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(training.threads),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(fingerprint.ROOT), os.environ.get("PYTHONPATH")))),
    }
    # Without -P a folder `stages` of the user's own would be taken for ours.
    command = [sys.executable, "-P", "-m", "stages.sweep.worker", json.dumps(asdict(training)), str(os.getpid())]
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for whoever waits for it
    ) as process:
        asked = False
        while True:
            try:
                said, complained = process.communicate(timeout=SECONDS_BETWEEN_LOOKS)
                break
            except subprocess.TimeoutExpired:
                if not asked and stopped():
                    process.terminate()
                    asked = True
    return _answer(process.returncode, said, complained)


def _answer(code: int, said: str, complained: str) -> Answer:
    """What a process meant that ended with this exit code."""
    if code == 0:
        return Answer(**json.loads(said.splitlines()[-1]))
    if code in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return _STOPPED
    if code < 0:
        name = signal.Signals(-code).name
        return Answer(
            error=TrainingError.__name__,
            sentence=f"its process was ended by {name}: where memory is short, fewer jobs or a smaller model need less",
        )
    raise RuntimeError(f"a training ended with exit code {code}:\n{complained}")


def main() -> None:
    """What runs in the process; the last line that it prints is its `Answer`."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda signum, frame: sys.exit(128 + signum))
    training, parent = Training(**json.loads(sys.argv[1])), int(sys.argv[2])
    threading.Thread(target=_mind, args=(parent,), daemon=True).start()
    answer = _train(training)
    assert answer is not None
    print(json.dumps(asdict(answer)))


def _train(training: Training, *, only_look: bool = False) -> Answer | None:
    """Train here and now; where that would be needed, None for who only looks."""
    store = Store(Path(training.store))
    try:
        tokens = store.find("tokenize", training.tokens)
        if tokens is None:
            raise StoreError(
                f"there is no store with the trials' tokens at {store.root}: the workers of a Dask cluster have to see "
                "the same store under the same path"
            )
        config, upstream = parse(json.loads(training.config)), {"tokenize": tokens}
        if only_look and decide("train", config, upstream, store).artifact is None:
            return None
        outcome = pipeline.perform("train", config, upstream, store, lambda done, total, figures: None)
    except RnnlmError as error:
        return Answer(error=type(error).__name__, sentence=str(error))
    return Answer(outcome.artifact.manifest.key, outcome.state == "ran")


def _mind(parent: int) -> None:
    """Stop, as if asked to, once nobody waits for the answer."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
