"""A small store that an earlier version made goes on serving: what it was trained once is used, and nothing is lost.

`published/` was made from a text of 1.3 KB by the code of commit d5113f4, before its modules moved: `rnnlm run` with an
RNN of 8 hidden units and 2 epochs, `rnnlm train` with a GRU, and a promotion of the one, then of the other. It must
not be made again when the code changes: that it is old is what it is for.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.store.folder import Store

if TYPE_CHECKING:
    from tests.conftest import Rnnlm

PUBLISHED = Path(__file__).with_name("published")
RNN, GRU = "9dcadb4ec54093f4", "601824ebf0e3e3bb"
SAMPLES = {
    (GRU, "0"): "the rain te te te te te te te te te te te te te \n",
    (RNN, "0"): "the rain the the the the the the the the the the\n",
    (GRU, "0.8"): "the rainh, gtere ese de the se pgnt t\ni adew ai \n",
    (RNN, "0.8"): 'the rainog ,hertheriere the d n"baie bo ad c ao \n',
}
"""(model, temperature) → what that version wrote after `the rain` with seed 1."""


@pytest.fixture
def old(tmp_path: Path) -> Store:
    """A copy, in the store that the fixture ``here`` uses."""
    return Store(shutil.copytree(PUBLISHED, tmp_path / "store", copy_function=shutil.copyfile))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_artifact_is_found_sound(old: Store) -> None:
    found = old.artifacts()
    assert sorted(artifact.manifest.stage for artifact in found) == [
        "baselines",
        "download",
        "evaluate",
        "tokenize",
        "train",
        "train",
    ]
    assert [old.damage(artifact) for artifact in found] == [None] * 6


def test_its_models_write_what_they_wrote(old: Store, here: Rnnlm) -> None:
    options = ["--prefix", "the rain", "--length", "40", "--seed", "1"]
    for (model, temperature), text in SAMPLES.items():
        chosen = [] if model == GRU else ["--model", old.root / "train" / model]  # the GRU is the champion
        assert here("sample", *options, "--temperature", temperature, *chosen).stdout == text


def test_its_champion_is_shown_and_gone_back_from(old: Store, here: Rnnlm) -> None:
    shown = json.loads(here("champion", "--json").stdout)
    assert [reign["model"][:16] for reign in shown["history"]] == [RNN, GRU]
    assert shown["champion"]["model"][:16] == GRU
    assert shown["champion"]["reason"] == "another cell"

    assert here("rollback", "--reason", "a test").stdout == f"{RNN} is the champion again\n"
    shown = json.loads(here("champion", "--json").stdout)
    assert shown["champion"]["model"][:16] == RNN
    assert shown["history"][1]["withdrawn"]["why"] == "a test"
    sample = here("sample", "--prefix", "the rain", "--length", "40", "--seed", "1", "--temperature", "0").stdout
    assert sample == SAMPLES[RNN, "0"]


def test_nothing_that_is_needed_is_collected(old: Store, here: Rnnlm) -> None:
    before = files(old.root)
    assert here("gc", "--dry-run").stdout == "would free 0 B\n"
    assert here("gc").stdout == "freed 0 B\n"
    assert files(old.root).items() >= before.items()


def test_of_what_was_not_used_for_long_the_champions_and_their_corpus_stay(old: Store, here: Rnnlm) -> None:
    for path in old.root.rglob("*"):
        os.utime(path, (0, 0))
    before = files(old.root)
    rest = {name for name in before if name.startswith(("baselines", "checkpoints", "evaluate"))}
    would = here("gc", "--dry-run").stdout.splitlines()
    assert files(old.root) == before
    assert here("gc").stdout.splitlines()[:-1] == would[:-1]
    assert {line.split()[0] for line in would[:-1]} == {str((old.root / name).parent) for name in rest}
    assert {name: content for name, content in files(old.root).items() if not name.startswith("locks/")} == {
        name: content for name, content in before.items() if name not in rest
    }
