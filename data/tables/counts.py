"""What is done to a piece of a text's tokens, each apart from all others: it is counted, and looked up.

A piece is an array of code points (characters) or of strings, cut anywhere between two tokens. So any number of them
may be counted at a time, and anywhere.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from data.corpus.level import Piece
    from data.tables.tokens import Ids
    from data.tables.vocab import Vocab

PAIRS = 1 << 16
"""Pairs of bytes that there can be."""


def count(piece: Piece) -> Counter[str]:
    """How often each token stands in a piece."""
    if isinstance(piece, np.ndarray):
        occurrences = _occurrences(piece)
        tokens = [*map(chr, np.flatnonzero(occurrences).tolist())]
    else:
        piece = piece.dictionary_encode()
        occurrences = np.bincount(piece.indices, minlength=len(piece.dictionary))
        tokens = piece.dictionary.filter(occurrences > 0).to_pylist()
    return Counter(dict(zip(tokens, occurrences[occurrences > 0].tolist(), strict=True)))


def merge(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """The counts of several pieces as one."""
    merged: Counter[str] = Counter()
    for more in counts:
        merged.update(more)
    return merged


def index(piece: Piece, vocab: Vocab) -> Ids:
    """The ids of a piece's tokens, shape (tokens,), of the vocabulary's ``id_type``; 0 where it has none."""
    if isinstance(piece, np.ndarray):
        if piece.dtype == vocab.id_type == np.uint8:
            return np.frombuffer(piece.tobytes().translate(vocab.by_byte), np.uint8)
        return vocab.by_code_point.take(piece, mode="clip")
    piece = piece.dictionary_encode()
    ids: Ids = np.array(vocab.ids(piece.dictionary.to_pylist()), vocab.id_type).take(piece.indices.to_numpy())
    return ids


def _occurrences(codes: NDArray[np.unsignedinteger]) -> NDArray[np.intp]:
    """How often each code point stands there, by the code point. Bytes are counted as pairs, which takes half the time
    where the table of all pairs is short beside them."""
    if codes.dtype != np.uint8 or len(codes) < PAIRS:
        return np.bincount(codes)
    even = len(codes) // 2 * 2
    kinds = int(codes.max()) + 1
    pairs = np.bincount(codes[:even].view("<u2"), minlength=kinds << 8).reshape(kinds, 1 << 8)
    last = np.bincount(codes[even:], minlength=kinds)
    occurrences: NDArray[np.intp] = pairs.sum(axis=1) + pairs.sum(axis=0)[:kinds] + last
    return occurrences
