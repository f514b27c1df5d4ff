"""Training: our engines raced with the book's loop, torch and JAX, and how far the matrix products alone are."""

from __future__ import annotations

import statistics
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from race import ROOT, Contender, Pair, Race, alternate
from results import Part

from stages.config import TrainConfig
from stages.training import cores

VOCAB_SIZE = 28
NEEDS = {
    "book": "mxnet",
    "plain torch": "torch",
    "JAX": "jax",
    "mxnet": "mxnet",
    "bptt": "numpy",
    "torch": "torch",
    "products": "numpy",
}
"""Contender → the package that it needs: the peers, our engines, and the matrix products of a training alone."""
ENGINES = ("mxnet", "bptt", "torch")
"""They set their number of threads themselves."""
PEERS = ("plain torch", "JAX")


@dataclass(frozen=True)
class Shape:
    """What is trained."""

    name: str
    vocab_size: int
    minibatches: int
    """Of a turn."""
    train: dict[str, Any]
    """What `train` is configured with; the rest as in the book, 32 × 35 and SGD."""
    aims: tuple[float, ...]
    """Of `mxnet` over the book's loop; of `bptt` over that, the best peer, and `mxnet`. 0 where there is none."""

    @property
    def tokens(self) -> int:
        """Of a turn."""
        config = TrainConfig(**self.train)
        return self.minibatches * config.batch_size * config.num_steps


PRESET = tomllib.loads((ROOT / "stages" / "presets" / "shakespeare.toml").read_text(encoding="utf-8"))
DROPPING = {"networks": 1, "batch_size": 64, "num_steps": 128, "output_dropout": 0.4, "weight_dropout": 0.15}
"""Of one network of the preset `shakespeare`, trained for long."""
SHAPES = (
    Shape("RNN 256", VOCAB_SIZE, 9, {"cell": "rnn", "hidden_size": 256}, (1.6, 2.5, 1.5, 0)),
    Shape("GRU 256", VOCAB_SIZE, 5, {"cell": "gru", "hidden_size": 256}, (1.35, 1.7, 1.4, 0)),
    Shape("LSTM 256", VOCAB_SIZE, 5, {"cell": "lstm", "hidden_size": 256}, (1.35, 1.7, 1.2, 0)),
    Shape("RNN 512", VOCAB_SIZE, 5, {"cell": "rnn", "hidden_size": 512}, (1.4, 2.4, 1.2, 0)),
    Shape("RNN 1024", VOCAB_SIZE, 2, {"cell": "rnn", "hidden_size": 1024}, (1.6, 0, 0, 0)),
    Shape("shakespeare, 64 × 128", 65, 1, PRESET["train"] | DROPPING, (0, 0, 0, 1.0)),
)


def measure(*, full: bool) -> Part:
    """Race all that is installed, shape by shape."""
    del full
    part = Part("Training", [race(shape) for shape in SHAPES])
    if absent := sorted({package for package in NEEDS.values() if not find_spec(package)}):
        part.notes.append(f"Left out, for it is not installed: {', '.join(absent)}.")
    part.notes += [
        "In brackets: threads, of whoever does not choose them itself; of 1 and as many as there are cores the better.",
        "All begin with the same weights and train on the same ids: before they are timed the losses of each "
        "minibatch agree to 0.01 %, to 1 % with dropout. The peers of `shakespeare` drop no recurrent weights, for "
        "their layers cannot; the book's loop has neither AdamW nor dropout.",
        "bptt / products is the share of its time that the matrix products of a training take in NumPy.",
    ]
    return part


def race(shape: Shape) -> Race:
    """Let all of them train in turn, and keep each in its better setting of threads."""
    with ExitStack() as stack:
        task = {"vocab_size": shape.vocab_size, "minibatches": shape.minibatches, "train": shape.train}
        racing = [
            stack.enter_context(Contender("trainers", name, task, threads=threads, spins=package == "numpy"))
            for name, package in NEEDS.items()
            if find_spec(package) and not (name == "book" and shape.train.get("optimizer", "sgd") != "sgd")
            for threads in ((None,) if name in ENGINES else sorted({1, cores.available()}))
        ]
        curves = [contender.answer() for contender in racing]
        agree = 0.01 if "output_dropout" in shape.train else 0.0001
        for losses in zip(*filter(None, curves), strict=True):
            assert max(losses) < min(losses) * (1 + agree), curves
        alternate([contender.go for contender in racing])
    best: dict[str, Contender] = {}
    for contender in sorted(racing, key=lambda contender: statistics.median(contender.seconds)):
        best.setdefault(contender.name, contender)
    over_book, *aims = shape.aims
    pairs = [Pair("mxnet", "book", over_book), Pair("bptt", "book", aims[0])]
    if peer := next((name for name in best if name in PEERS), None):
        pairs.append(Pair("bptt", peer, aims[1]))
    pairs += [Pair("bptt", "mxnet", aims[2]), Pair("torch", "plain torch"), Pair("bptt", "products")]
    found = {name: best[name] for name in NEEDS if name in best}
    return Race(
        shape.name,
        {name: contender.seconds for name, contender in found.items()},
        pairs,
        "tokens/s",
        shape.tokens,
        {name: f"{contender.threads}" for name, contender in found.items() if contender.threads},
    )
