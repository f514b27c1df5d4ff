"""The search: rungs, what is compared and how, and trials that fail."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import ConfigError, RnnlmError, TrainingError
from data.progress import Progress
from data.store.folder import Store
from stages.config import RunConfig, StageConfig
from stages.pipeline import graph
from stages.pipeline import run as pipeline
from stages.pipeline.graph import Input, Stage
from stages.sweep import worker
from stages.sweep.search import prepare, rungs
from stages.sweep.trial import Trial
from stages.sweep.worker import Answer, Job

Make = Callable[..., list[Trial]]
Walk = Callable[[RunConfig], pipeline.Walk]


@pytest.mark.parametrize(
    ("trials", "epochs", "keep", "expected"),
    [
        (8, 40, 0.5, [(8, 10), (4, 20), (2, 40)]),
        (20, 100, 0.5, [(20, 10), (10, 20), (5, 40), (3, 67), (2, 100)]),
        (9, 90, 1 / 3, [(9, 20), (3, 60), (2, 90)]),
        (5, 100, 0.1, [(5, 40), (2, 100)]),
        (8, 100, 0, [(8, 25), (2, 100)]),
        (8, 100, 1, [(8, 100)]),
        (2, 100, 0.5, [(2, 100)]),
        (1, 100, 0.5, [(1, 100)]),
        (20, 2, 0.5, [(20, 1), (10, 2)]),  # a rung has an epoch at least
        (20, 1, 0.5, [(20, 1)]),
    ],
)
def test_rungs(trials: int, epochs: int, keep: float, expected: list[tuple[int, int]]) -> None:
    found = rungs(trials, epochs, keep)
    assert [(rung.trials, math.ceil(epochs * rung.fraction)) for rung in found] == expected


# --- what is compared


def test_keep_1_stops_none(sweep: Make) -> None:
    told: list[Job] = []

    def workers(jobs: Sequence[Job]) -> Iterator[tuple[int, Answer]]:
        told.extend(jobs)
        return ((position, worker.train(job)) for position, job in enumerate(jobs))

    ranked = sweep("train.learning_rate=0.01,0.1,0.5", settings=["train.epochs=3"], keep=1, workers=workers)
    # A job is a command's argument, and an address may hold a secret.
    assert {json.loads(job.config)["download"]["corpus"] for job in told} == {"sample"}
    assert [trial.reason for trial in ranked] == ["trained to the end"] * 3
    assert [len(trial.curve) for trial in ranked] == [3] * 3
    assert [trial.bits for trial in ranked] == sorted(trial.bits for trial in ranked)


def test_what_is_ranked_is_what_evaluate_says_of_the_whole_split(sweep: Make, walk: Walk) -> None:
    vary = ["train.batch_size=1,4,16", "tokenize.min_freq=0,20"]
    ranked = sweep(*vary, settings=["train.epochs=1", "train.num_steps=4", "evaluate.length=1"], keep=1)
    figures = []
    for trial in ranked:
        evaluated = walk(trial.config).to("evaluate").folder
        figures.append(json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))["valid"])
    assert [trial.bits for trial in ranked] == pytest.approx([valid["bits_per_character"] for valid in figures], 1e-12)
    assert [trial.bits for trial in ranked] == sorted(trial.bits for trial in ranked)
    assert [trial.json()["unknown_rate"] for trial in ranked] == [valid["unknown_rate"] for valid in figures]
    for trial in ranked:
        assert trial.curve[-1] == pytest.approx(trial.bits, abs=1e-4), "the curve ends where the table lies"


def test_a_vocabulary_gains_nothing_by_what_it_throws_away(sweep: Make) -> None:
    settings = ["tokenize.level=word", "train.epochs=4", "train.num_steps=4"]
    best, poor = sweep("tokenize.min_freq=0,30", settings=settings)
    assert poor.values == {"tokenize.min_freq": 30}
    assert poor.valid
    assert poor.valid.unknown_rate > 0.7
    assert poor.perplexity < best.perplexity, "which is per token, and says nothing of the text"


DIFFERENT = [
    ("tokenize.level=char,word", "tokenize.level=char and tokenize.level=word"),
    ("tokenize.normalizer=lower,none", "tokenize.normalizer=lower and tokenize.normalizer=none"),
    ("tokenize.max_tokens=0,800", "tokenize.max_tokens=0 and tokenize.max_tokens=800"),
    ("download.corpus=sample,timemachine.txt", "download.corpus=sample and download.corpus="),
]


@pytest.mark.parametrize(("vary", "named"), DIFFERENT, ids=[vary for vary, _ in DIFFERENT])
def test_trials_of_different_texts_are_refused_before_any_is_trained(
    trials: Make, walk: Walk, store: Store, tmp_path: Path, tiny_text: str, vary: str, named: str
) -> None:
    other = tmp_path / "timemachine.txt"
    other.write_text(tiny_text.upper(), encoding="utf-8")
    made = trials("train.hidden_size=4,8", vary.replace("timemachine.txt", str(other)))
    with pytest.raises(ConfigError, match=r"different validation texts.*out of what varies") as caught:
        prepare(made, walk)
    assert named in str(caught.value)
    assert "hidden_size" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not store.artifacts("train")


def test_texts_are_told_apart_by_what_they_are_and_not_by_which_fields_vary(
    trials: Make, walk: Walk, tmp_path: Path, tiny_text: str
) -> None:
    same = tmp_path / "same.txt"
    same.write_text(tiny_text, encoding="utf-8")
    made = trials(
        "tokenize.max_tokens=0,99999", "tokenize.fit_vocab_on=train,all", f"download.corpus={same},{tmp_path}/text.txt"
    )
    prepare(made, walk)
    assert [trial.state for trial in made] == ["finished"] * 8


def test_a_trial_that_its_patience_ended_counts_with_its_best_epoch(sweep: Make) -> None:
    (trial,) = sweep("train.learning_rate=4", settings=["train.epochs=90", "train.patience=1"])
    assert trial.reason == "ended by its patience"
    assert len(trial.curve) < 90
    assert min(trial.curve) == trial.curve[-2] == pytest.approx(trial.bits, abs=1e-4)


def test_what_they_are_trained_on_is_made_once_for_all_that_share_it(trials: Make, walk: Walk) -> None:
    made = trials("train.cell=rnn,gru", "tokenize.min_freq=0,2")
    walks: list[RunConfig] = []

    def counted(config: RunConfig) -> pipeline.Walk:
        walks.append(config)
        return walk(config)

    prepare(made, counted)
    assert [config.tokenize.min_freq for config in walks] == [0, 2]
    keys = [trial.upstream["tokenize"] for trial in made]
    assert keys[0] == keys[2] != keys[1] == keys[3]


def test_vocabularies_of_subwords_are_measured_on_the_same_text_and_compare(trials: Make, walk: Walk) -> None:
    made = trials("tokenize.vocab_size=260,300", settings=["tokenize.level=bpe"])
    prepare(made, walk)
    assert [trial.state for trial in made] == ["finished"] * 2
    few, many = (trial.valid for trial in made)
    assert few
    assert many
    assert len(few) > len(many)
    assert few.characters == many.characters


def reverse(config: StageConfig, *, tokens: Path, out: Path, progress: Progress) -> None:
    """A fifth stage, between tokenize and train."""
    for name in ("tokens.arrow", "vocab.arrow"):
        shutil.copy(tokens / name, out / name)


def test_a_stage_before_training_is_run_by_a_sweep_that_does_not_name_it(
    sweep: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("tokens.arrow", "vocab.arrow")
    fifth = Stage("reverse", "Change the ids.", reverse, inputs={"tokens": Input("tokenize", files)})
    monkeypatch.setitem(graph.STAGES, "reverse", fifth)
    train = replace(graph.STAGES["train"], inputs={"tokens": Input("reverse", files)})
    monkeypatch.setitem(graph.STAGES, "train", train)
    (trial,) = sweep("train.hidden_size=4", settings=["train.epochs=1"])
    assert trial.upstream.keys() == {"reverse"}
    model = store.find("train", trial.model)
    assert model is not None
    assert model.manifest.parents == trial.upstream


# --- trials that fail


def test_a_trial_that_cannot_be_trained_comes_last_and_the_sweep_goes_on(sweep: Make) -> None:
    best, *failed = sweep("train.learning_rate=1e30,0.5", "train.num_steps=8,5000")
    assert best.values == {"train.learning_rate": 0.5, "train.num_steps": 8}
    assert best.state == "finished"
    assert [trial.state for trial in failed] == ["failed"] * 3
    reasons = {tuple(trial.values.values()): trial.reason for trial in failed}
    assert "no longer finite" in reasons[1e30, 8]
    assert "train.num_steps to at most" in reasons[0.5, 5000]
    assert [trial.json()["bits_per_character"] for trial in failed] == [None] * 3
    assert not any(trial.model for trial in failed)


def test_a_trial_whose_process_dies_is_listed_and_the_sweep_goes_on(sweep: Make) -> None:
    def workers(jobs: Sequence[Job]) -> Iterator[tuple[int, Answer]]:
        yield 1, Answer(error="TrainingError", sentence="its process was ended by SIGKILL")
        yield 0, worker.train(jobs[0])

    best, dead = sweep("train.hidden_size=4,8", workers=workers)
    assert (best.values, best.state) == ({"train.hidden_size": 4}, "finished")
    assert (dead.state, dead.reason) == ("failed", "its process was ended by SIGKILL")


def test_that_none_can_be_trained_is_one_sentence_though_more_rungs_were_to_come(sweep: Make) -> None:
    def workers(jobs: Sequence[Job]) -> Iterator[tuple[int, Answer]]:
        assert len(jobs) == 4, "the first rung is the last"
        for position, _ in enumerate(jobs):
            yield position, Answer(error="TrainingError", sentence="it burst")

    with pytest.raises(TrainingError, match="none of the trials could be trained; the first: it burst"):
        sweep("train.hidden_size=1,2,3,4", settings=["train.epochs=4"], workers=workers)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["tokenize.valid_share=0", "tokenize.test_share=0.2"], "set a larger tokenize.valid_share"),
        (["download.corpus=nowhere.txt"], "nowhere.txt"),
    ],
    ids=["no validation split", "no text"],
)
def test_that_nothing_can_be_compared_is_one_sentence(
    trials: Make, walk: Walk, store: Store, settings: list[str], said: str
) -> None:
    with pytest.raises(RnnlmError) as caught:
        prepare(trials("train.hidden_size=4,8", settings=settings), walk)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not store.artifacts("train")
