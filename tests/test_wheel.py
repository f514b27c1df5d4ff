"""Installed as a wheel it is the same program: it finds what a clone made, and a clone finds what it made."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SHORT = ["--corpus", "sample", "--set", "tokenize.max_tokens=3000", "--json"]


def ask(*command: str | Path, cwd: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("RNNLM_STORE", "PYTHONPATH")}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: this project's from its wheel, and others beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("artifacts", "__pycache__", "*.egg-info", "build")
    for name in ("data", "stages", "flows"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    ask(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source", cwd=folder)
    (wheel,) = folder.glob("*.whl")
    ask(*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel, cwd=folder)
    for name in ("numpy", "pyarrow"):  # where a wheel is installed, other packages lie beside this project's
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (folder / "site" / name).symlink_to(Path(spec.origin).parent)
    shutil.rmtree(folder / "source")
    return folder / "site"


def test_the_main_job_runs_and_has_the_keys_that_it_has_in_a_clone(
    site: Path, tmp_path: Path, tiny_settings: str
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_settings, encoding="utf-8")
    job: list[str | Path] = ["run", "--preset", tmp_path / "tiny.toml", *SHORT]
    home = {"XDG_DATA_HOME": str(tmp_path / "home")}
    printed = ask(site / "bin" / "rnnlm", *job, cwd=tmp_path, PYTHONPATH=str(site), **home)
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


def test_what_is_packaged_is_there(site: Path, tmp_path: Path) -> None:
    for command in ("presets", "corpora"):
        assert "sample" in ask(site / "bin" / "rnnlm", command, cwd=tmp_path, PYTHONPATH=str(site))
    deployments = "from flows.serve import DECLARED, deployments; print(*[one.name for one in deployments(DECLARED)])"
    printed = ask(
        *(sys.executable, "-c", deployments),
        cwd=tmp_path,
        PYTHONPATH=str(site),
        PREFECT_HOME=str(tmp_path / "prefect"),
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="100",  # its own 20 are too few for a busy machine
    )
    assert "nightly" in printed
