"""The text that two models are compared on: its words, its blocks, and what spelling out the unknown costs.

What a model calls ``<unk>`` it still has to tell, or a small vocabulary would pay. `Passage.read` gives the bits for
that; together with the model's own they describe every character of the text, whatever the vocabulary.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.corpus import letters, subwords, text
from data.corpus.level import LEVELS
from data.tables.borders import DOCUMENTS
from data.tables.counts import index
from data.tables.documents import Documents
from data.tables.tokens import END_ID, SPLITS
from stages.lm import spelling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from data.corpus.level import Level, Piece
    from data.corpus.text import LevelName, Normalizer
    from data.tables.borders import Borders
    from data.tables.tokens import Ids, IndexTable
    from data.tables.vocab import Vocab

    Characters = Callable[[Ids], int]
    Mask = NDArray[np.bool_]
    Floats = NDArray[np.float64]

END = 0x110000
"""Stands behind each of several documents in their code points, of which it is none."""
_SPACES = np.array([chr(code).isspace() for code in range(0x3002)])
"""Code point → whether it is white space. The last entry, False, stands for all code points from there."""


@dataclass(frozen=True)
class Reading:
    """The text as the tokens of one model."""

    ids: Ids
    """Shape (tokens,), 0 for what the model's vocabulary lacks."""
    starts: NDArray[np.intp]
    """The first character of each token, shape (tokens,)."""
    cost: Floats
    """Bits of each token beside the model's own, shape (tokens,): what tells an unknown one from others, and the white
    space behind a word."""
    spans: NDArray[np.int64] | None = None
    """The characters that each subword has a part in, shape (tokens,), 1 at least; None where a token's bits are those
    of its first character, or of a shift those of the letter behind it."""

    def spread(self, these: slice, bits: Floats) -> tuple[NDArray[np.intp], Floats]:
        """The characters that some tokens' bits belong to, and what each is charged."""
        starts = self.starts[these]
        if self.spans is None:
            return starts, bits
        spans = self.spans[these]
        within = np.arange(spans.sum()) - np.repeat(spans.cumsum() - spans, spans)
        return np.repeat(starts, spans) + within, np.repeat(bits / spans, spans)


