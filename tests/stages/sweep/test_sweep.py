"""`rnnlm sweep`: the space, what is stopped early, what comes out, and what happens when it is stopped itself."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import ConfigError
from data.store.folder import Store
from stages.config import RunConfig
from stages.pipeline import run as pipeline
from stages.pipeline.decide import decide
from stages.pipeline.lend import training_identity
from stages.pipeline.settings import load
from stages.sweep.search import rungs
from stages.sweep.space import configurations

ROOT = Path(__file__).parents[3]
Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def values(vary: list[str], draws: int | None = None, seed: int = 0) -> list[tuple[Any, ...]]:
    return [tuple(found.values()) for _, found in configurations(RunConfig(), vary, draws, seed)]


# --- the space


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
    (["evaluate.length=8,16"], None, "makes no other model"),
    (["train.tie_weights=false,true"], None, "embedding_size"),
]


@pytest.mark.parametrize(("vary", "draws", "said"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_a_mistake_in_the_space_is_one_sentence(vary: list[str], draws: int | None, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        values(vary, draws)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- rungs


@pytest.mark.parametrize(
    ("trials", "epochs", "keep", "sizes"),
    [
        (8, 100, 0.5, [8, 4, 2]),
        (20, 100, 0.5, [20, 10, 5, 3, 2]),
        (9, 100, 1 / 3, [9, 3, 2]),
        (5, 100, 0.1, [5, 2]),
        (8, 100, 0, [8, 2]),
        (8, 100, 1, [8]),
        (2, 100, 0.5, [2]),
        (1, 100, 0.5, [1]),
        (20, 2, 0.5, [20, 10]),  # a rung has an epoch at least
        (20, 1, 0.5, [20]),
    ],
)
def test_rungs(trials: int, epochs: int, keep: float, sizes: list[int]) -> None:
    assert rungs(trials, epochs, keep) == sizes


# --- what comes out


SETTINGS = ["--set", "train.epochs=4", "--set", "train.schedule=cosine"]
GRID = ["--vary", "train.hidden_size=4,8", "--vary", "train.learning_rate=0.01,0.5", *SETTINGS]


def sweep(preset: Path, store: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.cli", "sweep", "--preset", preset, "--store", store, *arguments]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str
) -> tuple[Path, Path, dict[str, Any]]:
    """A preset, a store, and what a sweep of the grid printed there."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "text.txt").write_text(tiny_text, encoding="utf-8")
    preset, store = folder / "tiny.toml", folder / "store"
    preset.write_text(f'[download]\ncorpus = "{folder / "text.txt"}"\n{tiny_settings}', encoding="utf-8")
    printed = json.loads(sweep(preset, store, *GRID, "--json").stdout)
    assert len(list((store / "checkpoints").iterdir())) == 4, "a rung goes on from the one before"
    return preset, store, printed


Swept = tuple[Path, Path, dict[str, Any]]


def sha(store: Path, model: str) -> str:
    manifest = json.loads((store / "train" / model[:16] / "manifest.json").read_text(encoding="utf-8"))
    return str(manifest["outputs"]["model.safetensors"]["sha256"])


def test_a_sweep_stops_the_worse_early(swept: Swept) -> None:
    _, _, printed = swept
    trials = printed["trials"]
    assert [trial["rank"] for trial in trials] == [1, 2, 3, 4]
    assert [(trial["state"], trial["epochs"]) for trial in trials] == [("finished", 4)] * 2 + [("stopped", 2)] * 2
    assert [trial["reason"] for trial in trials[2:]] == ["stopped: number 3 of 4", "stopped: number 4 of 4"]
    for went_on in trials[:2]:
        for stopped in trials[2:]:
            assert went_on["valid_bits"][1] <= stopped["valid_bits"][1]
    assert trials[0]["bits_per_character"] <= trials[1]["bits_per_character"]
    assert trials[0]["bits_per_character"] == trials[0]["valid_bits"][-1]
    assert printed["trained"] == 4
    assert printed["metrics"]["test"]["perplexity"] > 1


def test_what_a_sweep_trained_in_rungs_is_what_training_alone_gives(swept: Swept, rnnlm: Rnnlm, tmp_path: Path) -> None:
    preset, store, printed = swept
    best = printed["trials"][0]
    chosen = ["--preset", preset, *SETTINGS, *(f"--set={name}={value}" for name, value in best["values"].items())]
    alone = json.loads(rnnlm("train", *chosen, "--json").stdout)["stages"][-1]
    assert (alone["state"], alone["key"]) == ("ran", best["model"])
    assert sha(tmp_path / "store", best["model"]) == sha(store, best["model"])
    again = json.loads(rnnlm("train", *chosen, "--store", store, "--json").stdout)["stages"][-1]
    assert (again["state"], again["key"]) == ("cached", best["model"])


