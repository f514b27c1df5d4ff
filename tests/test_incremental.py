"""Edit X, and exactly these stages rerun."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from data.store.folder import Store
from stages.config import RunConfig
from stages.pipeline import graph, settings
from stages.pipeline import run as pipeline
from stages.pipeline.run import Outcome
from stages.training import engines
from stages.training.builds import Build

ROOT = Path(__file__).parent.parent
STAGES = ["download", "tokenize", "train", "evaluate"]


class Workplace:
    """A copy of the project, a text, a preset and a store that holds a finished run of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = folder / "text.txt"
        self.preset = folder / "tiny.toml"
        self.store = folder / "store"

    def run(self, *arguments: str) -> dict[str, dict[str, str]]:
        """Run the copy's pipeline in a process of its own; what became of each stage."""
        environment = {**os.environ, "RNNLM_STORE": str(self.store), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "stages.cli", "run", "--json", "--preset", str(self.preset), *arguments]
        done = subprocess.run(
            command, cwd=self.folder / "project", env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / "project" / name
        source = path.read_text(encoding="utf-8")
        assert old in source, f"{name} no longer has the line that this test edits"
        path.write_text(source.replace(old, new, 1), encoding="utf-8")

    def append(self, name: str, text: str) -> None:
        with (self.folder / "project" / name).open("a", encoding="utf-8") as file:
            file.write(text)

    def artifact(self, stage: str) -> Path:
        (folder,) = (self.store / stage).iterdir()
        return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> Workplace:
    folder = tmp_path_factory.mktemp("incremental")
    for floor in ("data", "stages"):
        ignored = shutil.ignore_patterns("artifacts", "__pycache__")
        shutil.copytree(ROOT / floor, folder / "project" / floor, ignore=ignored)
    place = Workplace(folder)
    place.text.write_text(tiny_text, encoding="utf-8")
    place.preset.write_text(tiny_settings, encoding="utf-8")
    assert {stage["state"] for stage in place.run("--corpus", str(place.text)).values()} == {"ran"}
    return place


@pytest.fixture
def place(finished: Workplace, tmp_path: Path) -> Workplace:
    """The same in a folder of its own, to be edited."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    return Workplace(tmp_path)


class Row(NamedTuple):
    """Another value of a field than the finished run's."""

    value: str
    ran: list[str]
    """The stages that run."""
    also: str = ""
    """What else has to be set for it to fit."""


ENGINE = engines.installed()["bptt"]
"""The one that trains here."""
AUTO = engines.choose(RunConfig().train).name
FIELDS: dict[str, Row] = {
    "download.corpus": Row("sample", STAGES, also="tokenize.max_tokens=2000"),
    "download.encoding": Row("cp1252", ["download"]),  # the same text, which is all of ASCII
    "download.text_column": Row("body", ["download"]),  # … and no table
    "download.order_column": Row("day", ["download"]),
    "download.headers": Row("Accept: text/plain", []),  # the text is known by its content, whoever asks
    "download.as_of": Row("tonight", []),  # and whatever the day
    "tokenize.level": Row("word", STAGES[1:]),
    "tokenize.vocab_size": Row("300", STAGES[1:], also="tokenize.level=bpe"),
    "tokenize.normalizer": Row("book", STAGES[1:]),
    "tokenize.nfc": Row("true", STAGES[1:]),
    "tokenize.line_ends": Row("true", STAGES[1:], also="tokenize.level=word"),
    "tokenize.min_freq": Row("20", STAGES[1:]),
    "tokenize.max_tokens": Row("600", STAGES[1:]),
    "tokenize.fit_vocab_on": Row("all", STAGES[1:]),
    "tokenize.train_share": Row("0.7", STAGES[1:], also="tokenize.valid_share=0.2"),
    "tokenize.valid_share": Row("0.05", STAGES[1:], also="tokenize.test_share=0.15"),
    "tokenize.test_share": Row("0.2", STAGES[1:], also="tokenize.valid_share=0"),
    "tokenize.split": Row("order", STAGES[1:2]),  # of one document nothing changes
    "tokenize.split_seed": Row("1", STAGES[1:2]),
    "tokenize.end_tokens": Row("false", STAGES[1:2]),
    "tokenize.near_duplicates": Row("drop", STAGES[1:2]),
    "train.cell": Row("gru", STAGES[2:]),
    "train.activation": Row("tanh", STAGES[2:]),
    "train.hidden_size": Row("9", STAGES[2:]),
    "train.layers": Row("2", STAGES[2:]),
    "train.embedding_size": Row("4", STAGES[2:]),
    "train.tie_weights": Row("true", STAGES[2:], also="train.embedding_size=8"),
    "train.initializer": Row("uniform", STAGES[2:]),
    "train.input_dropout": Row("0.1", STAGES[2:]),
    "train.hidden_dropout": Row("0.1", ["train"]),  # of one layer the same bytes come out, and that ends the rerun
    "train.output_dropout": Row("0.1", STAGES[2:]),
    "train.weight_dropout": Row("0.1", STAGES[2:]),
    "train.variational": Row("false", ["train"]),
    "train.batch_size": Row("5", STAGES[2:]),
    "train.num_steps": Row("9", STAGES[2:]),
    "train.bptt_keep": Row("0.5", STAGES[2:]),
    "train.partition": Row("random", STAGES[2:]),
    "train.epochs": Row("3", STAGES[2:]),
    "train.max_tokens": Row("150", STAGES[2:]),
    "train.patience": Row("2", ["train"]),
    "train.optimizer": Row("adam", STAGES[2:]),
    "train.learning_rate": Row("0.5", STAGES[2:]),
    "train.schedule": Row("step", STAGES[2:], also="train.decay_epochs=1"),
    "train.warmup_epochs": Row("0.5", STAGES[2:]),
    "train.decay_epochs": Row("3", ["train"]),
    "train.decay_factor": Row("0.4", ["train"]),
    "train.weight_decay": Row("0.01", STAGES[2:]),
    "train.clip_norm": Row("0.01", STAGES[2:]),
    "train.averaging": Row("3", STAGES[2:]),
    "train.networks": Row("2", STAGES[2:]),
    "train.ngram": Row("3", STAGES[2:]),
    "train.ngram_min_count": Row("2", STAGES[2:], also="train.ngram=3"),
    "train.seed": Row("1", STAGES[2:]),
    "train.engine": Row(AUTO, [] if AUTO == "bptt" else STAGES[2:]),
    "train.device": Row("cpu", []),
    "train.precision": Row("bfloat16", STAGES[2:], also="train.engine=torch"),
    "evaluate.prefixes": Row("a cat", STAGES[3:]),
    "evaluate.length": Row("9", STAGES[3:]),
    "evaluate.temperature": Row("0.3", STAGES[3:]),
    "evaluate.seed": Row("2", STAGES[3:]),
    "evaluate.window": Row("16", STAGES[3:]),
    **{
        f"promotion.{name}": Row(value, [])  # what a night decides by, and no stage reads
        for name, value in {
            "largest_loss": "0.4",
            "largest_surprise": "0.4",
            "smallest_gain": "0.03",
            "largest_setback": "0.03",
            "confidence": "0.95",
            "block_length": "500",
            "fewest_blocks": "6",
            "most_blocks": "30",
            "fewest_characters": "1000",
        }.items()
    },
}
"""Every field of every stage, in order."""


def test_every_field_of_every_stage_has_a_row() -> None:
    sections = dict(RunConfig())
    assert list(FIELDS) == [f"{stage}.{name}" for stage, section in sections.items() for name in dict(section)]


def rerun(place: Workplace, *assignments: str, force: Collection[str] = ()) -> list[Outcome]:
    """What becomes of each stage in this process, which has loaded the project itself and not the copy."""
    corpus = None if "download.corpus=sample" in assignments else str(place.text)
    chosen = settings.load(str(place.preset), corpus, assignments)
    store = Store(place.store)
    return list(pipeline.run(chosen, store, lambda stage: lambda done, total, figures: None, force=force))


def ran(outcomes: list[Outcome]) -> list[str]:
    return [outcome.name for outcome in outcomes if outcome.state == "ran"]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_reruns_its_stage_and_what_depends_on_it(place: Workplace, field: str) -> None:
    value, expected, also = FIELDS[field]
    if "torch" in also:
        pytest.importorskip("torch", reason="torch is not installed here (requirements-torch.txt says how)")
    outcomes = rerun(place, f"{field}={value}", *filter(None, [also]))
    assert ran(outcomes) == expected
    if expected:
        first = next(outcome for outcome in outcomes if outcome.state == "ran")
        assert field in first.reason
        assert value in first.reason.lower()


@pytest.mark.parametrize("assignment", ["train.hidden_size=8", "train.learning_rate=1"])
def test_the_value_counts_and_not_how_it_is_written(place: Workplace, assignment: str) -> None:
    assert {outcome.state for outcome in rerun(place, assignment)} == {"cached"}


def file(engine: Build) -> str:
    return f"{engine.module.replace('.', '/')}.py"


def append_to(engine: Build, place: Workplace) -> None:
    place.append(file(engine), "\nNEW = 1\n")


Edit = Callable[[Workplace], object]
NOTHING: dict[str, Edit] = {
    "comment": lambda place: place.append("stages/train.py", "\n# Nothing to see here.\n"),
    "docstring": lambda place: place.edit("stages/tokenize.py", '"""', '"""Now, '),
    "the command line": lambda place: place.append("stages/cli/app.py", "\nNEW = 1\n"),
    "progress": lambda place: place.edit("data/progress.py", "BETWEEN_LINES = 10.0", "BETWEEN_LINES = 11.0"),
    "config module": lambda place: place.append("stages/config.py", "\nNEW = 1\n"),
    "the pipeline's own code": lambda place: place.append("stages/pipeline/run.py", "\nNEW = 1\n"),
    "another class of error": lambda place: place.append("data/errors.py", "\nclass NewError(RnnlmError): ...\n"),
    **{
        f"the engine {build.engine}, which has trained nothing": partial(append_to, build)
        for build in engines.installed().values()
        if build != ENGINE
    },
    # Measured anew, they are the same to the byte, and nobody is told of them.
    "the baselines' code": lambda place: place.append("stages/lm/baselines.py", "\nNEW = 1\n"),
    "what chooses the engine": lambda place: place.append("stages/training/engines.py", "\nNEW = 1\n"),
    "what knows the engines' builds": lambda place: place.append("stages/training/builds.py", "\nNEW = 1\n"),
    "what names the device": lambda place: place.append("stages/training/device.py", "\nNEW = 1\n"),
}
"""What is edited of the copy, and reruns no stage."""
CODE: list[tuple[str, Edit, list[str]]] = [
    # The output stays the same to the byte, so what comes after does not notice.
    ("download's code", lambda place: place.append("stages/download.py", "\nNEW = 1\n"), ["download"]),
    ("tokenize's code", lambda place: place.append("stages/tokenize.py", "\nNEW = 1\n"), ["tokenize"]),
    ("train's code", lambda place: place.append("stages/train.py", "\nNEW = 1\n"), ["train"]),
    ("evaluate's code", lambda place: place.append("stages/evaluate.py", "\nNEW = 1\n"), ["evaluate"]),
    ("a helper of train", lambda place: place.append("stages/training/checkpoint.py", "\nNEW = 1\n"), ["train"]),
    ("the engine", lambda place: place.append(file(ENGINE), "\nNEW = 1\n"), ["train"]),
    ("a helper of evaluate", lambda place: place.append("stages/lm/side_by_side.py", "\nNEW = 1\n"), ["evaluate"]),
    ("what mixtures count", lambda place: place.append("stages/lm/ngram.py", "\nNEW = 1\n"), ["evaluate"]),
    ("a helper of three", lambda place: place.append("data/tables/tokens.py", "\nNEW = 1\n"), STAGES[1:]),
    (
        "corpora, a helper of download",
        lambda place: place.append("data/corpus/catalogue.py", "\nNEW = 1\n"),
        ["download"],
    ),
    (
        "code that changes what comes out",
        lambda place: place.edit("data/corpus/text.py", '.replace("Σ", "σ").lower()', '.replace("Σ", "σ").upper()'),
        STAGES[1:],
    ),
    (
        "a library of three stages",
        lambda place: another_version(place, "numpy"),
        STAGES[1:],
    ),
    ("a library of one stage", lambda place: another_version(place, "safetensors"), ["train"]),
]
"""What is edited of the copy, and the stages that run."""
DATA: list[tuple[str, Edit, list[str]]] = [
    ("nothing", lambda place: None, []),
    ("corpus touched", lambda place: place.text.touch(), []),
    ("corpus rewritten with the same bytes", lambda place: place.text.write_text(place.text.read_text()), []),
    ("corpus grown", lambda place: place.text.write_text(place.text.read_text() + "And the sea was calm.\n"), STAGES),
    (
        "corpus changed in place",
        lambda place: place.text.write_text(place.text.read_text().replace("cat", "fox", 1)),
        STAGES,
    ),
    ("manifest without a file", lambda place: forget(place, "tokenize", "vocab.arrow"), ["tokenize"]),
    ("download deleted", lambda place: shutil.rmtree(place.artifact("download")), ["download"]),
    ("tokenize deleted", lambda place: shutil.rmtree(place.artifact("tokenize")), ["tokenize"]),
    ("train deleted", lambda place: shutil.rmtree(place.artifact("train")), ["train"]),
    ("evaluate deleted", lambda place: shutil.rmtree(place.artifact("evaluate")), ["evaluate"]),
    ("the baselines deleted", lambda place: shutil.rmtree(place.artifact("baselines")), []),
    ("file deleted", lambda place: (place.artifact("tokenize") / "vocab.arrow").unlink(), ["tokenize"]),
    ("manifest deleted", lambda place: (place.artifact("train") / "manifest.json").unlink(), ["train"]),
    ("manifest broken", lambda place: (place.artifact("train") / "manifest.json").write_text("{}"), ["train"]),
    ("truncated", lambda place: os.truncate(place.artifact("train") / "model.safetensors", 100), ["train"]),
    ("one bit flipped", lambda place: flip(place.artifact("tokenize") / "tokens.arrow"), ["tokenize"]),
]
"""What happens to the corpus or to the store, and the stages that run."""


def forget(place: Workplace, stage: str, name: str) -> None:
    path = place.artifact(stage) / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["outputs"][name]
    path.write_text(json.dumps(manifest), encoding="utf-8")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def another_version(place: Workplace, distribution: str) -> None:
    """Pretend that another version is installed: its metadata stands first on the copy's path."""
    folder = place.folder / "project" / f"{distribution}-99.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 99.0\n")


