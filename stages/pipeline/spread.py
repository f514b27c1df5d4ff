"""The passes over the parts of a text, made by the workers of a Dask cluster: they give what this process would.

A worker reads the text where it sees the same store, or has it from the same remote. What a pass leaves for the next
one is on its own disk; a part goes to where it was before, and whoever else gets it reads it again. So a worker that
is killed has nothing that is missed. What comes out goes straight to whoever asks, a few parts at a time.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data import cluster
from data.corpus import parts
from data.errors import CorpusError, StoreError
from data.store import fingerprint, loaded, mirror
from data.store.artifact import Artifact
from data.store.folder import open_store
from stages.pipeline import decide, graph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from distributed import Client, Future

    from data.corpus.parts import Part, Pass
    from stages.pipeline.lend import Attempt

Result = TypeVar("Result")

LONGEST = 4 * parts.BOUND
"""Bytes of a part that a worker is given: what comes of a longer one, a text without line ends, is no message."""
ALIVE = 30.0
"""Seconds without any worker after which nobody waits for one."""
AHEAD = 2
"""Parts for each core of the cluster that are under way: one is read, what came of another is on its way here."""


@dataclass(frozen=True)
class Errand:
    """What every worker is told."""

    name: str
    """Of this one run of a stage."""
    stage: str
    """Which is run."""
    read: tuple[tuple[str, str], ...]
    """Stage and key of each artifact that is read."""
    store: str
    """The folder of the store."""
    remote: str
    """The address of its remote; empty where it has none."""
    code: str
    """`code` of whoever asks: other code, or other libraries, may make something else of a text."""
    libraries: tuple[str, ...]
    """Distributions that the stage's result depends on."""


def code(stage: str, libraries: Iterable[str]) -> str:
    """A digest of the code that this process has loaded to run a stage, and of the versions of libraries."""
    found = fingerprint.code(graph.STAGES[stage].function.__module__)
    return fingerprint.digest([found, {library: decide.version(library) for library in libraries}])


@contextmanager
def spread(folder: Path, *, attempt: Attempt, inputs: Sequence[str]) -> Iterator[Pass]:
    """Passes over a text, made by the workers of the cluster that somebody named.

    Args:
        folder: of whoever asks, for what is left there for a later pass; and for the workers' files, where they are
            processes of this machine.
        attempt: the stage that asks.
        inputs: keywords of those that are read.

    Raises:
        ConfigError: there is no such cluster.
        StoreError: it went away, its workers died, or they have other code or do not see the text.
    """
    artifacts = [_artifact(attempt.folders[name]) for name in inputs]
    stage, libraries = attempt.components["stage"], tuple(attempt.components["libraries"])
    remote = attempt.store.remote.address if attempt.store.remote else ""
    errand = Errand(
        name=f"rnnlm-{secrets.token_hex(8)}",
        stage=stage,
        read=tuple((one.manifest.stage, one.manifest.key) for one in artifacts),
        store=str(attempt.store.root),
        remote=remote,
        code=code(stage, libraries),
        libraries=libraries,
    )
    with cluster.client(attempt.dask, scratch=folder) as client:
        try:
            yield partial(_map, client, errand, {}, folder)
        finally:
            with suppress(Exception):  # what a worker that has gone has left, goes with its scratch folder
                _cores(client)
                client.run(_forget, errand, on_error="ignore")


def _artifact(folder: Path) -> Artifact:
    artifact = Artifact.read(folder)
    if artifact is None:
        raise StoreError(f"{folder} has gone: run again")
    return artifact


def _map(
    client: Client,
    errand: Errand,
    homes: dict[int, str],
    folder: Path,
    function: Callable[..., Result],
    some: Sequence[Part],
    /,
    *columns: Iterable[Any],
) -> Iterator[Result]:
    """One pass; ``homes`` says which worker has had a part, and is kept up."""
    # It holds a vocabulary: sent once, made again by Dask wherever it is lost, and not part of every message.
    with _reached():
        held = client.submit(_same, function, key=f"{errand.name}-{secrets.token_hex(4)}")

    def begin(part: Part, *values: Any) -> Callable[[], Result]:
        if part.stop - part.start > LONGEST:
            return partial(function, part, *values, folder=folder)
        home = {"workers": [homes[part.start]], "allow_other_workers": True} if part.start in homes else {}
        with _reached():
            future = client.submit(_do, errand, held, part, *values, pure=False, **home)
        return partial(_result, client, future, part, homes)

    begun = (begin(*of) for of in zip(some, *columns, strict=False))
    return parts.ahead(begun, lambda: max(AHEAD * _cores(client), 2))


