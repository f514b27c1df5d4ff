"""What each stage's key covers: exactly these files of the project, so that a review sees what an import costs.

And a stage loads nothing else: whatever it runs of this project can make it rerun.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.store import fingerprint
from data.store.artifact import Artifact
from data.store.folder import Store
from stages.config import TrainConfig
from stages.pipeline import graph, lend, settings
from stages.pipeline.run import Outcome, Walk, perform
from stages.training import engines

if TYPE_CHECKING:
    from stages.pipeline.decide import Upstream

ROOT = Path(__file__).parent.parent

CLOSURES = {
    "download": [
        "data/corpus/address.py",
        "data/corpus/archive.py",
        "data/corpus/arrival.py",
        "data/corpus/catalogue.py",
        "data/corpus/client.py",
        "data/corpus/encoding.py",
        "data/corpus/fetch.py",
        "data/corpus/guess.py",
        "data/corpus/pace.py",
        "data/corpus/spool.py",
        "data/documents/collected.py",
        "data/documents/columnar.py",
        "data/documents/columns.py",
        "data/documents/files.py",
        "data/documents/joined.py",
        "data/documents/members.py",
        "data/documents/reader.py",
        "data/documents/rows.py",
        "data/documents/urls.py",
        "data/moment.py",
        "data/shown.py",
        "data/store/reading.py",
        "data/tables/arrow.py",
        "data/tables/documents.py",
        "data/tables/message.py",
        "stages/download.py",
    ],
    "tokenize": [
        "data/cores.py",
        "data/corpus/bpe.py",
        "data/corpus/division.py",
        "data/corpus/letters.py",
        "data/corpus/level.py",
        "data/corpus/likeness.py",
        "data/corpus/parts.py",
        "data/corpus/pieces.py",
        "data/corpus/subwords.py",
        "data/corpus/text.py",
        "data/corpus/together.py",
        "data/corpus/words.py",
        "data/store/reading.py",
        "data/tables/arrow.py",
        "data/tables/borders.py",
        "data/tables/counts.py",
        "data/tables/documents.py",
        "data/tables/merges.py",
        "data/tables/message.py",
        "data/tables/tokens.py",
        "data/tables/vocab.py",
        "stages/indexing/documents.py",
        "stages/indexing/part.py",
        "stages/indexing/whole.py",
        "stages/lm/spelling.py",
        "stages/tokenize.py",
    ],
    "train": [
        "data/memory.py",
        "data/store/files.py",
        "data/store/locks.py",
        "data/store/reading.py",
        "data/tables/arrow.py",
        "data/tables/history.py",
        "data/tables/message.py",
        "data/tables/tokens.py",
        "stages/lm/metrics.py",
        "stages/lm/parameters.py",
        "stages/train.py",
        "stages/training/checkpoint.py",
        "stages/training/dropout.py",
        "stages/training/engine.py",
        "stages/training/loop.py",
        "stages/training/minibatches.py",
        "stages/training/schedule.py",
        "stages/training/signals.py",
    ],
    "baselines": [
        "data/store/reading.py",
        "data/tables/arrow.py",
        "data/tables/message.py",
        "data/tables/ngrams.py",
        "data/tables/tokens.py",
        "stages/lm/baselines.py",
        "stages/lm/counts.py",
        "stages/lm/metrics.py",
        "stages/lm/ngram.py",
        "stages/lm/smoothing.py",
        "stages/lm/unigram.py",
    ],
    "evaluate": [
        "data/cores.py",
        "data/corpus/letters.py",
        "data/corpus/level.py",
        "data/corpus/parts.py",
        "data/corpus/subwords.py",
        "data/corpus/text.py",
        "data/corpus/words.py",
        "data/memory.py",
        "data/store/files.py",
        "data/store/locks.py",
        "data/store/reading.py",
        "data/tables/arrow.py",
        "data/tables/merges.py",
        "data/tables/message.py",
        "data/tables/ngrams.py",
        "data/tables/tokens.py",
        "data/tables/vocab.py",
        "stages/evaluate.py",
        "stages/lm/abreast.py",
        "stages/lm/compared.py",
        "stages/lm/counts.py",
        "stages/lm/ensemble.py",
        "stages/lm/layers.py",
        "stages/lm/metrics.py",
        "stages/lm/mixture.py",
        "stages/lm/model.py",
        "stages/lm/network.py",
        "stages/lm/ngram.py",
        "stages/lm/parameters.py",
        "stages/lm/sampling.py",
        "stages/lm/scoring.py",
        "stages/lm/separate.py",
        "stages/lm/side_by_side.py",
        "stages/lm/smoothing.py",
        "stages/lm/softmax.py",
        "stages/lm/spelling.py",
        "stages/lm/stored.py",
        "stages/lm/stretches.py",
        "stages/lm/tally.py",
    ],
}

ENGINES: dict[str, list[str]] = {
    build.engine: [f"{build.module.replace('.', '/')}.py"] for build in engines.installed().values()
}
"""What comes to those of `train`, which imports no engine."""
BESIDE = {
    "data.errors": fingerprint.OUTSIDE["data.errors"],
    "data.shown": "how errors are worded reaches no artifact",
    "stages.config": "its values are in the key, and what they mean stands in the code that uses them",
    "stages.training.engines": "chooses the engine: what it chose is in the key",
    "stages.training.builds": "knows which engine can use which GPU: what was chosen is in the key",
    "stages.training.cards": "asks the driver for GPUs: what was chosen is in the key",
    "data.cores": "how many processes or threads there are changes no bit of the result",
    "stages.training.cores": "how many threads MXNet takes changes no bit of the result",
    "stages.training.device": "names what was chosen",
}
"""Modules that are loaded where a stage runs and that are not in its key, and why."""

SCRIPT = """
import importlib, json, sys
from pathlib import Path
from stages.config import RunConfig, StageConfig

