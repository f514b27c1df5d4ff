"""The train stage: what it writes, and that stopping it changes nothing. Any engine would do here, one has none.

What holds for every engine, killed processes among it, stands in ``training/test_conformance.py``.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load as load_safetensors

from data.errors import ConfigError, CorpusError, Interrupted, TrainingError
from data.progress import Progress
from data.tables.tokens import IndexTable
from stages.lm.model import LanguageModel
from stages.training import checkpoint, minibatches
from stages.training.checkpoint import TrainState
from stages.training.engine import EngineState, Figures, Recipe, Step
from stages.training.minibatches import Minibatch

if TYPE_CHECKING:
    from tests.stages.conftest import Runs, Tokenized

ROOT = Path(__file__).parents[2]
TEXT = "the quick brown fox jumps over the lazy dog and runs away from it."
FILES = {"model.safetensors", "config.json", "vocab.arrow", "history.arrow"}


class Counter:
    """An engine of another kind: it knows how often each token comes, and nothing of what is before it."""

    def __init__(self, recipe: Recipe) -> None:
        weights = recipe.architecture.initial("normal", 0)
        self.held = EngineState.initial(recipe, weights)

    def run(self, steps: Iterable[Step]) -> list[Figures]:
        return [self.step(step) for step in steps]

    def step(self, step: Step) -> Figures:
        counts = self.held.parameters["dense.bias"]
        chance = np.exp(counts) / np.exp(counts).sum()
        gradient = chance - np.bincount(step.targets.reshape(-1), minlength=len(chance)) / step.targets.size
        loss = float(-np.log(chance[step.targets]).mean())
        after = (counts - step.learning_rate * gradient).astype(np.float32)
        before = self.held.averages["dense.bias"]
        average = before + np.float32(step.averaging) * (after - before)
        hidden = 0 * self.held.recurrent["hidden"] if step.reset_state else self.held.recurrent["hidden"]
        self.held = replace(
            self.held,
            parameters={**self.held.parameters, "dense.bias": after},
            averages={**self.held.averages, "dense.bias": average},
            recurrent={"hidden": hidden + np.float32(step.inputs.mean())},
        )
        return Figures(loss, float(np.sqrt((gradient**2).sum())))

    def loss(self, minibatches: Iterable[Minibatch]) -> float:
        counts = self.held.averages["dense.bias"]
        losses = np.log(np.exp(counts).sum()) - counts
        return float(np.mean(np.concatenate([losses[targets].reshape(-1) for _, targets in minibatches])))

    def state(self) -> EngineState:
        return self.held

    def restore(self, state: EngineState) -> None:
        self.held = state


@pytest.fixture
def counted(run: Runs) -> Runs:
    """Trains on that engine, in no time."""
    return run.on(Counter)


def history(outputs: Mapping[str, bytes]) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = pa.ipc.open_file(outputs["history.arrow"]).read_all().to_pydict()
    return rows


def stop_at(count: int, signum: int = signal.SIGINT) -> Progress:
    """Progress that asks to stop when it is called for the ``count``-th time."""
    calls = itertools.count(1)

    def progress(done: float, total: float, figures: str) -> None:
        if next(calls) == count:
            os.kill(os.getpid(), signum)

    return progress


def test_what_is_written(run: Runs, tokens: Path) -> None:
    outputs = run(cell="gru", layers=2)
    assert set(outputs) == FILES
    assert outputs["vocab.arrow"] == (tokens / "vocab.arrow").read_bytes()
    assert json.loads(outputs["config.json"]) == {
        "format": 2,
        "cell": "gru",
        "activation": "tanh",
        "hidden_size": 12,
        "layers": 2,
        "vocab_size": 29,
        "embedding_size": 0,
        "tie_weights": False,
        "level": "char",
        "normalizer": "lower",
        "epoch": 6,
    }
    assert run.timing["tokens_per_second"] > 0
    assert LanguageModel.load(run.folder / "out1").sample("The q", 10).startswith("the q")


def test_history_has_a_row_per_epoch(run: Runs) -> None:
    rows = history(run())
    assert list(rows) == [
        "epoch",
        "train_loss",
        "train_perplexity",
        "valid_loss",
        "valid_perplexity",
        "learning_rate",
        "grad_norm_mean",
        "grad_norm_max",
    ]
    assert rows["epoch"] == [1, 2, 3, 4, 5, 6]
    assert rows["learning_rate"] == [1.0] * 6
    assert rows["train_loss"][0] == pytest.approx(math.log(29), abs=0.2)
    assert rows["train_loss"][-1] < rows["train_loss"][0]
    for kind in ("train", "valid"):
        np.testing.assert_allclose(rows[f"{kind}_perplexity"], np.exp(rows[f"{kind}_loss"]))
    assert all(0 < mean <= most for mean, most in zip(rows["grad_norm_mean"], rows["grad_norm_max"], strict=True))


@pytest.mark.parametrize("changes", [{"batch_size": 1, "num_steps": 40, "cell": "lstm"}, {"batch_size": 32}])
def test_the_validation_loss_is_that_of_one_pass_however_it_was_trained(
    run: Runs, tokenized: Tokenized, tmp_path: Path, changes: dict[str, Any]
) -> None:
    longer = tokenized(tmp_path / "longer", text=TEXT * 60, valid=0.4)
    rows = history(run.on(tokens=longer)(epochs=2, **changes))
    ids = IndexTable.open(longer / "tokens.arrow").split("valid")
    assert len(next(minibatches.whole(ids))[0]) > 1, "it is long enough to be cut"
    model = LanguageModel.load(run.folder / "out1")
    assert rows["valid_loss"][-1] == pytest.approx(model.network.loss(ids), abs=1e-5)


@pytest.mark.parametrize(("tokens", "measured"), [(1, False), (2, True)])
def test_two_tokens_are_a_validation_split_and_with_fewer_its_figures_are_null(
    run: Runs, tokenized: Tokenized, tmp_path: Path, tokens: int, measured: bool
) -> None:
    short = tokenized(tmp_path / "short", text=TEXT * 6, valid=tokens / (len(TEXT) * 6))
    rows = history(run.on(tokens=short)(epochs=2))
    for name in ("valid_loss", "valid_perplexity"):
        assert [figure is not None for figure in rows[name]] == [measured] * 2


def test_a_split_too_short_for_a_minibatch_is_refused(run: Runs) -> None:
    with pytest.raises(CorpusError, match=r"train\.batch_size"):
        run(batch_size=64, num_steps=35, partition="random")


def test_progress_gives_epoch_perplexity_and_speed(counted: Runs) -> None:
    calls: list[tuple[float, float, str]] = []
    counted(progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert calls[-1][:2] == (6, 6)
    assert calls[-1][2].startswith("epoch 6 of 6 · perplexity ")
    assert calls[-1][2].endswith(" tokens/s")


def test_patience_keeps_the_best_weights(run: Runs, caplog: pytest.LogCaptureFixture) -> None:
    # A rate at which it soon learns the training split by heart.
    changes: dict[str, Any] = {
        "cell": "lstm",
        "hidden_size": 32,
        "optimizer": "adam",
        "learning_rate": 0.03,
        "averaging": 0,
    }
    with caplog.at_level(logging.INFO, "stages"):
        stopped = run(epochs=200, patience=3, **changes)
    losses = history(stopped)["valid_loss"]
    best = losses.index(min(losses)) + 1
    assert len(losses) == best + 3 < 200
    assert json.loads(stopped["config.json"])["epoch"] == best
    assert f"since epoch {best}: its weights are kept" in caplog.text
    assert stopped["model.safetensors"] == run(epochs=best, **changes)["model.safetensors"]
    assert stopped["model.safetensors"] != run(epochs=best + 3, **changes)["model.safetensors"]


def test_patience_that_has_ended_stays_ended(counted: Runs) -> None:
    changes: dict[str, Any] = {"learning_rate": 20, "averaging": 0, "patience": 2}
    stopped = counted("shared", epochs=100, **changes)
    assert len(history(stopped)["epoch"]) < 100
    calls: list[tuple[float, float, str]] = []
    assert counted("shared", lambda *call: calls.append(call), epochs=200, **changes) == stopped
    assert calls == []


@pytest.mark.parametrize("changes", [{"patience": 2}, {"schedule": "plateau", "decay_epochs": 2}])
def test_what_asks_for_a_validation_loss_is_refused_without_one(
    run: Runs, tokenized: Tokenized, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = run.on(tokens=tokenized(tmp_path / "short", valid=0))
    with pytest.raises(ConfigError, match=r"needs a validation loss.*tokenize\.valid_share"):
        run(**changes)


def test_the_history_shows_the_learning_rate(counted: Runs) -> None:
    rows = history(counted(schedule="step", decay_epochs=2, decay_factor=0.1))
    assert rows["learning_rate"] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_averaging_of_0_publishes_the_last_weights(run: Runs) -> None:
    last = run("shared", averaging=0)["model.safetensors"]
    found = checkpoint.latest(run.folder / "shared", 6)
    assert found
    weights = found[1].parameters
    loaded = load_safetensors(last)
    assert all(np.array_equal(weights[name], loaded[name]) for name in weights)
    assert last != run()["model.safetensors"]


def test_a_plateau_lowers_the_rate(counted: Runs) -> None:
    rows = history(counted(epochs=60, schedule="plateau", decay_epochs=2, decay_factor=0.5, averaging=0))
    best, waited, rate = math.inf, 0, 1.0
    for loss, found in zip(rows["valid_loss"], rows["learning_rate"], strict=True):
        assert found == rate
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == 2:
            waited, rate = 0, rate / 2
    assert rate < 1


def test_more_epochs_go_on_from_fewer(counted: Runs) -> None:
    whole, shorter = counted(), counted(epochs=2)
    assert counted("shared", epochs=2) == shorter
    calls: list[tuple[float, float, str]] = []
    assert counted("shared", lambda *call: calls.append(call)) == whole
    assert calls[0][0] > 2
    assert calls[-1][:2] == (6, 6)
    again: list[tuple[float, float, str]] = []
    assert counted("shared", lambda *call: again.append(call)) == whole
    assert again == []
    assert counted.timing == {}
    assert counted("shared", epochs=2) == shorter


def test_a_damaged_checkpoint_costs_a_warning(counted: Runs, caplog: pytest.LogCaptureFixture) -> None:
    whole = counted("shared")
    path = sorted((counted.folder / "shared").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        assert counted("shared") == whole
    assert len(caplog.records) == 1


ENDING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.mark.parametrize("signum", ENDING)
def test_a_signal_gives_its_exit_code_and_the_handlers_back(counted: Runs, signum: int) -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with pytest.raises(Interrupted, match=r"in epoch \d of 6") as caught:
        counted(progress=stop_at(4, signum))
    assert caught.value.exit_code == 128 + signum
    assert [signal.getsignal(number) for number in ENDING] == before


def test_a_connection_may_drop_where_that_is_ignored(counted: Runs) -> None:
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert counted(progress=stop_at(4, signal.SIGHUP)) == counted()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_in_the_last_minibatch_is_not_swallowed(counted: Runs) -> None:
    calls: list[tuple[float, float, str]] = []
    whole = counted(progress=lambda *call: calls.append(call))

    def progress(done: float, total: float, figures: str) -> None:
        if done == total:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="in epoch 6 of 6"):
        counted("shared", progress)
    assert counted("shared") == whole


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30, "clip_norm": 0}, {"learning_rate": 1e30}])
def test_a_loss_that_is_not_finite_stops_with_advice(run: Runs, changes: dict[str, Any]) -> None:
    with pytest.raises(
        TrainingError, match=r"no longer finite in epoch 1: try a smaller train\.learning_rate"
    ) as caught:
        run("shared", **changes)
    assert "train.clip_norm" in str(caught.value)
    assert checkpoint.latest(run.folder / "shared", 9) is None


def test_weights_that_are_not_finite_are_never_saved(run: Runs, tokenized: Tokenized, tmp_path: Path) -> None:
    # One minibatch per epoch: its loss is that of the weights before the step, and finite.
    run = run.on(tokens=tokenized(tmp_path / "short", TEXT[:60], valid=0))
    with pytest.raises(TrainingError, match="a weight is no longer finite in epoch"):
        run("shared", batch_size=4, num_steps=10, partition="random", learning_rate=1e30, weight_decay=1e12, epochs=1)
    assert checkpoint.latest(run.folder / "shared", 9) is None


def test_a_checkpoint_of_another_model_is_not_gone_on_from(run: Runs, caplog: pytest.LogCaptureFixture) -> None:
    whole = run("shared", epochs=2)
    found = checkpoint.latest(run.folder / "shared", 2)
    assert found
    state, engine = found
    lacking = replace(engine, averages=dict([*engine.averages.items()][1:]))
    history = {name: values[:1] for name, values in state.history.items()}
    checkpoint.write(run.folder / "shared", replace(state, epoch=1, step=1, history=history, best={}), lacking)
    for path in run.folder.joinpath("shared").glob("000002-*"):
        path.unlink()
    assert run("shared", epochs=2) == whole
    assert caplog.messages.count(
        f"the checkpoints in {run.folder / 'shared'} are another model's: training begins anew"
    )


def test_the_loop_its_checkpoints_and_the_history_know_no_engine(counted: Runs, tokens: Path) -> None:
    whole = counted(epochs=20, partition="random", patience=4)
    assert set(whole) == FILES
    rows = history(whole)
    ids = IndexTable.open(tokens / "tokens.arrow").split("train")
    chance = np.bincount(ids) / len(ids)
    entropy = -(chance[chance > 0] * np.log(chance[chance > 0])).sum()
    assert rows["train_loss"][-1] == pytest.approx(entropy, abs=0.05)
    for count in (1, 3, 2):
        with pytest.raises(Interrupted):
            counted("shared", stop_at(count), epochs=20, partition="random", patience=4)
    assert counted("shared", epochs=20, partition="random", patience=4) == whole


def test_train_loads_no_engine_and_nothing_that_chooses_one() -> None:
    code = (
        "import sys, stages.train; "
        "print({'gluon', 'engines', 'device', 'cores'} & {name.rpartition('.')[2] for name in sys.modules "
        "if name.startswith('stages.')}, 'mxnet' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "set() False\n"


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.config import TrainConfig
from stages.train import train
from stages.training import bptt, checkpoint, loop
from stages.training.device import Device

calls = 0

def progress(done, total, figures):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

loop._SECONDS_PER_CALL = 0  # one minibatch after the other
checkpoint.FIRST, checkpoint.FRACTION = 0, 1e9  # whatever they cost
config, (tokens, out, checkpoints) = TrainConfig.model_validate_json(sys.argv[1]), map(Path, sys.argv[3:])
engine = lambda recipe: bptt.BpttEngine(recipe, Device("cpu"))
train(config, tokens=tokens, out=out, progress=progress, checkpoints=checkpoints, engine=engine)
"""


