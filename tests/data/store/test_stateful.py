"""Anything in any order, by one process or another, killed or not, and the store answers what a plain model answers.

    RNNLM_ORDERS=20000 .venv/bin/pytest -n 0 tests/data/store/test_stateful.py        the long form, with another seed

Each order of steps goes through the real code on a disk in memory. What is not as the model says is shown with the
shortest order that leads there.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from data.errors import RnnlmError
from data.store import champions, locks
from data.store.artifact import MANIFEST, Artifact
from data.store.collect import collect
from data.store.files import created
from data.store.folder import Store
from tests.crash.disk import Disk, ways
from tests.crash.world import BEST, CORPUS, MODEL, ROOT, Thing, living
from tests.data.store.model import THINGS, Folder, Model, Process, RefusedError, Reigns, WaitError, Worker

# What hypothesis finds out about the code lies with what pytest keeps, and not in the clone.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parents[3] / ".pytest_cache" / "hypothesis"))

DAY = 86_400 * 10**9
DAMAGE = ("flip", "cut", "remove", "folder", "other", "newer")
RECORDS = {"default": ("champion.json",), "other": ("champions", "other.json")}

things = st.sampled_from(THINGS)
models = st.sampled_from([thing for thing in THINGS if thing.stage == champions.STAGE])
names = st.sampled_from(sorted(RECORDS))
processes = st.sampled_from((0, 1))


class KilledError(BaseException):
    """A process that is no more asks for something."""


@dataclass(frozen=True)
class Build:
    """Use an artifact, or make it."""

    thing: Thing
    forced: bool = False

    def real(self, store: Store, moment: str) -> str:
        thing = self.thing
        if not self.forced and Reuse(thing).real(store, moment):
            return "reused"
        with store.lock(thing.stage, thing.key, _nothing), store.building(thing.stage, thing.key) as place:
            _fill(store, place, thing, moment)
        return "made"

    def model(self, model: Model, who: int, moment: str) -> str:
        return model.build(self.thing, who, self.forced, _manifest(self.thing, moment), moment)


@dataclass(frozen=True)
class Reuse:
    """Use an artifact if it is there and sound."""

    thing: Thing

    def real(self, store: Store, moment: str) -> bool:
        found = store.find(self.thing.stage, self.thing.key)
        return found is not None and store.damage(found) is None and store.touch(found)

    def model(self, model: Model, who: int, moment: str) -> bool:
        return model.reuse(self.thing, who)


@dataclass(frozen=True)
class Verify:
    """Find an artifact, and say what is wrong with it; its content is read, or only where nobody knows it."""

    thing: Thing
    again: bool

    def real(self, store: Store, moment: str) -> str | None:
        found = store.find(self.thing.stage, self.thing.key)
        return "none" if found is None else store.damage(found, again=self.again)

    def model(self, model: Model, who: int, moment: str) -> str | None:
        return "none" if model.find(self.thing) is None else model.damage(self.thing, who, again=self.again)


@dataclass(frozen=True)
class Promote:
    """Make a model the champion."""

    thing: Thing
    name: str

    def real(self, store: Store, moment: str) -> None:
        champions.promote(store, self.thing.key, "it is better", {}, name=self.name)

    def model(self, model: Model, who: int, moment: str) -> None:
        model.promote(self.thing, self.name, who)


@dataclass(frozen=True)
class Rollback:
    """Go back to the champion before this one."""

    name: str

    def real(self, store: Store, moment: str) -> str:
        return champions.rollback(store, "it is worse", name=self.name).model

    def model(self, model: Model, who: int, moment: str) -> str:
        return model.rollback(self.name, who)


@dataclass(frozen=True)
class Collect:
    """Remove what nobody needs, as a command of its own does."""

    days: float
    keep: int = 0

    def real(self, store: Store, moment: str) -> dict[Thing, str]:
        places = {store.folder(thing.stage, thing.key): thing for thing in THINGS}
        removals = collect(Store(ROOT), days=self.days, keep=self.keep)
        return {places[one.folder]: one.fault for one in removals if one.folder in places}

    def model(self, model: Model, who: int, moment: str) -> dict[Thing, str]:
        return model.collect(self.days, self.keep)


Step = Build | Reuse | Verify | Promote | Rollback | Collect
builds = st.builds(Build, things, st.booleans())
collects = st.builds(Collect, st.sampled_from((0, 0.5, 1.5, 3.5)), st.sampled_from((0, 1)))
looks = st.builds(Reuse, things) | st.builds(Verify, things, st.booleans())
changes = st.builds(Promote, models, names) | st.builds(Rollback, names)
BEFORE: tuple[tuple[Step, ...], ...] = (
    (Build(CORPUS), Build(MODEL), Promote(MODEL, "default")),
    (*map(Build, THINGS),),
    (*map(Build, THINGS), Promote(MODEL, "default"), Promote(BEST, "default"), Promote(MODEL, "other")),
)


class Orders(RuleBasedStateMachine):
    """A store on a disk in memory, its model, and what may happen to both."""

    def __init__(self) -> None:
        super().__init__()
        self.disk, self.model, self.moments = Disk(), Model(), 0
        self.disk.mount({0: {ROOT.parts[1]: 1}, 1: {}})
        self.disk.waits = _would_wait
        self.life = ExitStack()
        self.life.enter_context(living(self.disk))
        told = logging.getLogger("data")
        self.life.callback(told.setLevel, told.level)
        told.setLevel(logging.ERROR)  # warnings are many
        self.stores = [Store(ROOT) for _ in self.model.processes]
        self.at_work: dict[Thing | None, tuple[ExitStack, Any]] = {}
        self.holds: dict[Thing, locks.Hold | None] = {}

    def teardown(self) -> None:
        self._all_end()
        self.life.close()

    @initialize(exchanges=st.booleans(), before=st.sampled_from(BEFORE))
    def begin(self, exchanges: bool, before: tuple[Step, ...]) -> None:
        self.disk.exchanges = self.model.exchanges = exchanges
        for step in before:
            self._step(step, 0)

    # --- steps of a process

    @rule(step=builds, who=processes)
    def build(self, step: Step, who: int) -> None:
        self._step(step, who)

    @rule(step=looks, who=processes)
    def look(self, step: Step, who: int) -> None:
        self._step(step, who)

    @rule(step=changes, who=processes)
    def change(self, step: Step, who: int) -> None:
        self._step(step, who)

    @rule(step=collects, who=processes)
    def collect(self, step: Step, who: int) -> None:
        self._step(step, who)

    def _step(self, step: Step, who: int) -> None:
        """A process does something, to its end."""
        moment = self._moment()
        with self._as("step"):
            self._same(lambda: step.model(self.model, who, moment), lambda: step.real(self.stores[who], moment), step)

    @rule(step=builds | changes | collects, who=processes, at=st.integers(1, 90))
    def killed(self, step: Step, who: int, at: int) -> None:
        """A process stops before one of its calls: what it asks for from then on comes to nothing."""
        moment, before, left = self._moment(), self.model.copy(), at

        def ask(call: str, path: object) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise KilledError

        self.disk.before = ask
        try:
            with self._as("step"):
                self._same(
                    lambda: step.model(self.model, who, moment), lambda: step.real(self.stores[who], moment), step
                )
        except KilledError:
            self.disk.killed("step")
            self.model.processes[who], self.stores[who] = Process(), Store(ROOT)
            self.model.came_out(before, self._places(), self._reigns())
        finally:
            self.disk.before = _nothing_asked

    # --- others

    @rule(thing=st.none() | things, builds=st.booleans())
    def set_out(self, thing: Thing | None, builds: bool) -> None:
        """Another process takes a lock, and begins to build what that is for."""
        if thing in self.at_work:
            return
        store, stack, place = Store(ROOT), ExitStack(), None
        with self._as(_worker(thing)):
            stage, key = (thing.stage, thing.key) if thing else ("champion", "")
            stack.enter_context(store.lock(stage, key, _nothing))
            if thing and builds:
                place = stack.enter_context(store.building(stage, key))
        self.at_work[thing] = stack, place
        self.model.workers[thing] = Worker(self.model.today if place else None)

    @precondition(lambda self: self.at_work)
    @rule(data=st.data(), dies=st.booleans())
    def end(self, data: st.DataObject, dies: bool) -> None:
        """It comes to its end, and publishes what it has built; or is killed."""
        thing = data.draw(st.sampled_from(sorted(self.at_work, key=str)))
        stack, place = self.at_work[thing]
        if dies:
            self._dies(thing)
            return
        moment = self._moment()
        with self._as(_worker(thing)):
            if thing and place:
                self._same(
                    lambda: self.model.publish(thing, _manifest(thing, moment), moment),
                    lambda: _fill(Store(ROOT), place, thing, moment) and None,
                    "publish",
                )
            stack.close()
        del self.at_work[thing], self.model.workers[thing]

    @rule(thing=things)
    def use(self, thing: Thing) -> None:
        """Another process uses the files of an artifact, or has used them."""
        if self.holds.pop(thing, None):
            self.model.held.discard(thing)
        elif thing in self.model.places:
            with self._as("reader"):
                self.holds[thing] = locks.hold(Store(ROOT).folder(thing.stage, thing.key))
            self.model.held.add(thing)

    # --- what happens to a disk

    @rule(days=st.integers(1, 2))
    def days_pass(self, days: int) -> None:
        self.disk.clock += days * DAY
        self.model.today += days

    @precondition(lambda self: any(self.model.places.values()))
    @rule(number=st.integers(0, 2), file=st.integers(0, 2), how=st.sampled_from(DAMAGE))
    def damage(self, number: int, file: int, how: str) -> None:
        """A file is not what it was, or its manifest another one's or a newer version's."""
        there = [thing for thing in THINGS if self.model.places.get(thing)]
        thing = there[number % len(there)]
        folder = self.model.places[thing]
        name = sorted(folder)[file % len(folder)] if how not in ("other", "newer") else MANIFEST
        content = folder.get(name)
        if content is None:
            return
        if how == "newer":
            content = content.replace(b'"format": 1', b'"format": 2')
            with suppress(ValueError):
                if json.loads(content)["format"] == 2:
                    self.model.newer.add(content)
        elif how == "other":
            content = _manifest(THINGS[THINGS.index(thing) - 1], "2026-11-28T0")
        elif how == "flip":
            content = bytes([content[0] ^ 1]) + content[1:]
        elif how == "cut":
            content = content[: len(content) // 2]
        if how == "remove":
            del folder[name]
        else:
            folder[name] = None if how == "folder" else content
        self._write(Store(ROOT).folder(thing.stage, thing.key) / name, how != "remove", folder.get(name))

    @rule(name=names, how=st.sampled_from(("cut", "remove")))
    def damage_champions(self, name: str, how: str) -> None:
        """The record of champions is cut, or removed by who was told to."""
        if self.model.reigns[name] != []:
            self.model.reigns[name] = [] if how == "remove" else None
            self._write(ROOT.joinpath(*RECORDS[name]), how != "remove", b'{"reigns": [')

    @rule(chance=st.integers(0, 1 << 16))
    def power_cut(self, chance: int) -> None:
        """The machine stops, and of what was not synced nothing lasts (0), all (1), or some."""
        rng = random.Random(chance)
        chosen = [chance if chance < 2 else rng.choice(ways(change)) for change in self.disk.pending]
        image = self.disk.image(chosen)
        self._all_end()
        self.disk.mount(image)
        self.model.cut(self._places(), self._reigns())
        self.stores = [Store(ROOT) for _ in self.stores]

    # --- what has to be so at any time

    @invariant()
    def answers(self) -> None:
        """A new process finds what the model says, and the disk holds no more and no less."""
        assert self._places() == self.model.places
        assert self._reigns() == self.model.reigns
        store = Store(ROOT)
        found = [(one.manifest.key, one.manifest.created) for one in store.artifacts()]
        assert found == [(thing.key, self.model.find(thing)) for thing in self.model.artifacts()]
        for thing in THINGS:
            self._same(partial(self.model.find, thing), partial(_moment, store, thing), "find")
            if thing in self.model.artifacts():
                self._same(partial(self.model.damage, thing), partial(_damage, thing), "damage")
        for name in RECORDS:
            self._same(partial(self.model.champion, name), partial(_champion, store, name), "champion")

    # --- how it is done

    def _same(self, model: Callable[[], object], real: Callable[[], object], what: object) -> None:
        """See that both answer the same, also where that is an error."""
        refused: RefusedError | WaitError | None = None
        told: RnnlmError | WaitError | None = None
        expected = answer = None
        try:
            expected = model()
        except (RefusedError, WaitError) as error:
            refused = error
        try:
            answer = real()
        except (RnnlmError, WaitError) as error:
            told = error
        if isinstance(refused, RefusedError):
            assert type(told) is refused.kind, f"{what} is told {told!r}, and not: {refused!r}"
            assert refused.words in str(told), f"{what} is told {told!r}, and not: {refused!r}"
        else:
            assert type(told) is type(refused), f"{what} is told {told!r}, and not: {refused!r}"
            assert answer == expected, f"{what} answers {answer}, and not {expected}"
            if isinstance(what, Collect) and told is None:
                self._swept()

    def _swept(self) -> None:
        """See that nothing of those who were killed is left."""
        locked = {handle.inode for handle in self.disk.handles.values() if handle.lock}
        tmp = self._node(("tmp",))
        left = [name for name, inode in tmp.items() if inode not in locked] if isinstance(tmp, dict) else []
        for folder in (self._node(()), self._node(("champions",))):
            left += [name for name in folder if name.endswith(".new")] if isinstance(folder, dict) else []
        assert not left, f"gc has left {left}"

    def _moment(self) -> str:
        self.moments += 1
        return f"2026-11-28T{self.moments:06}"

    @contextmanager
    def _as(self, process: object) -> Iterator[None]:
        before, self.disk.process = self.disk.process, process
        try:
            yield
        finally:
            self.disk.process = before

    def _dies(self, thing: Thing | None) -> None:
        """A process that is at work is killed."""
        stack, _ = self.at_work.pop(thing)
        del self.model.workers[thing]
        self.disk.killed(_worker(thing))
        self.disk.before = _dead
        with suppress(KilledError):
            stack.close()
        self.disk.before = _nothing_asked

    def _all_end(self) -> None:
        for thing in [*self.at_work]:
            self._dies(thing)
        self.holds.clear()

    def _write(self, path: Any, there: bool, content: bytes | None) -> None:
        """Change what lies on the disk, and nobody's time."""
        self.disk.settle()
        self.model.settle()
        folder = self._node(path.parent.relative_to(ROOT).parts)
        assert isinstance(folder, dict)
        if not there:
            del folder[path.name]
        elif content is None:
            self.disk._inodes = folder[path.name] = self.disk._inodes + 1
            self.disk.seen[folder[path.name]] = {}
        else:
            self.disk.seen[folder[path.name]] = content
        self.disk.settle()

    def _node(self, parts: tuple[str, ...]) -> dict[str, int] | bytes | None:
        node: Any = self.disk.seen[0]
        for part in (*ROOT.parts[1:], *parts):
            if part not in node:
                return None
            node = self.disk.seen[node[part]]
        return node  # type: ignore[no-any-return]

    def _places(self) -> dict[Thing, Folder]:
        """What lies in the places of artifacts."""
        found: dict[Thing, Folder] = {}
        for thing in THINGS:
            node = self._node((thing.stage, thing.key[:16]))
            if isinstance(node, dict):
                each = {name: self.disk.seen[inode] for name, inode in node.items()}
                found[thing] = {name: one if isinstance(one, bytes) else None for name, one in each.items()}
        return found

    def _reigns(self) -> dict[str, Reigns]:
        """What the records of champions hold."""
        found: dict[str, Reigns] = {}
        for name, path in RECORDS.items():
            content = self._node(path)
            try:
                reigns = json.loads(content)["reigns"] if isinstance(content, bytes) else []
            except ValueError:
                found[name] = None
            else:
                found[name] = [(one["model"], one["withdrawn"] is not None) for one in reigns]
        return found


