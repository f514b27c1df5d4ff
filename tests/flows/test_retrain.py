"""Nights as Prefect shows them: states and their messages, events, reports, an automation, and going back.

What a night decides is tested without Prefect, in ``tests/stages/promotion/test_night.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from data.progress import LogLines
from data.store import champions
from data.store.folder import Store
from stages.config import DownloadConfig, RunConfig
from stages.pipeline.run import run
from stages.promotion.judge import judge

if TYPE_CHECKING:
    from tests.conftest import Handler, Rnnlm, Server
    from tests.flows.conftest import Api

ROOT = Path(__file__).parents[2]
BETTER = 8
"""Epochs after which a model is better than after one by more than chance."""
WORDS = [
    *("sea", "tide", "keeper", "island", "cable", "pencil", "night", "clerk", "rose"),
    *("wall", "boat", "letter", "drum", "storm", "lamp", "stone", "bread", "window"),
]


def story(sentences: int, seed: int = 0) -> str:
    """Sentences of words in no order, so that hardly any 50 characters in a row come twice."""
    draw = random.Random(seed)
    return "".join(f"The {' '.join(draw.choices(WORDS, k=draw.randint(5, 12)))}.\n" for _ in range(sentences))


FIRST, GROWN = story(500), story(500) + story(40, seed=1)


def configuration(corpus: str, **train: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "download": {"corpus": corpus},
            "tokenize": {"train_share": 0.7, "valid_share": 0.1, "test_share": 0.2},
            "train": {"engine": "bptt", "hidden_size": 16, "batch_size": 16, "num_steps": 20, "epochs": 1, **train},
            "evaluate": {"prefixes": ["the "], "length": 20},
        }
    )


class Source:
    """An address whose text changes from night to night."""

    def __init__(self, server: Server) -> None:
        self.text, self.kind = FIRST, "text/plain"
        self.away = False
        self.address = server.route("/story.txt", self._answer)
        self.conditions: list[bool] = []
        """Of each request, whether it asked for another text than the one that it names."""

    def _answer(self, handler: Handler, before: int) -> None:
        self.conditions.append("If-None-Match" in handler.headers)
        if self.away:
            handler.head(503, Retry_After=0)
        else:
            body = self.text.encode()
            handler.versioned(body, ETag=f'"{hashlib.sha256(body).hexdigest()[:16]}"', Content_Type=self.kind)


@pytest.fixture
def source(server: Server) -> Source:
    return Source(server)


def served(api: Api) -> AbstractContextManager[object]:
    """Flows that are called meanwhile run against the server, and end without waiting for the second in which the
    thread of their heartbeat looks up."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    return temporary_settings({PREFECT_API_URL: api.address, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


