"""Where what takes long is computed, one at a time, beside what is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from data.errors import ConfigError, CorpusError
from stages.serving import limits
from stages.serving.refused import Refused

Result = TypeVar("Result")


class Bench:
    """A thread at a time."""

    def __init__(self) -> None:
        self._taken, self._waiting = asyncio.Lock(), 0

    async def do(self, work: Callable[[], Result]) -> Result:
        """What some work gives, once it is its turn.

        Raises:
            Refused: too many wait already, or what the work cannot be done with.
        """
        if self._waiting >= limits.SCORING:
            raise Refused(429, "too many texts wait to be read: come back in a moment", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            async with self._taken:
                working = asyncio.ensure_future(asyncio.to_thread(work))
                try:
                    return await asyncio.shield(working)
                finally:
                    await asyncio.wait({working})  # a thread cannot be called off: the next one waits for it
        except (ConfigError, CorpusError) as error:
            raise Refused(400, str(error)) from None
        finally:
            self._waiting -= 1
