"""A network with an n-gram beside it, all the way: trained, measured, judged, swept, reported, and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data.errors import StoreError
from data.progress import LogLines
from data.store.folder import Store
from data.tables.tokens import END_ID, SPLITS, IndexTable
from stages.config import PromotionConfig, RunConfig
from stages.lm.mixture import SHARE, Mixture
from stages.lm.model import LanguageModel
from stages.lm.ngram import NGram
from stages.pipeline.run import Outcome, Walk, perform
from stages.promotion.contender import Contender, Side
from stages.promotion.judge import judge
from stages.report import markdown
from stages.report.gather import gather
from stages.report.page import html

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Rnnlm

CORPUS = Path(__file__).parents[2] / "data" / "corpus" / "sample.txt"
ORDER = 4
Folders = dict[str, Path]


def configured(corpus: Path = CORPUS, tokenize: Any = None, **train: Any) -> RunConfig:
    small = {"cell": "gru", "hidden_size": 24, "batch_size": 16, "num_steps": 20, "epochs": 2, "ngram": ORDER}
    small |= {"engine": "bptt", "initializer": "uniform", "optimizer": "adam", "learning_rate": 0.02}
    shares = {"train_share": 0.8, "valid_share": 0.1, "test_share": 0.1}
    return RunConfig.model_validate(
        {
            "download": {"corpus": str(corpus)},
            "tokenize": shares | (tokenize or {}),
            "train": small | train,
            "evaluate": {"prefixes": ["the "], "window": 32},
        }
    )


def run(config: RunConfig, store: Store, until: str = "evaluate") -> dict[str, Outcome]:
    walk = Walk(lambda name, upstream: perform(name, config, upstream, store, LogLines(name)))
    return {outcome.name: outcome for outcome in walk.steps(until)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("mixtures") / "store")


@pytest.fixture(scope="module")
def outcomes(store: Store) -> dict[str, Outcome]:
    return run(configured(), store)


@pytest.fixture(scope="module")
def folders(outcomes: dict[str, Outcome]) -> Folders:
    return {name: outcome.artifact.folder for name, outcome in outcomes.items()}


def table(folders: Folders) -> IndexTable:
    return IndexTable.open(folders["tokenize"] / "tokens.arrow")


def figures(folders: Folders) -> dict[str, Any]:
    return json.loads((folders["evaluate"] / "metrics.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def mixture(model: LanguageModel) -> Mixture:
    assert isinstance(model.predictor, Mixture)
    return model.predictor


def test_every_split_is_measured_without_having_been_counted(folders: Folders) -> None:
    model, tokens, measured = LanguageModel.load(folders["train"]), table(folders), figures(folders)
    ours, shares = mixture(model), mixture(model).shares.tolist()

    def of(name: str, counted: slice) -> tuple[float, float, float]:
        ids, ngram = tokens.split(name), NGram.fit(tokens.ids[counted], tokens.vocab_size, ORDER)
        both = Mixture(model.network, ngram, shares).loss(ids)
        return both, model.network.loss(ids), float(ngram.read(ids, ngram.zero_state())[0].mean())

    trained, both = slice(tokens.splits["train"].stop), slice(tokens.splits["valid"].stop)
    for name, counted in {"train": both, "valid": trained, "test": both}.items():
        row, parts = measured[name], measured[name]["parts"]
        found = row["loss"], parts["network"]["loss"], parts["ngram"]["loss"]
        assert found == pytest.approx(of(name, counted), rel=1e-6)
    assert measured["test"]["parts"]["before"]["loss"] == pytest.approx(of("test", trained)[0], rel=1e-6)
    assert measured["test"]["parts"].keys() == {"network", "ngram", "before"} > measured["valid"]["parts"].keys()
    assert model.held_out(tokens.split("train")).loss(tokens.split("valid")) == pytest.approx(measured["valid"]["loss"])
    test = tokens.split("test")
    windows = np.concatenate([*ours.windowed_losses(test, 32)])
    assert measured["test"]["windowed"]["loss"] == pytest.approx(windows.mean(), rel=1e-6)
    assert measured["valid"]["loss"] < min(part["loss"] for part in measured["valid"]["parts"].values())
    assert measured["test"]["loss"] < measured["test"]["parts"]["before"]["loss"]


def test_what_lies_in_its_folder_is_all_that_it_takes(folders: Folders, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "vocab.arrow", "ngrams.arrow"):
        shutil.copyfile(folders["train"] / name, tmp_path / name)
    model = LanguageModel.load(tmp_path)
    alone = LanguageModel.load(folders["train"])
    assert model.sample("the ", 80, 0.8, seed=3) == alone.sample("the ", 80, 0.8, seed=3)
    assert [*model.samples("the ", 80, 0.8, range(5))] == [
        model.sample("the ", 80, 0.8, seed=seed) for seed in range(5)
    ]
    ids = table(folders).split("test")
    text = model.vocab.decode(ids.tolist(), model.kind)
    assert model.score(text).loss == pytest.approx(figures(folders)["test"]["loss"], rel=1e-5)
    said = [nats for _, nats in model.log_probabilities(text)]
    assert -np.mean(said) == pytest.approx(figures(folders)["test"]["loss"], rel=1e-5)


def test_another_order_trains_no_network_again(store: Store, folders: Folders, outcomes: dict[str, Outcome]) -> None:
    other = run(configured(ngram=3), store, "train")["train"]
    assert other.state == "ran"
    assert "tokens_per_second" not in other.artifact.manifest.timing, "nothing was left to train"
    weights = [one.artifact.manifest.outputs["model.safetensors"] for one in (other, outcomes["train"])]
    assert weights[0] == weights[1]
    described = json.loads((other.artifact.folder / "config.json").read_text(encoding="utf-8"))
    assert (described["format"], described["mixture"]["order"], len(described["mixture"]["shares"])) == (5, 3, 3)
    plain = run(configured(ngram=0), store, "train")["train"].artifact
    assert not (plain.folder / "ngrams.arrow").exists()
    assert "mixture" not in json.loads((plain.folder / "config.json").read_text(encoding="utf-8"))


def test_the_same_gives_the_same_bytes(folders: Folders, tmp_path: Path) -> None:
    again = run(configured(), Store(tmp_path / "store"), "train")["train"].artifact.folder
    for name in ("ngrams.arrow", "config.json"):
        assert (again / name).read_bytes() == (folders["train"] / name).read_bytes()


def test_a_validation_split_that_is_too_short_chooses_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    shares = {"train_share": 0.9, "valid_share": 0.001, "test_share": 0.099}
    with caplog.at_level("WARNING"):
        model = run(configured(tokenize=shares), store, "train")["train"].artifact.folder
    assert "too few to choose by how much the network counts for and the n-gram: both count alike" in caplog.text
    assert json.loads((model / "config.json").read_text())["mixture"]["shares"] == [SHARE] * ORDER
    without = run(configured(tokenize={"train_share": 0.9, "valid_share": 0.0, "test_share": 0.1}), store)
    measured = figures({name: outcome.artifact.folder for name, outcome in without.items()})
    assert measured["valid"] is None
    assert measured["test"]["parts"].keys() == {"network", "ngram"}


def test_an_order_beyond_the_text_is_what_the_text_has(store: Store, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("abracadabra " * 40, encoding="utf-8")
    config = configured(tmp_path / "short.txt", ngram=16, batch_size=2, num_steps=5)
    model = run(config, store)["train"].artifact.folder
    assert len(mixture(LanguageModel.load(model)).shares) == 16


@pytest.mark.parametrize(
    "tokenize",
    [{"level": "word", "min_freq": 2}, {"level": "bpe", "vocab_size": 300}, {"level": "letter", "normalizer": "none"}],
    ids=str,
)
def test_words_and_subwords_work_as_characters_do(tokenize: dict[str, Any], store: Store) -> None:
    found = {name: one.artifact.folder for name, one in run(configured(tokenize=tokenize, ngram=3), store).items()}
    measured, model = figures(found), LanguageModel.load(found["train"])
    assert measured["valid"]["loss"] < min(part["loss"] for part in measured["valid"]["parts"].values()) + 1e-6
    assert measured["test"]["loss"] == pytest.approx(model.predictor.loss(table(found).split("test")), rel=1e-5)
    text = "the harbour was dark and the boats lay still"
    assert model.score(text).loss == pytest.approx(-np.mean([nats for _, nats in model.log_probabilities(text)]))
    assert model.sample("the ", 30, 0.8).startswith("the")


def test_each_document_is_predicted_from_its_beginning(store: Store, tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    lines = [line for line in CORPUS.read_text(encoding="utf-8").split("\n") if len(line) > 60]
    for number, line in enumerate(lines):
        (tmp_path / "lines" / f"{number:03}.txt").write_text(line, encoding="utf-8")
    found = {name: one.artifact.folder for name, one in run(configured(tmp_path / "lines"), store).items()}
    model, ids = LanguageModel.load(found["train"]), table(found).split("test")
    each = np.split(ids, np.flatnonzero(ids == END_ID) + 1)[:-1]
    assert len(each) > 5
    behind_an_end = (np.array([END_ID, *one], np.uint8) for one in each)
    alone = [np.concatenate([*model.predictor.losses(one, model.predictor.zero_state())]) for one in behind_an_end]
    assert figures(found)["test"]["loss"] == pytest.approx(np.concatenate(alone)[1:].mean(), rel=1e-5)
    assert "\n" not in model.sample("", 400, 1.0, seed=1)


# --- who asks nothing else


@pytest.fixture
def contender(folders: Folders) -> Callable[..., Contender]:
    return lambda model=folders["train"]: Contender(model, folders["tokenize"], folders["download"])


def test_the_judge_takes_it_for_what_it_says_and_for_what_it_knows(
    store: Store, folders: Folders, contender: Callable[..., Contender]
) -> None:
    plain = contender(run(configured(ngram=0), store, "train")["train"].artifact.folder)
    rule = PromotionConfig()
    verdict = judge(contender(), plain, rule)
    today = verdict.tests[0]
    assert verdict.promoted, verdict.reason
    measured = figures(folders)["test"]
    expected = [one["bits_per_character"] for one in (measured, measured["parts"]["network"])]
    assert (today.bits, today.bits_champion) == pytest.approx(expected, rel=2e-3)
    assert (Side(contender()).learnt, Side(plain).learnt) == (("train", "valid"), ("train",))
    other = contender(run(configured(ngram=3), store, "train")["train"].artifact.folder)
    assert "the same weights" not in judge(other, contender(), rule).reason
    assert "the same weights" in judge(contender(), contender(), rule).reason


def test_a_text_that_only_its_n_gram_has_counted_is_not_unseen(folders: Folders, store: Store, tmp_path: Path) -> None:
    tokens, text = table(folders), CORPUS.read_text(encoding="utf-8")
    counted = text[tokens.splits["valid"].start : tokens.splits["valid"].stop]
    (tmp_path / "again.txt").write_text(text[: tokens.splits["train"].stop] + counted + counted, encoding="utf-8")
    shares = {"train_share": 0.8, "valid_share": 0.1, "test_share": 0.1}
    challenger = run(configured(tmp_path / "again.txt", shares, ngram=0), store, "train")
    ours = Contender(*(challenger[name].artifact.folder for name in ("train", "tokenize", "download")))
    theirs = Contender(folders["train"], folders["tokenize"], folders["download"])
    today = judge(ours, theirs, PromotionConfig()).tests[0]
    assert today.left_out > 0.9 * len(counted)
    assert "unseen characters" in today.reason


def test_the_report_shows_its_parts(outcomes: dict[str, Outcome]) -> None:
    report = gather(outcomes.values())
    said = markdown.text(report, "")
    assert "beside an n-gram of order 4, trained for 2 epochs" in said
    assert "| its network | its 4-gram | 5-gram | unigram | uniform |" in said
    assert "The last five columns are perplexities too." in said
    assert "It mixes a network with an n-gram of order 4 (modified Kneser-Ney). The network counts for " in said
    assert "Then the n-gram counted the validation split as well" in said
    page = html(report)
    assert page.count("its 4-gram") == 4
    assert "It mixes a network with an n-gram" in page


def test_a_report_of_figures_that_lack_its_parts_does_without(outcomes: dict[str, Outcome]) -> None:
    report = gather(outcomes.values())
    metrics = {name: (row and row | {"parts": None}) if name in SPLITS else row for name, row in report.metrics.items()}
    report = replace(report, metrics=metrics)
    said = markdown.text(report, "")
    assert "It mixes a network with an n-gram of order 4" in said
    for absent in ("its network", "its 4-gram", "counted the validation split as well"):
        assert absent not in said
        assert absent not in html(report)


def test_a_damaged_or_foreign_n_gram_is_refused_by_name(folders: Folders, store: Store, tmp_path: Path) -> None:
    shutil.copytree(folders["train"], tmp_path / "model", ignore=shutil.ignore_patterns("manifest.json"))
    path = tmp_path / "model" / "ngrams.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"ngrams\.arrow .*: train again"):
        LanguageModel.load(tmp_path / "model")
    NGram.fit(np.zeros(50, np.uint8), 9, 2).write(path)
    with pytest.raises(StoreError, match=r"ngrams\.arrow .*: train again"):
        LanguageModel.load(tmp_path / "model")
    path.unlink()
    with pytest.raises(StoreError, match=r"ngrams\.arrow .*: train again"):
        LanguageModel.load(tmp_path / "model")


def test_a_sweep_chooses_by_what_is_held_out(here: Rnnlm, tmp_path: Path) -> None:
    settings = ("train.hidden_size=8", "train.epochs=1", "train.engine=bptt", "tokenize.max_tokens=8000")
    options = [part for one in settings for part in ("--set", one)]
    done = here("sweep", "--preset", "sample", *options, "--vary", "train.ngram=0,5", "--keep", "1", "--json")
    trials = json.loads(done.stdout)["trials"]
    assert [trial["values"] for trial in trials] == [{"train.ngram": 5}, {"train.ngram": 0}]
    assert trials[0]["bits_per_character"] < trials[1]["bits_per_character"]