class Nights:
    """Runs ``retrain`` against the server and says how it ended."""

    def __init__(self, api: Api, source: Source, store: Path) -> None:
        self.api, self.source, self.store = api, source, Store(store)
        self.flow_run = ""
        """The last one's id."""
        self.returned: dict[str, Any] = {}
        """What the flow gave back, when it last decided anything."""
        self._second = 0
        """In which the last night ended: one that begins in the second in which another began has that one's text."""

    def __call__(self, **train: Any) -> tuple[str, str]:
        from flows.retrain import retrain

        config = configuration(self.source.address, **train)
        while int(time.time()) == self._second:
            time.sleep(0.01)
        with served(self.api):
            state: Any = retrain(config, store=str(self.store.root), return_state=True)
        self._second = int(time.time())
        if state.is_completed():
            self.returned = state.result()
            assert self.returned["decision"].title() == state.name
            assert self.returned["reason"] == state.message
        self.flow_run = str(state.state_details.flow_run_id)
        return state.name, state.message

    def events(self, model: str | None, wanted: str) -> list[str]:
        """What the server has heard of a model, once it has heard this."""
        query = {"filter": {"resource": {"id": [f"rnnlm.model.{(model or '')[:16]}"]}}}
        deadline = time.monotonic() + 30
        while True:
            found = [event["event"] for event in self.api.ask("events", **query)["events"]]
            if wanted in found:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def last_log_line(self, wanted: str) -> str:
        """The last one of the flow run, once it is this; Prefect sends them now and then."""
        query = {"logs": {"flow_run_id": {"any_": [self.flow_run]}}, "sort": "TIMESTAMP_DESC", "limit": 1}
        deadline = time.monotonic() + 30
        while True:
            lines = [str(line["message"]) for line in self.api.ask("logs", **query)]
            if lines and wanted in lines[0]:
                return lines[0]
            assert time.monotonic() < deadline, lines
            time.sleep(0.1)

    @property
    def champion(self) -> str | None:
        reign = champions.current(self.store)
        return reign.model if reign else None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three models, of which no night knows yet: nights that come to them need not train."""
    folder = tmp_path_factory.mktemp("trained")
    for text, epochs in ((FIRST, 1), (GROWN, 1), (GROWN, BETTER)):
        corpus = folder / f"{len(text)}.txt"
        corpus.write_text(text, encoding="utf-8")
        for _ in run(configuration(str(corpus), epochs=epochs), Store(folder / "store"), LogLines):
            pass
    return folder / "store"


@pytest.fixture
def night(api: Api, source: Source, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    from flows import walk

    # The task's own retries wait for half a minute and more; that they happen is another test's business.
    monkeypatch.setitem(walk.TASKS, "download", walk.TASKS["download"].with_options(retries=0))
    shutil.copytree(trained, tmp_path / "store")
    return Nights(api, source, tmp_path / "store")


def test_nights_in_a_row(night: Nights, source: Source) -> None:
    name, message = night()
    assert name == "Promoted"
    assert "no champion yet" in message
    first = night.champion
    assert first

    name, message = night()
    assert (name, source.conditions) == ("Unchanged", [False, True])
    assert message == f"nothing has changed: the champion {first[:16]} stays"

    source.text = GROWN
    name, message = night(epochs=BETTER)
    assert name == "Promoted", message
    second = night.champion
    assert second != first

    name, message = night()
    assert name == "Rejected", message
    name, message = night()
    assert name == "Unchanged", "what was decided is not decided again"
    assert "compared with this champion before" in message

    source.text, source.kind = "<!DOCTYPE html><html><title>Gone fishing</title><p>Back soon</html>", "text/html"
    name, message = night(epochs=BETTER)
    assert name == "Failed"
    assert "HTML" in message

    source.text, source.kind = GROWN[: len(GROWN) // 4], "text/plain"
    name, message = night(epochs=BETTER)
    assert name == "Failed"
    assert "shrank" in message
    guard = night.api.ended_task_runs(night.flow_run)["guard"]
    assert (guard["state"]["name"], guard["state"]["message"]) == (name, message)

    source.text, source.away = GROWN, True
    name, message = night(epochs=BETTER)
    assert name == "Failed"
    assert source.address in message
    assert night.champion == second

    source.away = False
    assert night(epochs=BETTER)[0] == "Unchanged", "the next night goes on by itself"

    assert len(night.store.artifacts("train")) == 3, "what must not reach training did not"
    assert [reign.model for reign in champions.history(night.store)] == [first, second]


def test_called_from_python_it_returns_what_the_command_prints_and_keeps_to_its_corpus(night: Nights) -> None:
    from flows.retrain import retrain

    store = str(night.store.root)
    given = configuration(night.source.address)
    with served(night.api):
        first: Any = retrain(given, store=store)
        assert first.keys() == {"decision", "name", "reason", "champion", "candidate", "tests"}
        assert (first["decision"], first["name"], first["champion"]) == ("promoted", "default", None)
        assert first["candidate"]["key"] == night.champion
        state: Any = retrain(RunConfig(), store=store, return_state=True)
        assert (state.name, "download.corpus is not set" in state.message) == ("Failed", True)
        other = given.model_copy(update={"download": DownloadConfig(corpus="sample")})
        state = retrain(other, store=store, return_state=True)
        assert state.name == "Failed"
        assert f"was made from {night.source.address}, and tonight's corpus is sample: name another" in state.message
        named: Any = retrain(given, name="other", store=store)
        assert (named["name"], named["decision"]) == ("other", "promoted")
    assert night.champion == first["candidate"]["key"]


def test_each_verdict_leaves_a_page_an_artifact_and_an_event(night: Nights) -> None:
    night(seed=7)  # trained tonight: a model of this test's own, by whose key the server tells events apart
    pages = [page.read_text(encoding="utf-8").lower() for page in (night.store.root / "reports").glob("*.html")]
    assert any("promoted" in page for page in pages)
    query = {"flow_run_id": {"any_": [night.flow_run]}, "key": {"any_": ["report"]}}
    (artifact,) = night.api.ask("artifacts", artifacts=query)
    assert "data:image/svg+xml;base64," in artifact["data"]
    assert artifact["description"].startswith("promoted: there is no champion yet")
    assert "there is no champion yet" in night.last_log_line("Finished in state Promoted")
    query["key"] = {"any_": ["nights-default"]}
    (artifact,) = night.api.ask("artifacts", artifacts=query)
    assert artifact["description"].startswith("promoted: there is no champion yet")
    assert "**✓ promoted**" in artifact["data"]
    assert night.events(night.champion, "rnnlm.model.promoted") == ["rnnlm.model.promoted"]
    tasks = {name: task["state"]["name"] for name, task in night.api.ended_task_runs(night.flow_run).items()}
    done = dict.fromkeys(("download", "guard", "train", "evaluate", "judge"), "Completed")
    assert tasks == done | {"tokenize": "Cached"}


@pytest.mark.parametrize(("wanted", "ends"), [("CANCELLING", "Cancelled"), ("CRASHED", "Failed")])
def test_nothing_is_decided_by_a_run_that_is_no_longer_wanted(
    night: Nights, monkeypatch: pytest.MonkeyPatch, wanted: str, ends: str
) -> None:
    from prefect.runtime import flow_run

    def meanwhile(*given: Any, **options: Any) -> Any:
        state = {"state": {"type": wanted, "name": wanted.title()}, "force": True}
        night.api.call("POST", f"flow_runs/{flow_run.id}/set_state", json=state).raise_for_status()
        return judge(*given, **options)

    monkeypatch.setattr("stages.promotion.night.judge", meanwhile)
    name, message = night()
    assert (name, night.champion) == (ends, None)
    assert "nothing was decided" in message
    monkeypatch.undo()
    assert night()[0] == "Promoted", "the next night decides"


def test_nothing_is_decided_where_nobody_can_say_whether_the_run_is_wanted(
    night: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import own_run

    def away(run: Any) -> Any:
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(own_run, "_state", away)
    monkeypatch.setattr(own_run, "SECONDS_TO_ANSWER", 0)
    name, message = night()
    assert (name, night.champion) == ("Failed", None)
    assert "cannot say whether this run is still wanted" in message


def recipes() -> list[dict[str, Any]]:
    """The automations of the README."""
    readme = (ROOT / "flows" / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"automation create --from-json '(.*?)'\n```", readme, re.DOTALL)
    return [json.loads(recipe) for recipe in found]


def create(automation: dict[str, Any], api: Api, folder: Path) -> None:
    command = [sys.executable, "-m", "prefect", "automation", "create", "--from-json", json.dumps(automation)]
    environment = {**os.environ, "PREFECT_API_URL": api.address, "PREFECT_HOME": str(folder / "home")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readmes_automation_ends_a_run_that_is_not_heard_of_any_more(api: Api, tmp_path: Path) -> None:
    """The run of a process that there never was, after its one heartbeat."""
    _, automation = recipes()
    flow = api.call("POST", "flows/", json={"name": "silent"}).json()["id"]
    running = {"flow_id": flow, "state": {"type": "RUNNING", "name": "Running"}}
    run = api.call("POST", "flow_runs/", json=running).json()["id"]
    resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
    assert automation["trigger"]["match"] == {"prefect.resource.id": "prefect.flow-run.*"}
    automation["trigger"] |= {"match": resource, "within": 10}  # the least there is
    create(automation, api, tmp_path)
    now = datetime.now(UTC).isoformat()
    beat = {"event": "prefect.flow-run.heartbeat", "resource": resource, "occurred": now, "id": str(uuid4())}
    api.call("POST", "events", json=[beat]).raise_for_status()
    deadline = time.monotonic() + 60
    while (state := api.call("GET", f"flow_runs/{run}").json()["state"])["name"] != "Crashed":
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    assert "its process is gone" in state["message"]


def test_the_readmes_automation_hears_of_a_rejected_model(night: Nights, tmp_path: Path) -> None:
    automation, _ = recipes()
    assert automation["actions"][0]["type"] == "send-notification"
    automation["actions"] = [{"type": "do-nothing"}]  # the real one needs somebody's notification block
    create(automation, night.api, tmp_path)
    night.source.text = GROWN
    assert night(epochs=BETTER)[0] == "Promoted"
    assert night()[0] == "Rejected"
    wanted = {"filter": {"event": {"name": ["prefect.automation.action.executed"]}}}
    deadline = time.monotonic() + 30
    while not night.api.ask("events", **wanted)["events"]:
        assert time.monotonic() < deadline, "the automation never ran"
        time.sleep(0.1)


def test_rollback_goes_back_one_and_sample_follows(night: Nights, here: Rnnlm) -> None:
    night.source.text = GROWN
    night()
    first = night.champion
    assert night(epochs=BETTER)[0] == "Promoted"
    at = ["--store", night.store.root]
    shown = json.loads(here("champion", "--json", *at).stdout)
    assert shown["champion"]["model"] == night.champion
    assert len(shown["history"]) == 2
    best = here("sample", "--prefix", "the ", *at).stdout
    assert first
    assert first[:16] in here("rollback", "--reason", "it swears", *at).stdout
    assert night.champion == first
    assert "it swears" in here("champion", *at).stdout
    assert here("sample", "--prefix", "the ", *at).stdout != best
    assert "rnnlm: " in here("rollback", *at, code=2).stderr
    name, message = night(epochs=BETTER)
    assert (name, night.champion) == ("Unchanged", first), "a night does not undo what a person did"
    assert "it swears" in message
    withdrawn = shown["champion"]["model"]
    assert withdrawn[:16] in here("promote", withdrawn[:12], *at).stdout
    assert night.champion == withdrawn


def test_the_flow_rollback_goes_back_and_says_so(night: Nights) -> None:
    from flows.retrain import rollback

    night.source.text = GROWN
    night()
    first = night.champion
    night(epochs=BETTER)
    assert night.champion != first
    with served(night.api):
        state: Any = rollback("it swears", store=str(night.store.root), return_state=True)
        assert state.name == "Completed"
        assert night.champion == first
        again: Any = rollback(store=str(night.store.root), return_state=True)
        assert again.name == "Failed"
    assert "rnnlm.model.rolled-back" in night.events(first, "rnnlm.model.rolled-back")
