"""A command that finds nothing to do, asked again: the same words, from little, as long as nothing has changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.store import loaded
from stages.cli import again

if TYPE_CHECKING:
    from tests.conftest import Rnnlm

ROOT = Path(__file__).parents[3]
PROCESS = """
import json, sys, time
clock = time.time_ns
time.time_ns = lambda: clock() + 3600 * 10**9  # what was made a moment ago was left alone for long
root, told, *command = json.loads(sys.argv[1])
sys.path[:1] = [root, root + "/stages/library"]
sys.argv = command
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
import rnnlm
try:
    rnnlm.main()
finally:
    with open(told, "w") as file:
        json.dump([sorted(sys.modules), opened], file)
"""
OF_OURS = ["data", "data.store", "data.store.cache", "stages", "stages.cli", "stages.cli.again"]
HEAVY = {"inspect", "logging", "numpy", "prefect", "pyarrow", "pydantic", "pydantic_core", "rich", "typer"}


def test_a_run_without_work_loads_and_opens_next_to_nothing(trained: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    command = [str(ROOT), str(told), "rnnlm", "run", "--preset", str(trained)]
    environment = {**os.environ, "RNNLM_STORE": str(tmp_path / "store"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    said = []
    for _ in range(2):
        asked = [sys.executable, "-c", PROCESS, json.dumps(command)]
        done = subprocess.run(asked, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said.append((done.stdout, done.stderr))
    assert said[0] == said[1]
    assert "train     cached" in said[0][1]
    modules, opened = json.loads(told.read_text(encoding="utf-8"))
    assert not HEAVY & {*modules}
    assert [name for name in modules if name.partition(".")[0] in ("data", "stages", "flows")] == []
    assert [name for name in modules if name.startswith("rnnlm")] == ["rnnlm", *(f"rnnlm.{name}" for name in OF_OURS)]
    of_the_store = [path for path in opened if path.startswith(str(tmp_path)) and path != str(told)]
    assert [Path(path).parent.name for path in of_the_store] == ["asked"], "no artifact, no report, no text"


class Asked:
    """A command, and whether it is answered from what was remembered of it."""

    def __init__(self, here: Rnnlm, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.arguments = folder, ["run", "--preset", str(folder / "tiny.toml")]
        self._here, self._patch = here, patch

    def __call__(self) -> str:
        """What it says of the stages when it is answered the long way."""
        return self._here(*self.arguments).stderr

    def answered(self) -> bool:
        with self._patch.context() as patch:
            patch.chdir(ROOT)
            patch.setenv("RNNLM_STORE", str(self.folder / "store"))
            patch.setattr(sys, "argv", ["rnnlm", *self.arguments])
            return again.answered()

    def one(self, pattern: str) -> Path:
        return next((self.folder / "store").glob(pattern))


@pytest.fixture
def asked(here: Rnnlm, trained: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Asked:
    """A run that was answered, and reused everything."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(trained.parent / "cache"))
    monkeypatch.setattr(loaded, "BEGAN", time.time_ns() + 3600 * 10**9)
    monkeypatch.setattr(again, "_PASSING", ("PYTEST_CURRENT_TEST",))
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)  # a stream as a process has it
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    asked = Asked(here, trained.parent, monkeypatch)
    assert not asked.answered()
    asked()
    assert asked.answered()
    return asked


def test_status_and_json_say_the_same_again(asked: Asked, here: Rnnlm, capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["status"], ["status", "--json"], ["train"], ["run", "--json"]):
        asked.arguments[:-2] = command
        done = here(*asked.arguments)
        capfd.readouterr()
        assert asked.answered()
        assert capfd.readouterr() == (done.stdout, done.stderr)
        del asked.arguments[1:-2]


def newer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"More of it.\n")


def another_byte(path: Path) -> None:
    """Another content of the same size and time."""
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "ran"),
    [
        (lambda asked: newer(asked.folder / "text.txt"), "download"),
        (lambda asked: newer(asked.folder / "tiny.toml"), ""),
        (lambda asked: another_byte(asked.one("train/*/model.safetensors")), "train"),
        (lambda asked: asked.one("tokenize/*/vocab.arrow").unlink(), "tokenize"),
        (lambda asked: asked.one("evaluate/*/manifest.json").unlink(), "evaluate"),
        (lambda asked: asked.one("reports/*.html").unlink(), ""),
        (lambda asked: asked.one("reports/*.json").unlink(), ""),
        (lambda asked: asked.arguments.extend(["--set", "evaluate.length=9"]), "evaluate"),
        (lambda asked: asked.arguments.extend(["--force", "evaluate"]), "evaluate"),
    ],
    ids=["text", "preset", "model", "table", "manifest", "page", "record", "setting", "force"],
)
def test_what_has_changed_is_looked_at(asked: Asked, change: Callable[[Asked], object], ran: str) -> None:
    assert asked.answered()
    change(asked)
    assert not asked.answered()
    if ran:
        assert f"{ran:9} ran" in asked()


def test_a_folder_is_looked_at_with_all_its_files(asked: Asked) -> None:
    folder = asked.folder / "notes"
    (folder / "deep").mkdir(parents=True)
    text = (asked.folder / "text.txt").read_bytes()
    for number in range(3):
        (folder / "deep" / f"{number}.txt").write_bytes(text)
    asked.arguments[:1] = ["download"]
    asked.arguments.extend(["--corpus", str(folder)])
    asked()
    asked()
    assert asked.answered()
    (folder / "deep" / ".hidden").mkdir()
    (folder / "photo.jpg").write_bytes(b"")
    assert not asked.answered()
    assert "download  cached" in asked()
    assert asked.answered()
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: another_byte(folder / "deep" / "1.txt"), "ran"),
        (lambda: (folder / "deep" / "3.txt").write_bytes(text), "ran"),
        (lambda: (folder / "deep" / "3.txt").unlink(), "cached"),  # as before it came
    ]
    for change, state in changes:
        change()
        assert not asked.answered()
        assert f"download  {state}" in asked()
        asked()
        assert asked.answered()


def test_of_more_files_than_are_quickly_looked_at_no_answer_is_remembered(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer(asked.folder / "text.txt")
    asked()
    monkeypatch.setattr(again, "MOST", 3)
    asked()
    assert not asked.answered()


def test_what_has_just_changed_is_not_remembered(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change once more within the tick of a clock, and look the same."""
    page = asked.one("reports/*.html")
    page.touch()
    monkeypatch.setattr(loaded, "BEGAN", time.time_ns())
    asked()
    assert not asked.answered()


def test_another_environment_is_another_question(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not asked.answered()


def test_what_is_used_this_way_is_not_collected(asked: Asked) -> None:
    folders = [
        path for stage in ("download", "train", "baselines") for path in (asked.folder / "store" / stage).iterdir()
    ]
    for folder in folders:
        os.utime(folder, (0, 0))
    assert asked.answered()
    assert all(folder.stat().st_mtime > time.time() - 60 for folder in folders)


@pytest.mark.parametrize("content", [b"3", b"{}", b'{"looked": [], "used": []}', b'{"looked": [[]]}'])
def test_an_answer_that_is_none_is_not_given(asked: Asked, content: bytes, tmp_path: Path) -> None:
    for entry in (tmp_path / "cache" / "rnnlm" / "asked").iterdir():
        entry.write_bytes(content)
    assert not asked.answered()
