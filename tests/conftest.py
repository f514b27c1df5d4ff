"""What several tests share: a small run, the command line in a process or in this one, a server to download from."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.tables.vocab import Vocab
from stages.lm.parameters import Architecture

ROOT = Path(__file__).parent.parent

pytest_plugins = ("tests.s3",)

# What the tests make the program remember is their own, and shared by all of them.
os.environ["XDG_CACHE_HOME"] = str(ROOT / ".pytest_cache" / "user")
# A shell gives what it starts in the background no Ctrl-C, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and what is started by `nohup` none of this

TINY = """
[tokenize]
train_share = 0.8
valid_share = 0.1
test_share = 0.1

[train]
engine = "bptt"
hidden_size = 8
batch_size = 4
num_steps = 8
epochs = 2

[evaluate]
prefixes = ["the"]
length = 8
"""

TEXT = "".join(
    f"Then the {animal} saw {number} birds over the sea.\n" for number in range(12) for animal in ("cat", "dog")
)

BESIDE = {
    "test_style.py": "flows/test_declared.py",
    "test_crashes.py": "flows/test_edited.py",
    "test_incremental.py": "flows/test_fifth_stage.py",
    "test_crash.py": "flows/test_pipeline.py",
}
"""What takes a core for a minute, and what of the flows, which wait for a server, comes just before it: at the end of
the suite it would leave the other core idle."""

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [item.path.relative_to(ROOT / "tests").as_posix() for item in items]
    first = {name: number for number, name in reversed([*enumerate(names)])}
    places = dict(zip(items, (first.get(BESIDE.get(name, name), first[name]) for name in names), strict=True))
    items.sort(key=places.__getitem__)


@pytest.fixture(scope="session")
def tiny_settings() -> str:
    """A preset that trains in a moment, on any text."""
    return TINY


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """A text that is enough for it."""
    return TEXT


@pytest.fixture
def tiny(tmp_path: Path, tiny_settings: str, tiny_text: str) -> Path:
    """The preset in a file, on the text in a file beside it."""
    return write_tiny(tmp_path, tiny_settings, tiny_text)


def write_tiny(folder: Path, settings: str, text: str) -> Path:
    """The preset's file in a folder."""
    (folder / "text.txt").write_text(text, encoding="utf-8")
    preset = folder / "tiny.toml"
    preset.write_text(f'[download]\ncorpus = "{folder / "text.txt"}"\n{settings}', encoding="utf-8")
    return preset


@pytest.fixture
def rnnlm(tmp_path: Path) -> Rnnlm:
    """Run ``rnnlm`` as a user would, its store in a folder of the test's own."""

    def call(*arguments: str | Path, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "RNNLM_STORE": str(tmp_path / "store"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "stages.cli", *map(str, arguments)]
        options = {"cwd": ROOT, "env": environment, **options}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def here(tmp_path: Path) -> Rnnlm:
    """The same in this process, for what is not about processes: nothing heavy is loaded again for each command."""

    def call(*arguments: str | Path, code: int = 0, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return in_this_process(tmp_path / "store", *arguments, code=code, cwd=cwd)

    return call


def in_this_process(
    store: Path, *arguments: str | Path, code: int = 0, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run ``rnnlm``, and leave the process as it was."""
    from stages.cli.app import main

    command = ["rnnlm", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(_signals_and_logging_kept())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.chdir(cwd)
        patch.setenv("RNNLM_STORE", str(store))
        patch.setattr(sys, "argv", command)
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        end = stack.enter_context(pytest.raises(SystemExit))
        main()
    done = subprocess.CompletedProcess(command, int(end.value.code or 0), out.getvalue(), err.getvalue())
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@contextmanager
def _signals_and_logging_kept() -> Iterator[None]:
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    loggers = [logging.getLogger(floor) for floor in ("data", "stages")]
    before = [(logger.level, [*logger.handlers]) for logger in loggers]
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        for logger, (level, mine) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.handlers[:] = mine


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> Path:
    """A store that holds a run of ``tiny``; to be copied and left as it is."""
    folder = tmp_path_factory.mktemp("finished")
    in_this_process(folder / "store", "run", "--preset", write_tiny(folder, tiny_settings, tiny_text))
    return folder / "store"


@pytest.fixture
def trained(tiny: Path, finished: Path) -> Path:
    """``tiny``, and in the test's own store a run of it that has ended."""
    shutil.copytree(finished, tiny.parent / "store")
    return tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model that was trained nowhere."""
    folder = tmp_path / "model"
    folder.mkdir()
    vocab = Vocab(["<unk>", *" abcdefghijklmnopqrstuvwxyz\n"], [0] * 29)
    architecture = Architecture("gru", "tanh", 16, 1, len(vocab), 8)
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in architecture.shapes().items()}
    save_file(weights, folder / "model.safetensors")
    vocab.write(folder / "vocab.arrow")
    description = {"format": 2, **asdict(architecture), "level": "char", "normalizer": "lower", "epoch": 1}
    (folder / "config.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


# --- a server to download from


CONDITIONS = ("If-None-Match", "If-Modified-Since")


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the route of its path, with the number of requests that came there before it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        before = len(self.server.asked(self.path))
        self.server.requests.append((self.path, dict(self.headers.items())))
        self.server.routes[self.path](self, before)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def head(self, status: int = 200, **headers: str | int) -> None:
        """The status line and headers; an underscore stands for a hyphen."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def body(self, body: bytes, status: int = 200, **headers: str | int) -> None:
        self.head(status, **headers, Content_Length=len(body))
        self.send(body)

    def send(self, body: bytes) -> None:
        self.server.sent += len(body)  # before the client can know
        self.wfile.write(body)

    def versioned(self, body: bytes, **version: str) -> None:
        """The body, or just the word that it is unchanged to whoever has this version of it."""
        wanted = {"If-None-Match": version.get("ETag"), "If-Modified-Since": version.get("Last_Modified")}
        asked = [name for name in CONDITIONS if self.headers[name] is not None]
        if asked and self.headers[asked[0]] == wanted[asked[0]]:
            self.head(304, **version)
        else:
            self.body(body, 200, **version)

    def rest(self, body: bytes, **version: str | int) -> None:
        """The range that was asked for, as a well-behaved server sends it, of the version whose ETag is "1"."""
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.body(body[start:], 206, Content_Range=span, **version or {"ETag": '"1"'})

    def cut(self, body: bytes, after: int, reset: bool, **headers: str | int) -> None:
        """Promise the whole body and break the connection off in the middle."""
        self.head(200, **headers, Content_Length=len(body))
        self.send(body[:after])
        self.wfile.flush()
        if reset:
            time.sleep(0.05)  # or the reset overtakes the bytes
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


Route = Callable[[Handler, int], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0

    def route(self, path: str, route: Route) -> str:
        """The address at which ``route`` now answers."""
        self.routes[path] = route
        return f"http://127.0.0.1:{self.server_port}{path}"

    def asked(self, path: str = "/a") -> list[dict[str, str]]:
        """The headers of every request to ``path`` so far."""
        return [headers for asked, headers in self.requests if asked == path]

    def conditions(self, path: str = "/a") -> list[dict[str, str]]:
        """For each request to ``path`` the headers that ask for another version only."""
        return [{name: asked[name] for name in CONDITIONS if name in asked} for asked in self.asked(path)]

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is part of the tests


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An HTTP server on loopback that misbehaves in every way it is told to."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
