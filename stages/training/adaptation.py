"""Dynamic evaluation: what a text costs a model that goes on learning from it while it reads.

A network takes a step down its own loss, an n-gram beside it counts, and their shares follow
(`stages.lm.following`).

Krause, Kahembwe, Murray and Renals, "Dynamic Evaluation of Neural Sequence Models", ICML 2018, who divide each step by
the root of the mean square that the gradient had in the training text. Of that a model's folder holds nothing, so the
mean is taken as the text is read, as Tieleman and Hinton do ("RMSProp", lecture 6.5 of "Neural Networks for Machine
Learning", 2012), freed of its bias to zero as in Kingma and Ba, "Adam", ICLR 2015. With g clipped, after segment t:

    v ← β v + (1 - β) g ∘ g;  w ← w - η g / (√(v / (1 - βᵗ)) + ε)

Each segment is predicted before it is learnt from, so every figure is still that of text not seen before. But it is
another protocol than that of weights that stand still: name it beside the figure.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from data import cores
from data.errors import ConfigError
from data.tables.tokens import END_ID
from stages.lm import ensemble
from stages.lm.following import Following
from stages.lm.network import one_thread
from stages.training import bptt, minibatches
from stages.training.engine import recurrent_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from data.tables.tokens import Ids
    from stages.lm.mixture import Mixture
    from stages.lm.parameters import Architecture, Parameters
    from stages.lm.predictor import Vector
    from stages.training.minibatches import Minibatch

SEGMENT = 20
"""Tokens that are predicted with the same weights; backpropagation through time reaches back as far."""
CLIP_NORM = 1.0
"""What a longer gradient is scaled down to, so that no single segment undoes what was learnt."""
_KEPT = 0.999
"""β: how much of the mean square is kept from one segment to the next."""
_FLOOR = 1e-4
"""ε: a weight whose gradient is far smaller hardly moves."""
_TINY = 1e-30
"""Added to the mean square, so that where no gradient comes it does not end in numbers that a CPU is slow with."""
_LARGE = 1 << 19
"""Weights of a network from which on several compute at once. On two cores three of 3.4 million, or four of 1.2, then
read 1.3 to 1.5 times as fast, and two of a third of a million as fast; two of 16,000 would take 1.3 times as long."""
_PIECE = 1 << 15
"""Weights that take their step at once, so that they stay in the cache from one operation to the next."""


def losses(
    architecture: Architecture,
    networks: Sequence[Parameters],
    rate: float,
    text: Iterable[Ids],
    *,
    mixture: Mixture | None = None,
) -> Iterator[Vector]:
    """The negative log-likelihood of each token but the first, nats, segment by segment; the state is carried, and
    begins as that of a document where these have ends.

    What several networks say is the mean of their probabilities. After a segment each takes a step by its own loss;
    they begin as they are given, and nothing is kept. Of large ones as many compute at once as there are cores, one on
    each, which changes no bit.

    Args:
        architecture: of each network.
        networks: the weights of each, as `stages.lm.parameters` names them.
        rate: the learning rate.
        text: ids, cut anywhere.
        mixture: which the networks are part of.

    Yields:
        A segment's losses, float32.

    Raises:
        ConfigError: a rate at which the loss is no longer finite.
    """
    learners = [_Learner(architecture, weights) for weights in networks]
    following = Following(mixture) if mixture else None
    if architecture.ends:  # read, and not learnt from
        with one_thread():
            for learner in learners:
                learner.read(np.full((1, 1), END_ID, np.int32))
    at_once = min(len(learners), cores.available()) if architecture.weights() >= _LARGE else 1
    with ThreadPoolExecutor(at_once) as pool:  # which has no thread until one is asked for
        each_of: Any = pool.map if at_once > 1 else map
        for inputs, targets in minibatches.single(text, SEGMENT):
            with one_thread():
                each = [*each_of(partial(_Learner.losses, segment=(inputs, targets), rate=rate), learners)]
            if not np.isfinite(each).all():
                raise ConfigError(
                    f"at a rate of {rate:g} the model does not learn from the text but diverges: lower it"
                )
            nats = ensemble.together(each)
            yield following.losses(nats, np.append(inputs, targets[:, -1]).astype(np.uint32)) if following else nats


class _Learner:
    """A network that learns from what it has read.

    Args:
        architecture: of the network.
        weights: where it begins; they stay as they are.
    """

    def __init__(self, architecture: Architecture, weights: Parameters) -> None:
        self._weights, self._gradient, squares = (bptt.Vector(architecture) for _ in range(3))
        self._weights.fill(weights)
        vectors = self._weights.all, self._gradient.all, squares.all
        cuts = range(_PIECE, len(squares.all), _PIECE)
        self._pieces = [*zip(*(np.split(vector, cuts) for vector in vectors), strict=True)]
        self._spare = np.empty_like(self._pieces[0][0])
        shape = architecture.layers, architecture.hidden_size, 1
        self._state = [np.zeros(shape, np.float32) for _ in recurrent_names(architecture)]
        self._segments = 0
        # Two lengths: the last segment may be shorter.
        self._room = lru_cache(maxsize=2)(partial(bptt.Unrolled, architecture, rows=1))

    def read(self, inputs: bptt.Array) -> bptt.Unrolled:
        """Go on behind these ids, (1, steps)."""
        unrolled = self._room(inputs.size)
        unrolled.begin(self._state)
        unrolled.forward(self._weights, inputs, {})
        unrolled.end(self._state)
        return unrolled

    def losses(self, segment: Minibatch, rate: float) -> Vector:
        """Of each of a segment's targets, (steps,), before the step that it is then worth."""
        inputs, targets = segment
        with np.errstate(all="ignore"):
            unrolled = self.read(inputs)
            nats: Vector = unrolled.nats(targets)
            unrolled.backward(self._weights, self._gradient, {})
            self._step(rate)
        return nats

    def _step(self, rate: float) -> None:
        """As the module says, with √(1 - βᵗ) = c: η c g / (√v + c ε)."""
        self._segments += 1
        c = math.sqrt(1 - _KEPT**self._segments)
        norm = math.sqrt(np.dot(self._gradient.all, self._gradient.all))
        scale = CLIP_NORM / norm if norm > CLIP_NORM else 1.0
        for w, g, v in self._pieces:
            spare = self._spare[: len(w)]
            g *= scale
            v *= _KEPT
            v += np.multiply(np.square(g, out=spare), 1 - _KEPT, out=spare)
            v += _TINY
            np.sqrt(v, out=spare)
            spare += c * _FLOOR
            g /= spare
            g *= rate * c
            w -= g
