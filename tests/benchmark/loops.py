"""How others train: the book's eager loop, and loops in torch and JAX as who knows them would write them.

All begin with the same weights and train on the same ids (`trainers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stages.config import TrainConfig
    from stages.lm.parameters import Architecture, Parameters

Ids = npt.NDArray[np.int32]
"""Of all minibatches of a turn, (minibatches, batch, steps + 1): a row's targets are its inputs, one further."""
Turn = Callable[[], Sequence[float]]
"""Trains on these ids from a state of zeros, and gives the loss of each minibatch."""


def book(config: TrainConfig, architecture: Architecture, weights: Parameters, ids: Ids) -> Turn:
    """Training as the chapter writes it: eager, a copy and two reads of the device in every step."""
    from chapter import Chapter

    from stages.training.gluon import autograd, gluon, mnp

    model = Chapter(architecture, weights, config.batch_size, config.num_steps)
    parameters = model.collect_params()
    trainer = gluon.Trainer(parameters, "sgd", {"learning_rate": config.learning_rate, "wd": 0})
    loss_function = gluon.loss.SoftmaxCrossEntropyLoss()

    def turn() -> Sequence[float]:
        losses = []
        state = model.begin_state(config.batch_size)
        for rows in ids:
            state = [array.detach() for array in state]
            with autograd.record():
                logits, state = model(mnp.array(rows[:, :-1], dtype="int32"), state)
                loss = loss_function(logits, mnp.array(rows[:, 1:].T.reshape(-1))).mean()
            loss.backward()
            gradients = [parameter.grad() for parameter in parameters.values()]
            norm = float(mnp.sqrt(sum((gradient**2).sum() for gradient in gradients)))
            if norm > config.clip_norm:
                for gradient in gradients:
                    gradient[:] *= config.clip_norm / norm
            trainer.step(1)
            losses.append(float(loss))
        return losses

    return turn


