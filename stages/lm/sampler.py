"""A trained language model that needs NumPy only: text out of it, and what it makes of given text.

The recurrences are those of ``torch.nn.RNN`` (ReLU), ``GRU`` and ``LSTM``, one time step after the other on 1-D
vectors; a one-hot input times a matrix is a row of that matrix, so the first layer looks its inputs up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.errors import ConfigError, StoreError
from data.text import normalize_prefix
from data.vocab import Vocab
from stages.lm import parameters

if TYPE_CHECKING:
    from pathlib import Path

    from data.text import Level, Normalizer
    from stages.config import TrainConfig
    from stages.lm.parameters import Parameters

_LOGITS = 1 << 22
"""Logits held at once while a text is measured."""
_ROWS = 4096
"""Time steps at most that are measured at once."""

Vector = npt.NDArray[np.float32]
State = tuple[Vector, ...]
Step = Callable[[Vector, State], State]


class LanguageModel:
    """Weights, vocabulary, and how text becomes ids.

    Args:
        cell: `rnn`, `gru` or `lstm`.
        weights: as `stages.lm.parameters` names them.
        vocab: row = id.
        level: `char` or `word`.
        normalizer: what a prefix is normalised by.
    """

    def __init__(self, cell: str, weights: Parameters, vocab: Vocab, level: Level, normalizer: Normalizer) -> None:
        self.cell = cell
        self.vocab = vocab
        self.level = level
        self.normalizer = normalizer
        layers = sum(name.startswith("rnn.weight_ih") for name in weights)
        self._layers = [_Layer(cell, weights, layer) for layer in range(layers)]
        self._dense = np.ascontiguousarray(weights["dense.weight"]), weights["dense.bias"]

    @classmethod
    def load(cls, folder: Path) -> LanguageModel:
        """Read a model artifact: ``config.json``, ``model.safetensors``, ``vocab.arrow``.

        Raises:
            StoreError: a folder that holds no such model, or a damaged one.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = folder / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            if config["format"] != parameters.FORMAT:
                raise ValueError(f"it has format {config['format']}, this program reads {parameters.FORMAT}")
            shape = (config["cell"], config["hidden_size"], config["layers"], config["vocab_size"])
            expected = parameters.shapes(*shape)
            level, normalizer = config["level"], config["normalizer"]
            if level not in ("char", "word") or normalizer not in ("book", "lower", "none"):
                raise ValueError("its level or its normalizer is unknown")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} does not describe a model ({_said(error)}): train again") from None
        path = folder / "model.safetensors"
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path} holds no weights that can be read ({_said(error)}): train again") from None
        found = {name: array.shape for name, array in weights.items() if array.dtype == np.float32}
        if found != expected:
            wrong = sorted(set(found.items()) ^ set(expected.items()))[0][0]
            raise StoreError(f"{path} does not fit the model in config.json (see {wrong}): train again")
        vocab = Vocab.read(folder / "vocab.arrow")
        if len(vocab) != config["vocab_size"]:
            sizes = f"{len(vocab):,} tokens and the model {config['vocab_size']:,}"
            raise StoreError(f"{folder / 'vocab.arrow'} has {sizes}: train again")
        return cls(config["cell"], weights, vocab, level, normalizer)

    @classmethod
    def untrained(cls, config: TrainConfig, vocab: Vocab, level: Level, normalizer: Normalizer) -> LanguageModel:
        """The model that training would start from."""
        weights = parameters.initial(config.cell, config.hidden_size, config.layers, len(vocab), config.seed)
        return cls(config.cell, weights, vocab, level, normalizer)

    def sample(self, prefix: str, length: int, temperature: float = 0.0, seed: int = 0) -> str:
        """The prefix, normalised, and ``length`` more tokens; words are joined with a space.

        What the vocabulary does not hold is read as ``<unk>``, and ``<unk>`` is never said unless the vocabulary holds
        nothing else. After an empty prefix the first token is the likeliest (or drawn) at the zero state.

        Args:
            prefix: text to go on from.
            length: tokens to add.
            temperature: 0 takes the likeliest token each time, else one is drawn from softmax(logits / temperature).
            seed: of what is drawn.

        Raises:
            ConfigError: a temperature that is negative or not a number.
        """
        if not temperature >= 0:
            raise ConfigError(f"temperature must be 0 or more, not {temperature}")
        text = normalize_prefix(prefix, self.normalizer)
        first = 1 if len(self.vocab) > 1 else 0
        weight, bias = (array[first:] for array in self._dense)
        drawn = np.random.default_rng(seed).random(length) if temperature else None
        states = [layer.zero_state() for layer in self._layers]
        chosen: list[int] = []
        # A state that grew beyond bounds is bad text, not worth a warning for every token.
        with np.errstate(all="ignore"):
            for id_ in self.vocab.encode(text, self.level):
                self._advance(id_, states)
            for number in range(length):
                logits = weight.dot(states[-1][0])
                logits += bias
                choice = int(logits.argmax()) if drawn is None else _draw(logits, temperature, drawn[number])
                chosen.append(choice + first)
                self._advance(choice + first, states)
        continuation = self.vocab.decode(chosen, self.level)
        return " ".join([*text.split(), *continuation.split()]) if self.level == "word" else text + continuation

    def losses(self, ids: npt.NDArray[Any]) -> Iterator[Vector]:
        """The negative log-likelihood of each token but the first, nats, in chunks of shape (≤ 4096,).

        The state is carried from the first token, where it is zero, to the last.

        Args:
            ids: integers of shape (tokens,).
        """
        weight, bias = self._dense
        rows = max(1, min(_ROWS, _LOGITS // len(bias)))
        states = [layer.zero_state() for layer in self._layers]
        for start in range(0, len(ids) - 1, rows):
            inputs, targets = ids[start : start + rows + 1][:-1], ids[start + 1 : start + rows + 1]
            with np.errstate(all="ignore"):
                outputs = self._layers[0].inputs[inputs]
                for number, layer in enumerate(self._layers):
                    projected = outputs if number == 0 else layer.project(outputs)
                    outputs, states[number] = layer.run(projected, states[number])
                logits = outputs @ weight.T
                logits += bias
                logits -= logits.max(axis=1, keepdims=True)
                chosen = logits[np.arange(len(targets)), targets]
                yield np.log(np.exp(logits).sum(axis=1)) - chosen

    def loss(self, ids: npt.NDArray[Any], progress: Callable[[int], None] | None = None) -> float:
        """The mean of ``losses``, nats per token; ``progress`` is told how many tokens are done."""
        total, tokens = 0.0, 0
        for chunk in self.losses(ids):
            total += float(chunk.sum(dtype=np.float64))
            tokens += len(chunk)
            if progress:
                progress(tokens)
        return total / tokens if tokens else math.nan

    def _advance(self, id_: int, states: list[State]) -> None:
        """Feed one token to every layer."""
        for number, layer in enumerate(self._layers):
            row = layer.inputs[id_] if number == 0 else layer.project(states[number - 1][0])
            states[number] = layer.step(row, states[number])


class _Layer:
    """One recurrent layer: what comes in is projected for many steps at once, the recurrence goes step by step."""

    def __init__(self, cell: str, weights: Parameters, layer: int) -> None:
        weight_ih, weight_hh, bias_ih, bias_hh = (
            weights[f"rnn.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        size = weight_hh.shape[1]
        bias = bias_ih + bias_hh
        # sigmoid(v) = (1 + tanh(v / 2)) / 2, and halving is exact: the gates' rows are halved here, once.
        half = np.ones(len(bias), np.float32)
        if cell == "lstm":
            half[: 2 * size] = half[3 * size :] = 0.5
        elif cell == "gru":
            half[: 2 * size] = 0.5
            bias[2 * size :] = bias_ih[2 * size :]  # the other one stands inside the reset gate
        weight_hh = np.ascontiguousarray(weight_hh * half[:, None])
        self._weight_ih, self._bias = np.ascontiguousarray(weight_ih.T * half), bias * half
        self._states = 2 if cell == "lstm" else 1
        self._size = size
        self.inputs = self._weight_ih + self._bias if layer == 0 else self._weight_ih[:0]
        """Of the first layer: id → its projection, shape (vocab, gates · hidden)."""
        self.step: Step = (
            _rnn(weight_hh)
            if cell == "rnn"
            else _lstm(weight_hh, size)
            if cell == "lstm"
            else _gru(weight_hh, bias_hh[2 * size :], size)
        )

    def zero_state(self) -> State:
        return tuple(np.zeros(self._size, np.float32) for _ in range(self._states))

    def project(self, inputs: Vector) -> Vector:
        """Inputs of shape (…, in) → (…, gates · hidden)."""
        projected: Vector = inputs @ self._weight_ih
        projected += self._bias
        return projected

    def run(self, projected: Vector, state: State) -> tuple[Vector, State]:
        """All steps of a chunk → outputs (steps, hidden) and the state after it."""
        outputs = np.empty((len(projected), self._size), np.float32)
        step = self.step
        for row, output in zip(projected, outputs, strict=True):
            state = step(row, state)
            output[:] = state[0]
        return outputs, state


def _rnn(weight: Vector) -> Step:
    def step(row: Vector, state: State) -> State:
        hidden = weight.dot(state[0])
        hidden += row
        return (np.maximum(hidden, 0.0, out=hidden),)

    return step


def _gru(weight: Vector, new_bias: Vector, size: int) -> Step:
    def step(row: Vector, state: State) -> State:
        (hidden,) = state
        product = weight.dot(hidden)
        gates = np.tanh(row[: 2 * size] + product[: 2 * size])
        gates *= 0.5
        gates += 0.5
        new = product[2 * size :]
        new += new_bias
        new *= gates[:size]
        new += row[2 * size :]
        np.tanh(new, out=new)
        # (1 - z) · new + z · old
        return (new + gates[size:] * (hidden - new),)

    return step


def _lstm(weight: Vector, size: int) -> Step:
    def step(row: Vector, state: State) -> State:
        hidden, cell = state
        gates = weight.dot(hidden)
        gates += row
        np.tanh(gates, out=gates)
        new = gates[2 * size : 3 * size].copy()
        gates *= 0.5
        gates += 0.5
        cell = gates[size : 2 * size] * cell
        cell += gates[:size] * new
        return gates[3 * size :] * np.tanh(cell), cell

    return step


def _draw(logits: Vector, temperature: float, share: float) -> int:
    """The token at which the cumulated probability passes ``share``."""
    # In double precision, so that a very small temperature is not zero.
    scaled = (logits.astype(np.float64) - logits.max()) / temperature
    cumulated = np.exp(scaled).cumsum()
    return min(int(cumulated.searchsorted(share * cumulated[-1], side="right")), len(cumulated) - 1)


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error) or type(error).__name__
