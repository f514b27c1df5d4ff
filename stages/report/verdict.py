"""What was decided about a model, as a report keeps it in JSON: the shape of ``stages.promotion.judge.Verdict``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from data.store.nights import Model

Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class Compared(BaseModel):
    """One text that both models were held to."""

    model_config = ConfigDict(allow_inf_nan=False)

    text: Literal["today", "champion", "reference"]
    reason: str
    bits: float | None = None
    bits_champion: float | None = None
    gain: float | None
    lower: float | None = None
    upper: float | None = None
    confidence: float | None = None
    characters: Count = 0
    left_out: Count = 0

    @model_validator(mode="after")
    def _measured(self) -> Self:
        figures = (self.bits, self.bits_champion, self.lower, self.upper, self.confidence)
        if self.gain is not None and None in figures:
            raise ValueError("it has a gain, and not the figures beside it")
        return self


class Verdict(BaseModel):
    """All of it; one that was kept when there was only today's text has its figures beside the reason."""

    model_config = ConfigDict(allow_inf_nan=False)

    promoted: bool
    reason: str
    tests: Annotated[list[Compared], FailFast()] = []
    champion: Model | None = None
    candidate_bits: float | None = None
    champion_bits: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    characters: Count = 0
    left_out: Count = 0

    @model_validator(mode="after")
    def _measured(self) -> Self:
        figures = (self.candidate_bits, self.champion_bits, self.low, self.high)
        if self.difference is not None and None in figures:
            raise ValueError("it has a difference, and not the figures beside it")
        return self
