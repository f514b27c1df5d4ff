"""Who writes text in the benchmark: the chapter's prediction in Gluon, torch a step at a time, and ours.

All of them have the same weights, over the same characters, and go on from the same letter.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import numpy as np

from data.corpus.catalogue import CATALOGUE
from data.tables.vocab import Vocab
from stages.config import TrainConfig
from stages.lm.model import LanguageModel
from stages.lm.ngram import NGram
from stages.lm.parameters import Architecture
from stages.pipeline import settings

VOCAB = Vocab(["<unk>", *string.ascii_lowercase, " "], [1] * 28)
CONFIG = TrainConfig(initializer="uniform")
"""The book's model, with weights that make it say more than one letter."""
SAMPLE = (CATALOGUE.parent / "sample.txt").read_text(encoding="utf-8").lower()
LETTERS = Vocab(["<unk>", *sorted({*SAMPLE})], [1] * (1 + len({*SAMPLE})))
MIXED = settings.load("sample").train
PREFIX = "a"
Turn = Callable[[], str | list[str]]


def summary(written: Any) -> Any:
    """The text, or texts."""
    return written


def model() -> LanguageModel:
    """Ours, untrained."""
    return LanguageModel.untrained(CONFIG, VOCAB, level="char", normalizer="book")


def ours(length: int) -> Turn:
    """One sequence, greedy."""
    own = model()
    return lambda: own.sample(PREFIX, length)


def alone(length: int, count: int) -> Turn:
    """Many sequences, each of its seed, one after another."""
    own = model()
    return lambda: [own.sample(PREFIX, length, 1.0, seed) for seed in range(count)]


def at_once(length: int, count: int) -> Turn:
    """The same texts, many at once."""
    own = model()
    return lambda: list(own.samples(PREFIX, length, 1.0, range(count)))


def network(length: int, count: int) -> Turn:
    """That of the preset `sample`, untrained, so many texts at once."""
    return _mixed(length, count, ngram=None)


def mixture(length: int, count: int) -> Turn:
    """The same beside an n-gram of its order."""
    ids = np.array(LETTERS.ids(SAMPLE), np.uint8)
    return _mixed(length, count, NGram.fit(ids, len(LETTERS), MIXED.ngram))


def _mixed(length: int, count: int, ngram: NGram | None) -> Turn:
    architecture = Architecture.of(MIXED, len(LETTERS))
    weights, shares = architecture.initial(MIXED.initializer, MIXED.seed), [0.5] * MIXED.ngram
    own = LanguageModel(architecture, weights, LETTERS, "char", "lower", ngram, shares)
    return lambda: list(own.samples(PREFIX, length, 1.0, range(count)))


def book(length: int) -> Turn:
    """The chapter's `predict_ch8`: a loop in Python, in each turn one eager step and one read of the device."""
    from chapter import Chapter

    from stages.training.gluon import mnp

    architecture = Architecture.of(CONFIG, len(VOCAB))
    network = Chapter(architecture, architecture.initial(CONFIG.initializer, CONFIG.seed), 1, 1)

    def turn() -> str:
        state = network.begin_state(1)
        outputs = VOCAB.ids(PREFIX)
        for id_ in outputs[1:]:
            _, state = network(mnp.array([[outputs[-1]]], dtype="int32"), state)
            outputs.append(id_)
        for _ in range(length):
            logits, state = network(mnp.array([[outputs[-1]]], dtype="int32"), state)
            outputs.append(int(logits[:, 1:].argmax(axis=1).reshape(1)) + 1)
        return "".join(VOCAB.tokens[id_] for id_ in outputs)

    return turn


def torch_layers(length: int) -> Turn:
    """Eager torch with the layers of `torch.nn`, a step at a time, without gradients; one-hot is a look-up."""
    import torch
    from torch import nn
    from torch.nn import functional

    w, one_hot = torch_weights(), torch.eye(len(VOCAB))
    rnn = nn.RNN(len(VOCAB), CONFIG.hidden_size, nonlinearity="relu")
    rnn.load_state_dict({name[4:]: weight for name, weight in w.items() if name.startswith("rnn.")})
    dense = nn.Linear(CONFIG.hidden_size, len(VOCAB))
    dense.load_state_dict({name[6:]: weight for name, weight in w.items() if name.startswith("dense.")})

    def turn() -> str:
        with torch.inference_mode():
            outputs, state = VOCAB.ids(PREFIX), torch.zeros(1, CONFIG.hidden_size)
            for _ in range(length):
                hidden, state = rnn(functional.embedding(torch.tensor(outputs[-1:]), one_hot), state)
                outputs.append(int(dense(hidden[-1])[1:].argmax()) + 1)
        return "".join(VOCAB.tokens[id_] for id_ in outputs)

    return turn


def torch_by_hand(length: int) -> Turn:
    """Eager torch without those, which take longer for one step than its arithmetic: a look-up and two products."""
    import torch

    w = torch_weights()
    inputs = (w["rnn.weight_ih_l0"].T + w["rnn.bias_ih_l0"] + w["rnn.bias_hh_l0"]).contiguous()
    recurrent, dense, bias = w["rnn.weight_hh_l0"], w["dense.weight"][1:].contiguous(), w["dense.bias"][1:].contiguous()

    def turn() -> str:
        with torch.inference_mode():
            outputs, h = VOCAB.ids(PREFIX), torch.zeros(CONFIG.hidden_size)
            for _ in range(length):
                h = torch.addmv(inputs[outputs[-1]], recurrent, h).relu_()
                outputs.append(int(torch.addmv(bias, dense, h).argmax()) + 1)
        return "".join(VOCAB.tokens[id_] for id_ in outputs)

    return turn


def torch_weights() -> dict[str, Any]:
    """The weights as tensors."""
    import torch

    weights = Architecture.of(CONFIG, len(VOCAB)).initial(CONFIG.initializer, CONFIG.seed)
    return {name: torch.from_numpy(np.ascontiguousarray(weight)) for name, weight in weights.items()}


CONTENDERS = {
    "book": book,
    "torch": torch_layers,
    "torch by hand": torch_by_hand,
    "ours": ours,
    "one after another": alone,
    "at once": at_once,
    "network": network,
    "mixture": mixture,
}
