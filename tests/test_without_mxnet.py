"""A machine without MXNet: everything works but the engine of that name, which is refused in a sentence."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]
SEEN = """
from importlib import metadata, util
from data.store import loaded
from stages.training import engines

print(util.find_spec("mxnet"), [one.name for one in metadata.distributions() if one.name.startswith("mxnet")])
print(loaded.versions("mxnet"), engines.installed()["mxnet"].absent)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with all that is installed here but MXNet."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    packages = folder / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("mxnet", "__editable__")):
            (packages / path.name).symlink_to(path)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n{ROOT}\n")
    return folder / "bin" / "python"


@pytest.fixture
def rnnlm(python: Path, tmp_path: Path) -> Rnnlm:
    """Run ``rnnlm`` there."""

    def call(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "RNNLM_STORE": str(tmp_path / "store"), "CUDA_VISIBLE_DEVICES": ""}
        command = [str(python), "-P", "-m", "stages.cli", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr
        return done

    return call


def test_there_is_none_by_any_way_of_looking(python: Path) -> None:
    done = subprocess.run([python, "-P", "-c", SEEN], cwd="/", capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[0] == "None []", done.stderr
    assert done.stdout.splitlines()[1].startswith("{} MXNet is not installed here")


def test_a_run_trains_with_bptt_and_its_model_samples(rnnlm: Rnnlm, tiny: Path) -> None:
    done = rnnlm("run", "--preset", tiny, "--set", "train.engine=auto")
    assert "# Language model report" in done.stdout
    [said] = [line for line in done.stderr.splitlines() if line.startswith("training with")]
    assert said.startswith("training with bptt on the ")
    assert "MXNet is not installed here" in said
    assert rnnlm("sample", "--prefix", "the", "--length", "9").stdout.startswith("the")
    assert "cached" in rnnlm("status", "--preset", tiny, "--set", "train.engine=bptt").stdout.splitlines()[2]
    assert "\nauto   bptt on the" in rnnlm("device").stdout


def test_mxnet_by_name_is_refused_in_a_sentence(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("tokenize", "--preset", tiny)
    for command in ("run", "status"):
        done = rnnlm(command, "--preset", tiny, "--set", "train.engine=mxnet", code=2)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("rnnlm: train.engine = mxnet cannot be used: MXNet is not installed here")
        assert last.endswith("; train.engine = bptt trains without it")
        assert "Traceback" not in done.stderr


def test_a_model_learns_from_what_it_reads(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("train", "--preset", tiny)
    done = rnnlm("evaluate", "--on", tiny.parent / "text.txt", "--adapt", "3e-4")
    assert "adapting at 0.0003" in done.stdout
    assert "training with" not in done.stderr, "nobody is told of an engine where nothing is trained"
