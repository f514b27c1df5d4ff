"""What bounds any training loop on a device: what a kernel costs, however small, and matrix products."""

from __future__ import annotations

import statistics
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from stages.lm.parameters import GATES

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages.lm.parameters import Architecture

NODES = 1000
"""Kernels in a graph that shows what one costs."""


class Bounds:
    """What a device needs at least: for a kernel, however small, and for matrix products.

    Args:
        device: to measure.
        rounds: of which the median counts.
    """

    def __init__(self, device: torch.device, rounds: int) -> None:
        self.device, self.rounds = device, rounds

    def seconds(self, run: Callable[[], object], times: int = 1) -> float:
        """Of one call, when so many follow each other."""
        run()
        return statistics.median(stretch(self.device, run, times) for _ in range(self.rounds)) / times

    @cached_property
    def launches(self) -> tuple[float, float, float]:
        """Seconds of a kernel over one number: launched alone, as one of many in a graph, and a graph of it alone."""
        one = torch.zeros(1, device=self.device)
        alone = self.seconds(lambda: one.add_(1), NODES)
        many, single = (self._captured(lambda: one.add_(1), count) for count in (NODES, 1))
        return alone, self.seconds(many, 10) / NODES, self.seconds(single, NODES)

    def kernels(self, run: Callable[[], object]) -> int:
        """How many a call launches once it is warm, copies among them."""
        run()
        seen: Any = profile(activities=[ProfilerActivity.CUDA])
        with seen:
            run()
            torch.cuda.synchronize(self.device)
        return sum(event.device_type.name == "CUDA" for event in seen.events())

    def products(self, architecture: Architecture, batch: int, steps: int) -> tuple[float, float]:
        """Seconds of all matrix products of a training step one after another, and their operations.

        A step's recurrence each by itself, the others over all steps at once; a one-hot input needs none.
        """
        hidden, tokens = architecture.hidden_size, batch * steps
        gates = GATES[architecture.cell] * hidden
        shapes = [(batch, hidden, gates)] * steps + [(batch, gates, hidden)] * steps + [(gates, tokens, hidden)]
        shapes *= architecture.layers
        above = [(tokens, hidden, gates), (tokens, gates, hidden), (gates, tokens, hidden)]
        vocab = architecture.vocab_size
        shapes += above * (architecture.layers - 1)
        shapes += [(tokens, hidden, vocab), (tokens, vocab, hidden), (vocab, tokens, hidden)]
        made = {shape: self._matrices(*shape) for shape in set(shapes)}

        def run() -> None:
            for shape in shapes:
                left, right, out = made[shape]
                torch.mm(left, right, out=out)

        again = self._captured(run, 1) if self.device.type == "cuda" else run
        return self.seconds(again), float(sum(2 * rows * inner * columns for rows, inner, columns in shapes))

    @cached_property
    def peak(self) -> float:
        """Operations per second of one large matrix product in float32."""
        size = 8192 if self.device.type == "cuda" else 1024
        left, right, out = self._matrices(size, size, size)
        return 2 * size**3 / self.seconds(lambda: torch.mm(left, right, out=out))

    def _matrices(self, rows: int, inner: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        return (
            torch.rand(rows, inner, device=self.device),
            torch.rand(inner, columns, device=self.device),
            torch.empty(rows, columns, device=self.device),
        )

    def _captured(self, run: Callable[[], object], times: int) -> Callable[[], object]:
        """A graph of so many calls; nothing is computed before it is called."""
        run()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(times):
                run()
        replay: Callable[[], object] = graph.replay
        return replay


def stretch(device: torch.device, run: Callable[[], object], times: int = 1) -> float:
    """Seconds of so many calls, from an idle device to an idle device."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(times):
        run()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
