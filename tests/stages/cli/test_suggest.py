"""A preset for a text and a time: what the command prints is what `rnnlm run` trains."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.pipeline import settings
from stages.suggestion import rule, speed

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def text(tmp_path: Path, tiny_text: str) -> Path:
    path = tmp_path / "two \u202ewords.txt"
    path.write_text(tiny_text, encoding="utf-8")
    return path


def test_a_suggestion_trains(here: Rnnlm, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    monkeypatch.setattr(rule, "TIMED", (4, 8))
    asked = ("suggest", "--corpus", text, "--set", "train.engine=bptt", "--minutes", "5")
    found = here(*asked)
    preset = tmp_path / "mine.toml"
    preset.write_text(found.stdout, encoding="utf-8")
    config = settings.load(str(preset))
    assert (config.download.corpus, config.tokenize.normalizer) == (str(text), "none")
    assert (config.train.cell, config.train.engine) == ("lstm", "bptt")
    quick = ("--set", "train.epochs=1", "--set", "train.hidden_size=8", "--set", "train.num_steps=60")
    ran = json.loads(here("run", "--preset", preset, *quick, "--json").stdout)
    assert "test" in ran["metrics"]
    assert ran["stages"][0]["state"] == "cached"  # as the suggestion read it
    said = found.stdout.partition("at the speed ")[2].partition(":")[0]
    assert here(*asked, "--speed", said).stdout == found.stdout


def test_what_is_set_goes_into_the_file(here: Rnnlm, text: Path) -> None:
    asked = (
        "tokenize.level=word",
        "tokenize.min_freq=2",
        "train.seed=7",
        "train.engine=torch",
        "train.precision=bfloat16",
    )
    sets = [argument for one in asked for argument in ("--set", one)]
    long = text.with_name("long.txt")
    long.write_text(text.read_text(encoding="utf-8") * 8, encoding="utf-8")
    printed = here("suggest", "--corpus", long, "--minutes", "1", "--speed", "11,45", *sets, "--json").stdout
    found = json.loads(printed)
    assert found["settings"]["tokenize"]["min_freq"] == 2
    assert found["settings"]["train"]["seed"] == 7
    assert found["settings"]["train"]["precision"] == "bfloat16"
    assert found["settings"]["train"]["ngram"] > 4  # this text repeats itself
    assert found["speed"] == "11,45"
    assert all(said in found["preset"].replace("\n# ", " ") for said in found["warnings"])
    assert found["minutes"] <= 1
    assert found["preset"].startswith("# ")


@pytest.mark.parametrize(
    ("content", "sets", "level"),
    [
        ("The sea, the SEA. ", [], "letter"),
        ("the sea, the sea. ", [], "char"),
        ("The sea, the SEA. ", ["tokenize.level=char"], "char"),
        ("The sea, the SEA. ", ["tokenize.normalizer=lower"], "char"),
    ],
)
def test_capitals_are_spelt_with_shifts_where_there_are_some(
    here: Rnnlm, tmp_path: Path, content: str, sets: list[str], level: str
) -> None:
    (tmp_path / "mine.txt").write_text(content * 100, encoding="utf-8")
    options = [argument for one in sets for argument in ("--set", one)]
    asked = ("suggest", "--corpus", tmp_path / "mine.txt", "--minutes", "1", "--speed", "11,45", *options, "--json")
    found = json.loads(here(*asked).stdout)
    assert found["settings"]["tokenize"]["level"] == level
    assert ("behind a shift" in found["preset"]) is (level == "letter")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--minutes", "0"], "above 0"),
        (["--minutes", "nan"], "above 0"),
        (["--minutes", "0.0001", "--speed", "11,45"], "one epoch"),
        (["--minutes", "1", "--speed", "quick"], "microseconds per token"),
        (["--minutes", "1", "--set", "train.hidden_size=9"], "the suggestion chooses that"),
        (["--minutes", "1", "--set", "tokenize.valid_share=0.2"], "the suggestion chooses that"),
        (["--minutes", "1", "--set", "train.precision=bfloat16"], "precision=bfloat16 needs engine=torch, not auto"),
        (["--minutes", "1", "--set", "tokenize.levels=word"], "has no field"),
        (["--minutes", "1", "--corpus", "-"], "name a file"),
    ],
)
def test_what_cannot_be_suggested_is_one_sentence(here: Rnnlm, arguments: list[str], said: str) -> None:
    done = here("suggest", *arguments, code=2)
    assert said in done.stderr.splitlines()[-1]
    assert not done.stdout


@pytest.mark.parametrize("text", ["noise", "one"])
def test_a_text_on_which_nothing_helps_is_said(here: Rnnlm, tmp_path: Path, text: str) -> None:
    drawn = random.Random(0)
    content = "a" * 20_000 if text == "one" else "".join(drawn.choices("abcdefgh", (8, 7, 6, 5, 4, 3, 2, 1), k=20_000))
    (tmp_path / "text.txt").write_text(content, encoding="utf-8")
    done = here("suggest", "--corpus", tmp_path / "text.txt", "--minutes", "1", "--speed", "11,45")
    assert "says nothing here of what comes next" in done.stderr
    assert "says nothing here of what comes" in done.stdout


def test_a_text_that_repeats_itself_gets_longer_ngrams(here: Rnnlm, tmp_path: Path) -> None:
    drawn = random.Random(0)

    def order(lines: list[str]) -> int:
        (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
        asked = ("suggest", "--corpus", tmp_path / "text.txt", "--minutes", "1", "--speed", "11,45", "--json")
        return int(json.loads(here(*asked).stdout)["settings"]["train"]["ngram"])

    words = ["".join(drawn.choices("abcdefgh", k=6)) for _ in range(200)]
    said = [" ".join(drawn.choices(words, k=6)) for _ in range(400)]
    assert order(drawn.choices(said[:20], k=400)) > order(said) == 8
