"""Commands that look after a store, as a contract."""

from __future__ import annotations

import json
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
