"""The chapter's model as the chapter builds it: Gluon's own recurrent layer, and a dense one over its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stages.training.gluon import gluon, mnp, mx, npx

if TYPE_CHECKING:
    from stages.lm.parameters import Architecture, Parameters

npx.set_np()


class Chapter(gluon.Block):  # type: ignore[misc]
    """One-hot of the transposed inputs, the recurrent layer, a dense layer over (steps · batch, hidden).

    Args:
        architecture: of one layer, without an embedding.
        weights: its parameters.
        steps: of a minibatch, by which Gluon finds out shapes.
        batch: the same of its sequences.
    """

    def __init__(self, architecture: Architecture, weights: Parameters, batch: int, steps: int) -> None:
        super().__init__()
        layers = {"rnn": gluon.rnn.RNN, "gru": gluon.rnn.GRU, "lstm": gluon.rnn.LSTM}
        options = {"activation": architecture.activation} if architecture.cell == "rnn" else {}
        self.rnn = layers[architecture.cell](architecture.hidden_size, **options)
        self.dense = gluon.nn.Dense(architecture.vocab_size)
        self.vocab_size = architecture.vocab_size
        self.initialize(mx.init.Zero())
        self(mnp.zeros((batch, steps), dtype="int32"), self.begin_state(batch))
        # Gluon keeps all of a layer's weights in one vector, in this order.
        names = [f"rnn.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        self.rnn.rnn_param.set_data(mnp.array(np.concatenate([weights[name].reshape(-1) for name in names])))
        self.dense.weight.set_data(mnp.array(weights["dense.weight"]))
        self.dense.bias.set_data(mnp.array(weights["dense.bias"]))

    def forward(self, inputs: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        """Ids (batch, steps) and a state of (1, batch, hidden) each → logits (steps · batch, vocab), new state."""
        outputs, state = self.rnn(npx.one_hot(inputs.T, self.vocab_size), state)
        return self.dense(outputs.reshape(-1, outputs.shape[-1])), state

    def begin_state(self, batch: int) -> list[Any]:
        """A state of zeros."""
        state: list[Any] = self.rnn.begin_state(batch)
        return state
