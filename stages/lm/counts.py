"""The n-grams of a text, counted order by order as Kneser-Ney smoothing wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from data.errors import ConfigError
from data.tables.ngrams import LARGEST, LONGEST, NGrams
from data.tables.tokens import END_ID
from stages.lm import smoothing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data.tables.tokens import Ids

    Keys = npt.NDArray[np.int64]
    Counts = npt.NDArray[np.integer[Any]]
    Number = TypeVar("Number", np.int32, np.int64)

_CHUNK = 1 << 20


def count(ids: Ids, vocab_size: int, order: int, ends: bool, min_count: int) -> NGrams:
    """The n-grams of a text; the arguments are those of `NGram.fit`.

    Raises:
        ConfigError: an order that is out of bounds, or more than `LARGEST` n-grams.
    """
    if not 1 <= order <= LONGEST:
        raise ConfigError(f"train.ngram must be 1 to {LONGEST}, not {order}")
    if ends and order > 1:  # where single tokens are counted, an end that ends nothing is one too many
        ids = np.concatenate((np.array([END_ID], ids.dtype), ids))
    keys: list[Keys] = []
    counts: list[npt.NDArray[np.int32]] = []
    left: list[tuple[int, Counts]] = []
    discounts, kept, first = [], np.zeros(1, np.int32), 0
    for length, (found, often, seen) in enumerate(_all(ids, vocab_size, order, ends), 1):
        of_order = smoothing.discounts(often)
        if length > 2 and min_count > 1:
            # Whatever comes often enough, its parts do too.
            contexts, stays = kept[found // vocab_size], seen >= min_count
            seldom = ~stays & (contexts >= 0)
            left.append((first - 1, np.bincount(contexts[seldom], often[seldom], len(keys[-1]))))
            kept = np.where(stays, stays.cumsum(dtype=np.int32) - np.int32(1), np.int32(-1))
            found, often = key(contexts[stays], found[stays] % vocab_size, vocab_size), often[stays]
        elif min_count > 1:
            kept = np.arange(len(found), dtype=np.int32)
        if not len(found) and length > 1:
            break
        keys.append(found + first * vocab_size)
        counts.append(often.astype(np.int32))
        discounts.append(of_order)
        total = sum(map(len, keys))
        first = total - len(found) + 1
        if total > LARGEST:
            raise ConfigError(
                f"{total:,} n-grams of up to {length} tokens are more than the {LARGEST:,} of one model: "
                f"set train.ngram_min_count above {min_count}, or train.ngram below {length}"
            )
    sizes = tuple(map(len, keys))
    out = np.zeros(sum(sizes), np.int32)
    for start, some in left[: len(sizes) - 2]:
        out[start : start + len(some)] = some
    return NGrams(_joined(keys), _joined(counts), out, sizes, tuple(discounts), vocab_size, min_count, ends)


def _joined(parts: list[npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """All as one array; there is not room for all of them twice."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def key(contexts: Counts, tokens: Ids | Counts, vocab_size: int) -> Keys:
    """One number for a context's row and the token behind it; it is negative where there is no such context."""
    keys = contexts.astype(np.int64)
    keys *= vocab_size
    keys += tokens
    return keys


def _all(ids: Ids, vocab_size: int, order: int, ends: bool) -> Iterator[tuple[Keys, Counts, Counts]]:
    """Of each order the keys, how many different tokens stand before them, and how often they come.

    The former is the latter in the highest order, and where no token stands before them, for an end does.
    """
    rows: Counts = np.zeros(len(ids) + 1, np.int32)  # of the empty context, before every token and behind the last
    keys: Keys = np.empty(0, np.int64)
    seen: Counts = np.empty(0, np.int64)
    begun = np.zeros(1, bool)
    for length in range(1, order + 1):
        shorter, below, often = rows, keys, seen
        keys, seen, rows = _distinct(shorter, ids, vocab_size, ends and length > 2)
        if not len(keys):
            yield below, often, often
            return
        if length > 1:
            # Each n-gram, and the row of its last n - 1 tokens: as often as one of these has a different token in
            # front of it.
            endings = np.empty(len(keys) + 1, np.int32)  # the last is for where there is no n-gram
            endings[rows[1:]] = shorter[1:]
            counts = np.bincount(endings[:-1], minlength=len(below))
            yield below, np.where(begun, often, counts) if ends and length > 2 else counts, often
        begun = begun[keys // vocab_size] if length > 1 else keys == END_ID
    yield keys, seen, seen


def _distinct(rows: Counts, ids: Ids, vocab_size: int, ended: bool) -> tuple[Keys, Counts, Counts]:
    """The different keys of tokens behind their contexts, ascending; how often each comes; and the row of the one at
    each token, -1 where there is none. The first of ``rows`` and of what is returned is that before the first token.

    Args:
        rows: of the contexts, (tokens + 1,).
        ids: the tokens.
        vocab_size: above all of them.
        ended: whether nothing follows `END_ID`.
    """

    def keys(start: int, stop: int) -> Keys:
        some = key(rows[start:stop], ids[start:stop], vocab_size)
        if ended:
            some[max(1 - start, 0) :][ids[max(start - 1, 0) : stop - 1] == END_ID] = -1
        return some

    # Keys are made twice, and sorted where they lie: of long texts it is they that memory is needed for.
    ascending = keys(0, len(ids))
    ascending.sort()
    ascending = ascending[ascending.searchsorted(0) :]
    first = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1])[: len(ascending)])
    different, seen = ascending[first], np.diff(first, append=len(ascending))
    del ascending
    following = np.full(len(rows), -1, np.int32)
    for start in range(0, len(ids), _CHUNK):
        stop = min(start + _CHUNK, len(ids))
        some = keys(start, stop)
        order = some.argsort()  # one beside the other in memory they are found many times sooner
        following[start + 1 : stop + 1][order] = find(different, some[order], 0)
    return different, seen, following


def find(keys: Keys, wanted: Keys, first: int = 1) -> npt.NDArray[np.int64]:
    """The number of each of the ``wanted`` among ascending keys, where the ``first`` one has that; or -1."""
    if not len(keys):
        return np.full_like(wanted, -1)
    found = keys.searchsorted(wanted)
    return np.where(keys.take(found, mode="clip") == wanted, found + first, -1)
