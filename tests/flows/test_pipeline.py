"""The flow ``language-model`` against a real server: what a user sees in its UI and in its API."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from data.store.folder import Store

ROOT = Path(__file__).parents[2]


class Prefect:
    """Run the flow as a user would, and ask the server what became of it."""

    def __init__(self, address: str | None, folder: Path, api: Any = None) -> None:
        self.address, self.api = address, api
        self.folder = folder

    def run(self, preset: Path, *arguments: str, code: int = 0) -> str:
        environment = {
            **os.environ,
            "PREFECT_HOME": str(self.folder / "home"),
            "RNNLM_STORE": str(self.folder / "store"),
            **({"PREFECT_API_URL": self.address} if self.address else {}),
        }
        command = [sys.executable, "-m", "flows.pipeline", "--preset", str(preset), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == code, done.stderr
        return done.stderr

    def last_run(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """The last flow run, and its task runs by their stage."""
        flow_run = self.api.ask("flow_runs", sort="START_TIME_DESC", limit=1)[0]
        task_runs = self.api.ask("task_runs", flow_runs={"id": {"any_": [flow_run["id"]]}})
        return flow_run, {task_run["name"].rpartition("-")[0]: task_run for task_run in task_runs}


@pytest.fixture
def prefect(server: str, api: Any, tmp_path: Path) -> Prefect:
    return Prefect(server, tmp_path, api)


def test_four_tasks_run_and_the_next_run_shows_them_as_cached(prefect: Prefect, tiny: Path) -> None:
    prefect.run(tiny)
    flow_run, tasks = prefect.last_run()
    assert flow_run["state"]["name"] == "Completed"
    assert {name: task["state"]["name"] for name, task in tasks.items()} == {
        "download": "Completed",
        "tokenize": "Completed",
        "train": "Completed",
        "evaluate": "Completed",
    }
    (artifact,) = prefect.api.ask(
        "artifacts", artifacts={"flow_run_id": {"any_": [flow_run["id"]]}, "key": {"any_": ["report"]}}
    )
    assert "data:image/svg+xml;base64," in artifact["data"]
    assert list((prefect.folder / "store" / "reports").glob("*.html"))
    logs = prefect.api.ask("logs", logs={"task_run_id": {"any_": [tasks["train"]["id"]]}})
    assert any("training on the" in line["message"] for line in logs), "a stage's own log lines reach the UI"

    prefect.run(tiny, "--set", "evaluate.length=9")
    flow_run, tasks = prefect.last_run()
    assert flow_run["state"]["name"] == "Completed"
    assert {name: task["state"]["name"] for name, task in tasks.items()} == {
        "download": "Cached",
        "tokenize": "Cached",
        "train": "Cached",
        "evaluate": "Completed",
    }
    (model,) = Store(prefect.folder / "store").artifacts("train")
    assert str(model.folder) in tasks["train"]["state"]["message"]
    assert "evaluate.length: 8 → 9" in tasks["evaluate"]["state"]["message"]


def test_the_command_line_reuses_what_the_flow_made(prefect: Prefect, tiny: Path, rnnlm) -> None:  # type: ignore[no-untyped-def]
    prefect.run(tiny)
    assert rnnlm("run", "--preset", tiny, "--json").stdout.count('"cached"') == 4


def test_forced_stages_rerun(prefect: Prefect, tiny: Path) -> None:
    prefect.run(tiny)
    prefect.run(tiny, "--force", "tokenize")
    _, tasks = prefect.last_run()
    assert {name for name, task in tasks.items() if task["state"]["name"] == "Completed"} == {"tokenize"}


def test_a_mistake_fails_the_run_with_its_sentence(prefect: Prefect, tiny: Path) -> None:
    said = prefect.run(tiny, "--corpus", "nowhere.txt", code=2)
    assert "Traceback" not in said
    flow_run, tasks = prefect.last_run()
    assert flow_run["state"]["name"] == "Failed"
    assert "nowhere.txt" in flow_run["state"]["message"]
    assert "nowhere.txt" in tasks["download"]["state"]["message"]
    assert tasks["download"]["run_count"] == 1, "a mistake is not tried again"


class _Recovering(BaseHTTPRequestHandler):
    """Answers 503 to the first requests, as many as one attempt of the task makes, then the text."""

    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if self.requests <= 4:
            self.send_error(503)
            return
        text = b"Then the cat saw birds over the sea.\n" * 40
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def recovering() -> Iterator[str]:
    web = ThreadingHTTPServer(("127.0.0.1", 0), _Recovering)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}/text.txt"
    web.shutdown()


def test_a_download_is_retried_as_a_task(prefect: Prefect, tiny: Path, recovering: str) -> None:
    prefect.run(tiny, "--corpus", recovering)
    flow_run, tasks = prefect.last_run()
    assert flow_run["state"]["name"] == "Completed"
    assert tasks["download"]["run_count"] == 2


def test_progress_that_takes_a_while_becomes_an_artifact(prefect: Prefect) -> None:
    from prefect import flow
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import walk

    @flow(name="long-work")
    def work() -> None:
        shown = walk._Shown("train", seconds_between=0)
        shown(1, 4, "epoch 1 of 4 · perplexity 4.1 · 98,000 tokens/s")
        (artifact,) = prefect.api.ask(
            "artifacts", artifacts={"key": {"any_": ["train-progress"]}}, sort="CREATED_DESC", limit=1
        )
        seen.append((artifact["type"], artifact["data"], artifact["description"]))
        shown.finish()

    seen: list[tuple[str, float, str]] = []
    with temporary_settings({PREFECT_API_URL: prefect.address}):
        work()
    assert seen == [("progress", 25.0, "epoch 1 of 4 · perplexity 4.1 · 98,000 tokens/s")]
    (artifact,) = prefect.api.ask(
        "artifacts", artifacts={"key": {"any_": ["train-progress"]}}, sort="CREATED_DESC", limit=1
    )
    assert artifact["data"] == 100.0


def test_progress_that_cannot_be_shown_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import walk

    def away(*arguments: object, **options: object) -> None:
        raise httpx.ConnectError("the server is away")

    monkeypatch.setattr(walk, "create_progress_artifact", away)
    shown = walk._Shown("train", seconds_between=0)
    shown(1, 2, "perplexity 4.1")
    shown.finish()


def test_a_server_that_is_away_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    said = Prefect("http://127.0.0.1:9/api", tmp_path).run(tiny, code=2)
    assert said.splitlines()[-1].startswith("rnnlm: the Prefect server at http://127.0.0.1:9/api does not answer")
    assert "Traceback" not in said


def test_without_a_server_the_flow_brings_its_own(tiny: Path, tmp_path: Path) -> None:
    said = Prefect(None, tmp_path).run(tiny)
    assert "temporary server" in said
    said = Prefect(None, tmp_path).run(tiny)
    assert said.count("Cached") == 4
