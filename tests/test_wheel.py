"""Installed it is the same program, whatever else has the names of its folders; and a library for any other.

It finds what a clone made, and a clone finds what it made.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from stages.lm.model import LanguageModel

ROOT = Path(__file__).parent.parent
FLOORS = ("data", "stages", "flows")
PIP: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
SHORT = ["--corpus", "sample", "--set", "tokenize.max_tokens=3000", "--json"]


def ask(*command: str | Path, cwd: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("RNNLM_STORE", "PYTHONPATH")}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def source(folder: Path) -> Path:
    """What packages are built from."""
    ignored = shutil.ignore_patterns("artifacts", "__pycache__", "*.egg-info", "build")
    for name in FLOORS:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: this project's from its wheel, and others beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    clone = source(folder / "source")
    ask(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, clone, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    ask(*PIP, "install", "--no-compile", "--no-deps", "--no-index", "--target", folder / "site", wheel, cwd=folder)
    for name in ("numpy", "pyarrow"):  # where a wheel is installed, other packages lie beside this project's
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (folder / "site" / name).symlink_to(Path(spec.origin).parent)
    shutil.rmtree(clone)
    return folder / "site"


def packages(folder: Path, code: str) -> Path:
    """A folder with packages that have the names of ours."""
    for name in FLOORS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(code, encoding="utf-8")
    return folder


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """Such packages, that nobody may load."""
    return packages(tmp_path / "strangers", "raise SystemExit(f'{__file__} is not ours')")


def test_the_main_job_runs_and_has_the_keys_that_it_has_in_a_clone(
    site: Path, tmp_path: Path, tiny_settings: str, strangers: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_settings, encoding="utf-8")
    job: list[str | Path] = ["run", "--preset", tmp_path / "tiny.toml", *SHORT]
    home = {"XDG_DATA_HOME": str(tmp_path / "home")}
    printed = ask(site / "bin" / "rnnlm", *job, cwd=tmp_path, PYTHONPATH=f"{strangers}:{site}", **home)
    installed: list[dict[str, Any]] = json.loads(printed)["stages"]
    assert {stage["state"] for stage in installed} == {"ran"}
    store = tmp_path / "home" / "rnnlm"
    for stage in installed:
        assert Path(stage["artifact"]).is_relative_to(store)
        manifest = json.loads((Path(stage["artifact"]) / "manifest.json").read_text(encoding="utf-8"))
        assert {path.partition("/")[0] for path in manifest["components"]["code"]} <= {"data", "stages"}
        assert manifest["git"] is None
    assert list(store.glob("reports/*.html"))

    own = ask(sys.executable, "-m", "stages.cli", *job, cwd=ROOT, RNNLM_STORE=str(store))
    cloned: list[dict[str, Any]] = json.loads(own)["stages"]
    assert [stage["key"] for stage in cloned] == [stage["key"] for stage in installed]
    assert {stage["state"] for stage in cloned} == {"cached"}


DEPLOYMENTS = """
import importlib
import yaml
from flows.serve import DECLARED

for one in yaml.safe_load(DECLARED.read_text())["deployments"]:
    importlib.import_module(one["entrypoint"].rpartition(".")[0])
    print(one["name"])
"""
"""To make them as they are served takes a server, which Prefect would start for it."""


def test_what_is_packaged_is_there(site: Path, tmp_path: Path) -> None:
    for command in ("presets", "corpora"):
        assert "sample" in ask(site / "bin" / "rnnlm", command, cwd=tmp_path, PYTHONPATH=str(site))
    printed = ask(
        *(sys.executable, "-c", DEPLOYMENTS),
        cwd=tmp_path,
        PYTHONPATH=str(site),
        PREFECT_HOME=str(tmp_path / "prefect"),
    )
    assert "nightly" in printed


def test_in_a_clone_a_folder_called_as_ours_breaks_no_command(tmp_path: Path, strangers: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment)
    (beside,) = environment.glob("lib/*/site-packages")
    (beside / "others.pth").write_text(str(Path(pytest.__file__).parents[1]), encoding="utf-8")
    clone = source(tmp_path / "clone")
    python: list[str | Path] = ["--python", environment / "bin" / "python"]
    ask(*PIP, *python, "install", "--no-deps", "--no-index", "--no-build-isolation", "--editable", clone, cwd=tmp_path)
    (tmp_path / "bare" / "data").mkdir(parents=True)  # which is a package as well, without a file in it
    for path, cwd in ((tmp_path / "bare", tmp_path), (":", strangers)):
        assert "timemachine" in ask(environment / "bin" / "rnnlm", "corpora", cwd=cwd, PYTHONPATH=str(path))


PROGRAM = """
import multiprocessing, sys
import data, stages, flows
import rnnlm

def write(folder):
    return rnnlm.LanguageModel.load(folder).sample("the ", 20)

if __name__ == "__main__":
    print(write(sys.argv[1]))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(write, [sys.argv[1]]))
        try:
            pool.apply(write, [sys.argv[2]])
        except rnnlm.RnnlmError as error:
            print(error)
    import data.own
    print(data.MINE, stages.MINE, flows.MINE, data.own.MINE)
    print(*[name for name in sys.modules if name.partition(".")[0] in ("data", "stages", "flows")])
"""


def test_a_program_with_such_packages_of_its_own_keeps_them_and_loads_a_model(
    site: Path, tmp_path: Path, model: Path
) -> None:
    own = packages(tmp_path / "own", "MINE = True")
    shutil.copy(own / "data" / "__init__.py", own / "data" / "own.py")
    (own / "program.py").write_text(PROGRAM, encoding="utf-8")
    said = ask(sys.executable, own / "program.py", model, tmp_path, cwd=tmp_path, PYTHONPATH=str(site)).split("\n")
    text = LanguageModel.load(model).sample("the ", 20)
    assert said[:2] == [text, text]
    assert said[2].startswith(f"{tmp_path}/config.json does not describe a model")
    assert said[3:] == ["True True True True", "data stages flows data.own", ""]
