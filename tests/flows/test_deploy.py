"""Deployments with the real things: server, work pool, deploy, worker, schedule, and processes that die."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from data.progress import LogLines
from data.store.folder import Store
from stages.config import RunConfig, TrainConfig
from stages.pipeline import run as pipeline

if TYPE_CHECKING:
    from tests.flows.conftest import Api, End

ROOT = Path(__file__).parents[2]
LONG = 1_000_000
"""Epochs that no test waits for."""
STOPPED = re.compile(r"in epoch ([\d,]+) of [\d,]+ and nothing is lost")


class Site:
    """A server with the project's deployments, and a worker."""

    def __init__(self, api: Api, folder: Path, text: str) -> None:
        self.api = api
        self.store = folder / "store"
        self.worker_log = folder / "worker.log"
        corpus = folder / "text.txt"
        corpus.write_text(text, encoding="utf-8")
        self.config: dict[str, Any] = {
            "download": {"corpus": str(corpus)},
            # All fields: whatever a deployment says, the same training.
            "train": TrainConfig(engine="bptt", hidden_size=8, batch_size=4, num_steps=8, epochs=2).model_dump(),
            "evaluate": {"length": 8, "prefixes": ["the"]},
        }
        self.long = {**self.config, "train": {**self.config["train"], "epochs": LONG}}
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": api.address,
            "RNNLM_STORE": str(self.store),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2",  # each is written down, and SQLite has one writer at a time
        }

    def prefect(self, *arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=180,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        flow, name = deployment.split("/")
        found: list[dict[str, Any]] = self.api.ask(
            "flow_runs",
            flows={"name": {"any_": [flow]}},
            deployments={"name": {"any_": [name]}},
            sort="EXPECTED_START_TIME_DESC",
        )
        return found

    def ask_for(self, deployment: str, parameters: dict[str, Any]) -> httpx.Response:
        """What the button in the UI does."""
        found = self.api.call("GET", f"deployments/name/{deployment}").json()
        wanted = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.api.call("POST", f"deployments/{found['id']}/create_flow_run", json=wanted)

    def start(self, deployment: str, config: dict[str, Any]) -> str:
        """A flow run's id, once it is under way.

        A server on SQLite that is busy may refuse what a worker reports, and the run has crashed before it began: then
        another one is started, as somebody would.
        """
        for _ in range(4):
            answer = self.ask_for(deployment, {"config": config})
            answer.raise_for_status()
            run = str(answer.json()["id"])
            if "Failed to submit" not in self.wait(partial(self.under_way, run)):
                return run
        raise AssertionError(f"no run could be started; the worker: {self.worker_log.read_text()}")

    def under_way(self, run: str) -> str:
        """Its state in words; empty before anything has begun."""
        name, message = self.state(run)
        return "" if name in ("Scheduled", "Late", "Pending") else f"{name} {message}"

    def remove(self, deployment: str) -> None:
        assert self.api.call("DELETE", f"deployments/{deployment}").status_code in (204, 404)

    def state(self, run: str) -> tuple[str, str]:
        answer = self.api.call("GET", f"flow_runs/{run}").json()
        return answer["state"]["name"], answer["state"].get("message") or ""

    def wait(self, what: Callable[[], Any]) -> Any:
        """A busy machine takes a minute and more to begin a run beside another."""
        deadline = time.monotonic() + 240
        while not (found := what()):
            assert time.monotonic() < deadline, f"it did not happen in time; the worker: {self.worker_log.read_text()}"
            time.sleep(0.2)
        return found

    def wait_for(self, run: str, state: str) -> None:
        self.wait(lambda: self.state(run)[0] == state)

    def logs(self, run: str) -> str:
        lines = self.api.ask("logs", logs={"flow_run_id": {"any_": [run]}}, limit=200)
        return "\n".join(line["message"] for line in lines)


@pytest.fixture(scope="module")
def site(api: Api, end: End, tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Iterator[Site]:
    """The commands of the README; the worker starts while the deployments are made."""
    folder = tmp_path_factory.mktemp("site")
    opened = Site(api, folder, tiny_text)
    opened.prefect("work-pool", "create", "rnnlm", "--type", "process")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "rnnlm"]
    with opened.worker_log.open("w") as log:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=opened.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        opened.prefect("--no-prompt", "deploy", "--prefect-file", "flows/prefect.yaml", "--all")
        yield opened
    finally:
        end(worker)
        signal_flows(opened, signal.SIGKILL)


def test_a_run_is_given_one_field_over_the_deployments_own_configuration(site: Site) -> None:
    """As the README starts it; the deployment's corpus is what somebody wrote into `prefect.yaml`."""
    found = site.api.call("GET", "deployments/name/language-model/on-demand").json()
    own = {"parameters": {"config": site.config}}
    site.api.call("PATCH", f"deployments/{found['id']}", json=own).raise_for_status()
    given = {"config": {"train": {"hidden_size": 12}}}
    said = site.prefect("deployment", "run", "language-model/on-demand", "--params", json.dumps(given), "--watch")
    run = site.runs("language-model/on-demand")[0]
    assert run["state"]["name"] == "Completed", said
    assert run["name"].startswith("text.txt: rnn 12 × 2 epochs, ")
    (corpus,) = Store(site.store).artifacts("download")
    assert corpus.manifest.config["corpus"] == site.config["download"]["corpus"]
    assert "training with " in said, "--watch shows what a run logs"


def test_a_wrong_field_is_refused_before_anything_runs(site: Site) -> None:
    before = len(site.runs("language-model/on-demand"))
    for field, value, said in (
        ("hiden_size", 8, "hiden_size"),
        ("hidden_size", "many", "many"),
        ("device", "tpu", "tpu"),
    ):
        answer = site.ask_for("language-model/on-demand", {"config": {"train": {field: value}}})
        assert answer.status_code == 409
        assert said in answer.text
    assert len(site.runs("language-model/on-demand")) == before


def test_the_nightly_schedule_is_there_and_a_schedule_fires(site: Site) -> None:
    (nightly,) = site.api.ask("deployments", deployments={"name": {"any_": ["nightly"]}})
    assert nightly["entrypoint"] == "flows.retrain.retrain"
    assert [entry["schedule"]["cron"] for entry in nightly["schedules"]] == ["0 3 * * *"]
    (sweep,) = site.api.ask(
        "deployments", deployments={"name": {"any_": ["on-demand"]}}, flows={"name": {"any_": ["sweep"]}}
    )
    assert sweep["entrypoint"] == "flows.sweep.sweep"
    assert sweep["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert sweep["global_concurrency_limit"]["limit"] == 1

    # The server looks every few seconds for what is to be planned, and does not plan what is over: then comes the next.
    soon = datetime.now(UTC) + timedelta(seconds=8)
    kept = ("flow_id", "entrypoint", "path", "pull_steps", "work_pool_name")
    impatient = {name: nightly[name] for name in kept} | {
        "name": "impatient",
        "parameters": {"config": site.config},
        "schedules": [{"schedule": {"interval": 40, "anchor_date": soon.isoformat()}, "active": True}],
    }
    created = site.api.call("POST", "deployments/", json=impatient)
    created.raise_for_status()
    try:
        ended = site.wait(
            lambda: [run for run in site.runs("retrain/impatient") if run["state"]["type"] in ("COMPLETED", "FAILED")]
        )
        assert ended[0]["auto_scheduled"]
        assert ended[0]["state"]["type"] == "COMPLETED", ended[0]["state"]
    finally:
        site.remove(created.json()["id"])


def test_the_readme_has_the_commands_that_these_tests_run() -> None:
    readme = (ROOT / "flows" / "README.md").read_text(encoding="utf-8")
    for command in (
        "prefect work-pool create rnnlm --type process",
        "prefect --no-prompt deploy --prefect-file flows/prefect.yaml --all",
        "prefect worker start --pool rnnlm",
        "prefect deployment run language-model/on-demand --params",
        "python -m flows.serve",
    ):
        assert command in readme


# One long training: a night that lasts, until it is killed; a run that goes on, until it is cancelled; and one more.


@pytest.fixture(scope="module")
def lasting(site: Site) -> str:
    """A night that has put down its first checkpoint, and is held there, for it would take a core."""
    before = set(site.store.glob("checkpoints/*/*.safetensors"))
    run = site.start("retrain/nightly", site.long)
    site.wait(lambda: set(site.store.glob("checkpoints/*/*.safetensors")) - before)
    signal_flows(site, signal.SIGSTOP)
    return run


@pytest.fixture(scope="module")
def resumed(site: Site, lasting: str) -> str:
    """Another run of the same training, which goes on where the night was killed."""
    signal_flows(site, signal.SIGKILL)
    site.wait_for(lasting, "Crashed")
    run = site.start("language-model/on-demand", site.long)
    site.wait(lambda: "training goes on in epoch" in site.logs(run))
    return run


def signal_flows(site: Site, signum: signal.Signals) -> None:
    """Tell the processes that run a flow for the site's worker."""
    own = f"RNNLM_STORE={site.store}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if own in environment and any(word.endswith((b"prefect.flow_engine", b"prefect.engine")) for word in words):
                os.kill(int(entry.name), signum)


def test_a_second_night_ends_at_once_while_one_lasts(site: Site, lasting: str) -> None:
    second = site.start("retrain/nightly", site.long)
    site.wait_for(second, "Unchanged")
    assert site.state(lasting)[0] == "Running"


def test_a_killed_training_is_crashed_and_the_next_run_goes_on(site: Site, lasting: str, resumed: str) -> None:
    assert site.state(lasting)[0] == "Crashed"
    assert "training goes on in epoch" in site.logs(resumed)


def test_a_cancelled_training_keeps_its_checkpoint_and_the_next_run_goes_on(
    site: Site, resumed: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.prefect("flow-run", "cancel", resumed)
    site.wait_for(resumed, "Cancelled")
    states = site.api.call("GET", "flow_run_states/", params={"flow_run_id": resumed}).json()
    assert "Crashed" not in {state["name"] for state in states}
    [epoch] = {int(found[1].replace(",", "")) for state in states if (found := STOPPED.search(state["message"] or ""))}
    ended = RunConfig.model_validate({**site.long, "train": {**site.long["train"], "epochs": epoch}})
    with caplog.at_level(logging.INFO, "stages"):
        list(pipeline.run(ended, Store(site.store), LogLines, until="train"))
    assert f"training goes on in epoch {epoch} of {epoch}" in caplog.text


def test_one_process_serves_all_deployments_without_a_pool(site: Site, tmp_path: Path) -> None:
    for deployment in site.api.ask("deployments", work_pools={"name": {"any_": ["rnnlm"]}}):
        site.remove(deployment["id"])
    with (tmp_path / "serve.log").open("w") as log:
        command = [sys.executable, "-m", "flows.serve"]
        serving = subprocess.Popen(command, cwd=ROOT, env=site.environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        nightly = "deployments/name/retrain/nightly"
        site.wait(lambda: site.api.call("GET", nightly).status_code == 200)
        served = site.api.call("GET", nightly).json()
        assert served["work_pool_name"] is None
        assert [entry["schedule"]["cron"] for entry in served["schedules"]] == ["0 3 * * *"]
        site.wait_for(site.start("language-model/on-demand", site.config), "Completed")
        serving.terminate()
        assert serving.wait(60) == 0, "with nothing on, one signal ends it"
        assert site.api.call("GET", nightly).json()["paused"]
    finally:
        serving.kill()
        serving.wait()


def test_a_server_that_is_started_in_the_root_keeps_leases_and_shows_logs(api: Api) -> None:
    """Or a server that restarts ends the runs that hold a place, and `--watch` shows no verdict."""
    found = api.call("GET", "admin/settings").json()["server"]
    assert found["concurrency"]["lease_storage"] == "prefect.server.concurrency.lease_storage.filesystem"
    assert found["logs"]["stream_publishing_enabled"] is found["logs"]["stream_out_enabled"] is True
