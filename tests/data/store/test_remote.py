"""What machines share, against a real S3 endpoint that is damaged, slow, busy or dead whenever that is worst."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import pytest

from data.errors import ConfigError, DeniedError, FormatError, RemoteError, StoreError
from data.moment import now
from data.store import champions, fingerprint, mirror, objects, prune, reigns
from data.store.artifact import Artifact
from data.store.folder import Store, open_store
from data.store.manifest import Manifest
from tests.races import races

if TYPE_CHECKING:
    from tests.s3 import S3, Fault

Machine = Callable[[str], Store]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon, and not often."""
    backoff = {name: timedelta(milliseconds=1) for name in ("init_backoff", "max_backoff")}
    monkeypatch.setattr(objects, "RETRYING", {**objects.RETRYING, "max_retries": 2, "backoff": {**backoff, "base": 2}})
    monkeypatch.setattr(objects, "PAUSE", 0.001)


@pytest.fixture
def machine(tmp_path: Path, bucket: str) -> Machine:
    """A machine's own store, behind which the bucket is."""
    return lambda name: open_store(str(tmp_path / name), bucket)


def make(
    store: Store, text: str = "hello", more: str = "world", parents: dict[str, str] | None = None, stage: str = "train"
) -> Artifact:
    """Publish an artifact of two small files, as a stage would; its key is by the first."""
    components = {"stage": stage, "text": text}
    key = fingerprint.digest(components)
    with store.building(stage, key) as folder:
        for name, content in (("a.txt", text), ("b.txt", more)):
            (folder / name).write_text(content)
        outputs = {
            path.name: {"bytes": path.stat().st_size, "sha256": fingerprint.file_digest(path)}
            for path in sorted(folder.iterdir())
        }
        manifest = {
            "stage": stage,
            "key": key,
            "components": components,
            "outputs": outputs,
            "config": {},
            "parents": parents or {},
            "created": now(),
        }
        return store.publish(folder, Manifest.model_validate(manifest))


def contents(artifact: Artifact | None) -> dict[str, str]:
    assert artifact is not None
    return {path.name: path.read_text() for path in artifact.folder.iterdir()}


def everything(store: Store) -> dict[str, bytes]:
    """All that the bucket holds."""
    assert store.remote is not None
    raw = store.remote.objects._service
    return {one.name: bytes(obstore.get(raw, one.name).bytes()) for one in store.remote.objects.listed()}


def put(store: Store, name: str, content: bytes) -> None:
    """Exchange an object by hand."""
    assert store.remote is not None
    obstore.put(store.remote.objects._service, name, content)


