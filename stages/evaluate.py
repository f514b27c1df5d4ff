"""Measure a model on each split beside its baselines, let it write, see what it has by heart, and report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from data.corpus.level import LEVELS
from data.tables.tokens import SPLITS, IndexTable
from stages.lm import metrics
from stages.lm.baselines import FILE as BASELINES_FILE
from stages.lm.model import LanguageModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from data.progress import Progress
    from stages.config import EvaluateConfig

BASELINES = {"5gram": "5-gram", "unigram": "unigram", "uniform": "uniform"}
"""The baselines by what a report calls them, the one that knows most first."""
STRETCH = 40
"""Characters in a row that, found in the training split as well, count as written by heart."""
WRITTEN = 10, 500
"""How much it writes to tell: so many texts, from nothing and at temperature 1, of about so many characters each."""
_DECODED = 1 << 20
"""Tokens of the training split that are text at once."""


def evaluate(config: EvaluateConfig, model: Path, tokens: Path, baselines: Path, out: Path, progress: Progress) -> None:
    """Write ``metrics.json``, ``report.md``, ``curve.png`` and ``samples.json`` into ``out``.

    The loss of a split is the mean negative log-likelihood of its tokens but the first, with the state carried from
    its beginning to its end. A split of fewer than two tokens has nothing to predict: its metrics are null.

    ``metrics.json`` holds the figures of each split, with ``windowed`` among them if asked for, and beside them
    ``baselines``, ``memorization``, and two sentences: ``description`` of the model, ``summary`` of the figures.

    Args:
        config: what to continue, and how.
        model: a folder of `train`: ``model.safetensors``, ``config.json``, ``vocab.arrow``, ``history.arrow``.
        tokens: the folder of `tokenize` that it was trained from: ``tokens.arrow``.
        baselines: the folder of ``stages.lm.baselines`` for the same tokens: ``baselines.json``.
        out: an empty folder.
        progress: told of tokens evaluated.
    """
    language_model = LanguageModel.load(model)
    table = IndexTable.open(tokens / "tokens.arrow")
    history = _history(model / "history.arrow")
    measured = _measure(language_model, table, config.window, progress)
    measured["baselines"] = _summaries(json.loads((baselines / BASELINES_FILE).read_text(encoding="utf-8")), table)
    progress(0, 0, "looking for what it knows by heart")
    measured["memorization"] = memorized(_written(language_model, table, config.seed), _text(language_model, table))
    measured["description"] = told_model(json.loads((model / "config.json").read_text(encoding="utf-8")), history)
    measured["summary"] = told_summary(measured, table.level == "word")
    samples = [
        {"prefix": prefix, "temperature": temperature, "text": text}
        for prefix in config.prefixes
        for temperature in sorted({0.0, config.temperature, 1.0})
        for text in [language_model.sample(prefix, config.length, temperature=temperature, seed=config.seed)]
    ]
    _write_json(out / "metrics.json", measured)
    _write_json(out / "samples.json", samples)
    _draw_curve(out / "curve.png", history, measured)
    token = "word" if table.level == "word" else "character"
    (out / "report.md").write_text(_report(token, measured, samples, history), encoding="utf-8")


# --- what is measured


def _measure(model: LanguageModel, table: IndexTable, window: int, progress: Progress) -> dict[str, Any]:
    """Split → figures, those with the state reset every ``window`` tokens among them unless it is 0."""
    total = sum(max(len(table.splits[name]) - 1, 0) for name in SPLITS) * (2 if window else 1)
    before = 0
    name = ""

    def advance(done: int) -> None:
        progress(before + done, total, f"evaluating the {name} split")

    measured: dict[str, Any] = {}
    for name in SPLITS:
        ids, split = table.split(name), table.splits[name]
        predicted = len(ids) - 1
        if predicted < 1:
            measured[name] = None
            continue
        figures = metrics.summarize(model.network.loss(ids, advance), predicted, split.characters)
        before += predicted
        measured[name] = {**figures, "unknown_rate": split.unknown / len(split)}
        if window:
            figures = metrics.summarize(model.network.windowed_loss(ids, window, advance), predicted, split.characters)
            before += predicted
            measured[name]["windowed"] = {"window": window, **figures}
    return measured


def _summaries(baselines: Mapping[str, Any], table: IndexTable) -> dict[str, dict[str, Any]]:
    """Baseline → split → figures; beside the 5-gram's, how many training tokens it was counted on."""
    summaries: dict[str, dict[str, Any]] = {
        baseline: {
            name: None if loss is None else metrics.summarize(loss, len(split) - 1, split.characters)
            for name, loss in losses.items()
            for split in [table.splits[name]]
        }
        for baseline, losses in baselines["losses"].items()
    }
    summaries["5gram"]["fitted_on"] = baselines["fitted_on"]
    return summaries


