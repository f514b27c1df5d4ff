"""What the fast paths are worth: each beside the plain way, in turn, as medians of paired ratios.

    .venv/bin/python -P tests/benchmark.py     (-P, or the folder tests/data would be taken for the package)

The engines are raced on the CPU with the book's eager loop and with plain loops in torch and JAX, each in a process of
its own (tests/contenders.py) and the peers in their better setting of threads; what is not installed is left out, and
said. Ratios hold on other machines, absolute figures do not. Nothing here is a test: a busy machine fails no one.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import string
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

from data.corpus import text
from data.tables.vocab import Vocab
from stages import tokenize
from stages.config import TrainConfig
from stages.lm.model import LanguageModel
from stages.lm.parameters import Architecture
from stages.training import cores

ROUNDS = 7
VOCAB_SIZE = 28
WORDS = ("then", "the", "traveller", "saw", "a", "pale", "light", "over", "the", "sea", "and", "spoke", "of", "time")
ROOT = Path(__file__).parent.parent

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
RATIOS = (("bptt", "book"), ("bptt", "best peer"), ("bptt", "mxnet"), ("torch", "plain torch"), ("bptt", "products"))
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
"""How many threads MXNet and torch, NumPy, and XLA take."""
SPINNING = 0.15
"""Seconds: OpenBLAS's threads look out for more work for a tenth of one, and take a core from whoever is next."""
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Where they are set, NumPy's matrix products are slower than they could be."""


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
    """Of `bptt`, over the book's loop, the best peer, and `mxnet`; 0 where there is none."""


PRESET = tomllib.loads((ROOT / "stages" / "presets" / "shakespeare.toml").read_text(encoding="utf-8"))
SHAPES = (
    Shape("RNN 256", VOCAB_SIZE, 9, {"cell": "rnn", "hidden_size": 256}, (2.5, 1.5, 0)),
    Shape("GRU 256", VOCAB_SIZE, 5, {"cell": "gru", "hidden_size": 256}, (1.7, 1.4, 0)),
    Shape("LSTM 256", VOCAB_SIZE, 5, {"cell": "lstm", "hidden_size": 256}, (1.7, 1.2, 0)),
    Shape("RNN 512", VOCAB_SIZE, 5, {"cell": "rnn", "hidden_size": 512}, (2.4, 1.2, 0)),
    Shape("shakespeare, 64 × 128", 65, 1, PRESET["train"] | {"batch_size": 64}, (0, 0, 1.0)),
)


def main() -> None:
    """Print the engines' table, and one row per other comparison."""
    train()
    print(f"{'':34} {'plain':>11} {'ours':>11}")
    normalize()
    sample()


class Contender:
    """A process that trains on a shape, a turn whenever it is told to."""

    def __init__(self, name: str, shape: Shape, threads: int | None) -> None:
        self.name, self.threads = name, threads
        self.seconds: list[float] = []
        """Of each turn."""
        environment = {name: value for name, value in os.environ.items() if name not in (*THREADS, *SLOWING)}
        if threads:
            environment |= dict.fromkeys(THREADS, str(threads))
        task = json.dumps((name, shape.vocab_size, shape.minibatches, shape.train))
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(ROOT / "tests" / "contenders.py"), task],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def answer(self) -> float:
        """The next figure that it writes: of the turn that warms it up the mean loss, of any other the seconds."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended: {self._process.communicate()[1]}")
        return float(line)

    def go(self) -> None:
        """Let it train for a turn."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.seconds.append(self.answer())
        if NEEDS[self.name] == "numpy":
            time.sleep(SPINNING)


def train() -> None:
    """Race all engines and peers, shape by shape; and say how far the matrix products alone are."""
    if absent := sorted({package for package in NEEDS.values() if not find_spec(package)}):
        print(f"left out, for it is not installed: {', '.join(absent)}")
    print(f"{'training, tokens/s (threads)':30}", *(f"{name:>12}" for name in NEEDS))
    ratios = []
    for shape in SHAPES:
        best = race(shape)
        config = TrainConfig(**shape.train)
        tokens = shape.minibatches * config.batch_size * config.num_steps
        row = []
        for name in NEEDS:
            found = best.get(name)
            threads = f" ({found.threads})" if found and found.threads else ""
            row.append(f"{tokens / statistics.median(found.seconds):,.0f}{threads}" if found else "–")
        print(f"{shape.name:30}", *(f"{figure:>12}" for figure in row), flush=True)
        ratios.append((shape, best))
    print(f"\n{'medians of paired ratios (aim)':30}", *(f"{ours + ' / ' + other:>20}" for ours, other in RATIOS))
    for shape, best in ratios:
        row = [ratio(best, *pair) for pair in RATIOS]
        row = [f"{figure} ({aim})" if aim else figure for figure, aim in zip_longest(row, shape.aims)]
        print(f"{shape.name:30}", *(f"{figure:>20}" for figure in row))
    print("(bptt / products: the share of its time that its matrix products take)\n")


