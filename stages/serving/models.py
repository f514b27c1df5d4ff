"""Which model each champion's name stands for, in memory, and followed as champions change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from data.errors import RnnlmError, StoreError
from data.moment import now
from data.store import champions, reigns
from data.store.artifact import Artifact
from data.store.naming import DEFAULT
from stages.serving import limits
from stages.serving.refused import Refused
from stages.serving.writer import Loaded

if TYPE_CHECKING:
    from data.store.folder import Store
    from stages.serving.metrics import Metrics

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Where names and models come from."""

    every: float
    """Seconds between two looks."""

    def keys(self) -> dict[str, str]:
        """Name → the key of its model now. Quick: no model is read.

        Raises:
            StoreError: nobody knows.
        """

    def found(self, name: str) -> tuple[str, Path]:
        """The key of the model of a name, which may have become another meanwhile, and its folder, verified.

        Raises:
            StoreError: one that is gone or damaged.
        """


class Fixed:
    """One model's folder, under the name that is meant where none is given."""

    every = limits.LOOKED

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keys(self) -> dict[str, str]:
        return {DEFAULT: str(self._folder)}

    def found(self, name: str) -> tuple[str, Path]:
        artifact = Artifact.read(self._folder)
        return artifact.manifest.key if artifact else self._folder.name, self._folder


class Champions:
    """The champions of a store; where the default name has none, the newest model.

    Args:
        opened: opens the store; again where its remote did not answer, which an open store does not ask a second time.
    """

    def __init__(self, opened: Callable[[], Store]) -> None:
        self._opened, self._store = opened, opened()
        self.every = limits.LOOKED if self._store.remote is None else limits.LOOKED_AFAR
        self._folders, self._newest = list[Path](), list[Artifact]()

    def keys(self) -> dict[str, str]:
        if self._store.remote is not None and not self._store.remote.answers:
            self._store = self._opened()
        store, found = self._store, dict[str, str]()
        for name in reigns.names(store):
            if reign := champions.current(store, name):
                found[name] = reign.model
        if DEFAULT not in found:
            folders = store.folders(champions.STAGE)
            if folders != self._folders:  # to read all that lies there takes long
                self._folders, self._newest = folders, store.artifacts(champions.STAGE)[:1]
            if self._newest:
                found = {DEFAULT: self._newest[0].manifest.key, **found}
        return found

    def found(self, name: str) -> tuple[str, Path]:
        artifact = champions.best(self._store, name)
        return artifact.manifest.key, artifact.folder


class Served(NamedTuple):
    """What a name stands for."""

    name: str
    since: str
    """When it began to be served, ISO 8601."""
    known: str
    """The key that the name stood for then. Of a newest model that is damaged the one before is loaded."""
    loaded: Loaded


class Models:
    """The models that are served, by name.

    Args:
        source: of them.
        metrics: which count swaps.
    """

    def __init__(self, source: Source, metrics: Metrics) -> None:
        self.served: Mapping[str, Served] = {}
        """By name. It is replaced, and never changed: it is read while a thread looks for newer ones."""
        self._source, self._metrics = source, metrics
        self._failed: dict[str, tuple[str, float]] = {}
        """Name → the key that could not be loaded, and when that was tried."""
        self._blind = False

    def begin(self) -> None:
        """Load them all.

        Raises:
            StoreError: none that can be served.
        """
        keys = self._source.keys()
        if not keys:
            self._source.found(DEFAULT)  # says what is missing
        for name, key in keys.items():
            try:
                self._load(name, key)
            except RnnlmError as error:
                if len(keys) == 1:
                    raise
                self._failed[name] = key, time.monotonic()
                logger.warning("%s is not served: %s", name, error)
        if not self.served:
            raise StoreError("none of the champions can be served, as said above: `rnnlm champion --all` lists them")

    def named(self, name: str) -> Served:
        """The model of a name.

        Raises:
            Refused: there is none.
        """
        if name not in self.served:
            there = ", ".join(self.served)
            raise Refused(404, f"there is no model {name!r}, but these: {there}", param="model", code="model_not_found")
        return self.served[name]

    async def follow(self) -> None:
        """See again and again which models are champions, and serve those; until it is cancelled."""
        while True:
            await asyncio.sleep(self._source.every)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Serve what is champion now. What is being written goes on with the model that it began with."""
        try:
            keys = self._source.keys()
            if not keys:  # a share that is not mounted looks like an empty store
                raise StoreError("there are none")
        except (RnnlmError, OSError) as error:
            if not self._blind:
                logger.warning("which models are champions cannot be seen, so nothing changes: %s", error)
            self._blind = True
            return
        self._blind = False
        for name in [*self.served]:
            if name not in keys and len(self.served) > 1:
                logger.info("%s is no longer served: it has no champion any more", name)
                self.served = {other: one for other, one in self.served.items() if other != name}
        for name, key in keys.items():
            if name in self.served and self.served[name].known == key:
                self._failed.pop(name, None)
                continue
            before, tried = self._failed.get(name, ("", 0.0))
            if before == key and time.monotonic() - tried < limits.AGAIN:
                continue
            try:
                self._load(name, key)
            except Exception as error:  # whatever it is, what is served goes on
                if before != key:
                    known = isinstance(error, RnnlmError)
                    logger.warning("%s goes on as it is: %s", name, error, exc_info=None if known else error)
                    self._metrics.failed_swaps.inc()
                self._failed[name] = key, time.monotonic()

    def _load(self, name: str, known: str) -> None:
        """Serve the model of a name from now on."""
        from stages.lm.model import LanguageModel

        key = known
        try:
            key, folder = self._source.found(name)
            loaded = next((one.loaded for one in self.served.values() if one.loaded.key == key), None)
            loaded = loaded or Loaded(key, LanguageModel.load(folder))
        except OSError as error:
            raise StoreError(f"the model {key[:16]} cannot be read: {error.strerror or error}") from None
        swapped = name in self.served
        self.served = {**self.served, name: Served(name, now("seconds"), known, loaded)}
        self._failed.pop(name, None)
        if swapped:
            self._metrics.swaps.inc()
            logger.info("%s is served by the model %s now", name, key[:16])
