"""What several tests share: a small run, and the command line in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

# A shell gives what it starts in the background no Ctrl-C, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = """
[tokenize]
train_share = 0.8
valid_share = 0.1
test_share = 0.1

[train]
hidden_size = 8
batch_size = 4
num_steps = 8
epochs = 2

[evaluate]
prefixes = ["the"]
length = 8
"""

TEXT = "".join(
    f"Then the {animal} saw {number} birds over the sea.\n" for number in range(12) for animal in ("cat", "dog")
)

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def tiny_settings() -> str:
    """A preset that trains in a moment, on any text."""
    return TINY


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """A text that is enough for it."""
    return TEXT


@pytest.fixture
def tiny(tmp_path: Path, tiny_settings: str, tiny_text: str) -> Path:
    """The preset in a file, on the text in a file beside it."""
    (tmp_path / "text.txt").write_text(tiny_text, encoding="utf-8")
    preset = tmp_path / "tiny.toml"
    preset.write_text(f'[download]\ncorpus = "{tmp_path / "text.txt"}"\n{tiny_settings}', encoding="utf-8")
    return preset


@pytest.fixture
def rnnlm(tmp_path: Path) -> Rnnlm:
    """Run ``rnnlm`` as a user would, its store in a folder of the test's own."""

    def call(*arguments: str | Path, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "RNNLM_STORE": str(tmp_path / "store"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "stages.cli", *map(str, arguments)]
        options = {"cwd": ROOT, "env": environment, **options}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call
