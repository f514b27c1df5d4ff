"""The flow ``language-model`` against a real server: what a user sees in its UI and in its API."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from data.errors import ConfigError
from data.store.folder import Store
from stages.pipeline import graph

if TYPE_CHECKING:
    from tests.conftest import Handler, Rnnlm, Server
    from tests.flows.conftest import Api

ROOT = Path(__file__).parents[2]

Tasks = dict[str, dict[str, Any]]
"""Stage → its task run."""


class Flow:
    """A corpus, a preset and a store, on which the flow runs as a user runs it."""

    def __init__(self, address: str | None, folder: Path) -> None:
        self.address, self.folder = address, folder
        self.preset, self.store = folder / "tiny.toml", folder / "store"

    def run(self, *arguments: str, code: int = 0) -> str:
        """What it says on standard error."""
        environment = {
            **os.environ,
            "PREFECT_HOME": str(self.folder / "home"),
            "RNNLM_STORE": str(self.store),
            **({"PREFECT_API_URL": self.address} if self.address else {}),
        }
        command = [sys.executable, "-m", "flows.pipeline", "--preset", str(self.preset), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == code, done.stderr
        return done.stderr


def tasks_of(api: Api, flow_run: dict[str, Any]) -> Tasks:
    return api.ended_task_runs(flow_run["id"])


def states(tasks: Tasks) -> dict[str, str]:
    return {name: task["state"]["name"] for name, task in tasks.items()}


@pytest.fixture(scope="module")
def flow(api: Api, tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> Flow:
    folder = tmp_path_factory.mktemp("flow")
    (folder / "text.txt").write_text(tiny_text, encoding="utf-8")
    opened = Flow(api.address, folder)
    opened.preset.write_text(f'[download]\ncorpus = "{folder / "text.txt"}"\n{tiny_settings}', encoding="utf-8")
    return opened


@pytest.fixture(scope="module")
def first(flow: Flow, api: Api) -> dict[str, Any]:
    """The flow run after which the store of ``flow`` holds everything."""
    return api.flow_run(flow.run())


def test_four_tasks_run(first: dict[str, Any], flow: Flow, api: Api) -> None:
    assert first["state"]["name"] == "Completed"
    assert first["name"].startswith("text.txt: rnn 8 × 2 epochs, 20")
    tasks = tasks_of(api, first)
    assert states(tasks) == dict.fromkeys(("download", "tokenize", "train", "evaluate"), "Completed")
    (artifact,) = api.ask("artifacts", artifacts={"flow_run_id": {"any_": [first["id"]]}, "key": {"any_": ["report"]}})
    assert "data:image/svg+xml;base64," in artifact["data"]
    assert list((flow.store / "reports").glob("*.html"))
    logs = api.ask("logs", logs={"task_run_id": {"any_": [tasks["train"]["id"]]}})
    assert any("training with " in line["message"] for line in logs), "a stage's own log lines reach the UI"


def test_the_next_run_shows_what_it_reuses_as_cached(first: dict[str, Any], flow: Flow, api: Api) -> None:
    asked = Flow(api.address.replace("://", "://me:ZvT9secret@"), flow.folder)
    said = asked.run("--set", "evaluate.length=9", "--force", "tokenize")
    assert f"View at {api.address.removesuffix('/api')}/runs/" in said, "nobody is told who asks"
    flow_run = api.flow_run(said)
    tasks = tasks_of(api, flow_run)
    assert flow_run["state"]["name"] == "Completed"
    assert states(tasks) == {
        "download": "Cached",
        "tokenize": "Completed",
        "train": "Cached",
        "evaluate": "Completed",
    }
    (model,) = Store(flow.store).artifacts("train")
    assert str(model.folder) in tasks["train"]["state"]["message"]
    assert tasks["tokenize"]["state"]["message"].startswith("forced · ")
    assert "evaluate.length: 8 → 9" in tasks["evaluate"]["state"]["message"]


@pytest.mark.parametrize(("settings", "beats"), [((), False), (("train.epochs=3",), True)], ids=["cached", "stale"])
def test_a_run_without_work_has_no_heartbeat_to_wait_for(
    settings: tuple[str, ...], beats: bool, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY

    from flows import pipeline

    seen: list[object] = []

    def run(*given: object, **named: object) -> None:
        seen.append(PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value())
        assert gc.get_freeze_count(), "what was imported is looked through for garbage"

    monkeypatch.setattr(pipeline, "language_model", run)
    asked = {"preset": str(finished.parent / "tiny.toml"), "corpus": None, "set_": list(settings)}
    try:
        pipeline.main(**asked, store=str(finished), remote=None)
    finally:
        gc.unfreeze()
    assert seen == [30 if beats else None]


def test_the_command_line_reuses_what_the_flow_made(first: dict[str, Any], flow: Flow, here: Rnnlm) -> None:
    done = here("run", "--preset", flow.preset, "--store", flow.store, "--json")
    assert done.stdout.count('"cached"') == 4


def test_a_mistake_fails_the_run_with_its_sentence(flow: Flow, api: Api) -> None:
    said = flow.run("--corpus", "nowhere.txt", code=2)
    assert "Traceback" not in said
    flow_run = api.flow_run(said)
    tasks = tasks_of(api, flow_run)
    assert flow_run["state"]["name"] == "Failed"
    assert "nowhere.txt" in flow_run["state"]["message"]
    assert "nowhere.txt" in tasks["download"]["state"]["message"]
    assert tasks["download"]["run_count"] == 1, "a mistake is not tried again"


def test_a_download_is_retried_as_a_task(
    flow: Flow, api: Api, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import walk
    from flows.pipeline import language_model
    from stages.pipeline.settings import load

    def recovering(handler: Handler, before: int) -> None:
        if before < 4:  # as often as one attempt of the task asks
            handler.head(503, Retry_After=0)
        else:
            handler.body(b"Then the cat saw birds over the sea.\n" * 40, Content_Type="text/plain")

    patient = walk.TASKS["download"]
    assert patient.retries == 3
    assert min(patient.retry_delay_seconds) >= 10, "a host that is away is not back in a moment"
    monkeypatch.setitem(walk.TASKS, "download", patient.with_options(retry_delay_seconds=[0.1, 0.1, 0.1]))
    monkeypatch.setenv("CORPUS_TOKEN", "ZvT9secret")
    address = server.route("/text.txt?token=ZvT9secret", recovering).replace("ZvT9secret", "${CORPUS_TOKEN}")
    with temporary_settings({PREFECT_API_URL: api.address}):
        config = load(str(flow.preset), address)
        state: Any = language_model(config, store=str(tmp_path / "store"), return_state=True)
        APILogHandler().flush()
    assert state.name == "Completed"
    flow_run = api.call("GET", f"flow_runs/{state.state_details.flow_run_id}").json()
    tasks = tasks_of(api, flow_run)
    assert tasks["download"]["run_count"] == 2
    runs = {"flow_run_id": {"any_": [flow_run["id"]]}}
    logs, artifacts = (api.ask(kind, **{kind: runs}) for kind in ("logs", "artifacts"))
    assert any("?token=${CORPUS_TOKEN}" in line["message"] for line in logs)
    assert artifacts
    assert "ZvT9secret" not in json.dumps([flow_run, tasks, logs, artifacts])


@pytest.mark.parametrize("address", ["http://me:ZvT9secret@h/a.txt", "http://h/a.txt?token=ZvT9secret"])
def test_what_prefect_would_show_is_refused_before_it_is_told(address: str) -> None:
    from flows import pipeline

    with pytest.raises(ConfigError, match=r"write \$\{NAME\} in its place") as refusal:
        pipeline.main(preset="sample", corpus=address, set_=[], store=None, remote=None)
    assert "ZvT9secret" not in str(refusal.value)


def test_progress_that_takes_a_while_becomes_an_artifact(api: Api) -> None:
    from prefect import flow
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import walk

    def shown_last() -> dict[str, Any]:
        found: list[dict[str, Any]] = api.ask(
            "artifacts", artifacts={"key": {"any_": ["test-progress"]}}, sort="CREATED_DESC", limit=1
        )
        return found[0]

    @flow(name="long-work")
    def work() -> None:
        shown = walk.Shown("test", threading.Event(), seconds_between=0)
        shown(1, 4, "epoch 1 of 4 · perplexity 4.1 · 98,000 tokens/s")
        artifact = shown_last()
        seen.append((artifact["type"], artifact["data"], artifact["description"]))
        shown.finish()

    seen: list[tuple[str, float, str]] = []
    with temporary_settings({PREFECT_API_URL: api.address}):
        work()
    assert seen == [("progress", 25.0, "epoch 1 of 4 · perplexity 4.1 · 98,000 tokens/s")]
    assert shown_last()["data"] == 100.0


def test_progress_that_cannot_be_shown_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import walk

    def away(*arguments: object, **options: object) -> None:
        raise httpx.ConnectError("the server is away")

    monkeypatch.setattr(walk, "create_progress_artifact", away)
    shown = walk.Shown("train", threading.Event(), seconds_between=0)
    shown(1, 2, "perplexity 4.1")
    shown.finish()


def test_a_training_that_was_cancelled_ends_where_no_worker_ends_it(
    flow: Flow, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that runs under a worker which was killed, or from which the server was away for half a minute."""
    from prefect.runtime import flow_run
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import own_run, walk
    from flows.pipeline import language_model
    from stages.pipeline.settings import load

    def cancel(shown: walk.Shown, *given: Any) -> None:
        epochs.append(given)
        if len(epochs) == 1:
            state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
            api.call("POST", f"flow_runs/{flow_run.id}/set_state", json=state).raise_for_status()
        report(shown, *given)

    epochs: list[Any] = []
    report = walk.Shown.__call__
    monkeypatch.setattr(walk.Shown, "__call__", cancel)
    monkeypatch.setattr(own_run, "SECONDS_BETWEEN_LOOKS", 0.1)
    with temporary_settings({PREFECT_API_URL: api.address}):
        config = load(str(flow.preset), None, ["train.epochs=5000"])
        state: Any = language_model(config, store=str(tmp_path / "store"), return_state=True)
    assert state.name == "Cancelled"
    assert "nothing is lost" in state.message
    assert list((tmp_path / "store").glob("checkpoints/*/*.safetensors"))
    assert states(tasks_of(api, {"id": str(state.state_details.flow_run_id)}))["train"] == "Cancelled"


