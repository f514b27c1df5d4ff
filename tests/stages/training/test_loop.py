"""A training that ends after so many tokens, wherever a pass over the split ends: its parts, and that it goes on."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.errors import ConfigError, Interrupted
from data.tables import history
from data.tables.tokens import IndexTable
from stages.lm.model import LanguageModel
from stages.pipeline.settings import load
from stages.training import loop

if TYPE_CHECKING:
    from tests.stages.conftest import Runs, Tokenized

SPLIT = 643
"""Tokens that the tests train on, in minibatches of 36."""


def rows(run: Runs) -> dict[str, list[Any]]:
    """The history of the last training."""
    return history.read(run.folder / f"out{run.count}" / "history.arrow")


def test_it_ends_within_the_first_pass_and_has_a_row_for_each_of_its_parts(run: Runs) -> None:
    calls: list[tuple[float, float, str]] = []
    outputs = run(progress=lambda *call: calls.append(call), max_tokens=400, schedule="cosine", warmup_epochs=1)
    said = json.loads(outputs["config.json"])
    assert abs(said["tokens"] - 400) <= 18, "half a minibatch"
    assert (said["passes"], said["epoch"]) == (round(said["tokens"] / SPLIT, 6), 6)
    found = rows(run)
    assert found["epoch"] == [1, 2, 3, 4, 5, 6]
    assert all(loss > 0 for name in ("train_loss", "valid_loss") for loss in found[name])
    rates = found["learning_rate"]
    assert 0 < rates[-1] < 0.2, "the cosine ends where training does"
    assert rates[1] == max(rates), "the first part is the warm-up"
    assert 5.5 < calls[-1][0] <= calls[-1][1] == 6
    assert calls[-1][2].startswith("part 6 of 6 · perplexity ")


@pytest.mark.parametrize("partition", ["sequential", "random"])
def test_it_ends_in_the_third_pass_and_goes_on_wherever_it_was_stopped(
    run: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, partition: str
) -> None:
    changes: dict[str, Any] = {
        "max_tokens": 1600,
        "partition": partition,
        "output_dropout": 0.2,
        "patience": 5,
        "schedule": "cosine",
    }
    whole = run(**changes)
    assert 2.4 < json.loads(whole["config.json"])["passes"] < 2.6
    monkeypatch.setattr(loop, "_SECONDS_PER_CALL", 0)  # one minibatch after the other
    for count in (4, 9, 5, 15):  # in a part, after one, after a pass
        calls = itertools.count(1)

        def progress(done: float, total: float, figures: str, calls: Any = calls, count: int = count) -> None:
            if next(calls) == count:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted, match=r"stopped in part \d of 6 "):
            run("shared", progress, **changes)
    with caplog.at_level(logging.INFO):
        assert run("shared", **changes) == whole
    assert any(line.startswith("training goes on in part 5 of 6") for line in caplog.messages)


def test_as_many_times_more_parts_and_tokens_go_on_from_fewer(run: Runs) -> None:
    whole = run(epochs=6, max_tokens=1800)
    shorter = run("shared", epochs=2, max_tokens=600)
    assert json.loads(shorter["config.json"])["tokens"] < 700
    calls: list[float] = []
    assert run("shared", lambda done, total, figures: calls.append(done), epochs=6, max_tokens=1800) == whole
    assert calls[0] > 2


def test_a_bound_beyond_all_passes_changes_nothing(run: Runs) -> None:
    assert run(max_tokens=6 * SPLIT) == run()


def test_of_a_long_validation_split_the_beginning_is_measured(run: Runs, tokenized: Tokenized, tmp_path: Path) -> None:
    longer = tokenized(tmp_path / "longer", text="pack my box with five dozen liquor jugs. " * 200, valid=0.4)
    run = run.on(tokens=longer)
    run(epochs=2, max_tokens=1000)
    ids = IndexTable.open(longer / "tokens.arrow").split("valid")
    network = LanguageModel.load(run.folder / "out1").network
    assert rows(run)["valid_loss"][-1] == pytest.approx(network.loss(ids[:2048]), abs=1e-6)
    assert rows(run)["valid_loss"][-1] != pytest.approx(network.loss(ids), abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["train.max_tokens=1000"], "max_tokens=1000 is less than a minibatch for each of its parts: set at least "),
        (["train.max_tokens=-1"], "train.max_tokens: '-1' does not fit"),
        (["train.max_tokens=1e16"], "train.max_tokens: '1e16' does not fit"),
        (["train.max_tokens=many"], "train.max_tokens: 'many' does not fit"),
    ],
)
def test_a_bound_that_cannot_be_is_refused(settings: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(assignments=settings)
    assert sentence in str(caught.value)
