"""A mixture beside its parts: what each of them makes of the same text, which the network reads once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.lm.mixture import Mixture
    from stages.lm.predictor import State, Vector


class Compared:
    """Mixtures of one network, to measure them; its losses are those of the network, and behind them of each mixture
    those of the n-gram and its own, (1 + 2 · mixtures, tokens).

    Its states are those of the network, and behind them one of each n-gram.
    """

    def __init__(self, *mixtures: Mixture) -> None:
        self._network, self._mixtures = mixtures[0].network, mixtures

    def beginning(self) -> list[State]:
        counts = [state for mixture in self._mixtures for state in mixture.ngram.beginning()]
        return self._network.beginning() + counts

    def losses(self, ids: NDArray[Any], states: list[State]) -> Iterator[Vector]:
        """As `stages.lm.predictor.Predictor.losses`."""
        behind = len(states) - len(self._mixtures)
        inner, counts = states[:behind], [[state] for state in states[behind:]]
        done = 0
        for network in self._network.losses(ids, inner):
            piece = ids[done : done + len(network) + 1]
            read = [mixture.ngram.read(piece, one) for mixture, one in zip(self._mixtures, counts, strict=True)]
            states[:] = [*inner, *(state for [state] in counts)]
            done += len(network)
            yield self._rows(network, read)

    def windowed_losses(self, ids: NDArray[Any], window: int) -> Iterator[Vector]:
        """As `stages.lm.predictor.Predictor.windowed_losses`."""
        span = self.windowed_span(window)
        for start in range(0, len(ids) - 1, span):
            chunk = ids[start : start + span + 1]
            read = [mixture.windowed(chunk, window) for mixture in self._mixtures]
            for step, network in enumerate(self._network.windowed_losses(chunk, window)):
                these = slice(step, None, window)
                yield self._rows(network, [(counted[these], found[these]) for counted, found in read])

    def chunks(self, left: int) -> Iterator[int]:
        return self._network.chunks(left)

    def windowed_span(self, window: int) -> int:
        return self._network.windowed_span(window)

    def _rows(self, network: Vector, read: list[tuple[NDArray[np.float64], NDArray[np.int64]]]) -> Vector:
        rows = [network]
        for mixture, (counted, found) in zip(self._mixtures, read, strict=True):
            rows += [counted.astype(np.float32), mixture.together(network, counted, found)]
        return np.stack(rows)
