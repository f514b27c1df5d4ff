"""A server in a process of its own, with a small model; and what several tests ask it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[3]
SHORT = {"REQUEST": 1.0, "READING": 1.0, "PARTING": 1.0, "STUCK": 1.0, "LOOKED": 0.1, "CONNECTIONS": 200}
"""Limits of a server whose tests need not wait."""


@dataclass
class Running:
    """A server that answers."""

    process: subprocess.Popen[str]
    address: str
    store: Path
    said: list[str] = field(default_factory=list)
    """Lines of its standard error."""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def ask(self, path: str = "/v1/completions", **fields: Any) -> httpx.Response:
        return httpx.post(self.address + path, json=fields, timeout=60)

    def complete(self, **fields: Any) -> dict[str, Any]:
        response = self.ask(**fields)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.address}/health").json()
        return answer

    def metric(self, name: str) -> float:
        """The value of a counter, with its labels if it has some."""
        for line in httpx.get(f"{self.address}/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def waits_for(self, what: Callable[[], object], seconds: float = 10) -> None:
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until, "\n".join(self.said)
            time.sleep(0.02)


@contextmanager
def started(
    store: Path, *options: str, limits: dict[str, float] | None = None, **environment: str
) -> Iterator[Running]:
    """Run `rnnlm serve` on a port that is free."""
    shortened = "".join(f"limits.{name} = {value!r}\n" for name, value in (SHORT | (limits or {})).items())
    script = f"from stages.serving import limits\n{shortened}from stages.cli.__main__ import main\nmain()"
    command = [sys.executable, "-c", script, "serve", "--port", "0", "--store", str(store), *options]
    surroundings = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    process = subprocess.Popen(
        command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said: list[str] = []
    begun = threading.Event()
    found: list[str] = []

    def listen() -> None:
        assert process.stderr
        for line in process.stderr:
            said.append(line.rstrip("\n"))
            if match := re.search(r" at (http://\S+)$", line):
                found.append(match[1])
                begun.set()
        begun.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        assert begun.wait(60), said
        assert found, said
        yield Running(process, found[0], store, said)
    finally:
        process.kill()
        process.wait()
        thread.join()
        assert process.stdout
        process.stdout.close()


@pytest.fixture(scope="module")
def running(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for the tests of a module, each of which leaves it as it was."""
    store = tmp_path_factory.mktemp("served") / "store"
    shutil.copytree(finished, store)
    with started(store) as server:
        yield server


def head(length: int) -> bytes:
    """The head of a request for completions whose body has so many bytes."""
    headers = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(length)}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(["POST /v1/completions HTTP/1.1", *lines, "", ""]).encode()


@contextmanager
def connected(running: Running) -> Iterator[socket.socket]:
    """A client that does what it is told, byte by byte."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=15) as client:
        yield client
