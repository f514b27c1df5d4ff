"""Ctrl-C and SIGTERM while something must not be torn: they are noted, and whoever asked looks when it suits."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextmanager
def noted() -> Iterator[list[int]]:
    """While this holds, SIGINT and SIGTERM are only noted, in the list it gives; outside the main thread none come."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    previous = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            # None stands for a handler that was not set from Python, and that Python cannot set again.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
