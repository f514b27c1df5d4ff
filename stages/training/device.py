"""Where to train: the CPU, or a GPU that MXNet can use. Decided without loading MXNet into this process."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.errors import DeviceError
from data.store import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OLDEST, NEWEST = (5, 0), (8, 9)
"""Compute capabilities that MXNet's builds hold machine code for (sm_50 … sm_86, and no PTX that a newer card could
compile for itself)."""
_ROOT = Path(__file__).parents[2]


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


@dataclass(frozen=True)
class Card:
    """What the NVIDIA driver says of a GPU."""

    name: str
    capability: tuple[int, int]


def resolve(device: str) -> tuple[Device, str]:
    """The device that a configuration's `auto`, `cpu`, `gpu` or `gpu:N` stands for; asked once per process.

    Returns:
        As `choose`.

    Raises:
        DeviceError: a GPU asked for by name that cannot be used.
    """
    return _resolve(device) if device != "cpu" else (Device("cpu"), "")


@cache
def _resolve(device: str) -> tuple[Device, str]:
    return choose(device, _build()[0], driver_cards(), probe)


def choose(device: str, build: str, cards: Sequence[Card] | str, probe: Callable[[int], str]) -> tuple[Device, str]:
    """The decision, given what was found out.

    Args:
        device: `auto`, `cpu`, `gpu` or `gpu:N`.
        build: the installed MXNet distribution, such as ``mxnet`` or ``mxnet-cu112``; empty when there is none.
        cards: the GPUs in the driver's order, or why it names none.
        probe: trains one step on the GPU of that number; empty when it ran, else what went wrong.

    Returns:
        The device, and what kept `auto` from a GPU, such as ``there is no NVIDIA driver on this machine``: empty unless
        `auto` has come down to the CPU.

    Raises:
        DeviceError: a GPU asked for by name that cannot be used.
    """
    if device == "cpu":
        return Device("cpu"), ""
    wanted = int(device.removeprefix("gpu:")) if device.startswith("gpu:") else None
    obstacle = ""
    if isinstance(cards, str):
        # Without a card, the build is what the user can read most about.
        obstacle = cards if _has_cuda(build) or device != "auto" else _no_cuda(build)
    elif wanted is not None and wanted >= len(cards):
        obstacle = f"there is no GPU {wanted}: the driver names {len(cards)}, counted from 0"
    else:
        for index in range(len(cards)) if wanted is None else (wanted,):
            fault = _fault(index, cards[index], build, probe)
            if not fault:
                return Device("gpu", index, cards[index].name), ""
            obstacle = obstacle or fault
    if device == "auto":
        return Device("cpu"), obstacle
    raise DeviceError(f"train.device = {device} cannot be used: {obstacle}; train.device = cpu trains without a GPU")


def _fault(index: int, card: Card, build: str, probe: Callable[[int], str]) -> str:
    capability = ".".join(map(str, card.capability))
    if not OLDEST <= card.capability <= NEWEST:
        held = " to ".join(".".join(map(str, bound)) for bound in (OLDEST, NEWEST))
        return f"{card.name} has compute capability {capability}, and MXNet's builds hold code for {held} only"
    if not _has_cuda(build):
        return f"{_no_cuda(build)}, so it cannot use {card.name}: install mxnet-cu112==2.0.0b1 in its place"
    failure = probe(index)
    return f"a training step on {card.name} failed with {failure!r}" if failure else ""


def _has_cuda(build: str) -> bool:
    return build.startswith("mxnet-cu")


def _no_cuda(build: str) -> str:
    return "this MXNet build has no CUDA" if build else "MXNet is not installed"


def build_version() -> str:
    """The installed MXNet's version, with the distribution's name where it is a build for GPUs."""
    name, version = _build()
    return f"{version} ({name})" if _has_cuda(name) else version


def _build() -> tuple[str, str]:
    """Name and version of the installed MXNet distribution; its builds share one import package, not one name."""
    found = loaded.versions("mxnet")
    # Where both are installed the GPU build is what the user meant, and the probe tells whether it is what there is.
    name = max(found, key=_has_cuda, default="")
    return name, found.get(name, "absent")


def driver_cards() -> list[Card] | str:
    """Ask the NVIDIA driver for its GPUs; why there are none, when there are none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver on this machine"
    count, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if (status := driver.cuInit(0)) or (status := driver.cuDeviceGetCount(ctypes.byref(count))):
        # 100 is the driver's own word for "no CUDA-capable device".
        return "the NVIDIA driver finds no GPU" if status == 100 else f"the NVIDIA driver answers with error {status}"
    cards = []
    for index in range(count.value):
        handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGet(ctypes.byref(handle), index)
        driver.cuDeviceGetName(name, len(name), handle)
        # Attributes 75 and 76 are the compute capability's two numbers.
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, handle)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle)
        cards.append(Card(name.value.decode(errors="replace"), (major.value, minor.value)))
    return cards or "the NVIDIA driver finds no GPU"


def probe(index: int) -> str:
    """Train one step on a GPU, in a process of its own; empty when it ran, else the last thing it said."""
    code = f"from stages.training import device, gluon; gluon.probe(device.Device('gpu', {index}))"
    try:
        done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "no answer within 300 seconds"
    if done.returncode == 0:
        return ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return said[-1].strip() if said else f"exit code {done.returncode}"