@pytest.mark.parametrize(("edit", "expected"), [row[1:] for row in CODE], ids=[row[0] for row in CODE])
def test_an_edit_of_the_code_reruns_exactly_what_depends_on_it(
    place: Workplace, edit: Edit, expected: list[str]
) -> None:
    edit(place)
    outcomes = place.run("--corpus", str(place.text))
    assert [name for name, outcome in outcomes.items() if outcome["state"] == "ran"] == expected


def test_edits_of_what_changes_no_result_rerun_nothing(place: Workplace) -> None:
    """All at once: what each of them would rerun, the reason names."""
    for edit in NOTHING.values():
        edit(place)
    outcomes = place.run("--corpus", str(place.text))
    assert {name: outcome["reason"] for name, outcome in outcomes.items() if outcome["state"] == "ran"} == {}


def test_an_edit_reruns_once(place: Workplace) -> None:
    place.append("stages/train.py", "\nNEW = 1\n")
    for expected in ("ran", "cached"):
        assert place.run("--corpus", str(place.text))["train"]["state"] == expected


@pytest.mark.parametrize(("edit", "expected"), [row[1:] for row in DATA], ids=[row[0] for row in DATA])
def test_what_happens_to_data_reruns_exactly_what_depends_on_it(
    place: Workplace, edit: Edit, expected: list[str]
) -> None:
    edit(place)
    assert ran(rerun(place)) == expected
    assert ran(rerun(place)) == []


