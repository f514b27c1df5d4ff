"""A model's architecture, and its parameters: names, shapes, order and first values, whatever engine trains them.

Names, shapes and gate order are those of ``torch.nn``, so the weights load there unpermuted.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from data import memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.config import TrainConfig

Parameters = dict[str, npt.NDArray[np.float32]]
Value = TypeVar("Value")

MIXED = 5
SEVERAL = 6
FORMAT = 7
"""Of the model that a folder holds, as its ``config.json`` says, at most: 1 knew neither embeddings nor tied weights, 2
no subwords, 3 no ends of documents, 4 no n-gram beside the network, `MIXED` no second network, `SEVERAL` no letters.
Each model has the first that knows all it is of, but none has 1 any more."""
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Gates per cell, stacked along the first axis: `gru` reset, update, new; `lstm` input, forget, cell, output."""

_LOUDER = {"embedding.weight": 5.0, "rnn.weight_ih_l": 2.0}
_FORGETTING = -1.0
"""Chosen by LSTMs of 256 units for 5 epochs: see ``stages/presets/README.md``, "Where a training begins"."""
SMALLER = "a smaller train.hidden_size or train.embedding_size, or fewer train.layers"
"""What a model takes that is too large."""


@dataclass(frozen=True)
class Architecture:
    """All that decides which parameters a model has, and what it computes with them."""

    cell: Literal["rnn", "gru", "lstm"]
    activation: Literal["relu", "tanh"]
    """Of the cell `rnn`; `tanh` for the others."""
    hidden_size: int
    layers: int
    vocab_size: int
    embedding_size: int = 0
    """0 is one-hot input."""
    tie_weights: bool = False
    """The output layer's weights are the embedding's; ``dense.weight`` is absent then."""
    ends: bool = False
    """The token of `data.tables.tokens.END_ID` ends a document: where it is read, the state that comes in is zero."""
    networks: int = 1
    """So many of these, trained apart, make the model: what it says is the mean of their probabilities."""

    @classmethod
    def of(cls, config: TrainConfig, vocab_size: int, *, ends: bool = False) -> Architecture:
        """The model that a training asks for."""
        return cls(
            config.cell,
            config.activation if config.cell == "rnn" else "tanh",
            config.hidden_size,
            config.layers,
            vocab_size,
            config.embedding_size,
            config.tie_weights,
            ends,
            config.networks,
        )

    @classmethod
    def parse(cls, description: Mapping[str, Any]) -> Architecture:
        """The model that a ``config.json`` describes; in format 1 it is one-hot, and a cell `rnn` is ReLU.

        Raises:
            ValueError: what does not fit, in words.
        """
        if description.get("format") not in range(1, FORMAT + 1):
            raise ValueError(f"it has format {description.get('format')!r}, this version reads 1 to {FORMAT}")
        if description["format"] == 1:
            activation = "relu" if description.get("cell") == "rnn" else "tanh"
            description = {"activation": activation, "embedding_size": 0, "tie_weights": False, **description}
        if description["format"] < 4:
            description = {**description, "ends": False}
        if description["format"] < SEVERAL:
            description = {**description, "networks": 1}
        description = {"ends": False, **({"networks": 1} if description["format"] == FORMAT else {}), **description}
        names = [field.name for field in fields(cls)]
        if missing := [name for name in names if name not in description]:
            raise ValueError(f"it has no {missing[0]}")
        result = cls(**{name: description[name] for name in names})
        sizes = {"hidden_size": 1, "layers": 1, "vocab_size": 1, "embedding_size": 0}
        tied = result.tie_weights
        fitting = {
            "cell": result.cell in [*GATES],
            "activation": result.activation in ("relu", "tanh")[result.cell != "rnn" :],
            **{name: type(description[name]) is int and description[name] >= least for name, least in sizes.items()},
            "tie_weights": tied is False or (tied is True and result.embedding_size == result.hidden_size),
            "ends": result.ends is False or (result.ends is True and result.vocab_size > 1),
            "networks": type(result.networks) is int
            and result.networks > 0
            and ((result.networks > 1) is (description["format"] == SEVERAL) or description["format"] == FORMAT),
        }
        if wrong := [name for name, fits in fitting.items() if not fits]:
            raise ValueError(f"its {wrong[0]} cannot be {description[wrong[0]]!r}")
        return result

    def description(self) -> dict[str, Any]:
        """All of it as ``config.json`` has it; of a model of one document no word of their ends, and of one network
        none of several."""
        usual = {"ends": False, "networks": 1}
        return {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape, of one network, in the one order that everything here keeps."""
        rows, inputs = GATES[self.cell] * self.hidden_size, self.embedding_size or self.vocab_size
        result: dict[str, tuple[int, ...]] = {}
        if self.embedding_size:
            result["embedding.weight"] = (self.vocab_size, self.embedding_size)
        for layer in range(self.layers):
            result[f"rnn.weight_ih_l{layer}"] = (rows, self.hidden_size if layer else inputs)
            result[f"rnn.weight_hh_l{layer}"] = (rows, self.hidden_size)
            result[f"rnn.bias_ih_l{layer}"] = (rows,)
            result[f"rnn.bias_hh_l{layer}"] = (rows,)
        if not self.tie_weights:
            result["dense.weight"] = (self.vocab_size, self.hidden_size)
        result["dense.bias"] = (self.vocab_size,)
        return result

    def weights(self) -> int:
        """How many numbers the parameters of one network are."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def initial(self, initializer: Literal["normal", "uniform", "forgetful"], seed: int) -> Parameters:
        """The weights before training, float32; biases are zero.

        `normal` draws from Normal(0, 0.01), as in the book; `uniform` from ±1/√hidden_size, embeddings from ±0.1.
        `forgetful` draws the same, times `_LOUDER`, of what comes into a layer and of embeddings, and begins an LSTM's
        forget gates at `_FORGETTING`. (It is usually told to remember at first, by a bias of 1: Jozefowicz, Zaremba and
        Sutskever, "An Empirical Exploration of Recurrent Network Architectures", ICML 2015. Where the state is carried
        from minibatch to minibatch that was worse than 0 here, and -1 was better.)

        Raises:
            TrainingError: more than this machine can hold, while they are drawn in float64.
        """
        memory.check("the model", 12 * self.weights(), SMALLER)
        rng = np.random.default_rng(seed)

        louder = _LOUDER if initializer == "forgetful" else {}

        def drawn(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
            if "weight" not in name:
                biases = np.zeros(shape)
                if initializer == "forgetful" and self.cell == "lstm" and name.startswith("rnn.bias_ih"):
                    biases[self.hidden_size : 2 * self.hidden_size] = _FORGETTING
                return biases
            if initializer == "normal":
                return rng.normal(0.0, 0.01, shape)
            bound = 0.1 if name == "embedding.weight" else 1 / math.sqrt(self.hidden_size)
            return rng.uniform(-bound, bound, shape) * louder.get(name.rstrip("0123456789"), 1)

        return {name: drawn(name, shape).astype(np.float32) for name, shape in self.shapes().items()}


def together(networks: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    """What each of several networks has, by names that tell them apart; of one alone, by its own."""
    if len(networks) == 1:
        return {**networks[0]}
    return {_named(name, number): value for number, one in enumerate(networks) for name, value in one.items()}


def apart(model: Mapping[str, Value], networks: int) -> list[dict[str, Value]]:
    """What ``together`` was given."""
    if networks == 1:
        return [{**model}]
    prefixes = [_named("", number) for number in range(networks)]
    return [
        {name.removeprefix(prefix): value for name, value in model.items() if name.startswith(prefix)}
        for prefix in prefixes
    ]


def _named(name: str, number: int) -> str:
    """As in a list of modules of ``torch.nn``."""
    return f"networks.{number}.{name}"
