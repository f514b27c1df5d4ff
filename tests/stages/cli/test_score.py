"""`rnnlm score`, as a contract: a row for each line, document or row, in their order; and what is said of bad input."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import feather

from data.corpus import catalogue
from stages import download
from stages.lm.model import LanguageModel
from stages.scoring import each, texts
from stages.scoring.each import score_each

if TYPE_CHECKING:
    from data.progress import Progress
    from stages.scoring.each import Scored

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[3]
LINES = ["the sea, the sea", "", "é", "Then the cat saw", "two birds"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_bytes("\r\n".join(LINES).encode())
    return path


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def figures(scored: Iterable[Scored]) -> list[dict[str, Any]]:
    return [
        {name: round(value, 6) if isinstance(value, float) else value for name, value in vars(one).items()}
        for one in scored
    ]


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def test_each_line_is_a_row_with_what_the_model_says_of_it_alone(here: Rnnlm, model: Path, log: Path) -> None:
    found = rows(here("score", log, "--per", "line", "--model", model))
    assert [row["number"] for row in found] == [1, 2, 3, 4, 5]
    assert {row["name"] for row in found} == {None}
    ours = LanguageModel.load(model)
    assert [without(row, "number", "name") for row in found] == figures(score_each(ours, LINES))
    alone = log.with_name("alone.txt")
    alone.write_text(LINES[3])
    measured = json.loads(here("evaluate", "--on", alone, "--model", model, "--json").stdout)
    assert found[3]["bits_per_character"] == pytest.approx(measured["bits_per_character"], abs=1e-5)
    assert found[3]["tokens"] == measured["tokens"]
    assert found[1]["bits_per_character"] is found[1]["span"] is found[2]["unknown_rate"] is None


def test_the_odd_line_of_a_thousand_comes_first(here: Rnnlm, trained: Path, tiny_text: str, tmp_path: Path) -> None:
    here("train", "--preset", trained)
    usual = tiny_text.splitlines()
    lines = [usual[number % len(usual)] for number in range(1_000)]
    lines[612] = "Then the cat saw xkqzvw over the sea."
    (tmp_path / "app.log").write_text("\n".join(lines) + "\n")
    table = tmp_path / "scores.arrow"
    assert here("score", tmp_path / "app.log", "--per", "line", "--to", table, "--preset", trained).stdout == ""
    found = feather.read_table(table).sort_by([("bits_per_character", "descending")]).to_pylist()
    assert len(found) == 1_000
    assert found[0]["number"] == 613
    assert found[0]["span"] == "xkqzvw"
    assert lines[612].lower()[found[0]["span_at"] :].startswith("xkqzvw")


def test_documents_and_their_lines_have_names(here: Rnnlm, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "b.txt").write_text("the sea\nthe cat\n")
    (folder / "a.txt").write_text("two birds")
    with tarfile.open(tmp_path / "letters.tar.gz", "w:gz") as tar:
        tar.add(folder / "a.txt", "a.txt")
        tar.add(folder / "b.txt", "b.txt")
    whole = figures(score_each(LanguageModel.load(model), ["two birds", "the sea\nthe cat\n"]))
    for corpus in (folder, tmp_path / "letters.tar.gz"):
        found = rows(here("score", corpus, "--per", "document", "--model", model))
        assert [(row["number"], row["name"]) for row in found] == [(1, "a.txt"), (2, "b.txt")]
        assert [without(row, "number", "name") for row in found] == whole
        found = rows(here("score", corpus, "--per", "line", "--model", model))
        assert [(row["number"], row["name"]) for row in found] == [(1, "a.txt"), (1, "b.txt"), (2, "b.txt")]
    [one] = rows(here("score", folder / "b.txt", "--per", "document", "--model", model))
    assert without(one, "number", "name") == whole[1]


def test_a_row_has_the_number_that_it_has_in_its_table(here: Rnnlm, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("id,review\n7,the sea\n8,\n9,two birds\n")
    done = here("score", path, "--per", "row", "--text-column", "review", "--model", model)
    assert [(row["number"], row["name"]) for row in rows(done)] == [(1, "reviews.csv:1"), (3, "reviews.csv:3")]
    assert "left out: 1" in done.stderr
    lacking = here("score", path, "--per", "row", "--model", model, code=2)
    assert "its columns are 'id', 'review'; say which by `--text-column NAME`" in lacking.stderr


def test_standard_input_is_scored(rnnlm: Rnnlm, model: Path) -> None:
    found = rows(rnnlm("score", "-", "--per", "line", "--model", model, input="the sea\ntwo birds\n"))
    assert [row["number"] for row in found] == [1, 2]


def test_rows_come_before_the_text_has_ended(model: Path) -> None:
    small = "from data.corpus import spool; from stages.scoring import each; each.WINDOW = spool.CHUNK = 16"
    program = f"{small}; from stages.cli.app import main; main()"
    command = [sys.executable, "-c", program, "score", "-", "--per", "line", "--model", str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"the sea\n" * 4)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["number"] == 1
        process.stdin.close()
        assert json.loads(process.stdout.readlines()[-1])["number"] == 4
    assert process.returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"?" * path.stat().st_size),
        lambda path: path.write_bytes(path.read_bytes() + b"one more"),
        lambda path: path.write_bytes(b""),
        lambda path: path.with_name("another").rename(path),
        lambda path: path.unlink(),
    ],
    ids=["rewritten", "longer", "shorter", "another", "gone"],
)
def test_a_change_while_lines_are_read_publishes_nothing(
    change: Callable[[Path], object], here: Rnnlm, model: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(log, (0, 0))
    shutil.copy2(log, log.with_name("another"))
    content = catalogue.content

    def changed(path: Path) -> Iterator[tuple[bytes, int]]:
        yield from content(path)
        change(path)

    monkeypatch.setattr(catalogue, "content", changed)
    done = here("score", log, "--per", "line", "--model", model, "--to", log.with_suffix(".csv"), code=2)
    assert "changed while it was read" in done.stderr
    assert not [*log.parent.glob("app.csv*")]


def test_a_change_while_it_is_copied_publishes_nothing(
    here: Rnnlm, model: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = download._copy

    def changed(source: Any, path: Path, *others: Any) -> str:
        path.write_text("another text")
        return copy(source, path, *others)

    monkeypatch.setattr(download, "_copy", changed)
    done = here("score", log, "--per", "document", "--model", model, "--to", log.with_suffix(".csv"), code=2)
    assert "changed while it was read" in done.stderr
    assert not log.with_suffix(".csv").exists()


def test_what_is_no_text_further_on_publishes_nothing(
    here: Rnnlm, model: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "CHUNK", 100)
    monkeypatch.setattr(each, "WINDOW", 100)
    log.write_bytes(b"the sea\n" * 100 + b"\xff")
    said = f"corpus '{log}' is not UTF-8 text (byte 800, in line 101)"
    by_line = ["score", log, "--per", "line", "--model", model]
    assert said in here(*by_line, "--to", log.with_suffix(".jsonl"), code=2).stderr
    assert not [*log.parent.glob("app.jsonl*")]
    done = here(*by_line, code=2)
    assert said in done.stderr
    assert rows(done)[0]["number"] == 1


def test_a_page_is_scored_with_a_warning(here: Rnnlm, model: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(codecs.BOM_UTF8 + b"\n<HTML>\nthe sea\n")
    done = here("score", tmp_path / "page.html", "--per", "line", "--model", model)
    assert done.stderr == f"{tmp_path / 'page.html'} is an HTML page: its tags are learnt like all else in it\n"
    assert [row["characters"] for row in rows(done)] == [0, 6, 7]


def test_how_far_it_is_is_known_where_there_is_an_end(
    here: Rnnlm, model: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[tuple[float, float]]()

    @contextmanager
    def reporting() -> Iterator[Callable[[str], Progress]]:
        yield lambda _: lambda done, total, _: told.append((done, total))

    monkeypatch.setattr("stages.cli.score.reporting", reporting)
    size = log.stat().st_size
    with log.open("rb") as file, subprocess.Popen(["cat", log], stdout=subprocess.PIPE) as cat:
        assert cat.stdout
        for name, totals in (
            (log, {size}),
            (f"/dev/fd/{file.fileno()}", {size}),
            (f"/dev/fd/{cat.stdout.fileno()}", {0}),
        ):
            told.clear()
            here("score", name, "--per", "line", "--model", model)
            assert len(told) == len(LINES)
            assert {total for _, total in told} == totals
            assert told == sorted(told)
            assert size - len(LINES) < told[-1][0] <= size


def test_what_cannot_be_scored_is_said_in_a_sentence(
    here: Rnnlm, model: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00\x80" * 9)
    os.link(log, tmp_path / "log.csv")
    by_line = ["--per", "line", "--model", model]
    for arguments, said in (
        ([tmp_path / "empty.txt", *by_line], "is empty"),
        ([tmp_path / "bytes.txt", *by_line], "is not UTF-8"),
        ([tmp_path / "nothing.txt", *by_line], "there is no corpus file"),
        ([log, "--per", "row", "--model", model], "score it --per document"),
        ([log, *by_line, "--to", tmp_path / "scores.xls"], "suffix of no table"),
        ([log, *by_line, "--to", tmp_path / "log.csv"], "is the text itself"),
        ([log, *by_line, "--preset", "sample"], "leave out --model"),
        ([log, "--per", "line", "--preset", "sample"], "has no model of the preset sample"),
        ([log, "--per", "line", "--model", tmp_path], "does not describe a model"),
        ([log, "--per", "page"], "--per"),
    ):
        done = here("score", *arguments, code=2)
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not done.stdout
    monkeypatch.setattr(texts, "MOST", 12)
    assert f"line 1 of {log} has more than the 12 characters" in here("score", log, *by_line, code=2).stderr
