"""The words: every sentence about a model and its figures, and how figures, sizes and times are spelt.

Sentences that speak of tokens take ``noun``, what one of them is called: ``character``, ``word`` or ``subword``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from data.corpus.level import CHAR, LEVELS, WORD
from data.tables.tokens import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.corpus.level import Level

    Metrics = Mapping[str, Any]
    """``metrics.json`` of `evaluate`."""
    History = Mapping[str, Sequence[Any]]
    """The columns of ``history.arrow`` of `train`, one value per epoch."""

MOSTLY_UNKNOWN = 0.5
"""A larger share of unknown tokens is warned of."""

# --- the model


def computed(components: Mapping[str, Any], device: str | None) -> str:
    """What computed a stage, such as `bptt on the CPU`; empty where no device did.

    Args:
        components: of the stage's key.
        device: as its manifest has it.
    """
    engine = components.get("sources", {}).get("engine")
    return f"{engine} on the {device.upper()}" if device and engine else f"the {device.upper()}" if device else ""


def passes(model: Mapping[str, Any]) -> str:
    """The share of an epoch that `train.max_tokens` let a model train, ``0.37``; empty where it set no bound."""
    return "" if not (share := model.get("passes")) else f"{share:,.2f}" if share >= 0.1 else f"{share:.2g}"


def description(model: Mapping[str, Any], epochs: int) -> str:
    """The model in one sentence.

    Args:
        model: ``config.json`` of `train`.
        epochs: how many it was trained for, or parts.
    """
    cell, networks = model["cell"].upper(), model.get("networks", 1)
    if model["cell"] == "rnn":
        cell = f"{'ReLU' if model['activation'] == 'relu' else model['activation']} {cell}"
    layers = f"{model['layers']} layer{'s' if model['layers'] > 1 else ''}"
    size = model.get("embedding_size")
    embedding = f", an embedding of {size}" if size else ""
    if model.get("tie_weights"):
        embedding += " tied to the output layer"
    if networks > 1:
        cell = f"{networks} networks from different seeds, each {'an' if cell == 'LSTM' else 'a'} {cell}"
    if mixture := model.get("mixture"):
        embedding += f", beside an n-gram of order {mixture['order']}"
    kept, noun, share = model.get("epoch", epochs), LEVELS[model["level"]].noun, passes(model)
    length, part = f"for {epochs:,} epoch{'s' if epochs > 1 else ''}", f"epoch {kept:,}"
    if share:
        length, part = f"on {model['tokens']:,} {noun}s, {share} epochs", f"part {kept:,} of {epochs:,}"
    return (
        f"{cell}, {layers} of {model['hidden_size']} hidden units over {model['vocab_size']:,} {noun}s{embedding}, "
        f"trained {length}{f'; its weights are those after {part}' if kept != epochs else ''}."
    )


def dropout(train: Mapping[str, Any]) -> str:
    """What was dropped in training, ``0.2 (inputs), 0.4 (outputs)``; empty where nothing was.

    Args:
        train: the configuration of `train`.
    """
    kinds = [("input", "inputs"), ("output", "outputs"), ("weight", "recurrent weights")]
    if train.get("layers", 1) > 1:
        kinds.insert(1, ("hidden", "between layers"))
    return ", ".join(f"{rate:g} ({what})" for kind, what in kinds if (rate := train.get(f"{kind}_dropout")))


def gradients(history: History, unit: str = "epoch") -> str:
    """Whether gradients vanished or exploded."""
    means, largest = history["grad_norm_mean"], history["grad_norm_max"]
    most = max(largest)
    return (
        f"The gradient's norm, before it was clipped, was {means[0]:.3g} on average in the first {unit} and "
        f"{means[-1]:.3g} in the last; the longest of all was {most:.3g}, in {unit} {largest.index(most) + 1:,}."
    )


# --- its figures


def perplexity(level: Level) -> str:
    """What the perplexity is called: per word it is another one than per character, and is said to be."""
    return "perplexity" if level is CHAR else f"perplexity per {level.noun}"


def summary(metrics: Metrics, level: Level) -> str:
    """The figures in one sentence, so that nobody mistakes memory for learning."""
    held_out = next((name for name in ("test", "valid") if metrics[name]), None)
    if held_out is None:
        return "No text was held out, so these figures say how well it remembers, not how well it predicts."

    def of(split: str, baseline: str = "") -> float:
        value: float = (metrics["baselines"][baseline] if baseline else metrics)[split]["perplexity"]
        return value

    seen, unseen = of("train"), of(held_out)
    unigram, fivegram = of(held_out, "unigram"), of(held_out, "5gram")
    figures = f"{perplexity(level).capitalize()} {figure(seen)} on what it trained on, {figure(unseen)} on unseen text"
    unknown = metrics[held_out]["unknown_rate"]
    notes = [f"{metrics[held_out]['bits_per_character']:.3f} bits per character"]
    notes += [f"{unknown:.2%} of its {level.noun}s unknown"] if unknown else []
    figures += f" ({', '.join(notes)})" if level is not CHAR or unknown else ""
    if unseen < min(unigram, fivegram):
        if unigram < fivegram:
            return f"{figures}, where mere token frequencies reach {figure(unigram)}."
        return f"{figures}, where a 5-gram reaches {figure(fivegram)}."
    if unseen < unigram:
        if seen < of("train", "5gram"):
            return f"{figures}: worse there than a 5-gram ({figure(fivegram)}); it remembers more than it has learnt."
        return f"{figures}: worse there than a 5-gram ({figure(fivegram)}), better than mere token frequencies."
    if seen > 1000 * of("train", "uniform"):
        return f"{figures}: training has diverged; try a smaller train.learning_rate."
    if seen < of("train", "unigram"):
        return (
            f"{figures}: worse there than mere token frequencies ({figure(unigram)}); it has learnt its text by heart."
        )
    return (
        f"{figures}: no better than mere token frequencies ({figure(unigram)}); it needs more epochs, or another rate."
    )


def unknown(metrics: Metrics, noun: str) -> str:
    """What is made of unknown tokens, and a warning where most are; empty where there are none."""
    rates = {name: row["unknown_rate"] for name in SPLITS if (row := metrics[name]) and row["unknown_rate"]}
    if not rates:
        return ""
    said = (
        f"Bits per character hold what spelling out the unknown {noun}s takes, the baselines' too; perplexity and loss "
        "hold no more than how likely any unknown one was."
    )
    worst = max(rates, key=rates.__getitem__)
    if rates[worst] <= MOSTLY_UNKNOWN:
        return said
    remedy = "Where the text has few spaces, set tokenize.level=char; else lower" if noun == WORD.noun else "Lower"
    return (
        f"{rates[worst]:.0%} of the {worst} split's {noun}s are unknown, so that perplexity says next to nothing. "
        f"{remedy} tokenize.min_freq. {said}"
    )


def memory(metrics: Metrics) -> str:
    """What the model knows by heart."""
    found = metrics["memorization"]
    if found["share"] is None:
        return f"It wrote too little to tell what it knows by heart: no {found['length']} characters in a row."
    return (
        f"Of the {found['windows']:,} stretches of {found['length']} characters in what it wrote from nothing at "
        f"temperature 1, {found['share']:.2%} stand in the training text word for word."
    )


def windowed(metrics: Metrics, noun: str) -> str:
    """The figures with the state reset, and how they were measured; empty where they were not."""
    rows = {name: row for name in SPLITS if (row := (metrics[name] or {}).get("windowed"))}
    if not rows:
        return ""
    window = next(iter(rows.values()))["window"]
    figures = "; ".join(
        f"{name} {row['loss']:.4f} nats, perplexity {figure(row['perplexity'])}, {row['bits_per_character']:.4g} bits "
        "per character"
        for name, row in rows.items()
    )
    return (
        f"With the state reset every {window:,} {noun}s, as models of a fixed context are measured (windows one after "
        f"the other over the whole split, the mean over all {noun}s that are predicted): {figures}."
    )


def part(metrics: Metrics, noun: str) -> str:
    """What the training split was measured on, where that is not all of it; else empty."""
    train = metrics["train"] or {}
    if "of" not in train:
        return ""
    return f"The training split is measured on its last {train['tokens']:,} {noun}s, of {train['of']:,}."


def reference(metrics: Metrics) -> tuple[str, float] | None:
    """The baseline to see a learning curve beside, and its perplexity: the strongest on text that was held out."""
    for name, called in (("valid", "validation"), ("test", "test")):
        if figures := metrics["baselines"]["5gram"][name]:
            return f"5-gram on the {called} split", figures["perplexity"]
    figures = metrics["baselines"]["unigram"]["train"]  # where all is for training, a 5-gram remembers as well
    return ("unigram baseline", figures["perplexity"]) if figures else None


# --- the verdict


def decision(verdict: Mapping[str, Any]) -> str:
    """What became of a candidate for promotion, in two words.

    Args:
        verdict: ``stages.promotion.judge.Verdict`` as JSON.
    """
    return "✓ Promoted" if verdict["promoted"] else "✕ Not promoted"


def decided(decision: str, reason: str, verdict: Mapping[str, Any]) -> str:
    """A decision with its figures first, for lists that cut what is long: ``promoted: +0.0213 (+0.0117 to +0.0309): …``

    Args:
        decision: in a word.
        reason: in a sentence.
        verdict: what has ``tests``, as `comparisons` takes it.
    """
    gains = [
        f"{signed(one['gain'])} ({signed(one['lower'])} to {signed(one['upper'])}): "
        for one in comparisons(verdict)
        if one["text"] == "today"
    ]
    return f"{decision}: {''.join(gains)}{reason}"


TEXTS = {"today": "today's test text", "champion": "the champion's test text", "reference": "the reference"}
"""What both models were compared on, `Comparison.text` → words."""


def comparisons(verdict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What both models were compared on: ``stages.promotion.judge.Comparison`` as JSON, each with a gain.

    A verdict that was kept when there was only today's text has the same figures under other names.
    """
    tests = verdict.get("tests")
    if tests is None:
        before = {"bits": "candidate_bits", "bits_champion": "champion_bits", "gain": "difference"}
        names = {**before, "lower": "low", "upper": "high", "characters": "characters", "left_out": "left_out"}
        figures = {name: verdict.get(old) for name, old in names.items()}
        tests = [{"text": "today", "passed": verdict["promoted"], "confidence": 0.99, **figures}]
    return [test for test in tests if test["gain"] is not None]


def left_out(comparison: Mapping[str, Any]) -> str:
    """How much text was not compared, to stand after how much was; empty where all was."""
    return f", {comparison['left_out']:,} left out as seen in training" if comparison["left_out"] else ""


# --- how values are spelt


def figure(value: float | None, digits: int = 2) -> str:
    """A measured number: ``4.63``, ``1,234.56``, from a million on ``1.2e+06``; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.1e}"


def signed(bits: float) -> str:
    """A difference: ``+0.0213``, ``−0.0040``."""
    return f"{bits:+.4f}".replace("-", "−")


def size(length: float) -> str:
    """A number of bytes: ``0 B``, ``45.7 kB``, ``1.2 GB``."""
    if length < 1000:
        return f"{length:.0f} B"
    power = min(math.floor(math.log10(length) / 3), 3)
    return f"{length / 1000**power:,.1f} {('kB', 'MB', 'GB')[power - 1]}"


def duration(seconds: float) -> str:
    """``17.3 s``, ``1 min 05 s``, ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02} min"


def sentence(text: str) -> str:
    """A phrase with a capital letter before it and a full stop after it."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
