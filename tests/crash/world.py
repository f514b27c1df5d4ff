"""A store on a disk in memory, small writers in place of its stages, what it promises, and whether that is kept."""

from __future__ import annotations

import functools
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from data.errors import RnnlmError
from data.store import artifact, cache, champions, collect, files, fingerprint, locks, mirror, nights, reading, reigns
from data.store.artifact import Artifact
from data.store.files import created
from data.store.folder import Store
from data.store.manifest import Manifest
from stages.training import checkpoint
from stages.training.engine import EngineState
from tests.crash.disk import Disk, copied, used
from tests.crash.service import remote

ROOT = Path("/disk/store")
MOMENT = "2026-11-28T00:00:00+00:00"
TRAINING = "7" * 64
_GENERATOR = np.random.PCG64(0).state
NOBODY = frozenset({""})
PAGE = ROOT / "index.html"
PAGES = (b"a page", b"a longer page")


@dataclass(frozen=True)
class Thing:
    """An artifact that a small writer makes, always with the same bytes."""

    stage: str
    name: str
    files: tuple[tuple[str, bytes], ...]
    parents: tuple[Thing, ...] = ()

    @property
    def manifest(self) -> Manifest:
        return _manifest(self)

    @property
    def key(self) -> str:
        return self.manifest.key


@functools.cache
def _manifest(thing: Thing) -> Manifest:
    components = {"stage": thing.stage, "name": thing.name}
    return Manifest.model_validate(
        {
            "stage": thing.stage,
            "key": fingerprint.digest(components),
            "components": components,
            "outputs": {
                name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in thing.files
            },
            "config": {},
            "parents": {parent.stage: parent.key for parent in thing.parents},
            "created": MOMENT,
        }
    )


CORPUS = Thing("download", "corpus", (("corpus.txt", b"a text"),))
OTHER = Thing("download", "other", (("corpus.txt", b"another text"),))
MODEL = Thing("train", "model", (("config.json", b"{}"), ("weights", b"0123")), (CORPUS,))
BETTER = Thing("train", "better", (("config.json", b"{}"), ("weights", b"4567")), (OTHER,))
BEST = Thing("train", "best", (("config.json", b"{}"), ("weights", b"89ab")), (CORPUS,))
THINGS = (CORPUS, OTHER, MODEL, BETTER, BEST)
MODELS = {thing.key: thing for thing in THINGS if thing.stage == champions.STAGE}


@dataclass(frozen=True)
class Promise:
    """What a process was told that is so, and may not be otherwise whatever happens from then on.

    Attributes:
        there: artifacts that are there and sound.
        champions: name → keys of which one is that champion's, "" for none; a name that is not here has none.
        reigns: names, and keys of models that were promoted under them.
        checkpoint: the epoch from which a training goes on at least.
        nights: how many were noted, at least.
    """

    there: frozenset[Thing] = frozenset()
    champions: tuple[tuple[str, frozenset[str]], ...] = ()
    reigns: frozenset[tuple[str, str]] = frozenset()
    checkpoint: int = 0
    nights: int = 0

    def champion(self, name: str) -> frozenset[str]:
        """Keys of which one is that champion's."""
        return dict(self.champions).get(name, NOBODY)

    def with_champion(self, name: str, keys: Iterable[str]) -> Promise:
        """The same, but for one champion."""
        return replace(self, champions=tuple(sorted({**dict(self.champions), name: frozenset(keys)}.items())))


@dataclass
class Ledger:
    """What all processes were promised so far, and what is made."""

    promise: Promise = field(default_factory=Promise)
    made: dict[Thing, None] = field(default_factory=dict)
    """What was made so far, and what that was made from."""
    changing: Counter[str] = field(default_factory=Counter)
    """Name → how many processes are at changing that champion."""
    collecting: int = 0
    """How many are at removing what is not needed."""
    work: dict[str, object] = field(default_factory=dict)
    """What only one may be at at a time → the process that is."""

    def note(self, **facts: Any) -> None:
        """Something is promised from now on."""
        self.promise = replace(self.promise, **facts)


