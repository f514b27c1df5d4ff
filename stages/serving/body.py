"""The body of a request: read within bounds of size and time, or refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from stages.serving import limits
from stages.serving.refused import Refused

if TYPE_CHECKING:
    from starlette.requests import Request

CLOSE = {"Connection": "close"}
"""With what is left of a body, a connection is of no more use."""


class GoneError(Exception):
    """Whoever asked has gone."""


async def read(request: Request) -> bytes:
    """The body of a request that says it is JSON.

    Raises:
        Refused: another type, more bytes or more seconds than are taken.
        GoneError: a client that left in the middle.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "Content-Type must be application/json", headers=CLOSE)
    try:
        announced = int(request.headers.get("content-length", "0"))
    except ValueError:
        announced = 0
    if announced > limits.BODY:
        await _thrown_away(request)
        raise _large()
    body, more = bytearray(), True
    try:
        async with asyncio.timeout(limits.READING):
            while more:
                message = await _next(request)
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > limits.BODY:
                    body.clear()
                    await _thrown_away(request)
                    raise _large()
    except TimeoutError:
        raise Refused(408, f"the body took more than {limits.READING:g} seconds", headers=CLOSE) from None
    return bytes(body)


def _large() -> Refused:
    return Refused(413, f"the body has more than {limits.BODY:,} bytes", headers=CLOSE)


async def _next(request: Request) -> Any:
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise GoneError
    return message


async def _thrown_away(request: Request) -> None:
    """Read on for a moment: who is cut off while sending does not come to read an answer."""
    if request.headers.get("expect"):
        return  # who waits for our word before sending has sent nothing
    try:
        async with asyncio.timeout(limits.PARTING):
            while (await _next(request)).get("more_body", False):
                pass
    except TimeoutError:
        pass
