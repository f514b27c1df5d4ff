"""A network and an n-gram that say together what comes next: better than either, for they are wrong in other places.

With s the network's share, p(w | h) = s · p_network(w | h) + (1 - s) · p_counts(w | h). There is a share for each
length of the context that the n-gram has found: what is known of a long one is worth more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.lm import metrics
from stages.lm.softmax import logarithm, softmax

if TYPE_CHECKING:
    from data.tables.tokens import Ids
    from stages.lm.ngram import NGram
    from stages.lm.predictor import Predictor, State, Vector

    Floats = NDArray[np.float64]

SHARE = 0.5
"""The network's, where there are fewer than `FEWEST` tokens to choose it on."""
FEWEST = 200
MOST = 1 << 20
"""Tokens that shares are chosen on, at most."""
_PRIOR = 10.0
"""Tokens whose weight the common share has in that of each length."""
_ROUNDS, _SETTLED = 1000, 1e-7
_CERTAIN = 1e-6
"""No share is nearer to 0 or 1: what one part calls impossible never is."""


class Mixture:
    """A `stages.lm.predictor.Predictor` made of two.

    Its states are those of the network, and behind them that of the n-gram.

    Args:
        network: one, or an `stages.lm.ensemble.Ensemble` of several; it reads the same ids.
        ngram: of the same vocabulary.
        shares: the network's, (order,): ``shares[k]`` where the n-gram knows what followed the last k tokens.
    """

    def __init__(self, network: Predictor, ngram: NGram, shares: Sequence[float]) -> None:
        self.network, self.ngram = network, ngram
        self.shares = np.array(shares, np.float64)

    def counting(self, ids: Ids) -> Mixture:
        """The same network and shares beside an n-gram of another text."""
        return Mixture(self.network, self.ngram.counting(ids, len(self.shares)), self.shares.tolist())

    def zero_state(self, *columns: int) -> list[State]:
        return [*self.network.zero_state(*columns), *self.ngram.zero_state(*columns)]

    def beginning(self) -> list[State]:
        return [*self.network.beginning(), *self.ngram.beginning()]

    def advance(self, id_: int, states: list[State]) -> None:
        inner, counts = states[:-1], states[-1:]
        self.network.advance(id_, inner)
        self.ngram.advance(id_, counts)
        states[:] = inner + counts

    def readout(self, first: int = 0) -> Callable[[list[State]], Vector]:
        logits = self.network.readout()

        def mixed(states: list[State]) -> Vector:
            inner, counts = states[:-1], states[-1:]
            likely = softmax(logits(inner))
            share = self.shares[self.ngram.found(counts)]
            likely *= share
            counted = self.ngram.probabilities(counts)
            counted *= 1 - share
            likely += counted
            return logarithm(likely[first:])

        return mixed

    def advance_columns(self, ids: NDArray[Any], states: list[State]) -> None:
        inner, counts = states[:-1], states[-1:]
        self.network.advance_columns(ids, inner)
        self.ngram.advance_columns(ids, counts)
        states[:] = inner + counts

    def readout_columns(self, first: int = 0) -> Callable[[list[State]], Vector]:
        logits = self.network.readout_columns()

        def mixed(states: list[State]) -> Vector:
            inner, counts = states[:-1], states[-1:]
            likely = softmax(logits(inner))
            share = self.shares[self.ngram.found(counts)][:, None]
            likely *= share
            counted = self.ngram.probabilities_columns(counts)
            counted *= 1 - share
            likely += counted
            return logarithm(likely[:, first:])

        return mixed

    def losses(self, ids: NDArray[Any], states: list[State] | None = None) -> Iterator[Vector]:
        for network, counted, found in self.read(ids, self.beginning() if states is None else states):
            yield self.together(network, counted, found)

    def read(self, ids: NDArray[Any], states: list[State]) -> Iterator[tuple[Vector, Floats, NDArray[np.int64]]]:
        """As ``losses``: those of the network, those of the n-gram, and the length of the context that this knew."""
        inner, counts = states[:-1], states[-1:]
        done = 0
        for network in self.network.losses(ids, inner):
            counted, found = self.ngram.read(ids[done : done + len(network) + 1], counts)
            states[:] = inner + counts
            done += len(network)
            yield network, counted, found

    def together(self, network: Vector, counted: Floats, found: NDArray[np.int64]) -> Vector:
        """The losses of the mixture, from what ``read`` gives."""
        share = self.shares[found]
        mixed: Floats = -np.logaddexp(np.log(share) - network, np.log1p(-share) - counted)
        return mixed.astype(np.float32)

    def loss(self, ids: NDArray[Any]) -> float:
        return metrics.mean(self.losses(ids))

    def chunks(self, left: int) -> Iterator[int]:
        return self.network.chunks(left)

    def separate_losses(self, ids: NDArray[Any], lengths: NDArray[np.int64]) -> Vector:
        return self.together(self.network.separate_losses(ids, lengths), *self.ngram.separate(ids, lengths))

    def windowed_losses(self, ids: NDArray[Any], window: int) -> Iterator[Vector]:
        span = self.windowed_span(window)
        for start in range(0, len(ids) - 1, span):
            chunk = ids[start : start + span + 1]
            counted, found = self.windowed(chunk, window)
            for step, network in enumerate(self.network.windowed_losses(chunk, window)):
                yield self.together(network, counted[step::window], found[step::window])

    def windowed(self, ids: NDArray[Any], window: int) -> tuple[Floats, NDArray[np.int64]]:
        """The losses of the n-gram, and the length of the context that it knew, where it reads windows."""
        return self.ngram.read(ids, self.ngram.zero_state(), window)

    def windowed_span(self, window: int) -> int:
        return self.network.windowed_span(window)


