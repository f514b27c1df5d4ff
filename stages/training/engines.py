"""Which engine trains, and on which device. Nothing here changes a result, and nothing here is in a key.

What the choice does to a key is in the choice: the device's kind, the engine's modules and its libraries.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.training import device
from stages.training.device import Device

if TYPE_CHECKING:
    from stages.config import TrainConfig
    from stages.training.engine import Engine, Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """An engine on a device."""

    name: str
    """Of the engine, such as `mxnet`."""
    device: Device
    reason: str
    """One line for the log, such as `training on the CPU: this MXNet build has no CUDA`; empty where the configuration
    names the CPU, for then there was nothing to choose."""
    modules: tuple[str, ...]
    """Modules of this project that compute the result: their code, and what they import, belongs into the key."""
    libraries: tuple[str, ...]
    """Distributions whose numerics the result depends on: their versions belong into the key."""

    def build(self, recipe: Recipe) -> Engine:
        """Load the engine, and say in the log what was chosen."""
        from stages.training.gluon import GluonEngine

        if self.reason:
            logger.info("%s", self.reason)
        return GluonEngine(recipe, self.device)


def choose(config: TrainConfig) -> Choice:
    """The engine and the device that a configuration stands for on this machine; loads neither.

    Raises:
        DeviceError: a GPU asked for by name that cannot be used.
    """
    found, obstacle = device.resolve(config.device)
    because = found.card or obstacle
    return Choice(
        name="mxnet",
        device=found,
        reason=f"training on {found}: {because}" if because else "",
        modules=("stages.training.gluon",),
        libraries=("mxnet",),
    )