class Passage:
    """A normalised text that models read, each by its own level and vocabulary.

    Args:
        pieces: the text, code points in pieces.
        by_words: whether a model reads it as words, so that none may be cut.
        joined: whether every run of white space in it is one space.
        merged: whether a model reads it as subwords.
    """

    def __init__(self, pieces: Iterable[Ids], *, by_words: bool, joined: bool, merged: bool = False) -> None:
        codes: Ids = np.concatenate([np.empty(0, np.uint8), *pieces])
        ends = codes == END
        if by_words:  # or the last word of a document would go on with the next one's first
            codes = np.where(ends, np.uint8(ord(" ")), codes) if ends.any() else codes
            self._ends = np.flatnonzero(ends) + 1
        else:
            self._ends = np.cumsum(~ends)[ends]
            codes = codes[~ends]
        self.codes = codes
        """Code points, shape (characters,); none where the text holds no word."""
        self._by_words = by_words
        self._joined = joined
        self._space, self._starts = _words(self.codes, True)
        if not len(self._starts):
            self.codes, self._ends = self.codes[:0], self._ends[:0]
        self._starts[:1] = 0  # white space before the first word is taken for a piece of it
        self._lengths = np.diff(self._starts, append=len(self.codes))
        word = int(self._lengths[0]) if len(self._lengths) else 1
        self.first = slice(0, word if by_words else min(word, subwords.LONGEST) if merged else 1)
        """The characters of the first token, which nothing predicts: of subwords, those that it may have."""

    def uncut(self, blocks: NDArray[np.int32]) -> NDArray[np.int32]:
        """The block of each character; where words are read, a word is of the block that it begins in."""
        return np.repeat(blocks[self._starts], self._lengths) if self._by_words else blocks

    def whole(self, mask: Mask) -> Mask:
        """The mask of characters; where words are read, a word that holds a masked character is masked as a whole."""
        if not self._by_words or not len(mask):
            return mask
        return np.repeat(np.logical_or.reduceat(mask, self._starts), self._lengths)

    def read(self, level: Level, vocab: Vocab) -> Reading:
        """The text as the tokens of a model.

        - An unknown token costs what `stages.lm.spelling` says, beside the bits of ``<unk>``.
        - The white space behind a word costs nothing where it is joined, else what `adaptive_cost` says.
        - Where the model knows ends of documents, that of one belongs to its last character.
        """
        reading = self._tokens(level, vocab)
        return self._with_ends(reading) if vocab.ends and len(self._ends) else reading

    def _tokens(self, level: Level, vocab: Vocab) -> Reading:
        borders = [0, *self._ends.tolist(), len(self.codes)] if level.partial else [0, len(self.codes)]
        pieces = (piece for edges in itertools.pairwise(borders) for piece in self._pieces(level, *edges))
        if level.spelt:
            codes = np.concatenate([np.empty(0, np.uint8), *pieces])
            ids, begun = index(codes, vocab), letters.characters(codes)
            return Reading(ids, begun.cumsum() - begun, _cost_of_characters(codes, ids == 0))
        ids = np.concatenate([np.empty(0, vocab.id_type), *(index(piece, vocab) for piece in pieces)])
        if level.separator:
            return Reading(ids, self._starts, self._cost_of_words(ids == 0))
        if level.merged:
            within, characters = vocab.within.take(ids), vocab.characters.take(ids)
            starts = characters.cumsum() - characters - within
            return Reading(ids, starts, np.zeros(len(ids)), characters + within)
        return Reading(ids, np.arange(len(ids)), _cost_of_characters(self.codes, ids == 0))

    def _pieces(self, level: Level, start: int, stop: int) -> Iterator[Piece]:
        steps = range(start, stop, text.CHUNK)
        return level.pieces(_string(self.codes[step : min(step + text.CHUNK, stop)]) for step in steps)

    def _with_ends(self, reading: Reading) -> Reading:
        at = reading.starts.searchsorted(self._ends)
        spans = None if reading.spans is None else np.insert(reading.spans, at, 1)
        return Reading(
            np.insert(reading.ids, at, END_ID),
            np.insert(reading.starts, at, np.maximum(self._ends - 1, 0)),
            np.insert(reading.cost, at, 0.0),
            spans,
        )

    def _cost_of_words(self, unknown: Mask) -> Floats:
        letters = ~self._space
        lengths = np.add.reduceat(letters, self._starts, dtype=np.int64)
        alphabet = len(np.unique(self.codes[letters]))
        cost = np.where(unknown, (lengths + 1) * spelling.of_letter(alphabet), 0.0)
        if self._joined:
            return cost
        ends = np.flatnonzero(letters & np.append(self._space[1:], True)) + 1
        whole = _string(self.codes)
        gaps = [whole[end:start] for end, start in zip(ends, [*self._starts[1:], len(whole)], strict=True)]
        return cost + adaptive_cost(np.unique(gaps, return_inverse=True)[1])


def _cost_of_characters(codes: Ids, unknown: Mask) -> Floats:
    return np.where(unknown, spelling.of_character(len(np.unique(codes[unknown]))), 0.0)


def split(
    corpus: Path,
    table: IndexTable,
    name: str,
    borders: Borders | None = None,
    *,
    joined: bool,
    characters: Characters = len,
) -> Iterator[Ids]:
    """The normalised text of a split, code points in pieces; behind each of several documents one more, `END`.

    Args:
        corpus: the text that the table was made from.
        table: says where the split lies, and how the text was normalised.
        name: of the split.
        borders: of its documents, where it has such.
        joined: give one space for each run of white space.
        characters: how many begin in some ids of the table.
    """
    if borders:
        yield from _documents(corpus, table, name, borders, characters=characters, joined=joined)
        return
    tokens = range(table.splits[name].start, table.splits[name].stop)
    if LEVELS[table.level].partial:
        before = sum(table.splits[other].characters for other in SPLITS[: SPLITS.index(name)])
        tokens = range(before, before + table.splits[name].characters)
    yield from normalized(text.read(corpus), table.normalizer, table.level, tokens, joined=joined)