@dataclass
class World:
    """A process with its store, and what it does there."""

    disk: Disk
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        self.store = Store(ROOT, remote(self.disk))

    def build(self, thing: Thing, *, forced: bool = False) -> Artifact:
        """What `stages.pipeline.run.perform` does about an artifact."""
        self.ledger.made |= dict.fromkeys((*thing.parents, thing))
        if forced and not self.disk.exchanges:
            self.ledger.note(there=self.ledger.promise.there - {thing})
        made = None if forced else self.found(thing)
        if made is None:
            with self.store.lock(thing.stage, thing.key, _nothing):
                made = None if forced else self.found(thing)
                made = made or mirror.bring(self.store, thing.stage, thing.key)
                if made is None:
                    with self._working(thing.name), self.store.building(thing.stage, thing.key) as place:
                        for name, content in thing.files:
                            with created(place / name) as write:
                                write(content)
                        made = mirror.send(self.store, self.store.publish(place, thing.manifest), instead=forced)
                    if not self.ledger.collecting:
                        self.ledger.note(there=self.ledger.promise.there | {thing})
        return made

    def found(self, thing: Thing) -> Artifact | None:
        """The artifact if it is there and sound, which is used from now on."""
        found = self.store.find(thing.stage, thing.key)
        sound = found is not None and self.store.damage(found) is None and self.store.touch(found)
        return found if sound else None

    def read(self, thing: Thing) -> None:
        """What a walk does: make it, and what it is made from, and read all of these to the end."""
        held = list[locks.Hold | None]()
        for one in (*thing.parents, thing):
            while True:
                with suppress(FileNotFoundError):  # it was collected as it was made
                    held.append(locks.hold(self.build(one).folder))
                    break
        for one in (*thing.parents, thing):
            for name, content in one.files:
                found = reading.read(self.store.folder(one.stage, one.key) / name)
                assert found == content, f"{one.name} is another one to who reads it"

    def promote(self, thing: Thing, name: str = "default") -> None:
        with self._changing(name, thing.key):
            champions.promote(self.store, thing.key, "it is better", {}, name=name)
        self.ledger.note(reigns=self.ledger.promise.reigns | {(name, thing.key)})

    def rollback(self, name: str = "default") -> None:
        """Go back to the champion before this one, which nothing keeps for whoever is at removing."""
        if self.ledger.collecting:
            self.ledger.note(there=frozenset())
        with self._changing(name, *NOBODY, *MODELS):
            champions.rollback(self.store, "it is worse", name=name)

    def reject(self, thing: Thing, over: Thing) -> None:
        champions.reject(self.store, thing.key, over.key, "it is no better")

    @contextmanager
    def _working(self, what: str) -> Iterator[None]:
        """While this holds, nobody else may be at the same work."""
        assert what not in self.ledger.work, f"two processes work on {what}"
        self.ledger.work[what] = self.disk.process
        try:
            yield
        finally:
            self.ledger.work.pop(what, None)

    def push(self) -> None:
        """What `rnnlm push` does."""
        for thing in self.ledger.made:
            mirror.share(self.store, thing.stage, thing.key)
        for name in reigns.names(self.store):
            champions.publish(self.store, name)

    def pull(self) -> None:
        """What `rnnlm pull` does."""
        for name in reigns.names(self.store):
            reign = champions.current(self.store, name)
            for thing in _lineage({reign.model} if reign else ()):
                artifact, damage = mirror.obtain(self.store, thing.stage, thing.key)
                if artifact and not damage:
                    self.ledger.note(there=self.ledger.promise.there | {thing})

    @contextmanager
    def _changing(self, name: str, *keys: str) -> Iterator[None]:
        """While this holds the champion may be any of these, or what it was or what others make it."""
        ledger, before = self.ledger, self.ledger.promise.champion(name)
        ledger.promise = ledger.promise.with_champion(name, {*before, *keys})
        ledger.changing[name] += 1
        try:
            yield
        except RnnlmError as error:
            now = before if "so the champion stays" in str(error) else ledger.promise.champion(name)
            self._changed(name, now)
            raise
        self._changed(name, {self.disk.quietly(_champion, self.store, name)})

    def _changed(self, name: str, keys: Iterable[str]) -> None:
        self.ledger.changing[name] -= 1
        if not self.ledger.changing[name]:
            self.ledger.promise = self.ledger.promise.with_champion(name, keys)

    def collect(self, days: float = 0) -> None:
        """Remove all that is not needed: what was promised of anything else ends here."""
        promise, ledger = self.ledger.promise, self.ledger
        if not days:
            certain = {key for _, keys in promise.champions for key in keys if len(keys) == 1}
            needed = _lineage(certain)
            ledger.note(there=promise.there & needed, checkpoint=0)
        ledger.collecting += not days
        try:
            collect.collect(self.store, days=days, finished=[TRAINING[:16]], checkpoints=not days)
        finally:
            ledger.collecting -= not days

    def train(self) -> None:
        """Write the checkpoint of the next epoch."""
        with self.store.lock("checkpoints", TRAINING, _nothing), self._working("training"):
            self._train()

    def _train(self) -> None:
        folder = self.store.checkpoints(TRAINING)
        before = checkpoint.latest(folder, 99)
        epoch = before[0].epoch + 1 if before else 1
        history = {name: [float(epoch)] * epoch for name in checkpoint.FIGURES}
        train = checkpoint.TrainState(_GENERATOR, epoch, history=history)
        weights = {"weight": np.full(2, epoch, np.float32)}
        checkpoint.write(folder, train, EngineState(parameters=weights, averages={}, moments={}, recurrent={}))
        if not self.ledger.collecting:
            self.ledger.note(checkpoint=epoch)

    def write(self, page: bytes) -> None:
        """Write the page of the nights, which no lock of a caller's is held for."""
        files.replace(PAGE, page, ROOT)

    def note(self) -> None:
        night = nights.NightRecord(when=MOMENT, name="default", decision="unchanged", reason="it is the same text")
        nights.add(self.store, night)
        self.ledger.note(nights=self.ledger.promise.nights + 1)


