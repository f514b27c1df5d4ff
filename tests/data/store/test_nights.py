"""The nights of a store: a line each, two years of them, whatever else happens to the store."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.errors import StoreError
from data.moment import now
from data.store import nights
from data.store.collect import collect
from data.store.nights import Model, NightRecord

if TYPE_CHECKING:
    from data.store.folder import Store

ROOT = Path(__file__).parents[3]


def night(days_ago: float = 0, decision: nights.Decision = "rejected", **what: Any) -> NightRecord:
    when = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
    return NightRecord(**{"when": when, "name": "default", "decision": decision, "reason": "it is no better"} | what)


def test_nights_are_read_as_they_were_noted_and_nothing_takes_them_away(store: Store) -> None:
    assert nights.read(store) == []
    noted = [
        night(
            2, "promoted", candidate=Model(key="a" * 64, page="reports/a.html"), tests=[{"text": "today", "bits": 2.5}]
        ),
        night(1, differs={"train.hidden_size": (512, 256), "evaluate.prefixes": (["a"], ["b"])}, lost=True),
        night(0, reason="two\u2028lines\n", champion=Model(key="a" * 64, since=now())),
    ]
    for one in noted:
        nights.add(store, one)
    nights.add(store, night(name="other"))
    collect(store, days=0)
    assert nights.read(store) == noted
    assert nights.names(store) == ["default", "other"]


def test_after_two_years_a_night_is_forgotten(store: Store) -> None:
    for days in (740, 735, 700):
        nights.add(store, night(days))
    assert len(nights.read(store)) == 1, "the oldest went when a newer one came"
    nights.add(store, night())
    assert [one.when[:4] for one in nights.read(store)] == sorted(one.when[:4] for one in nights.read(store))
    assert len(nights.read(store)) == 2


def test_a_number_that_is_not_finite_is_none(store: Store) -> None:
    nights.add(store, night(tests=[{"text": "today", "bits": float("nan"), "upper": float("inf")}]))
    assert nights.read(store)[0].tests == [{"text": "today", "bits": None, "upper": None}]


def test_a_line_that_is_broken_is_named_and_kept(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    nights.add(store, night())
    file = store.root / "nights" / "default.jsonl"
    file.write_text(f"half a li\n{file.read_text()}")
    nights.add(store, night())
    with caplog.at_level(logging.WARNING):
        assert len(nights.read(store)) == 2
    assert "line 1 of" in caplog.text
    assert file.read_text().startswith("half a li\n{")


def test_a_file_that_cannot_be_read_or_written_is_one_sentence(store: Store) -> None:
    nights.add(store, night())
    (store.root / "nights" / "default.jsonl.new").mkdir()
    with pytest.raises(StoreError, match=r"default\.jsonl cannot be written"):
        nights.add(store, night())
    (store.root / "nights" / "other.jsonl").mkdir()
    with pytest.raises(StoreError, match="does not say what the nights decided"):
        nights.read(store, "other")


def test_the_bits_of_a_night_are_those_of_whoever_was_the_champion_after_it() -> None:
    tests = [{"text": "champion", "bits": 1.0}, {"text": "today", "bits": 2.0, "bits_champion": 3.0}]
    assert night(tests=tests).bits == 3
    assert night(0, "promoted", tests=tests).bits == 2
    assert night(0, "unchanged").bits is None


def test_refused_are_the_texts_that_a_night_found_unfit(store: Store) -> None:
    nights.add(store, night(0, "refused", download="a"))
    nights.add(store, night(0, "refused"))
    nights.add(store, night(0, "failed", download="b"))
    nights.add(store, night(0, "refused", download="c", name="other"))
    assert nights.refused(store) == {"a", "c"}


ADD = """
import sys
from pathlib import Path
from data.moment import now
from data.store import nights
from data.store.folder import Store
for number in range(20):
    reason = f"{sys.argv[2]} {number}"
    night = nights.NightRecord(when=now(), name="default", decision="unchanged", reason=reason)
    nights.add(Store(Path(sys.argv[1])), night)
"""


def test_nights_that_are_noted_at_once_lose_nothing(store: Store) -> None:
    others = [subprocess.Popen([sys.executable, "-c", ADD, str(store.root), who], cwd=ROOT) for who in "ab"]
    assert [other.wait(60) for other in others] == [0, 0]
    assert sorted(one.reason for one in nights.read(store)) == sorted(f"{who} {n}" for who in "ab" for n in range(20))


def test_what_a_command_prints_of_a_night_names_folders(store: Store) -> None:
    shown = nights.as_json(store, night(champion=Model(key="a" * 64, since="2026-01-01T00:00:00+00:00")))
    assert json.loads(json.dumps(shown)) == {
        "decision": "rejected",
        "name": "default",
        "reason": "it is no better",
        "champion": {
            "key": "a" * 64,
            "since": "2026-01-01T00:00:00+00:00",
            "page": None,
            "artifact": str(store.root / "train" / ("a" * 16)),
        },
        "candidate": None,
        "tests": [],
    }


@pytest.mark.parametrize(
    "said",
    [
        {"tests": [{"text": "today", "bits_champion": [[]]}]},
        {"tests": "[]"},
        {"candidate": {"key": "a" * 64, "page": "javascript:alert(1)"}},
        {"candidate": {"key": "a" * 64, "page": "reports/../../x.html"}},
        {"when": "\x1b[2J"},
    ],
)
def test_a_line_of_another_shape_is_no_nights(store: Store, caplog: pytest.LogCaptureFixture, said: Any) -> None:
    nights.add(store, night(0))
    path = store.root / "nights" / "default.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | said) + "\n")
    nights.add(store, night(0, reason="the next"))
    assert [one.reason for one in nights.read(store)] == ["the next"]
    assert "line 1 of " in caplog.text
    assert path.read_text().count("\n") == 2, "and stays for a person to mend"


def test_many_lines_that_are_none_are_named_together(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    nights.add(store, night(0))
    with (store.root / "nights" / "default.jsonl").open("ab") as file:
        file.write(b"\xff\n" * 100_000)
    assert len(nights.read(store)) == 1
    assert len(caplog.records) == 6
