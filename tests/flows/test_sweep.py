"""The flow ``sweep`` against a real server: trials as tasks, a table, a picture, and what the command line gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SPACE = ["train.hidden_size=4,8", "train.learning_rate=0.01,0.5"]
SCRIPT = """
import sys
from flows.sweep import sweep
from stages.pipeline.settings import load

preset, store, *vary = sys.argv[1:]
state = sweep(vary, load(preset, None, ["train.epochs=4"]), jobs=2, store=store, return_state=True)
sys.exit(not state.is_completed())
"""


@pytest.fixture
def run(api: Any, tiny: Path) -> Callable[..., tuple[dict[str, Any], dict[str, str]]]:
    """Run the flow on a space; the flow run, and the names of its task runs with those of their states."""

    def call(*space: str, code: int = 0) -> tuple[dict[str, Any], dict[str, str]]:
        environment = {**os.environ, "PREFECT_HOME": str(tiny.parent / "home"), "PREFECT_API_URL": api.address}
        command = [sys.executable, "-c", SCRIPT, str(tiny), str(tiny.parent / "store"), *space]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == code, done.stderr
        flow_run = api.ask("flow_runs", sort="START_TIME_DESC", limit=1)[0]
        of_it = {"flow_run_id": {"any_": [flow_run["id"]]}}
        flow_run["artifacts"] = {found["key"]: found for found in api.ask("artifacts", artifacts=of_it)}
        task_runs = api.ask("task_runs", flow_runs={"id": {"any_": [flow_run["id"]]}})
        return flow_run, {task_run["name"]: task_run["state"]["name"] for task_run in task_runs}

    return call


Run = Callable[..., tuple[dict[str, Any], dict[str, str]]]


def test_trials_are_tasks_and_end_in_a_table_and_a_picture(run: Run, rnnlm, tiny: Path) -> None:  # type: ignore[no-untyped-def]
    flow_run, tasks = run(*SPACE)
    assert flow_run["state"]["name"] == "Completed"
    assert flow_run["name"].startswith("train.hidden_size=4,8, train.learning_rate=0.01,0.5")
    trials = {name: state for name, state in tasks.items() if "epochs" in name}
    assert len(trials) == 4 + 2, "four in the first rung, two in the second"
    assert set(trials.values()) == {"Completed"}
    assert trials["hidden_size=4, learning_rate=0.5, 2 epochs"]
    table = json.loads(flow_run["artifacts"]["sweep"]["data"])
    assert [row["rank"] for row in table] == ["1", "2", "3", "4"]
    assert "data:image/svg+xml;base64," in flow_run["artifacts"]["sweep-curves"]["data"]
    assert "report" in flow_run["artifacts"]

    vary = [argument for one in SPACE for argument in ("--vary", one)]
    printed = json.loads(rnnlm("sweep", "--preset", tiny, *vary, "--set=train.epochs=4", "--json").stdout)
    assert printed["trained"] == 0, "what the flow made the command line reuses"
    assert [trial["model"][:16] for trial in printed["trials"]] == [row["model"] for row in table]

    flow_run, tasks = run(*SPACE)
    assert flow_run["state"]["name"] == "Completed"
    assert set(tasks.values()) == {"Cached"}


def test_a_trial_that_cannot_be_trained_fails_as_a_task_and_the_sweep_completes(run: Run) -> None:
    flow_run, tasks = run("train.learning_rate=0.5,1e30")
    assert flow_run["state"]["name"] == "Completed"
    assert tasks["learning_rate=1e+30, 4 epochs"] == "Failed"
    table = json.loads(flow_run["artifacts"]["sweep"]["data"])
    assert "no longer finite" in table[-1]["how it ended"]


def test_a_mistake_fails_the_run_with_its_sentence(run: Run) -> None:
    flow_run, tasks = run("train.hiden_size=4,8", code=1)
    assert flow_run["state"]["name"] == "Failed"
    assert "did you mean 'hidden_size'?" in flow_run["state"]["message"]
    assert not tasks
