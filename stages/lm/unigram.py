"""What a text costs someone who knows only its vocabulary, or how often each of its tokens comes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from data.tables.tokens import Ids

_CHUNK = 1 << 20


def uniform_loss(vocab_size: int) -> float:
    """Nats per token where every token is equally likely."""
    return math.log(vocab_size)


@dataclass(frozen=True)
class Unigram:
    """Each token by how often it comes in the training split, whatever came before."""

    log_probabilities: npt.NDArray[np.float64]
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


def _count(ids: Ids, vocab_size: int) -> npt.NDArray[np.int64]:
    """How often each id comes; in chunks, because counting widens a chunk to 64 bits and the table may be large."""
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(ids), _CHUNK):
        counts += np.bincount(ids[start : start + _CHUNK], minlength=vocab_size)
    return counts
