"""Whatever ends a run, the store stays whole and the next run goes on."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data.progress import LogLines
from data.store.collect import collect
from data.store.folder import Store
from stages.pipeline import graph, settings
from stages.pipeline.run import Walk, perform

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]
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


def test_the_long_forms_in_short(tmp_path: Path) -> None:
    """Kills at system calls and anywhere, processes that race with `gc`, a few days of nights, a disk that is full."""
    (tmp_path / "storm").mkdir()
    (tmp_path / "month").mkdir()
    script = f"""
from pathlib import Path
from tests import full, kill, month, storm

print(f"kills: {{kill.kills(6, ('run', 'night', 'gc'))}} faults")
print(f"storm: {{storm.storm(Path({str(tmp_path)!r}, 'storm'), 1)}}")
print(f"month: {{month.month(Path({str(tmp_path)!r}, 'month'), 3)}}")
print(f"full: {{full.refused() or full.full(40, ['run'])}}")
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    said = done.stdout.splitlines()
    assert {"kills: 0 faults", "storm: []", "month: []"} <= {*said}, f"{done.stdout}\n{done.stderr}"
    assert said[-1] == "full: 0" or "only root" in said[-1], done.stdout


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_says_how_to_go_on_and_does(here: Rnnlm, tiny: Path, signum: int, code: int) -> None:
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

    [(epoch, said)] = re.findall(r"in epoch ([\d,]+) of 100,000 (.*)", last)
    assert said == "and nothing is lost: the same command goes on from there"
    epoch = epoch.replace(",", "")
    done = here("train", "--preset", tiny, "--set", f"train.epochs={epoch}")
    assert f"training goes on in epoch {epoch} of {epoch}" in done.stderr


def test_a_dropped_connection_loses_nothing(here: Rnnlm, tiny: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.cli", "run", "--preset", str(tiny), *LONG],
        cwd=ROOT,
        env={**os.environ, "RNNLM_STORE": str(tiny.parent / "store"), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # its terminal
    )
    os.close(theirs)
    while b"tokens/s" not in os.read(ours, 65536):
        pass
    os.close(ours)
    assert process.wait(60) == 128 + signal.SIGHUP
    [checkpoints] = (tiny.parent / "store" / "checkpoints").iterdir()
    assert list(checkpoints.glob("*.safetensors"))


def test_an_interrupt_before_training_is_one_sentence_too(tiny: Path) -> None:
    process = start(tiny, *LONG)
    while not (tiny.parent / "store").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_runs_at_once_do_the_work_once_and_share_their_checkpoints_in_turn(tiny: Path) -> None:
    runs = [start(tiny, "--json", "--set", f"train.epochs={epochs}") for epochs in (40, 40, 41)]
    printed = [process.communicate(timeout=120) for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0], printed
    stages = [stage for out, _ in printed for stage in json.loads(out)["stages"]]
    ran = Counter(stage["artifact"] for stage in stages if stage["state"] == "ran")
    assert ran == dict.fromkeys((stage["artifact"] for stage in stages), 1)


def test_more_epochs_give_what_an_uninterrupted_run_gives(here: Rnnlm, tiny: Path) -> None:
    def weights(*arguments: str) -> bytes:
        folder = here("train", "--preset", tiny, *arguments).stdout.strip()
        return (Path(folder) / "model.safetensors").read_bytes()

    weights("--set", "train.epochs=3")
    continued = weights("--set", "train.epochs=7")
    whole = weights("--set", "train.epochs=7", "--store", str(tiny.parent / "other"))
    assert continued == whole


def test_forced_training_begins_again_and_ends_with_the_same_bytes(here: Rnnlm, trained: Path) -> None:
    folder = Path(here("train", "--preset", trained).stdout.strip())
    weights = (folder / "model.safetensors").read_bytes()
    (checkpoints,) = (trained.parent / "store" / "checkpoints").iterdir()
    before = max(path.stat().st_mtime_ns for path in checkpoints.iterdir())
    here("train", "--preset", trained, "--force", "train")
    assert (folder / "model.safetensors").read_bytes() == weights
    assert min(path.stat().st_mtime_ns for path in checkpoints.iterdir()) > before


def test_what_a_walk_has_come_to_stays_also_when_the_clock_jumps_a_year(trained: Path) -> None:
    store = Store(trained.parent / "store")
    config = settings.load(str(trained))
    walk = Walk(lambda name, upstream: perform(name, config, upstream, store, LogLines(name)))
    walk.to(graph.LAST)
    last_year = time.time() - 366 * 86_400
    for path in store.root.glob("*/*"):
        os.utime(path, (last_year, last_year))
    assert not [one for one in collect(store, days=0) if one.folder.parent.name in (*graph.STAGES, "reports")]
    assert all(store.find(name, one.manifest.key) for name, one in walk.artifacts.items())
    del walk  # and with it what it holds
    assert {one.folder.parent.name for one in collect(store, days=0)} >= {*graph.STAGES, "reports"}
    assert not store.artifacts()


@pytest.mark.parametrize("stage", graph.shown())
def test_a_full_disk_ends_in_one_sentence_and_the_old_artifact_stays(here: Rnnlm, trained: Path, stage: str) -> None:
    # The kernel refuses to let a file of this process grow past the limit, as a full disk would.
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "from stages.cli.app import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "run", "--preset", str(trained), "--force", stage]
    environment = {**os.environ, "RNNLM_STORE": str(trained.parent / "store"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "no space is left for the store" in done.stderr or "cannot be written (File too large)" in done.stderr
    assert here("verify").stdout.count("sound") == 5
