"""Lint, formatting and types are clean, of the tests too, as the settings in pyproject.toml have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


TOOLS = [
    ["ruff", "check"],
    ["ruff", "format", "--check"],
    ["mypy"],
    ["mypy", "--platform", "darwin", "--python-version", "3.13", "flows", "stages", "data"],
]


@pytest.mark.parametrize("tool", TOOLS, ids=" ".join)
def test_a_tool_finds_nothing(tool: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
