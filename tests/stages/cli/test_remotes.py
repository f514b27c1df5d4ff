"""Two machines and one bucket: a night here and a sample there, what is sent, brought and pruned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, in_this_process

if TYPE_CHECKING:
    from tests.s3 import S3


@pytest.fixture(autouse=True)
def _shared(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNLM_REMOTE", bucket)


def states(said: str) -> list[str]:
    return [stage["state"] for stage in json.loads(said)["stages"]]


def test_a_night_here_and_a_sample_there(tiny: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    night = in_this_process(here, "night", "--preset", tiny, "--name", "tales", "--json")
    assert json.loads(night.stdout)["decision"] == "promoted"
    asked = ("sample", "--name", "tales", "--prefix", "the", "--length", "20")
    assert in_this_process(there, *asked).stdout == in_this_process(here, *asked).stdout
    brought = in_this_process(there, "pull").stdout  # what the model was made from, too: the sample has brought that
    assert [line.partition("/")[0] for line in brought.splitlines()[:-1]] == ["tokenize", "download"]
    champions = [in_this_process(place, "champion", "--all").stdout for place in (here, there)]
    assert champions[0] == champions[1]
    in_this_process(there, "rollback", "--name", "tales", code=2)  # there was none before
    lost = in_this_process(there, "night", "--preset", tiny, "--name", "tales", "--json")
    assert json.loads(lost.stdout)["decision"] in ("unchanged", "rejected")


def test_a_run_brings_what_another_machine_made_and_status_says_that_it_will(tiny: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    in_this_process(here, "run", "--preset", tiny)
    status = in_this_process(there, "status", "--preset", tiny, "--json")
    assert states(status.stdout) == ["missing"] * 4
    assert all("the remote has it" in stage["reason"] for stage in json.loads(status.stdout)["stages"])
    run = in_this_process(there, "run", "--preset", tiny, "--json")
    assert states(run.stdout) == ["cached"] * 4
    changed = in_this_process(there, "run", "--preset", tiny, "--set", "train.seed=5", "--json")
    assert states(changed.stdout) == ["cached", "cached", "ran", "ran"]
    again = in_this_process(here, "run", "--preset", tiny, "--set", "train.seed=5", "--json")
    assert states(again.stdout) == ["cached"] * 4


def test_two_processes_that_train_the_same_end_with_the_same(tiny: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "stages.cli",
        "train",
        "--preset",
        str(tiny),
        "--set",
        "train.engine=bptt",
        "--json",
    ]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "RNNLM_STORE": str(tmp_path / name)}, stdout=subprocess.PIPE
        )
        for name in ("one", "other")
    ]
    answers = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    models = [Path(json.loads(answer)["stages"][-1]["artifact"]) for answer in answers]
    weights = [(model / "model.safetensors").read_bytes() for model in models]
    assert weights[0] == weights[1]


def test_what_could_not_be_sent_is_made_up_for(tiny: Path, tmp_path: Path, s3: S3) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    s3.plan(lambda method, path, number: 503)
    run = in_this_process(here, "run", "--preset", tiny)
    assert run.stderr.count("going on with the local store") == 1
    assert "answers 503" in in_this_process(here, "push", code=2).stderr
    s3.plan(None)
    sent = in_this_process(here, "push").stdout.splitlines()
    assert [line.partition("/")[0] for line in sent[:-1]] == ["download", "tokenize", "train", "baselines", "evaluate"]
    assert in_this_process(here, "push").stdout.startswith("sent 0 B")
    brought = in_this_process(there, "pull", "--all").stdout
    assert sorted(brought.splitlines()[:-1]) == sorted(sent[:-1])
    s3.plan(lambda method, path, number: "dropped")
    assert states(in_this_process(there, "run", "--preset", tiny, "--json").stdout) == ["cached"] * 4


def test_gc_of_the_remote_takes_nothing_of_the_last_day(tiny: Path, tmp_path: Path, bucket: str) -> None:
    here = tmp_path / "here"
    in_this_process(here, "download", "--preset", tiny)
    assert in_this_process(here, "gc", "--remote", bucket, "--days", "0").stdout == "freed 0 B\n"
    assert in_this_process(tmp_path / "there", "pull", "--all").stdout.startswith("download/")


def test_without_a_remote_there_is_nothing_to_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RNNLM_REMOTE")
    for command in ("push", "pull"):
        assert "name one with --remote or RNNLM_REMOTE" in in_this_process(tmp_path, command, code=2).stderr
    imported = "import sys; from data.store.folder import open_store; open_store(None); print('obstore' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", imported], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
