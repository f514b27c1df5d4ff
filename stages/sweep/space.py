"""The space of a sweep: which configurations it tries, all of a grid or some drawn at random."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from data.corpus.address import plain_headers, written
from data.errors import ConfigError
from stages.config import RunConfig, StageConfig
from stages.pipeline import graph
from stages.pipeline.settings import parse

logger = logging.getLogger(__name__)

Values = dict[str, Any]
"""What sets a configuration apart from the others of the space: ``{"train.hidden_size": 128}``."""
_DRAWS_PER_CONFIGURATION = 100
"""Of those that were found, at most: a space in which so many draws in a row find no other has no more."""
MOST = 100_000
"""Trials of a grid: more would take days to name."""


@dataclass(frozen=True)
class Range:
    """Numbers to draw from, both ends included.

    They are drawn evenly or, where the high end is ten times the low one or more, evenly in their logarithm: from
    0.001 to 10 as often below 0.1 as above.
    """

    low: float
    high: float
    whole: bool
    """Whether only integers are drawn."""

    def draw(self, rng: np.random.Generator) -> float:
        past = self.high + 1 if self.whole else self.high
        if self.low > 0 and self.high >= 10 * self.low:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(past)))
        else:
            drawn = rng.uniform(self.low, past)
        # Three digits are enough, and can be typed again.
        drawn = math.floor(drawn) if self.whole else float(f"{drawn:.3g}")
        return min(max(drawn, self.low), self.high)


def configurations(
    config: RunConfig, vary: Iterable[str], draws: int | None = None, seed: int = 0
) -> list[tuple[RunConfig, Values]]:
    """Each configuration to try, with what sets it apart; none twice.

    Args:
        config: what does not vary.
        vary: ``STAGE.FIELD=V1,V2,…`` each or, with ``draws``, ``STAGE.FIELD=LOW..HIGH``.
        draws: how many to draw at random; None takes the whole grid.
        seed: the same one draws the same.

    Raises:
        ConfigError: a field or value that is not there or does not fit.
    """
    axes: dict[str, Range | list[str]] = {}
    for text in vary:
        name, equals, values = (part.strip() for part in text.partition("="))
        if not (equals and re.fullmatch(r"\w+\.\w+", name)):
            raise ConfigError(f"--vary {text}: write it as STAGE.FIELD=V1,V2, such as train.hidden_size=128,256")
        if name in axes:
            raise ConfigError(f"{name} is varied twice: name all its values at once")
        _refuse_after_training(name)
        axes[name] = _range(config, name, values) or [value.strip() for value in values.split(",")]
        if draws is None and isinstance(axes[name], Range):
            raise ConfigError(f"{name}={values} is a range to draw from: say how often with --trials")
    if not axes:
        raise ConfigError("there is nothing to vary: name a field, with --vary train.hidden_size=128,256 for one")
    trials = math.prod(len(axis) for axis in axes.values() if isinstance(axis, list))
    if draws is None and trials > MOST:
        raise ConfigError(f"that is {trials:,} trials, and a grid has at most {MOST:,}: vary less, or use --trials")
    found: dict[RunConfig, Values] = {}
    seen: set[tuple[Any, ...]] = set()
    in_vain = 0
    grid = product(*(axis for axis in axes.values() if isinstance(axis, list)))
    for point in grid if draws is None else _drawn(list(axes.values()), seed):
        before = len(found)
        if point not in seen:
            seen.add(point)
            whole = _assigned(config, dict(zip(axes, point, strict=True)))
            plain_headers(whole.download.headers)  # refuses those that say plainly what would be recorded
            found[whole] = {name: _told(_get(whole, name)) for name in axes}
        in_vain = 0 if len(found) > before else in_vain + 1
        if len(found) == draws or (draws and in_vain > _DRAWS_PER_CONFIGURATION * (before + 1)):
            break
    if draws is not None and len(found) < draws:
        logger.info("the space holds no more than %d different trials", len(found))
    return list(found.items())


def settings(values: Values) -> str:
    """What sets a configuration apart, as `--set` takes it."""
    return " ".join(f"{name}={shown(value)}" for name, value in values.items())


def shown(value: object) -> str:
    """A value as it can be typed."""
    return value if isinstance(value, str) else json.dumps(value)


def _refuse_after_training(name: str) -> None:
    """Refuse a field of a stage that the model is not made from: all trials would be the same model."""
    stages = graph.order("train")
    if name.partition(".")[0] in RunConfig.model_fields.keys() - stages:
        *others, last = (stage for stage in stages if stage in RunConfig.model_fields)
        raise ConfigError(f"{name} makes no other model: vary a field of {', '.join(others)} or {last}")


def _range(config: RunConfig, name: str, values: str) -> Range | None:
    """The range that is meant, where the field is a number and the values are written as one."""
    stage, _, field = name.partition(".")
    section = getattr(config, stage, None)
    info = type(section).model_fields.get(field) if isinstance(section, StageConfig) else None
    first, dots, last = values.partition("..")
    if not dots or info is None or info.annotation not in (int, float):
        return None
    low, high = (_get(_assigned(config, {name: end}), name) for end in (first, last))
    if low >= high:
        raise ConfigError(f"{name}={values}: write a range as LOW..HIGH, the lower end first")
    return Range(low, high, info.annotation is int)


def _drawn(axes: Sequence[Range | list[str]], seed: int) -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng(seed)
    while True:
        yield tuple(axis.draw(rng) if isinstance(axis, Range) else axis[rng.integers(len(axis))] for axis in axes)


def _assigned(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    sections = config.model_dump()
    for name, value in values.items():
        stage, _, field = name.partition(".")
        sections.setdefault(stage, {})[field] = value
    return parse(sections)


def _told(value: object) -> object:
    """A value as it may be written down."""
    return written(value) if isinstance(value, str) else value


def _get(config: RunConfig, name: str) -> Any:
    stage, _, field = name.partition(".")
    return getattr(getattr(config, stage), field)
