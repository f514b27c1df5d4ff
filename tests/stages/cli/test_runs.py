"""Commands that walk the pipeline, as a contract: what they print, and what they say would rerun."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from stages.config import TrainConfig
from stages.pipeline.decide import version
from stages.training import engines

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def test_run_prints_one_object_and_a_second_one_is_cached(here: Rnnlm, tiny: Path) -> None:
    first = json.loads(here("run", "--preset", tiny, "--json").stdout)
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
    second = json.loads(here("run", "--preset", tiny, "--json").stdout)
    assert {stage["state"] for stage in second["stages"]} == {"cached"}
    assert second["metrics"] == first["metrics"]


def test_results_go_to_stdout_and_the_rest_to_stderr(rnnlm: Rnnlm, tiny: Path) -> None:
    done = rnnlm("run", "--preset", tiny)
    assert done.stdout.startswith("# Language model report")
    assert "train     ran" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_verb_walks_as_far_as_its_stage(here: Rnnlm, tiny: Path) -> None:
    printed = json.loads(here("tokenize", "--preset", tiny, "--json").stdout)
    assert [stage["name"] for stage in printed["stages"]] == ["download", "tokenize"]
    assert printed["metrics"] == {}
    folder = Path(here("tokenize", "--preset", tiny).stdout.strip())
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "tokens.arrow", "vocab.arrow"}


def test_status_says_what_would_rerun_and_why(here: Rnnlm, tiny: Path) -> None:
    def status(*arguments: str) -> dict[str, dict[str, str]]:
        printed = json.loads(here("status", "--preset", tiny, "--json", *arguments).stdout)
        return {stage["name"]: stage for stage in printed["stages"]}

    assert {stage["state"] for stage in status().values()} == {"missing"}
    here("run", "--preset", tiny)
    assert {stage["state"] for stage in status().values()} == {"cached"}
    wider = status("--set", "train.hidden_size=16")
    assert [stage["state"] for stage in wider.values()] == ["cached", "cached", "stale", "stale"]
    assert wider["train"]["reason"] == "train.hidden_size: 8 → 16"
    assert "train has to run first" in wider["evaluate"]["reason"]
    text = here("status", "--preset", tiny, "--set", "train.hidden_size=16").stdout.splitlines()
    assert text[2] == "train     stale    train.hidden_size: 8 → 16"


def test_explain_shows_the_key_and_the_difference_to_the_closest_artifact(here: Rnnlm, trained: Path) -> None:
    here("train", "--preset", trained, "--set", "train.seed=1", "--set", "train.layers=2")
    text = here("explain", "train", "--preset", trained, "--set", "train.seed=2").stdout
    assert "train is stale: train.seed: 0 → 2" in text
    choice = engines.choose(TrainConfig(engine="bptt"))
    assert f"{choice.modules[0].replace('.', '/')}.py" in text
    assert f"engine: {choice.name}" in text
    assert all(f"{library}: {version(library)}" in text for library in choice.libraries)
    parsed = json.loads(here("explain", "evaluate", "--preset", trained, "--json").stdout)
    assert parsed["state"] == "cached"
    assert parsed["components"] == parsed["closest"]["components"]


def test_a_failed_stage_leaves_what_came_before_and_the_last_good_artifact(here: Rnnlm, trained: Path) -> None:
    done = here("run", "--preset", trained, "--set", "train.batch_size=5000", code=2)
    assert "train.batch_size" in done.stderr
    assert here("verify").stdout.count("sound") == 5
    assert list((trained.parent / "store" / "tmp").iterdir()) == []


def test_a_text_that_the_normalizer_empties_is_said_so(here: Rnnlm, tiny: Path) -> None:
    text = tiny.parent / "russian.txt"
    text.write_text("Мороз и солнце; день чудесный!\n" * 50, encoding="utf-8")
    done = here("run", "--preset", tiny, "--corpus", text, "--set", "tokenize.normalizer=book", code=2)
    assert "tokenize.normalizer" in done.stderr


def test_what_was_made_of_a_download_that_is_gone_is_cached_all_the_same(here: Rnnlm, tiny: Path) -> None:
    text = tiny.parent / "text.txt"
    (tiny.parent / "text.gz").write_bytes(gzip.compress(text.read_bytes()))
    here("tokenize", "--preset", tiny, "--corpus", tiny.parent / "text.gz")
    shutil.rmtree(tiny.parent / "store" / "download")
    here("download", "--preset", tiny)
    assert "tokenize  cached" in here("tokenize", "--preset", tiny).stderr
