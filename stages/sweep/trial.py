"""One trial of a sweep: a configuration, what it is trained on, and how well it has done so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from stages.training import schedule

if TYPE_CHECKING:
    from data.tables.tokens import Split
    from stages.config import RunConfig


@dataclass
class Trial:
    """A configuration of the space, and how far it has come.

    Bits per character, in which unknown tokens are spelled out, and perplexity are always those of the whole validation
    split.
    """

    config: RunConfig
    """With all epochs that it may train, however few of them it comes to."""
    values: dict[str, Any]
    """What sets it apart from the other trials: ``{"train.hidden_size": 128}``."""
    upstream: dict[str, str] = field(default_factory=dict)
    """What it is trained on: stage → key of its artifact, of each stage that `train` reads."""
    valid: Split | None = None
    """The validation split that it is measured on, all of it. None until its text is tokenized."""
    rung: int = 0
    """The last rung that it was trained in, counted from 1; 0 before the first."""
    model: str = ""
    """The key of the model that it has come to; empty before the first rung."""
    curve: list[float] = field(default_factory=list)
    """Bits per character after each epoch of that model's training."""
    bits: float = math.inf
    """Bits per character of that model."""
    perplexity: float = math.inf
    """Of that model."""
    seconds: float = 0.0
    """That the trainings of its rungs took, in this sweep or earlier."""
    ran: bool = False
    """Whether this sweep has trained any of it; else the store had it all."""
    state: Literal["finished", "stopped", "failed"] = "finished"
    """What becomes of it, unless something else does: `stopped` early, or `failed`."""
    reason: str = "trained to the end"
    """The same in words."""

    def first_epochs(self, epochs: int) -> RunConfig:
        """The configuration that trains the first ``epochs`` epochs of this trial, and no more.

        They are the same epochs: with `train.schedule=cosine` over 40 epochs, the learning rate of the first 10 is that
        of the whole training, on its way to zero at the end of the 40th.
        """
        whole = self.config.train
        if epochs == whole.epochs:
            return self.config
        fewer = {
            "epochs": epochs,
            "max_tokens": epochs * schedule.part(whole),
            "decay_epochs": schedule.horizon(whole) or whole.decay_epochs,
        }
        return self.config.model_copy(update={"train": whole.model_copy(update=fewer)})

    def fail(self, reason: str) -> None:
        """It counts no longer, for this reason."""
        self.state, self.reason = "failed", reason
        self.bits = self.perplexity = math.inf

    def json(self) -> dict[str, Any]:
        """As in ``trials.json``; a figure that is not finite is null."""
        measured = math.isfinite(self.bits)
        return {
            "values": self.values,
            "state": self.state,
            "reason": self.reason,
            "bits_per_character": self.bits if measured else None,
            "perplexity": self.perplexity if measured else None,
            "unknown_rate": self.valid.unknown_rate if self.valid else None,
            "epochs": len(self.curve),
            "valid_bits": [bits if math.isfinite(bits) else None for bits in self.curve],
            "seconds": round(self.seconds, 3),
            "model": self.model or None,
        }
