"""What comes out of a set of trainings, as digests: run it on two commits, and `diff` says whether a result moved.

    .venv/bin/python tests/digests.py [CHECKOUT] > digests.txt

The preset `sample`, a short `book`, one training per cell and optimizer, and whatever else has a path of its own
through the code. Three minutes; only digests made on one machine compare.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

RATES = {"sgd": 0.5, "momentum": 0.05, "adam": 0.003, "adamw": 0.003}
"""Optimizer → learning rate."""
SMALL = {
    **{"cell": "rnn", "hidden_size": 24, "layers": 2, "embedding_size": 16, "initializer": "normal"},
    **{"epochs": 3, "batch_size": 16, "input_dropout": 0, "output_dropout": 0, "weight_decay": 0.01},
    **{"optimizer": "sgd", "learning_rate": 1, "schedule": "constant", "warmup_epochs": 0, "averaging": 9},
    "ngram": 0,  # samples are the network's
}
"""Whatever the preset `sample` says."""
DROPPED = {"input_dropout": 0.1, "hidden_dropout": 0.1, "output_dropout": 0.2, "weight_dropout": 0.1}
OTHERS: dict[str, dict[str, object]] = {
    "random partition": {"partition": "random"},
    "random truncation": {"bptt_keep": 0.9, "cell": "gru"},
    "dropped anew in each step": {**DROPPED, "variational": False},
    "tied weights, tanh": {"tie_weights": True, "embedding_size": 24, "activation": "tanh", "initializer": "uniform"},
    "patience": {"patience": 2, "learning_rate": 4, "epochs": 12},
    "plateau": {"schedule": "plateau", "decay_epochs": 1, "learning_rate": 4, "epochs": 8},
    "cosine": {"schedule": "cosine", "warmup_epochs": 0.5, "averaging": 0},
    "step": {"schedule": "step", "decay_epochs": 1, "clip_norm": 0},
}
FILES = {"tokenize": ("tokens.arrow", "vocab.arrow"), "train": ("model.safetensors", "vocab.arrow", "config.json")}


def main() -> None:
    """Print a line per file: what was run, the file, the first digits of its SHA-256."""
    project = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent.parent).resolve()
    with tempfile.TemporaryDirectory() as store:

        def report(name: str, *arguments: str) -> None:
            for file, digest in run(project, store, *arguments).items():
                print(f"{name:28} {file:18} {digest}", flush=True)

        report("sample")
        report("book", "--preset=book", "--corpus=sample", "--set=train.epochs=20")
        report("words", "--set=tokenize.level=word", "--set=train.epochs=2", "--set=evaluate.window=64")
        report("subwords", "--set=tokenize.level=bpe", "--set=tokenize.vocab_size=400", "--set=train.epochs=2")
        for cell, optimizer in product(("rnn", "gru", "lstm"), RATES):
            changes: dict[str, object] = {
                **SMALL,
                **DROPPED,
                "cell": cell,
                "optimizer": optimizer,
                "learning_rate": RATES[optimizer],
            }
            report(f"{cell}, {optimizer}", *settings(changes))
        for name, changes in OTHERS.items():
            report(name, *settings({**SMALL, **changes}))


def settings(changes: dict[str, object]) -> list[str]:
    return [f"--set=train.{field}={value}" for field, value in changes.items()]


def run(project: Path, store: str, *arguments: str) -> dict[str, str]:
    """File → digest, of the metrics as `--json` prints them."""
    command = [sys.executable, "-m", "stages.cli", "run", "--json", f"--store={store}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    printed = json.loads(done.stdout)
    folders = {stage["name"]: Path(stage["artifact"]) for stage in printed["stages"]}
    found = {name: (folders[stage] / name).read_bytes() for stage, names in FILES.items() for name in names}
    found["samples.json"] = (folders["evaluate"] / "samples.json").read_bytes()
    found["metrics"] = json.dumps(printed["metrics"], sort_keys=True).encode()
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in found.items()}


if __name__ == "__main__":
    main()
