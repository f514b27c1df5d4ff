"""How a model scores a text that it goes on learning from: `LanguageModel.score`, by dynamic evaluation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from data.errors import ConfigError
from data.shown import line
from stages.lm import following, stored
from stages.lm.mixture import Mixture
from stages.lm.parameters import apart
from stages.training import adaptation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data.tables.tokens import Ids
    from stages.lm.layers import Vector
    from stages.lm.model import LanguageModel

_LEAST, _MOST = 1e-30, 0.1
"""A weight moves by about the rate with each segment: beyond a tenth, little is left of what a network knew."""


def check_rate(rate: float) -> None:
    """Refuse what is no rate to learn at, before a model is read.

    Raises:
        ConfigError: it is none.
    """
    if rate and not _LEAST <= rate <= _MOST:
        raise ConfigError(f"a model cannot adapt at a rate of {rate:g}: give 0, or {_LEAST:g} to {_MOST:g}, say 3e-4")


def adapting(model: LanguageModel, rate: float) -> Callable[[Iterator[Ids]], Iterator[Vector]]:
    """What `LanguageModel.score` takes as ``losses`` where a model is to learn from what it reads.

    Each text begins with the model as it was trained, and neither it nor its folder changes: see
    `stages.training.adaptation`.

    Args:
        model: as `LanguageModel.load` gives it; its weights are read once more, for it holds none that could change.
        rate: of learning; 3e-4 suits most. At 0 the n-gram of a mixture learns alone.

    Raises:
        ConfigError: a rate that is none, or 0 where there is no n-gram, or a model that was not loaded from a folder.
        StoreError: a folder that is no longer what it was.
    """
    check_rate(rate)
    if model.folder is None:
        raise ConfigError("a model that was not loaded from a folder has no weights to adapt: load one")
    mixture = model.predictor if isinstance(model.predictor, Mixture) else None
    if not rate:
        if mixture:
            return partial(following.carried, mixture)
        where = line(str(model.folder))
        raise ConfigError(f"at a rate of 0 an n-gram adapts alone, and {where} has none: give one above 0")
    weights = stored.read_weights(model.folder / "model.safetensors", model.architecture)
    networks = apart(weights, model.architecture.networks)
    return partial(adaptation.losses, model.architecture, networks, rate, mixture=mixture)
