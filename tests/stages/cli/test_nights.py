"""The commands `night` and `history`, as a contract."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from data.store.folder import Store

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def test_nights_end_well_whatever_they_decide_and_are_told(here: Rnnlm, trained: Path) -> None:
    first = json.loads(here("night", "--preset", trained, "--json").stdout)
    assert first.keys() == {"decision", "name", "reason", "champion", "candidate", "tests"}
    assert (first["decision"], first["name"], first["champion"]) == ("promoted", "default", None)
    assert Path(first["candidate"]["artifact"]).is_dir()
    assert first["tests"][0]["text"] == "today"
    assert first["tests"][0]["bits"] > 0

    second = json.loads(here("night", "--preset", trained, "--json").stdout)
    assert second["decision"] == "unchanged"
    assert second["champion"] == {**first["candidate"], "since": second["champion"]["since"]}
    assert re.match("[0-9]{4}-[0-9]{2}-[0-9]{2}T", second["champion"]["since"])

    third = here("night", "--preset", trained, "--set", "train.seed=1")
    assert third.stdout.startswith("rejected: today's test text has ")
    page = re.search(r"^report: (.*\.html)$", third.stdout, re.MULTILINE)
    assert page
    assert Path(page[1]).is_file()

    header, *lines, page_of_all = here("history").stdout.splitlines()
    assert page_of_all.endswith("index.html")
    assert header.split() == ["night", "decision", "bits", "champion", "gain", "report", "reason"]
    assert [line[20:30].strip() for line in lines] == ["promoted", "unchanged", "rejected"]
    told = json.loads(here("history", "--json").stdout)
    assert [one["decision"] for one in told["nights"]] == ["promoted", "unchanged", "rejected"]
    assert told["nights"][2]["candidate"]["page"] == f"reports/{Path(page[1]).name}"


def test_a_text_that_is_refused_is_exit_code_2_and_told(here: Rnnlm, trained: Path, tmp_path: Path) -> None:
    here("night", "--preset", trained)
    other = tmp_path / "other.txt"
    other.write_text("".join(f"Lamp {number} burns for {number * number} nights.\n" for number in range(60)))
    said = here("night", "--preset", trained, "--corpus", other, code=2).stderr
    assert f"tonight's corpus is {other}: name another champion with --name" in said.splitlines()[-1]
    assert "refused" in here("history").stdout
    named = here("night", "--preset", trained, "--corpus", other, "--name", "other")
    assert named.stdout.startswith("promoted: ")
    assert here("history", "--name", "other").stdout.count(" promoted ") == 1


def test_a_preset_that_names_no_corpus_is_no_nights(here: Rnnlm, tmp_path: Path, tiny_settings: str) -> None:
    (tmp_path / "mine.toml").write_text(tiny_settings)
    assert "download.corpus is not set" in here("night", "--preset", tmp_path / "mine.toml", code=2).stderr
    assert here("history").stdout.startswith("there was no night in")


def test_while_a_night_runs_another_one_of_its_name_ends_well(here: Rnnlm, trained: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "store").alone("night-default") as alone:
        assert alone
        shown = json.loads(here("night", "--preset", trained, "--json").stdout)
        assert (shown["decision"], shown["candidate"]) == ("unchanged", None)
        assert shown["reason"].startswith("another night is running")
    assert json.loads(here("night", "--preset", trained, "--json").stdout)["decision"] == "promoted"


def test_history_draws_how_the_champions_bits_went(here: Rnnlm, tmp_path: Path) -> None:
    nights = tmp_path / "store" / "nights"
    nights.mkdir(parents=True)
    common = {"when": "2026-01-02T03:04:05+00:00", "name": "default", "reason": "it is"}
    lines = [
        {**common, "decision": "promoted", "tests": [{"text": "today", "bits": 3.0}]},
        {**common, "decision": "refused"},
        {
            **common,
            "decision": "rejected",
            "tests": [{"text": "today", "bits": 9.0, "bits_champion": 2.5, "gain": -6.5}],
        },
        {**common, "decision": "promoted", "tests": [{"text": "today", "bits": 2.0, "bits_champion": 2.5}]},
    ]
    (nights / "default.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = here("history").stdout.splitlines()
    assert shown[-1] == "the champion's bits per character: █▅▁ 3.000 → 2.000"
    assert shown[3].split()[3:-2] == ["rejected", "9.000", "2.500", "-6.500"]