def test_what_is_killed_within_the_first_epoch_goes_on_from_there_bit_for_bit(run: Runs) -> None:
    changes: dict[str, Any] = {"cell": "lstm", "output_dropout": 0.2, "epochs": 2}
    whole = run(**changes)
    (run.folder / "out").mkdir()
    config = json.dumps({**run.small, **changes})
    folders = (run.tokens, run.folder / "out", run.folder / "shared")
    for count in (5, 4):
        killed = subprocess.run([sys.executable, "-c", KILLED, config, str(count), *folders], cwd=ROOT)
        assert killed.returncode == -signal.SIGKILL
    found = checkpoint.latest(run.folder / "shared", 2)
    assert found
    assert (found[0].epoch, found[0].step) == (0, 7), "a checkpoint after each but the last"
    assert run("shared", **changes) == whole


def test_checkpoints_cost_a_fiftieth_of_the_time_and_no_more(counted: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written, write = 0.0, [], checkpoint.write

    def slow_write(folder: Path, train: TrainState, engine: EngineState) -> None:
        nonlocal now
        now += 1
        written.append(train.epoch)
        write(folder, train, engine)

    def progress(done: float, total: float, figures: str) -> None:
        nonlocal now
        now += done == int(done)  # an epoch takes as long

    monkeypatch.setattr(checkpoint, "write", slow_write)
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now))
    counted(epochs=200, progress=progress)
    assert written == [1, 51, 101, 151, 200]


