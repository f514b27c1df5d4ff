"""What is known by name is listed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def test_presets_and_corpora_are_listed(here: Rnnlm) -> None:
    assert {line.split()[0] for line in here("presets").stdout.splitlines()} >= {"book", "sample"}
    assert {line.split()[0] for line in here("corpora").stdout.splitlines()} == {
        "sample",
        "timemachine",
        "tinyshakespeare",
    }
