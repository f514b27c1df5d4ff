"""What the store's page shows of its tables is so: each library reads there what this program does."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data.moment import now
from data.store import nights
from data.store.folder import Store
from data.store.nights import NightRecord
from data.tables import history
from data.tables.tokens import IndexTable
from data.tables.vocab import Vocab
from stages.sweep import pool, worker
from tests.conftest import in_this_process, write_tiny

ROOT = Path(__file__).parents[3]
BLOCKS = re.findall(
    r"^```python\n(.*?)```", (ROOT / "data/store/README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
Rows = list[dict[str, Any]]


def pandas_rows(frame: Any) -> Rows:
    rows: Rows = frame.to_dict("records")
    return rows


def polars_rows(frame: Any) -> Rows:
    rows: Rows = frame.lazy().collect().to_dicts()
    return rows


def duckdb_rows(relation: Any) -> Rows:
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


LIBRARIES: dict[str, Callable[[Any], Rows]] = {"pandas": pandas_rows, "polars": polars_rows, "duckdb": duckdb_rows}


@pytest.fixture(scope="module")
def store(finished: Path, tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> Path:
    """A run, nights of every kind and a sweep in which a trial was stopped early."""
    folder = tmp_path_factory.mktemp("tables")
    tiny = write_tiny(folder, tiny_settings, tiny_text)
    store = folder / "data" / "artifacts"
    shutil.copytree(finished, store)
    in_this_process(store, "night", "--preset", tiny)
    compared = {"text": "today", "passed": True, "bits": 2.25, "bits_champion": 2.5, "gain": 0.25, "lower": 0.125}
    for decision, differs, tests in (
        ("rejected", {"train.learning_rate": (1, 0.5), "tokenize.normalizer": (None, "lower")}, [compared, compared]),
        ("failed", {"train.cell": ("gru", "lstm"), "train.clip_norm": (1, 5)}, []),
        ("unchanged", {}, []),
    ):
        night = {"when": now(), "name": "default", "decision": decision, "reason": "…", "tests": tests}
        nights.add(Store(store), NightRecord.model_validate({**night, "differs": differs}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "processes", partial(pool.processes, do=lambda job, stopped: worker.train(job)))
        vary = ("--vary", "train.hidden_size=4,8,16", "--vary", "train.learning_rate=1,0.5")
        in_this_process(store, "sweep", "--preset", tiny, *vary, "--set", "train.epochs=4")
    return folder


@pytest.fixture(params=LIBRARIES)
def read(request: pytest.FixtureRequest, store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Rows]:
    """What the page's block of a library calls by a name, as rows of numbers and strings."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    monkeypatch.chdir(store)
    [block] = [one for one in BLOCKS if f"import {request.param}\n" in one]
    block = re.sub(r"(\w+)/<key>", lambda of: f"{of[1]}/{first(store, of[1]).name}", block)
    shown: dict[str, Any] = {}
    exec(block, shown)
    return lambda name: LIBRARIES[request.param](shown[name])


def first(store: Path, stage: str) -> Path:
    return min((store / "data" / "artifacts" / stage).iterdir())


def same(read: Rows, ours: Rows) -> None:
    """That these columns hold exactly these values, whatever other columns there are; None is as good as no number."""
    for row, own in zip(read, ours, strict=True):
        found = {name: None if isinstance(row[name], float) and math.isnan(row[name]) else row[name] for name in own}
        assert found == own


def test_the_index_table(read: Callable[[str], Rows], store: Path) -> None:
    table = IndexTable.open(first(store, "tokenize") / "tokens.arrow")
    assert [row["id"] for row in read("ids")] == table.ids.tolist()


def test_the_vocabulary(read: Callable[[str], Rows], store: Path) -> None:
    vocab = Vocab.read(first(store, "train") / "vocab.arrow")
    ours = [{"token": token, "count": count} for token, count in zip(vocab.tokens, vocab.counts, strict=True)]
    assert read("vocabulary") == ours


def test_the_history(read: Callable[[str], Rows], store: Path) -> None:
    columns = history.read(first(store, "train") / "history.arrow")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    found = read("history")
    assert [*found[0]] == history.COLUMNS
    same(found, rows)


def test_the_nights(read: Callable[[str], Rows], store: Path) -> None:
    ours = nights.read(Store(store / "data" / "artifacts"))
    assert {one.decision for one in ours} >= {"rejected", "failed", "unchanged"}
    found = read("nights")
    same(found, [{"decision": one.decision, "reason": one.reason} for one in ours])
    for row, night in zip(found, ours, strict=True):
        assert [test["bits"] for test in row["tests"]] == [test["bits"] for test in night.tests]
        changed = {name: values for name, values in (row["differs"] or {}).items() if values is not None}
        assert changed == {name: [*values] for name, values in night.differs.items()}
        assert (row["candidate"] or {}).get("key") == (night.candidate.key if night.candidate else None)


def test_the_sweep(read: Callable[[str], Rows], store: Path) -> None:
    trials = json.loads((first(store, "sweeps") / "trials.json").read_text(encoding="utf-8"))
    assert {trial["state"] for trial in trials} == {"finished", "stopped"}
    assert len({tuple(trial["values"].values()) for trial in trials}) == 6
    same(read("trials"), [{**trial.pop("values"), **trial} for trial in trials])


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="nothing says here what is mapped where")
def test_pandas_has_the_ids_where_the_file_is_mapped(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    monkeypatch.chdir(store)
    [block] = [one for one in BLOCKS if "import pandas\n" in one]
    path = first(store, "tokenize") / "tokens.arrow"
    shown: dict[str, Any] = {}
    exec(block.replace("<key>", path.parent.name).partition("vocabulary")[0], shown)
    place = shown["ids"]["id"].to_numpy().ctypes.data
    mapped = [line.split() for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()]
    [file] = [
        parts[-1]
        for parts in mapped
        if (bounds := [int(bound, 16) for bound in parts[0].split("-")]) and bounds[0] <= place < bounds[1]
    ]
    assert file == str(path)
