"""N-grams, models that only count: how often each token comes, or what followed the four before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data.tables.tokens import Ids

    Rows = npt.NDArray[np.integer[Any]]
    Counts = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

ORDER = 5
"""Tokens of an n-gram: four that are known, and the one that follows."""
_CHUNK = 1 << 20
_FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where the counts are too few to estimate them: those that KenLM falls back to."""


def uniform_loss(vocab_size: int) -> float:
    """Nats per token where every token is equally likely."""
    return math.log(vocab_size)


@dataclass(frozen=True)
class Unigram:
    """Each token by how often it comes in the training split, whatever came before."""

    log_probabilities: Floats
    """Of shape (vocab,)."""

    @classmethod
    def fit(cls, ids: Ids, vocab_size: int) -> Unigram:
        """Count the training split, one added to every token so that none is impossible (Laplace)."""
        counts = _count(ids, vocab_size) + 1
        return cls(np.log(counts / counts.sum()))

    def loss(self, ids: Ids) -> float:
        """Mean negative log-likelihood of all these ids, nats per token."""
        counts = _count(ids, len(self.log_probabilities))
        return float(-(counts * self.log_probabilities).sum() / counts.sum())


@dataclass(frozen=True)
class NGram:
    """Each token by what followed the few before it: n-grams with interpolated modified Kneser-Ney smoothing.

    With h the n - 1 tokens before w, and h' those but the first:

        p(w | h) = (c(hw) - D(c(hw))) / c(h·) + Σ D(c(h·)) / c(h·) · p(w | h'),

    and p(w | h) = p(w | h') where h never came. c counts occurrences in the highest order, and below it the different
    tokens that n-grams follow; below the first order stands the uniform distribution. D is D₁, D₂ or D₃ for counts of
    1, 2 and more: D_j = j - (j + 1) Y n_{j+1} / n_j with Y = n₁ / (n₁ + 2 n₂) and n_j the n-grams of that order that
    are counted j times. Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (Harvard
    TR-10-98, 1998).

    On the last tenth of Tiny Shakespeare, fitted on the rest, it needs 1.561 nats per character and 7.307 per word;
    interpolated Witten-Bell smoothing, 1.669 and 7.758.
    """

    orders: tuple[_Order, ...]
    """From the first on."""
    vocab_size: int

    @classmethod
    def fit(cls, ids: Ids, vocab_size: int, order: int = ORDER) -> NGram:
        """Count the n-grams of a text up to an order; not across its ends.

        N-grams are told apart order by order: a context's row among those of its length and the token behind it make
        up one number, which 64 bits always hold.
        """
        rows: Rows = np.zeros(len(ids) + 1, np.int32)  # of the empty context, before every token and behind the last
        orders: list[_Order] = []
        keys, contexts = np.empty(0, np.int64), 1
        for length in range(min(order, len(ids))):
            shorter, below = rows, keys
            keys, rows = _distinct(_keys(rows[:-1], ids[length:], vocab_size))
            if length:
                # Each n-gram, and the row of its last n - 1 tokens: as often as one of these has a different token in
                # front of it.
                endings = np.empty(len(keys), np.int32)
                endings[rows] = shorter[1:]
                orders.append(_Order.of(below, np.bincount(endings, minlength=len(below)), contexts, vocab_size))
                contexts = len(below)
        orders.append(_Order.of(keys, np.bincount(rows, minlength=len(keys)), contexts, vocab_size))
        return cls(tuple(orders), vocab_size)

    def losses(self, ids: Ids) -> Iterator[Floats]:
        """The negative log-likelihood of each token but the first, nats, in chunks.

        What comes before these ids is unknown: the second token has a context of one.
        """
        for start in range(1, len(ids), _CHUNK):
            begin = max(start - len(self.orders) + 1, 0)
            tokens = ids[begin : start + _CHUNK]
            probabilities = np.full(len(tokens), 1 / self.vocab_size)
            contexts: Rows = np.zeros(len(tokens), np.int64)
            for order in self.orders:
                rows = order.find(_keys(contexts, tokens, self.vocab_size))
                probabilities *= order.rest[contexts]
                probabilities += order.own[rows]
                contexts = np.concatenate(([-1], rows[:-1]))
            yield -np.log(probabilities[start - begin :])

    def loss(self, ids: Ids, progress: Callable[[int], None] | None = None) -> float:
        """The mean of ``losses``, nats per token; ``progress`` is called with how many tokens are done."""
        total, tokens = 0.0, 0
        for chunk in self.losses(ids):
            total += float(chunk.sum())
            tokens += len(chunk)
            if progress:
                progress(tokens)
        return total / tokens if tokens else math.nan


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length. Row -1 of ``own`` and ``rest`` is that of an n-gram or a context never seen."""

    keys: npt.NDArray[np.int64]
    """Row of the context times vocabulary, plus the token; ascending, of shape (n-grams,)."""
    own: npt.NDArray[np.float32]
    """What an n-gram's own count gives it: (c(hw) - D(c(hw))) / c(h·), of shape (n-grams + 1,)."""
    rest: npt.NDArray[np.float32]
    """What a context leaves to the next shorter one: Σ D(c(h·)) / c(h·), of shape (contexts + 1,)."""

    @classmethod
    def of(cls, keys: npt.NDArray[np.int64], counts: Counts, contexts: int, vocab_size: int) -> _Order:
        """The order that these counts of its n-grams make; ``contexts`` is how many n-grams the order below has."""
        context = keys // vocab_size
        discounts = np.array((0.0, *_discounts(counts)))[np.minimum(counts, 3)]
        totals = np.bincount(context, counts, contexts)
        rest = np.bincount(context, discounts, contexts)
        # A context that stands at the beginning of the text alone is followed by n-grams that follow nothing.
        followed = totals > 0
        totals[~followed] = rest[~followed] = 1
        own = (counts - discounts) / totals[context]
        return cls(keys, np.append(own, 0).astype(np.float32), np.append(rest / totals, 1).astype(np.float32))

    def find(self, keys: npt.NDArray[np.int64]) -> Rows:
        """The row of each of these keys, or -1."""
        rows = np.minimum(self.keys.searchsorted(keys), len(self.keys) - 1)
        rows[self.keys[rows] != keys] = -1
        return rows


def _keys(contexts: Rows, tokens: Ids, vocab_size: int) -> npt.NDArray[np.int64]:
    keys = contexts.astype(np.int64)
    keys *= vocab_size
    keys += tokens
    return keys


def _distinct(keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Rows]:
    """The different keys, ascending, and the row of each key among them."""
    order = keys.argsort()
    ascending = keys[order]
    first = np.append(True, ascending[1:] != ascending[:-1])
    rows = np.empty(len(keys), np.int32)
    rows[order] = first.cumsum(dtype=np.int32) - 1
    return ascending[first], rows


def _discounts(counts: Counts) -> tuple[float, ...]:
    """What is taken off a count of 1, of 2, and of 3 or more."""
    seen = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if all(seen):
        y = seen[0] / (seen[0] + 2 * seen[1])
        estimated = tuple(j - (j + 1) * y * seen[j] / seen[j - 1] for j in (1, 2, 3))
        if min(estimated) > 0:
            return estimated
    return _FALLBACK


def _count(ids: Ids, vocab_size: int) -> Counts:
    """How often each id comes; in chunks, because counting widens a chunk to 64 bits and the table may be large."""
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(ids), _CHUNK):
        counts += np.bincount(ids[start : start + _CHUNK], minlength=vocab_size)
    return counts
