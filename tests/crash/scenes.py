"""What a store goes through in a crash: each scene begins on a settled disk and ends with nothing left to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from data.store import kernel
from tests.crash.world import BEST, BETTER, CORPUS, MODEL, OTHER, ROOT, World

Steps = Callable[[World], None]


class KilledError(BaseException):
    """A process that is no more asks for something."""


@dataclass(frozen=True)
class Scene:
    """Some steps, and those before them that are long over."""

    name: str
    before: Steps
    steps: Steps
    exchanges: bool = True
    """Whether the file system can swap two folders."""
    remote: bool = False
    """Whether the store has one."""


def nothing(world: World) -> None:
    """A new store."""


def trained(world: World) -> None:
    world.build(CORPUS)
    world.build(MODEL)


def waiting(world: World) -> None:
    """Two models, and no champion yet."""
    trained(world)
    world.build(OTHER)
    world.build(BETTER)


def reigning(world: World) -> None:
    trained(world)
    world.promote(MODEL)
    world.build(OTHER)
    world.build(BETTER)


def succeeded(world: World) -> None:
    reigning(world)
    world.promote(BETTER)


def followed(world: World) -> None:
    succeeded(world)
    world.build(BEST)
    world.train()


def publish(world: World) -> None:
    world.build(CORPUS)
    world.build(MODEL)


def beside(world: World) -> None:
    world.build(BEST)


def replace(world: World) -> None:
    """Make an artifact again, which is exchanged."""
    world.build(MODEL, forced=True)


def promote(world: World) -> None:
    world.promote(BETTER)


def first(world: World) -> None:
    world.promote(MODEL)


def other_name(world: World) -> None:
    world.promote(MODEL, "other")
    world.promote(BETTER, "other")


def rollback(world: World) -> None:
    world.rollback()


def reject(world: World) -> None:
    world.reject(BETTER, MODEL)


def collect(world: World) -> None:
    world.collect()


@contextmanager
def killed() -> Iterator[None]:
    """Be killed as the champion's record has its name, and before the disk has that."""
    rename = kernel.rename

    def last(one: Path, other: Path) -> None:
        rename(one, other)
        raise KilledError

    with suppress(KilledError), patch.object(kernel, "rename", last):
        yield


def collect_behind(world: World) -> None:
    """What is needed no more by a record that the disk may not have."""
    with killed():
        world.rollback()
    world.collect()


def promote_behind(world: World) -> None:
    """What is the champion already by such a record."""
    with killed():
        world.promote(BETTER)
    world.promote(BETTER)


def checkpoints(world: World) -> None:
    for _ in range(4):
        world.train()


def night(world: World) -> None:
    world.note()
    world.note()


def apart(world: World) -> None:
    """The remote is a new one."""
    world.store.remote = None
    reigning(world)


def pushed(world: World) -> None:
    reigning(world)
    world.push()


def push(world: World) -> None:
    world.push()


def there_and_back(world: World) -> None:
    world.promote(BETTER)
    world.rollback()


def moved(world: World) -> None:
    """All is on the remote, and the disk is a new one."""
    pushed(world)
    kernel.rmtree(ROOT)
    world.ledger.note(there=frozenset())


def pull(world: World) -> None:
    world.pull()


def whole(world: World) -> None:
    """A night as it goes."""
    world.build(OTHER)
    world.train()
    world.train()
    world.build(BETTER)
    world.promote(BETTER)
    world.note()
    world.collect()


SCENES = (
    Scene("publish into a new store", nothing, publish),
    Scene("publish beside others", reigning, beside),
    Scene("replace an artifact", trained, replace),
    Scene("replace a champion", reigning, replace),
    Scene("replace without an exchange", trained, replace, exchanges=False),
    Scene("promote the first", trained, first),
    Scene("promote the next", reigning, promote),
    Scene("promote under another name", reigning, other_name),
    Scene("roll back", followed, rollback),
    Scene("reject", reigning, reject),
    Scene("collect", followed, collect),
    Scene("collect behind somebody who was killed", succeeded, collect_behind),
    Scene("promote behind somebody who was killed", reigning, promote_behind),
    Scene("collect without champions", trained, collect),
    Scene("write checkpoints", nothing, checkpoints),
    Scene("write checkpoints beside a store", reigning, checkpoints),
    Scene("note nights", reigning, night),
    Scene("a night", reigning, whole),
    Scene("a first night", trained, whole),
    Scene("push", apart, push, remote=True),
    Scene("a night with a remote", pushed, whole, remote=True),
    Scene("replace with a remote", pushed, replace, remote=True),
    Scene("roll back with a remote", pushed, there_and_back, remote=True),
    Scene("pull", moved, pull, remote=True),
)
