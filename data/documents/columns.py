"""What is read of a table: a column of texts, and one that puts the rows into an order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from data.errors import CorpusError

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read."""

    text: str = "text"
    order: str = ""
    """Whose values put the rows into an order; empty for the order in which they stand."""


@dataclass(frozen=True)
class Row:
    """One row."""

    number: int
    """Counted from 1: of a line where each line is a row."""
    text: bytes
    """In what should be UTF-8; empty where it is null."""
    order: Any = None
    """A value of the column `Columns.order`; None where it is null, or there is no such column."""


def wanted(what: str, columns: Columns, names: list[str]) -> list[str]:
    """The columns that are read, the text first."""
    for column, field in ((columns.text, "text_column"), (columns.order, "order_column")):
        if column and column not in names:
            lacks(what, column, field, names)
        if names.count(column) > 1:
            raise CorpusError(f"{what} has several columns that are called {column!r}; name each of its own")
    return [columns.text, *([columns.order] if columns.order else [])]


def lacks(what: str, column: str, field: str, names: Iterable[str]) -> NoReturn:
    """Raise the sentence for a column that is not there."""
    there = [*names]
    listed = ", ".join(repr(name[:80]) for name in there[:20]) + (", …" if len(there) > 20 else "")
    raise CorpusError(
        f"{what} has no column {column!r}: its columns are {listed or 'none'}; say which by "
        f"`--set download.{field}={there[0][:80] if len(there) == 1 else 'NAME'}`"
    )


def ordered(what: str, values: list[Any]) -> list[int]:
    """The places of values in their order, equal ones as they stand. Text that is all numbers is ordered as numbers.

    Raises:
        CorpusError: some are missing, or of different kinds.
    """
    missing = sum(value is None or value != value for value in values)
    if missing:
        raise CorpusError(
            f"{what} has {missing:,} rows of {len(values):,} without a value in the column that download.order_column "
            "names; fill these in, or leave it out"
        )
    if all(isinstance(value, str) for value in values) and all(map(_NUMBER.fullmatch, values)):
        values = [float(value) if re.search("[.eE]", value) else int(value[:4000]) for value in values]
    try:
        return sorted(range(len(values)), key=values.__getitem__)
    except TypeError:
        kinds = " and ".join(sorted({type(value).__name__ for value in values}))
        raise CorpusError(
            f"{what} has values of several kinds ({kinds}) in the column that download.order_column names, which have "
            "no order; write them in one way"
        ) from None
