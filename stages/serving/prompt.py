"""A prompt as a model reads it, and what the model makes of it where a client asks to have it echoed."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from stages.lm.joined import Piece
from stages.lm.telling import Telling

if TYPE_CHECKING:
    from stages.lm.model import LanguageModel


Beside: TypeAlias = tuple[float | None, tuple[tuple[str, float], ...]]
"""The logarithm of a token, and the likeliest tokens with theirs."""


class Prompt(NamedTuple):
    """A prompt that was read."""

    tokens: int
    pieces: list[Piece]
    """What each token adds to it, the first one, which nothing predicts, without its logarithm; or all of it."""


def read(model: LanguageModel, prompt: str) -> Prompt:
    """Read a prompt, as one piece without a logarithm.

    Args:
        model: any.
        prompt: a text.
    """
    tokens = model.split(prompt)
    telling = Telling[None](model.kind, "", ())
    told = [text for token in tokens for text, _ in telling.more(token, None)]
    text = "".join([*told, *(text for text, _ in telling.rest())])
    return Prompt(len(tokens), [Piece(text, None, ())] if text else [])


def measured(model: LanguageModel, prompt: str, likeliest: int) -> Generator[None, None, Prompt]:
    """Read a prompt with what the model makes of each token, and let go after each.

    Args:
        model: any.
        prompt: a text.
        likeliest: how many of the likeliest tokens come with each, and its logarithm.
    """
    tokens = model.split(prompt)
    telling = Telling[Beside](model.kind, "", ())
    told, predictor, ids = [], model.predictor, model.ids(tokens)
    states, readout, logs = predictor.beginning(), predictor.readout(), None
    for token, id_ in zip(tokens, ids, strict=True):
        yield
        beside: Beside = None, ()
        if logs is not None:
            best = np.argsort(-logs, kind="stable")[:likeliest].tolist()
            listed = ((telling.alone(model.vocab.tokens[one]), logs.item(one)) for one in best)
            beside = logs.item(id_), tuple(listed)
        told += telling.more(token, beside)
        with np.errstate(all="ignore"):  # a state that grew beyond bounds is a bad model's, not worth a warning
            predictor.advance(id_, states)
            logs = readout(states).astype(np.float64)
            logs -= logs.max()
            logs -= math.log(np.exp(logs).sum())
    return Prompt(len(tokens), [Piece(text, *beside) for text, beside in (*told, *telling.rest())])
