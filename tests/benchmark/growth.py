"""Growth: time and memory of each stage against the size of the corpus and of the model, with the exponent fitted."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import commands
import corpora
import drawing
import numpy as np
from results import Part, Table, number

SIZES, LARGEST = {1: 3, 10: 3, 100: 1}, 1000
"""Megabytes of a corpus → how often it is run: what takes little time says little when it runs once."""
UNITS = dict.fromkeys((64, 128, 256, 512, 1024), 3)
"""Hidden units, likewise."""
STAGES = ("download", "tokenize", "train", "evaluate")
LEARNING = ("train", "evaluate")
"""Those that know of a model."""
SETTINGS = """
[download]
corpus = {corpus}

[tokenize]
normalizer = "book"
train_share = 0.96
valid_share = 0.02
test_share = 0.02

[train]
hidden_size = {units}
epochs = 1
max_tokens = {tokens}

[evaluate]
prefixes = ["the"]
"""
TOKENS = 112_000
"""That are trained on: a hundred minibatches, whatever the corpus."""
SMALL = 0.2
"""Megabytes of the corpus for models of all sizes."""
WATCHED = """
import os, sys
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(usage.ru_maxrss, flush=True)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command and says the most memory that it held. In a process of its own that holds next to none itself: Linux
counts to a process what the one that started it held."""


@dataclass(frozen=True)
class Point:
    """What one stage took."""

    stage: str
    size: float
    """Megabytes of the corpus, or hidden units."""
    seconds: float
    memory: int
    """The most that its process held, bytes."""


def measure(*, full: bool) -> Part:
    """Run each stage as a process of its own, for each size."""
    sizes = SIZES | ({LARGEST: 1} if full else {})
    by_corpus = [one for size, times in sizes.items() for one in median([ran(size, 64, size) for _ in range(times)])]
    by_units = [
        one
        for units, times in UNITS.items()
        for one in median([ran(SMALL, units, units) for _ in range(times)])
        if one.stage in LEARNING
    ]
    part = Part("Growth", data={"corpus": [*map(asdict, by_corpus)], "hidden": [*map(asdict, by_units)]})
    part.tables += [table("Against the corpus, MB", by_corpus), table("Against the hidden units", by_units)]
    part.pictures["time and memory against corpus and model"] = drawing.panels(
        [
            panel
            for title, points in (("corpus, MB", by_corpus), ("hidden units", by_units))
            for panel in (
                drawing.panel("seconds", title, curves(points, "seconds", 1)),
                drawing.panel("memory, MiB", title, curves(points, "memory", 2**20)),
            )
        ]
    )
    part.notes += [
        "A ReLU RNN over characters by the book's rule, each stage a process of its own; of 64 units in the first "
        f"table, on {SMALL:g} MB in the second one.",
        f"Training sees {TOKENS:,} tokens, whatever the corpus. Evaluation, with its baselines, reads all of "
        "validation and test, 2 % each, and of the training split at most the last million tokens.",
        "The exponent is the slope of the logarithms, fitted by least squares; in brackets that of the last step "
        "alone, where what does not grow weighs least. Of the units, the work of a token has one between 1 and 2.",
        "Memory is the most that the process held, with what it imports and the files that it maps. Figures are "
        "medians of three runs, those of a corpus of 100 MB and more of one.",
    ]
    return part


def ran(megabytes: float, units: int, size: float) -> list[Point]:
    """Each stage after the other, on a store of their own."""
    with tempfile.TemporaryDirectory() as folder:
        text = corpora.write(Path(folder) / "text.txt", round(megabytes * 1e6), fresh=True)
        preset = text.with_name("preset.toml")
        settings = SETTINGS.format(corpus=json.dumps(str(text)), units=units, tokens=TOKENS)
        preset.write_text(settings, encoding="utf-8")
        return [Point(stage, size, *took(commands.ours(stage, "--json", preset=preset))) for stage in STAGES]


def median(runs: Sequence[Sequence[Point]]) -> list[Point]:
    """Several runs of one size as one."""
    return [
        replace(
            same[0],
            seconds=statistics.median(point.seconds for point in same),
            memory=round(statistics.median(point.memory for point in same)),
        )
        for same in zip(*runs, strict=True)
    ]


def took(command: commands.Command) -> tuple[float, int]:
    """The seconds of a stage, as it says itself, of what runs before it and is not shown as well; and its memory."""
    arguments, folder, more = command
    done = commands.run(([sys.executable, "-S", "-c", WATCHED, *arguments], folder, more))
    said, memory = done.stdout.rstrip().rsplit("\n", 1)
    seconds = sum(one["seconds"] for one in json.loads(said)["stages"] if one["state"] == "ran")
    return max(seconds, 0.001), int(memory) * 1024  # rounded to milliseconds, and nothing takes none


def exponent(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """p of figure = c · size^p, by least squares on the logarithms."""
    return round(float(np.polyfit(np.log(sizes), np.log(figures), 1)[0]), 2) + 0.0  # and never minus zero


def curves(points: Sequence[Point], figure: str, unit: float) -> dict[str, drawing.Curve]:
    """Stage → its curve."""
    return {
        stage: [(point.size, getattr(point, figure) / unit) for point in points if point.stage == stage]
        for stage in dict.fromkeys(point.stage for point in points)
    }


def table(title: str, points: Sequence[Point]) -> Table:
    """A row for each stage's time and one for its memory."""
    sizes = list(dict.fromkeys(point.size for point in points))
    rows = []
    for called, figure, unit in (("s", "seconds", 1), ("MiB", "memory", 2**20)):
        for stage, curve in curves(points, figure, unit).items():
            figures = [value for _, value in curve]
            slopes = [exponent(sizes, figures), exponent(sizes[-2:], figures[-2:])]
            rows.append([f"{stage}, {called}", *map(number, figures), "{:.2f} ({:.2f})".format(*slopes)])
    return Table(title, ["", *(f"{size:g}" for size in sizes), "exponent"], rows)
