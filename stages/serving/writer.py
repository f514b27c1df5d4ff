"""The thread that writes: it steps the texts of every model, and hands what they gain to the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from stages.lm.joined import Joined
from stages.serving import limits

if TYPE_CHECKING:
    from stages.lm.joined import Piece, Writing
    from stages.lm.model import LanguageModel

logger = logging.getLogger(__name__)


class Loaded:
    """A model in memory, and the texts that it writes.

    Args:
        key: of its artifact.
        model: as it was read.
    """

    def __init__(self, key: str, model: LanguageModel) -> None:
        model.quiet = True  # no log tells what a client's words lack, nor is that kept
        self.key, self.model, self.joined = key, model, Joined(model)


class Wanted(NamedTuple):
    """One text that somebody wants, as `Joined.begin` takes it."""

    prompt: str
    length: int
    temperature: float
    seed: int
    top_k: int
    top_p: float
    stop: Sequence[str]
    likeliest: int | None


class Gained(NamedTuple):
    """What a text has gained since it was told of last."""

    choice: int
    """Which one of those that were wanted together."""
    pieces: list[Piece]
    ended: str | None
    """``stop`` or ``length``; ``error`` where a defect of ours ended it."""


@dataclass(eq=False)
class Job:
    """Texts that were wanted together."""

    loaded: Loaded
    on: int
    """Texts that have not ended."""
    gained: asyncio.Queue[Gained] = field(default_factory=asyncio.Queue)
    writings: list[Writing] = field(default_factory=list)
    """The writer's own."""

    def cut(self) -> None:
        """Wait for no more of it."""
        self.gained.put_nowait(Gained(0, [], "error"))


class Writer:
    """Writes in a thread of its own, from `start` to `end`. All but what that thread runs is for the event loop."""

    def __init__(self) -> None:
        self.on = 0
        """Texts that are being written or wait to be."""
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._whose: dict[Writing, tuple[Job, int]] = {}
        self._gained: dict[Writing, Gained] = {}
        self._published = 0.0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to take work."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def end(self) -> None:
        """Drop what is still written."""
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join)

    async def begin(self, loaded: Loaded, wanted: Sequence[Wanted]) -> Job:
        """Texts more. Whoever asks calls `leave` in the end, whatever came of it.

        Raises:
            ConfigError: a value that does not fit.
        """
        job = Job(loaded, len(wanted))
        self.on += len(wanted)
        begun: asyncio.Future[None] = self._loop.create_future()
        self._commands.put(partial(self._begin, job, wanted, begun))
        try:
            await begun
        except BaseException:
            self.leave(job)
            raise
        return job

    def leave(self, job: Job) -> None:
        """Nobody wants what has not ended of this any more."""
        if job.on:
            self.on -= job.on
            job.on = 0
            self._commands.put(partial(self._leave, job))

    def _hand_out(self, gained: list[tuple[Job, Gained]]) -> None:
        for job, one in gained:
            if job.on:
                if one.ended:
                    job.on -= 1
                    self.on -= 1
                job.gained.put_nowait(one)

    # --- in the thread

    def _run(self) -> None:
        while True:
            with suppress(Empty):
                while True:
                    command = self._commands.get(block=not self._whose)
                    if command is None:
                        return
                    command()
            for loaded in {job.loaded for job, _ in self._whose.values()}:
                self._step(loaded)
            self._publish()

    def _begin(self, job: Job, wanted: Sequence[Wanted], begun: asyncio.Future[None]) -> None:
        try:
            for index, (prompt, length, temperature, seed, top_k, top_p, stop, likeliest) in enumerate(wanted):
                writing = job.loaded.joined.begin(
                    prompt, length, temperature, seed, top_k=top_k, top_p=top_p, stop=stop, likeliest=likeliest
                )
                self._whose[writing] = job, index
                job.writings.append(writing)
        except Exception as error:
            self._leave(job)
            self._tell(partial(_settle, begun, error))
        else:
            self._tell(partial(_settle, begun, None))

    def _leave(self, job: Job) -> None:
        for writing in job.writings:
            job.loaded.joined.leave(writing)
            self._whose.pop(writing, None)
            self._gained.pop(writing, None)

    def _step(self, loaded: Loaded) -> None:
        try:
            told = loaded.joined.step()
        except Exception:
            logger.exception("the model %s failed while it wrote; its texts end here", loaded.key[:16])
            loaded.joined = Joined(loaded.model)
            for writing, (job, index) in self._whose.items():
                if job.loaded is loaded:
                    self._gained[writing] = Gained(index, [], "error")
            return
        for writing, pieces in told:
            if writing in self._gained:
                pieces = self._gained[writing].pieces + pieces
            self._gained[writing] = Gained(self._whose[writing][1], pieces, writing.ended)

    def _publish(self) -> None:
        """Tell the event loop what was gained, if that was long ago or something has ended."""
        due = time.monotonic() - self._published > limits.PUBLISHED
        if self._gained and (due or any(one.ended for one in self._gained.values())):
            gained = [(self._whose[writing][0], one) for writing, one in self._gained.items()]
            for writing, one in self._gained.items():
                if one.ended:
                    del self._whose[writing]
            self._gained.clear()
            self._tell(partial(self._hand_out, gained))
            self._published = time.monotonic()

    def _tell(self, what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody listens
            self._loop.call_soon_threadsafe(what)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if not future.done():
        if error:
            future.set_exception(error)
        else:
            future.set_result(None)
