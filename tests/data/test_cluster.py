"""The Dask cluster that a user names: what is none is one sentence, and nothing has begun by then."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data import cluster
from data.errors import ConfigError

if TYPE_CHECKING:
    from tests.conftest import Rnnlm


def test_without_dask_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    for named in ("tcp://127.0.0.1:9", "local:2"):
        with pytest.raises(ConfigError, match="pip install distributed"):
            cluster.check(named)


WRONG = [
    ("local:0", "--dask local:0 starts no worker: write local:4"),
    ("local:x", "--dask local:x starts no worker"),
    ("local:", "--dask local: starts no worker"),
    ("local:257", "256 at most"),
    ("nonsense", "no Dask scheduler answers at nonsense"),
    ("tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"),
    ("", "no Dask scheduler answers at"),
]


@pytest.mark.parametrize(("named", "said"), WRONG, ids=[repr(row[0]) for row in WRONG])
def test_what_is_no_cluster_is_one_sentence(monkeypatch: pytest.MonkeyPatch, named: str, said: str) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "SECONDS_TO_ANSWER", 0.3)
    with pytest.raises(ConfigError) as caught:
        cluster.check(named)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


COMMANDS = [["run"], ["tokenize"], ["train"], ["evaluate"], ["night"], ["sweep", "--vary", "train.seed=1,2"]]


@pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_a_command_that_is_given_none_ends_before_it_begins(here: Rnnlm, tiny: Path, command: list[str]) -> None:
    done = here(*command, "--preset", tiny, "--dask", "local:0", code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("rnnlm: --dask local:0 starts no worker")
    assert not (tiny.parent / "store").exists()


def test_what_reads_no_text_has_no_use_for_one(here: Rnnlm, tiny: Path) -> None:
    for command in (["download", "--preset", tiny], ["evaluate", "--on", tiny]):
        done = here(*command, "--dask", "local:2", code=2)
        assert "--dask" in done.stderr
        assert done.stderr.count("\n") == 1
