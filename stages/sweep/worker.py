"""One training of a sweep, in a process of its own.

The process is a fresh one, so that its share of the cores is set before an engine is loaded, and if it dies it takes
nothing with it. It puts its checkpoint down when it is asked to stop, or is left alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from data.errors import Interrupted, RnnlmError, StoreError, TrainingError
from data.store import fingerprint, mirror
from data.store.folder import open_store
from data.tables.tokens import IndexTable
from stages.lm.model import LanguageModel
from stages.pipeline import decide, graph
from stages.pipeline.run import perform, still_as_loaded
from stages.pipeline.settings import parse
from stages.training import signals

if TYPE_CHECKING:
    from data.store.artifact import Artifact
    from data.store.folder import Store
    from stages.config import RunConfig, TrainConfig

SECONDS_BETWEEN_LOOKS = 0.5
"""How often a training looks whether it is to stop, and whether somebody still waits for it."""


@dataclass(frozen=True)
class Job:
    """What a process is asked to train, in plain values that go to any process of any machine."""

    config: str
    """A `RunConfig` as JSON."""
    upstream: dict[str, str]
    """What to train on: stage → key of its artifact, of each stage that `train` reads."""
    store: str
    """The folder of the store, which has these artifacts and takes the model."""
    code: str
    """`code` of whoever asks: a model of other code is none that could be compared with the rest."""
    remote: str = ""
    """The address of the store's remote, from which another machine brings these artifacts; empty where it has none."""
    threads: int = 1
    """How many cores it may use."""
    measured: bool = False
    """Whether the model is to be measured on the whole validation split as well."""


@dataclass(frozen=True)
class Answer:
    """What became of a job: the key of a model, or an error's class and its sentence."""

    key: str = ""
    """The key of the artifact of `train`; empty where there is none."""
    ran: bool = False
    """Whether it was trained now; else the store had it."""
    loss: float | None = None
    """Nats per token of the whole validation split, as `evaluate` measures it; None where that was not asked for."""
    error: str = ""
    """The name of the error's class; empty where there is a model."""
    sentence: str = ""
    """The error's."""


Stopped = Callable[[], bool]
"""Whether a job is to stop."""
Do = Callable[[Job, Stopped], Answer]
"""`do`, or something around it."""
_STOPPED = Answer(error=Interrupted.__name__, sentence="it was stopped; what it has learnt is kept")


def code(config: TrainConfig) -> str:
    """A digest of the code that this process has loaded to train such a model."""
    return fingerprint.digest(fingerprint.code(*decide.modules(graph.STAGES["train"], config)))


def do(job: Job, stopped: Stopped) -> Answer:
    """Do a job in a process of its own, until ``stopped()``; none is needed for what the store has.

    Raises:
        RuntimeError: the process ended with an error of the program.
    """
    if stopped():
        return _STOPPED
    if reused := _reuse(job):
        return reused
    environment = {
        **os.environ,
        # For MXNet, which reads it while it is loaded. An engine whose bits depend on the number of threads takes one
        # that follows from the configuration alone, however many train side by side.
        "OMP_NUM_THREADS": str(job.threads),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(fingerprint.ROOT), os.environ.get("PYTHONPATH")))),
    }
    # Without -P a folder `stages` of the user's own would be taken for ours.
    command = [sys.executable, "-P", "-m", "stages.sweep.worker", json.dumps(asdict(job)), str(os.getpid())]
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
                out, err = process.communicate(timeout=SECONDS_BETWEEN_LOOKS)
                break
            except subprocess.TimeoutExpired:
                if not asked and stopped():
                    process.terminate()
                    asked = True
    return _answer(process.returncode, out, err)


def _answer(code: int, out: str, err: str) -> Answer:
    """What a process meant that printed this and ended with this exit code."""
    if code == 0:
        return Answer(**json.loads(out.splitlines()[-1]))
    if code in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return _STOPPED
    if code < 0:
        name = signal.Signals(-code).name
        return Answer(
            error=TrainingError.__name__,
            sentence=f"its process was ended by {name}: where memory is short, fewer jobs or a smaller model need less",
        )
    raise RuntimeError(f"a training ended with exit code {code}:\n{err}")


def _reuse(job: Job) -> Answer | None:
    """The answer that needs no training: the store has the model, or the job cannot be done; else None."""
    try:
        config, upstream, store = _read(job)
        decision = decide.decide("train", config, upstream, store)
        if decision.artifact is None:
            still_as_loaded(decision)  # a process that is started now would load something else
            return None
    except RnnlmError as error:
        return Answer(error=type(error).__name__, sentence=str(error))
    return train(job)


def train(job: Job) -> Answer:
    """Do a job here and now, unless the store has the model."""
    try:
        config, upstream, store = _read(job)
        outcome = perform("train", config, upstream, store, lambda done, total, figures: None)
        loss = _loss(outcome.artifact, upstream) if job.measured else None
    except RnnlmError as error:
        return Answer(error=type(error).__name__, sentence=str(error))
    return Answer(outcome.artifact.manifest.key, outcome.state == "ran", loss)


def _loss(model: Artifact, upstream: Mapping[str, Artifact]) -> float:
    tokens = upstream[graph.STAGES["train"].inputs["tokens"].stage].folder / "tokens.arrow"
    table = IndexTable.open(tokens)
    return LanguageModel.load(model.folder).held_out(table.split("train")).loss(table.split("valid"))


def _read(job: Job) -> tuple[RunConfig, dict[str, Artifact], Store]:
    """The configuration that a job is about, what it is trained on, and the store."""
    store = open_store(job.store, job.remote)
    upstream = {}
    for stage, key in job.upstream.items():
        artifact, damage = mirror.obtain(store, stage, key) if job.remote else (store.find(stage, key), "")
        if artifact is None or damage:
            raise StoreError(
                f"there is no store with the trials' tokens at {store.root}: the workers of a Dask cluster have to see "
                "the same store under the same path, or the same remote"
            )
        upstream[stage] = artifact
    config = parse(json.loads(job.config))
    if code(config.train) != job.code:
        raise StoreError(
            "the code of train is not the same in this sweep and in a process that trains for it, so that models would "
            "not compare: run it again where all have the same files, and what was finished is kept"
        )
    return config, upstream, store


def main() -> None:
    """What runs in the process; the last line that it prints is its `Answer`."""
    for signum in signals.ending():
        signal.signal(signum, lambda signum, frame: sys.exit(128 + signum))
    job, parent = Job(**json.loads(sys.argv[1])), int(sys.argv[2])
    threading.Thread(target=_mind, args=(parent,), daemon=True).start()
    print(json.dumps(asdict(train(job))))


def _mind(parent: int) -> None:
    """Stop, as if asked to, once nobody waits for the answer."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
