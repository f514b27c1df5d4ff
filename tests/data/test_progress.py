"""Progress: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from data import progress as shown
from data.progress import LogLines

ROOT = Path(__file__).parents[2]


def test_log_lines_tell_share_figures_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = 100.0
    monkeypatch.setattr(shown, "time", SimpleNamespace(monotonic=lambda: now))
    progress = LogLines("train")
    now = 200  # whatever comes before there is something to tell
    progress(11, 20, "perplexity 4.1 · 98,000 tokens/s")  # eleven of them were done before
    now = 210
    progress(12, 20, "perplexity 4 · 98,000 tokens/s")
    assert caplog.messages == [
        "train: 55% · perplexity 4.1 · 98,000 tokens/s",
        "train: 60% · perplexity 4 · 98,000 tokens/s · 1:20 left",
    ]
    now = 220
    progress(5, 0, "12 MB/s")
    assert caplog.messages[-1] == "train: 12 MB/s"


def test_log_lines_stay_silent_while_a_stage_is_short(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = LogLines("train")
    for done in range(1000):
        progress(done, 1000, "")
    assert caplog.messages == []


def on_a_terminal(command: list[str], **variables: str) -> tuple[str, str]:
    """What a process writes to standard error, which is a terminal, and to standard output, which is none."""
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm", "COLUMNS": "120", **variables}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=slave, text=True)
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:  # the other end is closed
            break
    os.close(master)
    assert process.stdout
    printed = process.stdout.read()
    assert process.wait(60) == 0
    return shown.decode(), printed


def test_a_terminal_shows_a_bar_on_standard_error_only(tmp_path: Path, tiny: Path) -> None:
    command = [sys.executable, "-m", "stages.cli", "train", "--preset", str(tiny), "--set", "train.epochs=40"]
    shown, printed = on_a_terminal(command, RNNLM_STORE=str(tmp_path / "store"))
    assert "tokens/s" in shown
    assert "epoch" in shown
    assert "train     ran" in shown
    assert "\x1b" not in printed


BAR = """
import time
now = 100.0
time.monotonic = lambda: now
from data.progress import reporting
with reporting() as start:
    show = start("train")
    show(1, 4, "perplexity 4.1")
    now += 0.1
    show(1.0001, 4, "perplexity 4.1")
print("done")
"""


@pytest.mark.parametrize("no_color", [False, True])
def test_a_bar_has_colours_unless_they_are_declined(no_color: bool) -> None:
    shown, printed = on_a_terminal([sys.executable, "-c", BAR], **({"NO_COLOR": "1"} if no_color else {}))
    assert "train" in shown
    assert "25%" in shown
    assert re.search("(49:59|50:00)", shown), "what is left takes 30,000 times 0.1 s, whatever was done before"
    assert "perplexity 4.1" in shown
    assert ("\x1b[38;" in shown or "\x1b[3" in shown) is not no_color
    assert printed == "done\n"


@pytest.mark.parametrize("variables", [{"JPY_PARENT_PID": "1"}, {"TERM": "dumb"}], ids=["a notebook", "no terminal"])
def test_what_only_looks_like_a_terminal_gets_no_bar(variables: dict[str, str]) -> None:
    shown, printed = on_a_terminal([sys.executable, "-c", BAR], **variables)
    assert shown == ""
    assert printed == "done\n"