def test_a_server_that_is_away_is_one_sentence(flow: Flow) -> None:
    said = Flow("http://me:ZvT9secret@127.0.0.1:9/api", flow.folder).run(code=2)
    assert said.splitlines()[-1].startswith("rnnlm: the Prefect server at http://…@127.0.0.1:9/api does not answer")
    assert "Traceback" not in said
    assert "ZvT9secret" not in said


def test_without_a_server_the_flow_brings_its_own(first: dict[str, Any], flow: Flow, migrated: Path) -> None:
    shutil.copy(migrated, flow.folder / "home" / "prefect.db")
    said = Flow(None, flow.folder).run()
    assert "temporary server" in said
    assert said.count("Cached") == 4


def test_prefects_settings_hold_wherever_a_flow_is_started(tmp_path: Path) -> None:
    code = (
        "import logging, flows.pipeline; from prefect.settings import get_current_settings\n"
        "print(get_current_settings().server.ephemeral, logging.getLogger('stages').level)\n"
        "print(flows.pipeline.language_model.parameters.properties['force']['items']['enum'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_LOGGING_LEVEL": "WARNING"}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60).stdout
    first, second = said.splitlines()
    assert first.endswith(f"startup_timeout_seconds=120 {logging.WARNING}")
    assert second == str(graph.shown())


