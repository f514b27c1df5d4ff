"""A plain text that is read where it lies, once: it may have any size, and nothing of it is kept."""

from __future__ import annotations

import codecs
import io
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data.corpus import catalogue, spool
from data.corpus.address import is_address
from data.corpus.archive import is_packed
from data.corpus.arrival import is_page
from data.corpus.encoding import decoded
from data.documents import rows, urls
from data.documents.reader import is_tar
from data.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Stamp = tuple[int, int, int, int]
    """Bytes, when it was written last, device and inode."""

logger = logging.getLogger(__name__)


class Plain(NamedTuple):
    """A text on its way."""

    size: int
    """Bytes that there will be; 0 where nobody knows."""
    chunks: Iterator[str]
    """Without byte order mark, every line end a newline, as `data.corpus.text.read` gives what was copied."""


def plain(name: str) -> Plain | None:
    """The text that a corpus's name means: a file that is one text and is not packed, or such a text from an open file
    (`spool.number`). None for whatever else it means, and for a file that cannot be read: `catalogue.resolve` says why.

    Raises:
        CorpusError: at once or while it is read: it is not text, has none, or changes meanwhile.
    """
    opened = spool.number(name)
    if opened is not None:
        name = "standard input" if opened == 0 else name
        size = _left(opened)
        passing = spool.passing(name, opened, catalogue.MAX_BYTES, _is_text)
        return Plain(size, _text(name, passing)) if passing else None
    path = _file(name)
    try:
        if path is None:
            return None
        before = _stamp(path)
        head = next(catalogue.content(path), (b"", 0))[0]
    except OSError:
        return None
    return Plain(before[0], _text(name, _unchanged(name, path, before))) if _is_text(head) else None


def _file(name: str) -> Path | None:
    """The file that a name means, where its suffix does not say that it is no text."""
    path = catalogue.local(name) if is_address(name) else Path(name)
    if path is None or name in catalogue.catalogue() or rows.kind(path.name) or path.suffix.lower() == urls.SUFFIX:
        return None
    try:
        path = path.expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # no such ~user; a NUL in the path
        return None


def _is_text(head: bytes) -> bool:
    return not (is_packed(head) or is_tar(head))


def _left(opened: int) -> int:
    """Bytes that are to come from an open file that has an end."""
    try:
        found = os.fstat(opened)
        return found.st_size - os.lseek(opened, 0, os.SEEK_CUR) if stat.S_ISREG(found.st_mode) else 0
    except OSError:
        return 0


def _unchanged(name: str, path: Path, before: Stamp) -> Iterator[bytes]:
    """The bytes of a file, for as long as it is the same."""
    try:
        for chunk, _ in catalogue.content(path):
            _check(name, path, before)
            yield chunk
        _check(name, path, before)
    except OSError as error:
        raise CorpusError(f"the corpus file {name!r} cannot be read: {error.strerror or error}") from None


def _stamp(path: Path) -> Stamp:
    """What tells a file from what it was before. One more link to it, or other rights, make it no other."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


def _check(name: str, path: Path, before: Stamp) -> None:
    try:
        same = _stamp(path) == before
    except FileNotFoundError:
        same = False
    if not same:
        raise CorpusError(f"the corpus file {name!r} changed while it was read; run again once it is complete")


def _text(name: str, chunks: Iterator[bytes]) -> Iterator[str]:
    newlines = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    for number, chunk in enumerate(decoded(name, chunks)):
        if number == 0 and is_page(chunk):
            logger.warning("%s is an HTML page: its tags are learnt like all else in it", name)
        yield newlines.decode(chunk)
    yield newlines.decode(b"", final=True)
