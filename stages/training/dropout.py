"""What chance does to one training step: which units and weights are dropped, and how far the gradient reaches.

Everything is drawn here, from the seed and the step's number alone: a resumed run draws the same again, whatever the
engine and the device, and a test can compute with the same masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.lm.parameters import GATES

if TYPE_CHECKING:
    from stages.config import TrainConfig
    from stages.lm.parameters import Architecture

Masks = dict[str, npt.NDArray[np.float32]]


def names(config: TrainConfig, architecture: Architecture) -> tuple[str, ...]:
    """The names of the masks that each step comes with."""
    return tuple(_masks(config, architecture, 1))


def masks(config: TrainConfig, architecture: Architecture, steps: int, number: int) -> Masks:
    """The factors of one step; only those that the configuration asks for.

    With dropout d a factor is 0 with probability d, else 1 / (1 - d), so that nothing has to be scaled afterwards.

    Args:
        config: dropouts, seed and batch size.
        architecture: of the model.
        steps: time steps of the minibatch.
        number: of the training step, counted over all epochs.

    Returns:
        ``input`` (time, batch, embedding or vocabulary), ``hidden1`` … below each layer but the first, and ``output``
        (time, batch, hidden), where time is 1 for variational dropout (Gal and Ghahramani, "A Theoretically Grounded
        Application of Dropout in Recurrent Neural Networks", NIPS 2016), else ``steps``; ``recurrent0`` … (gates ·
        hidden, hidden), of the recurrent weights (DropConnect; Merity, Keskar and Socher, "Regularizing and Optimizing
        LSTM Language Models", ICLR 2018); ``gradient`` (steps, batch, 1): 0 where the gradient ends between a step and
        the one before it, 1 / π where it goes on, with probability π. So E[ξ] = 1, and the gradient
        z(t) = ∂h(t)/∂w + ξ(t) ∂h(t)/∂h(t-1) z(t-1) is on average that of the minibatch without cuts, before it is
        clipped (Dive into Deep Learning, "Backpropagation Through Time", after Tallec and Ollivier, "Unbiasing
        Truncated Backpropagation Through Time", 2017). Between minibatches nothing flows back, so what lies further
        back than their steps is as absent as without it.
    """
    asked = _masks(config, architecture, steps)
    if not asked:  # a generator takes longer than all else that a step needs
        return {}
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(config.seed, spawn_key=(2, number))))

    def drawn(dropped: float, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        kept = rng.random(shape, np.float32) >= dropped
        return kept * np.float32(1 / (1 - dropped))

    return {name: drawn(*mask) for name, mask in asked.items()}


def _masks(config: TrainConfig, architecture: Architecture, steps: int) -> dict[str, tuple[float, tuple[int, ...]]]:
    """Name → probability of 0, and shape, in the order in which they are drawn."""
    time = 1 if config.variational else steps
    batch, hidden = config.batch_size, architecture.hidden_size
    result: dict[str, tuple[float, tuple[int, ...]]] = {}
    if config.input_dropout:
        width = architecture.embedding_size or architecture.vocab_size
        result["input"] = config.input_dropout, (time, batch, width)
    if config.hidden_dropout:
        for layer in range(1, architecture.layers):
            result[f"hidden{layer}"] = config.hidden_dropout, (time, batch, hidden)
    if config.output_dropout:
        result["output"] = config.output_dropout, (time, batch, hidden)
    if config.weight_dropout:
        rows = GATES[architecture.cell] * hidden
        for layer in range(architecture.layers):
            result[f"recurrent{layer}"] = config.weight_dropout, (rows, hidden)
    if config.bptt_keep < 1:
        result["gradient"] = 1 - config.bptt_keep, (steps, batch, 1)
    return result
