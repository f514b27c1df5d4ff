"""From logits to probabilities, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.lm.predictor import Vector


def softmax(logits: Vector) -> NDArray[np.float64]:
    """In double precision, along the last axis."""
    likely = logits.astype(np.float64)
    likely -= likely.max(axis=-1, keepdims=True)
    np.exp(likely, out=likely)
    likely /= likely.sum(axis=-1, keepdims=True)
    return likely


def logarithm(likely: NDArray[np.float64]) -> Vector:
    """In place, and in the precision of a network's logits."""
    return np.log(likely, out=likely).astype(np.float32)
