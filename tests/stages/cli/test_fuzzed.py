"""Configurations and command lines that are wrong, as `tests/fuzz/configs.py` draws them: its short form."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def configs() -> ModuleType:
    """The program tests/fuzz/configs.py."""
    spec = importlib.util.spec_from_file_location("configs", ROOT / "tests" / "fuzz" / "configs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["configs"] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kind", "cases"),
    [("fields", 25), ("presets", 25), ("vary", 25), ("lines", 25), ("environments", 10), ("trainings", 3)],
)
def test_what_is_wrong_is_one_sentence(
    configs: ModuleType, kind: str, cases: int, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.parent)
    tally = configs.fuzz(trained.parent, cases, 7, [kind])
    assert tally.cases[kind] == cases
    assert tally.faults == []


@pytest.mark.parametrize(
    ("ended", "fault"),
    [
        ({"code": 1}, "exit code 1"),
        ({"code": 2, "err": "no"}, "a refusal that is no sentence"),
        ({"code": 2, "err": "rnnlm: no", "out": "x"}, "a refusal on standard output"),
        ({"code": 2, "err": "rnnlm: " + "x" * 5000}, "an endless sentence"),
        ({"code": 0, "err": "RuntimeWarning: overflow"}, "a traceback, or a library's warning"),
        ({"code": 0, "out": "\x1b[31m"}, "it commands the terminal"),
        ({"code": None, "crash": "ValueError: x"}, "ValueError: x"),
        ({"code": 2, "err": "rnnlm: the preset x cannot be read\n"}, ""),
    ],
)
def test_a_fault_is_seen(configs: ModuleType, ended: dict[str, object], fault: str) -> None:
    found = configs.fault(configs.Outcome(**{"out": "", "err": "", "seconds": 0.0, **ended}))
    assert found.partition("\n")[0] == fault
