"""What the benchmark found, as JSON and as a page of tables, kept by day and machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
from race import Race


@dataclass(frozen=True)
class Table:
    """Figures that were not raced, as they are read."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Part:
    """What one part of the benchmark found."""

    title: str
    races: list[Race] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences: what was left out, what was made sure of, how to read it."""
    data: dict[str, Any] = field(default_factory=dict)
    """What the tables were made from, for the JSON."""
    pictures: dict[str, str] = field(default_factory=dict)
    """What is drawn → SVG."""


class Document:
    """A page and its JSON in a folder, for today and this machine.

    Args:
        folder: made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._machine = machine.machine()
        name = f"{datetime.now(UTC):%Y-%m-%d}-{machine.slug(self._machine)}"
        self.path = folder / f"{name}.md"

    def keep(self, name: str, part: Part, circumstances: Mapping[str, Any]) -> str:
        """Add a part, in place of what it gave before; its own tables as text."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pictures = {}
        for drawn, svg in part.pictures.items():
            picture = self.path.with_name(f"{self.path.stem}-{name}.svg")
            picture.write_text(svg, encoding="utf-8")
            pictures[drawn] = picture.name
        file = self.path.with_suffix(".json")
        known = json.loads(file.read_text(encoding="utf-8"))["parts"] if file.is_file() else {}
        known[name] = {
            "title": part.title,
            **circumstances,
            "races": [race.json() for race in part.races],
            "tables": [vars(table) for table in part.tables],
            "notes": part.notes,
            "data": part.data,
            "pictures": pictures,
        }
        document = {"machine": self._machine, "parts": known}
        file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self.path.write_text(page(document), encoding="utf-8")
        return "\n".join(section(known[name]))


def page(document: Mapping[str, Any]) -> str:
    """All parts as Markdown."""
    described = document["machine"]
    lines = [
        "# Benchmark",
        "",
        f"{described['processor']}, {described['cores']} cores, {described['memory']}, {described['system']}.",
        "Figures are medians. A ratio says how many times as fast the first is as the second: the median of paired",
        "ratios, with its quartiles. Ratios hold on other machines, absolute figures do not.",
    ]
    for part in document["parts"].values():
        lines += ["", *section(part)]
    return "\n".join(lines) + "\n"


def section(part: Mapping[str, Any]) -> list[str]:
    """One part as lines of Markdown."""
    clean = {True: "", False: ", with changes that are in no commit", None: ""}[part["clean"]]
    lines = [f"## {part['title']}", ""]
    for races in _alike(part["races"]):
        lines += [*_figures(races), ""]
    if any(race["ratios"] for race in part["races"]):
        lines += [*_ratios(part["races"]), ""]
    for one in part["tables"]:
        lines += [f"{one['title']}:", "", *table(one["head"], one["rows"]), ""]
    for drawn, name in part["pictures"].items():
        lines += [f"![{drawn}]({name})", ""]
    lines += [f"- {note}" for note in part["notes"]]
    versions = ", ".join(f"{name} {version}" for name, version in part["libraries"].items())
    load = " before and ".join(f"{load:g}" for load in part["load"])
    return [
        *lines,
        f"- {part['began']} to {part['ended'][-9:]}, commit {(part['commit'] or 'unknown')[:12]}{clean}; "
        f"load {load} after; Python {part['python']}, {versions}.",
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, its first column words and the others figures."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---", *["--:"] * (len(head) - 1)], *rows)]


def number(value: float) -> str:
    """A figure with as many digits as can be trusted."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4
    return f"{value:,.{digits}f}"


def _alike(races: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Neighbouring races that fit into one table: of some who are in both."""
    groups: list[list[Mapping[str, Any]]] = []
    for race in races:
        if groups and groups[-1][0]["figures"].keys() & race["figures"].keys():
            groups[-1].append(race)
        else:
            groups.append([race])
    return groups


def _figures(races: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for race in races for name in race["figures"]))
    rows = [[race["name"], *(_figure(race["figures"].get(name)) for name in names)] for race in races]
    return table([races[0]["unit"], *names], rows)


def _figure(figure: Mapping[str, Any] | None) -> str:
    if not figure:
        return "–"
    return number(figure["median"]) + (f" ({figure['setting']})" if figure["setting"] else "")


def _ratios(races: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            race["name"],
            f"{ratio['ours']} / {ratio['other']}",
            number(ratio["median"]),
            f"{number(ratio['low'])}–{number(ratio['high'])}",
            f"{ratio['aim']:g}" if ratio["aim"] else "",
        ]
        for race in races
        for ratio in race["ratios"]
    ]
    return table(["", "times as fast", "median", "quartiles", "aim"], rows)
