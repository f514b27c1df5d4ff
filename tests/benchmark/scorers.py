"""Who reads text in the benchmark and says what it costs: ours, torch, and the matrix products of it alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stages.lm import side_by_side
from stages.lm.model import LanguageModel
from stages.lm.network import one_thread
from stages.lm.parameters import GATES
from stages.scoring.adapting import adapting

Turn = Callable[[], float]
WINDOW = 256
"""Tokens after which the state is reset, where it is: nanoGPT's."""
AT_ONCE = 1024
"""Columns of a product with what many steps gave."""


def summary(loss: float) -> float:
    """The mean loss, nats."""
    return loss


def ours(model: str, text: str) -> Turn:
    """As `evaluate --on` does, from text to figures."""
    own, read = LanguageModel.load(model), Path(text).read_text(encoding="utf-8")
    return lambda: own.score(read).loss


def windowed(model: str, text: str) -> Turn:
    """The report's second protocol."""
    own = LanguageModel.load(model)
    ids = tokens(own, text)
    return lambda: float(np.concatenate([*own.network.windowed_losses(ids, WINDOW)]).mean(dtype=np.float64))


def torch(model: str, text: str) -> Turn:
    """`torch.nn`'s layers over the text as one row, some thousand tokens at a time, without gradients."""
    import torch
    from safetensors.torch import load_file
    from torch import nn
    from torch.nn import functional

    own = LanguageModel.load(model)
    ids, kind = torch.from_numpy(tokens(own, text).astype(np.int64)), own.architecture
    weights = load_file(Path(model) / "model.safetensors")
    table = weights.get("embedding.weight", torch.eye(kind.vocab_size))
    kinds: dict[str, Any] = {"rnn": partial(nn.RNN, nonlinearity=kind.activation), "gru": nn.GRU, "lstm": nn.LSTM}
    rnn = kinds[kind.cell](table.shape[1], kind.hidden_size)
    rnn.load_state_dict({name[4:]: weight for name, weight in weights.items() if name.startswith("rnn.")})

    def turn() -> float:
        total, state = torch.zeros((), dtype=torch.float64), None
        with torch.inference_mode():
            for at in range(0, len(ids) - 1, 4096):
                read = ids[at : at + 4097]
                outputs, state = rnn(functional.embedding(read[:-1], table), state)
                logits = functional.linear(outputs, weights["dense.weight"], weights["dense.bias"])
                total += functional.cross_entropy(logits, read[1:], reduction="sum")
        return float(total) / (len(ids) - 1)

    return turn


def several(model: str, text: str, length: int, rate: float | None) -> Turn:
    """As `evaluate --on` does with so many characters, with `--adapt` where there is a rate, on the cores that there
    are."""
    own, read = LanguageModel.load(model), Path(text).read_text(encoding="utf-8")[:length]
    losses = None if rate is None else adapting(own, rate)
    return lambda: own.score(read, losses).loss


def products(model: str, text: str) -> Turn:
    """No losses: the matrix products of reading the text once in NumPy, on one thread.

    The state's of each step for as many rows side by side as ours has, the output's of many steps at once. What goes in
    is looked up, for a table of embeddings times weights is small.
    """
    own = LanguageModel.load(model)
    kind, count, rows = own.architecture, len(tokens(own, text)) - 1, side_by_side.ROWS
    hidden, gates = kind.hidden_size, GATES[kind.cell] * kind.hidden_size
    rng = np.random.default_rng(0)

    def product(m: int, k: int, n: int) -> Callable[[], object]:
        a, b = (rng.standard_normal(shape, np.float32) for shape in ((m, k), (k, n)))
        return partial(np.matmul, a, b, out=np.empty((m, n), np.float32))

    step, output = product(gates, hidden, rows), product(kind.vocab_size, hidden, AT_ONCE)

    def turn() -> float:
        with one_thread():
            for _ in range(-(-count // rows)):
                step()
            for _ in range(-(-count // AT_ONCE)):
                output()
        return 0.0

    return turn


def tokens(model: LanguageModel, text: str) -> Any:
    """The ids of a file's text."""
    pieces: Iterator[Any] = (ids for _, ids in model._read(Path(text).read_text(encoding="utf-8")))
    return np.concatenate(list(itertools.chain(pieces)))


CONTENDERS = {
    **{"torch": torch, "ours": ours, "windowed": windowed, "products": products},
    **dict.fromkeys(("one core", "all cores"), several),
}
