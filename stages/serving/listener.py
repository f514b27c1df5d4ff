"""Whoever asked, for as long as they listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from starlette.responses import Response

from stages.serving.body import GoneError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Result = TypeVar("Result")


class Streamed(Protocol):
    """What is told as it comes."""

    async def begin(self) -> None:
        """All that may be refused."""

    def events(self) -> AsyncIterator[bytes]:
        """What is told."""

    def leave(self) -> None:
        """Nobody listens any more."""


class Events(Response):
    """Server-sent events, for as long as somebody listens.

    Args:
        streamed: gives them. What it refuses in the beginning is refused before the first byte.
        headers: to go with them.
    """

    def __init__(self, streamed: Streamed, headers: dict[str, str]) -> None:
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent() -> None:
            await self._streamed.begin()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self._streamed.events():
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body"})

        try:
            await watched(receive, sent())
        finally:
            self._streamed.leave()


async def watched(receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, Result]) -> Result:
    """What some work gives, unless whoever asked goes away before.

    Raises:
        GoneError: they have; the work is cancelled.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise GoneError
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
