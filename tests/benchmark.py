"""What the fast paths are worth: each beside the plain way, in turn, in one process, as medians of ratios.

    .venv/bin/python -P tests/benchmark.py     (-P, or the folder tests/data would be taken for the package)

Ratios hold on other machines, absolute figures do not. Nothing here is a test: a busy machine fails no one.
"""

from __future__ import annotations

import re
import statistics
import string
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.corpus import text
from data.tables.vocab import Vocab
from stages import tokenize
from stages.config import TrainConfig
from stages.lm.model import LanguageModel
from stages.lm.parameters import Architecture
from stages.training import engines
from stages.training.engine import Engine, EngineState, Recipe, Step
from stages.training.minibatches import Minibatch, Minibatches

ROUNDS = 7
VOCAB_SIZE = 28
WORDS = ("then", "the", "traveller", "saw", "a", "pale", "light", "over", "the", "sea", "and", "spoke", "of", "time")


def main() -> None:
    """Print one row per comparison."""
    print(f"{'':34} {'plain':>11} {'ours':>11}")
    train()
    normalize()
    sample()


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


def train() -> None:
    """The book's epoch of 10,000 characters: its eager loop, and our engine's steps, on the same minibatches."""
    ids = np.random.default_rng(0).integers(1, VOCAB_SIZE, 10_000).astype(np.uint8)
    minibatches = list(Minibatches(ids, 32, 35, "sequential", np.random.default_rng(0)))
    tokens = sum(inputs.size for inputs, _ in minibatches)
    for cell in ("rnn", "gru", "lstm"):
        architecture = Architecture.of(TrainConfig(cell=cell), VOCAB_SIZE)
        recipe = Recipe(architecture=architecture, batch_size=32, optimizer="sgd", clip_norm=1.0)
        engine = engines.choose(TrainConfig(device="cpu")).build(recipe)
        engine.restore(EngineState.initial(recipe, architecture.initial("normal", seed=0)))
        steps = [
            Step(inputs=inputs, targets=targets, learning_rate=0.1, number=number, reset_state=number == 1)
            for number, (inputs, targets) in enumerate(minibatches, 1)
        ]
        book = _BookLoop(architecture)

        def ours(engine: Engine = engine, steps: list[Step] = steps) -> None:
            engine.run(steps)

        def plain(book: _BookLoop = book) -> None:
            book.epoch(minibatches)

        compare(f"train, {cell} of 256", "tokens/s", tokens, plain, ours)


class _BookLoop:
    """Training as the chapter writes it: eager, a copy and two reads of the device in every step."""

    def __init__(self, architecture: Architecture) -> None:
        from stages.training.gluon import RNNModel, gluon, mx

        self.model = RNNModel(architecture)
        self.model.initialize(mx.init.Normal(0.01))
        self.trainer = gluon.Trainer(self.model.collect_params(), "sgd", {"learning_rate": 0.1, "wd": 0})
        self.loss = gluon.loss.SoftmaxCrossEntropyLoss()

    def epoch(self, minibatches: list[Minibatch]) -> None:
        from stages.training.gluon import autograd, mnp, mx

        state = self.model.begin_state(32, mx.cpu())
        for inputs, targets in minibatches:
            state = [array.detach() for array in state]
            with autograd.record():
                logits, state = self.model(mnp.array(inputs, dtype="int32"), state)
                loss = self.loss(logits, mnp.array(targets.T.reshape(-1))).mean()
            loss.backward()
            gradients = [parameter.grad() for parameter in self.model.collect_params().values()]
            norm = float(mnp.sqrt(sum((gradient**2).sum() for gradient in gradients)))
            if norm > 1:
                for gradient in gradients:
                    gradient[:] *= 1 / norm
            self.trainer.step(1)
            float(loss)


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
