"""Connections, none of which is waited for without end, and the server that holds them until it is asked to end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from data.errors import ConfigError
from stages.serving import limits
from stages.training import signals

if TYPE_CHECKING:
    from types import FrameType

    from starlette.types import ASGIApp

    from stages.serving.application import Application

logger = logging.getLogger(__name__)

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"


class Connection(H11Protocol):
    """One connection, which is closed when it sends no request for a while, or does not read what it is sent."""

    _patience: asyncio.TimerHandle | None = None
    _unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > limits.CONNECTIONS:
            transport.write(_FULL)
            transport.close()
        self._wait(limits.REQUEST)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._wait(None)

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()  # which may begin the next request, if that has come already
        if self.cycle is answered:
            self._wait(limits.REQUEST)

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, where nothing else was said yet, and end; nothing answers the request any more."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # after an answer, or in the middle of one, a body turned out to be none
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(limits.STUCK)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait(limits.REQUEST if self.cycle is None or self.cycle.response_complete else None)

    def _wait(self, seconds: float | None) -> None:
        """Wait for the client so long, or not any more."""
        if self._patience is not None:
            self._patience.cancel()
        self._unread = self.transport.get_write_buffer_size()
        self._patience = None if seconds is None else self.loop.call_later(seconds, self._look, seconds)

    def _look(self, seconds: float) -> None:
        if 0 < self.transport.get_write_buffer_size() < self._unread:
            self._wait(seconds)  # it reads, if slowly
        else:
            self.transport.abort()  # and what is unread goes, too


class Server(uvicorn.Server):
    """The server of one application.

    Args:
        app: all that it answers.
        application: which is told when the end has come.
        what: it serves, for the log.
    """

    should_exit: bool
    force_exit: bool

    def __init__(self, app: ASGIApp, application: Application, what: str) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="critical",  # what goes wrong the application itself tells
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=int(limits.REQUEST),
                timeout_graceful_shutdown=int(limits.ENDING + limits.STUCK),
            )
        )
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each piece for a client that has gone
        self.signum = 0
        """Of the signal that asked it to end."""
        self.cut = False
        """Whether what was being written when it ended is not finished."""
        self._application, self._what = application, what

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {signum: signal.signal(signum, self.handle_exit) for signum in signals.ending()}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first one ends it once what runs has ended; the second one at once."""
        self.force_exit = self.cut = self.should_exit
        self.should_exit, self.signum = True, self.signum or sig
        self._application.end()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or ():
            logger.info("serving %s at %s", self._what, _address(bound))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logger.info("ending: no new requests are taken, what runs has %g seconds", limits.ENDING)
        cutting = asyncio.get_running_loop().call_later(limits.ENDING, self._cut)
        await super().shutdown(sockets)
        cutting.cancel()

    def _cut(self) -> None:
        self.cut = True
        self._application.cut()


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that nothing takes long before it is known that the port can be had.

    Raises:
        ConfigError: it cannot.
    """
    _many_files()
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.SENDING)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"--host {host} --port {port} cannot be listened to ({why}): name another, or 0 for a port that is free"
        ) from None
    return bound


def _address(bound: socket.socket) -> str:
    """Where it listens, as a client asks for it."""
    named: Any = bound.getsockname()
    host = f"[{named[0]}]" if ":" in named[0] else named[0]
    return f"http://{host}:{named[1]}"


def _many_files() -> None:
    """Let this process have as many connections open as it takes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.CONNECTIONS + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
