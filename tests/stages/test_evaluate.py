"""The evaluate stage: its figures against an independent count, what it has by heart, the baselines' cache."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from data import cores
from data.errors import Interrupted
from data.store.collect import collect
from data.store.folder import Store
from data.tables.tokens import END_ID, IndexTable, Split
from data.tables.vocab import Vocab
from stages import evaluate as module
from stages import tokenize as tokenizing
from stages.config import EvaluateConfig, PromotionConfig, StageConfig, TrainConfig
from stages.evaluate import evaluate, memorized
from stages.lm import network, stretches
from stages.lm.baselines import baselines
from stages.lm.model import LanguageModel
from stages.lm.ngram import NGram
from stages.pipeline import graph, settings
from stages.pipeline import run as pipeline
from stages.pipeline.decide import status
from stages.promotion.contender import Contender
from stages.promotion.judge import judge
from stages.report import markdown
from stages.report.gather import gather

if TYPE_CHECKING:
    from data.corpus.parts import Part
    from tests.stages.conftest import Runs, Tokenized

SAMPLE = Path(__file__).parents[2] / "data" / "corpus" / "sample.txt"
WINDOW = 16


def silent(stage: str) -> Any:
    return lambda done, total, figures: None


def outcomes(folder: Path, preset: Path, *assignments: str) -> dict[str, pipeline.Outcome]:
    chosen = settings.load(str(preset), None, assignments)
    return {outcome.name: outcome for outcome in pipeline.run(chosen, Store(folder / "store"), silent)}


def run(folder: Path, preset: Path, *assignments: str) -> dict[str, Path]:
    """The folder of each stage, and that of the baselines."""
    found = outcomes(folder, preset, *assignments)
    folders = {name: outcome.artifact.folder for name, outcome in found.items()}
    baselines = found["evaluate"].artifact.manifest.parents["baselines"]
    return {**folders, "baselines": Store(folder / "store").folder("baselines", baselines)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> Path:
    """A folder with a preset and the store of its run, windows and all."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "text.txt").write_text(tiny_text, encoding="utf-8")
    settings = tiny_settings.replace("epochs = 2", "epochs = 5") + f"window = {WINDOW}\n"
    preset = folder / "tiny.toml"
    preset.write_text(f'[download]\ncorpus = "{folder / "text.txt"}"\n{settings}', encoding="utf-8")
    outcomes(folder, preset)
    return folder


@pytest.fixture(scope="module")
def folders(finished: Path) -> dict[str, Path]:
    return run(finished, finished / "tiny.toml")


