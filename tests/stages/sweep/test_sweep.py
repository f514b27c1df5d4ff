"""`rnnlm sweep` as a whole: what comes out, that training alone gives the same, and what happens when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.store.collect import collect
from data.store.folder import Store
from stages.config import RunConfig
from stages.pipeline import run as pipeline
from stages.pipeline.settings import load

ROOT = Path(__file__).parents[3]
Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]
Trainings = Callable[[], dict[int, list[str]]]
Wait = Callable[[Callable[[], object]], None]
Swept = tuple[Path, Store, dict[str, Any]]

SETTINGS = ["train.epochs=3", "train.schedule=cosine"]
GRID = ["--vary", "train.learning_rate=0.01,0.1,0.5", *(f"--set={setting}" for setting in SETTINGS)]


def sweep(preset: Path, store: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "stages.cli", "sweep", "--preset", preset, "--store", store, *arguments]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> Swept:
    """A preset, a store, and what a sweep of the grid printed there."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "text.txt").write_text(tiny_text, encoding="utf-8")
    preset, store = folder / "tiny.toml", folder / "store"
    preset.write_text(f'[download]\ncorpus = "{folder / "text.txt"}"\n{tiny_settings}', encoding="utf-8")
    printed = json.loads(sweep(preset, store, *GRID, "--json"))
    assert len(list((store / "checkpoints").iterdir())) == 3, "a rung goes on from the one before"
    return preset, Store(store), printed


def settings(trial: dict[str, Any]) -> list[str]:
    return [*SETTINGS, *(f"{name}={value}" for name, value in trial["values"].items())]


def sha(store: Store, model: str) -> str:
    artifact = store.find("train", model)
    assert artifact is not None
    return artifact.sha256("model.safetensors")


def test_a_sweep_stops_the_worse_early(swept: Swept) -> None:
    _, _, printed = swept
    trials = printed["trials"]
    assert [trial["rank"] for trial in trials] == [1, 2, 3]
    assert [(trial["state"], trial["epochs"]) for trial in trials] == [("finished", 3)] * 2 + [("stopped", 2)]
    assert trials[2]["reason"] == "stopped: number 3 of 3"
    for went_on in trials[:2]:
        assert went_on["valid_bits"][1] <= trials[2]["valid_bits"][1]
    assert trials[0]["bits_per_character"] <= trials[1]["bits_per_character"]
    evaluated = printed["metrics"]["valid"]["bits_per_character"]
    assert trials[0]["bits_per_character"] == pytest.approx(evaluated, rel=1e-12)
    assert trials[0]["bits_per_character"] == pytest.approx(trials[0]["valid_bits"][-1], abs=1e-4)
    assert printed["trained"] == 3
    assert printed["metrics"]["test"]["perplexity"] > 1


def test_what_a_sweep_trained_in_rungs_is_what_training_alone_gives(
    swept: Swept, store: Store, walk: Callable[[RunConfig], pipeline.Walk]
) -> None:
    preset, there, printed = swept
    best = printed["trials"][0]
    alone = walk(load(str(preset), None, settings(best))).to("train")
    assert alone.manifest.key == best["model"]
    assert sha(store, best["model"]) == sha(there, best["model"])


def test_the_same_sweep_again_trains_nothing_and_writes_the_same(swept: Swept, here: Rnnlm) -> None:
    preset, store, first = swept
    folder = Path(first["artifact"])
    assert folder.parent == store.root / "sweeps"
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "table.md", "trials.json", "curves.svg"}
    kept = {name: (folder / name).read_bytes() for name in ("table.md", "trials.json", "curves.svg")}
    assert kept["curves.svg"].startswith(b"<svg ")
    assert json.loads(kept["trials.json"]) == first["trials"]

    again = ["sweep", "--preset", preset, "--store", store.root, *GRID]
    assert json.loads(here(*again, "--json").stdout) == {**first, "trained": 0}
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    second = here(*again).stdout
    assert second.startswith(kept["table.md"].decode())
    assert f"best: train.learning_rate={first['trials'][0]['values']['train.learning_rate']}" in second
    assert [store.damage(artifact, again=True) for artifact in store.artifacts()] == [None] * len(store.artifacts())
    assert not collect(store)
    assert folder.is_dir()


def test_a_dask_cluster_trains_the_same_model(swept: Swept, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    preset, here, printed = swept
    best = printed["trials"][0]
    space = ["--vary", f"train.learning_rate={best['values']['train.learning_rate']}", *GRID[2:]]
    # Its worker is a thread of this process; the sweep, and what trains, are processes of their own.
    with distributed.LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=None) as cluster:
        there = json.loads(sweep(preset, tmp_path, *space, "--dask", cluster.scheduler_address, "--json"))
    assert there["trained"] == 1
    assert [trial["model"] for trial in there["trials"]] == [best["model"]]
    assert sha(Store(tmp_path), best["model"]) == sha(here, best["model"])


FATAL = [
    (["--set", "tokenize.valid_share=0", "--set", "tokenize.test_share=0.2"], "tokenize.valid_share"),
    (["--dask", "tcp://127.0.0.1:9", "--jobs", "2"], "leave out one"),
    (["--keep", "1.5"], "--keep"),
]


@pytest.mark.parametrize(("arguments", "said"), FATAL, ids=[" ".join(row[0])[:50] for row in FATAL])
def test_what_ends_a_sweep_is_one_sentence(here: Rnnlm, tiny: Path, arguments: list[str], said: str) -> None:
    done = here("sweep", "--preset", tiny, "--vary", "train.hidden_size=4,8", *arguments, code=2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rnnlm: ")
    assert said in last


# --- what stops it


def start(tiny: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stages.cli", "sweep", "--preset", str(tiny), *arguments]
    environment = {**os.environ, "RNNLM_STORE": str(tiny.parent / "store")}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def checkpoints(store: Store) -> dict[str, str]:
    """Training → the name of its newest checkpoint."""
    folders = (store.root / "checkpoints").glob("*")
    names = {folder.name: [path.name for path in folder.glob("*.safetensors")] for folder in folders}
    return {folder: max(found) for folder, found in names.items() if found}


LONG = ["--jobs", "2", "--set", "train.epochs=100000"]


def test_an_interrupted_sweep_leaves_nobody_behind_and_goes_on(
    tiny: Path, store: Store, trainings: Trainings, wait: Wait
) -> None:
    process = start(tiny, "--vary", "train.seed=1,2", *LONG)
    wait(lambda: len(checkpoints(store)) == 2)
    assert len(trainings()) == 2
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert not trainings()
    assert err.strip().splitlines()[-1].startswith("rnnlm: the sweep was stopped")
    assert "Traceback" not in err
    first = checkpoints(store)

    process = start(tiny, "--vary", "train.seed=2", *LONG)
    wait(lambda: any(checkpoints(store)[folder] > newest for folder, newest in first.items()))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # twice is no other thing than once
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in err
    assert not trainings(), err
