"""Dynamic evaluation: what a text costs a model that goes on learning from it while it reads.

Krause, Kahembwe, Murray and Renals, "Dynamic Evaluation of Neural Sequence Models", ICML 2018. Each segment is
predicted before it is learnt from, so every figure is still that of text not seen before. But it is another protocol
than that of weights that stand still: name it beside the figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data.errors import ConfigError
from data.tables.tokens import END_ID
from stages.training import minibatches
from stages.training.engine import EngineState, Recipe, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from data.tables.tokens import Ids
    from stages.lm.layers import Vector
    from stages.lm.parameters import Architecture, Parameters
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

    Yields:
        The mean loss of a segment, once for each of its tokens.

    Raises:
        ConfigError: a rate at which the loss is no longer finite.
    """
    recipe = Recipe(architecture=architecture, batch_size=1, optimizer="sgd", clip_norm=CLIP_NORM)
    learner = engine(recipe)
    learner.restore(EngineState.initial(recipe, weights))
    if architecture.ends:  # read, and not learnt from
        end = np.full((1, 1), END_ID, np.int32)
        learner.run([Step(inputs=end, targets=end, learning_rate=0.0, number=1, averaging=0.0)])
    for number, (inputs, targets) in enumerate(minibatches.single(text, SEGMENT), 1):
        step = Step(inputs=inputs, targets=targets, learning_rate=rate, number=number, averaging=0.0)
        [figures] = learner.run([step])
        loss = np.float32(figures.loss)
        if not np.isfinite(loss):
            raise ConfigError(f"at a rate of {rate:g} the model does not learn from the text but diverges: lower it")
        yield np.full(targets.size, loss, np.float32)
