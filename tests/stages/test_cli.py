"""The command line as a contract: what users and their scripts rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def test_run_prints_one_object_and_a_second_one_is_cached(rnnlm: Rnnlm, tiny: Path) -> None:
    first = json.loads(rnnlm("run", "--preset", tiny, "--json").stdout)
    assert [(stage["name"], stage["state"]) for stage in first["stages"]] == [
        ("download", "ran"),
        ("tokenize", "ran"),
        ("train", "ran"),
        ("evaluate", "ran"),
    ]
    for stage in first["stages"]:
        assert set(stage) == {"name", "state", "key", "artifact", "seconds", "reason"}
        assert (Path(stage["artifact"]) / "manifest.json").is_file()
    for split in ("train", "valid", "test"):
        assert {"perplexity", "bits_per_character", "loss", "tokens"} <= set(first["metrics"][split])
        assert first["metrics"]["baselines"]["unigram"][split]["perplexity"] > 1
        assert first["metrics"]["baselines"]["uniform"][split]["perplexity"] > 1
    second = json.loads(rnnlm("run", "--preset", tiny, "--json").stdout)
    assert {stage["state"] for stage in second["stages"]} == {"cached"}
    assert second["metrics"] == first["metrics"]


def test_results_go_to_stdout_and_the_rest_to_stderr(rnnlm: Rnnlm, tiny: Path) -> None:
    done = rnnlm("run", "--preset", tiny)
    assert done.stdout.startswith("# Language model report")
    assert "train     ran" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_verb_walks_as_far_as_its_stage(rnnlm: Rnnlm, tiny: Path) -> None:
    printed = json.loads(rnnlm("tokenize", "--preset", tiny, "--json").stdout)
    assert [stage["name"] for stage in printed["stages"]] == ["download", "tokenize"]
    assert printed["metrics"] == {}
    folder = Path(rnnlm("tokenize", "--preset", tiny).stdout.strip())
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "tokens.arrow", "vocab.arrow"}


def test_status_says_what_would_rerun_and_why(rnnlm: Rnnlm, tiny: Path) -> None:
    def status(*arguments: str) -> dict[str, dict[str, str]]:
        printed = json.loads(rnnlm("status", "--preset", tiny, "--json", *arguments).stdout)
        return {stage["name"]: stage for stage in printed["stages"]}

    assert {stage["state"] for stage in status().values()} == {"missing"}
    rnnlm("run", "--preset", tiny)
    assert {stage["state"] for stage in status().values()} == {"cached"}
    wider = status("--set", "train.hidden_size=16")
    assert [stage["state"] for stage in wider.values()] == ["cached", "cached", "stale", "stale"]
    assert wider["train"]["reason"] == "train.hidden_size: 8 → 16"
    assert "train has to run first" in wider["evaluate"]["reason"]
    text = rnnlm("status", "--preset", tiny, "--set", "train.hidden_size=16").stdout.splitlines()
    assert text[2] == "train     stale    train.hidden_size: 8 → 16"


def test_explain_shows_the_key_and_the_difference_to_the_closest_artifact(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    rnnlm("train", "--preset", tiny, "--set", "train.seed=1", "--set", "train.layers=2")
    text = rnnlm("explain", "train", "--preset", tiny, "--set", "train.seed=2").stdout
    assert "train is stale: train.seed: 0 → 2" in text
    assert "stages/lm/gluon.py" in text
    assert "mxnet: 2.0.0b1" in text
    parsed = json.loads(rnnlm("explain", "evaluate", "--preset", tiny, "--json").stdout)
    assert parsed["state"] == "cached"
    assert parsed["components"] == parsed["closest"]["components"]


def test_sample_continues_with_the_newest_model(rnnlm: Rnnlm, tiny: Path) -> None:
    folder = rnnlm("train", "--preset", tiny).stdout.strip()
    greedy = rnnlm("sample", "--prefix", "Then the", "--length", 12).stdout
    assert greedy.startswith("then the")
    assert len(greedy) == len("then the") + 12 + 1
    assert rnnlm("sample", "--model", folder, "--prefix", "Then the", "--length", 12).stdout == greedy
    three = ["sample", "--prefix", "Then", "--length", 30, "--temperature", 1, "--count", 3, "--seed", 5]
    drawn = rnnlm(*three).stdout
    assert rnnlm(*three).stdout == drawn
    assert len(set(drawn.splitlines())) >= 3


def test_an_untrained_model_writes_nonsense_before_anything_is_trained(rnnlm: Rnnlm, tiny: Path) -> None:
    text = rnnlm("sample", "--untrained", "--preset", tiny, "--prefix", "the", "--length", 10).stdout
    assert text.startswith("the")
    assert len(text) == 14


def test_verify_finds_what_the_next_run_mends(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    assert rnnlm("verify").stdout.count("sound") == 4
    (vocab,) = (tiny.parent / "store" / "tokenize").glob("*/vocab.arrow")
    content = bytearray(vocab.read_bytes())
    content[-1] ^= 1
    vocab.write_bytes(content)
    done = rnnlm("verify", code=2)
    assert "1 of 4 artifacts" in done.stderr
    assert "the content of vocab.arrow is not what was published" in done.stdout
    again = rnnlm("run", "--preset", tiny, "--json")
    states = [stage["state"] for stage in json.loads(again.stdout)["stages"]]
    assert states == ["cached", "ran", "cached", "cached"]
    assert "tokenize: the artifact is damaged: the content of vocab.arrow" in again.stderr
    rnnlm("verify")


def test_gc_says_what_it_would_take_and_takes_it(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    leftover = tiny.parent / "store" / "tmp" / "train-0123456789abcdef-01234567"
    leftover.mkdir(parents=True)
    assert str(leftover) in rnnlm("gc", "--dry-run").stdout
    assert leftover.is_dir()
    assert "freed" in rnnlm("gc").stdout
    assert not leftover.exists()
    assert rnnlm("verify").stdout.count("sound") == 4


def test_presets_and_corpora_are_listed(rnnlm: Rnnlm) -> None:
    assert {line.split()[0] for line in rnnlm("presets").stdout.splitlines()} >= {"book", "sample"}
    assert {line.split()[0] for line in rnnlm("corpora").stdout.splitlines()} == {
        "sample",
        "timemachine",
        "tinyshakespeare",
    }


MISTAKES = [
    (["run", "--preset", "nowhere"], "no preset 'nowhere'"),
    (["run", "--set", "train.hiden_size=3"], "did you mean 'hidden_size'?"),
    (["run", "--set", "train.hidden_size=many"], "train.hidden_size: 'many' does not fit"),
    (["run", "--set", "hidden_size=3"], "STAGE.FIELD=VALUE"),
    (["run", "--corpus", "nowhere.txt"], "nowhere.txt"),
    (["run", "--corpus", "timemachin"], "timemachine"),
    (["run", "--force", "training"], "there is no stage 'training'"),
    (["tokenize", "--force", "train"], "does not reach the stage train"),
    (["run", "--from", ""], "there is no stage ''"),
    (["download", "--from", "train"], "does not reach the stage train"),
    (["run", "--store", str(Path(__file__))], "is a file: name a folder"),
    (["run", "--preset", "~nobody-of-that-name/x"], "no preset"),
    (["run", "--preset", "x" * 5000], "no preset"),
    (["train", "--set", "train.hidden_size=1000000000"], "train.hidden_size"),
    (["promote", "0123"], "no models"),
    (["rollback"], "no champion"),
    (["run", "--set", "train.device=gpu"], "train.device = gpu cannot be used"),
    (["run", "--store", "s3://bucket"], "s3://bucket"),
    (["explain", "training"], "there is no stage 'training'"),
    (["sample"], "no trained model"),
    (["sample", "--model", "nowhere"], "nowhere"),
    (["sample", "--count", "2"], "--temperature"),
    (["sample", "--length", "0"], "--length"),
    (["run", "--nonsense"], "--nonsense"),
    (["walk"], "walk"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(row[0])[:60] for row in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_2(rnnlm: Rnnlm, arguments: list[str], said: str) -> None:
    done = rnnlm(*arguments, code=2)
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rnnlm: ")
    assert said in last
    assert "Traceback" not in done.stderr


def test_a_failed_stage_leaves_what_came_before_and_the_last_good_artifact(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    done = rnnlm("run", "--preset", tiny, "--set", "train.batch_size=5000", code=2)
    assert "train.batch_size" in done.stderr
    assert rnnlm("verify").stdout.count("sound") == 4
    assert list((tiny.parent / "store" / "tmp").iterdir()) == []


def test_a_text_that_the_normalizer_empties_is_said_so(rnnlm: Rnnlm, tiny: Path) -> None:
    text = tiny.parent / "russian.txt"
    text.write_text("Мороз и солнце; день чудесный!\n" * 50, encoding="utf-8")
    done = rnnlm("run", "--preset", tiny, "--corpus", text, "--set", "tokenize.normalizer=book", code=2)
    assert "tokenize.normalizer" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "stages.cli", "run", "--preset", str(tiny)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RNNLM_STORE": str(tiny.parent / "store")},
        timeout=60,
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