def check(disk: Disk, promise: Promise, things: Sequence[Thing]) -> None:
    """Open the store again, as the next process does, and see that nothing is lost; then rerun and collect.

    Raises:
        AssertionError: something promised is not so.
    """
    world = World(disk)
    store = world.store
    sound = {thing for thing in things if (found := store.find(thing.stage, thing.key)) and _is(found, thing, store)}
    for thing in promise.there:
        assert thing in sound, f"{thing.name} was published, and is gone or damaged"
    before = _champions(store, promise)
    for key in filter(None, before.values()):
        had = MODELS[key] in sound or not mirror.obtain(store, champions.STAGE, key)[1]
        assert had, "a champion is gone or damaged"
    restored = checkpoint.latest(store.checkpoints(TRAINING), 99)
    epoch = restored[0].epoch if restored else 0
    assert epoch >= promise.checkpoint, f"training begins after epoch {epoch}, and had come to {promise.checkpoint}"
    assert not restored or restored[1].parameters["weight"][0] == epoch, "a checkpoint is another one"
    assert len(nights.read(store, "default")) >= promise.nights, "a night is gone"
    with suppress(FileNotFoundError):
        assert reading.read(PAGE) in PAGES, "a page is half there"

    if store.remote:
        _elsewhere(before, disk)
    for thing in things:
        if thing not in sound:
            assert _is(world.build(thing), thing, store), f"{thing.name} was made again and is damaged"
    world.collect()
    left = [path for place in ("tmp", "checkpoints") for path in store.entries(place)]
    left += [path for place in ("", "champions", "nights") for path in store.entries(place) if path.suffix == ".new"]
    assert not left, f"gc has left {left}"
    assert _champions(store, promise) == before, "gc has moved a champion"
    there = {path for stage in store.stages() for path in store.folders(stage)}
    pinned = [reign.model for name in before for reign in champions.history(store, name) if not reign.withdrawn]
    needed = {store.folder(thing.stage, thing.key) for thing in _lineage(pinned)}
    assert there == needed, "gc has taken what is needed, or left what is not"


