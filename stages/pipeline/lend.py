"""What the graph's entries say about one stage in code: what stands for a field in its key, and what it is lent.

A stage is *lent* what changes no byte of its result, only how long that takes: an earlier download that may still be
what an address has, the checkpoints of an interrupted training, the engine that its key names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.corpus import address, catalogue
from data.corpus.encoding import codec
from data.errors import StoreError
from data.store import fingerprint, kernel
from stages.training import engines

if TYPE_CHECKING:
    from data.progress import Watch
    from data.store.folder import Store
    from stages.config import DownloadConfig, TrainConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """One execution of a stage, before it begins."""

    config: Any
    components: Mapping[str, Any]
    """Of its key."""
    folders: Mapping[str, Path]
    """Keyword → folder of the input."""
    store: Store
    forced: bool
    """Whether the user asked to run it although it is cached."""
    waiting: Callable[[], None]
    """To be called once where another process has to be waited for."""
    dask: str = ""
    """The Dask cluster that the user named for the work on parts of a text; empty for none."""
    watching: Callable[[str, int], Watch] | None = None
    """Of a training's key and the number of one of its networks, from 0 on: who is told of each epoch."""


Lend = Callable[[Attempt], AbstractContextManager[dict[str, Any]]]
"""What a stage's function is given by keyword, for as long as the context holds."""


@contextmanager
def nothing(attempt: Attempt) -> Iterator[dict[str, Any]]:
    """What most stages are lent."""
    yield {}


# --- download


def corpus(config: DownloadConfig) -> dict[str, str | None]:
    """What stands for a corpus in the key: the digest of its bytes where it can be known beforehand, else its address
    without secrets, the headers without any, and the label of the day, which tells one content of an address from
    another. And one name for an encoding, which has several."""
    encoding = codec(config.encoding)
    identity = catalogue.resolve(config.corpus).identity
    if identity.startswith("sha256:"):
        return {"corpus": identity, "headers": None, "as_of": None, "encoding": encoding}
    headers = "; ".join(address.plain_headers(config.headers)) or None
    return {"corpus": identity, "headers": headers, "as_of": config.as_of, "encoding": encoding}


@contextmanager
def previous_download(attempt: Attempt) -> Iterator[dict[str, Any]]:
    """The last sound download of the same corpus, so that an unchanged one costs a request; none that a night found
    unfit."""
    from data.store import nights

    store, unfit = attempt.store, nights.refused(attempt.store)
    corpus, headers = address.identity(attempt.config.corpus), attempt.components["sources"].get("headers")
    read = {name: getattr(attempt.config, name) for name in ("encoding", "text_column", "order_column")}
    before = {name: type(attempt.config).model_fields[name].default for name in read}
    found = (
        artifact
        for artifact in store.artifacts("download")
        if address.identity(str(artifact.manifest.config.get("corpus"))) == corpus
        and artifact.manifest.components.get("sources", {}).get("headers") == headers
        and {name: artifact.manifest.config.get(name, default) for name, default in before.items()} == read
        and artifact.manifest.key not in unfit
    )
    whole = (one.folder for one in found if not store.damage(one, again=True) and _says_whence(one.folder))
    yield {"previous": None if attempt.forced else next(whole, None)}


def _says_whence(folder: Path) -> bool:
    from stages.pipeline import sound

    try:
        sound.source(folder)
    except StoreError:
        return False
    return True


# --- tokenize


@contextmanager
def workers(attempt: Attempt) -> Iterator[dict[str, Any]]:
    """Those of a cluster, if one is named, for the passes over the text."""
    yield _spread(attempt, "corpus")


def _spread(attempt: Attempt, *inputs: str) -> dict[str, Any]:
    if not attempt.dask:
        return {}

    from stages.pipeline import spread

    return {"spread": partial(spread.spread, attempt=attempt, inputs=inputs)}


# --- train

MIXING = "stages.training.mixing"
"""Loaded by those trainings alone that ask for it, and in no other's key."""


def computing(config: TrainConfig) -> dict[str, str | None]:
    """What stands for engine and device in the key: what they come down to on this machine."""
    choice = engines.choose(config)
    return {"device": choice.device.kind, "engine": choice.name}


def lost(config: TrainConfig, components: Mapping[str, Any], store: Store) -> str:
    """That a training has begun and would not be gone on with, in a sentence; empty where none has."""
    from stages.pipeline import begun

    return begun.lost(config, components, store)


@contextmanager
def training(attempt: Attempt) -> Iterator[dict[str, Any]]:
    """An engine, the checkpoints of each network of this training, who watches it, and what counts n-grams, if it is
    to.

    Raises:
        FormatError: a newer version has begun it, and is not kept from going on.
    """
    from stages.pipeline import begun
    from stages.training import checkpoint

    choice, identities = engines.choose(attempt.config), begun.identities(attempt.config, attempt.components)
    # Runs of different lengths share their checkpoints, and the longer one goes on where the shorter one ended.
    with ExitStack() as held:
        for identity in sorted(identities):  # by whoever wants several of them in the same order
            held.enter_context(attempt.store.lock("checkpoints", identity, attempt.waiting))
        checkpoints = [attempt.store.checkpoints(identity) for identity in identities]
        if choice.reason:
            logger.info("%s", choice.reason)
        for folder in checkpoints:
            checkpoint.refuse_newer(folder)
        if attempt.forced:
            for folder in checkpoints:
                kernel.rmtree(folder, ignore_errors=True)  # to train again is to begin again
        elif said := begun.lost(attempt.config, attempt.components, attempt.store):
            logger.info("%s", said)
        for number, folder in enumerate(checkpoints):
            begun.note(folder, attempt.config, attempt.components, number)
        mixing = {"mixing": import_module(MIXING).Mixing} if attempt.config.ngram else {}
        watching = attempt.watching and partial(attempt.watching, fingerprint.digest(attempt.components))
        lent = {"checkpoints": checkpoints[0], "beside": checkpoints[1:], "engine": choice.build, "watching": watching}
        yield lent | mixing


# --- evaluate


@contextmanager
def evaluation(attempt: Attempt) -> Iterator[dict[str, Any]]:
    """What this evaluation had measured when it was interrupted, which is gone once it is published; and the workers of
    a cluster, if one is named."""
    checkpoints = attempt.store.checkpoints(fingerprint.digest(attempt.components))
    if attempt.forced:
        kernel.rmtree(checkpoints, ignore_errors=True)
    yield {"checkpoints": checkpoints, **_spread(attempt, "model", "tokens")}
    kernel.rmtree(checkpoints, ignore_errors=True)
