"""The house: each floor imports only downwards, MXNet has one room, Prefect one floor."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BELOW = {"data": {"data"}, "stages": {"data", "stages"}, "flows": {"data", "stages", "flows"}}
MODULES = [path for floor in BELOW for path in sorted((ROOT / floor).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively, which hides the floor"
            assert node.module
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_downwards(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    found = set(imports(path))
    assert found & set(BELOW) <= BELOW[floor]
    if floor != "flows":
        assert "prefect" not in found
    if path != ROOT / "stages" / "training" / "gluon.py":
        assert "mxnet" not in found


def loaded(script: str) -> set[str]:
    """The top-level packages that a fresh process has loaded after a script."""
    script += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n")[-2].split())


def command(*arguments: str) -> str:
    return f"""
import sys
sys.argv = ["rnnlm", *{arguments!r}]
from stages.cli.app import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def test_help_status_and_sample_load_neither_prefect_nor_mxnet(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    heavy = {"prefect", "mxnet", "jinja2"}
    assert not loaded(command("--help")) & heavy
    assert not loaded(command("status", "--store", store)) & heavy
    assert not loaded(command("sample", "--untrained", "--length", "5", "--store", store)) & heavy


def test_the_tree_is_the_drawing() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout.split()
    top = {name.partition("/")[0] for name in listed if not name.startswith(".")}
    expected = {"flows", "stages", "data", "tests", "pyproject.toml", "README.md", "LICENSE"}
    assert {name for name in top if not name.startswith("requirements")} == expected
