"""Measure a model on each split beside its baselines, let it continue some text, and write the report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from data.tokens import IndexTable
from stages.lm import metrics, ngram
from stages.lm.sampler import LanguageModel

if TYPE_CHECKING:
    from pathlib import Path

    from stages.config import EvaluateConfig
    from stages.progress import Progress

    Metrics = dict[str, float | int]

SPLITS = ("train", "valid", "test")


def evaluate(config: EvaluateConfig, model: Path, tokens: Path, out: Path, progress: Progress) -> None:
    """Write ``metrics.json``, ``report.md``, ``curve.png`` and ``samples.json`` into ``out``.

    The loss of a split is the mean negative log-likelihood of its tokens but the first, with the state carried from
    its beginning to its end. A split of fewer than two tokens has nothing to predict: its metrics are null.

    Args:
        config: what to continue, and how.
        model: a folder of `train`: ``model.safetensors``, ``config.json``, ``vocab.arrow``, ``history.arrow``.
        tokens: the folder of `tokenize` that it was trained from: ``tokens.arrow``.
        out: an empty folder.
        progress: told of tokens evaluated.
    """
    language_model = LanguageModel.load(model)
    table = IndexTable.open(tokens / "tokens.arrow")
    measured = _measure(language_model, table, progress)
    samples = [
        {"prefix": prefix, "temperature": temperature, "text": text}
        for prefix in config.prefixes
        for temperature in sorted({0.0, config.temperature, 1.0})
        for text in [language_model.sample(prefix, config.length, temperature=temperature, seed=config.seed)]
    ]
    history = _history(model / "history.arrow")
    _write_json(out / "metrics.json", measured)
    _write_json(out / "samples.json", samples)
    _draw_curve(out / "curve.png", history, measured)
    description = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (out / "report.md").write_text(_report(description, measured, samples, history), encoding="utf-8")


def _measure(model: LanguageModel, table: IndexTable, progress: Progress) -> dict[str, Any]:
    sizes = {name: max(len(table.splits[name]) - 1, 0) for name in SPLITS}
    total, before = sum(sizes.values()), 0
    unigram = ngram.Unigram.fit(table.split("train"), table.vocab_size)
    measured: dict[str, Any] = {}
    baselines: dict[str, dict[str, Metrics | None]] = {"uniform": {}, "unigram": {}}
    for name in SPLITS:
        if not sizes[name]:
            measured[name] = baselines["uniform"][name] = baselines["unigram"][name] = None
            continue
        ids, split = table.split(name), table.splits[name]

        def advance(done: int, before: int = before, name: str = name) -> None:
            progress(before + done, total, f"evaluating the {name} split")

        summary = metrics.summarize(model.loss(ids, advance), sizes[name], split.characters)
        measured[name] = {**summary, "unknown_rate": split.unknown / len(split)}
        for baseline, loss in (("uniform", ngram.uniform_loss(table.vocab_size)), ("unigram", unigram.loss(ids[1:]))):
            baselines[baseline][name] = metrics.summarize(loss, sizes[name], split.characters)
        before += sizes[name]
    return {**measured, "baselines": baselines}


def _history(path: Path) -> dict[str, list[Any]]:
    """Columns of ``history.arrow``, one row per epoch."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        columns: dict[str, list[Any]] = pa.ipc.open_file(source).read_all().to_pydict()
    return columns


def _draw_curve(path: Path, history: dict[str, list[Any]], measured: dict[str, Any]) -> None:
    """Perplexity per epoch on a logarithmic axis, with the unigram baseline as a floor to beat."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    epochs = history["epoch"]
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs, history["train_perplexity"], label="training split, running", marker=marker)
    if any(value is not None for value in history["valid_perplexity"]):
        axes.plot(epochs, history["valid_perplexity"], label="validation split", marker=marker)
    unigram = measured["baselines"]["unigram"]["train"]
    if unigram:
        axes.axhline(unigram["perplexity"], color="grey", linestyle=":", label="unigram baseline")
    axes.set(xlabel="epoch", ylabel="perplexity", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})


def _report(
    description: dict[str, Any],
    measured: dict[str, Any],
    samples: list[dict[str, Any]],
    history: dict[str, list[Any]],
) -> str:
    token = "character" if description["level"] == "char" else "word"
    layers = description["layers"]
    lines = [
        "# Language model report",
        "",
        f"{description['cell'].upper()}, {layers} layer{'s' if layers > 1 else ''} of {description['hidden_size']} "
        f"hidden units over {description['vocab_size']:,} {token}s, trained for {len(history['epoch']):,} epochs.",
        "",
        f"**{_verdict(measured)}**",
        "",
        "## How well it predicts",
        "",
        f"| split | {token}s | perplexity | bits per character | loss (nats) | unknown | unigram | uniform |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in SPLITS:
        row = measured[name]
        if row is None:
            lines.append(f"| {name} | too short to measure | | | | | | |")
            continue
        unigram, uniform = (measured["baselines"][baseline][name]["perplexity"] for baseline in ("unigram", "uniform"))
        lines.append(
            f"| {name} | {row['tokens']:,} | {_figure(row['perplexity'])} | {row['bits_per_character']:.4g} | "
            f"{row['loss']:.5g} | {row['unknown_rate']:.2%} | {_figure(unigram)} | {_figure(uniform)} |"
        )
    lines += [
        "",
        "The last two columns are perplexities too: of knowing how often each token occurs, and of knowing nothing.",
        "",
        "## What it writes",
        "",
    ]
    for sample in samples:
        how = "greedily" if sample["temperature"] == 0 else f"at temperature {sample['temperature']:g}"
        text = (f"    {line}" for line in sample["text"].split("\n"))
        prefix = " ".join(sample["prefix"].replace("`", "'").split())  # so that it stays in its code span
        lines += [f"`{prefix}`, continued {how}:", "", *text, ""]
    return "\n".join([*lines, "## How it learnt", "", "![perplexity per epoch](curve.png)", ""])


def _verdict(measured: dict[str, Any]) -> str:
    """The figures in one sentence, so that nobody mistakes memory for learning."""
    held_out = next((name for name in ("test", "valid") if measured[name]), None)
    if held_out is None:
        return "No text was held out, so these figures say how well it remembers, not how well it predicts."
    seen, unseen = measured["train"], measured[held_out]
    unigram = measured["baselines"]["unigram"][held_out]["perplexity"]
    both = [_figure(row["perplexity"]) for row in (seen, unseen)]
    figures = f"Perplexity {both[0]} on what it trained on, {both[1]} on unseen text"
    if unseen["perplexity"] < unigram:
        return f"{figures}, where mere token frequencies reach {unigram:,.2f}."
    if seen["perplexity"] > 1000 * measured["baselines"]["uniform"]["train"]["perplexity"]:
        return f"{figures}: training has diverged; try a smaller train.learning_rate."
    if seen["perplexity"] < measured["baselines"]["unigram"]["train"]["perplexity"]:
        return f"{figures}: worse there than mere token frequencies ({unigram:,.2f}); it has learnt its text by heart."
    return f"{figures}: no better than mere token frequencies ({unigram:,.2f}); it needs more epochs, or another rate."


def _figure(perplexity: float) -> str:
    return f"{perplexity:,.2f}" if perplexity < 1e6 else f"{perplexity:.1e}"


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
