"""What the engine `torch` is raced with: a plain loop over ``torch.nn``, as who knows what costs time would write it.

CuDNN's layers on a card, everything on the device, nothing read while it trains, clipping and the update over all
parameters at once. It captures nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stages.lm.parameters import Architecture, Parameters
    from stages.training.minibatches import Minibatch

RATE = 0.1
"""The loop's learning rate."""


class PlainLoop:
    """One-hot inputs, recurrent layers, a dense layer; stochastic gradient descent with the gradient clipped.

    Args:
        architecture: one without an embedding.
        weights: that it begins with.
        device: where it trains.
    """

    def __init__(self, architecture: Architecture, weights: Parameters, device: torch.device) -> None:
        kind = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[architecture.cell]
        chosen: dict[str, Any] = {"nonlinearity": architecture.activation} if architecture.cell == "rnn" else {}
        vocab, hidden = architecture.vocab_size, architecture.hidden_size
        self._rnn: Any = kind(vocab, hidden, architecture.layers, device=device, **chosen)
        self._dense: Any = nn.Linear(hidden, vocab, device=device)
        self._model: Any = nn.ModuleDict({"rnn": self._rnn, "dense": self._dense})
        self._model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self._one_hot = torch.eye(vocab, device=device)

    def upload(self, minibatches: Iterable[Minibatch]) -> list[tuple[Tensor, Tensor]]:
        """Minibatches of (batch, steps) → on the device, (steps, batch) and (steps · batch)."""
        device = self._one_hot.device
        return [
            (torch.tensor(inputs.T, device=device), torch.tensor(targets.T.ravel(), dtype=torch.long, device=device))
            for inputs, targets in minibatches
        ]

    def train_on(self, minibatches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Train on neighbouring minibatches → the mean of their losses, which nothing here waits for."""
        state: Any = None
        weights = list(self._model.parameters())
        total = torch.zeros((), device=self._one_hot.device)
        for inputs, targets in minibatches:
            outputs, state = self._rnn(functional.embedding(inputs, self._one_hot), state)
            state = tuple(array.detach() for array in state) if isinstance(state, tuple) else state.detach()
            loss: Any = functional.cross_entropy(self._dense(outputs.flatten(0, 1)), targets)
            self._model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
            with torch.no_grad():  # what torch.optim.SGD(foreach=True) does
                torch._foreach_add_(weights, [weight.grad for weight in weights], alpha=-RATE)
            total += loss.detach()
        return total / len(minibatches)
