"""Each call of a scene fails in turn, with each error that a system may answer."""

from __future__ import annotations

import errno
import os

from data.errors import RnnlmError
from tests.crash.cuts import Seen, begun
from tests.crash.scenes import Scene
from tests.crash.world import World, living

ERRORS = (errno.ENOSPC, errno.EIO, errno.EINTR, errno.EDQUOT, errno.EMFILE, errno.EROFS, errno.ENOLCK)


def calls(scene: Scene) -> int:
    """How many calls a scene makes."""
    return _run(scene, -1, 0)[1]


def fail(scene: Scene, number: int, error: int, seen: Seen) -> str:
    """Let one call of a scene fail; what a user is told of it, empty where the scene does without.

    Raises:
        AssertionError: what a user is told is no sentence, or a promise was not kept.
    """
    where = f"{scene.name}, call {number}, {errno.errorcode[error]}"
    try:
        world, _, said = _run(scene, number, error)
    except OSError as raised:
        raise AssertionError(f"{where}: {raised!r} is no sentence") from raised
    try:
        for image in (world.disk.seen, world.disk.kept):
            seen.look(image, world.ledger.promise, tuple(world.ledger.made))
    except AssertionError as raised:
        raise AssertionError(f"{where}, of which was said {said!r}: {raised}") from raised
    return said


def _run(scene: Scene, number: int, error: int) -> tuple[World, int, str]:
    world, count, said = begun(scene), 0, ""

    def ask(call: str, path: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            named = (os.fspath(path),) if path else ()  # type: ignore[call-overload]
            raise OSError(error, os.strerror(error), *named)

    world.disk.before = ask
    with living(world.disk):
        try:
            scene.steps(world)
        except RnnlmError as told:
            said = str(told)
    return world, count, said