# --- several networks


def test_several_networks_are_those_of_as_many_seeds_and_share_their_checkpoints(run: Runs) -> None:
    alone = [run(checkpoints=name, seed=seed) for name, seed in (("shared", 5), ("shared+1", 6))]
    both = run(checkpoints="shared", seed=5, networks=2)
    assert run.timing == {}, "nothing is trained again"
    assert both == run(seed=5, networks=2)
    weights = load_safetensors(both["model.safetensors"])
    for number, outputs in enumerate(alone):
        for name, array in load_safetensors(outputs["model.safetensors"]).items():
            np.testing.assert_array_equal(weights.pop(f"networks.{number}.{name}"), array)
    assert not weights
    description = json.loads(both["config.json"])
    assert (description["format"], description["networks"]) == (6, 2)
    losses = [history(outputs)["valid_loss"] for outputs in alone]
    np.testing.assert_allclose(history(both)["valid_loss"], np.mean(losses, axis=0))
    ours = LanguageModel.load(run.folder / "out3")
    assert ours.sample("The q", 10) == LanguageModel.load(run.folder / "out4").sample("The q", 10)


def test_several_networks_that_are_stopped_go_on_bit_for_bit(counted: Runs) -> None:
    told: list[tuple[float, float, str]] = []
    whole = counted(networks=3, progress=lambda *call: told.append(call))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert {total for _, total, _ in told} == {18.0}
    assert told[-1][0] == 18.0
    second = next(
        call for call, (_, _, figures) in enumerate(told, 1) if figures.startswith("network 2 of 3 · epoch 2")
    )
    with pytest.raises(Interrupted, match=r"in epoch \d of 6 of network 2 of 3 and nothing is lost"):
        counted(checkpoints="stopped", networks=3, progress=stop_at(second))
    assert counted(checkpoints="stopped", networks=3) == whole
