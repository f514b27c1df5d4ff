"""What could not be held is refused before it is begun: by the machine's memory, or by what its container may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data import memory
from data.errors import TrainingError


@pytest.mark.parametrize(
    ("limit", "least"), [("max\n", True), ("1000000\n", False), (f"{1 << 62}\n", True), (None, True)]
)
def test_a_container_may_have_less_than_the_machine(
    limit: str | None, least: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit, encoding="ascii")
    monkeypatch.setattr(memory, "_LIMITS", (str(tmp_path / "memory.max"),))
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory.available() == (there if least else 1_000_000)


def test_what_needs_more_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2_000_000_000)
    memory.check("the model", 2_000_000_000, "fewer train.layers")
    with pytest.raises(
        TrainingError, match=r"the model would need 2\.5 GB and this machine has 2\.0: set fewer train\."
    ):
        memory.check("the model", 2_500_000_000, "fewer train.layers")
