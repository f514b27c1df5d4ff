"""Take from a night what it runs under: Prefect's server is killed (`kill -9`) and started again, its worker stopped.

    .venv/bin/python tests/outage.py [SECONDS]

The server is away for so many seconds, 20 unless told otherwise. Says what the run does meanwhile, whether the next
night is held up, and whether the run can be cancelled. Real parts on a port and in folders of their own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
TEXT = "".join(f"The {word} of the night is a {other}.\n" for word in "abcdefghijklmnop" for other in "qrstuvwxyz" * 3)


class Site:
    """A server, a worker and the deployments, with all they keep in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_SERVER_UI_ENABLED": "false",
            "RNNLM_STORE": str(self.store),
        }
        text = folder / "text.txt"
        text.write_text(TEXT, encoding="utf-8")
        train = {"hidden_size": 8, "batch_size": 4, "num_steps": 8, "epochs": 1_000_000}
        self.config = {
            "download": {"corpus": str(text)},
            "train": train,
            "evaluate": {"length": 8, "prefixes": ["the"]},
        }

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{command[0]}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", *command],
                cwd=ROOT,
                env={**self.environment, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def server(self) -> subprocess.Popen[bytes]:
        process = self.start("server", "start", "--port", str(self.port))
        until(lambda: self.answers())
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("worker", "start", "--pool", "rnnlm", PREFECT_API_URL=self.api)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.api}/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def prefect(self, *arguments: str) -> str:
        environment = {**self.environment, "PREFECT_API_URL": self.api}
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    def night(self, **train: int) -> str:
        """The id of a run of `retrain/nightly` that the button in the UI would start."""
        config = {**self.config, "train": {**self.config["train"], **train}}  # type: ignore[dict-item]
        deployment = httpx.get(f"{self.api}/deployments/name/retrain/nightly").json()["id"]
        wanted = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
        return str(httpx.post(f"{self.api}/deployments/{deployment}/create_flow_run", json=wanted).json()["id"])

    def state(self, run: str) -> str:
        return str(httpx.get(f"{self.api}/flow_runs/{run}").json()["state"]["name"])

    def states(self, run: str) -> list[str]:
        found: Any = httpx.get(f"{self.api}/flow_run_states/", params={"flow_run_id": run}).json()
        return [state["name"] for state in found]

    def trained(self) -> float:
        """When the last checkpoint was put down."""
        return max((file.stat().st_mtime for file in self.store.glob("checkpoints/*/*.safetensors")), default=0.0)


def until(what: Callable[[], Any], seconds: float = 180) -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"it did not happen within {seconds} seconds")
        time.sleep(0.5)
    return time.monotonic() - began


def main() -> None:
    away = float(sys.argv[1]) if sys.argv[1:] else 20
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        server = site.server()
        site.prefect("work-pool", "create", "rnnlm", "--type", "process")
        site.prefect("--no-prompt", "deploy", "--prefect-file", "flows/prefect.yaml", "--all")
        worker = site.worker()
        try:
            lasting = site.night()
            until(site.trained)
            os.killpg(server.pid, signal.SIGKILL)
            time.sleep(away)
            server = site.server()
            moment = time.time()
            until(lambda: site.trained() > moment)
            print(f"the server was killed and away for {away:g} s: the run is {site.state(lasting)}, and trains")
            second = site.night()
            until(lambda: site.state(second) == "Unchanged")
            print("a night that was asked for meanwhile is Unchanged")
            site.prefect("flow-run", "cancel", lasting)
            seconds = until(lambda: site.state(lasting) == "Cancelled")
            print(f"the run was cancelled: after {seconds:.0f} s it had been {', '.join(site.states(lasting))}")

            moment, stopped = time.time(), site.night()
            until(lambda: site.trained() > moment)
            worker.send_signal(signal.SIGTERM)
            seconds = until(lambda: worker.poll() is not None)
            print(f"the worker was stopped: it ended after {seconds:.0f} s, the run is {site.state(stopped)}")
            worker = site.worker()
            last = site.night(epochs=1)
            seconds = until(lambda: site.state(last) == "Promoted")
            print(f"the night after it, {seconds:.0f} s later: {site.state(last)}; that run is {site.state(stopped)}")
            site.prefect("flow-run", "delete", stopped)
            print(json.dumps({"runs": len(httpx.post(f"{site.api}/flow_runs/filter", json={}).json())}))
        finally:
            for process in (worker, server):
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()


if __name__ == "__main__":
    main()
