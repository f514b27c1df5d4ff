"""A real Prefect server on loopback, one for all the flow tests, whichever of pytest's workers runs them."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

# Stages run outside of a flow, too, in a process that has Prefect's log handlers.
os.environ["PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW"] = "ignore"


ROOT = Path(__file__).parents[2]
MIGRATED = ROOT / ".pytest_cache" / "user" / f"prefect-{version('prefect')}.db"
"""A database of this Prefect in which nothing stands yet: to make one takes a server ten seconds of its start."""
End = Callable[["subprocess.Popen[bytes]"], None]
# One for all: each reads the certificates of all authorities, which takes 40 times as long as a question on loopback.
CLIENT = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))


class Api:
    """What a server answers, asked over HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, path: str, **how: Any) -> httpx.Response:
        """What SQLite was too busy for (503) is asked again, as Prefect's own clients do."""
        deadline = time.monotonic() + 90
        while True:
            answer = CLIENT.request(method, f"{self.address}/{path}", **how)
            if answer.status_code != 503:
                return answer
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.3)

    def ask(self, what: str, **query: Any) -> Any:
        """All of a kind that fit a query."""
        answer = self.call("POST", f"{what}/filter", json=query)
        answer.raise_for_status()
        return answer.json()

    def flow_run(self, said: str) -> dict[str, Any]:
        """The flow run of a process, by the address that Prefect logs at its beginning."""
        (run,) = set(re.findall("/runs/flow-run/([0-9a-f-]{36})", said))
        found: dict[str, Any] = self.call("GET", f"flow_runs/{run}").json()
        return found

    def task_runs(self, flow_run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("task_runs", flow_runs={"id": {"any_": [flow_run]}})
        return found

    def ended_task_runs(self, flow_run: str) -> dict[str, dict[str, Any]]:
        """By name, those of a flow run that has ended; their ends reach the server as events, a little later."""
        deadline = time.monotonic() + 30
        while True:
            found = {task["name"].rpartition("-")[0]: task for task in self.task_runs(flow_run)}
            if all(
                task["state"] and task["state"]["type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
                for task in found.values()
            ):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


@pytest.fixture(scope="session")
def end() -> End:
    """Ctrl-C, and `kill -9` for what does not end: Prefect's worker and runner sometimes do not on a busy server."""

    def ended(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return ended


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server with a database of its own. The first worker that wants it starts it, the last one to leave stops it."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prefect"
    home.mkdir(exist_ok=True)
    with _users(home) as users:
        if not users:
            users.append(_start(home))
        users.append(os.getpid())
        address = users[0]["address"]
    try:
        yield Api(address)
    finally:
        from prefect.logging.handlers import APILogHandler

        # What flows have logged here is sent while there is a server: Prefect would try for a minute to find it.
        APILogHandler().flush()
        with _users(home) as users:
            users.remove(os.getpid())
            if len(users) == 1:
                _stop(**users.pop())


@pytest.fixture
def migrated(api: Api) -> Path:
    """A database to start another server on."""
    return MIGRATED


@contextmanager
def _users(home: Path) -> Iterator[list[Any]]:
    """The server and the processes that use it, to be changed by one of them at a time; empty where there is none."""
    with (home / "users.json").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        users: list[Any] = json.loads(file.read() or "[]")
        yield users
        file.truncate(0)
        json.dump(users, file)


def _start(home: Path) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "4",  # a minute otherwise
    }
    environment.pop("PREFECT_API_URL", None)
    # From the root, as the README has it, where the server finds the settings in pyproject.toml.
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    if MIGRATED.exists() and not (home / "prefect.db").exists():
        shutil.copy(MIGRATED, home / "prefect.db")
    log = home / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + 300
    while not _answers(address):
        assert process.poll() is None, log.read_text()
        if time.monotonic() > deadline:
            process.kill()  # nobody else would end it
            raise AssertionError(f"the server is not healthy:\n{log.read_text()}")
        time.sleep(0.2)
    if not MIGRATED.exists():
        keep(home / "prefect.db")
    return {"pid": process.pid, "address": address}


def keep(database: Path) -> None:
    """For the servers to come; it is whole although its server is at work."""
    MIGRATED.parent.mkdir(parents=True, exist_ok=True)
    begun = MIGRATED.with_suffix(f".{os.getpid()}")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(begun)) as copy:
        source.backup(copy)
    begun.replace(MIGRATED)


def _stop(pid: int, address: str) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while _answers(address):
        assert time.monotonic() < deadline, "the server does not end"
        time.sleep(0.2)


def _answers(address: str) -> bool:
    try:
        return CLIENT.get(f"{address}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
