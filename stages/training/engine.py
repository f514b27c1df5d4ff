"""The seam between the training loop and what computes: four methods, and the data that go in and out.

NumPy only. The loop knows no engine, and an engine knows neither epochs nor files: a `Recipe` says what it builds, a
`Step` what it does, an `EngineState` all that it holds. Which engine there is to choose from stands in `engines`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from data.tables.tokens import END_ID
from stages.lm.parameters import Architecture
from stages.training import dropout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stages.config import TrainConfig
    from stages.lm.parameters import Parameters
    from stages.training.dropout import Masks
    from stages.training.minibatches import Minibatch

Arrays = dict[str, npt.NDArray[np.float32]]
"""Name → array."""
MOMENTS = {"sgd": (), "momentum": ("momentum",), "adam": ("mean", "variance"), "adamw": ("mean", "variance")}
"""Optimizer → the running figures that it keeps of each parameter, each of that parameter's shape."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an engine builds: the model, and how one step changes it."""

    architecture: Architecture
    batch_size: int
    """Rows of every minibatch that is trained on."""
    optimizer: Literal["sgd", "momentum", "adam", "adamw"]
    weight_decay: float = 0.0
    """λ, of the parameters named ``…weight…`` and not of the biases."""
    clip_norm: float = 0.0
    """L2 norm, over all parameters, that a longer gradient is scaled down to; 0 never clips."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the recurrent layers while they are trained."""
    masks: tuple[str, ...] = ()
    """Names of the masks that each step comes with, as `dropout.masks` names them."""

    @classmethod
    def of(cls, config: TrainConfig, vocab_size: int, *, ends: bool = False) -> Recipe:
        """What a configuration asks for, given the size of the vocabulary, and whether it has ends of documents."""
        architecture = Architecture.of(config, vocab_size, ends=ends)
        return cls(
            architecture=architecture,
            batch_size=config.batch_size,
            optimizer=config.optimizer,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
            precision=config.precision,
            masks=dropout.names(config, architecture),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One minibatch of truncated backpropagation through time, and one step of the optimizer."""

    inputs: npt.NDArray[np.int32]
    """Ids, of shape (batch, steps)."""
    targets: npt.NDArray[np.int32]
    """The id that follows each, same shape; none is negative."""
    learning_rate: float
    number: int
    """Of this step in the whole training, the first is 1; Adam's bias correction depends on it."""
    masks: Masks = field(default_factory=dict)
    """Those that the recipe names."""
    reset_state: bool = False
    """Whether the recurrent state is set to zero before the step; else the last step's is carried over, detached."""
    averaging: float = 1.0
    """α of the running average a of the weights w: a ← a + α (w - a) after the step. 1 copies them, 0 leaves it."""


class Figures(NamedTuple):
    """What one step measured."""

    loss: float
    """Mean negative log-likelihood of the targets, nats per token, before the weights change."""
    grad_norm: float
    """The gradient's L2 norm over all parameters, before clipping."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineState:
    """All that decides how an engine goes on; the arrays are copies, float32."""

    parameters: Arrays
    """By the names and in the order of `Architecture.shapes`."""
    averages: Arrays
    """The parameters' running average, in the same form."""
    moments: Arrays
    """What the optimizer keeps, ``mean/NAME`` and so on; see `MOMENTS`."""
    recurrent: Arrays
    """The recurrent state after the last step: ``hidden``, for an LSTM ``cell`` too, (layers, batch, hidden) each."""

    @classmethod
    def initial(cls, recipe: Recipe, weights: Parameters) -> EngineState:
        """The state before training: averages equal to the weights, moments and recurrent state zero."""
        architecture = recipe.architecture
        shape = (architecture.layers, recipe.batch_size, architecture.hidden_size)
        return cls(
            parameters=weights,
            averages=weights,
            moments={
                f"{moment}/{name}": np.zeros_like(array)
                for moment in MOMENTS[recipe.optimizer]
                for name, array in weights.items()
            },
            recurrent={name: np.zeros(shape, np.float32) for name in recurrent_names(architecture)},
        )

    def fits(self, recipe: Recipe) -> bool:
        """Whether every array that this recipe asks for is there, float32 and of the right shape, and no other."""
        architecture, weights = recipe.architecture, recipe.architecture.shapes()
        shape = (architecture.layers, recipe.batch_size, architecture.hidden_size)
        moments = {f"{moment}/{name}": weights[name] for moment in MOMENTS[recipe.optimizer] for name in weights}
        expected = {
            "parameters": weights,
            "averages": weights,
            "moments": moments,
            "recurrent": dict.fromkeys(recurrent_names(architecture), shape),
        }
        return all(
            {name: array.shape for name, array in arrays.items()} == expected[kind]
            and all(array.dtype == np.float32 for array in arrays.values())
            for kind, arrays in vars(self).items()
        )


def beginnings(architecture: Architecture, inputs: npt.NDArray[np.int32]) -> list[int]:
    """The steps of a minibatch, inputs (rows, steps), in which a row reads what ends a document; there its next one
    begins, from the zero state. None where documents have no ends."""
    return np.flatnonzero((inputs == END_ID).any(axis=0)).tolist() if architecture.ends else []


def recurrent_names(architecture: Architecture) -> tuple[str, ...]:
    """The names of the arrays that a recurrent state holds."""
    return ("hidden", "cell") if architecture.cell == "lstm" else ("hidden",)


class Engine(Protocol):
    """Trains one model on one device, in the thread that made it. Made, it holds zeros: `restore` comes first."""

    def run(self, steps: Iterable[Step]) -> list[Figures]:
        """Train these steps in order, and give what each measured.

        They are drawn as they are taken: by an engine that does not wait for its device, while that computes.
        Numbers come out of the device only at the end, so that more steps at once cost less; how they are divided over
        calls changes no bit of any result.
        """

    def loss(self, minibatches: Iterable[Minibatch]) -> float:
        """The mean loss (nats per token) of the averaged weights over neighbouring minibatches, from a zero state.

        Nothing is dropped, nothing is learnt, and the state of training stays as it is. The minibatches may have any
        number of rows, all the same, and of steps.

        Args:
            minibatches: ``(inputs, targets)``, int32 of shape (rows, steps) each; targets below 0 are not counted, and
                at least one is not.
        """

    def state(self) -> EngineState:
        """A copy of all that decides how training goes on."""

    def restore(self, state: EngineState) -> None:
        """Take what `state` gave, or `EngineState.initial` made; the arrays are copied."""
