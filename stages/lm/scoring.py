"""What a model makes of a given text: what each token costs it, and what that amounts to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data.corpus import subwords
from data.errors import ConfigError
from stages.lm import metrics, side_by_side
from stages.lm.spelling import Spelling

if TYPE_CHECKING:
    from data.corpus.level import Level
    from data.tables.tokens import Ids
    from stages.lm.layers import Vector
    from stages.lm.predictor import Predictor

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
    read = Spelling(shifts=level.spelt)

    def counted() -> Iterator[Ids]:
        for piece, ids in text:
            if level.merged:
                read.count(len(ids), subwords.characters("".join(piece)))
            else:
                read.add(level.array(piece), ids)
            yield ids

    # Python's own sum of floats is another one since 3.12.
    total = math.fsum(float(chunk.sum(dtype=np.float64)) for chunk in losses(counted()))
    predicted = read.tokens - 1
    if predicted < 1:
        raise ConfigError(
            f"the text is too short: normalised ({normalizer}) it has {read.tokens} {level.noun}s, and the first one "
            "is not predicted; give one of two at least"
        )
    figures: dict[str, Any] = metrics.summarize(total / predicted, predicted, read.characters, read.bits)
    return Score(**figures, unknown_rate=read.unknown / read.tokens)


def log_probabilities(text: Pieces, predictor: Predictor, level: Level) -> Iterator[tuple[str, float]]:
    """Each token of a text but the first, and its log-probability, nats; of a subword, what it adds to the text, and so
    of a letter."""
    pieces, again = itertools.tee(text)
    tokens = itertools.chain.from_iterable(piece for piece, _ in pieces)
    nats = itertools.chain.from_iterable((-some).tolist() for some in carried(predictor, (ids for _, ids in again)))
    if level.partial:
        added = level.added(zip(tokens, itertools.chain([0.0], nats), strict=True))
        yield from itertools.islice(added, 1, None)
    else:
        next(tokens, None)
        yield from zip(tokens, nats, strict=True)


def carried(predictor: Predictor, text: Iterable[Ids]) -> Iterator[Vector]:
    """The losses of a text, in chunks, with the state carried from its first token, which has none, to its last.

    Its pieces are joined to as many tokens as are read at once, so that how it is cut costs no time.
    """
    states, held, length = predictor.beginning(), [np.empty(0, np.uint8)], 0
    for ids in text:
        held.append(ids)
        length += len(ids)
        while length > 2 * side_by_side.MOST:  # so that the rest can be halved, and is not too short to gain anything
            joined = np.concatenate(held)
            yield from predictor.losses(joined[: side_by_side.MOST + 1], states)
            held = [joined[side_by_side.MOST :]]  # its first token was predicted, and is not read yet
            length = len(held[0])
    yield from predictor.losses(np.concatenate(held), states)
