"""The train stage: what it writes, and that stopping it, however roughly, changes nothing."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load as load_safetensors

from data.errors import ConfigError, CorpusError, Interrupted, TrainingError
from data.tables.tokens import IndexTable, Split
from data.tables.vocab import Vocab
from stages.config import TrainConfig
from stages.lm.model import LanguageModel
from stages.train import train
from stages.training import checkpoint
from stages.training.device import Device

ROOT = Path(__file__).parents[2]
TEXT = "the quick brown fox jumps over the lazy dog and runs away from it. " * 12
SMALL = {"hidden_size": 12, "batch_size": 4, "num_steps": 9, "epochs": 6, "clip_norm": 0.5}
FILES = {"model.safetensors", "config.json", "vocab.arrow", "history.arrow"}


def tokenized(folder, text=TEXT, valid=0.2):
    folder.mkdir()
    vocab = Vocab.build(Counter(text))
    ids = np.array(vocab.ids(text), vocab.id_type)
    bounds = [0, round(len(ids) * (1 - valid)), len(ids), len(ids)]
    splits = {
        name: Split(start, stop, stop - start, 0)
        for name, start, stop in zip(("train", "valid", "test"), bounds, bounds[1:], strict=False)
    }
    IndexTable(ids, splits, "char", "lower", "0" * 64, len(vocab)).write(folder / "tokens.arrow")
    vocab.write(folder / "vocab.arrow")
    return folder


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return tokenized(tmp_path_factory.mktemp("corpus") / "tokens")


class Runs:
    """Training into folders of their own, and what came out."""

    def __init__(self, tokens, folder):
        self.tokens, self.folder, self.count = tokens, folder, 0

    def __call__(self, checkpoints="unshared", progress=lambda done, total, figures: None, **changes):
        self.count += 1
        out = self.folder / f"out{self.count}"
        out.mkdir()
        if checkpoints == "unshared":
            checkpoints = f"checkpoints{self.count}"
        config = TrainConfig(**{**SMALL, **changes})
        self.timing = train(config, self.tokens, out, progress, self.folder / checkpoints, Device("cpu"))
        return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture
def run(tokens, tmp_path):
    return Runs(tokens, tmp_path)


def history(outputs):
    return pa.ipc.open_file(outputs["history.arrow"]).read_all().to_pydict()


def stop_at(count, signum=signal.SIGINT):
    """Progress that asks to stop when it is told of something for the ``count``-th time."""
    calls = []

    def progress(done, total, figures):
        calls.append(done)
        if len(calls) == count:
            os.kill(os.getpid(), signum)

    return progress


def test_what_is_written(run, tokens):
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


def test_history_has_a_row_per_epoch(run):
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


def test_validation_reads_the_split_as_parallel_streams(run, tokens):
    rows = history(run())
    ids = IndexTable.open(tokens / "tokens.arrow").split("valid")
    model = LanguageModel.load(run.folder / "out1")
    length = (len(ids) - 1) // 4
    streams = [model.network.loss(ids[row * length : (row + 1) * length + 1]) for row in range(4)]
    assert rows["valid_loss"][-1] == pytest.approx(np.mean(streams), abs=1e-5)


def test_without_a_validation_split_its_figures_are_null(tmp_path):
    rows = history(Runs(tokenized(tmp_path / "tokens", valid=0.01), tmp_path)(epochs=2))
    assert rows["valid_loss"] == rows["valid_perplexity"] == [None, None]


def test_a_split_too_short_for_a_minibatch_is_refused(run):
    with pytest.raises(CorpusError, match=r"train\.batch_size"):
        run(batch_size=64, num_steps=35, partition="random")


def test_seed_and_partition_decide(run):
    first, again, other, random = run(), run(), run(seed=1), run(partition="random")
    assert first == again
    assert len({outputs["model.safetensors"] for outputs in (first, other, random)}) == 3


def test_progress_tells_epoch_perplexity_and_speed(run):
    told = []
    run(progress=lambda *call: told.append(call))
    done = [call[0] for call in told]
    assert done == sorted(done)
    assert told[-1][:2] == (6, 6)
    assert told[-1][2].startswith("epoch 6 of 6 · perplexity ")
    assert told[-1][2].endswith(" tokens/s")


EVERYTHING = {
    "layers": 2,
    "embedding_size": 12,
    "tie_weights": True,
    "input_dropout": 0.1,
    "hidden_dropout": 0.1,
    "output_dropout": 0.2,
    "weight_dropout": 0.1,
    "weight_decay": 0.001,
    "initializer": "uniform",
    "warmup_epochs": 1.5,
    "patience": 3,
}


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [
        ("sgd", {"layers": 2}),
        ("sgd", {"partition": "random", "bptt_keep": 0.9}),
        ("momentum", {"learning_rate": 0.1, "schedule": "step", "decay_epochs": 2, "averaging": 0}),
        ("adam", {**EVERYTHING, "learning_rate": 0.03, "schedule": "plateau", "decay_epochs": 1}),
        ("adamw", {**EVERYTHING, "learning_rate": 0.03, "schedule": "cosine", "variational": False}),
    ],
)
def test_stopped_at_any_minibatch_it_goes_on_bit_for_bit(run, cell, optimizer, changes):
    changes = {"cell": cell, "optimizer": optimizer, **changes}
    whole = run(**changes)
    positions = []
    for count in (1, 1, 1, 2, 1, 3, 1):
        with pytest.raises(Interrupted, match="the same command goes on from there"):
            run("shared", stop_at(count), **changes)
        found = checkpoint.latest(run.folder / "shared", 6)
        positions.append((found.epoch, found.step))
    assert len({step for _, step in positions}) > 3, "the stops have to fall within epochs"
    assert len(set(positions)) == len(positions), "every call has to get on"
    assert run("shared", **changes) == whole


def test_patience_keeps_the_best_weights(run, caplog):
    # A rate at which it soon learns the training split by heart.
    changes = {"cell": "lstm", "hidden_size": 32, "optimizer": "adam", "learning_rate": 0.03, "averaging": 0}
    with caplog.at_level(logging.INFO, "stages"):
        stopped = run(epochs=200, patience=3, **changes)
    losses = history(stopped)["valid_loss"]
    best = losses.index(min(losses)) + 1
    assert len(losses) == best + 3 < 200
    assert json.loads(stopped["config.json"])["epoch"] == best
    assert f"since epoch {best}: its weights are kept" in caplog.text
    assert stopped["model.safetensors"] == run(epochs=best, **changes)["model.safetensors"]
    assert stopped["model.safetensors"] != run(epochs=best + 3, **changes)["model.safetensors"]


def test_patience_that_has_ended_stays_ended(run):
    changes = {"cell": "lstm", "optimizer": "adam", "learning_rate": 0.1, "patience": 2}
    stopped = run("shared", epochs=100, **changes)
    told = []
    assert run("shared", lambda *call: told.append(call), epochs=200, **changes) == stopped
    assert told == []


@pytest.mark.parametrize("changes", [{"patience": 2}, {"schedule": "plateau", "decay_epochs": 2}])
def test_what_asks_for_a_validation_loss_is_refused_without_one(tmp_path, changes):
    run = Runs(tokenized(tmp_path / "tokens", valid=0), tmp_path)
    with pytest.raises(ConfigError, match=r"needs a validation loss.*tokenize\.valid_share"):
        run(**changes)


def test_the_history_shows_the_learning_rate(run):
    rows = history(run(schedule="step", decay_epochs=2, decay_factor=0.1))
    assert rows["learning_rate"] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_averaging_of_0_publishes_the_last_weights(run):
    last = run("shared", averaging=0)["model.safetensors"]
    weights = checkpoint.latest(run.folder / "shared", 6).parameters
    loaded = load_safetensors(last)
    assert all(np.array_equal(weights[name], loaded[name]) for name in weights)
    assert last != run()["model.safetensors"]


def test_a_plateau_lowers_the_rate(run):
    rows = history(run(epochs=60, schedule="plateau", decay_epochs=2, decay_factor=0.5, averaging=0))
    best, waited, rate = math.inf, 0, 1.0
    for loss, found in zip(rows["valid_loss"], rows["learning_rate"], strict=True):
        assert found == rate
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == 2:
            waited, rate = 0, rate / 2
    assert rate < 1


def test_more_epochs_go_on_from_fewer(run):
    whole, shorter = run(), run(epochs=2)
    assert run("shared", epochs=2) == shorter
    told = []
    assert run("shared", lambda *call: told.append(call)) == whole
    assert told[-1][:2] == (4, 4)
    assert run("shared", lambda *call: told.append("again")) == whole
    assert "again" not in told
    assert run.timing == {}
    assert run("shared", epochs=2) == shorter


def test_a_damaged_checkpoint_costs_a_warning(run, caplog):
    whole = run("shared")
    path = sorted((run.folder / "shared").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        assert run("shared") == whole
    assert len(caplog.records) == 1


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_its_exit_code_and_the_handlers_back(run, signum):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match=r"in epoch \d of 6") as caught:
        run(progress=stop_at(4, signum))
    assert caught.value.exit_code == 128 + signum
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_in_the_last_minibatch_is_not_swallowed(run):
    told = []
    whole = run(progress=lambda *call: told.append(call))

    def progress(done, total, figures):
        if done == total:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="in epoch 6 of 6"):
        run("shared", progress)
    assert run("shared") == whole


def test_any_thread_trains_the_same(run):
    results = []
    thread = threading.Thread(target=lambda: results.append(run()))
    thread.start()
    thread.join()
    assert results == [run()]


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30, "clip_norm": 0}, {"learning_rate": 3e38}])
def test_a_loss_that_is_not_finite_stops_with_advice(run, changes):
    with pytest.raises(
        TrainingError, match=r"no longer finite in epoch 1: try a smaller train\.learning_rate"
    ) as caught:
        run("shared", **changes)
    assert "train.clip_norm" in str(caught.value)
    assert checkpoint.latest(run.folder / "shared", 9) is None


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    # One minibatch per epoch: its loss is that of the weights before the step, and finite.
    run = Runs(tokenized(tmp_path / "tokens", TEXT[:60], valid=0), tmp_path)
    with pytest.raises(TrainingError, match="a weight is no longer finite in epoch"):
        run("shared", batch_size=4, num_steps=10, partition="random", learning_rate=1e39)
    assert checkpoint.latest(run.folder / "shared", 9) is None


def test_checkpoints_cost_a_fiftieth_of_the_time_and_no_more(run, monkeypatch):
    now, written, write = 0.0, [], checkpoint.write

    def slow_write(folder, state):
        nonlocal now
        now += 1
        written.append(state.epoch)
        write(folder, state)

    def progress(done, total, figures):
        nonlocal now
        now += done == int(done)  # an epoch takes as long

    monkeypatch.setattr(checkpoint, "write", slow_write)
    monkeypatch.setattr("stages.train.time", SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter))
    run(epochs=200, progress=progress)
    assert written == [1, 51, 101, 151, 200]


# A process that trains until it is killed, and reports each checkpoint.
CHILD = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from data.errors import Interrupted
from stages.config import TrainConfig
from stages.training.device import Device
from stages.train import train
silent = lambda *call: None
config, tokens, out, checkpoints = sys.argv[1:]
try:
    train(TrainConfig(**json.loads(config)), Path(tokens), Path(out), silent, Path(checkpoints), Device("cpu"))
except Interrupted as interrupted:
    print(interrupted)
    raise SystemExit(interrupted.exit_code)
"""


