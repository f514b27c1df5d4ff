"""Every format that was ever published is read; a newer one is neither used nor taken for damage, and is left alone.

`formats/` holds a store for each, called by the commit whose code made it, `rnnlm train` or `rnnlm night` on the text
that lies in it. They must not be made again: that they are old is what they are for. Whoever raises a number adds one.

    46d68e8   the first model (`config.json`), and manifests and checkpoints without a number
    e46c60a   the second model, the first `champion.json`, nights; manifests and checkpoints still without a number
    b318c36   the third model, of subwords; checkpoints have a number
    445f7d5   the fourth model, of several documents
    6f745eb   the fifth model, a mixture of a network and an n-gram
    67e8c88   the sixth model, of two networks, and a mixture
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from data.errors import FormatError
from data.store import champions, nights
from data.store.artifact import MANIFEST
from data.store.collect import collect
from data.store.folder import Store
from data.store.reading import known
from stages.lm.model import LanguageModel
from stages.training import checkpoint

if TYPE_CHECKING:
    from tests.conftest import Rnnlm
    from tests.data.store.conftest import Publish

FORMATS = Path(__file__).with_name("formats")
WROTE = {
    "46d68e8": (1, 1, "the raine. be wor wheret in det..ehe ,o artl an "),
    "e46c60a": (2, 1, "the rainha ke let wotathe tho ag. re ghe wha re "),
    "b318c36": (3, 3, "the raineohemedr  aeahdm b<ierkit\ufffd the the andmrwtkaeer too, the b ao"),
    "445f7d5": (4, 3, "the rain  do tn r thtorgeiae"),
    "6f745eb": (5, 5, "the raing, and thbiing. the dom of fl d"),
    "67e8c88": (6, 3, "the rain the sond and s, and betlora she ftoofii"),
}
"""Store → its model's format, a seed, and what the code of then wrote with it after `the rain`, at temperature 0.8."""
EPOCHS = {
    "46d68e8/checkpoints/2b1440c5cdd21368": 10,
    "e46c60a/checkpoints/f5169dfac1a335aa": 6,
    "b318c36/checkpoints/9db0b1a338b427f6": 6,
    "445f7d5/checkpoints/66e5e181cd30d418": 6,
    "6f745eb/checkpoints/1c6fefda7c8594bd": 60,
    "67e8c88/checkpoints/a05e882f644ffe8d": 30,
    "67e8c88/checkpoints/f80d1cd2bcdb83e8": 30,
    "../published/checkpoints/54c6a51a67d64d64": 2,
}
NEWER = "has format 99, of a newer version of rnnlm, and this one reads formats up to {}: upgrade rnnlm, or "
UPGRADE = f"{NEWER.format(1)}name another store with --store or RNNLM_STORE"


