"""What a store has to answer, as plainly as it can be said: names and bytes in dictionaries, and days as numbers."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from data.errors import FormatError, StoreError
from data.store.artifact import MANIFEST
from data.store.removal import _USED
from tests.crash.world import BEST, CORPUS, MODEL, Thing

THINGS = (CORPUS, MODEL, BEST)
"""All that is ever made: a text, and two models of it."""

Folder: TypeAlias = "dict[str, bytes | None]"
"""The files of an artifact: name → content; None is a folder in a file's place."""
Reigns: TypeAlias = "list[tuple[str, bool]] | None"
"""The keys of the champions of a name, the newest last, and whether each was withdrawn; None of a damaged record."""


class WaitError(Exception):
    """A process would wait for another one."""


class RefusedError(Exception):
    """A process would be told so: the kind of an error, and words of its sentence."""

    def __init__(self, kind: type[Exception], words: str) -> None:
        super().__init__(kind, words)
        self.kind, self.words = kind, words


@dataclass
class Process:
    """One that lives on, and the artifacts that it has read before: a thing, and the manifest's moment."""

    verified: set[tuple[Thing, str]] = field(default_factory=set)


@dataclass
class Worker:
    """Another process that holds a lock, and maybe builds an artifact.

    Attributes:
        began: the day on which it set out to build; None where it only holds the lock.
    """

    began: int | None


