"""Nothing executes what it loads: no pickle, no eval, no shell, no YAML that makes objects; and TLS is checked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

EXECUTING = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "joblib", "dill", "cloudpickle", "jsonpickle"}
"""Libraries that make objects of bytes by running what the bytes say."""
REFUSED = {
    *("eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput"),
    *("asyncio.create_subprocess_shell", "pandas.read_pickle", "torch.jit.load", "torch.hub.load"),
    *("tempfile.mktemp", "shutil.unpack_archive", "ssl._create_unverified_context"),
    *(f"yaml.{name}" for name in ("load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all")),
    *(f"yaml.{name}" for name in ("Loader", "FullLoader", "UnsafeLoader", "CLoader")),
}
"""Functions that run a text, hand one to a shell, or leave a door open."""
OPEN = {"shell": False, "allow_pickle": False, "verify": True, "autoescape": True, "weights_only": True}
"""Parameters that may be left out, or given as this and nothing else, and not by name."""
NEEDED = {"torch.load": "weights_only", "jinja2.Environment": "autoescape", "jinja2.Template": "autoescape"}
"""Functions whose parameter, one of those, has to be given."""
UNPACKING = {"extractall"}
"""Methods, of whatever object, that write where an archive says."""

REASONS = {
    "tests/test_docs.py": {"exec": "it runs the README's example, as a reader would"},
    "tests/data/store/test_readme.py": {"exec": "it runs the examples of the store's page, as a reader would"},
}
"""File → what it may do all the same, and why."""


def unsafe(source: str) -> Iterator[tuple[int, str]]:
    """What a module does of all this, however it is imported and named: (line, what)."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}

    def full(node: ast.AST) -> str:
        if isinstance(node, ast.Name):
            return names.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := full(node.value)):
            return f"{owner}.{node.attr}"
        return ""

    for node in nodes:
        found: list[str] = []
        match node:
            case ast.Import():
                found = [alias.name for alias in node.names if alias.name.partition(".")[0] in EXECUTING]
            case ast.ImportFrom():
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [name for name in modules if name in REFUSED or set(name.split(".")[:-1]) & EXECUTING]
            case ast.Name() | ast.Attribute():
                found = [name for name in [full(node)] if name in REFUSED]
            case ast.Constant(value=str(text)) if text in EXECUTING:
                found = [text]  # for `import_module`, or in whatever way it is asked for
            case ast.Call():
                function = full(node.func)
                given = {one.arg: one.value for one in node.keywords}
                found = [
                    f"{name}={ast.unparse(given[name])}"
                    for name, safe in OPEN.items()
                    if name in given and _value(given[name]) is not safe
                ]
                if function in NEEDED and NEEDED[function] not in given:
                    found.append(f"{function} without {NEEDED[function]}")
                if isinstance(node.func, ast.Attribute) and node.func.attr in UNPACKING:
                    found.append(f".{node.func.attr}()")
                if function == "getattr" and len(node.args) > 1 and _value(node.args[1]) in ("eval", "exec", "system"):
                    found.append(ast.unparse(node))
        yield from ((getattr(node, "lineno", 0), what) for what in found)


def _value(node: ast.AST) -> object:
    return node.value if isinstance(node, ast.Constant) else node


@pytest.mark.parametrize("floor", ["data", "stages", "flows", "tests"])
def test_nothing_executes_what_it_loads(floor: str) -> None:
    modules = sorted(path.relative_to(ROOT) for path in (ROOT / floor).rglob("*.py") if path != Path(__file__))
    assert len(modules) > 5
    found = [
        f"{path}:{line}: {what}"
        for path in modules
        for line, what in unsafe((ROOT / path).read_text(encoding="utf-8"))
        if what not in REASONS.get(str(path), {})
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as safe",
        "from pickle import loads",
        "import marshal",
        "import shelve",
        "import joblib.numpy_pickle",
        "from dill import load as read",
        "import_module('pickle').loads(content)",
        "__import__('cloudpickle')",
        "eval(text)",
        "exec(compile(text, 'name', 'exec'))",
        "run = eval",
        "from builtins import exec as run",
        "import builtins\nbuiltins.eval(text)",
        "getattr(anything, 'system')(text)",
        "import yaml\nyaml.load(text)",
        "import yaml as y\ny.load(text, Loader=y.SafeLoader)",
        "from yaml import load",
        "import yaml\nyaml.unsafe_load(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "subprocess.run(text, shell=wanted)",
        "from subprocess import Popen as P\nP(text, shell=1)",
        "import os\nos.system(text)",
        "from os import system",
        "import os\nos.popen(text)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch.jit\ntorch.jit.load(path)",
        "import zipfile\nzipfile.ZipFile(path).extractall(folder)",
        "import httpx\nhttpx.get(address, verify=False)",
        "import jinja2\njinja2.Environment(loader=one)",
        "import jinja2\njinja2.Environment(autoescape=False)",
        "import tempfile\ntempfile.mktemp()",
        "def read(path):\n    if path:\n        class Local:\n            import pickle",
    ],
)
def test_the_scan_sees_it_however_it_is_named(source: str) -> None:
    assert list(unsafe(source))


def test_the_scan_passes_over_what_is_harmless() -> None:
    harmless = """
import json, numpy as np, subprocess, tomllib, torch, yaml
def evaluate(model): model.eval(); return yaml.safe_load(text), np.load(path, allow_pickle=False)
subprocess.run([command], shell=False); torch.load(path, weights_only=True); re.compile(pattern); json.load(file)
"""
    assert list(unsafe(harmless)) == []
