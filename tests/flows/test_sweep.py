"""The flow ``sweep`` against a real server: trials as tasks, a table, a picture, and what the command line gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data.store.folder import Store
from stages.config import RunConfig
from stages.pipeline import run as pipeline
from stages.pipeline.settings import load

ROOT = Path(__file__).parents[2]
SPACES = {"sound": "train.learning_rate=0.01,0.5,1e30", "mistaken": "train.hiden_size=4,8"}
SETTINGS = ["train.epochs=3"]
SCRIPT = """
import sys
from flows.sweep import sweep
from stages.pipeline.settings import load

preset, store, settings, *spaces = sys.argv[1:]
for space in spaces:
    sweep([space], load(preset, None, settings.split()), jobs=2, store=store, return_state=True)
"""


@dataclass(frozen=True)
class Run:
    """What the server knows of a flow run."""

    name: str
    state: dict[str, Any]
    tasks: dict[str, str]
    """Task run → the name of its state."""
    artifacts: dict[str, dict[str, Any]]
    """By key."""


@dataclass(frozen=True)
class Swept:
    runs: dict[str, Run]
    """One flow run for each of the spaces."""
    config: RunConfig
    """What did not vary."""
    store: Store
    """Where both rates below 1 had been trained for two epochs before."""


def train(config: RunConfig, store: Store, **fields: Any) -> pipeline.Outcome:
    """Train here and now."""
    chosen = config.model_copy(update={"train": config.train.model_copy(update=fields)})
    *_, model = pipeline.run(chosen, store, lambda _: lambda done, total, figures: None, until="train")
    return model


@pytest.fixture(scope="module")
def swept(api: Any, tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> Swept:
    """Flow runs in one process, one after the other."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "text.txt").write_text(tiny_text, encoding="utf-8")
    preset, store = folder / "tiny.toml", Store(folder / "store")
    preset.write_text(f'[download]\ncorpus = "{folder / "text.txt"}"\n{tiny_settings}', encoding="utf-8")
    config = load(str(preset), None, SETTINGS)
    for rate in (0.01, 0.5):
        train(config, store, learning_rate=rate, epochs=2)
    environment = {**os.environ, "PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": api.address}
    command = [sys.executable, "-c", SCRIPT, str(preset), str(store.root), " ".join(SETTINGS), *SPACES.values()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    of_sweeps = {"name": {"any_": ["sweep"]}}  # other tests run other flows on this server meanwhile
    found = api.ask("flow_runs", flows=of_sweeps, sort="START_TIME_DESC", limit=len(SPACES))[::-1]
    runs = {space: _asked(api, flow_run) for space, flow_run in zip(SPACES, found, strict=True)}
    return Swept(runs, config, store)


def _asked(api: Any, flow_run: dict[str, Any]) -> Run:
    chosen = {"id": {"any_": [flow_run["id"]]}}
    tasks = {found["name"]: found["state"]["name"] for found in api.ask("task_runs", flow_runs=chosen)}
    of_it = {"flow_run_id": {"any_": [flow_run["id"]]}}
    artifacts = {found["key"]: found for found in api.ask("artifacts", artifacts=of_it)}
    return Run(flow_run["name"], flow_run["state"], tasks, artifacts)


def test_trials_are_tasks_and_end_in_a_table_and_a_picture(swept: Swept) -> None:
    run = swept.runs["sound"]
    assert run.state["name"] == "Completed"
    assert run.name.startswith("train.learning_rate=0.01,0.5,1e30, ")
    trials = {name: state for name, state in run.tasks.items() if "epochs" in name}
    assert trials == {
        "learning_rate=0.01, 2 epochs": "Cached",
        "learning_rate=0.5, 2 epochs": "Cached",
        "learning_rate=1e+30, 2 epochs": "Failed",
        "learning_rate=0.01, 3 epochs": "Completed",
        "learning_rate=0.5, 3 epochs": "Completed",
    }, "three in the first rung, two in the second"
    table = json.loads(run.artifacts["sweep"]["data"])
    assert [row["rank"] for row in table] == ["1", "2", "3"]
    assert "no longer finite" in table[-1]["how it ended"]
    assert "data:image/svg+xml;base64," in run.artifacts["sweep-curves"]["data"]
    assert "report" in run.artifacts


def test_what_a_flow_trained_everybody_else_reuses(swept: Swept) -> None:
    best = json.loads(swept.runs["sound"].artifacts["sweep"]["data"])[0]
    model = train(swept.config, swept.store, learning_rate=float(best["train.learning_rate"]))
    assert (model.state, model.artifact.manifest.key[:16]) == ("cached", best["model"])


def test_a_mistake_fails_the_run_with_its_sentence(swept: Swept) -> None:
    run = swept.runs["mistaken"]
    assert run.state["name"] == "Failed"
    assert "did you mean 'hidden_size'?" in run.state["message"]
    assert not run.tasks