def _elsewhere(keys: Mapping[str, str], disk: Disk) -> None:
    """See that another machine, whose disk is empty, has all of what the remote promises."""
    image, kept = disk.seen, disk.kept
    disk.seen, disk.kept = copied(image), copied(kept)
    disk.rmtree(ROOT, ignore_errors=True)
    store = Store(ROOT, remote(disk))
    for name in reigns.names(store):
        reign = champions.current(store, name)
        assert reign, f"the champion {name} has gone on another machine"
        for thing in _lineage({reign.model}):
            artifact, damage = mirror.obtain(store, thing.stage, thing.key)
            assert artifact, f"{thing.name} cannot be had on another machine"
            assert not damage, f"{thing.name} cannot be had on another machine: {damage}"
        assert reign.model == keys[name], f"the champion {name} is another one elsewhere"
    disk.seen, disk.kept, disk.pending = image, kept, []


def _is(found: Artifact, thing: Thing, store: Store) -> bool:
    """Whether an artifact is sound, which has to be said of nothing but that very thing."""
    sound = store.damage(found, again=True) is None
    assert not sound or found.manifest.outputs == thing.manifest.outputs, f"{thing.name} is another one"
    return sound


def _champions(store: Store, promise: Promise) -> dict[str, str]:
    """Name → the key of its champion, "" for none."""
    found = {}
    for name in {*reigns.names(store), *dict(promise.champions)}:
        found[name] = _champion(store, name)
        assert found[name] in promise.champion(name), f"the champion {name} is another one: {found[name]}"
        known = {(name, reign.model) for reign in champions.history(store, name)}
        assert {one for one in promise.reigns if one[0] == name} <= known, f"a promotion of {name} is gone"
    return found


def _champion(store: Store, name: str) -> str:
    reign = champions.current(store, name)
    return reign.model if reign else ""


def _lineage(models: Any) -> frozenset[Thing]:
    found = {MODELS[key] for key in models if key}
    return frozenset(found | {parent for thing in found for parent in thing.parents})


@contextmanager
def living(disk: Disk, *, fast: bool = False) -> Iterator[Disk]:
    """While this holds, stores live on this disk, by its clock and without chance.

    With ``fast`` nobody records what is asked of it, and of one content the same is said as the last time.
    """
    numbers = iter(range(fast << 31, 1 << 32))
    instead: list[tuple[Any, str, Any]] = [
        (time, "time", lambda: (disk.clock + 500_000) / 1e9),
        (secrets, "token_hex", lambda size: f"{next(numbers):08x}"),
        (cache, "get", lambda kind, name: None),
        (cache, "put", lambda kind, name, value: None),
        (cache, "sweep", lambda before: None),
        (champions, "now", lambda: MOMENT),
        (artifact, "parse", _manifests),
    ]
    read = (lambda path, largest=0: disk.content(path)) if fast else _READ
    instead += [
        (reading, "digest", (lambda path: _sha256(disk.content(path))) if fast else _DIGEST),
        *((module, "read", read) for module in (reading, artifact, checkpoint)),
        (reigns, "_parsed", _records if fast else _PARSED),
    ]
    with ExitStack() as stack:
        stack.enter_context(used(disk))
        for thing, name, new in instead:
            stack.enter_context(patch.object(thing, name, new))
        yield disk


_READ, _DIGEST, _PARSED = reading.read, reading.digest, reigns._parsed
_manifests, _records = functools.cache(artifact.parse), functools.cache(reigns._parsed)


@functools.cache
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _nothing() -> None:
    pass
