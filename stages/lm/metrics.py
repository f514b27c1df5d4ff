"""What a loss amounts to: perplexity, and bits per character."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stages.lm.predictor import Vector

_LARGEST = sys.float_info.max


def mean(losses: Iterable[Vector]) -> float:
    """Of losses in chunks; not a number where there are none."""
    every = np.concatenate([np.empty(0, np.float32), *losses])
    return float(every.mean(dtype=np.float64)) if len(every) else math.nan


def perplexity(loss: float) -> float:
    """e to the loss (nats per token); the largest float where that overflows or the loss is not a number."""
    return math.exp(loss) if loss < math.log(_LARGEST) else _LARGEST


def summarize(loss: float, tokens: int, characters: int, spelling: float) -> dict[str, float | int]:
    """The figures of a split, all of them numbers that JSON can hold.

    Loss and perplexity are per token, and of an unknown one they hold no more than how likely ``<unk>`` was. Bits per
    character describe the text: what tells one unknown token from another is in them, so that models over different
    tokens can be compared, whatever their vocabularies lack. The first token, which nothing predicts, is charged for
    nothing, and is taken to be as long as the mean.

    Args:
        loss: mean negative log-likelihood over the predicted tokens, nats; where it is not finite, the largest float.
        tokens: how many were predicted: all of the split but its first.
        characters: of the whole split.
        spelling: bits that tell the unknown ones among the predicted tokens from one another (`stages.lm.spelling`).

    Returns:
        ``loss``; ``perplexity`` = exp(loss); ``bits_per_character`` = (loss / ln 2 + spelling / tokens) / mean
        characters per token; ``tokens``.
    """
    loss = float(loss) if math.isfinite(loss) else _LARGEST
    bits = (loss / math.log(2) + spelling / tokens) * ((tokens + 1) / characters)
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "bits_per_character": min(bits, _LARGEST),
        "tokens": tokens,
    }
