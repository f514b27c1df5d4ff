"""The champion: one pointer, swapped at once, with all that it pointed at before."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.errors import ConfigError, StoreError
from data.moment import now
from data.store import champions as champion
from data.store import reigns
from data.store.folder import Store

if TYPE_CHECKING:
    from data.store.artifact import Artifact
    from tests.data.store.conftest import Publish

ROOT = Path(__file__).parents[3]
FIGURES = {"candidate_bits": 2.1, "low": 0.01}


def artifact(store: Store, key: str) -> Artifact:
    found = store.find("train", key)
    assert found is not None
    return found


Train = Callable[[str], str]


@pytest.fixture
def trained(publish: Publish) -> Train:
    """Publish a model that a text stands for, and give its key."""
    return lambda text: publish(text, file="model.safetensors").manifest.key


@pytest.fixture
def keys(store: Store, trained: Train) -> list[str]:
    """Three models, each the champion after the one before it."""
    keys = [trained(text) for text in ("first", "second", "third")]
    for number, key in enumerate(keys):
        champion.promote(store, key, f"better {number}", {**FIGURES, "number": number})
    return keys


def test_a_store_has_no_champion_until_one_is_promoted(store: Store, trained: Train) -> None:
    assert champion.current(store) is None
    assert champion.history(store) == []
    assert champion.pinned(store) == set()
    reign = champion.promote(store, trained("first"), "there was none", FIGURES)
    assert champion.current(store) == reign
    assert (reign.reason, reign.figures, reign.withdrawn) == ("there was none", FIGURES, None)
    assert reign.since <= now()


def test_history_is_kept_the_newest_last(store: Store, keys: list[str]) -> None:
    history = champion.history(Store(store.root))
    assert [reign.model for reign in history] == keys
    assert [reign.figures["number"] for reign in history] == [0, 1, 2]
    assert champion.current(store) == history[-1]
    assert champion.pinned(store) == set(keys)
    assert list(json.loads((store.root / "champion.json").read_text())) == ["format", "reigns", "rejections"]


def test_the_record_does_not_grow_without_end(store: Store, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(champion, "KEPT_REIGNS", 5)
    first, second, third = keys
    for key in (second, first, second, third):
        champion.promote(store, key, "better", {})
    assert [reign.model for reign in champion.history(store)] == [third, second, first, second, third]


def test_promoting_the_champion_again_changes_nothing(store: Store, keys: list[str]) -> None:
    before = (store.root / "champion.json").read_bytes()
    assert champion.promote(store, keys[2], "the same night again", {}) == champion.current(store)
    assert (store.root / "champion.json").read_bytes() == before


def test_rollback_goes_back_one_each_time_and_forgets_nothing(store: Store, keys: list[str]) -> None:
    assert champion.rollback(store, "it swears").model == keys[1]
    assert champion.rollback(store, "so does this").model == keys[0]
    assert champion.current(store) == champion.history(store)[0]
    withdrawn = [reign.withdrawn for reign in champion.history(store)]
    assert [end.why if end else None for end in withdrawn] == [None, "so does this", "it swears"]
    assert champion.pinned(store) == {keys[0]}

    before = (store.root / "champion.json").read_bytes()
    with pytest.raises(
        StoreError, match=r"no champion to go back to from .* none was before it: it stays the champion"
    ):
        champion.rollback(store, "once more")
    assert (store.root / "champion.json").read_bytes() == before

    champion.promote(store, keys[2], "on second thoughts", {})
    assert [reign.model for reign in champion.history(store)] == [*keys, keys[2]]
    assert champion.rollback(store, "no").model == keys[0]


def test_nothing_to_roll_back_is_one_sentence(store: Store) -> None:
    with pytest.raises(StoreError, match="has no champion to go back from"):
        champion.rollback(store, "no reason")
    assert not (store.root / "champion.json").exists()


def test_rollback_skips_what_is_gone_or_damaged_and_says_so(
    store: Store, keys: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (artifact(store, keys[1]).folder / "model.safetensors").write_text("secund")
    with caplog.at_level(logging.WARNING):
        assert champion.rollback(store, "worse in use").model == keys[0]
    why = "is damaged (the content of model.safetensors is not what was published)"
    assert why in caplog.text
    end = champion.history(store)[1].withdrawn
    assert end is not None
    assert end.why == f"its artifact {why}"


def test_rollback_stays_where_no_predecessor_is_left(store: Store, keys: list[str]) -> None:
    for key in keys[:2]:
        (artifact(store, key).folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match="all before it are gone or damaged"):
        champion.rollback(store, "worse in use")
    reign = champion.current(store)
    assert reign is not None
    assert reign.model == keys[2]
    assert not any(reign.withdrawn for reign in champion.history(store))


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_figures_that_are_not_finite_never_promote(
    store: Store, trained: Train, keys: list[str], figure: float
) -> None:
    with pytest.raises(StoreError, match="not promoted, for its figures are not all finite"):
        champion.promote(store, trained("fourth"), "it says so", {"low": figure})
    assert len(champion.history(store)) == 3


def test_a_model_that_is_not_there_is_not_promoted(store: Store, trained: Train) -> None:
    with pytest.raises(StoreError, match="not promoted, for its artifact is gone"):
        champion.promote(store, "0" * 64, "it says so", {})
    key = trained("short")
    (artifact(store, key).folder / "model.safetensors").write_text("shor")
    with pytest.raises(StoreError, match=r"is damaged \(model\.safetensors has 4 bytes instead of 5\)"):
        champion.promote(store, key, "it says so", {})
    assert champion.current(store) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"format": 0, "reigns": []}',
        b'{"format": "2", "reigns": []}',
        b'{"reigns": [{}]}',
        b'{"reigns": [{"model": "../..", "since": "", "reason": "", "figures": {}}]}',
        b'{"champion": "x"}',
    ],
)
def test_a_damaged_pointer_is_never_no_champion(store: Store, trained: Train, content: bytes) -> None:
    key = trained("first")
    path = store.root / "champion.json"
    path.write_bytes(content)
    for ask in (
        champion.current,
        champion.history,
        champion.pinned,
        lambda store: champion.promote(store, key, "", {}),
        lambda store: champion.rollback(store, ""),
    ):
        with pytest.raises(StoreError, match=r"champion\.json does not say which model is the champion") as caught:
            ask(store)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_pointer_that_cannot_be_written_leaves_the_champion(store: Store, keys: list[str]) -> None:
    (store.root / "champion.json.new").mkdir()
    with pytest.raises(StoreError, match=r"cannot be written .* so the champion stays"):
        champion.rollback(store, "worse")
    reign = champion.current(store)
    assert reign is not None
    assert reign.model == keys[2]


PROMOTE = """
import sys
from pathlib import Path
from data.store import champions as champion
from data.store import reigns
from data.store.folder import Store
for key in sys.argv[2:]:
    champion.promote(Store(Path(sys.argv[1])), key, "better", {})
