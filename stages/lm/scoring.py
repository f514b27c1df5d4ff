"""What a model makes of a given text: what each token costs it, and what that amounts to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data.errors import ConfigError
from stages.lm import metrics
from stages.lm.spelling import Spelling

if TYPE_CHECKING:
    from data.corpus.level import Level
    from data.tables.tokens import Ids
    from stages.lm.layers import Vector
    from stages.lm.network import Network

    Pieces = Iterable[tuple[list[str], Ids]]
    """A text, cut anywhere between two tokens: the tokens of each piece, and their ids."""
    Losses = Callable[[Iterator[Ids]], Iterable[Vector]]
    """From a text's ids, in pieces, to the loss of each token but the first, nats."""


@dataclass(frozen=True)
class Score:
    """What a model makes of a text; the names are those of ``metrics.json``."""

    loss: float
    """Mean negative log-likelihood of all tokens but the first, nats."""
    perplexity: float
    bits_per_character: float
    """Of the normalised text, words with a space behind each, unknown tokens spelled out (`stages.lm.spelling`)."""
    tokens: int
    """How many were predicted: all but the first."""
    unknown_rate: float
    """Fraction of all tokens that the vocabulary lacks. In loss and perplexity they cost what makes ``<unk>`` likely,
    and no more."""


def score(text: Pieces, losses: Losses, level: Level, normalizer: str) -> Score:
    """The mean over a text, read once.

    Args:
        text: normalised.
        losses: what the model makes of it.
        level: what its tokens are.
        normalizer: what it was normalised by, for the error's sentence.

    Raises:
        ConfigError: fewer than two tokens, so that nothing is predicted.
    """
    read = Spelling()

    def counted() -> Iterator[Ids]:
        for piece, ids in text:
            read.add(level.array(piece), ids)
            yield ids

    total = sum(float(chunk.sum(dtype=np.float64)) for chunk in losses(counted()))
    predicted = read.tokens - 1
    if predicted < 1:
        raise ConfigError(
            f"the text is too short: normalised ({normalizer}) it has {read.tokens} {level.noun}s, and the first one "
            "is not predicted; give one of two at least"
        )
    figures: dict[str, Any] = metrics.summarize(total / predicted, predicted, read.characters, read.bits)
    return Score(**figures, unknown_rate=read.unknown / read.tokens)


def log_probabilities(text: Pieces, network: Network) -> Iterator[tuple[str, float]]:
    """Each token of a text but the first, and its log-probability, nats."""
    pieces, ids = itertools.tee(text)
    for (piece, _), nats in zip(pieces, carried(network, (ids for _, ids in ids)), strict=True):
        yield from zip(piece[len(piece) - len(nats) :], (-nats).tolist(), strict=True)


def carried(network: Network, text: Iterable[Ids]) -> Iterator[Vector]:
    """The losses of each piece of a text, with the state carried from its first token, which has none, to its last."""
    states, before = network.zero_state(), np.empty(0, np.uint8)
    for ids in text:
        joined = np.concatenate((before, ids))
        yield np.concatenate([np.empty(0, np.float32), *network.losses(joined, states)])
        before = joined[-1:]
