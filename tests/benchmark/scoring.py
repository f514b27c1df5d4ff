"""Scoring: what a trained model makes of a text, beside the arithmetic of its matrix products and torch."""

from __future__ import annotations

import json
import statistics
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import commands
from race import ROOT, Contender, Pair, Race, alternate
from results import Part, Table
from training import SHAPES, Shape

TOKENS = (1 << 16) + 1
"""Of the text that is scored."""
ROUNDS = 5
MODELS = {
    "RNN 256": {"cell": "rnn", "hidden_size": 256, "epochs": 10},
    "LSTM 512": {"cell": "lstm", "hidden_size": 512, "embedding_size": 128, "initializer": "uniform", "epochs": 2}
    | {"optimizer": "adamw", "learning_rate": 0.003, "batch_size": 16},
}
"""Name → how it is trained, on the sample: what it knows of a text's past tells how much has to be read again."""
SEVERAL = {"networks": 4, "epochs": 1}
"""Of the last of these."""
READING: dict[str, tuple[int, float | None]] = {"measured": (TOKENS, None), "learning": (1_500, 3e-4)}
"""What several networks do → of how many characters, and the rate that they learn at."""
CORPUS = 1_115_394
"""Characters of Tiny Shakespeare, the first nine tenths of which `shakespeare` trains on."""


def measure(*, full: bool) -> Part:
    """Race all that is installed, and say what evaluation takes of a training."""
    del full
    part = Part("Scoring")
    with tempfile.TemporaryDirectory() as folder:
        sample = (ROOT / "data" / "corpus" / "sample.txt").read_text(encoding="utf-8")
        text = Path(folder) / "text.txt"
        text.write_text((sample * (TOKENS // len(sample) + 1))[:TOKENS], encoding="utf-8")
        for name, train in MODELS.items():
            part.races.append(race(name, trained(Path(folder) / name, train), text))
        model = trained(Path(folder) / "several", {**MODELS["LSTM 512"], **SEVERAL})
        several = [on_all_cores(doing, model, text) for doing in READING]
    share = shares(part.races[-1], SHAPES[-1])
    part.races += several
    part.data["shares"] = share
    rows = [[engine, f"{100 * one:.1f} %"] for engine, one in share.items()]
    part.tables.append(Table("What the evaluation of `shakespeare` takes of its training", ["engine", "share"], rows))
    if not find_spec("torch"):
        part.notes.append("Left out, for it is not installed: torch.")
    part.notes += [
        "Tokens of a text that a model was trained on for a moment, from the text to its figures, on one thread. "
        "`windowed` resets the state every 256 tokens; the losses of the others agree to 0.01 % before they are timed.",
        "torch reads the text as one row, for the state is carried from its beginning to its end; an LSTM of 512 would "
        "take it minutes.",
        "Several networks have a core each, as far as there are some; what they say is the same.",
    ]
    return part


def trained(folder: Path, train: Mapping[str, object]) -> str:
    """The folder of a model, trained on the sample."""
    folder.mkdir()
    preset = folder / "preset.toml"
    settings = "\n".join(f"{name} = {json.dumps(value)}" for name, value in train.items())
    preset.write_text(f'[tokenize]\nnormalizer = "none"\n\n[train]\nengine = "bptt"\n{settings}\n', encoding="utf-8")
    said = json.loads(commands.run(commands.ours("train", "--json", preset=preset)).stdout)
    return str(said["stages"][-1]["artifact"])


def race(name: str, model: str, text: Path) -> Race:
    """Let them score a text in turn."""
    task = {"model": model, "text": str(text)}
    with ExitStack() as stack:
        racing = [
            stack.enter_context(Contender("scorers", one, task, threads=1))
            for one in ("torch", "ours", "windowed", "products")
            if one != "torch" or (find_spec("torch") and name == "RNN 256")
        ]
        losses = {contender.name: contender.answer() for contender in racing}
        assert abs(losses.get("torch", losses["ours"]) - losses["ours"]) < 1e-4 * losses["ours"], losses
        seconds = alternate([contender.go for contender in racing], ROUNDS)
    taken = {contender.name: one for contender, one in zip(racing, seconds, strict=True)}
    tokens = len(text.read_text(encoding="utf-8")) - 1
    return Race(name, taken, [Pair("ours", "products", round(1 / 1.5, 2)), Pair("ours", "torch")], "tokens/s", tokens)


def on_all_cores(doing: str, model: str, text: Path) -> Race:
    """Let several networks have one core, and all."""
    length, rate = READING[doing]
    task = {"model": model, "text": str(text), "length": length, "rate": rate}
    with ExitStack() as stack:
        racing = [
            stack.enter_context(Contender("scorers", name, task, threads=1, cores=cores))
            for name, cores in (("one core", 1), ("all cores", None))
        ]
        one, several = (contender.answer() for contender in racing)
        assert one == several, (one, several)
        seconds = alternate([contender.go for contender in racing], ROUNDS)
    taken = {contender.name: turns for contender, turns in zip(racing, seconds, strict=True)}
    return Race(f"four LSTMs of 512, {doing}", taken, [Pair("all cores", "one core")], "tokens/s", length - 1)


def shares(scored: Race, shape: Shape) -> dict[str, float]:
    """Engine → the seconds of the preset's evaluation, of both protocols over all it has, by those of its training."""
    preset = tomllib.loads((ROOT / "stages" / "presets" / "shakespeare.toml").read_text(encoding="utf-8"))
    both = sum(statistics.median(scored.seconds[name]) for name in ("ours", "windowed")) / scored.amount
    task = {"vocab_size": shape.vocab_size, "minibatches": shape.minibatches, "train": shape.train}
    found = {}
    for name, package in {"mxnet": "mxnet", "bptt": "numpy", "torch": "torch"}.items():
        if find_spec(package):
            with Contender("trainers", name, task) as engine:
                engine.answer()
                step = statistics.median(engine.go() for _ in range(3)) / shape.tokens
            found[name] = both * CORPUS / (step * preset["train"]["epochs"] * 0.9 * CORPUS)
    return found
