"""What the fast paths are worth: each beside the plain way, in turn, in one process, as medians of ratios.

    .venv/bin/python tests/benchmark.py

Ratios hold on other machines, absolute figures do not. Nothing here is a test: a busy machine fails no one.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data import text
from data.tokens import Minibatches
from stages.config import TrainConfig
from stages.lm import parameters
from stages.lm.device import Device

ROUNDS = 5
WORDS = "then the traveller saw a pale light over the sea and spoke of time to us all".split()


def main() -> None:
    """Print one row per comparison."""
    print(f"{'':34} {'plain':>14} {'ours':>14} {'ratio':>7}")
    train()
    normalize()
    sample()


def compare(name: str, unit: str, amount: int, plain: Callable[[], object], ours: Callable[[], object]) -> None:
    """Time both in turn; the ratio is the median over pairs, so that a drifting machine cancels out."""
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
    print(f"{name:34} {slow:>10,.0f} {unit} {fast:>10,.0f} {unit} {ratio:>6.1f}×")


def train() -> None:
    """One epoch of the book: its eager loop, and our engine's."""
    from stages.lm.gluon import GluonEngine, RNNModel, autograd, gluon, mnp, mx, npx

    ids = np.random.default_rng(0).integers(1, 28, 10_000).astype(np.uint8)
    minibatches = list(Minibatches(ids, 32, 35, "sequential", np.random.default_rng(0)))
    tokens = sum(inputs.size for inputs, _ in minibatches)
    for cell in ("rnn", "gru", "lstm"):
        config = TrainConfig.model_validate({"cell": cell})
        npx.set_np()
        model = RNNModel(cell, 256, 1, 28)
        model.initialize(mx.init.Normal(0.01))
        trainer = gluon.Trainer(model.collect_params(), "sgd", {"learning_rate": 1, "wd": 0})
        entropy = gluon.loss.SoftmaxCrossEntropyLoss()
        engine = GluonEngine(cell, 256, 1, 28, 32, config.clip_norm, Device("cpu"))
        engine.load_parameters(parameters.initial(cell, 256, 1, 28, 0))

        def plain(model: RNNModel = model, trainer: object = trainer, entropy: object = entropy) -> None:
            state = model.begin_state(32, mx.cpu())
            for inputs, targets in minibatches:
                state = [array.detach() for array in state]
                with autograd.record():
                    logits, state = model(mnp.array(inputs, dtype="int32"), state)
                    loss = entropy(logits, mnp.array(targets.T.reshape(-1))).mean()
                loss.backward()
                gradients = [parameter.grad() for parameter in model.collect_params().values()]
                norm = float(mnp.sqrt(sum((gradient**2).sum() for gradient in gradients)))
                if norm > 1:
                    for gradient in gradients:
                        gradient[:] *= 1 / norm
                trainer.step(1)  # type: ignore[attr-defined]
                float(loss)

        def ours(engine: GluonEngine = engine) -> None:
            engine.reset_state()
            for loss, _ in [engine.step(inputs, targets, 1.0) for inputs, targets in minibatches]:
                float(loss)

        plain(), ours()
        compare(
            f"train {cell} 256",
            "tok/s",
            tokens * 4,
            lambda: [plain() for _ in "1234"],
            lambda: [ours() for _ in "1234"],
        )


def normalize() -> None:
    """The book's rule over a text, to character counts."""
    lines = [" ".join(WORDS[start:] + WORDS[:start]).capitalize() + ".\n" for start in range(len(WORDS))]
    content = "".join(lines) * 2_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(content, encoding="utf-8")

        def plain() -> Counter[str]:
            with path.open(encoding="utf-8") as file:
                cleaned = [re.sub("[^A-Za-z]+", " ", line).strip().lower() for line in file.readlines()]
            return Counter(character for line in cleaned for character in list(line))

        def ours() -> int:
            return sum(len(chunk) for chunk in text.normalize(text.read(path), "book", "char"))

        compare("normalize and count, the book's rule", "B/s", len(content), plain, ours)
