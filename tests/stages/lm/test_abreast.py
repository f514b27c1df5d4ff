"""Many texts at once: each is, character by character, what it is alone, also where rounding could tell."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_limits

from data.errors import ConfigError
from data.tables.vocab import Vocab
from stages.lm import abreast
from stages.lm.layers import State
from stages.lm.model import LanguageModel
from stages.lm.network import Network
from stages.lm.parameters import Architecture

Floats = npt.NDArray[np.float32]
Columns = Callable[[list[State]], Floats]
LETTERS = Vocab(["<unk>", *" abcdefgh"], [0] * 10)
WORDS = Vocab(["<unk>", "time", "machine", "the", "a", "of", "sea", "seas", "over", "he"], [0] * 10)
SEEDS = range(3, 3 + abreast.COLUMNS + 5)
"""Of more than one block."""


def model(scale: float = 0.3, *, hidden: int = 16, word: bool = False, **changes: Any) -> LanguageModel:
    settings = {"cell": "gru", "activation": "tanh", "hidden_size": hidden, "layers": 1, "vocab_size": 10, **changes}
    architecture, rng = Architecture(**settings), np.random.default_rng(5)
    weights = {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in architecture.shapes().items()}
    return LanguageModel(architecture, weights, WORDS if word else LETTERS, "word" if word else "char", "lower")


def alone(
    ours: LanguageModel, prefix: str, length: int, temperature: float, seeds: range = SEEDS, **options: Any
) -> list[str]:
    return [ours.sample(prefix, length, temperature, seed, **options) for seed in seeds]


def together(
    ours: LanguageModel, prefix: str, length: int, temperature: float, seeds: range = SEEDS, **options: Any
) -> list[str]:
    return [*ours.samples(prefix, length, temperature, seeds, **options)]


def noisy(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """Let the logits of many texts differ from those of one by more than rounding makes here."""
    readout, rng = Network.readout_columns, np.random.default_rng(0)

    def changed(self: Network, first: int = 0) -> Columns:
        logits = readout(self, first)
        return lambda states: (found := logits(states)) + rng.uniform(-noise, noise, found.shape).astype(np.float32)

    monkeypatch.setattr(Network, "readout_columns", changed)


MODELS: list[dict[str, Any]] = [
    {"cell": "rnn", "activation": "relu", "scale": 0.15},
    {"cell": "rnn", "layers": 2, "word": True},
    {"cell": "gru", "layers": 2, "embedding_size": 6},
    {"cell": "gru", "word": True},
    {"cell": "lstm"},
    {"cell": "lstm", "layers": 3, "embedding_size": 16, "tie_weights": True},
]


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_each_text_is_what_it_is_alone(changes: dict[str, Any]) -> None:
    ours = model(**changes)
    for prefix, options in (
        ("", {}),
        ("The sea", {"top_k": 3}),
        ("a", {"top_p": 0.7}),
        ("he", {"top_k": 8, "top_p": 0.9, "stop": ["b c", "d", "sea o"]}),
    ):
        for temperature in (0.6, 1.0):
            texts = together(ours, prefix, 40, temperature, **options)
            assert texts == alone(ours, prefix, 40, temperature, **options)
            assert len({*texts}) > len(SEEDS) / 2
    assert (
        together(ours, "a", 40, 1.0, seeds=range(70, 65, -1)) == together(ours, "a", 40, 1.0, seeds=range(66, 71))[::-1]
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_on_any_number_of_cores(threads: int) -> None:
    ours = model(0.06, cell="lstm", hidden=256)
    with threadpool_limits(threads, "blas"):
        assert together(ours, "a", 40, 1.0) == alone(ours, "a", 40, 1.0)


@pytest.mark.parametrize("options", [{}, {"top_k": 4}, {"top_p": 0.8}], ids=str)
def test_what_lies_within_rounding_of_a_border_is_computed_again_alone(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = model(cell="lstm")
    expected = alone(ours, "a", 80, 1.0, **options)
    noisy(monkeypatch, 5e-4)
    monkeypatch.setattr(abreast, "DRIFTS", (1e-3,))
    assert together(ours, "a", 80, 1.0, **options) == expected


@pytest.mark.parametrize("top", [(0, 1.0), (4, 1.0), (0, 0.8)], ids=str)
def test_who_is_not_in_doubt_is_drawn_whatever_the_logits_are_off(top: tuple[int, float]) -> None:
    rng, rows, tokens, off = np.random.default_rng(0), 4_000, 8, 0.01
    logits = (3 * rng.standard_normal((rows, tokens))).astype(np.float32)
    uniform, allowed = rng.random(rows), np.full(rows, 2 * off)  # more than half of what is allowed for is seen
    taken, doubtful = abreast.draw(logits, uniform, 0.7, *top, allowed)
    changed = np.zeros(rows, bool)
    for border in range(1, tokens):  # what moves a border most: all below it are off one way, all above it the other
        for sign in (off, -off):
            moved = logits + np.where(np.arange(tokens) < border, sign, -sign).astype(np.float32)
            changed |= abreast.draw(moved, uniform, 0.7, *top, allowed)[0] != taken
    assert changed.any()
    assert not (changed & ~doubtful).any()
    if top == (0, 1.0):
        assert doubtful.sum() < 3 * changed.sum()


def test_where_more_drift_is_seen_than_allowed_for_more_is_allowed_for_or_all_are_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = model(cell="lstm")
    expected = alone(ours, "a", 50, 1.0)
    for noise in (1e-4, 0.3):
        with monkeypatch.context() as patch:
            noisy(patch, noise)
            assert together(ours, "a", 50, 1.0) == expected


@pytest.mark.parametrize("changes", [{"cell": "rnn", "scale": 2.0}, {"cell": "rnn", "activation": "relu"}], ids=str)
def test_a_network_that_makes_much_of_little_writes_each_text_alone(changes: dict[str, Any]) -> None:
    ours = model(**{"scale": 0.6, "hidden": 64, **changes})
    assert together(ours, "a", 120, 1.0) == alone(ours, "a", 120, 1.0)


def test_what_has_ended_is_not_written_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = model()
    steps: list[int] = []
    advance = Network.advance_columns

    def counted(self: Network, ids: npt.NDArray[Any], states: list[State]) -> None:
        steps.append(len(ids))
        assert all(array.flags.c_contiguous for state in states for array in state)  # else a step takes longer
        advance(self, ids, states)

    monkeypatch.setattr(Network, "advance_columns", counted)
    seeds = range(abreast.COLUMNS)
    texts = together(ours, "", 2000, 1.0, seeds=seeds, stop=["a", "cc"])
    assert texts == alone(ours, "", 2000, 1.0, seeds=seeds, stop=["a", "cc"])
    assert sum(steps) < 100 * len(seeds)


def test_few_texts_or_the_likeliest_one_or_none_at_all() -> None:
    ours = model()
    for count, length, temperature in itertools.product((0, 1, 2, 9), (0, 20), (0.0, 1.0)):
        arguments = "a", length, temperature
        assert together(ours, *arguments, seeds=range(count)) == alone(ours, *arguments, seeds=range(count))


@pytest.mark.parametrize("options", [{"top_p": 2}, {"top_k": -1}, {"stop": ""}], ids=str)
def test_a_value_that_does_not_fit_is_refused_before_anything_is_drawn(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        model().samples("a", 5, 1.0, range(9), **options)
