"""How a long stage says where it is: a bar on a terminal, plain log lines anywhere else."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

Progress = Callable[[float, float, str], None]
"""``progress(done, total, figures)``: ``total`` is 0 while it is unknown; ``figures`` is short, such as
``perplexity 4.1 · 98,000 tokens/s``. Cheap enough to call often: whoever shows it decides how often it shows. What was
done before the first call, by an interrupted run for one, says nothing of the time that is left."""

Watch = Callable[[Mapping[str, Sequence[float]], float], None]
"""``watch(history, tokens_per_second)`` after each epoch of a training, and where it goes on: what a checkpoint keeps
of all epochs so far, and how fast they were here, not a number before the first. It changes and raises nothing."""

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0


class LogLines:
    """Progress as log lines, the first after some seconds: a short stage stays silent."""

    def __init__(self, stage: str, every: float = SECONDS_BETWEEN_LINES) -> None:
        self._stage = stage
        self._every = every
        self._last = time.monotonic()
        self._first: tuple[float, float] | None = None

    def __call__(self, done: float, total: float, figures: str) -> None:
        moment = time.monotonic()
        self._first = self._first or (moment, done)
        if moment - self._last < self._every:
            return
        self._last = moment
        parts = [f"{done / total:.0%}", figures] if total else [figures]
        began, before = self._first
        if total and done > before:
            parts.append(f"{_clock((moment - began) * (total - done) / (done - before))} left")
        logger.info("%s: %s", self._stage, " · ".join(parts))


@contextmanager
def reporting() -> Iterator[Callable[[str], Progress]]:
    """Give a ``Progress`` for each stage of a run: a bar while standard error is a terminal, else log lines.

    A notebook gives ``!rnnlm run`` a terminal too, but keeps each picture of a bar that is drawn there.
    """
    if not sys.stderr.isatty() or "JPY_PARENT_PID" in os.environ or os.environ.get("TERM") == "dumb":
        yield LogLines
        return

    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description:9}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
        transient=True,
    )

    def start(stage: str) -> Progress:
        for finished in bars.tasks:
            bars.remove_task(finished.id)
        task = bars.add_task(stage, total=None, figures="", visible=False)

        def show(done: float, total: float, figures: str) -> None:
            bars.update(task, completed=done, total=total or None, figures=figures, visible=True)

        return show

    with bars:
        yield start


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
