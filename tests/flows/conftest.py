"""A real Prefect server on loopback, one for all the flow tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest


class Api:
    """What a server answers, asked over HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, path: str, **how: Any) -> httpx.Response:
        """What SQLite was too busy for (503) is asked again, as Prefect's own clients do."""
        deadline = time.monotonic() + 90
        while True:
            answer = httpx.request(method, f"{self.address}/{path}", timeout=30, **how)
            if answer.status_code != 503:
                return answer
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.3)

    def ask(self, what: str, **query: Any) -> Any:
        """All of a kind that fit a query."""
        answer = self.call("POST", f"{what}/filter", json=query)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture(scope="session")
def api(server: str) -> Api:
    return Api(server)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the API of a server with a database of its own."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",  # a minute otherwise
    }
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=home)
    address = f"http://127.0.0.1:{port}/api"
    try:
        _wait(address, process, home / "server.log")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{address}/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"the server is not healthy:\n{log.read_text()}")
