"""Machines with different Pythons share a store: one code has one digest, and one input one result, on each of them.

Other Pythons are taken as they are on the path, or as pyenv has them; one that has this project's libraries too is
looked for where `.ci/run` puts them, in `.venv` and `.venv-3.13`. What is not here is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.store import fingerprint
from data.store.manifest import Manifest
from stages.pipeline import decide

if TYPE_CHECKING:
    from tests.conftest import Rnnlm

ROOT = Path(__file__).parent.parent
CODE = """
import json, sys
from data.store import fingerprint

print(json.dumps([fingerprint.code(*sys.argv[1:]), fingerprint.letters()]))
"""
BESIDE = [ROOT / name / "bin" / "python" for name in (".venv", ".venv-3.13")]
"""Pythons with this project's libraries."""
ENGINE = ("--set", "train.engine=bptt", "--set", "train.device=cpu")
"""One that each of them has."""


def other(minor: int) -> list[str]:
    """The command of another Python."""
    found = shutil.which(f"python3.{minor}")
    # pyenv has such a command before it leads anywhere.
    if found is None or subprocess.run([found, "-c", ""], env=environment(minor), capture_output=True).returncode:
        pytest.skip(f"Python 3.{minor} is not here")
    return [found]


def environment(minor: int, **more: str) -> dict[str, str]:
    return {**os.environ, "PYENV_VERSION": f"3.{minor}", "PYTHONDONTWRITEBYTECODE": "1", **more}


@pytest.mark.parametrize("minor", [minor for minor in (11, 12, 13, 14) if minor != sys.version_info.minor])
def test_every_python_gives_all_our_code_the_digests_that_this_one_does(minor: int) -> None:
    paths = [path for floor in ("data", "stages", "flows") for path in (ROOT / floor).rglob("*.py")]
    names = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    command = [*other(minor), "-c", CODE, *names]
    done = subprocess.run(command, cwd=ROOT, env=environment(minor), capture_output=True, text=True, check=True)
    theirs, letters = json.loads(done.stdout)
    ours = fingerprint.code(*names)
    assert len(ours) > 100
    assert theirs == ours
    assert letters == fingerprint.letters(), "text that was lowered and split by one is the other's, too"


def test_a_key_names_no_python_and_one_that_did_says_so_in_one_phrase(here: Rnnlm, trained: Path) -> None:
    for path in (trained.parent / "store").glob("*/*/manifest.json"):
        manifest = Manifest.model_validate_json(path.read_bytes())
        libraries = manifest.components["libraries"]
        assert "python" not in libraries
        libraries["python"] = "3.11"
        if libraries.pop("letters", ""):
            libraries["unicode"] = "14.0.0"
        key = fingerprint.digest(manifest.components)
        changed = manifest.model_copy(update={"key": key})
        path.write_text(changed.model_dump_json())
        path.parent.rename(path.parent.with_name(key[:16]))
    shutil.rmtree(trained.parent / "store" / "locks")
    stages = json.loads(here("status", "--preset", trained, "--json").stdout)["stages"]
    assert {stage["reason"] for stage in stages[:1]} == {"the version of Python (3.11) no longer counts"}
    here("download", "--preset", trained)
    said = json.loads(here("explain", "tokenize", "--preset", trained, "--json").stdout)["reason"]
    assert said == "the version of Python (3.11) no longer counts"


def test_another_version_of_unicodes_tables_counts_where_more_is_asked_of_them_than_letters(
    here: Rnnlm, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = decide.version
    monkeypatch.setattr(decide, "version", lambda name: "99.0" if name == "unicode" else installed(name))
    states = [stage["state"] for stage in json.loads(here("status", "--preset", trained, "--json").stdout)["stages"]]
    assert states == ["cached", "cached", "cached", "stale"]
    composed = ("tokenize", "--preset", trained, "--set", "tokenize.nfc=true")
    here(*composed)
    monkeypatch.undo()
    assert "unicode 99.0 → " in here("status", *composed[1:]).stdout


def test_what_one_python_has_made_another_one_reuses_and_would_have_made_the_same(tiny: Path, here: Rnnlm) -> None:
    found = next((python for python in BESIDE if python.exists() and python.parents[1] != Path(sys.prefix)), None)
    if found is None:
        pytest.skip("no other Python has this project's libraries here: `.ci/run` gives it one")
    store, apart = tiny.parent / "store", tiny.parent / "apart"
    here("run", "--preset", tiny, *ENGINE)

    def theirs(command: str, at: Path) -> Any:
        done = subprocess.run(
            [found, "-m", "stages.cli", command, "--preset", tiny, *ENGINE, "--store", at, "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)["stages"]

    *states, last = theirs("status", store)
    assert [stage["state"] for stage in states] == ["cached", "cached", "cached"]
    assert last["state"] == "cached" or last["reason"].startswith("unicode ")
    theirs("run", apart)
    made = [path.relative_to(store) for path in store.glob("t*/*/*") if path.name != "manifest.json"]
    assert {path.name for path in made} >= {"tokens.arrow", "vocab.arrow", "model.safetensors", "history.arrow"}
    assert [path for path in made if (apart / path).read_bytes() != (store / path).read_bytes()] == []
    for name in ("metrics.json", "samples.json", "baselines.json"):
        (one,), (another,) = (place.glob(f"*/*/{name}") for place in (store, apart))
        assert one.read_bytes() == another.read_bytes()