def child(run, threads="1", **changes):
    out = run.folder / f"child{time.monotonic_ns()}"
    out.mkdir()
    config = json.dumps({**SMALL, **changes})
    return out, subprocess.Popen(
        [sys.executable, "-c", CHILD, config, run.tokens, out, run.folder / "shared"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": threads},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_for_checkpoint(folder, process):
    while not list(folder.glob("*.safetensors")):
        assert process.poll() is None, "the child ended before it was killed"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("cell", "signum"), [("rnn", signal.SIGTERM), ("lstm", signal.SIGKILL), ("gru", signal.SIGINT)]
)
def test_a_killed_process_loses_nothing(run, cell, signum):
    _, process = child(run, cell=cell, epochs=100_000)
    wait_for_checkpoint(run.folder / "shared", process)
    time.sleep(0.2)
    process.send_signal(signum)
    said, _ = process.communicate(timeout=30)
    if signum == signal.SIGKILL:
        assert process.returncode == -signum
    else:
        assert process.returncode == 128 + signum
        assert "the same command goes on from there" in said
    found = checkpoint.latest(run.folder / "shared", 100_000)
    assert (found.epoch, found.step) > (0, 0)
    assert run("shared", cell=cell, epochs=found.epoch + 2) == run(cell=cell, epochs=found.epoch + 2)


def test_processes_and_thread_counts_agree(run):
    outputs = []
    for threads in ("1", "2"):
        out, process = child(run, threads, cell="lstm", hidden_size=96, batch_size=16)
        assert process.wait(timeout=60) == 0
        outputs.append({path.name: path.read_bytes() for path in out.iterdir()})
        for path in (run.folder / "shared").iterdir():
            path.unlink()
    assert outputs[0] == outputs[1] == run(cell="lstm", hidden_size=96, batch_size=16)
