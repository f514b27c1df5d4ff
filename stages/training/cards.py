"""What the NVIDIA driver says of this machine's GPUs: the driver itself is asked, and no engine is loaded for it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    capability: tuple[int, int]
    """Its compute capability, such as (9, 0)."""

    def __str__(self) -> str:
        return f"{self.name} of compute capability {dotted(self.capability)}"


@dataclass(frozen=True)
class Driver:
    """An NVIDIA driver that finds GPUs."""

    cards: tuple[Card, ...]
    """In the driver's order, from 0."""
    cuda: tuple[int, int]
    """The newest version of CUDA that it speaks, such as (12, 4)."""


@cache
def driver() -> Driver | str:
    """The driver and its GPUs; why there are none, when there are none."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver on this machine"
    count, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    if (status := library.cuInit(0)) or (status := library.cuDeviceGetCount(ctypes.byref(count))):
        # 100 is the driver's own word for "no CUDA-capable device".
        return "the NVIDIA driver finds no GPU" if status == 100 else f"the NVIDIA driver answers with error {status}"
    cards = []
    for index in range(count.value):
        handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        library.cuDeviceGet(ctypes.byref(handle), index)
        library.cuDeviceGetName(name, len(name), handle)
        # Attributes 75 and 76 are the compute capability's two numbers.
        library.cuDeviceGetAttribute(ctypes.byref(major), 75, handle)
        library.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle)
        cards.append(Card(name.value.decode(errors="replace"), (major.value, minor.value)))
    if not cards:
        return "the NVIDIA driver finds no GPU"
    library.cuDriverGetVersion(ctypes.byref(version))  # 12040 is 12.4
    return Driver(tuple(cards), (version.value // 1000, version.value % 1000 // 10))


def dotted(version: tuple[int, int]) -> str:
    """(8, 9) → ``8.9``."""
    return ".".join(map(str, version))
