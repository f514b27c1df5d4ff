"""The documents of a corpus as they become tokens: which of them, in which splits, and so in which order.

Splits are ranges of the tokens. Where documents are divided, those of the training split are read first, then those of
the validation and of the test split, each in the order of the corpus.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from data.corpus import likeness
from data.corpus.division import by_content, by_order, copies
from data.corpus.likeness import Sketches
from data.corpus.parts import Part, runs
from data.errors import CorpusError
from data.tables.borders import Found
from data.tables.tokens import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from data.corpus.likeness import Hashes
    from data.corpus.parts import Pass, Span
    from data.tables.documents import Documents
    from stages.config import TokenizeConfig
    from stages.indexing.part import Source

logger = logging.getLogger(__name__)

FEWEST = 0.25
"""Of its share of the bytes a split has so much at least, or nothing is divided unless that was asked for."""


@dataclass(frozen=True)
class Order:
    """Documents in the order in which they become tokens."""

    table: Documents
    numbers: Sequence[int]
    """Their rows in the table."""
    splits: tuple[int, int, int] | None
    """How many are in each split; None where these are cut anywhere."""
    found: Found
    last: tuple[int, int] | None = None
    """The row of a document of which only so many tokens are read."""

    @property
    def parts(self) -> list[Part]:
        """What is read at once; a part is of one split."""
        return runs([self._span(row) for row in self.numbers], self._borders())

    def rest(self, tokens: Sequence[int]) -> list[int]:
        """How many of the tokens that each part has are read: all, but for the document that is cut."""
        if self.last is None:
            return [*tokens]
        row, most = self.last
        cut = self._span(row)
        return [most if part.documents == (cut,) else had for part, had in zip(self.parts, tokens, strict=True)]

    def within(self, split: int) -> Sequence[int]:
        """The rows of a split."""
        before = sum((self.splits or ())[:split])
        return self.numbers[before : before + (self.splits or ())[split]]

    def _span(self, row: int) -> Span:
        return self.table.starts[row], self.table.sizes[row]

    def _borders(self) -> Iterable[int]:
        if self.splits:
            yield from itertools.accumulate(self.splits)
        if self.last and self.last[0] in self.numbers:  # alone
            at = self.numbers.index(self.last[0])
            yield from (at, at + 1)


def arrange(table: Documents, config: TokenizeConfig, source: Source) -> Order:
    """The documents that are to be read, in their splits.

    Raises:
        CorpusError: a split that none of them falls into, where it was asked for.
    """
    rows, last = range(len(table)), None
    if config.max_tokens:
        rows, last = _first(table, source, config.max_tokens)
    digests = [table.digests[row] for row in rows]
    shares = [getattr(config, f"{name}_share") for name in SPLITS]
    division, how = None, config.split
    if how == "order":
        division = by_order(digests, [table.sizes[row] for row in rows], shares)
    elif how != "position":
        division, how = by_content(digests, shares, config.split_seed), "content"
    if division is not None:
        sizes = np.bincount(division, minlength=len(SPLITS)).tolist()
        for name, size, share in zip(SPLITS, sizes, shares, strict=True):
            if share and not size and config.split != "auto":
                raise CorpusError(_none(name, len(rows), config))
        weights = np.bincount(division, [table.sizes[row] for row in rows], minlength=len(SPLITS))
        fewest = FEWEST * np.array(shares) * weights.sum()
        if config.split == "auto" and (weights < fewest).any():
            split = int((weights < fewest).argmax())
            logger.warning(
                "documents that fall into the %s split: %s of %s, too little of their text; so the splits are cut "
                "anywhere in all of them, in their order, as with tokenize.split=position",
                SPLITS[split],
                f"{sizes[split]:,}",
                f"{len(rows):,}",
            )
            division, how = None, "position"
    again = sum(copies(digests))
    if division is None:
        return Order(table, rows, None, Found(split=how, documents=(0, 0, 0), copies=again), last)
    numbers = np.argsort(division, kind="stable").tolist()
    train, valid, test = sizes
    splits = train, valid, test
    return Order(table, numbers, splits, Found(split=how, documents=splits, copies=again), last)


def _none(split: str, documents: int, config: TokenizeConfig) -> str:
    others = ", another tokenize.split_seed" if config.split == "content" else ""
    return (
        f"of the {documents:,} documents none falls into the {split} split: set tokenize.split=position, which cuts "
        f"them anywhere{others}, or a larger tokenize.{split}_share"
    )


def _first(table: Documents, source: Source, most: int) -> tuple[range, tuple[int, int] | None]:
    """The first documents that have so many tokens together, and how much of the last one is read."""
    had, read = list[int](), 0
    part = Part(0, table.end, tuple(zip(table.starts, table.sizes, strict=True)))
    for piece in source.pieces(part, most, lambda characters: None, had.append):
        read += len(piece)
    before = 0
    for row, tokens in enumerate(had):
        if before + tokens >= most:
            return range(row + 1), (row, most - before)
        before += tokens
    if read == most:  # in the middle of a long one, which was not read to its end
        return range(len(had) + 1), (len(had), most - before)
    return range(len(table)), None


def report(found: Found) -> None:
    """Say what was found of the documents."""
    sizes = ", ".join(f"{name} {number:,}" for name, number in zip(SPLITS, found.documents, strict=True))
    if found.split == "position":
        sizes = f"{sum(found.documents):,}, and the splits are cut anywhere in them"
    more = [
        f"{number:,} {what}"
        for number, what in ((found.copies, "copies"), (found.empty, "with no text left"))
        if number
    ]
    logger.info("documents: %s", ", ".join([sizes, *more]))
    if found.near and any(found.near):
        logger.warning(
            "documents that are much like one of another split: %s of the validation and %s of the test split; %s",
            *(f"{number:,}" for number in found.near),
            f"left out of training for that: {found.left_out:,}"
            if found.left_out
            else "tokenize.near_duplicates=drop leaves those out of training that are like them",
        )


# --- what is much alike


def compared(order: Order, over: Pass, path: Path, *, leave_out: bool) -> Order:
    """The same with what was found of documents that are much like one of another split; without those of the training
    split among them where these are to be left out.

    Args:
        order: with its splits.
        over: makes passes over parts.
        path: of the text.
        leave_out: whether.
    """
    sketched = partial(_sketched, path=path)
    valid, test = ([one for some in over(sketched, _parts(order, split)) for one in some] for split in (1, 2))
    held_out, parts = Sketches.of([*valid, *test]), _parts(order, 0)
    alike = [some for each in over(partial(_alike, path=path, among=held_out), parts) for some in each]
    found = {like for some in alike for like in some}
    near_valid = sum(like < len(valid) for like in found)
    both = enumerate(Sketches.of(valid).like(test), len(valid))
    near_test = sum(number in found or bool(some) for number, some in both)
    near = near_valid, near_test
    if not leave_out or not found:
        return replace(order, found=replace(order.found, near=near))
    assert order.splits
    kept = [row for row, some in zip(order.within(0), alike, strict=True) if not some]
    left_out = len(alike) - len(kept)
    splits = (len(kept), order.splits[1], order.splits[2])
    return replace(
        order,
        numbers=[*kept, *order.numbers[order.splits[0] :]],
        splits=splits,
        found=replace(order.found, documents=splits, near=near, left_out=left_out),
    )


def _parts(order: Order, split: int) -> list[Part]:
    """The documents of a split in parts."""
    return runs([order._span(row) for row in order.within(split)])


def _read(part: Part, path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        for start, size in part.documents:
            file.seek(start)
            yield file.read(min(size, likeness.LONGEST))


def _sketched(part: Part, *, path: Path, folder: Path) -> list[Hashes]:
    return [*likeness.sketches(_read(part, path))]


def _alike(part: Part, *, path: Path, folder: Path, among: Sketches) -> list[list[int]]:
    return [*among.like(likeness.sketches(_read(part, path)))]
