"""The simulation of years of nights in short: the judge does what it asks for, and neither never nor always does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from data.corpus.text import code_points

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def years() -> ModuleType:
    """The program tests/years.py."""
    spec = importlib.util.spec_from_file_location("years", ROOT / "tests" / "years.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["years"] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_the_judge_does_what_neither_never_nor_always_does(years: ModuleType) -> None:
    text = code_points((ROOT / "data" / "corpus" / "sample.txt").read_text(encoding="utf-8"))
    vocab, ids = np.unique(text, return_inverse=True)
    pool = years.grams(ids.astype(np.uint8), len(vocab) + 1, trained=12_000, models=6)

    def lacking(rule: object) -> str:
        row = years.measure(pool, 2_500, 50, rule, years=2, cases=10, nights=60)
        assert str(row).startswith("| 2,500, 50 | ")
        return "; ".join(years.lacking(row))

    assert lacking(years.judged) == ""
    never = lacking(lambda today, ground: False)
    assert never == "a gain of 0.2 bits is promoted within a week in 0% of cases, where 90% are asked for"
    always = lacking(lambda today, ground: True)
    assert always.startswith("60.00 promotions a year, where 1 is let pass; ")
    assert "promotions are worse, where 15% are let pass" in always
    by_chance = lacking(lambda today, ground: today[0].mean() < today[1].mean())
    assert "promotions a year" in by_chance
