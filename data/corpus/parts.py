"""A text in parts that end with a line, each to be read as a text of its own: of a large one by several processes.

Behind a line end nothing is left of what came before: no character is cut there, no word, no accent is composed over
it, and the book's rule begins anew. So the parts' counts add up to those of the text, and their ids stand one behind
another. A text without line ends is one part, and read as such.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

from data import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection
    from pathlib import Path

    from data.progress import Progress

Result = TypeVar("Result")

SIZE, MOST, BOUND = 1 << 24, 32, 1 << 26
"""Bytes of a part at least, but for the last; how many parts there are, for each is sent the vocabulary; and bytes of a
part, and what is left of a line, where these would be more: what is done again where somebody fails, and what of a pass
may be on its way."""
LARGE = 1 << 27
"""Bytes from which on a text is worth processes of its own: they begin in the time that one takes for half of that."""


Span: TypeAlias = tuple[int, int]
"""Where a document lies in a file: its first byte, and how many it has."""


class Part(NamedTuple):
    """Bytes of a file; of documents those of one behind another, in the order in which they are read."""

    start: int
    stop: int
    documents: tuple[Span, ...] = ()


class Pass(Protocol):
    """One pass over parts of a file."""

    def __call__(
        self, function: Callable[..., Result], parts: Sequence[Part], /, *columns: Iterable[Any]
    ) -> Iterator[Result]:
        """The results, in order, of a function of each part and of what each column has for it; the shortest column
        ends it. The function, what it takes and what it gives may be sent to other processes.

        It is also given a ``folder``: that of the passes, or one of another machine's. What it leaves there the passes
        after this one find, as long as it is the same machine that they come to.
        """


def length(size: int) -> int:
    """How many bytes the parts of a text of so many have at least, but for the last."""
    return min(max(SIZE, size // MOST), BOUND)


def runs(documents: Sequence[Span], borders: Iterable[int] = ()) -> list[Part]:
    """Parts of whole documents, in this order. Each of the ``borders`` is a document that a part begins with."""
    size, cuts = length(sum(size for _, size in documents)), {*borders}
    parts, run, start, stop = list[Part](), list[Span](), 0, 0
    for number, span in enumerate(documents):
        if run and (stop - start >= size or number in cuts):
            parts.append(Part(start, stop, tuple(run)))
            run, start = [], stop
        run.append(span)
        stop += span[1]
    return [*parts, Part(start, stop, tuple(run))] if run else parts


def cut(path: Path, size: int | None = None) -> list[Part]:
    """The parts of a file, without gaps, each of ``size`` bytes and what is left of a line; one if it is empty."""
    whole = path.stat().st_size
    size = size or length(whole)
    starts = [0]
    if whole > size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            while 0 < (after := content.find(b"\n", starts[-1] + size - 1) + 1) < whole:
                starts.append(after)
    return [Part(*ends) for ends in itertools.pairwise([*starts, whole])]


@contextmanager
def passes(
    parts: Sequence[Part],
    number: int,
    progress: Progress,
    folder: Path,
    spread: Callable[[Path], AbstractContextManager[Pass]] | None = None,
    large: int | None = None,
) -> Iterator[Pass]:
    """Pass over a file so many times, over a large one with as many processes as there are cores.

    Args:
        parts: of the file, one behind another.
        number: of passes.
        progress: is told bytes, over all passes, and their rate.
        folder: where what one pass leaves for the next may lie.
        spread: ``spread(folder)`` makes the passes, where there is more than one part, instead of these processes.
        large: the size from which on it is worth them, else `LARGE`.
    """
    size = parts[-1].stop if parts else 0
    done = itertools.count(0, size)  # before each pass

    several = (
        spread(folder) if spread and len(parts) > 1 else _here(len(parts) if size >= (large or LARGE) else 1, folder)
    )
    with several as mapped:

        def over(function: Callable[..., Result], some: Sequence[Part], /, *columns: Iterable[Any]) -> Iterator[Result]:
            before, began = next(done), time.monotonic()
            for part, result in zip(some, mapped(function, some, *columns), strict=False):
                yield result
                rate = part.stop / 1e6 / max(time.monotonic() - began, 1e-9)
                progress(before + part.stop, number * size, f"{rate:,.0f} MB/s")

        yield over


def ahead(begun: Iterator[Callable[[], Result]], most: Callable[[], int]) -> Iterator[Result]:
    """The results, in order, of what begins as it is iterated over, so many of them at a time: whatever these hold, and
    what has come of them and is not asked for yet, does not grow with their number."""
    waiting: deque[Callable[[], Result]] = deque()
    while True:
        waiting.extend(itertools.islice(begun, max(most() - len(waiting), 0)))
        if not waiting:
            return
        yield waiting.popleft()()


@contextmanager
def _here(parts: int, folder: Path) -> Iterator[Pass]:
    """Processes, one per core, where there are parts for them; this one goes on alone where there are not. They end
    with the block, in the middle of a part where it fails, and with this process."""
    workers = min(cores.available(), parts)
    if workers == 1 or multiprocessing.current_process().daemon:  # such a one must not start others
        yield lambda function, parts, *columns: map(partial(function, folder=folder), parts, *columns)
        return
    # They begin anew: copies of this process would take along what its other threads hold at that moment.
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin, (theirs,))

    def mapped(function: Callable[..., Result], parts: Sequence[Part], /, *columns: Iterable[Any]) -> Iterator[Result]:
        given = zip(parts, *columns, strict=False)
        return ahead((pool.submit(function, *of, folder=folder).result for of in given), lambda: 2 * workers)

    try:
        yield mapped
    except BaseException:
        ours.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        ours.close()
        theirs.close()


def _begin(pipe: Connection) -> None:
    """Leave it to the process that started this one to end it, and end with it."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()


def _end_with(pipe: Connection) -> None:
    with suppress(EOFError):  # nothing comes: it is closed, there or with the process
        pipe.recv_bytes()
    os._exit(1)
