"""What asks a process to end while something must not be torn: it is noted, and whoever asked looks when it suits."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def ending() -> list[signal.Signals]:
    """Those that ask a process to end: Ctrl-C's, SIGTERM, and what comes when a connection drops, unless that one is
    ignored (`nohup`)."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


@contextmanager
def noted() -> Iterator[list[int]]:
    """While this holds, they are only noted, in the list it gives; outside the main thread none come."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    previous = {signum: signal.signal(signum, note) for signum in ending()}
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            # None stands for a handler that was not set from Python, and that Python cannot set again.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
