"""Somebody edits the project, or exchanges a library, while a process runs: nothing comes of it under a wrong key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from data.store.folder import Store
from stages.config import TrainConfig
from stages.training import engines

ROOT = Path(__file__).parent.parent
WAIT = """
    import time
    from pathlib import Path as File

    File("trains").touch()
    while not File("edited").exists():
        time.sleep(0.01)
    _export(config, """
"""Has a training that is all but done wait until the test has edited something."""
ENGINE = f"{engines.choose(TrainConfig(engine='bptt')).modules[0].replace('.', '/')}.py"
"""The file of the one that trains here."""
FIGURE = ('    measured["baselines"] =', '    measured["another"] = 1\n    measured["baselines"] =')
"""An edit of what the evaluation measures."""
PIPELINE = """
from pathlib import Path
from data.errors import RnnlmError
from data.store.folder import Store
from stages.config import TrainConfig
from stages.training import engines
from stages.pipeline import run, settings

CONFIG, STORE = settings.load("../tiny.toml", "../text.txt"), Store(Path("../store"))
OUTCOMES = []

def pipeline(*assignments, until="evaluate"):
    config = settings.load("../tiny.toml", "../text.txt", assignments)
    try:
        OUTCOMES[:] = run.run(config, STORE, lambda stage: lambda done, total, figures: None, until=until)
        return {one.name: one.state for one in OUTCOMES}
    except RnnlmError as error:
        return str(error)
"""


class Place:
    """A copy of the project to be edited, and a store."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.store = Store(folder / "store")
        self.environment = {**os.environ, "RNNLM_STORE": str(self.store.root), "PYTHONPATH": str(self.project)}
        self.command = [
            sys.executable,
            "-m",
            "stages.cli",
            "run",
            "--preset",
            "../tiny.toml",
            "--corpus",
            "../text.txt",
        ]

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.project / name
        source = path.read_text(encoding="utf-8")
        assert old in source, f"{name} no longer has what this test edits"
        path.write_text(source.replace(old, new, 1), encoding="utf-8")

    def append(self, name: str, text: str) -> None:
        with (self.project / name).open("a", encoding="utf-8") as file:
            file.write(text)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A run in a process of its own."""
        return subprocess.Popen(
            [*self.command, "--json", *arguments],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> dict[str, str]:
        """What becomes of each stage in a run of its own process."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return {stage["name"]: stage["state"] for stage in json.loads(out)["stages"]}

    def edited_in_training(self, *edits: Callable[[], object]) -> subprocess.CompletedProcess[str]:
        """A run during whose training this is edited."""
        with self.start() as process:
            deadline = time.monotonic() + 60
            while not (self.project / "trains").exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for edit in edits:
                edit()
            (self.project / "edited").touch()
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def metrics(self) -> dict[str, Any]:
        """What the last evaluation measured."""
        newest = max(self.store.artifacts("evaluate"), key=lambda artifact: artifact.manifest.created)
        measured: dict[str, Any] = json.loads((newest.folder / "metrics.json").read_text(encoding="utf-8"))
        return measured

    def report(self) -> str:
        (page,) = self.store.root.glob("reports/*.md")
        return page.read_text(encoding="utf-8")

    def contents(self) -> dict[Path, bytes]:
        """All artifacts, to the byte."""
        return {path: path.read_bytes() for path in self.store.root.glob("*/*/*") if "checkpoints" not in path.parts}


@pytest.fixture
def place(tmp_path: Path, tiny_settings: str, tiny_text: str) -> Place:
    for floor in ("data", "stages"):
        ignored = shutil.ignore_patterns("artifacts", "__pycache__")
        shutil.copytree(ROOT / floor, tmp_path / "project" / floor, ignore=ignored)
    (tmp_path / "text.txt").write_text(tiny_text, encoding="utf-8")
    (tmp_path / "tiny.toml").write_text(tiny_settings, encoding="utf-8")
    return Place(tmp_path)


KERNEL = """
import code, json, sys
interpreter = code.InteractiveInterpreter()
for line in sys.stdin:
    interpreter.runsource(json.loads(line), symbol="exec")
    print(json.dumps(interpreter.locals.pop("_")), flush=True)
"""


class Kernel:
    """A Python that goes on, as a notebook's does, in the copy of the project."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", KERNEL],
            cwd=self.place.project,
            env=self.place.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, code: str) -> Any:
        """Run some code there; what it leaves in ``_``."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{json.dumps(code)}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process has ended"
        return json.loads(answer)

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def kernel(place: Place) -> Iterator[Kernel]:
    made = Kernel(place)
    yield made
    made.end()


NEW = "\nNEW = 1\n"


def edited(name: str, what: str = "module level") -> str:
    """What is said of a file."""
    return (
        f"{name} was edited after this process had loaded it ({what}): "
        "run again in a new process, and what was finished is kept"
    )


def test_an_edit_of_what_comes_later_ends_the_run_there(place: Place) -> None:
    """The training was made by the code that its key names; the evaluation would not be."""
    place.edit("stages/train.py", "    _export(config, ", WAIT)
    done = place.edited_in_training(
        lambda: place.edit("stages/evaluate.py", *FIGURE),
        lambda: place.append("stages/train.py", "\n# What changes no result ends nothing.\n"),
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"rnnlm: {edited('stages/evaluate.py', 'evaluate')}"
    assert place.store.artifacts("evaluate") == []
    assert place.run() == {"download": "cached", "tokenize": "cached", "train": "cached", "evaluate": "ran"}
    assert "another" in place.metrics()
    place.edit("stages/evaluate.py", *reversed(FIGURE))
    assert place.run()["evaluate"] == "ran", "nothing was kept under the key of the code before"
    assert "another" not in place.metrics()


def test_an_edit_of_what_trains_publishes_nothing_and_loses_nothing(place: Place) -> None:
    place.edit("stages/train.py", "    _export(config, ", WAIT)
    loop = "stages/training/loop.py"
    done = place.edited_in_training(lambda: place.append(loop, "\nNEW = ("))  # somebody is still typing
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"rnnlm: {edited(loop, 'it cannot be parsed')}"
    assert place.store.artifacts("train") == []
    place.append(loop, "1)\n")
    assert place.run()["train"] == "ran"
    (other,) = place.store.artifacts("train")
    assert "tokens_per_second" in other.manifest.timing, "a training of other code begins from the start"
    place.edit(loop, "\nNEW = (1)\n", "")
    assert place.run()["train"] == "ran"
    (whole,) = (one for one in place.store.artifacts("train") if one.manifest.key != other.manifest.key)
    assert "tokens_per_second" not in whole.manifest.timing, "all of it was done before the edit was noticed"


def test_a_kernel_that_goes_on_speaks_of_the_code_that_it_has(place: Place, kernel: Kernel) -> None:
    kernel.do("import stages.lm.model, stages.report.markdown; _ = 0")
    place.edit("stages/evaluate.py", *FIGURE)  # which it loads later
    place.edit("stages/report/markdown.py", "## How it learnt", "## How it learned")
    kernel.do(f"{PIPELINE}\n_ = 0")
    assert kernel.do("_ = pipeline()") == dict.fromkeys(("download", "tokenize", "train", "evaluate"), "ran")
    assert "another" in place.metrics()
    kernel.do("from stages.report import kept; _ = kept.keep(STORE, OUTCOMES) and 0")
    assert "## How it learnt\n" in place.report(), "in no key, and as it was loaded"
    assert set(place.run().values()) == {"cached"}, "and so says a process that is new"
    assert "## How it learned\n" in place.report(), "which tells it in the words of today"

    before = place.contents()
    place.append("stages/lm/network.py", NEW)
    assert kernel.do("_ = pipeline()") == edited("stages/lm/network.py")
    assert kernel.do("_ = pipeline('evaluate.length=9')") == edited("stages/lm/network.py")
    kernel.do("import importlib, stages.lm.network; _ = importlib.reload(stages.lm.network) and 0")
    place.edit("stages/lm/network.py", NEW, "")
    assert kernel.do("_ = pipeline()") == edited("stages/lm/network.py"), "what it has is not what lies there"
    assert place.contents() == before
    assert set(place.run().values()) == {"cached"}


def test_what_a_kernel_loads_only_later_is_what_its_keys_name(place: Place, kernel: Kernel) -> None:
    kernel.do(f"{PIPELINE}\nfrom stages.pipeline import decide; _ = 0")
    kernel.do("_ = pipeline(until='tokenize') and [one.name for one in decide.status(CONFIG, STORE)]")
    place.append(ENGINE, NEW)
    assert kernel.do("_ = pipeline()") == edited(ENGINE)
    assert not list(place.store.root.glob("checkpoints/*/*")), "it is noticed before anything is trained"


def test_a_file_that_goes_is_noticed_too(place: Place, kernel: Kernel) -> None:
    kernel.do(f"{PIPELINE}\n_ = 0")
    (place.project / "data/corpus/fetch.py").unlink()
    said = "data/corpus/fetch.py was removed after this process had loaded it: "
    assert str(kernel.do("_ = pipeline()")).startswith(said)


def test_a_library_that_is_exchanged_under_a_process_is_noticed(place: Place, kernel: Kernel) -> None:
    kernel.do(f"{PIPELINE}\n_ = 0")
    assert kernel.do("_ = pipeline(until='tokenize')") == {"download": "ran", "tokenize": "ran"}
    before, installed = place.contents(), version("numpy")
    folder = place.project / "numpy-99.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 99.0\n")
    said = f"numpy {installed} became 99.0 after this process had begun: run again in a new process, and what was"
    for level in ("char", "word"):
        assert str(kernel.do(f"_ = pipeline('tokenize.level={level}')")).startswith(said)
    assert kernel.do("_ = pipeline(until='download')") == {"download": "cached"}, "which needs no numpy"
    assert place.contents() == before
    kernel.end()
    kernel.start()
    assert kernel.do(f"{PIPELINE}\n_ = pipeline(until='tokenize')") == {"download": "cached", "tokenize": "ran"}


def test_a_notebook_that_had_numpy_before_the_project_says_which(place: Place, kernel: Kernel) -> None:
    kernel.do("import numpy; numpy.__version__ = '1.0'; _ = 0")  # and it was upgraded since
    assert kernel.do(f"{PIPELINE}\nfrom stages.pipeline import decide; _ = decide.version('numpy')") == "1.0"
    assert str(kernel.do("_ = pipeline()")).startswith(f"numpy 1.0 became {version('numpy')} after this process")


@pytest.mark.parametrize(("had", "says"), [("2.13.0+cu130", "2.13.0"), ("2.12.1+cu130", "2.12.1+cu130")])
def test_a_build_that_only_the_loaded_library_names_is_no_other_version(had: str, says: str, tmp_path: Path) -> None:
    """PyTorch's wheel for CUDA is 2.13.0, and says 2.13.0+cu130 once it is loaded."""
    folder = tmp_path / "torch-2.13.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
    code = (
        "import sys, types; sys.modules['torch'] = types.ModuleType('torch'); "
        f"sys.modules['torch'].__version__ = {had!r}; from data.store import loaded; print(loaded.version('torch'))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{says}\n", done.stderr


def test_what_was_compiled_before_an_edit_is_not_run(place: Place) -> None:
    """Python keeps it, if the edit came within the second and left the length as it was."""
    path = place.project / "stages" / "lm" / "metrics.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nWHICH = 1\n", encoding="utf-8")
    show = [sys.executable, "-c", "from stages.lm.metrics import WHICH; print(WHICH)"]
    environment = {**place.environment, "PYTHONDONTWRITEBYTECODE": ""}

    def shown() -> str:
        return subprocess.run(show, cwd=place.project, env=environment, capture_output=True, text=True).stdout

    assert shown() == "1\n"
    (compiled,) = (path.parent / "__pycache__").glob("metrics.*.pyc")
    second = path.stat().st_mtime_ns // 10**9
    place.edit("stages/lm/metrics.py", "WHICH = 1", "WHICH = 2")
    os.utime(compiled, ns=(0, second * 10**9 + 1))
    os.utime(path, ns=(0, second * 10**9 + 2))
    assert shown() == "2\n"
