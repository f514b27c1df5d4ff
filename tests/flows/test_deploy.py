"""Deployments with the real things: server, work pool, deploy, worker, schedule, and processes that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LONG = 1_000_000


class Site:
    """A server with the project's deployments, and a worker."""

    def __init__(self, api: Any, folder: Path) -> None:
        self.api = api
        self.store = folder / "store"
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": api.address,
            "RNNLM_STORE": str(self.store),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "2",
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

    def start(self, deployment: str, **parameters: Any) -> str:
        """What the button in the UI does; the flow run's id."""
        found = self.api.call("GET", f"deployments/name/{deployment}").json()
        wanted = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        answer = self.api.call("POST", f"deployments/{found['id']}/create_flow_run", json=wanted)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def remove(self, deployment: str) -> None:
        assert self.api.call("DELETE", f"deployments/{deployment}").status_code in (204, 404)

    def state(self, run: str) -> tuple[str, str]:
        answer = self.api.call("GET", f"flow_runs/{run}").json()
        return answer["state"]["name"], answer["state"].get("message") or ""

    def wait(self, what: Callable[[], Any], seconds: float = 90, there: Callable[[Any], bool] = bool) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if there(found := what()):
                return found
            time.sleep(0.3)
        raise AssertionError("it did not happen in time")

    def logs(self, run: str) -> str:
        lines = self.api.ask("logs", logs={"flow_run_id": {"any_": [run]}}, limit=200)
        return "\n".join(line["message"] for line in lines)


@pytest.fixture(scope="module")
def site(api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The commands of the README, in their order."""
    folder = tmp_path_factory.mktemp("site")
    opened = Site(api, folder)
    opened.prefect("work-pool", "create", "rnnlm", "--type", "process")
    opened.prefect("--no-prompt", "deploy", "--prefect-file", "flows/prefect.yaml", "--all")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "rnnlm"]
    with (folder / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=opened.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield opened
    finally:
        worker.terminate()
        worker.wait(60)


@pytest.fixture
def config(tiny: Path) -> dict[str, Any]:
    return {
        "download": {"corpus": str(tiny.parent / "text.txt")},
        "train": {"hidden_size": 8, "batch_size": 4, "num_steps": 8, "epochs": 2},
        "evaluate": {"length": 8, "prefixes": ["the"]},
    }


def test_a_deployment_runs_and_a_wrong_field_is_refused_before_anything_runs(
    site: Site, config: dict[str, Any]
) -> None:
    said = site.prefect(
        "deployment", "run", "language-model/on-demand", "--params", json.dumps({"config": config}), "--watch"
    )
    run = site.runs("language-model/on-demand")[0]
    assert run["state"]["name"] == "Completed", said
    assert "text.txt" in run["name"]

    before = len(site.runs("language-model/on-demand"))
    for wrong in ({"train": {"hiden_size": 8}}, {"train": {"hidden_size": "many"}}, {"train": {"device": "tpu"}}):
        said = site.prefect(
            "deployment", "run", "language-model/on-demand", "--params", json.dumps({"config": wrong}), code=1
        )
        assert "hid" in said or "tpu" in said
    assert len(site.runs("language-model/on-demand")) == before


def test_the_nightly_schedule_is_there_and_a_schedule_fires(site: Site, config: dict[str, Any]) -> None:
    (nightly,) = site.api.ask("deployments", deployments={"name": {"any_": ["nightly"]}})
    assert nightly["entrypoint"] == "flows.retrain.retrain"
    assert [entry["schedule"]["cron"] for entry in nightly["schedules"]] == ["0 3 * * *"]
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert nightly["global_concurrency_limit"]["limit"] == 1

    kept = ("flow_id", "entrypoint", "path", "pull_steps", "work_pool_name")
    impatient = {name: nightly[name] for name in kept} | {
        "name": "impatient",
        "parameters": {"config": config},
        "schedules": [{"schedule": {"interval": 5}, "active": True}],
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


def test_a_second_night_is_cancelled_while_one_lasts(site: Site, config: dict[str, Any]) -> None:
    long = {**config, "train": {**config["train"], "epochs": LONG, "seed": 3}}
    first = site.start("retrain/nightly", config=long)
    site.wait(lambda: site.state(first)[0] == "Running")
    second = site.start("retrain/nightly", config=long)
    site.wait(lambda: site.state(second)[0] == "Cancelled")
    assert site.state(first)[0] == "Running"
    site.prefect("flow-run", "cancel", first)
    site.wait(lambda: site.state(first)[0] == "Cancelled")


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


def training(site: Site, config: dict[str, Any], seed: int) -> tuple[str, dict[str, Any]]:
    """Start a long training and wait until it has a checkpoint."""
    long = {**config, "train": {**config["train"], "epochs": LONG, "seed": seed}}
    before = set(site.store.glob("checkpoints/*/*"))
    run = site.start("language-model/on-demand", config=long)
    site.wait(lambda: set(site.store.glob("checkpoints/*/*.safetensors")) - before)
    return run, long


def cut_short(site: Site, long: dict[str, Any]) -> str:
    """Start the same training again, let it say where it goes on, cancel it, and give back what it logged."""
    run = site.start("language-model/on-demand", config=long)
    site.wait(lambda: "training goes on in epoch" in site.logs(run))
    site.prefect("flow-run", "cancel", run)
    site.wait(lambda: site.state(run)[0] == "Cancelled")
    return site.logs(run)


def flow_processes(site: Site) -> list[int]:
    """Processes that run a flow for the site's worker."""
    own = f"RNNLM_STORE={site.store}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if own in environment and any(word.endswith((b"prefect.flow_engine", b"prefect.engine")) for word in words):
                found.append(int(entry.name))
    return found


def test_a_killed_training_is_crashed_and_the_next_run_goes_on(site: Site, config: dict[str, Any]) -> None:
    run, long = training(site, config, seed=1)
    for process in flow_processes(site):
        os.kill(process, signal.SIGKILL)
    site.wait(lambda: site.state(run)[0] == "Crashed")
    cut_short(site, long)


def test_a_cancelled_training_keeps_its_checkpoint_and_the_next_run_goes_on(site: Site, config: dict[str, Any]) -> None:
    run, long = training(site, config, seed=2)
    site.prefect("flow-run", "cancel", run)
    site.wait(lambda: site.state(run)[0] == "Cancelled")
    assert "training goes on in epoch" in cut_short(site, long)


def test_one_process_serves_all_deployments_without_a_pool(site: Site, config: dict[str, Any], tmp_path: Path) -> None:
    for deployment in site.api.ask("deployments"):
        site.remove(deployment["id"])
    with (tmp_path / "serve.log").open("w") as log:
        command = [sys.executable, "-m", "flows.serve"]
        serving = subprocess.Popen(command, cwd=ROOT, env=site.environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        nightly = "deployments/name/retrain/nightly"
        site.wait(lambda: site.api.call("GET", nightly).status_code == 200)
        served = site.api.call("GET", nightly).json()
        assert served["work_pool_name"] is None
        assert served["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        assert [entry["schedule"]["cron"] for entry in served["schedules"]] == ["0 3 * * *"]
        run = site.start("language-model/on-demand", config=config)
        site.wait(lambda: site.state(run)[0] == "Completed")
    finally:
        serving.send_signal(signal.SIGINT)
        serving.wait(60)