def memorized(written: Iterable[str], training: Iterable[str], length: int = STRETCH) -> dict[str, float | int | None]:
    """How much of what a model wrote stands in its training text, word for word.

    Args:
        written: texts.
        training: a text in pieces, of which one is held at a time.
        length: characters in a row that are looked for, wherever they begin.

    Returns:
        ``length``; ``windows``, so many stretches of that length were written; ``share`` of them that stand in the
        training text, None where there are none.
    """
    windows = [text[at : at + length] for text in written for at in range(len(text) - length + 1)]
    wanted, found = set(windows), set[str]()
    begun = ""
    for piece in training if wanted else ():
        text = begun + piece
        found.update(window for at in range(len(text) - length + 1) if (window := text[at : at + length]) in wanted)
        begun = text[len(text) - length + 1 :] if len(text) >= length else text
    share = sum(window in found for window in windows) / len(windows) if windows else None
    return {"length": length, "windows": len(windows), "share": share}


def _written(model: LanguageModel, table: IndexTable, seed: int) -> Iterator[str]:
    """What the model writes when nothing is given to it."""
    texts, characters = WRITTEN
    split = table.splits["train"]
    tokens = max(round(characters * len(split) / split.characters), 1)
    for number in range(texts):
        yield model.sample("", tokens, temperature=1.0, seed=seed + number)


def _text(model: LanguageModel, table: IndexTable) -> Iterator[str]:
    """The training split as the model would write it, in pieces."""
    ids = table.split("train")
    for start in range(0, len(ids), _DECODED):
        piece = model.vocab.decode(ids[start : start + _DECODED].tolist(), LEVELS[table.level])
        yield piece + LEVELS[table.level].separator


