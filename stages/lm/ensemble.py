"""Networks that say together what comes next: the mean of their probabilities.

Trained alike from other seeds they are wrong in other places, and the mean is better than any of them (Hansen and
Salamon, "Neural Network Ensembles", 1990). The mean of their logits is not as good: 1.364 nats for 1.361 (two LSTMs of
plays).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data import cores
from stages.lm import metrics, parameters
from stages.lm.network import Network
from stages.lm.softmax import logarithm, softmax

if TYPE_CHECKING:
    from stages.lm.parameters import Architecture, Parameters
    from stages.lm.predictor import Predictor, State, Vector


_ENDED: Vector = np.empty(0, np.float32)
"""What an iterator gives that has nothing left."""
_LONG = 1 << 32
"""Tokens of a text times weights of a network from which on threads are worth their start, a hundredth of a second."""


def made(architecture: Architecture, weights: Parameters) -> Predictor:
    """The network of these weights, or the several that they are of.

    Args:
        architecture: of each.
        weights: as `stages.lm.parameters.together` names them.
    """
    networks = [Network(architecture, one) for one in parameters.apart(weights, architecture.networks)]
    return Ensemble(networks) if len(networks) > 1 else networks[0]


class Ensemble:
    """A `stages.lm.predictor.Predictor` made of several networks.

    Its states are those of the first, and behind them those of the others.

    Args:
        networks: two at least, of one architecture; they read the same ids.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks

    def zero_state(self, *columns: int) -> list[State]:
        return [state for network in self.networks for state in network.zero_state(*columns)]

    def beginning(self) -> list[State]:
        return [state for network in self.networks for state in network.beginning()]

    def advance(self, id_: int, states: list[State]) -> None:
        own = self._apart(states)
        for network, inner in zip(self.networks, own, strict=True):
            network.advance(id_, inner)
        states[:] = chain.from_iterable(own)

    def readout(self, first: int = 0) -> Callable[[list[State]], Vector]:
        return self._mean([network.readout() for network in self.networks], first)

    def advance_columns(self, ids: NDArray[Any], states: list[State]) -> None:
        own = self._apart(states)
        for network, inner in zip(self.networks, own, strict=True):
            network.advance_columns(ids, inner)
        states[:] = chain.from_iterable(own)

    def readout_columns(self, first: int = 0) -> Callable[[list[State]], Vector]:
        return self._mean([network.readout_columns() for network in self.networks], first)

    def losses(self, ids: NDArray[Any], states: list[State] | None = None) -> Iterator[Vector]:
        states = self.beginning() if states is None else states
        own = self._apart(states)
        each = [network.losses(ids, inner) for network, inner in zip(self.networks, own, strict=True)]
        for nats in self._at_once(each, len(ids)):
            states[:] = chain.from_iterable(own)
            yield together(nats)

    def loss(self, ids: NDArray[Any]) -> float:
        return metrics.mean(self.losses(ids))

    def chunks(self, left: int) -> Iterator[int]:
        return self.networks[0].chunks(left)

    def separate_losses(self, ids: NDArray[Any], lengths: NDArray[np.int64]) -> Vector:
        return together([network.separate_losses(ids, lengths) for network in self.networks])

    def windowed_losses(self, ids: NDArray[Any], window: int) -> Iterator[Vector]:
        for nats in self._at_once([network.windowed_losses(ids, window) for network in self.networks], len(ids)):
            yield together(nats)

    def windowed_span(self, window: int) -> int:
        return self.networks[0].windowed_span(window)

    def _at_once(self, each: Sequence[Iterator[Vector]], tokens: int) -> Iterator[Sequence[Vector]]:
        """What ``zip`` gives of so many tokens; of a long text by as many threads as there are cores, bit by bit."""
        threads = min(len(each), cores.available())
        if threads == 1 or tokens * self.networks[0].architecture.weights() < _LONG:
            yield from zip(*each, strict=True)
            return

        from multiprocessing.pool import ThreadPool  # which only a long text is worth

        # Of these threads none is waited for where this one is told to end: a chunk may take a minute.
        with ThreadPool(threads) as pool:
            while (nats := pool.map(lambda one: next(one, _ENDED), each, chunksize=1))[0] is not _ENDED:
                yield nats

    def _apart(self, states: list[State]) -> list[list[State]]:
        """The states of each."""
        each = len(states) // len(self.networks)
        return [states[at : at + each] for at in range(0, len(states), each)]

    def _mean(self, readouts: Sequence[Callable[[list[State]], Vector]], first: int) -> Callable[[list[State]], Vector]:
        def mean(states: list[State]) -> Vector:
            each = [softmax(logits(own)) for logits, own in zip(readouts, self._apart(states), strict=True)]
            return logarithm(np.mean(each, axis=0)[..., first:])

        return mean


def together(nats: Sequence[Vector]) -> Vector:
    """The loss of each token, (tokens,), given what it costs each network."""
    mean: Vector = np.log(len(nats)) - np.logaddexp.reduce(-np.asarray(nats, np.float64), axis=0)
    return mean.astype(np.float32)