def _fill(store: Store, place: Any, thing: Thing, moment: str) -> Artifact:
    """Write the files of an artifact, and publish it."""
    for name, content in thing.files:
        with created(place / name) as write:
            write(content)
    return store.publish(place, thing.manifest.model_copy(update={"created": moment}))


def _manifest(thing: Thing, moment: str) -> bytes:
    return f"{thing.manifest.model_copy(update={'created': moment}).model_dump_json(indent=1)}\n".encode()


def _moment(store: Store, thing: Thing) -> str | None:
    found = store.find(thing.stage, thing.key)
    return found.manifest.created if found else None


def _damage(thing: Thing) -> str | None:
    store = Store(ROOT)
    found = store.find(thing.stage, thing.key)
    assert found is not None
    return store.damage(found)


def _champion(store: Store, name: str) -> str | None:
    reign = champions.current(store, name)
    return reign.model if reign else None


def _worker(thing: Thing | None) -> str:
    return f"at work on {thing.name if thing else 'the champion'}"


def _nothing() -> None:
    pass


def _nothing_asked(call: str, path: object) -> None:
    pass


def _dead(call: str, path: object) -> None:
    raise KilledError


def _would_wait() -> None:
    raise WaitError


ORDERS = int(os.environ.get("RNNLM_ORDERS", "0"))
Orders.TestCase.settings = settings(
    max_examples=ORDERS or 40,
    stateful_step_count=30,
    derandomize=not ORDERS,
    database=None,
    deadline=None,
    suppress_health_check=[*HealthCheck],
)
TestOrders = Orders.TestCase
