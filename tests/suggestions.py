"""What suggestions are worth: each against a 20-trial sweep that may take as long per trial, and against counting.

    .venv/bin/python -P tests/suggestions.py TEXT … [--level L] [--minutes M] [--speed S] [--trials N] [--engine E]
                                                    [--store DIR]
    .venv/bin/python -P tests/suggestions.py TEXT … --orders        what n-grams of each order need, which is quick

(-P, or the folder tests/data would be taken for the package.) Time is what the speed makes of it, on whatever machine
this runs: at a speed of 11,45 a minute of an LSTM of 160 units is 3.5 million characters. A trial draws units, dropout
of outputs, learning rate, the n-gram's order and networks, at most as many as are suggested, and has as many epochs as
fit into that time; none is stopped early. The best of them is that of the lowest perplexity on the validation split,
and the test split is looked at once.

Prints a row for each text; exit code 1 where a suggestion is behind the n-gram, or more than 3 % behind the best. It
takes N + 1 times the minutes for each text, on a machine of that speed. What was trained is kept in the store.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.progress import LogLines
from data.store.folder import open_store
from data.tables.tokens import IndexTable
from stages.config import RunConfig
from stages.lm.ngram import NGram
from stages.pipeline import run as pipeline
from stages.pipeline import settings
from stages.suggestion import rule
from stages.suggestion.speed import Speed, met
from stages.suggestion.text import ORDERS, Text

COUNTED = (2, 3, 4, 5, 6, 8, 10, 12, 16)
READ: dict[str, dict[str, Any]] = {
    "char": {"normalizer": "none"},
    "letter": {"normalizer": "none"},
    "word": {"normalizer": "lower", "min_freq": 3},
    "bpe": {"normalizer": "none", "vocab_size": 1000},
}
"""Level → how a suggestion reads a text."""
BEHIND = 1.03
"""Of the best perplexity, at most."""
_FEWEST = 4
"""Epochs of a trial, unless the suggestion has fewer: with less nobody would try so wide a network."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--level", choices=[*READ], default="char")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--speed", type=Speed.parse, default=Speed(11, 45))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--store")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--orders", action="store_true")
    asked = parser.parse_args()
    if asked.orders:
        for text in asked.texts:
            for row in orders(text, asked.store):
                print(row, flush=True)
        return
    print("| text | tokens | suggested | perplexity | best trial | perplexity | n-gram | ratio |")
    print("|---|--:|---|--:|---|--:|--:|--:|")
    failed = False
    for text in asked.texts:
        row, ratio, ahead = measured(text, asked)
        print(row, flush=True)
        failed |= ratio > BEHIND or not ahead
    sys.exit(failed)


def orders(path: Path, store: str | None) -> Iterator[str]:
    """A row for each level: nats per token of the last twentieth, by n-grams that have counted all before it."""
    for level, reading in READ.items():
        config = settings.parse({"download": {"corpus": str(path)}, "tokenize": {"level": level, **reading}})
        table = IndexTable.open(reached(config, "tokenize", store) / "tokens.arrow")
        known, unseen = table.ids[: table.splits["valid"].stop], table.split("test")
        losses = [NGram.fit(known, table.vocab_size, order, ends=table.ends).loss(unseen) for order in COUNTED]
        yield f"| {path.name} | {level} | {' | '.join(f'{loss:.3f}' for loss in losses)} |"


def measured(path: Path, asked: argparse.Namespace) -> tuple[str, float, bool]:
    """A text's row, the suggestion's perplexity over the best trial's, and whether it is ahead of the n-gram."""
    base: dict[str, dict[str, Any]] = {
        "download": {"corpus": str(path)},
        "tokenize": {"level": asked.level, **READ[asked.level]},
        "evaluate": {"length": 1},
    }
    store = asked.store
    tokens = reached(settings.parse(base), "tokenize", store)
    text = Text.of(IndexTable.open(tokens / "tokens.arrow"))
    found = rule.suggest(text, asked.speed, asked.minutes)
    base["tokenize"] |= {name: one.value for name, one in found.tokenize.items()}
    train = {name: one.value for name, one in found.train.items()} | {"engine": asked.engine, "device": "cpu"}
    learnt = int(text.tokens * float(base["tokenize"]["train_share"]))

    def figures(train: dict[str, Any]) -> dict[str, Any]:
        folder = reached(settings.parse({**base, "train": train}), "evaluate", store)
        return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))

    ours = figures(train)
    trials = [drawn(number, text, train, asked, learnt) for number in range(asked.trials)]
    swept = [(figures(one), one) for one in trials]
    best, chosen = min(swept, key=lambda pair: float(pair[0]["valid"]["perplexity"]))
    ratio = ours["test"]["perplexity"] / best["test"]["perplexity"]
    counted = ours["test"]["parts"]["ngram"]["perplexity"]
    cells = [
        path.name,
        f"{text.tokens:,}",
        described(train),
        f"{ours['test']['perplexity']:.3f}",
        described(chosen),
        f"{best['test']['perplexity']:.3f}",
        f"{counted:.3f}",
        f"{ratio:.3f}",
    ]
    return f"| {' | '.join(cells)} |", ratio, ours["test"]["perplexity"] <= counted


def drawn(number: int, text: Text, train: dict[str, Any], asked: argparse.Namespace, learnt: int) -> dict[str, Any]:
    """A trial that takes as long."""
    rng = np.random.default_rng(number)
    while True:
        size = int(rng.choice(rule.SIZES))
        model = {**train, **rule.network(text.level, size), "seed": number}
        model["networks"] = int(rng.integers(1, train.get("networks", 1) + 1))
        model["output_dropout"] = round(float(rng.uniform(0, 0.6)), 2)
        model["learning_rate"] = float(f"{np.exp(rng.uniform(np.log(0.001), np.log(0.03))):.2g}")
        order = ORDERS[text.level]
        model["ngram"] = int(rng.integers(max(order // 2, 2), 2 * order + 1))
        weights = met(settings.parse({"train": model}).train, text.vocab_size)
        epochs = int(60 * asked.minutes * 0.85 / (learnt * asked.speed.seconds(weights)) / model["networks"])
        if epochs >= min(_FEWEST, train["epochs"]):
            return {**model, "epochs": min(epochs, 100), "warmup_epochs": 1.0 if epochs > 4 else 0.1}


def described(train: dict[str, Any]) -> str:
    """What sets a trial apart."""
    several = f"{number} × " if (number := train.get("networks", 1)) > 1 else ""
    return (
        f"{several}{train['hidden_size']} units, {train['epochs']} epochs, dropout {train['output_dropout']:g}, rate "
        f"{train['learning_rate']:g}, order {train['ngram']}"
    )


def reached(config: RunConfig, stage: str, store: str | None) -> Path:
    """The folder of a stage's artifact."""
    *_, outcome = pipeline.run(config, open_store(store, None), LogLines, until=stage)
    return outcome.artifact.folder


if __name__ == "__main__":
    main()