def race(shape: Shape) -> dict[str, Contender]:
    """Let all of them train in turn, and keep each by its name in its better setting of threads."""
    with ExitStack() as stack:
        racing = [
            stack.enter_context(Contender(name, shape, threads))
            for name, package in NEEDS.items()
            if find_spec(package) and not (name == "book" and shape.train.get("optimizer", "sgd") != "sgd")
            for threads in ((None,) if name in ENGINES else sorted({1, cores.available()}))
        ]
        losses = [contender.answer() for contender in racing]
        agree = 0.01 if "output_dropout" in shape.train else 0.0001
        trained = [loss for loss in losses if not math.isnan(loss)]
        assert max(trained) < min(trained) * (1 + agree), losses
        for _ in range(ROUNDS):
            for contender in racing:
                contender.go()
    best: dict[str, Contender] = {}
    for contender in sorted(racing, key=lambda contender: statistics.median(contender.seconds)):
        best.setdefault(contender.name, contender)
    if peers := [contender for contender in best.values() if contender.name in PEERS]:
        best["best peer"] = peers[0]
    return best


def ratio(best: dict[str, Contender], ours: str, other: str) -> str:
    """How many times as fast the first is as the second, turn by turn."""
    if not (ours in best and other in best):
        return "–"
    pairs = zip(best[ours].seconds, best[other].seconds, strict=True)
    return f"{statistics.median(theirs / own for own, theirs in pairs):.2f}"


def compare(name: str, unit: str, amount: int, plain: Callable[[], object], ours: Callable[[], object]) -> None:
    """Time both in turn; the ratio is the median over pairs, so that a machine that drifts cancels out."""
    plain(), ours()
    pairs = []
    for _ in range(ROUNDS):
        times = []
        for function in (plain, ours):
            began = time.perf_counter()
            function()
            times.append(time.perf_counter() - began)
        pairs.append(times)
    slow, fast = (amount / statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(first / second for first, second in pairs)
    print(f"{name:34} {slow:>11,.0f} {fast:>11,.0f} {unit:9} {ratio:>5.1f}×")


def normalize() -> None:
    """The book's rule over a text: its regular expression line by line, and our tables and masks in chunks."""
    lines = [" ".join(WORDS[start:] + WORDS[:start]).capitalize() + ".\n" for start in range(len(WORDS))]
    content = "".join(lines) * 2_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(content, encoding="utf-8")

        def plain() -> Counter[str]:
            with path.open(encoding="utf-8") as file:
                cleaned = [re.sub("[^A-Za-z]+", " ", line).strip().lower() for line in file]
            return Counter(character for line in cleaned for character in line)

        def ours() -> Counter[str]:
            chunks = text.normalize(text.read(path), "book", "char")
            return tokenize.merge(map(tokenize.count, map(text.code_points, chunks)))

        assert plain() == ours()
        compare("normalise and count, book's rule", "bytes/s", len(content), plain, ours)


def sample() -> None:
    """One continuation, greedy: MXNet a step at a time as in the book, and our NumPy kernels."""
    if not find_spec("mxnet"):
        return
    from stages.training.gluon import RNNModel, mnp, mx

    model = RNNModel(Architecture.of(TrainConfig(), VOCAB_SIZE))
    model.initialize(mx.init.Normal(0.01))
    vocab = Vocab(["<unk>", *string.ascii_lowercase, " "], [1] * VOCAB_SIZE)
    own = LanguageModel.untrained(TrainConfig(), vocab, level="char", normalizer="book")
    length = 500

    def plain() -> None:
        state, last = model.begin_state(1, mx.cpu()), 1
        for _ in range(length):
            logits, state = model(mnp.array([[last]], dtype="int32"), state)
            last = int(logits.argmax(axis=1).reshape(1))

    compare("sample, rnn of 256", "chars/s", length, plain, lambda: own.sample("a", length))


if __name__ == "__main__":
    main()
