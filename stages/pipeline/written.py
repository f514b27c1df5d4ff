"""What the JSON files of artifacts say, as far as anybody asks."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel

Kind = TypeVar("Kind", bound=BaseModel)


class Written(BaseModel):
    """A file of JSON; it may hold more than is asked for here."""

    model_config = ConfigDict(allow_inf_nan=False)


class Source(Written):
    """``source.json`` of `download`."""

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: int
    when: str


class Baselines(Written):
    """``baselines.json``."""

    losses: dict[str, dict[str, float | None]]
    fitted_on: int


class Figures(Written):
    """Of one split."""

    loss: float
    perplexity: float
    bits_per_character: float
    tokens: int


class Measured(Figures):
    """The same of a model."""

    unknown_rate: float


class Memorization(Written):
    """What a model has by heart."""

    length: int
    windows: int
    share: float | None


class Metrics(Written):
    """``metrics.json`` of `evaluate`."""

    train: Measured | None
    valid: Measured | None
    test: Measured | None
    baselines: dict[str, dict[str, Figures | int | None]]
    memorization: Memorization


class Sample(Written):
    """One of ``samples.json``."""

    prefix: str
    temperature: float
    text: str


class Samples(RootModel[list[Sample]]):
    """All of it."""
