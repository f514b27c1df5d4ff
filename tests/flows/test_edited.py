"""Somebody edits the project while a flow that is served runs: the run fails with a sentence, the next one is whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.flows.conftest import Api, End

ROOT = Path(__file__).parents[2]
SERVE = """
from prefect import serve
from prefect.types.entrypoint import EntrypointType
from flows.pipeline import language_model

serve(language_model.to_deployment("edited", entrypoint_type=EntrypointType.MODULE_PATH))
"""
"""As `flows/serve.py` does with all of them."""
WAIT = """
    import time
    from pathlib import Path as File

    File({trains!r}).touch()
    while not File({edited!r}).exists():
        time.sleep(0.01)
    _export(config, """


def wait(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def edit(path: Path, old: str, new: str) -> None:
    source = path.read_text(encoding="utf-8")
    assert old in source, f"{path} no longer has what this test edits"
    path.write_text(source.replace(old, new, 1), encoding="utf-8")


def test_a_run_of_a_served_flow_notices_an_edit_and_the_next_one_runs_it(
    api: Api, end: End, tmp_path: Path, tiny_text: str
) -> None:
    project, trains, edited = tmp_path / "project", tmp_path / "trains", tmp_path / "edited"
    for floor in ("data", "stages", "flows"):
        ignored = shutil.ignore_patterns("artifacts", "__pycache__")
        shutil.copytree(ROOT / floor, project / floor, ignore=ignored)
    edit(project / "stages/train.py", "    _export(config, ", WAIT.format(trains=str(trains), edited=str(edited)))
    (tmp_path / "text.txt").write_text(tiny_text, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(project),
        "RNNLM_STORE": str(tmp_path / "store"),
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_API_URL": api.address,
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }
    config = {
        "download": {"corpus": str(tmp_path / "text.txt")},
        "train": {"engine": "bptt", "hidden_size": 8, "batch_size": 4, "num_steps": 8, "epochs": 2},
        "evaluate": {"length": 8, "prefixes": ["the"]},
    }
    wanted = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}

    with (tmp_path / "serve.log").open("w") as log:
        serving = subprocess.Popen(
            [sys.executable, "-c", SERVE], cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        name = "deployments/name/language-model/edited"
        wait(lambda: api.call("GET", name).status_code == 200)
        deployment = api.call("GET", name).json()["id"]

        def ended(run: str) -> Any:
            state = api.call("GET", f"flow_runs/{run}").json()["state"]
            return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED") else None

        run = api.call("POST", f"deployments/{deployment}/create_flow_run", json=wanted).json()["id"]
        wait(lambda: trains.exists() or ended(run))
        edit(
            project / "stages/evaluate.py",
            '    measured["baselines"] =',
            '    measured["another"] = 1\n    measured["baselines"] =',
        )
        edited.touch()
        state = wait(lambda: ended(run))
        assert (state["type"], state["message"]) == (
            "FAILED",
            "stages/evaluate.py was edited after this process had loaded it (evaluate): "
            "run again in a new process, and what was finished is kept",
        )
        assert not list(tmp_path.glob("store/evaluate/*"))

        run = api.call("POST", f"deployments/{deployment}/create_flow_run", json=wanted).json()["id"]
        assert wait(lambda: ended(run))["type"] == "COMPLETED"

        def evaluated() -> dict[str, str] | None:
            # The server hears of a run's tasks apart from the run, and of its last one after the run's end.
            states = {task["name"].rpartition("-")[0]: task["state_name"] for task in api.task_runs(run)}
            return states if states.get("evaluate") == "Completed" else None

        assert wait(evaluated)["train"] == "Cached"
        (measured,) = tmp_path.glob("store/evaluate/*/metrics.json")
        assert "another" in json.loads(measured.read_text(encoding="utf-8"))
    finally:
        end(serving)
        api.call("DELETE", f"deployments/{deployment}")
