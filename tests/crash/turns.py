"""Two to four processes take turns at every call, by a seed; now and then one is killed, or the machine stops."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from greenlet import getcurrent, greenlet

from data.errors import RnnlmError
from tests.crash.cuts import Seen, begun, choices
from tests.crash.disk import Disk
from tests.crash.scenes import (
    KilledError,
    Scene,
    Steps,
    collect,
    first,
    followed,
    nothing,
    promote,
    reigning,
    reject,
    replace,
    rollback,
    trained,
    waiting,
)
from tests.crash.world import BEST, BETTER, MODEL, OTHER, PAGES, World, living


def build(world: World) -> None:
    world.build(MODEL)


def build_better(world: World) -> None:
    world.build(OTHER)
    world.build(BETTER)


def promote_elsewhere(world: World) -> None:
    world.promote(BEST, "other")


def tidy(world: World) -> None:
    """Remove what was killed, and nothing that was used in the last month."""
    world.collect(days=30)


def train(world: World) -> None:
    world.train()


def note(world: World) -> None:
    world.note()


def read(world: World) -> None:
    world.read(MODEL)


def write(world: World) -> None:
    world.write(PAGES[0])


def write_longer(world: World) -> None:
    world.write(PAGES[1])


THEMES: tuple[tuple[tuple[Steps, ...], tuple[Steps, ...]], ...] = (
    ((nothing, trained), (build, replace, collect)),
    ((reigning, followed), (first, promote, rollback, reject)),
    ((waiting,), (first, collect, promote)),
    ((reigning, followed), (promote_elsewhere, collect, first, rollback)),
    ((nothing, followed), (build, build_better, tidy)),
    ((nothing, followed), (train, collect, tidy)),
    ((nothing, reigning), (note, note, collect)),
    ((trained, reigning), (write, write_longer, collect)),
    ((nothing, trained, waiting), (read, read, collect, replace)),
    (
        (nothing, trained, reigning, followed),
        (build, replace, build_better, first, rollback, collect, tidy, train, note),
    ),
)
"""What was before, and what processes do at once, so that they meet in the same places."""
MAY_END = (first, promote, promote_elsewhere, rollback)
"""What may end in a sentence: the model has gone, or there is none to go back to."""


MOMENTS = ("flock", "utime", "rename")
"""Calls at which a process becomes faster or slower: it is between them that another one may come."""


@dataclass
class Process:
    """A process, how fast it is beside others at the moment, and whether it waits for a lock."""

    speed: float = 1.0
    life: greenlet = field(default_factory=lambda: greenlet(lambda: None))
    waiting: bool = False


@dataclass
class Turns:
    """Processes on one disk, of which one after the other has its turn.

    Args:
        seed: of all that is left to chance.
        seen: the states that were looked at so far.
        most: ways in which a power cut may come out that are looked at, each time.
    """

    seed: int
    seen: Seen
    most: int

    def run(self) -> int:
        """Let them all come to their end, if they do; how many turns there were.

        Raises:
            AssertionError: a promise was not kept, nobody could go on, or a process ended in what is no sentence.
        """
        rng = random.Random(self.seed)
        before, steps = THEMES[self.seed % len(THEMES)]
        world = begun(Scene("", rng.choice(before), nothing))
        self.disk, self.ledger, self.rng = world.disk, world.ledger, rng
        self.alive = [Process() for _ in range(rng.randint(2, 4))]
        self.gone: list[Process] = []
        each = rng.sample(steps, min(len(steps), len(self.alive)))
        for process, step in zip(self.alive, [*each, *each], strict=False):
            process.life = greenlet(self._life([step, *(rng.choice(steps) for _ in range(rng.randint(0, 2)))]))
        self.disk.before, self.disk.waits, self.disk.freed = self._asked, self._waits, self._woken
        turns = 0
        with living(self.disk):
            while self.alive:
                turns += 1
                self._turn()
                if rng.random() < 0.02:
                    self._look()
                if rng.random() < 0.002 and self.alive:
                    self._kill(rng.choice(self.alive))
            self._look()
            for process in self.gone:
                if process.life:  # has begun
                    process.life.throw(KilledError)
        return turns

    def _life(self, steps: list[Steps]) -> Callable[[], None]:
        def live() -> None:
            world = World(self.disk, self.ledger)
            for step in steps:
                try:
                    step(world)
                except RnnlmError as error:
                    if step not in MAY_END:
                        raise AssertionError(f"{step.__name__} ended in: {error}") from error
                except KilledError:
                    return

        return live

    def _turn(self) -> None:
        able = [process for process in self.alive if not process.waiting]
        assert able, "each waits for the other"
        (process,) = self.rng.choices(able, [process.speed for process in able])
        self.disk.process = process
        process.life.switch()
        if process.life.dead:
            self._over(process)

    def _over(self, process: Process) -> None:
        self.alive.remove(process)
        self.ledger.work = {what: who for what, who in self.ledger.work.items() if who is not process}
        self.disk.killed(process)
        self._woken()

    def _kill(self, process: Process) -> None:
        self.gone.append(process)
        self._over(process)

    def _woken(self) -> None:
        for process in self.alive:
            process.waiting = False

    def _asked(self, call: str, path: object) -> None:
        """A process asks for something, and others may have their turn before it is answered."""
        process = self.disk.process
        if process in self.gone or process not in self.alive:
            raise KilledError
        if call in MOMENTS:
            process.speed = 4 ** self.rng.uniform(0, 5)
        self._pass_on()

    def _waits(self) -> None:
        assert isinstance(self.disk.process, Process)
        self.disk.process.waiting = True
        self._pass_on()

    def _pass_on(self) -> None:
        parent = getcurrent().parent
        assert parent is not None
        parent.switch()

    def _look(self) -> None:
        disk = self.disk
        cut = Disk(kept=disk.kept, pending=[*disk.pending])
        for chosen in choices(tuple(disk.pending), self.most, self.rng):
            try:
                self.seen.look(cut.image(chosen), self.ledger.promise, tuple(self.ledger.made))
            except AssertionError as error:
                raise AssertionError(f"seed {self.seed}, of {disk.pending} {chosen}: {error}") from error
