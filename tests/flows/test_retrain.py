"""Nights in a row: a corpus that grows, stays, shrinks and breaks, and a champion that never gets worse."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data.store import champions as champion
from data.store.folder import Store

ROOT = Path(__file__).parents[2]
WORDS = [
    *("sea", "tide", "keeper", "island", "cable", "pencil", "night", "clerk", "rose"),
    *("wall", "boat", "letter", "drum", "storm", "lamp", "stone", "bread", "window"),
]


def story(sentences: int, seed: int = 0) -> str:
    """Sentences of words in no order, so that hardly any 50 characters in a row come twice."""
    draw = random.Random(seed)
    return "".join(f"The {' '.join(draw.choices(WORDS, k=draw.randint(5, 12)))}.\n" for _ in range(sentences))


class Source:
    """A corpus server that knows conditional requests."""

    def __init__(self) -> None:
        self.text = story(500)
        self.kind = "text/plain"
        self.answers: list[int] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = source.text.encode()
                tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
                unchanged = self.headers.get("If-None-Match") == tag
                source.answers.append(304 if unchanged else 200)
                self.send_response(304 if unchanged else 200)
                self.send_header("ETag", tag)
                if not unchanged:
                    self.send_header("Content-Type", source.kind)
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if not unchanged:
                    self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self._handler = Handler
        self._open(0)
        self.address = f"http://127.0.0.1:{self.web.server_port}/story.txt"

    def _open(self, port: int) -> None:
        self.web = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        threading.Thread(target=self.web.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.web.shutdown()
        self.web.server_close()

    def reopen(self) -> None:
        self._open(self.web.server_port)


@pytest.fixture
def source() -> Iterator[Source]:
    opened = Source()
    yield opened
    opened.close()


class Nights:
    """Runs ``retrain`` against the server and says how it ended."""

    def __init__(self, api: Any, source: Source, folder: Path) -> None:
        self.api, self.source, self.store = api, source, Store(folder / "store")

    def __call__(self, **train: Any) -> tuple[str, str]:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.retrain import retrain
        from stages.config import RunConfig

        shares = {"train_share": 0.7, "valid_share": 0.1, "test_share": 0.2}
        config = RunConfig.model_validate(
            {
                "download": {"corpus": self.source.address},
                "tokenize": shares,
                "train": {"hidden_size": 32, "batch_size": 16, "num_steps": 20, "epochs": 2, **train},
                "evaluate": {"prefixes": ["the "], "length": 20},
            }
        )
        with temporary_settings({PREFECT_API_URL: self.api.address}):
            state = retrain(config, store=str(self.store.root), return_state=True)
        return state.name, state.message

    def events(self, model: str | None) -> list[str]:
        """What the server has heard of a model, once it has heard something."""
        wanted = {"filter": {"resource": {"id": [f"rnnlm.model.{(model or '')[:16]}"]}}}
        for _ in range(50):
            found = self.api.ask("events", **wanted)["events"]
            if found:
                return [event["event"] for event in found]
            time.sleep(0.2)
        return []

    @property
    def champion(self) -> str | None:
        reign = champion.current(self.store)
        return reign.model if reign else None


@pytest.fixture
def night(api: Any, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    from flows import walk

    # The task's own retries wait for half a minute and more; that they happen is another test's business.
    monkeypatch.setitem(walk.TASKS, "download", walk.TASKS["download"].with_options(retries=0))
    return Nights(api, source, tmp_path)


def test_ten_nights(night: Nights, source: Source) -> None:
    assert night()[0] == "Promoted"
    first = night.champion
    assert first

    name, message = night()
    assert (name, source.answers) == ("Unchanged", [200, 304])
    assert "nothing has changed" in message

    source.text += story(40, seed=1)
    name, message = night(epochs=30)
    assert name == "Promoted", message
    second = night.champion
    assert second != first

    name, message = night(epochs=1)
    assert name == "Rejected", message
    assert night.champion == second
    name, message = night(epochs=1)
    assert name == "Unchanged", "what was decided is not decided again"
    assert "compared with this champion before" in message

    good = source.text
    source.text = good[: len(good) // 4]
    name, message = night(epochs=30)
    assert name == "Failed"
    assert "shrank" in message or "largest_loss" in message

    source.text, source.kind = "<!DOCTYPE html><html><title>Gone fishing</title><p>Back soon</html>", "text/html"
    name, message = night(epochs=30)
    assert name == "Failed"
    assert "HTML" in message

    source.text, source.kind = "Мороз и солнце; день чудесный!\n" * 700, "text/plain"
    name, message = night(epochs=30)
    assert name == "Failed"

    source.text = good
    source.close()
    name, message = night(epochs=30)
    assert name == "Failed"
    assert source.address in message
    assert night.champion == second

    source.reopen()
    assert night(epochs=30)[0] == "Unchanged", "the next night goes on by itself"

    assert len(night.store.artifacts("train")) == 3, "what must not reach training did not"
    assert [reign.model for reign in champion.history(night.store)] == [first, second]


def test_each_verdict_leaves_a_page_an_artifact_and_an_event(night: Nights) -> None:
    night(seed=7)  # a model of this test's own, by whose key the server tells events apart
    (page,) = (night.store.root / "reports").glob("*.html")
    assert "promoted" in page.read_text(encoding="utf-8").lower()
    artifacts = night.api.ask("artifacts", artifacts={"key": {"any_": ["report"]}}, sort="CREATED_DESC", limit=1)
    assert "data:image/svg+xml;base64," in artifacts[0]["data"]
    assert night.events(night.champion) == ["rnnlm.model.promoted"]


def test_the_readmes_automation_hears_of_a_rejected_model(night: Nights, tmp_path: Path) -> None:
    readme = (ROOT / "flows" / "README.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"automation create --from-json '(.*?)'\n```", readme, re.DOTALL)
    automation = json.loads(recipe)
    assert automation["actions"][0]["type"] == "send-notification"
    automation["actions"] = [{"type": "do-nothing"}]  # the real one needs somebody's notification block
    command = [sys.executable, "-m", "prefect", "automation", "create", "--from-json", json.dumps(automation)]
    environment = {**os.environ, "PREFECT_API_URL": night.api.address, "PREFECT_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert night(epochs=20)[0] == "Promoted"
    assert night(epochs=1)[0] == "Rejected"
    wanted = {"filter": {"event": {"name": ["prefect.automation.action.executed"]}}}
    for _ in range(150):
        if night.api.ask("events", **wanted)["events"]:
            return
        time.sleep(0.2)
    raise AssertionError("the automation never ran")


def test_rollback_goes_back_one_and_sample_follows(night: Nights, rnnlm: Any) -> None:
    night(epochs=1)
    first = night.champion
    assert night(epochs=30)[0] == "Promoted"
    at = ["--store", night.store.root]
    shown = json.loads(rnnlm("champion", "--json", *at).stdout)
    assert shown["champion"]["model"] == night.champion
    assert len(shown["history"]) == 2
    best = rnnlm("sample", "--prefix", "the ", *at).stdout
    assert first
    assert first[:16] in rnnlm("rollback", "--reason", "it swears", *at).stdout
    assert night.champion == first
    assert "it swears" in rnnlm("champion", *at).stdout
    assert rnnlm("sample", "--prefix", "the ", *at).stdout != best
    assert "rnnlm: " in rnnlm("rollback", *at, code=2).stderr
    name, message = night(epochs=30)
    assert (name, night.champion) == ("Unchanged", first), "a night does not undo what a person did"
    assert "it swears" in message
    withdrawn = shown["champion"]["model"]
    assert withdrawn[:16] in rnnlm("promote", withdrawn[:12], *at).stdout
    assert night.champion == withdrawn


def test_the_flow_rollback_goes_back_and_says_so(night: Nights) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.retrain import rollback

    night(epochs=1, seed=8)
    first = night.champion
    night(epochs=30, seed=8)
    assert night.champion != first
    with temporary_settings({PREFECT_API_URL: night.api.address}):
        state = rollback("it swears", store=str(night.store.root), return_state=True)
        assert state.name == "Completed"
        assert night.champion == first
        assert rollback(store=str(night.store.root), return_state=True).name == "Failed"
    deadline = time.monotonic() + 20
    while "rnnlm.model.rolled-back" not in night.events(first):
        assert time.monotonic() < deadline
        time.sleep(0.2)
