"""Several networks, all the way: trained, measured, judged, reported, and what they leave in the store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from data.store.collect import collect
from data.store.folder import Store
from data.tables.tokens import IndexTable
from stages.config import PromotionConfig, RunConfig
from stages.lm.ensemble import Ensemble
from stages.lm.model import LanguageModel
from stages.pipeline import begun, trainings
from stages.promotion.contender import Contender
from stages.promotion.judge import judge
from stages.report import markdown
from stages.report.gather import gather
from tests.stages.test_mixtures import configured, run

if TYPE_CHECKING:
    from pathlib import Path

    from stages.pipeline.run import Outcome

EPOCHS = 4


def several(networks: int, **changes: Any) -> RunConfig:
    return configured(networks=networks, epochs=EPOCHS, **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("networks") / "store")


@pytest.fixture(scope="module")
def outcomes(store: Store) -> dict[str, Outcome]:
    return run(several(2), store)


def seconds_trained(outcome: Outcome) -> bool:
    return "tokens_per_second" in outcome.artifact.manifest.timing


def test_two_are_better_than_one_and_are_measured_as_what_they_say(
    store: Store, outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    measured = json.loads((outcomes["evaluate"].artifact.folder / "metrics.json").read_text())
    model = LanguageModel.load(outcomes["train"].artifact.folder)
    test = IndexTable.open(outcomes["tokenize"].artifact.folder / "tokens.arrow").split("test")
    assert isinstance(model.network, Ensemble)
    assert measured["test"]["parts"]["network"]["loss"] == pytest.approx(model.network.loss(test), rel=1e-6)
    assert measured["test"]["loss"] == pytest.approx(model.predictor.loss(test), rel=1e-6)
    assert model.network.loss(test) < min(network.loss(test) for network in model.network.networks)
    said = model.sample("the ", 80, 0.8, seed=3)
    assert [*model.samples("the ", 80, 0.8, range(4))][3] == said
    text = model.vocab.decode(test.tolist(), model.kind)
    assert model.score(text).loss == pytest.approx(measured["test"]["loss"], rel=1e-5)


def test_a_network_that_is_there_is_not_trained_again(store: Store, outcomes: dict[str, Outcome]) -> None:
    second = run(several(1, seed=1), store, "train")["train"]
    assert second.state == "ran"
    assert not seconds_trained(second), "it is the second of the two"
    assert seconds_trained(run(several(3), store, "train")["train"]), "the third is new"


def test_what_they_left_behind_is_theirs(store: Store, outcomes: dict[str, Outcome]) -> None:
    names = begun.checkpoints(outcomes["train"].artifact)
    assert len({*names}) == 2
    for name in names:
        assert (store.root / "checkpoints" / name / "begun.json").is_file()
        assert name in begun.ended(store)
    ours = next(one for one in trainings.trainings(store) if one.artifact.folder == outcomes["train"].artifact.folder)
    sizes = [path.lstat().st_size for name in names for path in (store.root / "checkpoints" / name).iterdir()]
    assert ours.checkpoints == sum(sizes)
    assert ours.settings["train.networks"] == 2
    planned = collect(store, finished=begun.ended(store), newer=begun.newer(store), dry_run=True, checkpoints=True)
    assert {*names} <= {removal.folder.name for removal in planned}


def test_the_report_says_how_many_there_are(outcomes: dict[str, Outcome]) -> None:
    said = markdown.text(gather(outcomes.values()), "")
    assert "2 networks from different seeds, each a GRU, 1 layer of 24 hidden units" in said
    assert "It mixes 2 networks with an n-gram of order 4 (modified Kneser-Ney). The networks count for " in said
    assert "| its networks | its 4-gram |" in said


def test_the_judge_takes_them_for_one_model(store: Store, outcomes: dict[str, Outcome]) -> None:
    def contender(made: dict[str, Outcome]) -> Contender:
        return Contender(*(made[name].artifact.folder for name in ("train", "tokenize", "download")))

    alone = run(several(1), store, "train")
    verdict = judge(contender(outcomes), contender(alone), PromotionConfig(smallest_gain=0.0))
    today = verdict.tests[0]
    assert today.bits
    assert today.bits_champion
    assert today.bits < today.bits_champion


def test_patience_is_for_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="patience ends one training, not 2: set it to 0, or networks to 1"):
        several(2, patience=1)
