"""Progress: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from data.progress import LogLines

ROOT = Path(__file__).parents[2]


def test_log_lines_tell_share_figures_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = LogLines("train", every=0)
    progress(1, 4, "perplexity 4.1 · 98,000 tokens/s")
    assert caplog.messages == ["train: 25% · perplexity 4.1 · 98,000 tokens/s · 0:00 left"]
    progress(5, 0, "12 MB/s")
    assert caplog.messages[-1] == "train: 12 MB/s"


def test_log_lines_stay_silent_while_a_stage_is_short(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = LogLines("train")
    for done in range(1000):
        progress(done, 1000, "")
    assert caplog.messages == []


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_shows_a_bar_on_standard_error_only(tmp_path: Path, tiny: Path, no_color: bool) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "RNNLM_STORE": str(tmp_path / "store"), "TERM": "xterm", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    if no_color:
        environment["NO_COLOR"] = "1"
    command = [sys.executable, "-m", "stages.cli", "train", "--preset", str(tiny), "--set", "train.epochs=40"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=slave, text=True)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        shown += part
    os.close(master)
    assert process.stdout
    printed = process.stdout.read()
    assert process.wait(60) == 0
    text = shown.decode()
    assert "tokens/s" in text
    assert "epoch" in text
    assert "train     ran" in text
    assert ("\x1b[38;" in text or "\x1b[3" in text) is not no_color
    assert "\x1b" not in printed
