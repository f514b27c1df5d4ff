"""A prompt as a model reads it, and what the model makes of it where a client asks to have it echoed."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.lm.joined import Piece

if TYPE_CHECKING:
    from stages.lm.model import LanguageModel


class Prompt(NamedTuple):
    """A prompt that was read."""

    tokens: int
    pieces: list[Piece]
    """What each token adds to it; the first one, which nothing predicts, without its logarithm."""


def read(model: LanguageModel, prompt: str, likeliest: int | None) -> Prompt:
    """Read a prompt.

    Args:
        model: any.
        prompt: a text.
        likeliest: how many of the likeliest tokens come with each, and its logarithm; None is not even that.
    """
    tokens = model._split(prompt)
    told: list[tuple[float | None, tuple[tuple[str, float], ...]]] = [(None, ())] * len(tokens)
    if likeliest is not None and tokens:
        predictor, ids = model.predictor, model._ids(tokens)
        states, readout = predictor.beginning(), predictor.readout()
        with np.errstate(all="ignore"):
            for number, (id_, following) in enumerate(itertools.pairwise(ids), 1):
                predictor.advance(id_, states)
                logits = readout(states).astype(np.float64)
                logits -= logits.max()
                logits -= math.log(np.exp(logits).sum())
                best = np.argsort(-logits, kind="stable")[:likeliest].tolist()
                listed = [(model.vocab.tokens[one], float(logits[one])) for one in best]
                told[number] = float(logits[following]), tuple(listed)
    pieces = [Piece(text, *beside) for text, beside in model.kind.added(zip(tokens, told, strict=True))]
    return Prompt(len(tokens), pieces)
