"""The baselines: what a split costs someone who knows no more than how often each token comes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_CHUNK = 1 << 20


def uniform_loss(vocab_size: int) -> float:
    """Nats per token where every token is equally likely."""
    return math.log(vocab_size)


@dataclass(frozen=True)
class Unigram:
    """Each token by its share of the training split, whatever came before."""

    log_probabilities: npt.NDArray[np.float64]
    """Of shape (vocab,)."""

    @classmethod
    def fit(cls, ids: npt.NDArray[np.unsignedinteger[Any]], vocab_size: int) -> Unigram:
        """Count the training split, one added to every token so that none is impossible (Laplace)."""
        counts = _count(ids, vocab_size) + 1
        return cls(np.log(counts / counts.sum()))

    def loss(self, ids: npt.NDArray[np.unsignedinteger[Any]]) -> float:
        """Mean negative log-likelihood of all these ids, nats per token."""
        counts = _count(ids, len(self.log_probabilities))
        return float(-(counts @ self.log_probabilities) / counts.sum())


def _count(ids: npt.NDArray[np.unsignedinteger[Any]], vocab_size: int) -> npt.NDArray[np.int64]:
    """How often each id comes; in chunks, because counting widens a chunk to 64 bits and the table may be large."""
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(ids), _CHUNK):
        counts += np.bincount(ids[start : start + _CHUNK], minlength=vocab_size)
    return counts