asked = json.loads(sys.argv[1])
config = getattr(RunConfig.model_validate(asked["config"]), asked["stage"], StageConfig())
given = {keyword: Path(folder) for keyword, folder in asked["folders"].items()}
if asked["stage"] == "train":
    from stages.training import engines

    given |= {"engine": engines.choose(config).build}
function = getattr(importlib.import_module(asked["module"]), asked["function"])
function(config, **given, progress=lambda done, total, figures: None)
print(*[name for name in sys.modules if name.partition(".")[0] in ("data", "stages", "flows")])
"""

MIXTURE = [
    "data/cores.py",
    "data/tables/ngrams.py",
    "stages/lm/counts.py",
    "stages/lm/ensemble.py",
    "stages/lm/layers.py",
    "stages/lm/mixture.py",
    "stages/lm/network.py",
    "stages/lm/ngram.py",
    "stages/lm/separate.py",
    "stages/lm/side_by_side.py",
    "stages/lm/smoothing.py",
    "stages/lm/softmax.py",
    "stages/training/mixing.py",
]
"""What a training with an n-gram adds to the key of `train`."""


def in_key(name: str, engine: str = "") -> list[str]:
    """The project's files in a stage's key, and in that of `train` with an engine."""
    chosen = [engines.installed()[engine].module] if engine else []
    return list(fingerprint.code(graph.STAGES[name].function.__module__, *chosen))


@pytest.mark.parametrize("name", graph.STAGES)
def test_a_key_covers_exactly_these_files(name: str) -> None:
    assert in_key(name) == CLOSURES[name]


def test_an_n_gram_adds_exactly_these_and_only_where_there_is_one() -> None:
    train = graph.STAGES["train"]
    files = fingerprint.code(train.function.__module__, lend.MIXING)
    assert [*files] == sorted([*CLOSURES["train"], *MIXTURE])
    with_ngram, without = (train.modules(TrainConfig(ngram=ngram)) for ngram in (3, 0))
    assert with_ngram == (*without, lend.MIXING)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_adds_exactly_these(engine: str) -> None:
    assert in_key("train", engine) == sorted([*CLOSURES["train"], *ENGINES[engine]])
    choice = engines.choose(TrainConfig())
    assert choice.modules == graph.STAGES["train"].modules(TrainConfig()) == (engines.installed()[choice.name].module,)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> dict[str, Artifact]:
    """The artifact of each stage of a small run."""
    folder = tmp_path_factory.mktemp("closures")
    (folder / "text.txt").write_text(tiny_text, encoding="utf-8")
    (folder / "tiny.toml").write_text(tiny_settings, encoding="utf-8")
    config, store = settings.load(str(folder / "tiny.toml"), str(folder / "text.txt")), Store(folder / "store")

    def one(name: str, upstream: Upstream) -> Outcome:
        return perform(name, config, upstream, store, lambda done, total, figures: None)

    walk = Walk(one)
    walk.to(graph.LAST)
    return walk.artifacts


@pytest.mark.parametrize(
    ("name", "engine"),
    [*((name, "") for name in graph.STAGES if name != "train"), *(("train", engine) for engine in ENGINES)],
)
def test_a_stage_loads_nothing_that_is_not_in_its_key(
    name: str, engine: str, made: dict[str, Artifact], tmp_path: Path
) -> None:
    stage = graph.STAGES[name]
    config = {one: made[one].manifest.config for one in graph.shown()}
    if engine:
        if engines.installed()[engine].absent:
            pytest.skip(engines.installed()[engine].absent)
        config["train"] = {**config["train"], "engine": engine, "device": "cpu"}
    folders = {keyword: str(made[one.stage].folder) for keyword, one in stage.inputs.items()}
    (tmp_path / "out").mkdir()
    own = {"out", "checkpoints"} & inspect.signature(
        getattr(import_module(stage.function.__module__), stage.function.__name__)
    ).parameters.keys()
    folders |= {keyword: str(tmp_path / keyword) for keyword in own}
    asked = {
        "stage": name,
        "module": stage.function.__module__,
        "function": stage.function.__name__,
        "config": config,
        "folders": folders,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    # A package's docstring is no code.
    loaded = {module for module in done.stdout.splitlines()[-1].split() if fingerprint.code(module)}
    key = {path.removesuffix(".py").replace("/", ".") for path in in_key(name, engine)}
    assert loaded - key - BESIDE.keys() == set()
