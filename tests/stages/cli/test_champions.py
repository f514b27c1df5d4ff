"""Commands about champions, as a contract."""

from __future__ import annotations

import json
import os
import shutil
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


def test_a_champion_that_is_damaged_or_gone_is_not_used(here: Rnnlm, trained: Path) -> None:
    folder = Path(here("train", "--preset", trained).stdout.strip())
    here("promote", folder.name)
    os.truncate(folder / "model.safetensors", 100)
    assert (
        f"the champion {folder.name} cannot be used (model.safetensors has 100 bytes" in here("sample", code=2).stderr
    )
    shutil.rmtree(folder)
    assert f"the champion {folder.name} cannot be used (it is gone)" in here("sample", code=2).stderr


def test_a_record_that_cannot_be_read_is_named(here: Rnnlm, trained: Path) -> None:
    (trained.parent / "store" / "champion.json").mkdir()
    told = here("champion", code=2).stderr
    assert "champion.json does not say which model is the champion (it is no file)" in told


def test_names_keep_champions_apart(here: Rnnlm, trained: Path) -> None:
    first = Path(here("train", "--preset", trained).stdout.strip()).name
    second = Path(here("train", "--preset", trained, "--set", "train.seed=1").stdout.strip()).name
    here("promote", first)
    assert here("promote", second, "--name", "tiny").stdout == f"{second} is the champion under the name tiny\n"
    assert first in here("champion").stdout
    shown = json.loads(here("champion", "--name", "tiny", "--json").stdout)
    assert shown["champion"]["model"].startswith(second)
    assert shown["champion"]["source"].endswith("/text.txt")
    assert json.loads(here("champion", "--all", "--json").stdout).keys() == {"default", "tiny"}
    assert here("champion", "--all").stdout.splitlines()[::2] == ["default:", "tiny:"]
    drawn = ["sample", "--temperature", "1"]
    assert here(*drawn).stdout != here(*drawn, "--name", "tiny").stdout
    measured = here("evaluate", "--on", trained.parent / "text.txt", "--name", "tiny").stdout
    assert second in measured
    for command in (["sample"], ["evaluate", "--on", trained]):
        said = here(*command, "--name", "other", code=2).stderr
        assert "has no champion under the name other: `rnnlm champion --all` lists" in said
    assert "no champion to go back from under the name other" in here("rollback", "--name", "other", code=2).stderr


def test_what_a_record_says_commands_no_terminal(here: Rnnlm, trained: Path) -> None:
    here("promote", next((trained.parent / "store" / "train").iterdir()).name, "--reason", "\x1b[2J\x9b\nchampion")
    assert here("champion").stdout.endswith("  \\x1b[2J\\x9b\\nchampion\n")
    told = here("champion", "--json").stdout
    assert not set(told) & {"\x1b", "\x9b"}
    assert json.loads(told)["champion"]["reason"] == "\x1b[2J\x9b\nchampion"
