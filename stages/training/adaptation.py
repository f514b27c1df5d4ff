"""Dynamic evaluation: what a text costs a model that goes on learning from it while it reads.

Krause, Kahembwe, Murray and Renals, "Dynamic Evaluation of Neural Sequence Models", ICML 2018. Each segment is
predicted before it is learnt from, so every figure is still that of text not seen before. But it is another protocol
than that of weights that stand still: name it beside the figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data.errors import ConfigError
from stages.training.device import Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from data.tables.tokens import Ids
    from stages.lm.layers import Vector
    from stages.lm.parameters import Architecture, Parameters

SEGMENT = 20
"""Tokens that are predicted with the same weights; backpropagation through time reaches back as far."""
CLIP_NORM = 1.0
"""What a longer gradient is scaled down to, so that no single segment undoes what was learnt."""


def losses(architecture: Architecture, weights: Parameters, rate: float, text: Iterable[Ids]) -> Iterator[Vector]:
    """The negative log-likelihood of each token but the first, nats, segment by segment; the state is carried.

    After a segment the weights take one step of SGD; they begin as they are given, and nothing is kept.

    Args:
        architecture: of the model.
        weights: as `stages.lm.parameters` names them.
        rate: the learning rate.
        text: ids, cut anywhere.

    Yields:
        The mean loss of a segment, once for each of its tokens.

    Raises:
        ConfigError: a rate at which the loss is no longer finite.
    """
    from stages.training.gluon import GluonEngine

    engine = GluonEngine(architecture, 1, "sgd", 0.0, CLIP_NORM, (), Device("cpu"))
    engine.load_parameters(weights)
    for number, segment in enumerate(_segments(text), 1):
        row = segment.astype(np.int32)[None]
        [uploaded] = engine.upload([(row[:, :-1], row[:, 1:])], [{}])
        loss = np.float32(float(engine.step(*uploaded, rate, number)[0]))
        if not np.isfinite(loss):
            raise ConfigError(f"at a rate of {rate:g} the model does not learn from the text but diverges: lower it")
        yield np.full(len(segment) - 1, loss, np.float32)


def _segments(text: Iterable[Ids]) -> Iterator[Ids]:
    """`SEGMENT` predictions each, the last may be shorter: the last token of one is the first of the next."""
    held: Ids = np.empty(0, np.uint8)
    for piece in text:
        held = np.concatenate((held, piece))
        while len(held) > SEGMENT:
            yield held[: SEGMENT + 1]
            held = held[SEGMENT:]
    if len(held) > 1:
        yield held
