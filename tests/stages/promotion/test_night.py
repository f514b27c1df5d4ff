"""Nights in a row, without Prefect: what is trained on, what becomes the champion, and what is decided only once."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.errors import ConfigError, CorpusError, Interrupted, StoreError
from data.progress import LogLines
from data.store import champions
from data.store import nights as noted
from data.store.collect import collect
from data.store.folder import Store
from data.store.nights import NightRecord
from stages.config import RunConfig
from stages.pipeline import graph, settings
from stages.pipeline.run import Outcome, Walk, perform
from stages.promotion import night
from stages.promotion.contender import Contender
from stages.promotion.judge import Verdict
from stages.promotion.label import tonight
from stages.promotion.night import Night, plainly
from stages.promotion.origin import lineage

if TYPE_CHECKING:
    from tests.conftest import Handler, Server

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
        self.told: list[Any] = []
        """The verdicts that were to be reported."""

    def config(self, epochs: int, corpus: str | None = None) -> RunConfig:
        return RunConfig.model_validate(
            {
                "download": {"corpus": corpus or str(self.corpus)},
                "tokenize": {"train_share": 0.7, "valid_share": 0.1, "test_share": 0.2},
                "train": {"hidden_size": 16, "batch_size": 16, "num_steps": 20, "epochs": epochs, "engine": "bptt"},
                "evaluate": {"prefixes": ["the "], "length": 20},
            }
        )

    def walk(self, config: RunConfig) -> Walk:
        def one(name: str, upstream: Any) -> Outcome:
            return perform(name, config, upstream, self.store, LogLines(name))

        return Walk(one)

    def __call__(
        self, epochs: int, *, corpus: str | None = None, when: datetime = NIGHT, step: Any = plainly, **how: Any
    ) -> NightRecord:
        """A whole night."""
        one = Night(self.store, self.config(epochs, corpus), when=when, **how)
        ended = one.run(self.walk, step=step, report=lambda outcomes, verdict: self.told.append(verdict))
        assert noted.read(self.store, one.name)[-1] == ended
        assert ended.decision == "unchanged" or self.told[-1]["reason"] == ended.reason
        return ended

    def again(self) -> Nights:
        """The same in a process that has not looked at the store yet."""
        return Nights(self.corpus.parent)

    def promotes(self, epochs: int, **how: Any) -> str:
        """A night that promotes; the champion's key."""
        ended = self(epochs, **how)
        assert ended.decision == "promoted", ended.reason
        reign = champions.current(self.store, ended.name)
        assert reign
        assert ended.candidate
        assert (reign.reason, reign.model) == (ended.reason, ended.candidate.key)
        assert {**reign.figures, "champion": self.told[-1]["champion"]} == self.told[-1]
        return reign.model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `Nights` in which two models were trained and no night has been."""
    nights = Nights(tmp_path_factory.mktemp("trained"))
    nights.corpus.write_text(story(500), encoding="utf-8")
    for epochs in (1, BETTER):
        nights.walk(nights.config(epochs)).to(graph.LAST)
    return nights.corpus.parent


@pytest.fixture
def nights(trained: Path, tmp_path: Path) -> Nights:
    shutil.copytree(trained, tmp_path / "nights")
    return Nights(tmp_path / "nights")


def test_the_better_is_promoted_the_worse_is_not_and_nothing_is_decided_twice(nights: Nights) -> None:
    first = nights.promotes(1)
    same = nights(1)
    assert (same.decision, same.reason) == ("unchanged", f"nothing has changed: the champion {first[:16]} stays")
    second = nights.promotes(BETTER)
    worse = nights(1)
    assert worse.decision == "rejected"
    again = nights(1)
    assert again.decision == "unchanged"
    assert again.reason == f"nothing has changed: {first[:16]} was compared with this champion before: {worse.reason}"
    assert nights(BETTER).reason == f"nothing has changed: the champion {second[:16]} stays"
    assert [reign.model for reign in champions.history(nights.store)] == [first, second]
    assert [one.decision for one in noted.read(nights.store)] == [
        *("promoted", "unchanged", "promoted", "rejected", "unchanged", "unchanged")
    ]


def test_a_night_tells_whom_it_was_about_and_by_which_figures(nights: Nights) -> None:
    first = nights(1)
    assert first.champion is None
    second = nights(BETTER)
    reign = champions.history(nights.store)[0]
    assert second.champion == noted.Model(key=reign.model, since=reign.since)  # nobody left a page here
    assert {test["text"] for test in second.tests} == {"today", "champion"}
    assert second.bits is not None
    assert first.bits is not None
    assert second.bits < first.bits
    assert json.loads(json.dumps(noted.as_json(nights.store, second)))["tests"] == second.tests
    assert second.differs == {"train.epochs": (1, BETTER)}


def test_a_page_says_over_which_champion_and_all_nights_stand_on_one_page(nights: Nights) -> None:
    first = nights.promotes(1)
    assert nights.told[-1]["champion"] is None
    nights.promotes(BETTER)
    (reign, _) = champions.history(nights.store)
    assert nights.told[-1]["champion"] == {"key": first, "since": reign.since, "page": None}
    page = (nights.store.root / "index.html").read_text(encoding="utf-8")
    assert page.count("✓ promoted") == 2


def test_a_first_model_that_is_not_promoted_is_not_remembered_as_rejected(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "judge", lambda *given, **how: Verdict(False, "too little text"))
    assert [nights(1).decision for _ in range(2)] == ["rejected"] * 2
    assert champions.current(nights.store) is None


def test_what_was_withdrawn_does_not_come_back_by_itself(nights: Nights) -> None:
    first, second = nights.promotes(1), nights.promotes(BETTER)
    champions.rollback(nights.store, "it swears")
    back = nights(BETTER)
    assert back.decision == "unchanged"
    assert f"{second[:16]} was withdrawn (it swears); `rnnlm promote` would bring it back" in back.reason
    assert f"the champion {first[:16]} stays" in nights(1).reason


def test_a_corpus_that_is_not_fit_reaches_no_training(nights: Nights) -> None:
    nights.promotes(1)
    good = nights.corpus.read_text(encoding="utf-8")
    for bad, said in ((good[: len(good) // 4], "shrank from"), ("Мороз и солнце; день чудесный!\n" * 700, "CYRILLIC")):
        nights.corpus.write_text(bad, encoding="utf-8")
        with pytest.raises(CorpusError, match=said):
            nights(BETTER)
        assert (noted.read(nights.store)[-1].decision, noted.read(nights.store)[-1].candidate) == ("refused", None)
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
        nights.again()(1)
    shutil.rmtree(artifact.folder)
    with pytest.raises(StoreError, match=said % r"it is gone\): `rnnlm rollback` goes back"):
        nights.again()(1)
    assert [one.decision for one in noted.read(nights.store)] == ["promoted", "failed", "failed"]


def test_a_night_whose_champion_was_overtaken_decides_again(nights: Nights) -> None:
    nights.promotes(1)
    nights.walk(nights.config(BETTER + 1)).to("train")
    meanwhile = nights.store.artifacts("train")[0].manifest.key

    def step(name: night.Step, work: Callable[[], Any]) -> Any:
        if name == "settle":
            champions.promote(nights.store, meanwhile, "by hand", {})
        return work()

    ended = nights(BETTER, step=step)
    assert ended.champion
    assert ended.champion.key == meanwhile
    assert ended.decision == "rejected"  # the better one was trained for an epoch more
    reign = champions.current(nights.store)
    assert reign
    assert reign.model == meanwhile
    assert len(nights.told) == 2, "what was not decided is not reported"


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

    def judge(candidate: Contender, champion: Contender | None, *given: Any, **how: Any) -> Verdict:
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
    assert f"the champion {key[:16]} stays" in nights(1).reason


# --- whose corpus it is


def test_another_corpus_asks_for_a_name_of_its_own_or_for_the_others_place(nights: Nights) -> None:
    first = nights.promotes(1)
    other = nights.corpus.with_name("other.txt")
    other.write_text(story(500, seed=9), encoding="utf-8")
    said = f"was made from {nights.corpus}, and tonight's corpus is {other}: name another champion with --name"
    with pytest.raises(CorpusError, match=said):
        nights(BETTER, corpus=str(other))
    assert len(nights.store.artifacts("tokenize")) == 1, "it is refused before anything is made of it"
    assert champions.current(nights.store) == champions.history(nights.store)[0]

    theirs = nights.promotes(1, corpus=str(other), name="other")
    assert nights.promotes(BETTER) != first, "each goes its own way"
    assert nights.promotes(BETTER, corpus=str(other), name="other") != theirs
    for path in nights.store.root.rglob("*"):
        os.utime(path, (0, 0))
    collect(nights.store)
    for name in ("default", "other"):
        for reign in champions.history(nights.store, name):
            assert lineage(nights.store, reign.model), "what a champion was made from stays, whatever its name"

    record = nights.store.root / "champion.json"
    reigns = json.loads(record.read_text())
    assert [reign.pop("source") for reign in reigns["reigns"]] == [str(nights.corpus)] * 2
    record.write_text(json.dumps(reigns))  # as it was written before a reign knew its source
    with pytest.raises(CorpusError, match=f"tonight's corpus is {other}"):
        nights(1, corpus=str(other))


def test_another_corpus_may_take_the_place_where_that_is_asked_for(nights: Nights) -> None:
    nights.promotes(1)
    other = nights.corpus.with_name("other.txt")
    other.write_text(story(230, seed=9), encoding="utf-8")  # the guard would say that it shrank
    taken = nights(BETTER, corpus=str(other), other_corpus=True)
    assert taken.decision == "promoted", taken.reason
    assert f"it was made from {other}, and the champion from {nights.corpus}" in taken.reason
    assert [test["text"] for test in taken.tests] == ["today"], "it is not held to the text of the other corpus"
    with pytest.raises(CorpusError, match=f"was made from {other}, and tonight's corpus is {nights.corpus}"):
        nights(1)


def test_the_same_bytes_are_the_same_corpus_whatever_their_name(nights: Nights) -> None:
    nights.promotes(1)
    copy = shutil.copy(nights.corpus, nights.corpus.with_name("copy.txt"))
    nights.promotes(BETTER, corpus=str(copy))
    reign = champions.current(nights.store)
    assert reign
    assert reign.source == str(copy)


def test_a_night_has_no_corpus_of_its_own(nights: Nights) -> None:
    for config in (RunConfig(), RunConfig.model_validate({"train": {"hidden_size": 64}})):
        with pytest.raises(ConfigError, match=r"download\.corpus is not set"):
            Night(nights.store, config, when=NIGHT)
    assert Night(nights.store, settings.load(), when=NIGHT).name == "default", "the default preset names one"


# --- tried again, at once, and on a text that stays


def test_a_refused_night_that_is_tried_again_trains_on_what_is_there_by_then(nights: Nights, server: Server) -> None:
    good = nights.corpus.read_text(encoding="utf-8")
    sent = [good, good[: len(good) // 4], good + story(40, seed=1)]

    def answer(handler: Handler, before: int) -> None:
        handler.versioned(
            sent[before].encode(), ETag=f'"{min(before, 1)}"'
        )  # the bad one calls itself as the whole one

    address = server.route("/a", answer)
    nights.promotes(1, corpus=address)
    when = NIGHT + timedelta(days=1)
    with pytest.raises(CorpusError, match="shrank"):
        nights(BETTER, corpus=address, when=when)
    ended = nights(BETTER, corpus=address, when=when)
    assert ended.decision == "promoted", ended.reason
    (artifact,) = (made for made in nights.store.artifacts("download") if made.manifest.key == ended.download)
    assert (artifact.folder / "corpus.txt").read_text(encoding="utf-8") == sent[2]
    assert [one.get("If-None-Match") for one in server.conditions()] == [None, '"0"', '"0"']
    assert nights(BETTER, corpus=address, when=when).decision == "unchanged", "a night that was not refused is kept"
    assert len(server.asked()) == 3


def test_a_second_night_of_a_name_ends_at_once_and_one_of_another_name_does_not(nights: Nights) -> None:
    ended: list[NightRecord] = []

    def step(name: night.Step, work: Callable[[], Any]) -> Any:
        if name == "guard":
            config = nights.config(1)
            ended.extend(
                Night(nights.store, config, when=NIGHT, name=name).run(nights.walk) for name in ("default", "other")
            )
        return work()

    first = nights(1, step=step)
    assert [one.decision for one in (*ended, first)] == ["unchanged", "promoted", "promoted"]
    assert ended[0].reason == "another night is running: this one ends, and decides nothing"
    assert noted.read(nights.store) == [first], "it was none"


def test_a_reference_is_fetched_once_and_no_champion_may_get_worse_on_it(nights: Nights, server: Server) -> None:
    kept = story(120, seed=5)
    address = server.route("/a", lambda handler, before: handler.body(kept.encode(), ETag='"1"'))
    nights.promotes(1, reference=address)
    ended = nights(BETTER, reference=address, when=NIGHT + timedelta(days=1))
    assert {test["text"]: test["passed"] for test in ended.tests} == {
        "today": True,
        "champion": True,
        "reference": True,
    }
    assert len(server.asked()) == 1


def test_a_night_that_is_interrupted_is_none_and_the_next_one_runs(nights: Nights) -> None:
    def step(name: night.Step, work: Callable[[], Any]) -> Any:
        raise Interrupted("interrupted by SIGTERM", 15)

    with pytest.raises(Interrupted):
        nights(1, step=step)
    assert noted.read(nights.store) == []
    nights.promotes(1)


def test_what_cannot_be_swept_or_noted_does_not_undo_what_was_decided(
    nights: Nights, caplog: pytest.LogCaptureFixture
) -> None:
    (nights.store.root / "champions").mkdir()
    (nights.store.root / "champions" / "other.json").write_text("{")
    nights.promotes(1)
    assert "nothing was removed: " in caplog.text
    (nights.store.root / "nights" / "default.jsonl.new").mkdir()
    one = Night(nights.store, nights.config(BETTER), when=NIGHT).run(nights.walk)
    assert one.decision == "promoted"
    assert "this night is not noted: " in caplog.text


def test_from_the_third_lost_night_on_it_is_said_what_sets_their_configuration_apart(nights: Nights) -> None:
    nights.promotes(BETTER)
    reasons = [nights(1).reason for _ in range(4)]
    assert not any("in a row" in reason for reason in reasons[:2])
    for times, reason in zip((3, 4), reasons[2:], strict=True):
        assert reason.endswith(
            f"; the champion was made with train.epochs {BETTER} (tonight 1), and nights of another configuration have "
            f"lost {times} times in a row: give the nights its configuration, --set train.epochs={BETTER}, or promote "
            "one of theirs by hand with `rnnlm promote`"
        )


def test_a_night_labels_what_it_fetches_unless_it_is_labelled() -> None:
    config = tonight(RunConfig(), NIGHT)
    assert config.download.as_of == "2026-01-02T03:00:00Z"
    assert tonight(config, datetime(2027, 1, 1, tzinfo=UTC)) == config
