"""Which engine trains, and on which device. Nothing here changes a result, and nothing here is in a key.

What the choice does to a key is in the choice: the engine, the device's kind, the engine's modules and its libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from data.errors import DeviceError
from stages.training import builds, cards, cores
from stages.training.builds import Build, Name
from stages.training.device import Device

if TYPE_CHECKING:
    from stages.config import TrainConfig
    from stages.training.builds import Probe
    from stages.training.cards import Driver
    from stages.training.engine import Engine, Recipe

ON_A_GPU: tuple[Name, ...] = ("torch", "mxnet")
"""Whom `auto` asks for a GPU, in this order: torch launches a whole step at once and its CUDA is mended to this day,
MXNet's is of 2022."""


@dataclass(frozen=True)
class Choice:
    """An engine on a device."""

    name: Name
    """Of the engine."""
    device: Device
    reason: str
    """One line for the log, such as `training with mxnet on the CPU: there is no NVIDIA driver on this machine`; empty
    where the configuration names both engine and device, for then there was nothing to choose."""
    modules: tuple[str, ...]
    """Modules of this project that compute the result: their code, and what they import, belongs into the key."""
    libraries: tuple[str, ...]
    """Distributions whose numerics the result depends on: their versions belong into the key."""

    def build(self, recipe: Recipe) -> Engine:
        """Load the engine, and have it build what the recipe says."""
        match self.name:
            case "mxnet":
                with cores.set_for(recipe.architecture):  # MXNet reads how many while it is imported
                    from stages.training.gluon import GluonEngine
                return GluonEngine(recipe, self.device)
            case "bptt":
                from stages.training.bptt import BpttEngine

                return BpttEngine(recipe, self.device)
            case "torch":
                from stages.training.torch import TorchEngine

                return TorchEngine(recipe, self.device)


def choose(config: TrainConfig) -> Choice:
    """The engine and the device that a configuration stands for on this machine; asked once per process, loads none.

    Raises:
        DeviceError: an engine or a GPU asked for by name that cannot be used.
    """
    return _choose(config.engine, config.device)


@cache
def _choose(engine: str, device: str) -> Choice:
    return decide(engine, device, installed(), cards.driver, builds.probe)


def installed() -> dict[str, Build]:
    """Every engine there is, by its name, as it is installed here."""
    return {build.engine: build for build in (builds.mxnet(), builds.bptt(), builds.torch())}


def decide(
    engine: str, device: str, engines: Mapping[str, Build], driver: Callable[[], Driver | str], probe: Probe
) -> Choice:
    """The decision, given what can be found out.

    Args:
        engine: `auto`, or the name of one.
        device: `auto`, `cpu`, `gpu` or `gpu:N`.
        engines: by their names.
        driver: asks the NVIDIA driver for its GPUs.
        probe: trains one step of an engine on a GPU.

    Raises:
        DeviceError: an engine or a GPU asked for by name that cannot be used.
    """
    if engine != "auto" and (absent := engines[engine].absent):
        raise DeviceError(f"train.engine = {engine} cannot be used: {absent}; train.engine = bptt trains without it")
    settled = "auto" not in (engine, device)
    obstacles: list[str] = []
    if device != "cpu":
        wanted = int(device.removeprefix("gpu:")) if device.startswith("gpu:") else None
        for build in [engines[name] for name in ON_A_GPU] if engine == "auto" else [engines[engine]]:
            if build.other and engine == device == "auto":
                found: Device | str = f"{build.other} is used where train.engine = {build.engine} asks for it"
            else:
                found = builds.gpu(build, wanted, driver, probe)
            if isinstance(found, Device):
                return _choice(build, found, found.card, settled)
            if found not in obstacles:
                obstacles.append(found)
        if device != "auto":
            raise DeviceError(
                f"train.device = {device} cannot be used: {'; '.join(obstacles)}; "
                "train.device = cpu trains without a GPU"
            )
    if engine == "auto":
        absent = engines["mxnet"].absent
        if absent and absent not in obstacles:
            obstacles.append(absent)
        engine = "bptt" if absent else "mxnet"
    return _choice(engines[engine], Device("cpu"), "; ".join(obstacles), settled)


def _choice(build: Build, device: Device, because: str, settled: bool) -> Choice:
    reason = f"training with {build.engine} on {device}{f': {because}' if because else ''}"
    return Choice(build.engine, device, "" if settled else reason, (build.module,), (build.library,))
