"""The nights of a store, told: a table of what each decided, and the champion's bits per character as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data.moment import minute
from data.shown import visible
from stages.report import charts, svg, words
from stages.report.markdown import inline, plain
from stages.report.page import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.store.nights import NightRecord

    Nights = Mapping[str, Sequence[NightRecord]]
    """Name → its nights, the newest last."""

MARKS = {"promoted": "✓", "rejected": "✕", "unchanged": "=", "refused": "!", "failed": "!"}
"""Decision → a sign for those who do not see its colour."""


def html(nights: Nights) -> str:
    """One page of all names, which needs nothing but itself; its links lead to the reports beside it."""
    names = {
        name: {"nights": [_row(night) for night in reversed(told)], "chart": chart(told)}
        for name, told in nights.items()
    }
    return visible(environment().get_template("nights.html.j2").render(names=names, svg=svg))


def text(name: str, told: Sequence[NightRecord]) -> str:
    """The same of one name as Markdown, for Prefect's UI."""
    lines = [f"# Nights of the champion {plain(name)}", ""]
    if drawn := chart(told):
        lines += [f"![bits per character by night]({inline(svg.picture(drawn))})", ""]
    for night in reversed(told):
        row = _row(night)
        figures = f" (gain {row['gain']} bits per character, {row['interval']})" if row["gain"] else ""
        lines.append(f"- {row['when']} **{row['mark']} {row['decision']}**{figures}: {plain(row['reason'])}")
    return visible("\n".join([*lines, ""]))


def chart(told: Sequence[NightRecord]) -> charts.Chart | None:
    """Bits per character by night, each on the test text of its day; None where none was measured."""
    return charts.nights(
        [night.when[5:10] for night in told],
        ("the champion after that night", "first", [night.bits for night in told]),
        ("that night's candidate", "second", [_today(night).get("bits") for night in told]),
    )


def _row(night: NightRecord) -> dict[str, Any]:
    """A night as the table has it."""
    today = _today(night)
    ends = [bits for end in ("gain", "lower", "upper") if (bits := today.get(end)) is not None]
    gain, lower, upper = [words.signed(bits) for bits in ends] if len(ends) == 3 else ("", "", "")
    return {
        "when": minute(night.when),
        "decision": night.decision,
        "mark": MARKS[night.decision],
        "gain": gain,
        "interval": f"{lower} to {upper}",
        "reason": words.sentence(night.reason),
        "page": night.candidate.page if night.candidate else None,
    }


def _today(night: NightRecord) -> Mapping[str, Any]:
    """What became of that night's comparison on the test text of its day; empty where there was none."""
    return next((test for test in night.tests if test.get("text") == "today"), {})
