"""The table that the acceptance prints, and what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from stages.training.device import Device

if TYPE_CHECKING:
    from data.tables.tokens import Ids

CPU = Device("cpu")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The engine's device, the text, and how much of everything."""

    device: Device
    content: Ids
    """Characters that are trained on."""
    vocab_size: int
    epochs: int = 500
    """Of the preset `book`."""
    hidden: int = 256
    """Units of the book's size; twice as many are in a layer of the large LSTM."""
    steps: int = 50
    """Whose bits are compared: at 12 and more they hold an epoch's last minibatch, which is shorter."""
    tokens: int = 400_000
    """Of a timed stretch."""
    rounds: int = 7
    """Stretches of each loop, in turn."""

    @property
    def gpu(self) -> bool:
        """Whether there is a card; else this is a rehearsal."""
        return self.device.kind == "gpu"

    @property
    def place(self) -> torch.device:
        """PyTorch's word for the device."""
        return torch.device("cuda", self.device.index) if self.gpu else torch.device("cpu")


class Table:
    """Prints a line per finding: the verdict, the device, what was found, its figure, and what that is held against.

    Args:
        trial: whose findings they are.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self.failed = False
        """Whether anything that is required was not so."""

    def note(self, what: str, figure: str = "", beside: str = "", *, on: Device | None = None) -> None:
        """A finding of which nothing is asked; ``on`` is the device, where it is another than the engine's."""
        self._line("", what, figure, beside, on)

    def require(self, holds: bool, what: str, figure: str = "", beside: str = "", *, on: Device | None = None) -> None:
        """One that has to hold."""
        self.failed |= not holds
        self._line("ok" if holds else "failed", what, figure, beside, on)

    def aim(self, reached: bool, what: str, figure: str, beside: str) -> None:
        """One that may fall short; a rehearsal's is held to nothing."""
        self._line(("ok" if reached else "behind") if self._trial.gpu else "", what, figure, beside, None)

    def _line(self, verdict: str, what: str, figure: str, beside: str, on: Device | None) -> None:
        device = (on or self._trial.device).kind
        print(f"{verdict:7} {device:3}  {what:58} {figure:>18}  {beside}".rstrip(), flush=True)