"""


def test_processes_that_promote_at_once_lose_nothing(store: Store, trained: Train) -> None:
    keys = [trained(f"model {number}") for number in range(24)]
    parts = [keys[::2], keys[1::2]]
    command = [sys.executable, "-c", PROMOTE, str(store.root)]
    others = [subprocess.Popen([*command, *part], cwd=ROOT) for part in parts]
    lengths = []
    while any(other.poll() is None for other in others):
        lengths.append(len(champion.history(store)))  # a reader without a lock sees whole files only
    assert [other.returncode for other in others] == [0, 0]
    history = champion.history(store)
    assert lengths == sorted(lengths)
    assert sorted(reign.model for reign in history) == sorted(keys)
    for part in parts:
        assert [reign.model for reign in history if reign.model in part] == part
    assert [path.name for path in store.root.glob("champion*")] == ["champion.json"]


def test_a_promotion_over_someone_who_is_no_longer_champion_is_refused(store: Store, trained: Train) -> None:
    first, second, third = (trained(text) for text in ("first", "second", "third"))
    champion.promote(store, first, "the first", {})
    champion.promote(store, second, "better", {}, over=first)
    with pytest.raises(StoreError, match="no longer the champion"):
        champion.promote(store, third, "better than the first", {}, over=first)
    assert champion.pinned(store) == {first, second}


def test_a_rejection_is_remembered_against_that_champion_only(
    store: Store, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champion, "KEPT_REJECTIONS", 3)
    first, second = trained("first"), trained("second")
    champion.promote(store, first, "the first", {})
    champion.reject(store, second, first, "it is no better")
    found = champion.rejected(store, second, first)
    assert found
    assert found.reason == "it is no better"
    assert champion.rejected(store, second, second) is None
    for number in range(3):
        assert champion.rejected(store, second, first)
        champion.reject(store, f"{number:064}", first, "no")
    assert champion.rejected(store, second, first) is None


def test_a_withdrawn_model_is_known_until_it_is_promoted_again(store: Store, trained: Train) -> None:
    first, second = trained("first"), trained("second")
    champion.promote(store, first, "the first", {})
    champion.promote(store, second, "better", {})
    assert champion.withdrawn(store, second) is None
    champion.rollback(store, "it swears")
    found = champion.withdrawn(store, second)
    assert found
    assert found.why == "it swears"
    champion.promote(store, second, "it no longer does", {})
    assert champion.withdrawn(store, second) is None


def test_each_name_has_a_champion_of_its_own_and_all_are_kept(store: Store, trained: Train) -> None:
    first, second, third = (trained(text) for text in ("first", "second", "third"))
    champion.promote(store, first, "the first", {})
    champion.promote(store, second, "a second", {}, name="tiny-1", source="sample")
    champion.promote(store, third, "better", {}, name="tiny-1")
    champion.reject(store, second, third, "no", name="tiny-1")
    assert reigns.names(store) == ["default", "tiny-1"]
    assert [reign.model for reign in champion.history(store)] == [first]
    assert [reign.source for reign in champion.history(store, "tiny-1")] == ["sample", None]
    assert champion.rejected(store, second, third) is None
    assert champion.rejected(store, second, third, "tiny-1")
    assert champion.current(store, "other") is None
    assert champion.pinned(store) == {first, second, third}
    champion.rollback(store, "it swears", name="tiny-1")
    assert champion.withdrawn(store, third, "tiny-1")
    assert champion.pinned(store) == {first, second}
    (store.root / "champions" / "tiny-1.json").write_text("{")
    with pytest.raises(StoreError, match=r"tiny-1\.json does not say which model is the champion"):
        champion.pinned(store)
    assert champion.current(store)


@pytest.mark.parametrize("name", ["", "../x", "Tiny", "-a", "a b", "a.json", "x" * 41, "ä"])
def test_what_cannot_be_a_name_is_said_in_one_sentence(store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match="does not fit: a champion's has up to 40 of a-z"):
        champion.current(store, name)


def test_a_folder_of_champions_that_is_none_is_not_no_champion(store: Store, trained: Train) -> None:
    trained("first")
    (store.root / "champions").write_text("")
    with pytest.raises(StoreError, match="champions does not say which models are champions"):
        champion.pinned(store)


def test_who_compared_with_nobody_takes_nobodys_place(store: Store, trained: Train) -> None:
    first, second = trained("first"), trained("second")
    champion.promote(store, first, "by hand, in the middle of a night", {})
    with pytest.raises(StoreError, match="for meanwhile another one became the champion"):
        champion.promote(store, second, "there was none", {}, over="")


def test_a_large_record_that_is_none_is_refused_at_its_first_fault(store: Store) -> None:
    store.root.mkdir(exist_ok=True)
    (store.root / "champion.json").write_text('{"reigns":[' + "{}," * 1_000_000 + "{}]}")
    began = time.process_time()
    with pytest.raises(StoreError, match=r"champion\.json does not say .* \(reigns\.0\.model: "):
        champion.history(store)
    assert time.process_time() - began < 3, "and not the million after it"