def metrics(folders: dict[str, Path]) -> dict[str, Any]:
    return json.loads((folders["evaluate"] / "metrics.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


# --- figures


def test_every_figure_is_the_mean_over_the_whole_split(folders: dict[str, Path]) -> None:
    model = LanguageModel.load(folders["train"])
    table = IndexTable.open(folders["tokenize"] / "tokens.arrow")
    counts = Counter(table.split("train").tolist())
    for name in ("train", "valid", "test"):
        ids = table.split(name).tolist()
        figures = metrics(folders)[name]
        losses = [float(loss) for chunk in model.network.losses(table.split(name)) for loss in chunk]
        assert figures["tokens"] == len(losses) == len(ids) - 1
        assert figures["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
        assert figures["bits_per_character"] == pytest.approx(figures["loss"] / math.log(2))

        baselines = metrics(folders)["baselines"]
        assert baselines["uniform"][name]["perplexity"] == pytest.approx(table.vocab_size)
        total = counts.total() + table.vocab_size
        unigram = [-math.log((counts[token] + 1) / total) for token in ids[1:]]
        assert baselines["unigram"][name]["loss"] == pytest.approx(sum(unigram) / len(unigram))
        fivegram = NGram.fit(table.split("train"), table.vocab_size).loss(table.split(name))
        assert baselines["5gram"][name]["loss"] == pytest.approx(fivegram)
        assert baselines["5gram"][name].keys() == baselines["unigram"][name].keys() < figures.keys()
    assert baselines["5gram"]["fitted_on"] == len(table.split("train"))


def test_the_state_is_carried_through_the_whole_split(folders: dict[str, Path]) -> None:
    model = LanguageModel.load(folders["train"])
    ids = IndexTable.open(folders["tokenize"] / "tokens.arrow").split("train")
    whole = model.network.loss(ids)
    middle = len(ids) // 2
    cut = (
        model.network.loss(ids[: middle + 1]) * middle + model.network.loss(ids[middle:]) * (len(ids) - 1 - middle)
    ) / (len(ids) - 1)
    assert whole != cut, "a state that starts anew in the middle shows"
    assert metrics(folders)["train"]["loss"] == pytest.approx(whole)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_where_a_split_is_cut_does_not_show(cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vocab = Vocab(["<unk>", *"abcdefg"], [1] * 8)
    config = TrainConfig(cell=cell, hidden_size=5, layers=2, initializer="uniform")
    model = LanguageModel.untrained(config, vocab, "char", "none")
    ids = np.random.default_rng(0).integers(0, 8, 100).astype(np.uint8)
    whole = np.concatenate([*model.network.losses(ids)])
    assert whole.shape == (99,)
    for rows in (1, 7, 98, 99, 100):
        monkeypatch.setattr(network, "_ROWS", rows)
        np.testing.assert_allclose(np.concatenate([*model.network.losses(ids)]), whole, rtol=2e-5)
        assert model.network.loss(ids) == pytest.approx(whole.mean(), rel=1e-5)
    monkeypatch.undo()
    for cuts in ([50], [1, 2, 98], range(10, 100, 10)):
        states = model.network.zero_state()
        parts = [
            loss
            for start, stop in itertools.pairwise([0, *cuts, 99])
            for loss in model.network.losses(ids[start : stop + 1], states)
        ]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=2e-5)


def test_with_a_window_the_state_starts_anew_in_each(folders: dict[str, Path]) -> None:
    model = LanguageModel.load(folders["train"])
    table = IndexTable.open(folders["tokenize"] / "tokens.arrow")
    for name in ("train", "valid", "test"):
        ids = table.split(name)
        windows = [ids[start : start + WINDOW + 1] for start in range(0, len(ids) - 1, WINDOW)]
        losses = [float(loss) for window in windows for chunk in model.network.losses(window) for loss in chunk]
        carried, figures = metrics(folders)[name], metrics(folders)[name]["windowed"]
        assert figures["window"] == WINDOW
        assert figures["tokens"] == len(losses) == carried["tokens"]
        assert figures["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
        assert figures["loss"] != pytest.approx(carried["loss"], rel=1e-3), "a state that starts anew shows"
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
        assert figures["bits_per_character"] == pytest.approx(figures["loss"] / math.log(2))


def test_words_are_measured_per_character_too(tmp_path: Path, tiny: Path) -> None:
    folders = run(tmp_path, tiny, "tokenize.level=word", "evaluate.window=5")
    split = IndexTable.open(folders["tokenize"] / "tokens.arrow").splits["train"]
    figures = metrics(folders)["train"]
    per_token = split.characters / len(split)
    assert 3 < per_token < 6
    assert figures["bits_per_character"] == pytest.approx(figures["loss"] / math.log(2) / per_token)
    windowed = figures["windowed"]
    assert windowed["bits_per_character"] == pytest.approx(windowed["loss"] / math.log(2) / per_token)


def test_a_vocabulary_that_throws_words_away_does_not_win(tmp_path: Path, tiny: Path) -> None:
    """And its figure is the judge's, but for the length of the first word and what was seen in training."""
    (tmp_path / "text.txt").write_text(SAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    bits, unspelled, judged = {}, {}, {}
    for min_freq in (0, 200):
        folders = run(tmp_path, tiny, "tokenize.level=word", f"tokenize.min_freq={min_freq}", "train.epochs=1")
        figures, table = metrics(folders)["test"], IndexTable.open(folders["tokenize"] / "tokens.arrow")
        bits[min_freq] = figures["bits_per_character"]
        unspelled[min_freq] = (
            figures["loss"] / math.log(2) * len(table.splits["test"]) / table.splits["test"].characters
        )

        contender = Contender(folders["train"], folders["tokenize"], folders["download"])
        (today,) = judge(contender, None, PromotionConfig()).tests
        judged[min_freq] = today.bits or math.nan
        assert bits[min_freq] == pytest.approx(judged[min_freq], rel=0.005)
        for baseline in metrics(folders)["baselines"].values():
            charged = baseline["test"]["bits_per_character"] - figures["bits_per_character"]
            plain = (baseline["test"]["loss"] - figures["loss"]) / math.log(2)
            assert charged == pytest.approx(plain * len(table.splits["test"]) / table.splits["test"].characters)
    assert figures["unknown_rate"] > 0.5
    assert bits[0] < bits[200]
    assert judged[0] < judged[200]
    assert unspelled[0] > unspelled[200]


def test_continuations_are_greedy_and_drawn_and_repeat(folders: dict[str, Path], tmp_path: Path) -> None:
    samples = json.loads((folders["evaluate"] / "samples.json").read_text(encoding="utf-8"))
    assert [sample["temperature"] for sample in samples] == [0.0, 0.7, 1.0]
    for sample in samples:
        assert sample["text"].startswith("the")
        assert len(sample["text"]) == len("the") + 8
    again = tmp_path / "again"
    again.mkdir()
    chosen = EvaluateConfig(prefixes=("the",), length=8, window=WINDOW)
    evaluate(
        chosen,
        model=folders["train"],
        tokens=folders["tokenize"],
        baselines=folders["baselines"],
        checkpoints=tmp_path / "checkpoints",
        out=again,
        progress=silent("evaluate"),
    )
    assert {path.name for path in again.iterdir()} == {"metrics.json", "samples.json"}
    for path in again.iterdir():
        assert path.read_bytes() == (folders["evaluate"] / path.name).read_bytes()


def test_where_nothing_is_said_it_goes_on_from_how_its_text_begins(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    sample = LanguageModel.sample

    def noting(model: LanguageModel, prefix: str, length: int, **options: Any) -> str:
        threads.update(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        return sample(model, prefix, length, **options)

    monkeypatch.setattr(LanguageModel, "sample", noting)
    given: dict[str, Any] = {"model": folders["train"], "tokens": folders["tokenize"]}
    given["baselines"] = folders["baselines"]
    evaluate(EvaluateConfig(), **given, checkpoints=tmp_path / "kept", out=tmp_path, progress=silent("evaluate"))
    samples = json.loads((tmp_path / "samples.json").read_text(encoding="utf-8"))
    assert [sample["prefix"] for sample in samples] == ["then the"] * 3
    assert threads == {1}, "the number of cores must not tell in what it writes"


def test_it_measures_and_tells_nothing(folders: dict[str, Path]) -> None:
    assert metrics(folders).keys() == {"train", "valid", "test", "baselines", "memorization"}
    manifest = json.loads((folders["evaluate"] / "manifest.json").read_text(encoding="utf-8"))
    modules = {name for name in manifest["components"]["code"] if name.startswith("stages/")}
    assert "stages/evaluate.py" in modules
    assert not [name for name in modules if name.split("/")[1] in ("report", "cli", "pipeline", "sweep")]


def test_a_split_too_short_to_measure_is_null(tmp_path: Path, tiny: Path) -> None:
    folders = run(
        tmp_path, tiny, "tokenize.train_share=1", "tokenize.valid_share=0", "tokenize.test_share=0", "train.epochs=1"
    )
    assert metrics(folders)["valid"] is None
    assert metrics(folders)["baselines"]["unigram"]["test"] is None
    assert metrics(folders)["baselines"]["5gram"]["test"] is None
    assert "windowed" not in metrics(folders)["train"]


def test_a_long_training_split_is_measured_on_its_end(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so are the baselines beside it, and what is unknown in it."""
    monkeypatch.setattr(tokenizing, "LONGEST", 300)
    (tmp_path / "text.txt").write_text(SAMPLE.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    found = outcomes(tmp_path, tiny, "tokenize.min_freq=120", "evaluate.window=5", "train.epochs=1")
    folders = {name: outcome.artifact.folder for name, outcome in found.items()}
    model, table = LanguageModel.load(folders["train"]), IndexTable.open(folders["tokenize"] / "tokens.arrow")
    part, figures = table.split("train")[-300:], metrics(folders)["train"]
    assert (figures["tokens"], figures["of"]) == (299, len(table.split("train")) - 1)
    assert figures["loss"] == pytest.approx(model.network.loss(part))
    assert figures["windowed"]["tokens"] == 299
    assert figures["unknown_rate"] == np.mean(part == 0) > 0.05
    text = (tmp_path / "text.txt").read_text(encoding="utf-8").lower()[: len(table.split("train"))][-300:]
    unknown = [character for character in text[1:] if character not in model.vocab.tokens]
    spelled = len(unknown) * math.log2(len(set(text) - set(model.vocab.tokens)))
    assert figures["bits_per_character"] == pytest.approx(figures["loss"] / math.log(2) + spelled / 299)
    fivegram = NGram.fit(table.split("train"), table.vocab_size).loss(part)
    assert metrics(folders)["baselines"]["5gram"]["train"]["loss"] == pytest.approx(fivegram)
    assert "of" not in metrics(folders)["test"]
    said = f"The training split is measured on its last 299 characters, of {figures['of']:,}."
    assert said in markdown.text(gather(found.values()), "")


# --- an evaluation that is interrupted


@pytest.mark.parametrize("stop", [0.2, 0.4, 0.9], ids="{:.0%}".format)
def test_an_interrupted_evaluation_goes_on_and_ends_in_the_same_bytes(
    kept: Kept, stop: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_NUMBERS", 1 << 10)  # chunks of a few dozen tokens
    other = Store(shutil.copytree(kept.folder / "store", kept.folder / "other"))
    config = settings.load(str(kept.preset), None, ["evaluate.length=9"])
    seen: list[float] = []

    def watched(name: str) -> Any:
        def progress(done: float, total: float, figures: str) -> None:
            if name == "evaluate" and total:
                seen.append(done / total)
                if done / total > stop:
                    os.kill(os.getpid(), signal.SIGTERM)

        return progress

    def raised(signum: int, frame: Any) -> None:
        raise Interrupted("enough", signum)

    before = signal.signal(signal.SIGTERM, raised)
    try:
        with pytest.raises(Interrupted):
            list(pipeline.run(config, kept.store, watched))
    finally:
        signal.signal(signal.SIGTERM, before)
    reached, seen[:] = seen[-1], []
    (checkpoints,) = (
        one for one in kept.store.folders("checkpoints") if not (other.root / "checkpoints" / one.name).exists()
    )
    stop = 2
    *_, outcome = pipeline.run(config, kept.store, watched)
    assert seen[0] > reached - 0.06, "windows are measured some hundred tokens at a time"
    assert seen[-1] == 1
    assert not checkpoints.exists()
    *_, whole = pipeline.run(config, other, silent)
    assert whole.artifact.folder.name == outcome.artifact.folder.name
    for name in ("metrics.json", "samples.json"):
        assert (outcome.artifact.folder / name).read_bytes() == (whole.artifact.folder / name).read_bytes()


# --- what it has by heart

SENTENCE = "The cat saw 7 birds over the sea, and it was not amused at all by what they sang."


def test_a_text_that_is_copied_is_all_by_heart() -> None:
    training = [SENTENCE, " ", SENTENCE.upper(), " ", SENTENCE[:30]]
    assert memorized([SENTENCE, SENTENCE.upper()[10:60]], training) == {
        "length": 40,
        "windows": len(SENTENCE) - 39 + 11,
        "share": 1.0,
    }


def test_a_text_of_its_own_is_not() -> None:
    assert memorized([SENTENCE[::-1]], [SENTENCE])["share"] == 0
    assert memorized([SENTENCE.lower()], [SENTENCE] * 3)["share"] == pytest.approx(
        (len(SENTENCE) - 40) / (len(SENTENCE) - 39)
    )
    assert memorized([SENTENCE[:39]], [SENTENCE]) == {"length": 40, "windows": 0, "share": None}
    assert memorized([], [SENTENCE])["share"] is None


def test_each_window_that_is_in_the_training_text_counts_and_no_other() -> None:
    rng = random.Random(1)
    training = "".join(rng.choices("ab", k=300))
    written = ["".join(rng.choices("ab", k=50)) + training[100:120], training[-9:], "ab" * 3]
    windows = [text[at : at + 8] for text in written for at in range(len(text) - 7)]
    expected = {"length": 8, "windows": 63 + 2, "share": sum(window in training for window in windows) / len(windows)}
    assert 0.2 < expected["share"] < 0.95
    for size in (1, 3, 7, 8, 9, 100, 300):
        pieces = [training[at : at + size] for at in range(0, len(training), size)]
        assert memorized(written, pieces, 8) == expected


@pytest.mark.parametrize(("level", "expected"), [("char", SENTENCE * 2), ("word", f"{SENTENCE} {SENTENCE} ")])
def test_the_training_text_is_read_as_the_model_would_write_it(
    level: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = list(SENTENCE) * 2 if level == "char" else SENTENCE.split() * 2
    vocab = Vocab.build(Counter(tokens))
    ids = np.array(vocab.ids([*tokens, tokens[0]]), np.uint8)
    stop = len(tokens)
    splits = {
        "train": Split(0, stop, 1, 0),
        "valid": Split(stop, stop + 1, 1, 0),
        "test": Split(stop + 1, stop + 1, 0, 0),
    }
    model = LanguageModel.untrained(TrainConfig(hidden_size=2), vocab, level, "none")
    monkeypatch.setattr(module, "_DECODED", 5)
    pieces = list(module._text(model, IndexTable(ids, splits, level, "none", "0" * 64, len(vocab))))
    assert len(pieces) == math.ceil(stop / 5)
    assert "".join(pieces) == expected


def test_a_model_of_words_that_repeats_its_text_is_found_out(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat\nsat on  the mat and\tran away. " * 60, encoding="utf-8")
    quick = ("train.optimizer=adam", "train.learning_rate=0.01", "train.epochs=10", "train.hidden_size=32")
    folders = run(tmp_path, tiny, "tokenize.level=word", *quick)
    memory = metrics(folders)["memorization"]
    assert memory["windows"] > 3000
    assert memory["share"] > 0.8


def test_a_model_that_has_learnt_nothing_has_nothing_by_heart(folders: dict[str, Path]) -> None:
    assert metrics(folders)["memorization"] == {"length": 40, "windows": 4610, "share": 0.0}


# --- the baselines' artifact


class Kept:
    """The store of the finished run, to be changed."""

    def __init__(self, finished: Path, folder: Path) -> None:
        self.folder, self.preset = folder, finished / "tiny.toml"
        shutil.copytree(finished / "store", folder / "store")

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    def run(self, *assignments: str) -> list[str]:
        """The stages that ran."""
        found = outcomes(self.folder, self.preset, *assignments)
        return [name for name, outcome in found.items() if outcome.state == "ran"]

    def baselines(self) -> list[tuple[str, str]]:
        """Key and time of making of each."""
        return [(one.manifest.key, one.manifest.created) for one in self.store.artifacts("baselines")]


@pytest.fixture
def kept(finished: Path, tmp_path: Path) -> Kept:
    return Kept(finished, tmp_path)


def test_another_model_or_other_settings_count_nothing_again(kept: Kept) -> None:
    first = kept.baselines()
    assert len(first) == 1
    assert kept.run("evaluate.length=9") == ["evaluate"]
    assert kept.run("train.hidden_size=9") == ["train", "evaluate"]
    assert kept.run("evaluate.window=0") == ["evaluate"]
    assert kept.baselines() == first
    assert kept.run("tokenize.min_freq=20") == ["tokenize", "train", "evaluate"]
    assert len(kept.baselines()) == 2
    assert kept.run() == []


@pytest.mark.parametrize("harm", ["changed", "deleted", "not in the manifest"])
def test_damaged_baselines_are_counted_again(kept: Kept, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    ((key, created),) = kept.baselines()
    folder = kept.store.folder("baselines", key)
    file = folder / "baselines.json"
    sound = file.read_bytes()
    if harm == "changed":
        file.write_bytes(sound.replace(b"1", b"2", 1))
    elif harm == "deleted":
        file.unlink()
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "outputs": {}}))
    assert kept.run() == [], "what was measured stays measured"
    assert kept.run("evaluate.length=9") == ["evaluate"]
    assert "baselines: the artifact is damaged" in caplog.text
    ((again, when),) = kept.baselines()
    assert (again, file.read_bytes()) == (key, sound)
    assert when > created


def unused(folder: Path) -> None:
    for path in (folder, folder / "manifest.json"):
        os.utime(path, (0, 0))


def test_baselines_are_collected_with_what_was_measured_beside_them(kept: Kept) -> None:
    (evaluated,) = kept.store.artifacts("evaluate")
    ((key, _),) = kept.baselines()
    for artifact in kept.store.artifacts():
        if artifact.folder != evaluated.folder:
            unused(artifact.folder)
    assert collect(kept.store, dry_run=True) == []
    unused(evaluated.folder)
    assert kept.store.folder("baselines", key) in [removal.folder for removal in collect(kept.store)]
    assert kept.baselines() == []
    assert kept.run() == graph.shown()


def test_there_are_four_stages_all_the_same(kept: Kept) -> None:
    chosen = settings.load(str(kept.preset))
    assert [state.name for state in status(chosen, kept.store)] == [
        "download",
        "tokenize",
        "train",
        "evaluate",
    ]


def test_each_document_is_measured_from_its_beginning_and_written_to_its_end(
    tokenized: Tokenized, run: Runs, tmp_path: Path
) -> None:
    documents = ["a bad cab.", "each dead bee"] * 12
    folders: dict[str, Any] = {"tokens": tokenized(tmp_path / "tokens", documents=documents)}
    folders["baselines"] = tmp_path / "baselines"
    run.on(tokens=folders["tokens"])(initializer="uniform", epochs=40)
    folders |= {"model": run.folder / "out1", "checkpoints": tmp_path / "kept", "out": tmp_path / "out"}
    for name in ("baselines", "out"):
        folders[name].mkdir()
    baselines(StageConfig(), tokens=folders["tokens"], out=folders["baselines"], progress=silent(""))
    config = EvaluateConfig(prefixes=("a b",), length=60, window=8)
    evaluate(config, **folders, progress=silent(""))
    model, measured = LanguageModel.load(folders["model"]), metrics({"evaluate": folders["out"]})
    ids = IndexTable.open(folders["tokens"] / "tokens.arrow").split("train")
    each = np.split(ids, np.flatnonzero(ids == END_ID) + 1)
    losses = [[*model.network.losses(np.array([END_ID, *one]), model.network.zero_state())] for one in each]
    expected = np.concatenate([*itertools.chain(*losses)])[1:]  # the first token of all is not predicted
    assert measured["train"]["loss"] == pytest.approx(expected.mean(), rel=1e-5)
    assert measured["train"]["tokens"] == len(ids) - 1
    [greedy, *_] = json.loads((folders["out"] / "samples.json").read_text(encoding="utf-8"))
    assert greedy["text"] == documents[0]


@pytest.mark.parametrize("documents", [1, 1_100], ids=["one text", "documents"])
def test_a_long_split_is_measured_in_stretches_by_whoever_is_there(
    documents: int, tokenized: Tokenized, run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ["a bad cab.", "each dead bee"] * (documents // 2) or [" ".join(["a bad cab.", "each dead bee"] * 550)]
    given: dict[str, Any] = {"tokens": tokenized(tmp_path / "tokens", documents=text)}
    run.on(tokens=given["tokens"])(initializer="uniform", epochs=1)
    given |= {"model": run.folder / "out1", "baselines": tmp_path / "baselines", "progress": silent("")}
    given["baselines"].mkdir()
    baselines(StageConfig(), tokens=given["tokens"], out=given["baselines"], progress=silent(""))
    monkeypatch.setattr(network, "_ROWS", 2_000)

    def made(name: str, available: int, length: int) -> bytes:
        monkeypatch.setattr(cores, "available", lambda: available)
        monkeypatch.setattr(stretches, "LENGTH", length)
        (tmp_path / name).mkdir()
        config = EvaluateConfig(prefixes=("a b",), length=5, window=3)
        evaluate(config, **given, checkpoints=tmp_path / f"{name} kept", out=tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} == {"metrics.json", "samples.json"}
        return (tmp_path / name / "metrics.json").read_bytes()

    alone = made("alone", 1, 1 << 20)
    assert made("stretches", 1, 4_000) == alone
    with monkeypatch.context() as patch:  # other processes have the sizes that are in the code
        patch.setattr(network, "_ROWS", 4096)
        assert made("two", 2, 4_000) == made("one", 1, 1 << 20)

    seen = list[int]()
    read = module._read

    def stopped(part: Part, *arguments: Any, **named: Any) -> Any:
        seen.append(part.start)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return read(part, *arguments, **named)

    monkeypatch.setattr(module, "_read", stopped)
    with pytest.raises(KeyboardInterrupt):
        made("cut", 1, 2_000)
    (tmp_path / "cut").rename(tmp_path / "gone")
    assert made("cut", 1, 2_000) == alone
    assert seen[3:5] == [seen[3]] * 2, "it goes on with the stretch at which it was interrupted"
