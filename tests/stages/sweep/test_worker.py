"""One training in a process of its own: what it answers, and that it never outlives whoever waits for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data.store import fingerprint, mirror
from data.store.folder import Store, open_store
from data.tables.tokens import IndexTable
from stages.lm.model import LanguageModel
from stages.sweep import worker
from stages.sweep.worker import Answer, Job

ROOT = Path(__file__).parents[3]
LONG = ("train.epochs=100000",)
Make = Callable[..., Job]


def never() -> bool:
    return False


Trainings = Callable[[], dict[int, list[str]]]
Wait = Callable[[Callable[[], object]], None]


def test_what_the_store_has_needs_no_process(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = job("train.epochs=1")
    trained = worker.train(asked)
    assert trained.ran
    monkeypatch.delattr(subprocess, "Popen")
    assert worker.do(asked, never) == Answer(trained.key, ran=False)


def test_who_has_trained_a_model_measures_it_on_the_whole_validation_split(job: Make, store: Store) -> None:
    asked = job("train.epochs=1")
    assert worker.train(asked).loss is None
    answer = worker.train(replace(asked, measured=True))
    tokens, model = store.find("tokenize", asked.upstream["tokenize"]), store.find("train", answer.key)
    assert tokens
    assert model
    valid = IndexTable.open(tokens.folder / "tokens.arrow").split("valid")
    assert answer.loss == LanguageModel.load(model.folder).network.loss(valid)


def test_a_job_that_is_stopped_before_it_begins_needs_none_either(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = job()
    monkeypatch.delattr(subprocess, "Popen")
    assert worker.do(asked, lambda: True).error == "Interrupted"


def test_a_job_whose_store_is_not_there_says_what_a_cluster_needs(job: Make, tmp_path: Path) -> None:
    answer = worker.do(replace(job(), store=str(tmp_path / "elsewhere")), never)
    assert answer.error == "StoreError"
    assert "have to see the same store" in answer.sentence


def test_a_worker_without_the_store_has_the_remote(job: Make, store: Store, tmp_path: Path, bucket: str) -> None:
    asked = job("train.epochs=1")
    for stage, key in asked.upstream.items():
        mirror.share(open_store(str(store.root), bucket), stage, key)
    answer = worker.train(replace(asked, store=str(tmp_path / "elsewhere"), remote=bucket))
    assert answer.ran
    assert mirror.bring(open_store(str(store.root), bucket), "train", answer.key)


def test_a_process_that_has_loaded_other_code_trains_nothing_for_a_sweep(
    job: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that began after an edit, or the worker of a cluster that has not been updated."""
    own = job("train.epochs=1")
    asked = replace(own, code="another digest")
    for answer in (worker.train(asked), worker.do(asked, never)):
        assert answer.error == "StoreError", "which ends the sweep"
        assert "the code of train is not the same in this sweep and in a process that trains for it" in answer.sentence
    assert store.artifacts("train") == []

    def edited(*modules: str) -> str:
        return "stages/train.py was edited after this process had loaded it (train)"

    monkeypatch.setattr(fingerprint, "edited", edited)
    monkeypatch.delattr(subprocess, "Popen")
    assert worker.do(own, never).sentence.startswith("stages/train.py was edited after this process")


def test_a_process_has_its_share_of_the_cores_and_is_answered_for_if_it_is_killed(
    job: Make, trainings: Trainings, wait: Wait
) -> None:
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(worker.do, replace(job(*LONG), threads=3), never)
        wait(trainings)
        ((number, environment),) = trainings().items()
        assert "OMP_NUM_THREADS=3" in environment
        os.kill(number, signal.SIGKILL)
        assert answer.result(timeout=60).error == "TrainingError"
        assert "ended by SIGKILL" in answer.result().sentence


def test_a_training_that_nobody_waits_for_any_more_ends(
    job: Make, store: Store, trainings: Trainings, wait: Wait
) -> None:
    script = "import json, sys; from stages.sweep.worker import *; do(Job(**json.loads(sys.argv[1])), lambda: False)"
    process = subprocess.Popen([sys.executable, "-c", script, json.dumps(asdict(job(*LONG)))], cwd=ROOT)
    wait(lambda: list(store.root.glob("checkpoints/*/*.safetensors")))
    assert trainings()
    process.kill()
    process.wait()
    wait(lambda: not trainings())
