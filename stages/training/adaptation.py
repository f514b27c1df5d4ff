"""Dynamic evaluation: what a text costs a model that goes on learning from it while it reads.

A network takes a step of its optimizer, an n-gram beside it counts, and their shares follow (`stages.lm.following`).

Krause, Kahembwe, Murray and Renals, "Dynamic Evaluation of Neural Sequence Models", ICML 2018. Each segment is
predicted before it is learnt from, so every figure is still that of text not seen before. But it is another protocol
than that of weights that stand still: name it beside the figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data.errors import ConfigError
from data.tables.tokens import END_ID
from stages.lm.following import Following
from stages.lm.network import Network
from stages.training import minibatches
from stages.training.engine import EngineState, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from data.tables.tokens import Ids
    from stages.lm.mixture import Mixture
    from stages.lm.parameters import Architecture, Parameters
    from stages.lm.predictor import Vector
    from stages.training.engine import Engine

SEGMENT = 20
"""Tokens that are predicted with the same weights; backpropagation through time reaches back as far."""
CLIP_NORM = 1.0
"""What a longer gradient is scaled down to, so that no single segment undoes what was learnt."""


def losses(
    architecture: Architecture,
    weights: Parameters,
    rate: float,
    text: Iterable[Ids],
    *,
    engine: Callable[[Recipe], Engine],
    mixture: Mixture | None = None,
) -> Iterator[Vector]:
    """The negative log-likelihood of each token but the first, nats, segment by segment; the state is carried, and
    begins as that of a document where these have ends.

    After a segment the weights take one step of SGD; they begin as they are given, and nothing is kept.

    Args:
        architecture: of the model.
        weights: as `stages.lm.parameters` names them.
        rate: the learning rate.
        text: ids, cut anywhere.
        engine: builds what computes.
        mixture: which the network is part of.

    Yields:
        The mean loss of a segment, once for each of its tokens; of a mixture the loss of each token.

    Raises:
        ConfigError: a rate at which the loss is no longer finite.
    """
    recipe = Recipe(architecture=architecture, batch_size=1, optimizer="sgd", clip_norm=CLIP_NORM)
    learner = engine(recipe)
    learner.restore(EngineState.initial(recipe, weights))
    following = Following(mixture) if mixture else None
    if architecture.ends:  # read, and not learnt from
        end = np.full((1, 1), END_ID, np.int32)
        learner.run([Step(inputs=end, targets=end, learning_rate=0.0, number=1, averaging=0.0)])
    for number, (inputs, targets) in enumerate(minibatches.single(text, SEGMENT), 1):
        if following:
            network, ids = Network(architecture, learner.state().parameters), np.append(inputs, targets[:, -1])
            losses = following.losses(network, ids.astype(np.uint32))
        step = Step(inputs=inputs, targets=targets, learning_rate=rate, number=number, averaging=0.0)
        [figures] = learner.run([step])
        loss = np.float32(figures.loss)
        if not np.isfinite(loss):
            raise ConfigError(f"at a rate of {rate:g} the model does not learn from the text but diverges: lower it")
        yield losses if following else np.full(targets.size, loss, np.float32)
