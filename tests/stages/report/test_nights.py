"""The nights of a store, told: each with its decision and its page, and the champion's bits as a picture."""

from __future__ import annotations

import base64
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from data.store import nights as records
from data.store.folder import Store
from data.store.nights import Decision, Model, NightRecord
from stages.report import kept, nights


def night(day: int, decision: Decision, reason: str = "of a reason", **figures: Any) -> NightRecord:
    today = {"text": "today", "passed": None, "reason": "", "bits": None, "bits_champion": None, **figures}
    return NightRecord(
        when=f"2026-11-{day:02}T03:04:05+00:00",
        name="default",
        decision=decision,
        reason=reason,
        candidate=Model(key=f"{day:064}", page=f"reports/{day:016}.html"),
        tests=[{"gain": None, "lower": None, "upper": None, **today}],
    )


TOLD = [
    night(1, "promoted", "there is no champion yet", bits=2.5),
    night(2, "rejected", bits=2.6, bits_champion=2.45, gain=-0.15, lower=-0.2, upper=-0.1),
    night(3, "refused", "the corpus <b>became</b> | HTML"),
    night(4, "promoted", bits=2.25, bits_champion=2.5, gain=0.25, lower=0.2, upper=0.3),
]


def test_the_champions_bits_are_those_of_whoever_was_it_afterwards() -> None:
    chart = nights.chart(TOLD)
    assert chart is not None
    assert chart.summary == (
        "Bits per character over 4 nights: the champion after that night ends at 2.25; "
        "that night's candidate ends at 2.25"
    )
    champion, candidate = chart.lines
    assert len(champion.points) == len(candidate.points) == 3, "on the third night nothing was measured"
    lowest_is_best = [y for _, y in champion.points]
    assert lowest_is_best == sorted(lowest_is_best)
    assert [label for _, label in chart.x_ticks] == [f"11-0{day}" for day in range(1, 5)]
    assert nights.chart([TOLD[2]]) is None


def test_the_page_has_a_row_for_each_night_of_each_name_the_newest_first(tmp_path: Any) -> None:
    store = Store(tmp_path)
    for one in TOLD:
        records.add(store, one)
    records.add(store, TOLD[0].model_copy(update={"name": "letters"}))
    page = kept.index(store)
    assert page == tmp_path / "index.html"
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"<h2>(\w+)</h2>", text) == ["default", "letters"]
    whens = re.findall(r'<a href="reports/\d+\.html">([^<]+)</a>', text)
    assert whens == [f"2026-11-0{day} 03:04 UTC" for day in (4, 3, 2, 1, 1)]
    for told in ("✓ promoted", "✕ rejected", "! refused", "<b>+0.2500</b>", "+0.2000 to +0.3000"):
        assert told in text
    assert "&lt;b&gt;became" in text
    assert "<b>became" not in text
    assert "<script" not in text


def test_for_prefect_the_same_is_markdown_with_its_picture_inside() -> None:
    text = nights.text("default", TOLD)
    (picture,) = re.findall(r"base64,([^)]+)\)", text)
    assert ElementTree.fromstring(base64.b64decode(picture)).tag.endswith("svg")
    rows = [line for line in text.split("\n") if line.startswith("- ")]
    assert rows[0].startswith(
        "- 2026-11-04 03:04 UTC **✓ promoted** (gain +0.2500 bits per character, +0.2000 to +0.3000)"
    )
    assert "\\<b\\>became" in rows[1]


@pytest.mark.parametrize("told", [[], [TOLD[2]]])
def test_where_nothing_was_measured_there_is_no_picture(told: list[NightRecord]) -> None:
    assert "base64" not in nights.text("default", told)
    assert "<polyline" not in nights.html({"default": told})
