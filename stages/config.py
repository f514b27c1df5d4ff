"""One frozen model per stage. A field is documented here, once; an unknown field is refused.

A field marked with ``NOT_IN_KEY`` cannot change a result and stays out of the cache key.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]


class StageConfig(BaseModel):
    """Frozen; unknown fields refused; not-a-number refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class DownloadConfig(StageConfig):
    """Which text to learn from."""

    corpus: Annotated[str, Field(min_length=1)] = "sample"
    """A name of the catalogue (see `rnnlm corpora`), an http(s) address, or the path of a local file."""


class TokenizeConfig(StageConfig):
    """How the text becomes ids."""

    level: Literal["char", "word"] = "char"
    """One token per character (code point), or one per word between white space."""
    normalizer: Literal["book", "lower", "none"] = "lower"
    """`book`: every run of other characters than A-Z becomes one space, lines are stripped, joined and lowercased;
    `lower`: lowercase; `none`: the text as it is. Line ends are read as newlines whatever system wrote them."""
    min_freq: Annotated[int, Field(ge=0)] = 0
    """A token seen less often than this in the text the vocabulary is fitted on becomes `<unk>`."""
    max_tokens: Annotated[int, Field(ge=0)] = 0
    """Keep only this many tokens from the start of the text, then split them; 0 keeps all."""
    fit_vocab_on: Literal["train", "all"] = "train"
    """The vocabulary is fitted on the training split, or, as in the book, on the whole text."""
    train_share: Share = 0.9
    """Share of the tokens, from the start, that the model trains on."""
    valid_share: Share = 0.05
    """Share of the tokens, after the training split, that choices are made on."""
    test_share: Share = 0.05
    """Share of the tokens, at the end, that the final figures are measured on."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> TokenizeConfig:
        total = self.train_share + self.valid_share + self.test_share
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train_share, valid_share and test_share must add up to 1, not {total:g}")
        if self.train_share == 0:
            raise ValueError("train_share must be more than 0, or there is nothing to train on")
        return self


class TrainConfig(StageConfig):
    """The model and how it is trained. The defaults are the book's, but for the epochs."""

    cell: Literal["rnn", "gru", "lstm"] = "rnn"
    """The recurrent cell; `rnn` has the ReLU activation, as in the book."""
    hidden_size: Annotated[int, Field(ge=1)] = 256
    """Hidden units per layer."""
    layers: Annotated[int, Field(ge=1)] = 1
    """Recurrent layers, each fed by the one below."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Sequences per minibatch."""
    num_steps: Annotated[int, Field(ge=1)] = 35
    """Time steps per minibatch: where backpropagation through time is truncated."""
    partition: Literal["sequential", "random"] = "sequential"
    """`sequential`: neighbouring minibatches are neighbours in the text and the state is carried, detached;
    `random`: subsequences are shuffled and the state starts from zero each time."""
    epochs: Annotated[int, Field(ge=1)] = 50
    """Passes over the training split. More of them continue from the checkpoint of fewer."""
    optimizer: Literal["sgd"] = "sgd"
    """Plain stochastic gradient descent."""
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    """The optimizer's step size."""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """The gradient is scaled down to this L2 norm when it is longer; 0 never clips."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds the initial weights and the minibatches."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d+)?)$")] = "auto"
    """`auto` (a GPU that MXNet can use, else the CPU), `cpu`, `gpu` or `gpu:N`."""


class EvaluateConfig(StageConfig):
    """What the report shows beside the metrics."""

    prefixes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = (
        "time traveller",
        "traveller",
    )
    """Texts that the model continues."""
    length: Annotated[int, Field(ge=1)] = 50
    """Tokens per continuation."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Each prefix is continued greedily and, when this is above 0, once more at this temperature."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds the sampled continuations."""
