"""The house: each floor imports only downwards, an engine's library has one room, Prefect one floor."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.pipeline import graph

ROOT = Path(__file__).parent.parent
BELOW = {"data": {"data"}, "stages": {"data", "stages"}, "flows": {"data", "stages", "flows"}}
TRAINING, EXPORT = ROOT / "stages" / "training", ROOT / "stages" / "export"
ROOMS = {
    "mxnet": [TRAINING / "gluon.py"],
    "torch": [TRAINING / "torch.py", EXPORT / "torch.py"],
    "onnx": [EXPORT / "onnx.py"],
}
"""A library that not everybody has, and the only modules that import it."""
ENGINES = [TRAINING / name for name in ("bptt.py", "gluon.py", "torch.py")]
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
    assert not [library for library, rooms in ROOMS.items() if library in found and path not in rooms]


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("*.py")), ids=lambda path: path.name)
def test_a_flow_takes_nothing_of_the_command_line_but_options_and_the_sentence_for_an_error(path: Path) -> None:
    taken = re.findall(r"from (stages\.cli\S*) import (.+)", path.read_text(encoding="utf-8"))
    assert set(taken) - {("stages.cli.app", "enter")} == {pair for pair in taken if pair[0] == "stages.cli.options"}


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


def test_help_status_and_sample_load_neither_prefect_nor_an_engine(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    heavy = {"prefect", "jinja2", *ROOMS}
    assert not loaded(command("--help")) & {*heavy, "numpy", "pyarrow", "pydantic", "rich", "httpx"}
    assert not loaded(command("status", "--store", store)) & heavy
    assert not loaded(command("sample", "--untrained", "--length", "5", "--store", store)) & heavy


def test_the_tree_is_the_drawing() -> None:
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split()
    top = {name.partition("/")[0] for name in listed if not name.startswith(".")}
    expected = {"flows", "stages", "data", "tests", "pyproject.toml", "README.md", "LICENSE"}
    assert {name for name in top if not name.startswith("requirements")} == expected


def test_every_package_is_installed() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert {path.relative_to(ROOT).parts[0] for path in PACKAGES} == {*build["targets"]["wheel"]["only-include"]}
    assert [(ROOT / folder).resolve() for folder in build["dev-mode-dirs"]] == [ROOT, LIBRARY.parents[1]]


def test_stages_shows_the_four_stages_their_settings_and_named_folders() -> None:
    shown = {path.name for path in (ROOT / "stages").glob("*.py")} - {"__init__.py"}
    assert shown == {"config.py", *(f"{name}.py" for name in graph.shown())}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_enough_to_be_read(path: Path) -> None:
    if path not in ENGINES:  # an engine is one file, and one of them has a derivation to tell
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


RECORD = ["from data.store import loaded", "loaded.record()"]
"""What each floor does first, whichever module of it is imported; it is in no key."""


PACKAGES = [path for path in MODULES if path.name == "__init__.py"]
LIBRARY = ROOT / "stages" / "library" / "rnnlm" / "__init__.py"
"""What the world outside imports, under another name."""


@pytest.mark.parametrize("path", [path for path in PACKAGES if path != LIBRARY], ids=lambda path: path.parent)
def test_a_package_holds_a_docstring_and_nothing_else(path: Path) -> None:
    """What it re-exported would be in the key of every stage that imports from it."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert ast.get_docstring(ast.Module(body, []))
    found = [ast.unparse(statement) for statement in body[1:]]
    if path.parent.parent == ROOT:
        assert [line for line in found if line in RECORD] == RECORD
        assert found == RECORD or path.parent == ROOT / "flows"
    else:
        assert not found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_asks_whose_configuration_it_is(path: Path) -> None:
    """What is special about a stage stands in its entry in the graph, and not in those who run stages."""
    if path.name in ("config.py", *(f"{name}.py" for name in graph.shown())):
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    asked = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "isinstance"]
    assert not [call for call in asked if re.search(r"(Download|Tokenize|Train|Evaluate)Config", call)]


CONFIG = ast.parse((ROOT / "stages" / "config.py").read_text(encoding="utf-8"))


def behaviour(statement: ast.stmt) -> str:
    """What a statement of the configuration's module computes, as code; empty where it only declares or refuses."""
    match statement:
        case ast.ClassDef(decorator_list=[]):
            return "".join(map(behaviour, statement.body))
        case ast.FunctionDef(decorator_list=[decorator]) if ast.unparse(decorator) == "model_validator(mode='after')":
            # It may refuse what does not fit together; what it lets through is what it was given.
            kept = (ast.If, ast.Raise, ast.Return, ast.Assign)
            inner = [node for node in ast.walk(statement) if isinstance(node, ast.stmt)][1:]
            ends = [ast.unparse(node) for node in inner if isinstance(node, ast.Return)]
            names = [target for node in inner if isinstance(node, ast.Assign) for target in node.targets]
            local = all(isinstance(name, ast.Name) and name.id != "self" for name in names)
            sound = local and all(isinstance(node, kept) for node in inner) and set(ends) == {"return self"}
            return "" if sound else ast.unparse(statement)
        case ast.ImportFrom(module="__future__" | "typing" | "pydantic") | ast.Expr(value=ast.Constant()):
            return ""
        case ast.Assign() | ast.AnnAssign():
            code = [node for node in ast.walk(statement) if isinstance(node, ast.Lambda | ast.Call)]
            calls = [ast.unparse(node.func) if isinstance(node, ast.Call) else "lambda" for node in code]
            declares = {"Field", "ConfigDict", *(node.name for node in CONFIG.body if isinstance(node, ast.ClassDef))}
            named = "default_factory" in ast.unparse(statement)
            return ast.unparse(statement) if named or set(calls) - declares else ""
    return ast.unparse(statement)


def test_configuration_has_no_behaviour() -> None:
    """Its module is in no key, so that what a value means must stand in the code that uses it."""
    assert [found for statement in CONFIG.body if (found := behaviour(statement))] == []


@pytest.mark.parametrize(
    "member",
    [
        "@property\ndef horizon(self): return self.epochs",
        "@cached_property\ndef horizon(self): return self.epochs",
        "@computed_field\n@property\ndef horizon(self) -> int: return self.epochs",
        "@classmethod\ndef short(cls): return cls(epochs=1)",
        "@staticmethod\ndef double(epochs): return 2 * epochs",
        "def _horizon(self): return self.epochs",
        "horizon = cached_property(attrgetter('epochs'))",
        "@field_validator('epochs')\ndef _doubled(cls, epochs): return 2 * epochs",
        "@model_validator(mode='before')\ndef _doubled(cls, given): return given",
        "@model_validator(mode='after')\ndef _doubled(self): return self.model_copy(update={'epochs': 2})",
        "@model_validator(mode='after')\ndef _doubled(self):\n    self.__dict__['epochs'] = 2\n    return self",
        "@model_validator(mode='after')\ndef _two(self):\n    object.__setattr__(self, 'epochs', 2)\n    return self",
        "@model_validator(mode='after')\ndef _doubled(self):\n    self = self.model_copy()\n    return self",
        "epochs: Annotated[int, AfterValidator(lambda epochs: 2 * epochs)] = 2",
        "epochs: int = Field(default_factory=doubled)",
    ],
)
def test_behaviour_is_seen_wherever_a_configuration_class_hides_it(member: str) -> None:
    (found,) = ast.parse("class TrainConfig:\n" + "\n".join(f"    {line}" for line in member.splitlines())).body
    assert behaviour(found)