@dataclass
class Model:
    """A store on a day.

    Attributes:
        places: thing → what lies in its place; nothing where it is not here.
        exchanges: whether two folders can be swapped; where not, a place is without one for a moment.
        used: thing → the day on which it was last used.
        manifests: what was ever published: thing, bytes of its manifest → the moment in it.
        held: things of which another process uses the files.
        workers: who is at work; None stands for the champion's lock.
        maybe: what a power cut may bring back, for it went and that was not synced: thing → what lay there.
        perhaps: the same of champions.
    """

    today: int = 0
    exchanges: bool = True
    places: dict[Thing, Folder] = field(default_factory=dict)
    used: dict[Thing, int] = field(default_factory=dict)
    manifests: dict[tuple[Thing, bytes | None], str] = field(default_factory=dict)
    newer: set[bytes | None] = field(default_factory=set)
    reigns: dict[str, Reigns] = field(default_factory=lambda: {"default": [], "other": []})
    held: set[Thing] = field(default_factory=set)
    workers: dict[Thing | None, Worker] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=lambda: [Process(), Process()])
    maybe: dict[Thing, list[Folder]] = field(default_factory=dict)
    perhaps: dict[str, list[Reigns]] = field(default_factory=dict)

    def copy(self) -> Model:
        """Another one, to be changed apart; things are shared."""
        return deepcopy(self, {id(thing): thing for thing in THINGS})

    # --- what is asked

    def find(self, thing: Thing) -> str | None:
        """The moment of the artifact that is found.

        Raises:
            RefusedError: a newer version's.
        """
        written = self.places.get(thing, {}).get(MANIFEST)
        if written in self.newer:
            raise RefusedError(FormatError, "of a newer version of rnnlm")
        return self.manifests.get((thing, written))

    def damage(self, thing: Thing, who: int | None = None, *, again: bool = False) -> str | None:
        """What is wrong with the files of an artifact that was found; who has read it before sees no other bytes."""
        mark = (thing, self.find(thing) or "")
        known = self.processes[who].verified if who is not None else set()
        for name, content in thing.files:
            there = self.places[thing].get(name, ...)
            if there is ...:
                return f"{name} is missing"
            if there is None:
                return f"{name} is no file"
            if len(there) != len(content):
                return f"{name} has {len(there)} bytes instead of {len(content)}"
            if there != content and (again or mark not in known):
                return f"the content of {name} is not what was published"
        known.add(mark)
        return None

    def artifacts(self) -> list[Thing]:
        """Those that can be read, the last created first."""
        found = {moment: thing for thing in self.places if (moment := self._moment(thing))}
        return [found[moment] for moment in sorted(found, reverse=True)]

    def _moment(self, thing: Thing) -> str | None:
        return self.manifests.get((thing, self.places[thing].get(MANIFEST)))

    def champion(self, name: str) -> str | None:
        """The key of the one that stands last."""
        return next((key for key, gone in reversed(self._record(name)) if not gone), None)

    def _record(self, name: str) -> list[tuple[str, bool]]:
        record = self.reigns[name]
        if record is None:
            raise RefusedError(StoreError, "does not say which model is the champion")
        return record

    # --- what is done

    def reuse(self, thing: Thing, who: int) -> bool:
        """Use an artifact if it is there and sound."""
        if self.find(thing) is None or self.damage(thing, who):
            return False
        self.used[thing] = self.today
        return True

    def build(self, thing: Thing, who: int, forced: bool, manifest: bytes, moment: str) -> str:
        """Use an artifact, or make it."""
        if not forced and self.reuse(thing, who):
            return "reused"
        if thing in self.workers:
            raise WaitError
        self.publish(thing, manifest, moment, who)
        return "made"

    def publish(self, thing: Thing, manifest: bytes, moment: str, who: int | None = None) -> None:
        """Put an artifact in its place, whatever is there but a newer version's."""
        self.find(thing)
        self.places[thing] = {**dict(thing.files), MANIFEST: manifest}
        self.used[thing] = self.today
        self.manifests[thing, manifest] = moment
        self.held.discard(thing)  # who uses it has the files of before
        self.maybe.pop(thing, None)
        if who is not None:
            self.processes[who].verified.add((thing, moment))

    def promote(self, thing: Thing, name: str, who: int) -> None:
        if (fault := self._fault(thing, who)) is not None:
            raise RefusedError(StoreError, f"its artifact {fault}")
        if None in self.workers:
            raise WaitError
        if self.champion(name) != thing.key:
            self._record(name).append((thing.key, False))
            self.maybe.pop(thing, None)
            self.perhaps.pop(name, None)

    def rollback(self, name: str, who: int) -> str:
        if None in self.workers:
            raise WaitError
        record = self._record(name)
        standing = [number for number, (_, gone) in enumerate(record) if not gone]
        if not standing:
            raise RefusedError(StoreError, "has no champion to go back from")
        goes = [standing.pop()]
        things = {thing.key: thing for thing in THINGS}
        while standing and self._fault(things[record[standing[-1]][0]], who) is not None:
            goes.append(standing.pop())
        if not standing:
            raise RefusedError(StoreError, "there is no champion to go back to")
        for number in goes:
            record[number] = (record[number][0], True)
        self.perhaps.pop(name, None)
        return record[standing[-1]][0]

    def _fault(self, thing: Thing, who: int) -> str | None:
        if self.find(thing) is None:
            return "is gone"
        damage = self.damage(thing, who, again=True)
        return None if damage is None else f"is damaged ({damage})"

    def collect(self, days: float, keep: int) -> dict[Thing, str]:
        """Remove what nobody needs: what is no artifact any more, or why it is there still."""
        if None in self.workers:
            raise WaitError
        pinned = {key for name in self.reigns for key, gone in self._record(name) if not gone}
        newer = {thing for thing, folder in self.places.items() if folder.get(MANIFEST) in self.newer}
        sound = {thing for thing in self.artifacts() if self.damage(thing) is None}
        latest = [thing for thing in self.artifacts() if thing in sound and thing.stage == "train"][:keep]
        begun = [worker.began for worker in self.workers.values() if worker.began is not None]
        needed = {
            thing
            for thing in sound
            if newer
            or thing in latest
            or thing in self.held
            or thing.key in pinned
            or self.today - self.used[thing] < days
            or any(self.used[thing] >= day for day in begun)
        }
        needed |= {parent for thing in needed for parent in thing.parents}
        answer = {}
        for thing in [*self.places]:
            if thing not in newer and not (thing in sound and thing in needed):
                answer[thing] = _USED if thing in self.workers or thing in self.held else ""
                if not answer[thing]:
                    self.maybe.setdefault(thing, []).append(self.places.pop(thing))
        return answer

    # --- what happens to it

    def settle(self) -> None:
        """All that was done has reached the disk."""
        self.maybe, self.perhaps = {}, {}

    def restarted(self) -> None:
        """Every process has ended."""
        self.held, self.workers = set(), {}
        self.processes = [Process() for _ in self.processes]

    def came_out(self, before: Model, places: dict[Thing, Folder], reigns: dict[str, Any]) -> None:
        """A process was killed in the middle: each thing is as before or as after it; which, is what lies there.

        Raises:
            AssertionError: something is neither.
        """
        for thing in THINGS:
            there = places.get(thing)
            known, now = before.places.get(thing), self.places.get(thing)
            between = there is None and known != now and not self.exchanges
            assert between or there in (known, now), f"{thing.name} is half there: {there}"
            _put(self.places, thing, there)
            if there == known:
                self.used[thing] = max(before.used.get(thing, 0), self.used.get(thing, 0))
                self.maybe[thing] = [*before.maybe.get(thing, [])]
                if thing in before.held:
                    self.held.add(thing)
            else:
                self.maybe[thing] = [*before.maybe.get(thing, []), known or {}, *([now] if between and now else [])]
        for name, record in reigns.items():
            assert record in (before.reigns[name], self.reigns[name]), f"the champions of {name} are half there"
            self.reigns[name] = record
            self.perhaps[name] = [*before.perhaps.get(name, []), before.reigns[name]]

    def cut(self, places: dict[Thing, Folder], reigns: dict[str, Any]) -> None:
        """After a power cut: what was promised is there, what was not may be, and what went may have come back in part.

        Raises:
            AssertionError: something promised is not so.
        """
        for thing in THINGS:
            there, known = places.get(thing), self.places.get(thing)
            back = any((there or {}).items() <= folder.items() for folder in self.maybe.get(thing, []))
            assert there == known or back, f"after a power cut {thing.name} is {there} instead of {known}"
            _put(self.places, thing, there)
            self.used[thing] = self.today
        for name, now in reigns.items():
            allowed = [self.reigns[name], *self.perhaps.get(name, [])]
            assert now in allowed, f"after a power cut the champions of {name} are {now} and none of {allowed}"
            self.reigns[name] = now
        self.settle()
        self.restarted()


def _put(places: dict[Thing, Folder], thing: Thing, folder: Folder | None) -> None:
    places.pop(thing, None)
    if folder is not None:
        places[thing] = folder
