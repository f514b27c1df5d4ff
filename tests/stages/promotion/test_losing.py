"""What is said of nights that keep losing to a champion of another configuration, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.moment import now
from data.store.artifact import Artifact
from data.store.manifest import Manifest
from data.store.nights import Model, NightRecord
from stages.config import RunConfig
from stages.promotion import losing

OURS, THEIRS = "a" * 64, "b" * 64
DIFFER: losing.Differences = {"train.hidden_size": (512, 256), "train.tie_weights": (True, False)}


def night(**what: Any) -> NightRecord:
    lost = {"lost": True, "differs": DIFFER, "champion": Model(key=THEIRS)}
    return NightRecord(**{"when": now(), "name": "default", "decision": "rejected", "reason": "", **lost, **what})


def test_only_nights_in_a_row_count_and_those_that_decided_nothing_are_passed_over() -> None:
    lost, refused, failed = night(), night(decision="refused", lost=False), night(decision="failed", lost=False)
    assert losing.why(DIFFER, THEIRS, []) == ""
    assert losing.why(DIFFER, THEIRS, [lost]) == ""
    said = losing.why(DIFFER, THEIRS, [lost, refused, lost, failed])
    assert "train.hidden_size 512 (tonight 256), train.tie_weights true (tonight false)" in said
    assert "--set train.hidden_size=512 --set train.tie_weights=true" in said
    assert "lost 3 times in a row" in said
    for between in (night(lost=False), night(champion=Model(key=OURS)), night(differs={})):
        assert losing.why(DIFFER, THEIRS, [lost, lost, between, lost]) == ""
    assert losing.why({}, THEIRS, [lost] * 9) == "", "with the same configuration it is the text, or luck"


def made(**config: dict[str, Any]) -> list[Artifact]:
    described: dict[str, Any] = {
        "components": {},
        "outputs": {},
        "parents": {},
        "created": "2026-01-02T03:04:05+00:00",
        "key": "0" * 64,
    }
    manifests = [Manifest(stage=stage, config=fields, **described) for stage, fields in config.items()]
    return [Artifact(Path(manifest.stage), manifest) for manifest in manifests]


def test_what_differs_is_what_makes_a_recipe() -> None:
    ours = RunConfig().model_dump(mode="json")
    theirs = {
        "train": {**ours["train"], "hidden_size": 512, "seed": 7, "engine": "bptt", "device": "cpu"},
        "tokenize": {"level": "word"},  # the other fields came later
        "download": {"corpus": "another", "as_of": "then"},
        "gone": {"field": 1},
    }
    differ = losing.differences(RunConfig(), made(**theirs))
    assert differ == {"train.hidden_size": (512, 256), "tokenize.level": ("word", "char")}
