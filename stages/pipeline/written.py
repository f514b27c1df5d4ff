"""What the JSON files of artifacts say, as far as anybody asks."""

from __future__ import annotations

from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, RootModel, model_validator

from data.store.shape import FEW, MOMENT
from data.tables.tokens import SPLITS
from stages.lm.ngram import ORDER

Kind = TypeVar("Kind", bound=BaseModel)

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
BASELINES = ("uniform", "unigram", f"{ORDER}gram")


class Written(BaseModel):
    """A file of JSON; it may hold more than is asked for here."""

    model_config = ConfigDict(allow_inf_nan=False)


class Source(Written):
    """``source.json`` of `download`."""

    name: str
    address: str | None = None
    file: str | None = None
    sha256: Sha256
    etag: Annotated[str, Field(pattern="^[ -~\u00a0-\u00ff]*$")] = ""
    """What goes into the header of a request."""
    bytes: Count
    documents: Annotated[int, Field(ge=1, lt=1 << 63)] | None = None
    """None where it is one text."""
    when: Annotated[str, Field(pattern=MOMENT)]

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.address is None and self.file is None:
            raise ValueError("it names neither an address nor a file")
        return self


class Trained(Written):
    """``config.json`` of `train`, but for the model itself, which that checks."""

    epoch: Annotated[int, Field(ge=1, lt=1 << 63)] | None = None
    tokens: Count = 0
    passes: Annotated[float, Field(ge=0)] | None = None


class Baselines(Written):
    """``baselines.json``."""

    losses: Annotated[dict[str, Annotated[dict[str, float | None], FEW]], FEW]
    fitted_on: Count

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.losses.keys() != {*BASELINES} or any([*one] != [*SPLITS] for one in self.losses.values()):
            raise ValueError("it lacks a baseline")
        return self


class Figures(Written):
    """Of one split."""

    loss: float
    perplexity: float
    bits_per_character: float
    tokens: Count


class Windowed(Figures):
    """The same with the state reset."""

    window: Count


class Measured(Figures):
    """The same of a model."""

    unknown_rate: float
    of: Count | None = None
    windowed: Windowed | None = None
    parts: Annotated[dict[str, Figures], FEW] | None = None
    """Of a mixture: ``network``, ``ngram``, maybe ``before``."""


class Memorization(Written):
    """What a model has by heart."""

    length: Count
    windows: Count
    share: float | None


class Metrics(Written):
    """``metrics.json`` of `evaluate`."""

    train: Measured | None
    valid: Measured | None
    test: Measured | None
    baselines: Annotated[dict[str, Annotated[dict[str, Figures | int | None], FEW]], FEW]
    memorization: Memorization

    @model_validator(mode="after")
    def _whole(self) -> Self:
        measured = [name for name in SPLITS if getattr(self, name)]
        if measured and "train" not in measured:
            raise ValueError("it measured no split that was trained on")
        for name in BASELINES:
            found = self.baselines.get(name, {})
            if any(not isinstance(found.get(split), Figures if split in measured else type(None)) for split in SPLITS):
                raise ValueError(f"it does not measure {name} on the same splits")
        if not isinstance(self.baselines[BASELINES[-1]].get("fitted_on"), int):
            raise ValueError(f"it does not say what {BASELINES[-1]} was counted on")
        return self


class Sample(Written):
    """One of ``samples.json``."""

    prefix: str
    temperature: float
    text: str


class Samples(RootModel[Annotated[list[Sample], FailFast()]]):
    """All of it."""