def test_the_same_sweep_again_trains_nothing_and_writes_the_same(swept: Swept, rnnlm: Rnnlm) -> None:
    preset, store, first = swept
    folder = Path(first["artifact"])
    assert folder.parent == store / "sweeps"
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "table.md", "trials.json", "curves.svg"}
    kept = {name: (folder / name).read_bytes() for name in ("table.md", "trials.json", "curves.svg")}
    assert kept["curves.svg"].startswith(b"<svg ")
    assert json.loads(kept["trials.json"]) == first["trials"]

    second = sweep(preset, store, *GRID).stdout
    assert second.startswith(kept["table.md"].decode())
    assert f"best: train.hidden_size={first['trials'][0]['values']['train.hidden_size']}" in second
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert json.loads(sweep(preset, store, *GRID, "--json").stdout) == {**first, "trained": 0}
    said = rnnlm("verify", "--store", store).stdout
    assert said.count("sound") == len(said.splitlines())
    assert "sweeps" in said
    assert "freed 0 B" in rnnlm("gc", "--store", store).stdout
    assert folder.is_dir()


def test_keep_1_stops_none_and_a_table_has_a_row_for_each(swept: Swept) -> None:
    preset, store, _ = swept
    table = sweep(preset, store, *GRID, "--keep", "1", "--jobs", "2").stdout.split("\n\n")[0].splitlines()
    assert len(table) == 2 + 4
    assert len({len(line) for line in table}) == 1, "its columns are aligned"
    assert all("4 of 4" in line and "trained to the end" in line for line in table[2:])
    bits = [float(line.split("|")[4]) for line in table[2:]]
    assert bits == sorted(bits)


def test_a_dask_cluster_trains_the_same_models(swept: Swept, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    preset, store, here = swept
    finished = here["trials"][:2]
    space = ["--vary", f"train.hidden_size={','.join(str(one['values']['train.hidden_size']) for one in finished)}"]
    space += ["--vary", f"train.learning_rate={finished[0]['values']['train.learning_rate']}"]
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        done = sweep(preset, tmp_path, *space, *SETTINGS, "--dask", cluster.scheduler_address, "--json")
    there = json.loads(done.stdout)
    assert there["trained"] == 2
    assert [trial["model"] for trial in there["trials"]] == [trial["model"] for trial in finished]
    for trial in finished:
        assert sha(tmp_path, trial["model"]) == sha(store, trial["model"])


def test_without_dask_one_sentence_says_what_to_install(rnnlm: Rnnlm, tiny: Path) -> None:
    (tiny.parent / "distributed.py").write_text("raise ImportError('as if it were not there')", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tiny.parent), "RNNLM_STORE": str(tiny.parent / "store")}
    arguments = ["sweep", "--preset", tiny, "--vary", "train.layers=1,2", "--dask", "tcp://127.0.0.1:9"]
    assert "pip install distributed" in rnnlm(*arguments, code=2, env=environment).stderr


def test_words_and_characters_compare_by_the_character(rnnlm: Rnnlm, tiny: Path, tiny_text: str) -> None:
    vary = ["--vary", "tokenize.level=char,word", "--set", "train.num_steps=4"]
    trials = json.loads(rnnlm("sweep", "--preset", tiny, *vary, "--json").stdout)["trials"]
    by_level = {trial["values"]["tokenize.level"]: trial for trial in trials}
    for level, characters in (("char", 1), ("word", len(tiny_text) / len(tiny_text.split()))):
        nats = math.log(by_level[level]["perplexity"])
        per_token = by_level[level]["bits_per_character"] * math.log(2)
        assert nats / per_token == pytest.approx(characters, rel=0.05)


def test_a_trial_that_its_patience_ended_counts_with_its_best_epoch(rnnlm: Rnnlm, tiny: Path) -> None:
    settings = ["--set", "train.epochs=90", "--set", "train.patience=3", "--keep", "1"]
    trials = json.loads(
        rnnlm("sweep", "--preset", tiny, "--vary", "train.hidden_size=64,72", *settings, "--json").stdout
    )
    for trial in trials["trials"]:
        assert trial["reason"] == "ended by its patience"
        assert trial["epochs"] < 90
        assert trial["bits_per_character"] == min(trial["valid_bits"]) == trial["valid_bits"][-4]


def test_a_trial_that_cannot_be_trained_comes_last_and_the_sweep_goes_on(rnnlm: Rnnlm, tiny: Path) -> None:
    vary = ["--vary", "train.learning_rate=1e30,0.5", "--vary", "train.num_steps=8,5000"]
    trials = json.loads(rnnlm("sweep", "--preset", tiny, *vary, "--json").stdout)["trials"]
    assert [trial["state"] for trial in trials] == ["finished", "failed", "failed", "failed"]
    assert trials[0]["values"] == {"train.learning_rate": 0.5, "train.num_steps": 8}
    reasons = {tuple(trial["values"].values()): trial["reason"] for trial in trials[1:]}
    assert "no longer finite" in reasons[1e30, 8]
    assert "validation split" in reasons[0.5, 5000]
    assert all(trial["bits_per_character"] is None and trial["model"] is None for trial in trials[1:])