def _result(client: Client, future: Future, part: Part, homes: dict[int, str]) -> Any:
    """What came of a part, and in ``homes`` where."""
    from distributed import KilledWorker

    seen = time.monotonic()
    while True:
        try:
            with _reached():
                homes[part.start], result = future.result(timeout=ALIVE / 10)
            return result
        except TimeoutError:
            if _cores(client):
                seen = time.monotonic()
            elif time.monotonic() - seen > ALIVE:
                raise StoreError(
                    f"the Dask cluster has had no worker for {ALIVE:g} seconds: start some with `dask worker`; nothing "
                    "is lost, and the same command begins this stage again"
                ) from None
        except KilledWorker:
            raise StoreError(
                "the Dask workers that had one part of the text died, one after the other: where memory is short, they "
                "need more, or fewer of them on one machine"
            ) from None
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in loaded.PACKAGES:
                raise
            raise StoreError(
                "the Dask workers do not have rnnlm: install this version of it where they and the scheduler run"
            ) from None


def _cores(client: Client) -> int:
    """Of the workers that there are now."""
    with _reached():
        if client.status != "running":  # it would go on trying, and what was under way is lost to it by then
            raise ConnectionError
        return sum(client.ncores().values())


@contextmanager
def _reached() -> Iterator[None]:
    """Whoever gives a cluster work, and asks what came of it, finds it there."""
    from distributed import CancelledError

    try:
        yield
    except TimeoutError:
        raise  # nothing came yet
    except (CancelledError, OSError):
        raise StoreError(
            "the Dask cluster went away and nothing is lost: the same command begins this stage again"
        ) from None


# --- on a worker


def _same(function: Callable[..., Result]) -> Callable[..., Result]:
    return function


def _do(errand: Errand, function: Callable[..., Result], part: Part, *values: Any) -> tuple[str, Result]:
    """The address of this worker, and what a function makes of a part."""
    from distributed import get_worker

    worker = get_worker()
    try:
        _see_that_all_is_the_same(errand)
        folder = _folder(errand, worker)
        folder.mkdir(exist_ok=True)
        return worker.address, function(part, *values, folder=folder)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise StoreError(
            f"a Dask worker on {socket.gethostname()} could not go on ({where}{error.strerror or error}): it has to "
            "read the store, and to have room for its share of the text in its `--local-directory`"
        ) from None


def _folder(errand: Errand, worker: Any) -> Path:
    return Path(worker.local_directory, errand.name)


def _forget(errand: Errand, dask_worker: Any) -> None:
    """Remove what an errand has left on a worker."""
    shutil.rmtree(_folder(errand, dask_worker), ignore_errors=True)


@cache
def _see_that_all_is_the_same(errand: Errand) -> None:
    """See, once, that this worker has the code of whoever asks, and what is read, which it brings from the remote."""
    module = graph.STAGES[errand.stage].function.__module__
    if fingerprint.edited(module) or code(errand.stage, errand.libraries) != errand.code:
        raise StoreError(
            f"the code of {errand.stage}, or a library of it, is not the same here and on the Dask worker on "
            f"{socket.gethostname()}: install the same there, and start the worker again"
        )
    store = open_store(errand.store, errand.remote)
    for one in errand.read:
        artifact = store.find(*one)
        if errand.remote:
            with store.lock(*one, lambda: None):  # one worker of a machine brings it for all
                artifact = store.find(*one)
                if artifact is None or store.damage(artifact):
                    artifact = mirror.bring(store, *one)
        if artifact is None:
            raise CorpusError(
                f"the Dask worker on {socket.gethostname()} sees no store with this text at {store.root}: all have to "
                "see the same store under the same path, or the same remote"
            )
