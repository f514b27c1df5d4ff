"""Kill training a hundred times at random moments (`kill -9`), and compare what comes out with a training left alone.

    .venv/bin/python tests/kill.py [TIMES]

Each cell with each optimizer in turn, dropout and patience on, through the command line as a user has it. Ten minutes;
the suite holds a short form of it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import cycle, product
from pathlib import Path

ROOT = Path(__file__).parent.parent
CELLS = ("rnn", "gru", "lstm")
RATES = {"sgd": 0.5, "momentum": 0.05, "adam": 0.003, "adamw": 0.003}
"""Optimizer → learning rate."""
EVERYWHERE = {
    "layers": 2,
    "hidden_size": 24,
    "embedding_size": 16,
    "output_dropout": 0.2,
    "weight_dropout": 0.1,
    "epochs": 60,
    "patience": 50,
}


def main() -> None:
    """Print a row per cell and optimizer; exit code 1 where a digest differs."""
    times = int(sys.argv[1]) if sys.argv[1:] else 100
    moments = random.Random(0)
    combinations = list(product(CELLS, RATES))
    kills = [0] * len(combinations)
    for index in [number for number, _ in zip(cycle(range(len(combinations))), range(times), strict=False)]:
        kills[index] += 1
    wrong = 0
    for (cell, optimizer), count in zip(combinations, kills, strict=True):
        changes = {**EVERYWHERE, "cell": cell, "optimizer": optimizer, "learning_rate": RATES[optimizer]}
        with tempfile.TemporaryDirectory() as folder:
            alone, killed = Path(folder, "alone"), Path(folder, "killed")
            began = time.monotonic()
            expected = digests(finished(start(alone, changes)))
            seconds = time.monotonic() - began
            within = 0
            for _ in range(count):
                process = start(killed, changes)
                try:
                    process.communicate(timeout=seconds * moments.uniform(0, 0.3))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    within += bool(list(killed.glob("checkpoints/*/*.safetensors")))
            same = digests(finished(start(killed, changes))) == expected
        wrong += not same
        print(
            f"{cell:4} {optimizer:8} killed {count:2} times, {within:2} of them with a checkpoint to go on from:",
            end=" ",
        )
        print("the same bytes" if same else "OTHER BYTES", flush=True)
    print(f"{sum(kills)} kills, {wrong} differences")
    sys.exit(wrong > 0)


def start(store: Path, changes: Mapping[str, object]) -> subprocess.Popen[str]:
    """Begin, or go on with, a training on the sample in a store of its own."""
    settings = [f"--set=train.{field}={value}" for field, value in changes.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "stages.cli", "train", f"--store={store}", "--json", *settings],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> Path:
    """The folder of the model, when training is over."""
    said, _ = process.communicate()
    assert process.returncode == 0, f"training ended with exit code {process.returncode}"
    return Path(json.loads(said)["stages"][-1]["artifact"])


def digests(model: Path) -> dict[str, str]:
    """File → SHA-256, as the manifest has it."""
    outputs = json.loads((model / "manifest.json").read_text(encoding="utf-8"))["outputs"]
    return {name: facts["sha256"] for name, facts in outputs.items()}


if __name__ == "__main__":
    main()