FATAL = [
    (["--set", "tokenize.valid_share=0", "--set", "tokenize.test_share=0.2"], "tokenize.valid_share"),
    (["--set", "train.learning_rate=1e30"], "none of the trials could be trained"),
    (["--corpus", "nowhere.txt"], "nowhere.txt"),
    (["--vary", "train.hiden_size=8"], "did you mean 'hidden_size'?"),
    (["--dask", "nonsense"], "no Dask scheduler answers at nonsense"),
    (["--dask", "tcp://127.0.0.1:9", "--jobs", "2"], "leave out one"),
    (["--keep", "1.5"], "--keep"),
]


@pytest.mark.parametrize(("arguments", "said"), FATAL, ids=[" ".join(row[0])[:50] for row in FATAL])
def test_what_nothing_can_be_compared_with_is_one_sentence(
    rnnlm: Rnnlm, tiny: Path, arguments: list[str], said: str
) -> None:
    done = rnnlm("sweep", "--preset", tiny, "--vary", "train.hidden_size=4,8", *arguments, code=2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rnnlm: ")
    assert said in last
    assert not list((tiny.parent / "store").glob("train/*"))


def test_trainings_of_one_horizon_are_one_and_of_two_are_two(tiny: Path) -> None:
    def identity(**settings: Any) -> str:
        chosen = load(str(tiny), None, [f"train.{name}={value}" for name, value in settings.items()])
        decision = decide("train", chosen, {"tokenize": tokens.artifact}, store)
        return training_identity(chosen.train, decision.components)

    store = Store(tiny.parent / "store")
    *_, tokens = pipeline.run(load(str(tiny)), store, lambda _: lambda done, total, figures: None, until="tokenize")
    assert identity(epochs=10) == identity(epochs=5)
    assert identity(epochs=10) != identity(epochs=10, schedule="cosine")
    assert identity(epochs=10, schedule="cosine") != identity(epochs=5, schedule="cosine")
    assert identity(epochs=10, schedule="cosine") == identity(epochs=5, schedule="cosine", decay_epochs=10)
    assert identity(epochs=10, schedule="step", decay_epochs=2) == identity(epochs=5, schedule="step", decay_epochs=2)
    assert identity(epochs=10, schedule="step", decay_epochs=2) != identity(epochs=10, schedule="step", decay_epochs=3)


# --- what ends it


def start(tiny: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stages.cli", "sweep", "--preset", str(tiny), *arguments]
    environment = {**os.environ, "RNNLM_STORE": str(tiny.parent / "store")}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def trainings(tiny: Path) -> dict[int, tuple[str, str]]:
    """The processes that train for a sweep of this store: number → command line, environment."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                told = tuple((entry / name).read_bytes().decode(errors="replace") for name in ("cmdline", "environ"))
            except OSError:
                continue
            if "stages.sweep.worker" in told[0] and str(tiny.parent / "store") in told[0]:
                found[int(entry.name)] = told
    return found


def checkpoints(tiny: Path) -> dict[str, str]:
    """Training → the name of its newest checkpoint."""
    folders = (tiny.parent / "store" / "checkpoints").glob("*")
    names = {folder.name: [path.name for path in folder.glob("*.safetensors")] for folder in folders}
    return {folder: max(found) for folder, found in names.items() if found}


def wait(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


LONG = ["--vary", "train.seed=1,2", "--jobs", "2", "--set", "train.epochs=100000"]


def test_an_interrupted_sweep_leaves_nobody_behind_and_goes_on(tiny: Path) -> None:
    process = start(tiny, *LONG)
    wait(lambda: len(checkpoints(tiny)) == 2)
    share = f"OMP_NUM_THREADS={max(1, len(os.sched_getaffinity(0)) // 2)}"
    assert [share in environment.split("\0") for _, environment in trainings(tiny).values()] == [True, True]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert not trainings(tiny)
    assert err.strip().splitlines()[-1].startswith("rnnlm: the sweep was stopped")
    assert "Traceback" not in err
    first = checkpoints(tiny)

    process = start(tiny, *LONG)
    wait(lambda: all(checkpoints(tiny)[folder] > newest for folder, newest in first.items()))
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # twice is no other thing than once
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert not trainings(tiny)
    assert "Traceback" not in err


def test_a_killed_sweep_leaves_nobody_behind_either(tiny: Path) -> None:
    process = start(tiny, "--vary", "train.seed=1", *LONG[2:])
    wait(lambda: checkpoints(tiny))
    process.kill()
    process.communicate()
    wait(lambda: not trainings(tiny))


def test_a_killed_trial_is_listed_and_the_sweep_goes_on(tiny: Path) -> None:
    # With a cosine, or the shorter one would be the longer one's beginning.
    process = start(tiny, "--vary", "train.epochs=2,100000", "--keep", "1", "--set", "train.schedule=cosine", "--json")
    wait(lambda: list((tiny.parent / "store").glob("train/*")) and len(checkpoints(tiny)) == 2)
    for number, (command, _) in trainings(tiny).items():
        if "100000" in command:
            os.kill(number, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    trials = json.loads(out)["trials"]
    assert [trial["values"]["train.epochs"] for trial in trials] == [2, 100000]
    assert "ended by SIGKILL" in trials[1]["reason"]
