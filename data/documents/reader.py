"""Documents: what a file holds of them.

A text is one document, a table one for each row, an archive what its members hold. All are read the same way: once, as
UTF-8, in pieces.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from data.corpus import archive
from data.corpus.encoding import CHUNK, UTF8, Decoding
from data.documents import members, rows
from data.documents.columns import Columns
from data.documents.files import spelt
from data.errors import CorpusError

HEAD = 512
"""Bytes that say what a file is."""


@dataclass(frozen=True)
class Reading:
    """How files become documents."""

    encoding: str = UTF8
    """Of what is no Parquet and no Arrow, as `encoding.codec` calls it."""
    columns: Columns = field(default_factory=Columns)


@dataclass(frozen=True)
class Document:
    """One document, to be read before the next one is asked for."""

    name: str
    what: str
    """It is, for errors."""
    chunks: Iterator[bytes]
    """Of its text, in UTF-8 if there is no error."""
    order: Any = None
    """What puts it into an order; None where nothing does."""
    in_table: bool = False
    """Whether it is a row."""


class Reader:
    """Takes documents out of files.

    Args:
        corpus: its name, for errors.
        reading: how.
        scratch: a folder for what has to be a file for a while.
        limit: the most bytes that anything may unpack to.
    """

    def __init__(self, corpus: str, reading: Reading, scratch: Path, limit: int) -> None:
        self._corpus, self._reading, self._scratch, self._limit = corpus, reading, scratch, limit
        self._taken = 0
        """Bytes that were read or unpacked so far."""

    def several(self, name: str, raw: Path) -> Iterator[Document] | None:
        """The documents of a file that is the whole corpus, a table or an archive; None where it is one text, packed
        or not.

        Args:
            name: of the file.
            raw: where it lies, under whatever name.
        """
        if of := rows.kind(name):
            return self._table(name, raw, of, "")
        with raw.open("rb") as file:
            head = file.read(HEAD)
        if re.match(members.ZIP, head):
            names = members.names(self._corpus, raw)
            if len(names) == 1 and not rows.kind(names[0]):
                return None
            return self._members(members.of_zip(self._corpus, raw), "")
        if is_tar(head):
            return self._members(members.of_tar(self._corpus, raw), "")
        return self._packed_tar(raw)

    def within(self, name: str, chunks: Iterator[bytes], file_name: str = "") -> Iterator[Document]:
        """The documents of one file of many; their names begin with its name, which is another than the file's where
        that lies at an address."""
        return self._file(name, chunks, rows.kind(file_name or name), nested=False)

    def _file(self, name: str, chunks: Iterator[bytes], of: rows.Kind | None, *, nested: bool) -> Iterator[Document]:
        """The documents of a file, or rows of a table ``of`` some kind; one that is ``nested`` may be no archive."""
        first, every = _begun(self._counted(chunks))
        if not (of or (not nested and (archive.is_packed(first) or is_tar(first)))):
            yield self._text(name, every)
            return
        raw = self._scratch / ("member" if nested else "file")
        try:
            with raw.open("wb") as file:
                file.writelines(every)
            if of:
                yield from self._table(name, raw, of, f"{name}:")
            elif re.match(members.ZIP, first):
                yield from self._members(members.of_zip(self._inside(name), raw), f"{name}/")
            elif is_tar(first):
                yield from self._members(members.of_tar(self._inside(name), raw), f"{name}/")
            elif (tar := self._packed_tar(raw, f"{name}/")) is not None:
                yield from tar
            else:
                unpacked = archive.unpacked(self._inside(name), raw, self._limit) or iter(())
                yield self._text(name, self._counted(unpacked))
        finally:
            raw.unlink(missing_ok=True)

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._taken += len(chunk)
            if self._taken > 2 * self._limit:  # what is packed counts, and what it unpacks to
                raise CorpusError(
                    f"corpus {self._corpus!r} unpacks to more than the {self._limit:,} bytes that a corpus may have"
                )
            if chunk:  # what unpacks may have nothing to give yet
                yield chunk

    def _text(self, name: str, chunks: Iterable[bytes]) -> Document:
        what = f"{spelt(name)!r} of corpus {self._corpus!r}"
        return Document(name, what, _unmarked(Decoding(what, self._reading.encoding).utf8(chunks)))

    def _members(self, found: Iterator[members.Member], prefix: str) -> Iterator[Document]:
        any_text = False
        for member in found:
            any_text = True
            yield from self._file(prefix + member.name, member.chunks, rows.kind(member.name), nested=True)
        if not any_text:
            name = self._inside(prefix.removesuffix("/"))
            raise CorpusError(f"corpus {name!r} is an archive with no file that may be text; name another")

    def _packed_tar(self, raw: Path, prefix: str = "") -> Iterator[Document] | None:
        """The documents of a tar archive that is packed as a whole; None where a file is something else."""
        name = self._inside(prefix.removesuffix("/"))
        with raw.open("rb") as file:
            if re.match(members.ZIP, file.read(4)):
                return None
        chunks = archive.unpacked(name, raw, self._limit)
        if chunks is None:
            return None
        first, every = _begun(self._counted(chunks))
        return self._unpacked_tar(name, every, prefix) if is_tar(first) else None

    def _unpacked_tar(self, name: str, chunks: Iterator[bytes], prefix: str) -> Iterator[Document]:
        tar = self._scratch / "tar"
        try:
            with tar.open("wb") as file:
                file.writelines(chunks)
            yield from self._members(members.of_tar(name, tar), prefix)
        finally:
            tar.unlink(missing_ok=True)

    def _table(self, name: str, raw: Path, of: rows.Kind, prefix: str) -> Iterator[Document]:
        what = f"corpus {self._inside(prefix.removesuffix(':'))!r}"
        called = prefix or f"{name}:"
        plain = self._scratch / "table"
        try:
            if (chunks := archive.unpacked(self._corpus, raw, self._limit)) is not None:
                with plain.open("wb") as file:
                    file.writelines(self._counted(chunks))
                raw = plain
            encoded = partial(self._encoded, what, raw)
            for row in rows.rows(what, of, raw, encoded, self._reading.columns):
                where = f"row {row.number:,} of {what}"
                text = iter((row.text,)) if _is_plain(row.text) else _unmarked(Decoding(where).utf8((row.text,)))
                yield Document(f"{called}{row.number}", where, text, row.order, in_table=True)
        finally:
            plain.unlink(missing_ok=True)

    def _encoded(self, what: str, raw: Path) -> Iterator[bytes]:
        with raw.open("rb") as file:
            yield from Decoding(what, self._reading.encoding).utf8(iter(lambda: file.read(CHUNK), b""))

    def _inside(self, name: str) -> str:
        """What errors call a file of the corpus."""
        return f"{self._corpus}: {spelt(name)}" if name else self._corpus


def _unmarked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A text without a byte order mark, which is no part of it; in the middle of a corpus it would be read."""
    first = b""
    while len(first) < len(codecs.BOM_UTF8) and (more := next(chunks, b"")):
        first += more
    if first := first.removeprefix(codecs.BOM_UTF8):
        yield first
    yield from chunks


def _is_plain(text: bytes) -> bool:
    """Whether a text is in UTF-8, of which nothing is left out; of a short one that is seen at once."""
    try:
        return "\0" not in text.decode() and not text.startswith(codecs.BOM_UTF8)
    except UnicodeDecodeError:
        return False


def _begun(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Enough of the beginning to see what it is, and all of it."""
    first = b""
    while len(first) < HEAD and (more := next(chunks, b"")):
        first += more
    return first, chain((first,), chunks)


def is_tar(head: bytes) -> bool:
    """Whether a file that begins like this is a tar archive."""
    return re.match(members.TAR, head, re.DOTALL) is not None
