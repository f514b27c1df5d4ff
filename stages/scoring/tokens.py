"""Several texts as a model reads them, one behind another: their tokens, their characters, and which makes which."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data.corpus import together
from data.corpus.letters import characters
from data.corpus.text import code_points
from data.tables.counts import index

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from data.tables.tokens import Ids
    from stages.lm.model import LanguageModel

    Counts = NDArray[np.int64]


class Read(NamedTuple):
    """Several texts."""

    ids: Ids
    """(tokens,)."""
    lengths: Counts
    """Tokens of each text, (texts,)."""
    codes: NDArray[np.unsignedinteger[Any]]
    """Their code points, normalised, words with one space between them, (characters,)."""
    sizes: Counts
    """Characters of each text, (texts,)."""
    last: Counts
    """For each token the character that it ends with, of a subword the last one of its piece, of a shift that of its
    letter, (tokens,)."""
    letters: Counts
    """How many characters it takes to spell a token, of a word its end too, (tokens,)."""
    signs: NDArray[np.unsignedinteger[Any]] | None = None
    """What unknown tokens are told from one another by, where that is a code point, (tokens,)."""


def read(texts: Sequence[str], model: LanguageModel) -> Read:
    """Read each text by itself, as `LanguageModel.score` does.

    Raises:
        CorpusError: one that cannot be normalised, or for words that has none to speak of.
    """
    had = list[int]()
    documents = ([text] for text in texts)
    pieces: list[Any] = [*together.pieces(documents, model.normalizer, model.level, had.append)]
    lengths = np.array(had, np.int64)
    if model.level == "char":
        codes = np.concatenate([np.empty(0, np.uint8), *pieces])
        ones = np.ones(len(codes), np.int64)
        return Read(index(codes, model.vocab), lengths, codes, lengths, ones.cumsum() - 1, ones, codes)
    if model.kind.spelt:
        codes = np.concatenate([np.empty(0, np.uint8), *pieces])
        begun = characters(codes).astype(np.int64)
        several = np.split(codes, lengths.cumsum()[:-1])
        told = code_points("".join(model.kind.join(map(chr, some.tolist())) for some in several))
        sizes = _summed(begun, lengths)
        return Read(index(codes, model.vocab), lengths, told, sizes, begun.cumsum() - begun, begun, codes)
    strings: list[str] = [string for piece in pieces for string in piece.dictionary_decode().to_pylist()]
    if model.level == "word":
        ids = _joined(model, (index(piece, model.vocab) for piece in pieces))
        return _words(strings, ids, lengths, model)
    merges = model.kind.merges
    assert merges
    found = [merges.tokens(piece) for piece in pieces]
    each = np.concatenate([np.empty(0, np.int64), *(np.diff(places) for _, places in found)])
    sizes = np.fromiter(map(len, strings), np.int64, len(strings))
    ids = _joined(model, (index(tokens, model.vocab) for tokens, _ in found))
    return Read(
        ids,
        _summed(each, lengths),
        code_points("".join(strings)),
        _summed(sizes, lengths),
        np.repeat(sizes.cumsum() - 1, each),
        np.ones(len(ids), np.int64),
    )


def _words(words: list[str], ids: Ids, lengths: Counts, model: LanguageModel) -> Read:
    whole = iter(zip(words, itertools.repeat(None)))
    several = (itertools.islice(whole, length) for length in lengths.tolist())
    added = [text for tokens in several for text, _ in model.kind.added(tokens)]
    sizes = np.fromiter(map(len, added), np.int64, len(added))
    letters = np.fromiter(map(len, words), np.int64, len(words)) + 1
    codes = code_points("".join(added))
    return Read(ids, lengths, codes, _summed(sizes, lengths), sizes.cumsum() - 1, letters)


def _joined(model: LanguageModel, ids: Iterable[Ids]) -> Ids:
    return np.concatenate([np.empty(0, model.vocab.id_type), *ids])


def _summed(values: Counts, lengths: Counts) -> Counts:
    """What the first ``lengths[0]`` values add up to, the next ``lengths[1]``, …"""
    sums: Counts = np.diff(np.append(0, values.cumsum())[np.append(0, lengths.cumsum())])
    return sums
