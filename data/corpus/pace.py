"""A connection over which too little comes is broken off, whatever the server does to keep it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Pace:
    """What is known of a request's connections while they are watched."""

    slow: bool = False
    """Whether they were broken off because too little came."""
    late: bool = False
    """Whether they were broken off because it took too long."""
    sockets: list[socket.socket] = field(default_factory=list)

    def note(self, event: str, info: dict[str, Any]) -> None:
        """Hear of a connection, as httpcore tells whoever is the ``trace`` of a request."""
        if event.endswith("connect_tcp.complete"):
            # Another handle of it: TLS takes the first one away, and no other thread may touch what it reads from.
            self.sockets.append(info["return_value"].get_extra_info("socket").dup())


@contextmanager
def watched(received: Callable[[], int], least: float, seconds: float, ends: float) -> Iterator[Pace]:
    """While this holds, connections end over which less comes than ``least`` bytes per second, for so many seconds; and
    all of them when ``time.monotonic`` is at ``ends``.

    A timeout of the reads would not do: each byte begins it anew, of the head as well as of the body.

    Args:
        received: how many bytes have come so far.
    """
    pace, over = Pace(), threading.Event()

    def watch() -> None:
        before = received()
        while not over.wait(min(seconds, max(ends - time.monotonic(), 0.01))):
            pace.late = time.monotonic() >= ends
            pace.slow = bool(pace.sockets) and not pace.late and received() - before < least * seconds
            if pace.sockets and (pace.slow or pace.late):
                for one in pace.sockets:
                    with contextlib.suppress(OSError):  # it has ended by itself
                        one.shutdown(socket.SHUT_RDWR)
                return
            before = received()

    watcher = threading.Thread(target=watch, daemon=True, name="pace")
    watcher.start()
    try:
        yield pace
    finally:
        over.set()
        watcher.join()
        for one in pace.sockets:
            one.close()