def test_without_a_place_for_what_prefect_keeps_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "file" / "home")}
    command = [sys.executable, "-m", "flows.pipeline"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("rnnlm: ")
    assert done.stderr.endswith("set PREFECT_HOME to a folder that can be written\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "PREFECT_API_URL",
            "http://me:ZvT9secret@[::1",
            "one of its settings, Settings: Value error, Invalid IPv6 URL; ",
        ),
        (
            "PREFECT_LOGGING_LEVEL",
            "loud",
            "one of its settings, LoggingSettings level: Input should be 'DEBUG', 'INFO'",
        ),
        ("PREFECT_API_URL", "http://h/\x1b[31m", "PREFECT_API_URL is no address"),
    ],
)
def test_a_setting_that_prefect_refuses_is_one_sentence(name: str, value: str, says: str) -> None:
    command = [sys.executable, "-c", "import flows"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, name: value}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("rnnlm: ")
    assert says in done.stderr
    assert "ZvT9secret" not in done.stderr


@pytest.mark.parametrize(
    ("base", "laid"),
    [
        ({"train": {"epochs": 2, "seed": 1}}, {"train": {"epochs": 3, "seed": 1}}),
        ({"evaluate": {"length": 9}}, {"evaluate": {"length": 9}, "train": {"epochs": 3}}),
        ({"train": [2]}, {"train": [2]}),
        ("none", "none"),
    ],
)
def test_a_runs_fields_are_laid_over_its_deployments(base: object, laid: object) -> None:
    from flows import own_run

    assert own_run._over(base, {"train": {"epochs": 3}}) == laid
