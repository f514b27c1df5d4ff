"""The texts that are scored: lines, documents or rows of what `stages.download` has written, and lines on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from data.corpus import text
from data.documents import rows
from data.documents.joined import TABLE, TEXT
from data.errors import ConfigError, CorpusError
from data.tables.documents import Documents
from stages.scoring.each import MOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Unit = Literal["line", "document", "row"]


class Entry(NamedTuple):
    """One text."""

    number: int
    """From 1: of a line within its document, of a row within its table, of a document among all."""
    name: str | None
    """Of the document, or of the row with its table's; None for the lines of a single text."""
    text: str
    """A line without its end."""


def entries(folder: Path, name: str, per: Unit) -> Iterator[Entry]:
    """The texts in a folder that `stages.download.obtain` has written.

    Args:
        folder: with the text, and where that is of many documents their table.
        name: of the corpus.
        per: what is one.

    Raises:
        ConfigError: rows of what is no table.
        CorpusError: a text that is too long, or none.
    """
    path = folder / TEXT
    if (folder / TABLE).exists():
        table = Documents.read(folder / TABLE)
        names: list[str] | None = table.names
        whole = text.documents(path, zip(table.starts, table.sizes, strict=True))
    else:
        names, whole = None, iter([text.read(path)])
    if per == "row" and not (names and all(map(_row, names))):
        raise ConfigError(f"{name} is not all rows of tables (.jsonl .csv .parquet .arrow): score it --per document")
    any_at_all = False
    for number, (called, chunks) in enumerate(zip(names or [name], whole, strict=True), 1):
        if per == "line":
            for entry in lines(called, chunks):
                any_at_all = True
                yield entry._replace(name=called) if names else entry
        else:
            any_at_all = True
            yield Entry(_row(called) if per == "row" else number, called, _whole(called, chunks))
    if not any_at_all:
        raise CorpusError(f"{name} has no {per}s: give a text that has")


def lines(name: str, chunks: Iterable[str]) -> Iterator[Entry]:
    """The lines of one text.

    Raises:
        CorpusError: one that is too long.
    """
    return (Entry(number, None, line) for number, line in enumerate(_lines(name, chunks), 1))


def _row(name: str) -> int:
    """The number of a row that a document's name has; 0 where it is no row."""
    table, _, number = name.rpartition(":")
    return int(number) if rows.kind(table) and number.isdecimal() else 0


def _lines(name: str, chunks: Iterable[str]) -> Iterator[str]:
    begun, number = "", 1
    for chunk in chunks:
        for at, piece in enumerate(chunk.split("\n")):
            if at:
                yield begun
                begun, number = "", number + 1
            begun += piece
            _check(f"line {number:,} of {name}", len(begun))
    if begun:
        yield begun


def _whole(name: str, chunks: Iterable[str]) -> str:
    taken, size = list[str](), 0
    for chunk in chunks:
        taken.append(chunk)
        size += len(chunk)
        _check(name, size)
    return "".join(taken)


def _check(what: str, characters: int) -> None:
    if characters > MOST:
        raise CorpusError(
            f"{what} has more than the {MOST:,} characters that one of many texts may have: measure it by itself with "
            "`rnnlm evaluate --on`"
        )
