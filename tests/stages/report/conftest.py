"""What the tests of the report share: real runs, on one store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from data.store.folder import Store
from stages.pipeline import graph, settings
from stages.pipeline import run as pipeline
from stages.promotion.judge import Comparison, Verdict
from stages.report.gather import Report, gather

NASTY = "<script>alert(1)</script>"
TEXT = "".join(f"The {animal} saw {number} birds {NASTY}\n" for number in range(20) for animal in ("cat", "dog"))
TINY: dict[str, Any] = {
    "tokenize": {"train_share": 0.8, "valid_share": 0.1, "test_share": 0.1},
    "train": {"hidden_size": 8, "batch_size": 4, "num_steps": 8, "epochs": 2, "engine": "bptt", "device": "cpu"},
    "evaluate": {"prefixes": ["the", NASTY], "length": 8},
}
Run = Callable[..., Report]


@pytest.fixture(scope="session")
def nasty() -> str:
    """What must never become markup; it stands in the text of every run."""
    return NASTY


@pytest.fixture(scope="session")
def promoted() -> dict[str, Any]:
    """The verdict on a model that is better than the champion."""
    today = Comparison(
        text="today",
        passed=True,
        reason="it is better",
        bits=2.2106,
        bits_champion=2.2319,
        gain=0.0213,
        lower=0.0117,
        upper=0.0309,
        characters=2538,
        left_out=12,
        blocks=5,
        confidence=0.99,
    )
    unseen = Comparison("champion", None, "too little is unseen", left_out=2538)
    return Verdict(True, "better than the champion by more than chance explains", (today, unseen)).json()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the real pipeline, on another text or with fields of some stages changed; gather its report."""
    folder = tmp_path_factory.mktemp("report")
    store = Store(folder / "store")

    def gathered(verdict: dict[str, Any] | None = None, text: str = TEXT, **changes: dict[str, Any]) -> Report:
        (folder / "text.txt").write_text(text, encoding="utf-8")
        values = {stage: {**TINY.get(stage, {}), **changes.get(stage, {})} for stage in graph.shown()}
        values["download"] = {"corpus": str(folder / "text.txt")}
        return gather(pipeline.run(settings.parse(values), store, lambda stage: lambda *_: None), verdict)

    gathered()
    return gathered


@pytest.fixture
def tiny(run: Run) -> Report:
    """The report of the smallest run."""
    return run()
