"""The tokens of many documents, of which short ones come together.

What is done once with each piece of a text is then done as seldom as in a long one.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from data.corpus import letters, subwords, text
from data.corpus.level import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from data.corpus.level import Piece
    from data.corpus.text import LevelName, Normalizer

SHORT = 1 << 16
"""Characters of a document that waits for others."""


def pieces(
    documents: Iterable[Iterable[str]], normalizer: Normalizer, level: LevelName, had: Callable[[int], object]
) -> Iterator[Piece]:
    """The tokens of normalised documents, one behind another, as `Level.pieces` has them.

    Args:
        documents: each in chunks, to be read before the next one.
        normalizer: for each by itself.
        level: of the tokens.
        had: is told the tokens of each document, before the piece comes with its last one.

    Raises:
        CorpusError: as `normalize` and `Level.pieces` do.
    """
    waiting, size = list[str](), 0
    for document in documents:
        chunks = iter(text.normalize(document, normalizer, level))
        begun, length = list[str](), 0
        while length < SHORT and (chunk := next(chunks, None)) is not None:
            begun.append(chunk)
            length += len(chunk)
        if length < SHORT:
            waiting.append("".join(begun))
            size += length
            if size >= text.CHUNK:
                yield from _together(waiting, level, had)
                waiting, size = [], 0
            continue
        yield from _together(waiting, level, had)
        waiting, size = [], 0
        yield from _alone(itertools.chain(begun, chunks), level, had)
    yield from _together(waiting, level, had)


def _alone(chunks: Iterable[str], level: LevelName, had: Callable[[int], object]) -> Iterator[Piece]:
    tokens, last = 0, None
    for piece in LEVELS[level].pieces(chunks):
        if last is not None:
            yield last
        tokens, last = tokens + len(piece), piece
    had(tokens)
    if last is not None:
        yield last


def _together(texts: list[str], level: LevelName, had: Callable[[int], object]) -> Iterator[Piece]:
    if not texts:
        return
    if level == "bpe":
        piece, lengths = subwords.several(texts)
        whole: Iterable[Piece] = [piece]
    elif level == "word":
        whole = LEVELS[level].pieces(["\n".join(texts)])
        lengths = [len(one.split()) for one in texts]
    else:
        if LEVELS[level].spelt:
            texts = [*map(letters.spelt, texts)]
        whole = [text.code_points("".join(texts))]
        lengths = [*map(len, texts)]
    for length in lengths:
        had(length)
    yield from (piece for piece in whole if len(piece))