def plain_torch(config: TrainConfig, architecture: Architecture, weights: Parameters, ids: Ids) -> Turn:
    """A loop as who knows torch would write it: `torch.nn`'s layers, the fused optimizer, no figure read in a turn.

    `torch.compile` was tried (2.13.0, one core of a Xeon of 2.5 GHz, a C++ compiler at hand) and is no faster: 0.95 of
    this with a ReLU RNN of 256, 0.94 with an LSTM, for it leaves `torch.nn`'s recurrent layers as they are; with the
    cell written out over the steps 0.66. Dropout of the recurrent weights is left out, for these layers have none; so a
    peer has less to do where the preset asks for it.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            vocab, hidden, embedding = architecture.vocab_size, architecture.hidden_size, architecture.embedding_size
            options: dict[str, Any] = {"nonlinearity": architecture.activation} if architecture.cell == "rnn" else {}
            self.rnn = getattr(nn, architecture.cell.upper())(
                embedding or vocab, hidden, architecture.layers, **options
            )
            self.dense = nn.Linear(hidden, vocab)
            if embedding:
                self.embedding = nn.Embedding(vocab, embedding)
            else:
                self.one_hot = torch.eye(vocab)

        def forward(self, inputs: Any, state: Any) -> tuple[Any, Any]:
            x = self.embedding(inputs) if architecture.embedding_size else functional.embedding(inputs, self.one_hot)
            outputs, state = self.rnn(self.dropped(x, config.input_dropout), state)
            return self.dense(self.dropped(outputs, config.output_dropout).flatten(0, 1)), state

        def dropped(self, x: Any, fraction: float) -> Any:
            return x * functional.dropout(torch.ones_like(x[:1]), fraction) if fraction else x

    model = Model()
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    parameters = list(model.parameters())
    optimizer = (
        torch.optim.SGD(parameters, config.learning_rate, fused=True)
        if config.optimizer == "sgd"
        else torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay, fused=True)
    )
    minibatches = torch.from_numpy(ids.astype(np.int64)).transpose(1, 2).contiguous()
    zeros = torch.zeros(architecture.layers, config.batch_size, architecture.hidden_size)

    def turn() -> Sequence[float]:
        state: Any = (zeros, zeros) if architecture.cell == "lstm" else zeros
        losses = []
        for columns in minibatches:
            state = tuple(array.detach() for array in state) if architecture.cell == "lstm" else state.detach()
            optimizer.zero_grad(set_to_none=True)
            logits, state = model(columns[:-1], state)
            loss: Any = functional.cross_entropy(logits, columns[1:].flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.clip_norm, foreach=True)
            optimizer.step()
            losses.append(loss.detach())
        return [*map(float, torch.stack(losses))]

    return turn


def plain_jax(config: TrainConfig, architecture: Architecture, weights: Parameters, ids: Ids) -> Turn:
    """A whole turn compiled: a scan over its minibatches, with one over the time steps in it; one-hot is a look-up.

    Unrolling the inner scan was tried and is slower or no faster. Dropout as in `plain_torch`.
    """
    import jax
    from jax import lax, nn
    from jax import numpy as jnp

    hidden, embedding, cell = architecture.hidden_size, architecture.embedding_size, architecture.cell

    def recur(w: Any, state: Any, z: Any) -> tuple[Any, Any]:
        h = state[0]
        s = h @ w["rnn.weight_hh_l0"]
        if cell == "rnn":
            after: tuple[Any, ...] = (nn.relu(z + s),)
        elif cell == "gru":
            s = s + w["rnn.bias_hh_l0"]
            r, u = jnp.split(nn.sigmoid(z[:, : 2 * hidden] + s[:, : 2 * hidden]), 2, axis=1)
            n = jnp.tanh(z[:, 2 * hidden :] + r * s[:, 2 * hidden :])
            after = (n + u * (h - n),)
        else:
            i, f, g, o = jnp.split(z + s, 4, axis=1)
            c = nn.sigmoid(f) * state[1] + nn.sigmoid(i) * jnp.tanh(g)
            after = (nn.sigmoid(o) * jnp.tanh(c), c)
        return after, after[0]

    def dropped(key: Any, x: Any, fraction: float) -> Any:
        return x * (jax.random.bernoulli(key, 1 - fraction, x[:1].shape) / (1 - fraction)) if fraction else x

    def loss(w: Any, state: Any, columns: Any, key: Any) -> tuple[Any, Any]:
        into = w["rnn.weight_ih_l0"]
        if embedding:
            x = dropped(key, w["embedding.weight"].T[columns[:-1]], config.input_dropout)
            z = (x.reshape(-1, embedding) @ into).reshape(*x.shape[:2], -1)
        else:
            z = into[columns[:-1]]
        biases = w["rnn.bias_ih_l0"] + (0 if cell == "gru" else w["rnn.bias_hh_l0"])
        state, outputs = lax.scan(partial(recur, w), state, z + biases)
        outputs = dropped(jax.random.fold_in(key, 1), outputs, config.output_dropout).reshape(-1, hidden)
        logits = nn.log_softmax(outputs @ w["dense.weight"] + w["dense.bias"])
        return -jnp.take_along_axis(logits, columns[1:].reshape(-1, 1), axis=1).mean(), state

    def update(w: Any, moments: Any, gradient: Any, number: Any) -> tuple[Any, Any]:
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda g: g * jnp.minimum(1, config.clip_norm / norm), gradient)
        rate = config.learning_rate
        if config.optimizer == "sgd":
            return jax.tree.map(lambda w, g: w - rate * g, w, gradient), moments
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
        variance = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradient)
        own = rate * jnp.sqrt(1 - 0.999**number) / (1 - 0.9**number)
        w = jax.tree.map(
            lambda w, m, v: w * (1 - rate * config.weight_decay) - own * m / (jnp.sqrt(v) + 1e-8), w, mean, variance
        )
        return w, (mean, variance)

    def step(carried: Any, columns: Any) -> tuple[Any, Any]:
        w, moments, state, number = carried
        key = jax.random.fold_in(jax.random.key(0, impl="rbg"), number)
        (mean_loss, state), gradient = jax.value_and_grad(loss, has_aux=True)(w, state, columns, key)
        w, moments = update(w, moments, gradient, number)
        return (w, moments, state, number + 1), mean_loss

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def scan(w: Any, moments: Any, number: Any) -> tuple[Any, Any, Any, Any]:
        zeros = (jnp.zeros((config.batch_size, hidden)),) * (2 if cell == "lstm" else 1)
        (w, moments, _, number), losses = lax.scan(step, (w, moments, zeros, number), minibatches)
        return w, moments, number, losses

    minibatches = jnp.asarray(ids.transpose(0, 2, 1))
    w = {name: jnp.asarray(weight.T.copy()) for name, weight in weights.items()}
    moments = [jax.tree.map(jnp.zeros_like, w) for _ in range(2 if config.optimizer == "adamw" else 0)]
    held: list[Any] = [w, tuple(moments), jnp.ones((), jnp.int32)]

    def turn() -> Sequence[float]:
        *held[:], losses = scan(*held)
        return [*map(float, np.asarray(losses))]

    return turn
