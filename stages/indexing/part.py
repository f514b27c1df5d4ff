"""What is done to one part of a text, by whichever process: its tokens are kept, then counted, then looked up.

Each pass finds what the one before it has kept, or makes it again where somebody else has it, or had.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from data.corpus import pieces, text, together
from data.corpus.level import LEVELS
from data.tables.counts import count, index, merge
from data.tables.tokens import END_ID
from stages.lm.spelling import Spelling

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from data.corpus.level import Piece
    from data.corpus.parts import Part
    from data.corpus.text import LevelName, Normalizer
    from data.tables.tokens import Ids
    from data.tables.vocab import Vocab

    Ranges: TypeAlias = Mapping[str, tuple[int, int]]
    """Of tokens, or of the pieces that they are parts of, by what they are called; ends of documents do not count."""
    Numbers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """A text and how it becomes tokens."""

    path: Path
    level: LevelName
    normalizer: Normalizer

    def pieces(
        self, part: Part, limit: int, read: Callable[[int], object], had: Callable[[int], object]
    ) -> Iterator[Piece]:
        """The first ``limit`` tokens of a part, a piece at a time; ``read`` is told the characters of what was read,
        before it was normalised, and ``had`` the tokens of each document."""

        def told(chunks: Iterable[str]) -> Iterator[str]:
            for chunk in chunks:
                read(len(chunk))
                yield chunk

        if part.documents:
            documents = map(told, text.documents(self.path, part.documents))
            whole = together.pieces(documents, self.normalizer, self.level, had)
        else:
            chunks = told(text.read(self.path, part=part))
            whole = LEVELS[self.level].pieces(text.normalize(chunks, self.normalizer, self.level))
        for piece in whole:
            yield piece[:limit]
            limit -= len(piece)
            if limit <= 0:
                return


class Kept(NamedTuple):
    """What was kept of a part."""

    tokens: int
    characters: int
    """That were read, before they were normalised."""
    documents: Numbers
    """The tokens of each document, as far as they were read; none where the part is a piece of one."""


def keep(part: Part, limit: int, *, source: Source, folder: Path) -> Kept:
    """Read a part and keep its first tokens in a file."""
    characters, documents = list[int](), list[int]()
    path = _kept(folder, part)
    half = path.with_suffix(".half")
    tokens = sum(pieces.keep(source.pieces(part, limit, characters.append, documents.append), half))
    half.replace(path)
    return Kept(tokens, sum(characters), np.array(documents, np.int64))


def _kept(folder: Path, part: Part) -> Path:
    return folder / f"{part.start}"


def _pieces(part: Part, limit: int, *, source: Source, folder: Path) -> Iterator[Piece]:
    """The first tokens of a part: as they were kept, or read again where somebody else has kept them, or had."""
    path = _kept(folder, part)
    if not path.exists():
        keep(part, sys.maxsize, source=source, folder=folder)
    return pieces.kept(path, limit)


def counted(part: Part, limit: int, *, source: Source, folder: Path) -> Counter[str]:
    """How often each token stands among the first ones of a part."""
    return merge(map(count, _pieces(part, limit, source=source, folder=folder)))


class Indexed(NamedTuple):
    """What came of a part."""

    ids: Path | Ids
    """Where they are, or the ids themselves where another machine has written them."""
    read: dict[str, Spelling]
    """By the names of ranges: what of each lies in this part."""
    documents: Numbers
    """The ids of each document, with its end."""


def indexed(
    part: Part,
    limit: int,
    start: int,
    documents: Numbers,
    before: int,
    *,
    source: Source,
    folder: Path,
    vocab: Vocab,
    ranges: Ranges,
    spill: Path,
) -> Indexed:
    """Write the ids of the first tokens of a part to where they belong; of subwords, of which nobody knows yet how many
    come before, to a file of their own.

    Args:
        part: of the text.
        limit: tokens of it.
        start: how many come before it.
        documents: the tokens of each of its documents, none of which has none.
        before: documents that come before it.
        source: of the tokens.
        folder: where they may have been kept.
        vocab: which has an end of documents, where there is to be one behind each.
        ranges: of the tokens of the text.
        spill: the file for the ids, in the folder of whoever asked.
    """
    read = {name: Spelling(shifts=LEVELS[source.level].spelt) for name in ranges}
    kept, merges, here = _kept(folder, part), vocab.merges, folder == spill.parent
    path = spill if here and not merges else kept.with_suffix(".ids")
    ends, done, written, places = start + documents.cumsum(), 0, 0, []
    with path.open("r+b" if path == spill else "wb") as file:
        at = start + before if vocab.ends else start
        file.seek(at * vocab.id_type.itemsize if path == spill else 0)
        for piece in _pieces(part, limit, source=source, folder=folder):
            tokens, edges = merges.tokens(piece) if merges else (piece, None)
            ids = index(tokens, vocab)
            for name, (first, stop) in ranges.items():
                inside = slice(max(first - start, 0), max(stop - start, 0))
                if edges is None:
                    read[name].add(piece[inside], ids[inside])
                else:
                    within = ids[slice(*edges[np.clip([inside.start, inside.stop], 0, len(piece))])]
                    read[name].count(len(within), int(vocab.characters.take(within).sum()))
            start += len(piece)
            if done < len(ends) and ends[done] <= start:
                ended = ends[done : done + int(ends[done:].searchsorted(start, "right"))]
                done += len(ended)
                behind = ended - start + len(piece)
                behind = behind if edges is None else edges[behind].astype(np.int64)
                if vocab.ends:
                    ids = np.insert(ids, behind, END_ID)
                    behind += np.arange(1, len(behind) + 1)
                    for name, (first, stop) in ranges.items():
                        read[name].count(int(np.count_nonzero((ended > first) & (ended <= stop))), 0)
                places.append(written + behind)
            file.write(ids.data)
            written += len(ids)
    kept.unlink()  # the ids take its place
    lengths = np.diff(np.concatenate([np.zeros(1, np.int64), *places]))
    if here:
        return Indexed(path, read, lengths)
    sent = np.fromfile(path, vocab.id_type)
    path.unlink()
    return Indexed(sent, read, lengths)
