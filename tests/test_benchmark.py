"""The benchmark in small: contenders take turns and agree before they are timed, and what comes out is kept."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent
FACTS: dict[str, Any] = {
    "began": "2026-11-28 03:00 UTC",
    "ended": "2026-11-28 03:01 UTC",
    "commit": "7905c0e32539",
    "clean": False,
    "load": [0.5, 1.25],
    "python": "3.11.7",
    "libraries": {"numpy": "2.4.6"},
}


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmark"))


def test_who_reads_a_text_is_timed_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = importlib.import_module("text")
    monkeypatch.setattr(text, "ROUNDS", 2)
    monkeypatch.setattr(text, "SMALL", 5_000)
    found = text.raced(tmp_path, "characters, the book's rule, counted").json()
    assert found["unit"] == "MB/s"
    assert [len(figure["seconds"]) for figure in found["figures"].values()] == [2, 2]
    [ratio] = found["ratios"]
    assert (ratio["ours"], ratio["other"], ratio["aim"]) == ("ours, counting", "book, counting", 50)
    assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]


@pytest.mark.parametrize("level", ["char", "word"])
def test_the_same_text_has_the_same_digest_whoever_read_it(level: str, tmp_path: Path) -> None:
    readers, corpora = map(importlib.import_module, ("readers", "corpora"))
    path = str(corpora.write(tmp_path / "text.txt", 5_000))
    read = [readers.summary(who(path, level, "book")()) for who in (readers.ours, readers.book)]
    assert read[0] == read[1]
    assert read[0] != readers.summary(readers.ours(path, level, "none")())
    if level == "char":
        plain = [readers.summary(who(path, level, "none")()) for who in (readers.ours, readers.nanogpt)]
        assert plain[0] == plain[1]


def test_what_disagrees_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = importlib.import_module("text")
    answers = iter([[10, "one digest"], [10, "another"]])

    class Contender:
        def __init__(self, module: str, name: str, task: object, **how: object) -> None:
            self.name = name

        def __enter__(self) -> Contender:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def answer(self) -> Any:
            return next(answers)

    monkeypatch.setattr(text, "Contender", Contender)
    with pytest.raises(AssertionError, match="another"):
        text.raced(tmp_path, "characters, the book's rule, counted")


def test_a_ratio_is_of_what_ran_at_the_same_time_and_comes_with_its_spread() -> None:
    race = importlib.import_module("race")
    order: list[str] = []

    def turn(name: str, seconds: float) -> Callable[[], float]:
        def taken() -> float:
            order.append(name)
            return seconds * (1 + order.count(name))  # a machine that gets slower

        return taken

    taken = race.alternate([turn("ours", 1.0), turn("other", 3.0)], 4)
    assert order == ["ours", "other", "other", "ours", "ours", "other", "other", "ours"]
    pairs = [race.Pair("ours", "other", 2.0), race.Pair("ours", "absent")]
    found = race.Race("a thing", dict(zip(("ours", "other"), taken, strict=True)), pairs).json()
    [ratio] = found["ratios"]
    assert (ratio["low"], ratio["median"], ratio["high"]) == (3.0, 3.0, 3.0)
    assert found["figures"]["ours"]["median"] == 3500.0
    assert found["figures"]["ours"]["seconds"] == [2.0, 3.0, 4.0, 5.0]


def test_what_comes_out_is_kept_a_page_and_a_file_for_a_day_and_a_machine(tmp_path: Path) -> None:
    race, results = map(importlib.import_module, ("race", "results"))
    raced = race.Race("RNN", {"ours": [1.0, 2.0], "book": [4.0, 4.0]}, [race.Pair("ours", "book", 2.5)], "tokens/s", 8)
    memory = results.Table("Memory", ["stream", "most"], [["1 MB", "60 MiB"]])
    first = results.Part("Training", [raced], [memory], ["JAX is left out."])
    document = results.Document(tmp_path / "results")
    document.keep("training", results.Part("an earlier one"), FACTS)
    said = document.keep("training", first, FACTS)
    results.Document(tmp_path / "results").keep("growth", results.Part("Growth", pictures={"lines": "<svg/>"}), FACTS)

    page, kept = document.path.read_text(encoding="utf-8"), json.loads(document.path.with_suffix(".json").read_bytes())
    assert said in page
    assert "an earlier one" not in page
    for line in (
        "| tokens/s | ours | book |",
        "| RNN | 6.00 | 2.00 |",
        "| RNN | ours / book | 3.00 | 2.50–3.50 | 2.5 |",
        "| 1 MB | 60 MiB |",
        "- JAX is left out.",
        f"![lines]({document.path.stem}-growth.svg)",
    ):
        assert line in page.splitlines()
    assert "commit 7905c0e32539, with changes that are in no commit; load 0.5 before and 1.25 after" in page
    assert [*kept["parts"]] == ["training", "growth"]
    assert kept["parts"]["training"]["races"][0]["ratios"][0]["median"] == 3.0
    assert {"processor", "cores", "memory", "system"} == kept["machine"].keys()
    assert document.path.with_name(f"{document.path.stem}-growth.svg").read_text(encoding="utf-8") == "<svg/>"


def test_an_exponent_is_fitted_and_drawn() -> None:
    growth, drawing = map(importlib.import_module, ("growth", "drawing"))
    powers = {"tokenize": 1.0, "train": 0.0}
    points = [growth.Point(name, n, 3.0 * n**power, 2**20) for n in (1, 10, 100) for name, power in powers.items()]
    rows = {row[0]: row[1:] for row in growth.table("against the corpus", points).rows}
    assert rows["tokenize, s"] == ["3.00", "30.0", "300", "1.00 (1.00)"]
    assert rows["train, s"][-1] == rows["train, MiB"][-1] == "0.00 (0.00)"
    two = [drawing.panel("seconds", "MB", growth.curves(points, "seconds", 1)) for _ in range(2)]
    picture = ElementTree.fromstring(drawing.panels(two))
    assert [panel.get("x") for panel in picture] == ["0", "674"]
    assert all("tokenize" in "".join(panel.itertext()) for panel in picture)
    ends = [line.points[-1] for line in two[0].lines]
    assert ends[0][1] < ends[1][1]  # which grew stands higher
    [alone] = drawing.panel("seconds", "MB", {"train": growth.curves(points, "seconds", 1)["train"]}).lines
    assert alone.style == two[0].lines[1].style  # of what it is, wherever it stands


def test_the_memory_of_a_command_is_its_own_and_not_that_of_whoever_measures(tmp_path: Path) -> None:
    growth = importlib.import_module("growth")
    held = bytearray(200 << 20)
    held[::4096] = b"x" * len(held[::4096])
    stages = {
        "stages": [{"state": "ran", "seconds": 0.25}, {"state": "cached", "seconds": 3}, {"state": "ran", "seconds": 2}]
    }
    said = json.dumps(stages, indent=1)
    seconds, memory = growth.took(([sys.executable, "-S", "-c", f"print({said!r})"], tmp_path, {}))
    assert seconds == 2.25
    assert 1 << 20 < memory < 100 << 20
    with pytest.raises(RuntimeError, match="no such thing"):
        growth.took(([sys.executable, "-S", "-c", "raise SystemExit('no such thing')"], tmp_path, {}))


def test_every_part_is_there_and_another_one_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = runpy.run_path(str(ROOT / "tests" / "benchmark" / "__main__.py"))
    for name in command["PARTS"]:
        assert callable(importlib.import_module(name).measure)
    monkeypatch.setattr("sys.argv", ["benchmark", "speed"])
    with pytest.raises(SystemExit) as end:
        command["main"]()
    assert end.value.code == 2
    assert "there is no part speed: training, text" in capsys.readouterr().err


def test_a_load_loses_nothing_and_is_what_its_seeds_write(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = importlib.import_module("serving")
    monkeypatch.setattr(serving, "SECONDS", 0.3)
    [model] = (finished / "train").iterdir()
    keys = {json.loads((model / "manifest.json").read_text(encoding="utf-8"))["key"]: model}
    swaps: list[int] = []
    with serving.server(finished) as address:
        found = serving.load(address, 3, [lambda: swaps.append(1)] * 2)
        assert serving.counter(address, "rnnlm_swaps_total") == 0
    assert swaps == [1, 1]
    assert found.lost == []
    assert len(found.latencies) == len(found.answers) > 3
    serving.check(found, keys)
    seed, key, text = found.answers[0]
    found.answers[0] = seed, key, text[:-1]
    with pytest.raises(AssertionError):
        serving.check(found, keys)
    assert found.row("3 clients", 1.0)[-1] == "0"
