"""Nights in a row, without Prefect: what is trained on, what becomes the champion, and what is decided only once."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from data.errors import CorpusError, StoreError
from data.progress import LogLines
from data.store import champions
from data.store.folder import Store
from stages.config import PromotionConfig, RunConfig
from stages.pipeline import graph
from stages.pipeline.run import Outcome, Walk, perform
from stages.promotion import night
from stages.promotion.contender import Contender
from stages.promotion.judge import Verdict
from stages.promotion.night import Night, corpus_stage, lineage, tonight

NIGHT = datetime(2026, 1, 2, 3, tzinfo=UTC)
WORDS = [
    *("sea", "tide", "keeper", "island", "cable", "pencil", "night", "clerk", "rose"),
    *("wall", "boat", "letter", "drum", "storm", "lamp", "stone", "bread", "window"),
]
BETTER = 8
"""Epochs after which a model is better than after one by more than chance."""


def story(sentences: int, seed: int = 0) -> str:
    """Sentences of words in no order, so that hardly any 50 characters in a row come twice."""
    draw = random.Random(seed)
    return "".join(f"The {' '.join(draw.choices(WORDS, k=draw.randint(5, 12)))}.\n" for _ in range(sentences))


class Nights:
    """A corpus that may change from night to night, and a store."""

    def __init__(self, folder: Path) -> None:
        self.corpus, self.store = folder / "story.txt", Store(folder / "store")

    def walk(self, epochs: int) -> Walk:
        config = RunConfig.model_validate(
            {
                "download": {"corpus": str(self.corpus)},
                "tokenize": {"train_share": 0.7, "valid_share": 0.1, "test_share": 0.2},
                "train": {"hidden_size": 16, "batch_size": 16, "num_steps": 20, "epochs": epochs, "device": "cpu"},
                "evaluate": {"prefixes": ["the "], "length": 20},
            }
        )

        def one(name: str, upstream: Any) -> Outcome:
            return perform(name, tonight(config, NIGHT), upstream, self.store, LogLines(name))

        return Walk(one)

    def __call__(self, epochs: int) -> Verdict | str:
        """A whole night: its verdict, or what was known before."""
        one, walk = Night(self.store), self.walk(epochs)
        walk.to(corpus_stage())
        one.check(walk.artifacts, 0.5)
        walk.to(graph.LAST)
        if known := one.known(walk.artifacts):
            return known
        verdict = one.judge(walk.artifacts)
        one.settle(walk.artifacts, verdict)
        assert one.collect() == [], "all of it was used tonight"
        return verdict

    def promotes(self, epochs: int) -> str:
        """A night that promotes; the champion's key."""
        verdict = self(epochs)
        assert isinstance(verdict, Verdict)
        assert verdict.promoted, verdict.reason
        reign = champions.current(self.store)
        assert reign
        assert (reign.reason, reign.figures) == (verdict.reason, verdict.json())
        return reign.model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `Nights` in which two models were trained and no night has been."""
    nights = Nights(tmp_path_factory.mktemp("trained"))
    nights.corpus.write_text(story(500), encoding="utf-8")
    for epochs in (1, BETTER):
        nights.walk(epochs).to(graph.LAST)
    return nights.corpus.parent


@pytest.fixture
def nights(trained: Path, tmp_path: Path) -> Nights:
    shutil.copytree(trained, tmp_path / "nights")
    return Nights(tmp_path / "nights")


def test_the_better_is_promoted_the_worse_is_not_and_nothing_is_decided_twice(nights: Nights) -> None:
    first = nights.promotes(1)
    assert nights(1) == f"the champion {first[:16]} stays"
    second = nights.promotes(BETTER)
    verdict = nights(1)
    assert isinstance(verdict, Verdict)
    assert not verdict.promoted
    assert nights(1) == f"{first[:16]} was compared with this champion before: {verdict.reason}"
    assert nights(BETTER) == f"the champion {second[:16]} stays"
    assert [reign.model for reign in champions.history(nights.store)] == [first, second]


def test_a_first_model_that_is_not_promoted_is_not_remembered_as_rejected(nights: Nights) -> None:
    one, walk = Night(nights.store), nights.walk(1)
    walk.to(graph.LAST)
    one.settle(walk.artifacts, Verdict(False, "too little text"))
    assert one.known(walk.artifacts) == ""
    assert champions.current(nights.store) is None


def test_what_was_withdrawn_does_not_come_back_by_itself(nights: Nights) -> None:
    first, second = nights.promotes(1), nights.promotes(BETTER)
    champions.rollback(nights.store, "it swears")
    assert nights(BETTER) == f"{second[:16]} was withdrawn (it swears); `rnnlm promote` would bring it back"
    assert nights(1) == f"the champion {first[:16]} stays"


def test_a_corpus_that_is_not_fit_reaches_no_training(nights: Nights) -> None:
    nights.promotes(1)
    good = nights.corpus.read_text(encoding="utf-8")
    for bad, said in ((good[: len(good) // 4], "shrank from"), ("Мороз и солнце; день чудесный!\n" * 700, "CYRILLIC")):
        nights.corpus.write_text(bad, encoding="utf-8")
        with pytest.raises(CorpusError, match=said):
            nights(BETTER)
    assert len(nights.store.artifacts("tokenize")) == 1
    nights.corpus.write_text(good, encoding="utf-8")
    nights.promotes(BETTER)


@pytest.mark.parametrize("stage", ["train", "tokenize", "download"])
def test_a_champion_that_cannot_be_compared_with_is_for_a_person_to_decide(nights: Nights, stage: str) -> None:
    key = nights.promotes(1)
    (artifact,) = (found for found in lineage(nights.store, key) if found.manifest.stage == stage)
    said = rf"nothing can be compared with the champion {key[:16]}, for its {stage} artifact cannot be used \(%s"
    file = sorted(artifact.manifest.outputs)[0]
    with (artifact.folder / file).open("ab") as damaged:
        damaged.write(b"!")
    with pytest.raises(StoreError, match=said % f"{file} has"):
        Night(Store(nights.store.root))
    shutil.rmtree(artifact.folder)
    with pytest.raises(StoreError, match=said % r"it is gone\): `rnnlm rollback` goes back"):
        Night(Store(nights.store.root))


def test_whoever_became_champion_meanwhile_stays_it(nights: Nights) -> None:
    first = nights.promotes(1)
    one, walk = Night(nights.store), nights.walk(BETTER)
    walk.to(graph.LAST)
    verdict = one.judge(walk.artifacts)
    assert verdict.promoted
    nights.walk(BETTER + 1).to("train")
    meanwhile = nights.store.artifacts("train")[0].manifest.key
    champions.promote(nights.store, meanwhile, "by hand", {})
    with pytest.raises(StoreError, match=f"compared with {first[:16]}, which is no longer the champion"):
        one.settle(walk.artifacts, verdict)
    reign = champions.current(nights.store)
    assert reign
    assert reign.model == meanwhile


def test_a_stage_before_training_is_followed_and_a_champion_made_without_it_is_compared_with(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.promotes(1)

    def sift(config: Any, *, tokens: Path, out: Path, progress: Any) -> None:
        for name in ("tokens.arrow", "vocab.arrow"):
            shutil.copy(tokens / name, out)

    sift.__module__ = "stages.tokenize"  # a stage's code is a module of the project
    train = graph.STAGES["train"]
    read = train.inputs["tokens"].files
    stages = {
        **graph.STAGES,
        "sift": graph.Stage("sift", "Sift.", sift, inputs={"tokens": graph.Input("tokenize", read)}),
        "train": replace(train, inputs={"tokens": graph.Input("sift", read)}),
    }
    monkeypatch.setattr(graph, "STAGES", stages)
    compared: list[tuple[Contender, Contender | None]] = []

    def judge(candidate: Contender, champion: Contender | None, rule: PromotionConfig) -> Verdict:
        compared.append((candidate, champion))
        return Verdict(True, "it is another")

    monkeypatch.setattr(night, "judge", judge)
    key = nights.promotes(1)
    ((candidate, champion),) = compared
    assert champion
    assert (candidate.tokens.parent.name, champion.tokens.parent.name) == ("sift", "tokenize")
    assert candidate.corpus == champion.corpus
    assert [artifact.manifest.stage for artifact in lineage(nights.store, key)] == [
        *("train", "sift", "tokenize", "download")
    ]
    assert nights(1) == f"the champion {key[:16]} stays"


def test_a_night_labels_what_it_fetches_unless_it_is_labelled() -> None:
    config = tonight(RunConfig(), NIGHT)
    assert config.download.as_of == "2026-01-02T03:00:00Z"
    assert tonight(config, datetime(2027, 1, 1, tzinfo=UTC)) == config
