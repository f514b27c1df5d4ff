"""Whatever ends a run, the store stays whole and the next run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONG = ["--set", "train.epochs=100000"]


def start(tiny: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stages.cli", "run", "--preset", str(tiny), *arguments]
    environment = {**os.environ, "RNNLM_STORE": str(tiny.parent / "store")}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def until_training(process: subprocess.Popen[str], tiny: Path) -> None:
    """Wait for the first checkpoint of the training that the process has begun."""
    deadline = time.monotonic() + 60
    while not list((tiny.parent / "store" / "checkpoints").glob("*/*.safetensors")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("stage", ["download", "tokenize", "train", "evaluate"])
@pytest.mark.parametrize("force", [False, True], ids=["first", "again"])
def test_kill_in_any_stage_leaves_no_half_artifact(rnnlm, tiny: Path, stage: str, force: bool) -> None:  # type: ignore[no-untyped-def]
    longer = ["--set", "train.epochs=20"]
    if force:
        rnnlm("run", "--preset", tiny, *longer)
    process = start(tiny, *longer, *(["--force", stage] if force else []))
    while not list((tiny.parent / "store" / "tmp").glob(f"{stage}-*")) and process.poll() is None:
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    assert rnnlm("verify").stdout.count("sound") >= (4 if force else 0), "what was there is there"
    printed = json.loads(rnnlm("run", "--preset", tiny, *longer, "--json").stdout)
    assert len(printed["stages"]) == 4
    rnnlm("gc")
    assert not list((tiny.parent / "store").glob("tmp/*"))
    assert rnnlm("verify").stdout.count("sound") == 5


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_says_how_to_go_on_and_does(rnnlm, tiny: Path, signum: int, code: int) -> None:  # type: ignore[no-untyped-def]
    process = start(tiny, *LONG)
    until_training(process, tiny)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("rnnlm: ")
    assert "100,000" in last
    assert "Traceback" not in err

    process = start(tiny, *LONG)
    time.sleep(4)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert "training goes on in epoch" in err


def test_an_interrupt_before_training_is_one_sentence_too(tiny: Path) -> None:
    process = start(tiny, *LONG)
    while not (tiny.parent / "store").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_two_runs_at_once_do_the_work_once(rnnlm, tiny: Path) -> None:  # type: ignore[no-untyped-def]
    both = [start(tiny, "--json", "--set", "train.epochs=40") for _ in range(2)]
    printed = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    states = [[stage["state"] for stage in json.loads(out)["stages"]] for out, _ in printed]
    for first, second in zip(*states, strict=True):
        assert sorted((first, second)) == ["cached", "ran"]


def test_more_epochs_give_what_an_uninterrupted_run_gives(rnnlm, tiny: Path) -> None:  # type: ignore[no-untyped-def]
    def weights(*arguments: str) -> bytes:
        folder = rnnlm("train", "--preset", tiny, *arguments).stdout.strip()
        return (Path(folder) / "model.safetensors").read_bytes()

    weights("--set", "train.epochs=3")
    continued = weights("--set", "train.epochs=7")
    whole = weights("--set", "train.epochs=7", "--store", str(tiny.parent / "other"))
    assert continued == whole


def test_forced_training_begins_again_and_ends_with_the_same_bytes(rnnlm, tiny: Path) -> None:  # type: ignore[no-untyped-def]
    folder = Path(rnnlm("train", "--preset", tiny).stdout.strip())
    weights = (folder / "model.safetensors").read_bytes()
    (checkpoints,) = (tiny.parent / "store" / "checkpoints").iterdir()
    before = {path.name: path.stat().st_ino for path in checkpoints.iterdir()}
    rnnlm("train", "--preset", tiny, "--force", "train")
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not set(before.values()) & {path.stat().st_ino for path in checkpoints.iterdir()}


def test_runs_of_different_lengths_share_their_checkpoints_in_turn(rnnlm, tiny: Path) -> None:  # type: ignore[no-untyped-def]
    runs = [start(tiny, "--json", "--set", f"train.epochs={epochs}") for epochs in (30, 31, 32)]
    printed = [process.communicate(timeout=120) for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0], printed


@pytest.mark.parametrize("stage", ["download", "tokenize", "train", "evaluate"])
def test_a_full_disk_ends_in_one_sentence_and_the_old_artifact_stays(rnnlm, tiny: Path, stage: str) -> None:  # type: ignore[no-untyped-def]
    rnnlm("run", "--preset", tiny)
    # The kernel refuses to let a file of this process grow past the limit, as a full disk would.
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "from stages.cli.app import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "run", "--preset", str(tiny), "--force", stage]
    environment = {**os.environ, "RNNLM_STORE": str(tiny.parent / "store"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "no space is left for the store" in done.stderr or "cannot be written (File too large)" in done.stderr
    assert rnnlm("verify").stdout.count("sound") == 5