def _documents(
    corpus: Path, table: IndexTable, name: str, borders: Borders, *, characters: Characters, joined: bool
) -> Iterator[Ids]:
    split, partial = table.splits[name], LEVELS[table.level].partial
    stops = borders.first + borders.tokens
    rows = range(int(stops.searchsorted(split.start, "right")), int(borders.first.searchsorted(split.stop)))
    spans = ((int(borders.start[row]), int(borders.bytes[row])) for row in rows)
    for row, chunks in zip(rows, text.documents(corpus, spans), strict=True):
        first, stop = int(borders.first[row]), int(stops[row])
        edges = [max(split.start, first), min(split.stop, stop)]
        if partial:
            tokens = range(*(characters(table.ids[first:edge]) for edge in edges))
        else:
            tokens = range(*(edge - first for edge in edges))
        yield from normalized(chunks, table.normalizer, table.level, tokens, joined=joined)
        if edges[1] == stop:
            yield np.array([END], np.uint32)


def whole(path: Path, normalizer: Normalizer, level: LevelName, *, joined: bool) -> Iterator[Ids]:
    """All of a text, normalised, as `split` gives it; of documents where a table of them lies beside it."""
    if not (table := path.with_name(DOCUMENTS)).exists():
        yield from normalized(text.read(path), normalizer, level, joined=joined)
        return
    documents = Documents.read(table)
    for chunks in text.documents(path, zip(documents.starts, documents.sizes, strict=True)):
        yield from normalized(chunks, normalizer, level, joined=joined)
        yield np.array([END], np.uint32)


def normalized(
    chunks: Iterable[str], normalizer: Normalizer, level: LevelName, tokens: range | None = None, *, joined: bool
) -> Iterator[Ids]:
    """A normalised text, or these tokens of it (of subwords and of letters, these characters), as `split` gives it."""
    position, between = 0, True  # tokens that began before a piece, and whether the last one has ended
    for chunk in text.normalize(chunks, normalizer, level):
        if tokens is not None and position > tokens.stop:
            return
        codes = text.code_points(chunk)
        space, begins = _words(codes, between)
        starts = np.append(begins, len(codes)) if LEVELS[level].separator else np.arange(len(codes) + 1)
        kept = slice(None)
        if tokens is not None:
            first, stop = starts[np.clip([tokens.start - position, tokens.stop - position], 0, len(starts) - 1)]
            kept = slice(0 if position > tokens.start else first, stop)
        if joined:
            again = space & np.concatenate(([between], space[:-1]))
            yield np.where(space, np.uint8(ord(" ")), codes)[kept][~again[kept]]
        else:
            yield codes[kept]
        position += len(starts) - 1
        between = bool(space[-1]) if len(space) else between


def adaptive_cost(kinds: NDArray[np.intp]) -> Floats:
    """Bits of each symbol of a sequence for a code that knows the alphabet and counts as it goes (Laplace's rule).

    The k-th symbol costs -log2((times it came before + 1) / (k + size of the alphabet)), k from 0.

    Args:
        kinds: symbols 0 to size of the alphabet - 1, each of which occurs; shape (symbols,).
    """
    order = np.argsort(kinds, kind="stable")
    among = kinds[order]
    before = np.empty(len(kinds))
    before[order] = np.arange(len(kinds)) - among.searchsorted(among)
    alphabet = len(np.unique(kinds))
    cost: Floats = np.log2((np.arange(len(kinds)) + alphabet) / (before + 1))
    return cost


def _words(codes: Ids, between: bool) -> tuple[Mask, NDArray[np.intp]]:
    """Where white space is, and where words begin; ``between``: what comes before does not end in a word."""
    space = _SPACES.take(codes, mode="clip")
    return space, np.flatnonzero(~space & np.concatenate(([between], space[:-1]))[: len(space)])


def _string(codes: Ids) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le")
