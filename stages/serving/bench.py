"""Where what takes long is computed, one at a time, beside what is written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import TypeVar

from data.errors import ConfigError, CorpusError
from stages.serving import limits
from stages.serving.body import GoneError
from stages.serving.refused import Refused

Result = TypeVar("Result")


class Bench:
    """A thread at a time."""

    def __init__(self) -> None:
        self._taken, self._waiting = asyncio.Lock(), 0

    async def do(self, work: Generator[None, None, Result]) -> Result:
        """What some work gives, once it is its turn. It yields wherever it may be left, should nobody wait any more.

        Raises:
            Refused: too many wait already, or what the work cannot be done with.
        """
        if self._waiting >= limits.SCORING:
            raise Refused(429, "too many texts wait to be read: come back in a moment", headers={"Retry-After": "1"})
        left = threading.Event()

        def worked() -> Result:
            try:
                while not left.is_set():
                    next(work)
            except StopIteration as end:
                found: Result = end.value
                return found
            raise GoneError

        self._waiting += 1
        try:
            async with self._taken:
                working = asyncio.ensure_future(asyncio.to_thread(worked))
                try:
                    await asyncio.wait({working})
                finally:
                    left.set()
                    await asyncio.gather(working, return_exceptions=True)  # a moment, for which the next one waits
                return working.result()
        except (ConfigError, CorpusError) as error:
            raise Refused(400, str(error)) from None
        finally:
            self._waiting -= 1