def test_the_merges_of_subwords_are_in_the_keys_of_what_reads_them(place: Workplace) -> None:
    subwords, characters = ("tokenize.level=bpe", "tokenize.vocab_size=300"), place.artifact("train")
    made = {outcome.name: outcome.artifact for outcome in rerun(place, *subwords)}
    for name, before in (("train", "tokenize"), ("evaluate", "train")):
        inputs = made[name].manifest.components["inputs"]
        assert inputs[f"{before}/merges.arrow"] == made["tokenize"].sha256("merges.arrow")
    formats = [characters / "config.json", made["train"].folder / "config.json"]
    assert [json.loads(path.read_text())["format"] for path in formats] == [2, 3], "older versions know no subwords"
    (made["tokenize"].folder / "merges.arrow").unlink()
    assert ran(rerun(place, *subwords)) == ["tokenize"]


def test_the_same_text_under_another_name_is_the_same_text(place: Workplace) -> None:
    place.text = place.text.rename(place.folder / "renamed.txt")
    assert ran(rerun(place)) == []


def test_force_reruns_one_stage_and_from_all_after_it(place: Workplace) -> None:
    assert ran(rerun(place, force=graph.forced(["tokenize"]))) == ["tokenize"]
    assert ran(rerun(place, force=graph.forced([], "train"))) == ["train", "evaluate"]
    assert ran(rerun(place, force=graph.forced(["download", "evaluate"]))) == ["download", "evaluate"]


def test_outputs_are_the_same_to_the_byte_wherever_they_are_made(place: Workplace) -> None:
    other = Workplace(place.folder)
    other.store = place.folder / "other"
    other.run("--corpus", str(other.text))
    files = {
        path.relative_to(store): path.read_bytes()
        for store in (place.store, other.store)
        for path in store.rglob("*")
        if path.is_file()
        and path.parent.parent.name in (*STAGES, "baselines")
        and path.name not in ("manifest.json", "source.json")
    }
    for name, content in files.items():
        assert (place.store / name).read_bytes() == content, name
    assert {path.suffix for path in files} == {".txt", ".arrow", ".safetensors", ".json"}
