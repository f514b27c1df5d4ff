"""The command line as a contract: mistakes, and what becomes of a process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data.tables.vocab import Vocab

ROOT = Path(__file__).parents[3]
Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]

MISTAKES = [
    (["run", "--preset", "nowhere"], "no preset 'nowhere'"),
    (["run", "--set", "train.hiden_size=3"], "did you mean 'hidden_size'?"),
    (["run", "--set", "train.hidden_size=many"], "train.hidden_size: 'many' does not fit"),
    (["run", "--set", "hidden_size=3"], "STAGE.FIELD=VALUE"),
    (["run", "--corpus", "nowhere.txt"], "nowhere.txt"),
    (["run", "--corpus", "timemachin"], "timemachine"),
    (["run", "--force", "training"], "there is no stage 'training'"),
    (["tokenize", "--force", "train"], "does not reach the stage train"),
    (["run", "--from", ""], "there is no stage ''"),
    (["download", "--from", "train"], "does not reach the stage train"),
    (["run", "--store", str(Path(__file__))], "is a file: name a folder"),
    (["run", "--preset", "~nobody-of-that-name/x"], "no preset"),
    (["run", "--preset", "x" * 5000], "no preset"),
    (["train", "--set", "train.hidden_size=1000000000"], "train.hidden_size"),
    (["sample", "--untrained", "--set", "train.hidden_size=1000000000"], "set a smaller train.hidden_size"),
    (["sample", "--untrained", "--set", "train.layers=100", "--set", "train.hidden_size=100000"], "would need"),
    (["promote", "0123"], "no models"),
    (["rollback"], "no champion"),
    (["run", "--set", "train.device=gpu"], "train.device = gpu cannot be used"),
    (["run", "--store", "s3://bucket"], "s3://bucket"),
    (["explain", "training"], "there is no stage 'training'"),
    (["sample"], "no trained model"),
    (["sample", "--model", "nowhere"], "nowhere"),
    (["sample", "--count", "2"], "--temperature"),
    (["sample", "--untrained", "--model", "somewhere"], "leave out --model"),
    (["sample", "--untrained", "--name", "other"], "leave out --name"),
    (["sample", "--model", "somewhere", "--name", "other"], "leave out one of the two"),
    (["evaluate", "--name", "other"], "--on FILE"),
    (["champion", "--name", "../x"], "the name '../x' does not fit"),
    (["promote", "0123", "--name", ""], "no models"),
    (["sample", "--length", "0"], "--length"),
    (["sample", "--top-k", "-1", "--temperature", "1"], "--top-k"),
    (["sample", "--top-k", "5"], "--temperature"),
    (["evaluate", "--model", "somewhere"], "--on FILE"),
    (["evaluate", "--on", "x.txt", "--set", "train.epochs=3"], "--set is for the pipeline"),
    (["evaluate", "--on", "x.txt", "--preset", "sample"], "--preset is for the pipeline"),
    (["evaluate", "--on", "x.txt", "--from", "train"], "--from is for the pipeline"),
    (["evaluate", "--on", "x.txt"], "no trained model"),
    (["run", "--nonsense"], "--nonsense"),
    (["walk"], "walk"),
    (["run", "--corpus", "no\nrnnlm: all is well\x1b[31m"], r"no\nrnnlm: all is well\x1b[31m"),
    (["wa\nrnnlm: lk"], r"wa\nrnnlm: lk"),
    (["promote", "0123", "--reason", "caf\udce9"], r"'--reason': caf\xe9 is not UTF-8"),
    (["sweep", "--vary", "train.seed=1..3", "--trials", "1000000000"], "--trials"),
    (["sample", "--stop", "a", "--stop", "caf\udce9"], r"'--stop': caf\xe9 is not UTF-8"),
    (["sample", "--prefix", "caf\udce9"], r"'--prefix': caf\xe9 is not UTF-8"),
    (["run", "--set", "download.as_of=caf\udce9"], r"'--set': download.as_of=caf\xe9 is not UTF-8"),
    (["sweep", "--vary", "train.cell=caf\udce9"], r"'--vary': train.cell=caf\xe9 is not UTF-8"),
    (["run", "--set", f"train.hidden_size={'9' * 100_000}x"], "does not fit"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(row[0])[:60] for row in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_2(here: Rnnlm, arguments: list[str], said: str) -> None:
    done = here(*arguments, code=2)
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rnnlm: ")
    assert said in last
    assert "Traceback" not in done.stderr
    assert len(last) < 2000


def test_what_finds_no_memory_says_so(here: Rnnlm, monkeypatch: pytest.MonkeyPatch) -> None:
    def large(*arguments: object) -> None:
        raise MemoryError("Unable to allocate 12 GiB")

    monkeypatch.setattr("stages.pipeline.settings.load", large)
    said = here("status", code=2).stderr
    assert said == "rnnlm: this machine has too little memory for that (Unable to allocate 12 GiB)\n"


def test_so_it_is_in_a_process_of_its_own(rnnlm: Rnnlm) -> None:
    done = rnnlm("run", "--preset", "nowhere", code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("rnnlm: there is no preset 'nowhere'")
    assert done.stderr.count("\n") == 1


def test_a_corpus_tells_a_terminal_nothing_and_a_pipe_gets_it_as_it_is(model: Path) -> None:
    Vocab(["<unk>", *"\x1b\x07\x9b abcdefghijklmnopqrstuvw\n"], [0] * 29).write(model / "vocab.arrow")
    command = [sys.executable, "-m", "stages.cli", "sample", "--model", str(model)]
    command += ["--prefix", "a", "--temperature", "9", "--length", "200"]
    terminal, inside = os.openpty()
    with subprocess.Popen(command, stdout=inside, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        os.close(inside)
        said = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(terminal, 4096):
                said += piece
    os.close(terminal)
    assert process.returncode == 0
    assert rb"\x1b" in said
    assert rb"\x9b" in said
    assert not {b"\x1b", b"\x07", "\x9b".encode()} & {
        said[place : place + n] for place in range(len(said)) for n in (1, 2)
    }
    assert "\x1b" in subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout


def test_what_other_commands_say_tells_no_terminal_anything_through_a_pipe(rnnlm: Rnnlm, trained: Path) -> None:
    (trained.parent / "store").rename(trained.parent / "\x1b[31m\x9b")
    environment = {
        **os.environ,
        "RNNLM_STORE": str(trained.parent / "\x1b[31m\x9b"),
        "_RNNLM_COMPLETE": "complete_bash",
    }
    said = rnnlm("train", "--preset", trained, env=environment).stdout
    assert r"\x1b[31m\x9b/train/" in said


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(trained: Path, closed: str) -> None:
    run = [sys.executable, "-m", "stages.cli", "run", "--preset", str(trained)]
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *run]
    environment = {**os.environ, "RNNLM_STORE": str(trained.parent / "store")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert ("report: " in done.stdout) is (">&-" not in closed.replace("2>&-", ""))


def test_a_model_has_to_be_named_to_be_promoted(here: Rnnlm, trained: Path) -> None:
    assert "begin with ''" in here("promote", "", code=2).stderr
    assert "begin with ''" in here("promote", "/", code=2).stderr


def test_paths_need_not_be_utf_8(here: Rnnlm, tiny: Path) -> None:
    strange = tiny.parent / "caf\udce9.txt"
    (tiny.parent / "text.txt").rename(strange)
    store = tiny.parent / "caf\udce9 store"
    arguments = ["--preset", tiny, "--corpus", strange, "--store", store]
    here("night", *arguments, "--reference", strange)
    said = json.loads(here("run", *arguments, "--json").stdout.encode(errors="backslashreplace"))
    assert {stage["state"] for stage in said["stages"]} == {"cached"}
    assert Path(said["stages"][0]["artifact"]).is_relative_to(store)
    manifest = json.loads((Path(said["stages"][0]["artifact"]) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["config"]["corpus"] == f"file://{tiny.parent}/caf%E9.txt"
    here("evaluate", "--on", strange, "--store", store)
    here("verify", "--store", store)


def test_a_working_folder_that_is_gone_ends_nothing(trained: Path) -> None:
    gone = trained.parent / "gone"
    gone.mkdir()
    run = [sys.executable, "-m", "stages.cli", "run", "--preset", str(trained)]
    command = ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *run]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RNNLM_STORE": str(trained.parent / "store")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=gone, env=environment, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1][:8]) == (0, "report: "), done.stderr


def test_a_command_that_is_asked_nothing_shows_its_help(here: Rnnlm) -> None:
    done = here(code=2)
    assert done.stderr.startswith("Usage: ")
    assert "\n  run " in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(trained: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "stages.cli", "run", "--preset", str(trained)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RNNLM_STORE": str(trained.parent / "store")},
        timeout=60,
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
