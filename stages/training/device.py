"""Where an engine computes: the CPU, or a GPU by its number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Device:
    """A device to train on; `str` of it is `the CPU` or `the GPU 0`."""

    kind: Literal["cpu", "gpu"]
    index: int = 0
    """Of a GPU, in the driver's order from 0."""
    card: str = ""
    """Of a GPU, what its driver calls it, such as ``NVIDIA A100-SXM4-40GB``."""

    def __str__(self) -> str:
        return f"the GPU {self.index}" if self.kind == "gpu" else "the CPU"
