"""What the JSON files of artifacts say, as far as anybody asks."""

from __future__ import annotations

from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, RootModel, model_validator

from data.store.shape import FEW, MOMENT
from data.tables.ngrams import LONGEST
from data.tables.tokens import SPLITS
from stages.lm.ngram import ORDER
from stages.lm.parameters import MIXED

Kind = TypeVar("Kind", bound=BaseModel)

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
BASELINES = ("uniform", "unigram", f"{ORDER}gram")


class Written(BaseModel):
    """A file of JSON; it may hold more than is asked for here."""

    model_config = ConfigDict(allow_inf_nan=False, strict=True)


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


class Mixed(Written):
    """How a mixture is mixed."""

    order: Annotated[int, Field(ge=1, le=LONGEST)]
    shares: Annotated[list[float], FailFast()]
    chosen_on: Count

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.shares) != self.order:
            raise ValueError("it has other shares than one for each length of a context")
        return self


class Trained(Written):
    """``config.json`` of `train`, but for the model itself, which that checks."""

    format: int
    epoch: Annotated[int, Field(ge=1, lt=1 << 63)] | None = None
    tokens: Count = 0
    passes: Annotated[float, Field(ge=0)] | None = None
    mixture: Mixed | None = None

    @model_validator(mode="after")
    def _as_it_loads(self) -> Self:
        if self.format < MIXED if self.mixture else self.format == MIXED:
            raise ValueError("its format and whether it is a mixture do not agree")
        return self


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


class Parts(Written):
    """What a mixture is made of, alone; and the mixture before its n-gram counted the validation split."""

    network: Figures
    ngram: Figures
    before: Figures | None = None


class Measured(Figures):
    """The same of a model."""

    unknown_rate: float
    of: Count | None = None
    windowed: Windowed | None = None
    parts: Parts | None = None
    """Of a mixture."""


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
        if len({getattr(self, name).parts is None for name in measured}) > 1:
            raise ValueError("it measures the parts of a mixture on some splits alone")
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
