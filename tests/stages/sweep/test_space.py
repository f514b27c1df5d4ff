"""The space of a sweep: grids, draws at random, and mistakes in what is asked for."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from data.errors import ConfigError
from stages.config import RunConfig
from stages.sweep.space import configurations


def values(vary: list[str], draws: int | None = None, seed: int = 0) -> list[tuple[Any, ...]]:
    return [tuple(found.values()) for _, found in configurations(RunConfig(), vary, draws, seed)]


def test_a_grid_is_every_combination_once_and_typed() -> None:
    vary = ["train.hidden_size=8,16,8", "train.cell=rnn, lstm", "train.variational=true"]
    assert values(vary) == [(8, "rnn", True), (8, "lstm", True), (16, "rnn", True), (16, "lstm", True)]
    chosen, _ = configurations(RunConfig(), vary)[-1]
    assert chosen.train.hidden_size == 16
    assert chosen.train.cell == "lstm"
    assert chosen.train.batch_size == RunConfig().train.batch_size


def test_draws_are_the_same_for_a_seed_and_never_twice() -> None:
    vary = ["train.hidden_size=8..64", "train.learning_rate=0.01..10", "train.cell=rnn,gru"]
    drawn = values(vary, 40, seed=3)
    assert drawn == values(vary, 40, seed=3)
    assert drawn != values(vary, 40, seed=4)
    assert len(set(drawn)) == 40
    assert all(isinstance(size, int) and 8 <= size <= 64 for size, *_ in drawn)
    assert all(0.01 <= rate <= 10 and rate == float(f"{rate:.3g}") for _, rate, _ in drawn)
    assert {cell for *_, cell in drawn} == {"rnn", "gru"}


def test_a_wide_range_is_drawn_from_its_logarithm_and_a_narrow_one_evenly() -> None:
    rates = [rate for (rate,) in values(["train.learning_rate=0.001..10"], 400)]
    assert 0.05 < statistics.median(rates) < 0.2, "its geometric mean is 0.1, its mean 5"
    clips = [clip for (clip,) in values(["train.clip_norm=1..5"], 300)]
    assert 2.8 < statistics.mean(clips) < 3.2
    assert {size for (size,) in values(["train.layers=1..4"], 4)} == {1, 2, 3, 4}, "both ends are drawn"


def test_a_space_that_is_smaller_than_what_is_asked_for_is_taken_whole() -> None:
    assert sorted(values(["train.layers=1..3", "train.cell=rnn,gru"], 50)) == [
        (layers, cell) for layers in (1, 2, 3) for cell in ("gru", "rnn")
    ]


MISTAKES = [
    (["hidden_size=8"], None, "write it as STAGE.FIELD=V1,V2"),
    (["train.hidden_size"], None, "write it as STAGE.FIELD=V1,V2"),
    (["train.hiden_size=8,16"], None, "did you mean 'hidden_size'?"),
    (["training.layers=1"], None, "no stage 'training'"),
    (["train.hidden_size=8,many"], None, "'many' does not fit"),
    (["train.hidden_size=8,"], None, "'' does not fit"),
    (["train.hidden_size=8..64"], None, "--trials"),
    (["train.hidden_size=64..8"], 3, "the lower end first"),
    (["train.hidden_size=0..8"], 3, "train.hidden_size: '0' does not fit"),
    (["train.hidden_size=1.5..8"], 3, "train.hidden_size: '1.5' does not fit"),
    (["train.cell=rnn..lstm"], 3, "'rnn..lstm' does not fit"),
    (["train.layers=1", "train.layers=2"], None, "varied twice"),
    (["evaluate.length=8,16"], None, "makes no other model: vary a field of download, tokenize or train"),
    (["train.tie_weights=false,true"], None, "embedding_size"),
]


@pytest.mark.parametrize(("vary", "draws", "said"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_a_mistake_in_the_space_is_one_sentence(vary: list[str], draws: int | None, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        values(vary, draws)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_smaller_than_what_is_drawn_ends_soon() -> None:
    """And not after a hundred draws for each trial that was asked for, which took half an hour."""
    found = configurations(RunConfig(), ["train.cell=rnn,gru,lstm", "train.layers=1..3"], 100_000)
    assert len(found) == 9


def test_a_grid_without_end_is_refused() -> None:
    vary = [f"train.{field}={','.join(map(str, range(1, 100)))}" for field in ("seed", "layers", "epochs", "num_steps")]
    with pytest.raises(ConfigError, match=r"that is 96,059,601 trials, and a grid has at most 100,000: vary less"):
        configurations(RunConfig(), vary)
