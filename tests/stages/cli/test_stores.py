"""Commands that look after a store, as a contract."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def test_verify_finds_what_the_next_run_mends(here: Rnnlm, trained: Path) -> None:
    assert here("verify").stdout.count("sound") == 5
    (vocab,) = (trained.parent / "store" / "tokenize").glob("*/vocab.arrow")
    content = bytearray(vocab.read_bytes())
    content[-1] ^= 1
    vocab.write_bytes(content)
    done = here("verify", code=2)
    assert "1 of 5 artifacts" in done.stderr
    assert "the content of vocab.arrow is not what was published" in done.stdout
    again = here("run", "--preset", trained, "--json")
    states = [stage["state"] for stage in json.loads(again.stdout)["stages"]]
    assert states == ["cached", "ran", "cached", "cached"]
    assert "tokenize: the artifact is damaged: the content of vocab.arrow" in again.stderr
    here("verify")


def test_gc_says_what_it_would_take_and_takes_it(here: Rnnlm, trained: Path) -> None:
    leftover = trained.parent / "store" / "tmp" / "train-0123456789abcdef-01234567"
    leftover.mkdir(parents=True)
    assert str(leftover) in here("gc", "--dry-run").stdout
    assert leftover.is_dir()
    assert "freed" in here("gc").stdout
    assert not leftover.exists()
    assert here("verify").stdout.count("sound") == 5


def test_runs_lists_what_was_trained_and_what_it_takes(here: Rnnlm, trained: Path) -> None:
    here("run", "--preset", trained, "--set", "train.cell=gru", "--set", "tokenize.level=word")
    here("train", "--preset", trained, "--set", "train.max_tokens=200")
    short, gru, rnn = json.loads(here("runs", "--json").stdout)["runs"]
    here("promote", rnn["key"][:16], "--name", "mine")
    assert gru["settings"]["train.cell"] == "gru"
    assert (gru["settings"]["tokenize.level"], "tokenize.level" in rnn["settings"]) == ("word", False)
    assert gru["settings"]["download.corpus"].endswith("/text.txt")
    model = Path(gru["artifact"])
    metrics = json.loads(next((model.parents[1] / "evaluate").glob("*/metrics.json")).read_text())
    assert {round(one["perplexity"], 3) for one in (gru, rnn)} >= {round(metrics["valid"]["perplexity"], 3)}
    assert gru["bytes"] == sum(path.stat().st_size for path in model.iterdir() if path.name != "manifest.json")
    assert gru["checkpoint_bytes"] > gru["bytes"]

    assert (rnn["passes"], 0 < short["passes"] < 1) == (2, True)
    heading, third, first, second = here("runs").stdout.splitlines()
    assert re.search(r" train\.max_tokens=200 .*\(0\.\d\d epochs\)$", third)
    assert heading.split() == ["model", "trained", "size", "checkpoints", "perplexity", "champion", "settings"]
    assert first.startswith(gru["key"][:16])
    assert " tokenize.level=word " in first
    assert " mine " in second

    (model / "history.arrow").write_bytes(b"no history")
    assert json.loads(here("runs", "--json").stdout)["runs"][1]["perplexity"] is None


def test_an_empty_store_has_no_runs(here: Rnnlm) -> None:
    assert "there is no trained model in" in here("runs").stdout
    assert json.loads(here("runs", "--json").stdout) == {"runs": []}


def test_gc_frees_what_finished_trainings_left_and_keeps_what_is_interrupted(here: Rnnlm, trained: Path) -> None:
    (left,) = (trained.parent / "store" / "checkpoints").iterdir()
    done = here("gc", "--days", "1")
    assert done.stdout == "freed 0 B\n"
    assert "`rnnlm gc --checkpoints` frees " in done.stderr
    assert str(left) in here("gc", "--checkpoints", "--dry-run").stdout
    newest = max(left.glob("*.safetensors"))
    newest.rename(left / "000003-000001.safetensors")
    assert here("gc", "--checkpoints").stdout == "freed 0 B\n", "a longer training was interrupted"
    (left / "000003-000001.safetensors").rename(newest)
    done = here("gc", "--checkpoints")
    assert done.stderr == ""
    first, last = done.stdout.splitlines()
    assert first.endswith("checkpoints of a training that has ended")
    assert last != "freed 0 B"
    assert not left.exists()
    assert here("run", "--preset", trained).stderr.count("cached") == 4


def test_gc_keeps_what_a_champion_needs_whatever_its_age(here: Rnnlm, trained: Path) -> None:
    (model,) = (trained.parent / "store" / "train").iterdir()
    here("promote", model.name)
    here("gc", "--days", "0", "--checkpoints")
    kept = [path.parts[-3] for path in model.parents[1].glob("*/*/manifest.json")]
    assert sorted(kept) == ["download", "tokenize", "train"]
    assert here("sample", "--prefix", "the").stdout.startswith("the")