def test_what_one_machine_made_another_one_has(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    made = mirror.send(here, make(here))
    brought = mirror.bring(there, "train", made.manifest.key)
    assert contents(brought) == contents(made)
    assert mirror.bring(there, "train", "0" * 64) is None


def test_files_are_sent_first_and_the_manifest_last(machine: Machine, s3: S3) -> None:
    here = machine("here")
    made = make(here)
    s3.plan(None)
    mirror.send(here, made)
    sent = [path.rpartition("/")[2] for method, path in s3.asked if method == "PUT"]
    assert [name.rpartition("-")[2] for name in sent] == ["a.txt", "b.txt", "manifest.json"]


def test_of_two_who_made_the_same_key_the_slower_takes_what_the_faster_sent(machine: Machine) -> None:
    one, other = machine("one"), machine("other")
    first, second = make(one, more="by one"), make(other, more="by the other")
    assert mirror.send(one, first) == first
    taken = mirror.send(other, second)
    assert contents(taken) == contents(first)
    assert contents(other.find("train", second.manifest.key)) == contents(first)


def test_what_is_made_instead_takes_the_place_of_what_was_sent(machine: Machine) -> None:
    one, other = machine("one"), machine("other")
    mirror.send(one, make(one, more="by one"))
    forced = mirror.send(other, make(other, more="forced"), instead=True)
    brought = mirror.bring(machine("third"), "train", forced.manifest.key)
    assert contents(brought) == contents(forced)


DAMAGES: dict[str, Callable[[Store, str], None]] = {
    "a file exchanged": lambda store, name: put(store, name, b"jello"),
    "a file cut": lambda store, name: put(store, name, b"hel"),
    "an empty file": lambda store, name: put(store, name, b""),
    "a file gone": lambda store, name: obstore.delete(store.remote.objects._service, name),  # type: ignore[union-attr]
    "no manifest": lambda store, name: put(store, f"{name.rpartition('/')[0]}/manifest.json", b"{}"),
    "another's manifest": lambda store, name: put(
        store, f"{name.rpartition('/')[0]}/manifest.json", everything(store)["train/other/manifest.json"]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_never_served_and_is_replaced(
    damage: str, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    here, there, third = machine("here"), machine("there"), machine("third")
    made = mirror.send(here, make(here))
    other = make(here, "another")
    put(here, "train/other/manifest.json", (other.folder / "manifest.json").read_bytes())
    file = next(name for name in everything(here) if name.endswith("a.txt"))
    DAMAGES[damage](here, file)
    with caplog.at_level(logging.WARNING):
        assert mirror.bring(there, "train", made.manifest.key) is None
    assert "is damaged" in caplog.text
    assert there.find("train", made.manifest.key) is None
    again = mirror.send(there, make(there))  # the stage has run instead
    assert contents(mirror.bring(third, "train", again.manifest.key)) == contents(again)


FAULTS: tuple[Fault, ...] = (500, 503, 409, 412, "dropped", "lost", 0.05)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("work", ["push", "pull", "swap"])
def test_one_bad_answer_at_any_step_changes_nothing(work: str, fault: Fault, machine: Machine, s3: S3) -> None:
    here = machine("here")
    for step in range(4):
        made = make(here, f"{work} {step}", more="x")
        if work == "pull":
            mirror.send(here, made)
        key, fresh = made.manifest.key, machine(f"{step}")
        s3.plan(partial(at, step, fault))
        if work == "push":
            assert mirror.send(here, made) == made
        elif work == "pull":
            assert contents(mirror.bring(fresh, "train", key)) == contents(made)
        else:
            crown(fresh, f"name-{step}", key)
        s3.plan(None)
        if work == "swap":
            assert [one.model for one in champions.history(machine("other"), f"name-{step}")] == [key]
        else:
            assert contents(mirror.bring(machine(f"fresh {step}"), "train", key)) == contents(made)


def at(step: int, fault: Fault, method: str, path: str, number: int) -> Fault:
    return fault if number == step else None


def crown(store: Store, name: str, key: str) -> None:
    reigns.change(store, name, lambda record: record.reigns.append(reign(key)))


def reign(key: str) -> reigns.Reign:
    return reigns.Reign(model=key, since=now(), reason="better", figures={})


@pytest.mark.parametrize("step", range(4))
def test_whenever_the_service_dies_nothing_is_lost_and_all_is_made_up_for(
    step: int, machine: Machine, s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(method: str, path: str, number: int) -> Fault:
        return "dropped" if number >= step else None

    here = machine("here")
    made = make(here)
    key = made.manifest.key
    s3.plan(dead)
    assert mirror.send(here, made) == made
    assert "does not answer: going on with the local store" in caplog.text
    s3.plan(None)
    assert mirror.bring(machine("between"), "train", key) is None
    mirror.share(machine("here"), "train", key)
    s3.plan(dead)
    brought = mirror.bring(machine("there"), "train", key)
    assert brought is None if step < 3 else contents(brought) == contents(made)  # the last is that it was used
    s3.plan(None)
    assert contents(mirror.bring(machine("there"), "train", key)) == contents(made)


@pytest.mark.parametrize(
    ("step", "says"), [(0, "so the champion stays"), (1, "and nobody knows whether the champion changed")]
)
def test_where_the_service_dies_the_champion_stays(step: int, says: str, machine: Machine, s3: S3) -> None:
    crown(machine("here"), "default", "a" * 64)
    s3.plan(lambda method, path, number: "dropped" if number >= step else None)
    with pytest.raises(RemoteError, match=f"does not answer, {says}: "):
        crown(machine("here"), "default", "b" * 64)
    s3.plan(None)
    for name in ("here", "there"):
        assert [one.model for one in champions.history(machine(name))] == ["a" * 64]


def test_who_may_only_read_goes_on_and_is_told_once(machine: Machine, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    here = machine("here")
    first, second = make(here, "first"), make(here, "second")
    s3.plan(lambda method, path, number: 403 if method == "PUT" else None)
    for artifact in (first, second):
        assert mirror.send(here, artifact) == artifact
    assert caplog.text.count("with these credentials") == 1
    with pytest.raises(StoreError, match="so the champion stays"):
        champions.promote(here, first.manifest.key, "better", {})
    s3.plan(None)
    mirror.share(machine("here"), "train", first.manifest.key)
    s3.plan(lambda method, path, number: 403 if method == "PUT" else None)
    assert mirror.bring(machine("there"), "train", first.manifest.key) is not None


def test_nothing_is_sent_where_that_is_not_wanted(machine: Machine, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine("here")
    mirror.send(here, make(here))
    monkeypatch.setenv("RNNLM_PULL_ONLY", "1")
    s3.plan(None)
    laptop = machine("laptop")
    assert mirror.bring(laptop, "train", make(here).manifest.key) is not None
    mirror.send(laptop, make(laptop, "of its own"))
    assert all(method == "GET" for method, _ in s3.asked)


def test_credentials_are_in_nothing_that_is_said_or_written(
    machine: Machine, s3: S3, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    here = machine("here")
    mirror.send(here, make(here))
    s3.plan(lambda method, path, number: 403)
    mirror.send(here, make(here, "another"))
    s3.plan(lambda method, path, number: "dropped")
    with pytest.raises(RemoteError) as told:
        mirror.share(machine("here"), "train", make(here).manifest.key)
    s3.plan(None)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    said = caplog.text.encode() + str(told.value).encode() + written + b"".join(everything(here).values())
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in said
    assert s3.url.encode() not in said


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s4://bucket/x", "is no address"),
        ("bucket/x", "is no address"),
        ("s3://", "is no address"),
        ("s3://a b/x", "is no address"),
        ("s3://[bucket/x", "is no address"),
        ("s3://me:secret@bucket/x", "more than a bucket"),
        ("s3://bucket/x?token=secret", "more than a bucket"),
        ("az://container/x", "AZURE_STORAGE_ACCOUNT_NAME is not set"),
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(
    address: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError, match=says) as told:
        open_store(str(tmp_path), address)
    assert "secret" not in str(told.value).replace("AWS_SECRET", "").lower()


def test_a_bucket_that_is_not_there_is_said_and_the_work_goes_on(
    s3: S3, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = open_store(str(tmp_path / "here"), "s3://nowhere/store")
    made = make(here)
    assert mirror.send(here, made) == made
    assert mirror.bring(here, "train", "0" * 64) is None
    assert caplog.text.count("is not there: make its bucket") == 1


def test_what_a_newer_version_has_sent_is_not_used_and_stays(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = machine("here"), machine("there")
    made = mirror.send(here, make(here))
    newer = everything(here)[f"{made.place}/manifest.json"].replace(b'"format": 1', b'"format": 99')
    put(here, f"{made.place}/manifest.json", newer)
    assert mirror.bring(there, "train", made.manifest.key) is None
    mirror.send(machine("third"), make(machine("third")))
    assert "has format 99, of a newer version of rnnlm" in caplog.text
    assert everything(here)[f"{made.place}/manifest.json"] == newer
    assert here.remote is not None
    with pytest.raises(FormatError, match="upgrade rnnlm"):
        prune.prune(here, here.remote, days=0, dry_run=False)


# --- champions


def test_a_champion_of_one_machine_is_the_champion_of_the_other(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    tokens = make(here, "tokens", stage="tokenize")
    model = make(here, "model", parents={"tokenize": tokens.manifest.key})
    champions.promote(here, model.manifest.key, "better", {})
    reign = champions.current(there)
    assert reign is not None
    assert reign.model == model.manifest.key
    found, damage = mirror.obtain(there, "train", reign.model)
    assert (contents(found), damage) == (contents(model), "")
    assert mirror.bring(there, "tokenize", tokens.manifest.key) is not None  # what it was made from went before it
    assert champions.pinned(there) == {reign.model}


def test_a_lost_race_is_decided_again(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    ours, theirs = (make(store, text).manifest.key for store, text in ((here, "ours"), (there, "theirs")))

    def meanwhile(record: reigns.Record) -> None:
        if not record.reigns:
            champions.promote(there, theirs, "better", {})
        record.reigns.append(reign(ours))

    reigns.change(here, "default", meanwhile)
    assert [one.model for one in champions.history(machine("third"))] == [theirs, ours]


def test_who_compared_with_another_champion_is_told(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    first, ours, theirs = (make(here, text).manifest.key for text in ("first", "ours", "theirs"))
    champions.promote(here, first, "the first", {})
    make(there, "theirs")
    champions.promote(there, theirs, "better", {}, over=first)
    with pytest.raises(champions.OvertakenError):
        champions.promote(here, ours, "better", {}, over=first)


def test_without_an_answer_the_champion_is_the_one_seen_last(machine: Machine, s3: S3) -> None:
    here, there = machine("here"), machine("there")
    key = make(here).manifest.key
    champions.promote(here, key, "better", {})
    assert champions.current(there) is not None
    s3.plan(lambda method, path, number: "dropped")
    reign = champions.current(machine("there"))
    assert reign is not None
    assert reign.model == key


def test_a_record_that_was_exchanged_by_hand_is_said(machine: Machine, bucket: str) -> None:
    here = machine("here")
    put(here, "champions/default.json", b'{"format": 1, "reigns": 7}')
    with pytest.raises(StoreError, match=f"{bucket}/champions/default.json does not say"):
        champions.current(here)
    put(here, "champions/default.json", b'{"format": 99}')
    with pytest.raises(FormatError, match="has format 99"):
        champions.current(here)


# --- what nobody needs


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Look at the remote so many days later."""

    def set_(days: float) -> None:
        before = objects.Objects.now
        monkeypatch.setattr(objects.Objects, "now", lambda self: before(self) + timedelta(days=days))

    return set_


def test_what_nobody_uses_goes_and_champions_stay_with_their_lineage(
    machine: Machine, later: Callable[[float], None]
) -> None:
    here = machine("here")
    assert here.remote is not None
    tokens = make(here, "tokens", stage="tokenize")
    model = make(here, "model", parents={"tokenize": tokens.manifest.key})
    champions.promote(here, model.manifest.key, "better", {})
    old = mirror.send(here, make(here, "old"))
    assert prune.prune(here, here.remote, days=0, dry_run=False) == []  # of the last day nothing goes
    later(40)
    assert [one.place for one in prune.prune(here, here.remote, days=30, dry_run=True)] == [old.place]
    assert old.place in here.remote.places()
    prune.prune(here, here.remote, days=30, dry_run=False)
    assert here.remote.places() == {tokens.place, model.place}
    assert not any(name.startswith(f"{old.place}/") for name in everything(here))


def test_files_of_a_push_that_was_killed_go_and_those_of_one_at_work_stay(
    machine: Machine, s3: S3, later: Callable[[float], None]
) -> None:
    here = machine("here")
    assert here.remote is not None
    s3.plan(lambda method, path, number: "dropped" if path.endswith("manifest.json") and method == "PUT" else None)
    mirror.send(here, make(here))
    s3.plan(None)
    assert prune.prune(here, here.remote, days=0, dry_run=False) == []
    later(2)
    assert [one.reason for one in prune.prune(here, here.remote, days=30, dry_run=False)] == [
        "files that no manifest names"
    ]
    assert [name for name in everything(here) if name.startswith("train/")] == []


def test_what_is_brought_counts_as_used(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    assert here.remote is not None
    made = mirror.send(here, make(here))
    before = {one.name: one.changed for one in here.remote.objects.listed()}
    time.sleep(1.1)  # the service counts whole seconds
    mirror.bring(there, "train", made.manifest.key)
    after = {one.name: one.changed for one in here.remote.objects.listed()}
    changed = [name for name in after if after[name] != before[name]]
    assert changed == [f"{made.place}/manifest.json"]


def test_no_race_loses_a_promotion() -> None:
    """`tests/races.py` runs a hundred thousand."""
    assert races(1000) > 500  # swaps that were lost, and decided again


def test_what_was_used_here_counts_as_used_there_now_and_then(machine: Machine, s3: S3) -> None:
    here = machine("here")
    made = mirror.send(here, make(here))
    s3.plan(None)
    assert mirror.used(here, made)
    assert s3.asked == []
    long_ago = (time.time() - 2 * mirror.RESTED,) * 2
    os.utime(made.folder / "manifest.json", long_ago)
    os.utime(made.folder, long_ago)
    assert mirror.used(here, made)
    assert "PUT" in [method for method, _ in s3.asked]
    os.utime(made.folder, long_ago)
    obstore.delete(here.remote.objects._service, f"{made.place}/manifest.json")  # type: ignore[union-attr]
    assert mirror.used(here, made)
    shutil.rmtree(made.folder)
    assert not mirror.used(here, made)


def test_without_a_champion_there_is_none_to_send(machine: Machine) -> None:
    assert not champions.publish(machine("here"), "default")


def test_where_nothing_may_be_sent_no_model_is_promoted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNLM_PULL_ONLY", "1")
    with pytest.raises(StoreError, match=r"nothing is sent to the remote .*, so the champion stays"):
        crown(machine("here"), "default", "a" * 64)


def test_what_is_promised_of_a_remote_that_fails_is_nothing(machine: Machine, s3: S3) -> None:
    here = machine("here")
    made = mirror.send(here, make(here))
    promised = mirror.promised(machine("there"), "train", made.manifest.key)
    assert promised is not None
    assert promised.manifest == made.manifest
    s3.plan(lambda method, path, number: "dropped")
    assert mirror.promised(machine("there"), "train", made.manifest.key) is None


def test_a_service_that_is_always_busy_is_one_sentence(machine: Machine, s3: S3) -> None:
    here = machine("here")
    assert here.remote is not None
    s3.plan(lambda method, path, number: 409 if method == "PUT" else None)
    with pytest.raises(RemoteError, match="is too busy to change train/x/a: run the same again later"):
        here.remote.objects.swap("train/x/a", b"1", None)
    with pytest.raises(RemoteError, match=r"is too busy$"):
        here.remote.objects.put("train/x/a", b"1")


def test_a_service_without_tls_is_used_only_where_that_is_meant(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert mirror.bring(machine("here"), "train", "0" * 64) is None
    assert "is to be asked without TLS: set AWS_ALLOW_HTTP=true where that is meant" in caplog.text


def test_what_is_too_large_to_be_ours_is_not_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine("here")
    made = mirror.send(here, make(here))
    monkeypatch.setattr(objects, "LARGEST", 10)
    assert mirror.bring(machine("there"), "train", made.manifest.key) is None


def test_who_may_not_look_is_told_once(machine: Machine, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    here = machine("here")
    s3.plan(lambda method, path, number: 403)
    assert [mirror.bring(here, "train", digit * 64) for digit in "01"] == [None, None]
    assert caplog.text.count("what cannot be read there counts as missing") == 1


def test_an_entry_that_nobody_understands_stays(machine: Machine, later: Callable[[float], None]) -> None:
    here = machine("here")
    assert here.remote is not None
    made = mirror.send(here, make(here))
    put(here, f"{made.place}/manifest.json", b"{}")
    later(40)
    assert prune.prune(here, here.remote, days=30, dry_run=False) == []
    assert f"{made.place}/a.txt" not in everything(here)  # its name has the content's digest
    assert len([name for name in everything(here) if name.startswith(made.place)]) == 3


def test_what_is_used_while_it_is_to_go_stays(
    machine: Machine, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine("here")
    assert here.remote is not None
    made = mirror.send(here, make(here))
    later(40)
    listed = objects.Objects.listed

    def used(self: objects.Objects, prefix: str = "") -> Iterator[objects.Listed]:
        for one in listed(self, prefix):
            yield one._replace(changed=self.now()) if prefix else one

    monkeypatch.setattr(objects.Objects, "listed", used)
    prune.prune(here, here.remote, days=30, dry_run=False)
    assert here.remote.places() == {made.place}


def test_who_is_first_with_what_is_damaged_is_replaced(machine: Machine) -> None:
    one, other = machine("one"), machine("other")
    first = mirror.send(one, make(one, more="by one"))
    (name,) = (name for name in everything(one) if name.endswith("-b.txt"))
    put(one, name, b"jello")
    second = make(other, more="by the other")
    assert mirror.send(other, second) == second
    assert contents(mirror.bring(machine("third"), "train", first.manifest.key)) == contents(second)


def test_what_goes_as_it_is_to_be_replaced_is_sent_anew(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    here, swap, answers = machine("here"), objects.Objects.swap, iter([False])
    monkeypatch.setattr(objects.Objects, "swap", lambda *given: next(answers, None) is None and swap(*given))
    made = mirror.send(here, make(here))
    assert contents(mirror.bring(machine("there"), "train", made.manifest.key)) == contents(made)


def test_a_remote_that_goes_on_to_fail_is_said_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    remote = machine("here").remote
    assert remote is not None
    for error in (DeniedError("it may not be written"), RemoteError("it does not answer")) * 2:
        with remote.spared():
            raise error
    assert caplog.text.count("it may not be written: going on") == 1
    assert caplog.text.count("it does not answer: going on") == 1
