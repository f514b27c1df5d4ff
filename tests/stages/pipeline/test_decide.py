"""What a stage's key is made of: what the configuration chooses, and nothing that it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data.store import loaded
from data.store.artifact import Artifact
from data.store.folder import Store
from stages.config import RunConfig, TokenizeConfig
from stages.pipeline import graph, settings
from stages.pipeline.decide import Decision, decide
from stages.pipeline.run import run
from stages.training import engines
from stages.training.builds import Name
from stages.training.device import Device


@pytest.fixture
def tokenized(tiny: Path) -> tuple[RunConfig, dict[str, Artifact], Store]:
    config, store = settings.load(str(tiny)), Store(tiny.parent / "store")
    outcomes = run(config, store, lambda name: lambda done, total, figures: None, until="tokenize")
    return config, {outcome.name: outcome.artifact for outcome in outcomes}, store


def chosen(name: Name, library: str, *modules: str) -> engines.Choice:
    return engines.Choice(name, Device("cpu"), "", modules, (library,))


def test_another_engine_is_in_no_key_but_those_of_its_own_models(
    tokenized: tuple[RunConfig, dict[str, Artifact], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code may be edited and its library upgraded, and the models of the first engine stay what they are."""

    def key(choice: engines.Choice) -> Decision:
        monkeypatch.setattr(engines, "choose", lambda config: choice)
        return decide("train", *tokenized)

    first = key(chosen("mxnet", "mxnet", "stages.training.gluon"))
    second = key(chosen("bptt", "numpy", "stages.lm.layers"))
    assert first.key != second.key
    assert "stages/training/gluon.py" in first.components["code"]
    assert "mxnet" in first.components["libraries"]
    assert "stages/training/gluon.py" not in second.components["code"]
    assert "mxnet" not in second.components["libraries"]
    assert "stages/lm/layers.py" not in first.components["code"]
    assert "stages/lm/layers.py" in second.components["code"]


def test_a_library_of_every_stage_is_watched_for_another_version() -> None:
    sections = dict(RunConfig())
    named = {one for stage in graph.STAGES.values() for one in stage.libraries(sections.get(stage.name))}
    named |= {*graph.STAGES["tokenize"].libraries(TokenizeConfig(level="bpe"))}
    named |= {build.library for build in engines.installed().values()}
    assert named - {"unicode", "letters"} == set(loaded.LIBRARIES), "Unicode's tables are Python's own"
    assert "tokenizers" not in graph.STAGES["tokenize"].libraries(TokenizeConfig()), "characters know nothing of it"


def test_what_stands_for_a_field_takes_its_place(tokenized: tuple[RunConfig, dict[str, Artifact], Store]) -> None:
    config, upstream, store = tokenized
    auto = config.model_copy(update={"train": config.train.model_copy(update={"engine": "auto"})})
    components = decide("train", auto, upstream, store).components
    assert components["sources"] == {"device": "cpu", "engine": engines.choose(RunConfig().train).name}
    assert not {"device", "engine"} & components["config"].keys()
    components = decide("download", *tokenized).components
    assert components["sources"]["corpus"].startswith("sha256:")
    assert components["config"] == {"text_column": "text", "order_column": ""}


def test_a_stage_without_settings_may_have_any_name(
    tokenized: tuple[RunConfig, dict[str, Artifact], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(graph.STAGES, "copy", replace(graph.STAGES["baselines"], name="copy"))
    assert decide("copy", *tokenized).components["config"] == {}