def _history(path: Path) -> dict[str, list[Any]]:
    """Columns of ``history.arrow``, one row per epoch."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        columns: dict[str, list[Any]] = pa.ipc.open_file(source).read_all().to_pydict()
    return columns


# --- what is told


def reference(measured: Mapping[str, Any]) -> tuple[str, float] | None:
    """The baseline to see a learning curve beside, and its perplexity: the strongest on text that was held out."""
    for name, called in (("valid", "validation"), ("test", "test")):
        if figures := measured["baselines"]["5gram"][name]:
            return f"5-gram on the {called} split", figures["perplexity"]
    figures = measured["baselines"]["unigram"]["train"]  # where all is for training, a 5-gram remembers as well
    return ("unigram baseline", figures["perplexity"]) if figures else None


def told_memory(measured: Mapping[str, Any]) -> str:
    """What it knows by heart, in a sentence."""
    memory = measured["memorization"]
    if memory["share"] is None:
        return f"It wrote too little to tell what it knows by heart: no {memory['length']} characters in a row."
    return (
        f"Of the {memory['windows']:,} stretches of {memory['length']} characters in what it wrote from nothing at "
        f"temperature 1, {memory['share']:.2%} stand in the training text word for word."
    )


def told_window(measured: Mapping[str, Any], token: str) -> str:
    """The figures with the state reset, and how they were measured; empty where they were not."""
    rows = {name: row for name in SPLITS if (row := (measured[name] or {}).get("windowed"))}
    if not rows:
        return ""
    window = next(iter(rows.values()))["window"]
    figures = "; ".join(
        f"{name} {row['loss']:.4f} nats, perplexity {_figure(row['perplexity'])}, {row['bits_per_character']:.4g} bits "
        "per character"
        for name, row in rows.items()
    )
    return (
        f"With the state reset every {window:,} {token}s, as models of a fixed context are measured (windows one after "
        f"the other over the whole split, the mean over all {token}s that are predicted): {figures}."
    )


def told_baselines(measured: Mapping[str, Any], token: str) -> str:
    """What the baselines know, in a sentence or two."""
    fitted_on = measured["baselines"]["5gram"]["fitted_on"]
    said = (
        f"The 5-gram knows what follows any four {token}s of the training split, the unigram how often each {token} "
        "stands in it, and uniform nothing."
    )
    if measured["train"] and fitted_on <= measured["train"]["tokens"]:
        said += f" The 5-gram was counted on the last {fitted_on:,} {token}s of it."
    return said


def told_gradients(history: Mapping[str, Sequence[Any]]) -> str:
    """Whether gradients vanished or exploded, in a sentence."""
    means, longest = history["grad_norm_mean"], history["grad_norm_max"]
    most = max(longest)
    return (
        f"The gradient's norm, before it was clipped, was {means[0]:.3g} on average in the first epoch and "
        f"{means[-1]:.3g} in the last; the longest of all was {most:.3g}, in epoch {longest.index(most) + 1:,}."
    )


def told_model(model: Mapping[str, Any], history: Mapping[str, Sequence[Any]]) -> str:
    """The model in one sentence."""
    epochs = len(history["epoch"])
    cell = model["cell"].upper()
    if model["cell"] == "rnn":
        cell = f"{'ReLU' if model['activation'] == 'relu' else model['activation']} {cell}"
    layers = f"{model['layers']} layer{'s' if model['layers'] > 1 else ''}"
    token = "character" if model["level"] == "char" else "word"
    size = model.get("embedding_size")
    embedding = f", an embedding of {size}" if size else ""
    if model.get("tie_weights"):
        embedding += " tied to the output layer"
    kept = model.get("epoch", epochs)
    return (
        f"{cell}, {layers} of {model['hidden_size']} hidden units over {model['vocab_size']:,} {token}s{embedding}, "
        f"trained for {epochs:,} epoch{'s' if epochs > 1 else ''}"
        f"{f'; its weights are those after epoch {kept:,}' if kept != epochs else ''}."
    )


def told_summary(measured: Mapping[str, Any], words: bool) -> str:
    """The figures in one sentence, so that nobody mistakes memory for learning."""
    held_out = next((name for name in ("test", "valid") if measured[name]), None)
    if held_out is None:
        return "No text was held out, so these figures say how well it remembers, not how well it predicts."

    def perplexity(split: str, baseline: str = "") -> float:
        figure: float = (measured["baselines"][baseline] if baseline else measured)[split]["perplexity"]
        return figure

    seen, unseen = perplexity("train"), perplexity(held_out)
    unigram, fivegram = perplexity(held_out, "unigram"), perplexity(held_out, "5gram")
    what = "Perplexity per word" if words else "Perplexity"
    figures = f"{what} {_figure(seen)} on what it trained on, {_figure(unseen)} on unseen text"
    if words:
        figures += f" ({measured[held_out]['bits_per_character']:.3f} bits per character)"
    if unseen < min(unigram, fivegram):
        if unigram < fivegram:
            return f"{figures}, where mere token frequencies reach {_figure(unigram)}."
        return f"{figures}, where a 5-gram reaches {_figure(fivegram)}."
    if unseen < unigram:
        if seen < perplexity("train", "5gram"):
            return f"{figures}: worse there than a 5-gram ({_figure(fivegram)}); it remembers more than it has learnt."
        return f"{figures}: worse there than a 5-gram ({_figure(fivegram)}), better than mere token frequencies."
    if seen > 1000 * perplexity("train", "uniform"):
        return f"{figures}: training has diverged; try a smaller train.learning_rate."
    if seen < perplexity("train", "unigram"):
        return (
            f"{figures}: worse there than mere token frequencies ({_figure(unigram)}); it has learnt its text by heart."
        )
    return (
        f"{figures}: no better than mere token frequencies ({_figure(unigram)}); it needs more epochs, or another rate."
    )


def _draw_curve(path: Path, history: Mapping[str, Sequence[Any]], measured: Mapping[str, Any]) -> None:
    """Perplexity per epoch on a logarithmic axis, with a baseline to beat."""
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
    if beside := reference(measured):
        axes.axhline(beside[1], color="grey", linestyle=":", label=beside[0])
    axes.set(xlabel="epoch", ylabel="perplexity", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})


def _report(
    token: str,
    measured: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    history: Mapping[str, Sequence[Any]],
) -> str:
    lines = [
        "# Language model report",
        "",
        measured["description"],
        "",
        f"**{measured['summary']}**",
        "",
        "## How well it predicts",
        "",
        f"| split | {token}s | perplexity | bits per character | loss (nats) | unknown | "
        f"{' | '.join(BASELINES.values())} |",
        f"|---|{'--:|' * (5 + len(BASELINES))}",
    ]
    for name in SPLITS:
        row = measured[name]
        if row is None:
            lines.append(f"| {name} | too short to measure |{' |' * (4 + len(BASELINES))}")
            continue
        beside = (_figure(measured["baselines"][baseline][name]["perplexity"]) for baseline in BASELINES)
        lines.append(
            f"| {name} | {row['tokens']:,} | {_figure(row['perplexity'])} | {row['bits_per_character']:.4g} | "
            f"{row['loss']:.5g} | {row['unknown_rate']:.2%} | {' | '.join(beside)} |"
        )
    lines += ["", f"The last three columns are perplexities too. {told_baselines(measured, token)}", ""]
    if window := told_window(measured, token):
        lines += [window, ""]
    lines += ["## What it writes", ""]
    for sample in samples:
        how = "greedily" if sample["temperature"] == 0 else f"at temperature {sample['temperature']:g}"
        text = (f"    {line}" for line in sample["text"].split("\n"))
        prefix = " ".join(sample["prefix"].replace("`", "'").split())  # so that it stays in its code span
        lines += [f"`{prefix}`, continued {how}:", "", *text, ""]
    lines += [told_memory(measured), "", "## How it learnt", "", "![perplexity per epoch](curve.png)", ""]
    lines += [told_gradients(history), ""]
    return "\n".join(lines)


def _figure(perplexity: float) -> str:
    return f"{perplexity:,.2f}" if perplexity < 1e6 else f"{perplexity:.1e}"


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