def halves(mixture: Mixture, training: Ids, held_out: Ids) -> Iterator[tuple[Mixture, Ids]]:
    """What to choose shares by: each half of a text, and a mixture that has counted the other half as well as what it
    was trained on.

    So each reads close to what it has counted, as the mixture will that counts the whole text in the end. Chosen by one
    that has counted the training split alone, an n-gram has too small a share wherever a text changes as it goes on: in
    a log of installed packages the mixture was then behind the n-gram, 2.14 against 2.01, and so it needs 1.93.

    Args:
        mixture: of the network, and of an n-gram of any text.
        training: that the network has learnt from.
        held_out: that it has not; `MOST` tokens of it are read.
    """
    held_out = held_out[: MOST + 1]
    middle = len(held_out) // 2
    for read, counted in ((slice(middle), slice(middle, None)), (slice(middle - 1, None), slice(middle))):
        yield mixture.counting(np.concatenate([training, held_out[counted]])), held_out[read]


def choose(readings: Iterable[tuple[Mixture, Ids]]) -> list[float]:
    """The shares under which texts are likeliest, by expectation and maximisation, which what the mixtures have do not
    matter to.

    First there is one for all tokens, then one for each length of the context, in which that one has some weight.

    Args:
        readings: mixtures of one order, each with a text of its own that its parts have not seen, of two tokens at
            least.
    """
    ratios, lengths, order = list[Any](), list[Any](), 0
    for mixture, ids in readings:
        order = len(mixture.shares)
        for network, counted, found in mixture.read(ids, mixture.beginning()):
            ratios.append(np.exp(np.clip(counted - network, -700, 700)))
            lengths.append(found)
    ratio, length = np.concatenate(ratios), np.concatenate(lengths)
    common = _settled(ratio, SHARE, 0.0)
    return [_settled(ratio[length == one], common, _PRIOR) for one in range(order)]


def _settled(ratio: Floats, common: float, prior: float) -> float:
    """The network's share, given the network's probability over the n-gram's, of each token; as many as ``prior`` more
    have the common one."""
    share = common
    for _ in range(_ROUNDS):
        own = share * ratio
        better = float((prior * common + (own / (own + (1 - share))).sum()) / (prior + len(ratio)))
        before, share = share, min(max(better, _CERTAIN), 1 - _CERTAIN)
        if abs(share - before) < _SETTLED:
            break
    return share
