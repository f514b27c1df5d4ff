"""What stands beside a model's figures: its parts where it is a mixture, and the baselines; what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data.tables.tokens import SPLITS
from stages.report.words import figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stages.report.words import Metrics

    Rows = Mapping[str, Any]

BASELINES = {"5gram": "5-gram", "unigram": "unigram", "uniform": "uniform"}
"""Baseline in ``metrics.json`` → its name for people, the one that knows most first."""


def beside(model: Mapping[str, Any], metrics: Metrics) -> dict[str, Rows]:
    """Name for people → split → figures, None where it was too short.

    Args:
        model: ``config.json`` of `train`.
        metrics: ``metrics.json`` of `evaluate`.
    """
    parts: dict[str, str] = {}
    if (mixed := model.get("mixture")) and (metrics["train"] or {}).get("parts"):
        networks = "its networks" if model.get("networks", 1) > 1 else "its network"
        parts = {networks: "network", f"its {mixed['order']}-gram": "ngram"}
    return {
        **{
            called: {name: row and row["parts"][part] for name in SPLITS for row in [metrics[name]]}
            for called, part in parts.items()
        },
        **{called: metrics["baselines"][baseline] for baseline, called in BASELINES.items()},
    }


def baselines(metrics: Metrics, noun: str) -> str:
    """What the baselines know."""
    fitted_on = metrics["baselines"]["5gram"]["fitted_on"]
    known = (
        f"The 5-gram knows what follows any four {noun}s of the training split, the unigram how often each {noun} "
        "stands in it, and uniform nothing."
    )
    if metrics["train"] and fitted_on <= metrics["train"].get("of", metrics["train"]["tokens"]):
        known += f" The 5-gram was counted on the last {fitted_on:,} {noun}s of it."
    return known


def mixture(model: Mapping[str, Any], metrics: Metrics, noun: str) -> str:
    """How a mixture is mixed, and what its n-gram counts; empty for a network alone."""
    if not (mixed := model.get("mixture")):
        return ""
    lowest, highest = f"{min(mixed['shares']):.0%}", f"{max(mixed['shares']):.0%}"
    shares = (
        lowest if lowest == highest else f"{lowest} to {highest}, by the length of the context that the n-gram knows"
    )
    chosen = f"chosen on {mixed['chosen_on']:,} {noun}s of the validation split" if mixed["chosen_on"] else "not chosen"
    networks = model.get("networks", 1)
    parts, count = (
        (f"{networks} networks", "The networks count") if networks > 1 else ("a network", "The network counts")
    )
    said = (
        f"It mixes {parts} with an n-gram of order {mixed['order']} (modified Kneser-Ney). {count} for {shares}; "
        f"{chosen}."
    )
    if (test := metrics["test"]) and (before := (test.get("parts") or {}).get("before")):
        said += (
            " Then the n-gram counted the validation split as well, which was measured before that: perplexity "
            f"{figure(test['perplexity'])} on the test split, {figure(before['perplexity'])} before."
        )
    return said
