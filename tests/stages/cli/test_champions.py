"""Commands about champions, as a contract."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_model_is_promoted_by_hand_shown_and_gone_back_from(here: Rnnlm, trained: Path) -> None:
    first = Path(here("train", "--preset", trained).stdout.strip()).name
    second = Path(here("train", "--preset", trained, "--set", "train.seed=1").stdout.strip()).name
    assert "no model has been promoted" in here("champion").stdout
    assert here("promote", first).stdout == f"{first} is the champion\n"
    assert here("promote", second[:12], "--reason", "it rhymes").stdout == f"{second} is the champion\n"
    shown = json.loads(here("champion", "--json").stdout)
    assert shown["champion"]["model"].startswith(second)
    assert [reign["reason"] for reign in shown["history"]] == ["promoted by hand", "it rhymes"]

    assert here("rollback", "--reason", "too many rhymes").stdout == f"{first} is the champion again\n"
    lines = here("champion").stdout.splitlines()
    assert [line.split()[:2] for line in lines[:1]] == [["withdrawn", second]]
    assert lines[1].endswith(": too many rhymes")
    assert lines[2].split()[:2] == ["champion", first]


def test_the_digits_of_a_model_have_to_tell_it_from_others(here: Rnnlm, trained: Path) -> None:
    here("train", "--preset", trained, "--set", "train.seed=1")
    assert "2 models in" in here("promote", "", code=2).stderr