def edit(path: Path, **changes: Any) -> Path:
    """Change what a file of JSON says."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return path


def newer_checkpoint(path: Path) -> None:
    """What a newer version would have written there."""
    with safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()["checkpoint"])
    save_file(load_file(path), path, {"checkpoint": json.dumps(facts | {"format": 99})})


def files(folder: Path, *below: str) -> dict[str, bytes]:
    found = (path for name in below for path in (folder / name).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# --- older ones


@pytest.mark.parametrize("commit", WROTE)
def test_what_an_older_version_published_is_read(commit: str) -> None:
    store = Store(FORMATS / commit)
    artifacts = store.artifacts()
    assert {path.parent.name for path in store.root.rglob(MANIFEST)} == {one.folder.name for one in artifacts}
    assert [store.damage(one, again=True) for one in artifacts] == [None] * len(artifacts)
    assert {one.manifest.format for one in artifacts} == {1}
    (model,) = store.artifacts("train")
    number, seed, text = WROTE[commit]
    assert json.loads((model.folder / "config.json").read_text())["format"] == number
    assert LanguageModel.load(model.folder).sample("the rain", 40, 0.8, seed) == text


@pytest.mark.parametrize("folder", EPOCHS)
def test_a_checkpoint_of_an_older_version_is_read(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    found = checkpoint.latest(FORMATS / folder, 99)
    assert found
    assert (found[0].epoch, len(found[0].history["train_loss"])) == (EPOCHS[folder], EPOCHS[folder])
    assert found[0].index == found[0].step
    assert caplog.messages == []


def test_a_champion_and_the_nights_of_an_older_version_are_read() -> None:
    store = Store(FORMATS / "e46c60a")
    reign = champions.current(store)
    assert reign
    assert [one.candidate.key for one in nights.read(store) if one.candidate] == [reign.model]
    assert store.find("train", reign.model)


# --- newer ones


def test_what_has_no_number_or_no_json_is_no_newer_ones() -> None:
    for content in ("{}", '{"format": 2}', '{"format": null}', '{"format": "3"}', '{"format": true}', "[3]", "{", ""):
        known(Path("x"), content, 2)
    with pytest.raises(FormatError, match=r"^x has format 3, of a newer"):
        known(Path("x"), '{"format": 3, "what": "ever"}', 2)


def test_a_newer_artifact_is_neither_used_nor_replaced(here: Rnnlm, trained: Path) -> None:
    (manifest,) = (trained.parent / "store" / "train").glob(f"*/{MANIFEST}")
    edit(manifest, format=99, outputs="another way")
    before = files(trained.parent / "store", "train", "checkpoints")
    for command in ("run", "status", "train"):
        assert here(command, "--preset", trained, code=2).stderr.strip().endswith(f"rnnlm: {manifest} {UPGRADE}")
    assert here("run", "--preset", trained, "--force", "train", code=2).stderr.strip().endswith(UPGRADE)
    assert here("sample", "--model", manifest.parent, "--length", "3").stdout, "the model's own format is known"
    assert files(trained.parent / "store", "train", "checkpoints") == before


def test_a_newer_artifact_is_passed_over_and_it_and_all_it_may_be_made_from_stays(here: Rnnlm, trained: Path) -> None:
    store = trained.parent / "store"
    (manifest,) = (store / "train").glob(f"*/{MANIFEST}")
    edit(manifest, format=99)
    (evaluated,) = (store / "evaluate").glob("*")
    report = store / "reports" / f"{manifest.parent.name}.md"
    report.write_text("a newer version's")
    shutil.rmtree(evaluated)
    for path in (*store.rglob("*"), store):
        os.utime(path, (0, 0))
    said = f"{manifest.parent} was made by a newer version of rnnlm and is passed over: upgrade rnnlm"
    before = files(store, "download", "tokenize", "train", "baselines")
    for command in (["runs"], ["verify"], ["gc", "--checkpoints", "--days", "0"]):
        assert here(*command).stderr.count(said) == 1
    assert files(store, "download", "tokenize", "train", "baselines") == before
    assert report.exists()


def test_no_stage_publishes_over_a_newer_artifact(store: Store, publish: Publish) -> None:
    artifact = publish()
    edit(artifact.folder / MANIFEST, format=99)
    before = files(store.root, "train")
    with pytest.raises(FormatError, match="format 99"):
        publish()
    assert files(store.root, "train") == before
    assert list((store.root / "tmp").iterdir()) == []


def test_what_was_made_from_a_newer_artifact_is_still_listed(here: Rnnlm, trained: Path) -> None:
    (manifest,) = (trained.parent / "store" / "tokenize").glob(f"*/{MANIFEST}")
    edit(manifest, format=99)
    assert [one["settings"]["train.hidden_size"] for one in json.loads(here("runs", "--json").stdout)["runs"]] == [8]


def test_going_back_withdraws_no_newer_model(store: Store, publish: Publish) -> None:
    keys = [publish(text).manifest.key for text in ("first", "second", "third")]
    for key in keys:
        champions.promote(store, key, "better", {})
    edit(store.folder("train", keys[1]) / MANIFEST, format=99)
    with pytest.raises(FormatError, match=r"manifest\.json has format 99"):
        champions.rollback(store, "it swears")
    assert not any(reign.withdrawn for reign in champions.history(store))


def test_a_newer_record_of_champions_is_refused_and_left(here: Rnnlm, trained: Path) -> None:
    here("promote", next((trained.parent / "store" / "train").iterdir()).name)
    record = edit(trained.parent / "store" / "champion.json", format=99, reigns={})
    before = record.read_bytes()
    for command in (["champion"], ["sample"], ["gc"], ["rollback", "--reason", "none"]):
        assert here(*command, code=2).stderr.strip().endswith(f"rnnlm: {record} {UPGRADE}")
    assert record.read_bytes() == before


def test_a_newer_model_is_refused_and_no_damage(here: Rnnlm, trained: Path) -> None:
    (path,) = (trained.parent / "store" / "train").glob("*/config.json")
    manifest = json.loads((path.parent / MANIFEST).read_text())
    edit(path, format=99, cell="a cell of its own")
    assert here("sample", "--model", path.parent, code=2).stderr.strip() == (
        f"rnnlm: {path} {NEWER.format(7)}use a model that this version has trained"
    )
    content = path.read_bytes()
    manifest["outputs"]["config.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(path.parent / MANIFEST, outputs=manifest["outputs"])
    assert f"{path} has format 99" in here("verify").stdout
    assert f"{path} has format 99" in here("run", "--preset", trained, "--from", "evaluate", code=2).stderr
    assert path.read_bytes() == content


def test_a_newer_checkpoint_is_neither_gone_on_with_nor_lost(here: Rnnlm, trained: Path) -> None:
    store = trained.parent / "store"
    newest = max(store.glob("checkpoints/*/*.safetensors"))
    newer_checkpoint(newest)
    for path in (newest, newest.parent):
        os.utime(path, (0, 0))
    before = files(store, "checkpoints")
    longer = ("train", "--preset", trained, "--set", "train.epochs=3")
    for more in ([], ["--force", "train"]):
        assert here(*longer, *more, code=2).stderr.strip().endswith(f"rnnlm: {newest} {UPGRADE}")
    here("gc", "--checkpoints", "--days", "0")
    assert files(store, "checkpoints") == before


def test_what_a_newer_version_has_begun_under_a_key_of_its_own_is_said(
    here: Rnnlm, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = max((trained.parent / "store").glob("checkpoints/*/*.safetensors"))
    newer_checkpoint(newest)
    from stages.pipeline import decide

    installed = decide.version
    monkeypatch.setattr(decide, "version", lambda name: "99.0" if name == "safetensors" else installed(name))
    said = f"training begins anew: a newer version of rnnlm has begun it, and goes on with {newest.parent} alone"
    assert said in here("status", "--preset", trained, "--set", "train.epochs=3").stdout


# --- within a format


def test_what_a_later_version_adds_within_a_format_is_passed_over_and_kept(store: Store, publish: Publish) -> None:
    artifact = publish()
    edit(artifact.folder / MANIFEST, mirror="somewhere", format=1)
    found = store.find("train", artifact.manifest.key)
    assert found
    assert store.damage(found) is None
    assert collect(store) == []

    champions.promote(store, artifact.manifest.key, "the first", {})
    record = json.loads((store.root / "champion.json").read_text())
    reigns = [{**record["reigns"][0], "machine": "a"}]
    edit(store.root / "champion.json", reigns=reigns, counter=7)
    other = publish("other").manifest.key
    champions.promote(store, other, "better", {})
    record = json.loads((store.root / "champion.json").read_text())
    assert (record["counter"], record["reigns"][0]["machine"], len(record["reigns"])) == (7, "a", 2)

    night = {"when": "2099-01-01T00:00:00+00:00", "name": "default", "decision": "rejected", "reason": "no", "moon": 1}
    (store.root / "nights").mkdir()
    (store.root / "nights" / "default.jsonl").write_text(json.dumps(night) + "\n")
    nights.add(store, nights.read(store)[0])
    assert (store.root / "nights" / "default.jsonl").read_text().startswith(json.dumps(night))
