"""The graph of the stages: their order, what depends on what, what people are told of."""

from __future__ import annotations

import pytest

from data.errors import ConfigError
from stages.pipeline import graph


def test_each_stage_comes_after_what_it_reads() -> None:
    assert graph.order("evaluate") == ["download", "tokenize", "train", "baselines", "evaluate"]
    assert graph.order("train") == ["download", "tokenize", "train"]
    assert graph.shown() == ["download", "tokenize", "train", "evaluate"]


def test_a_stage_and_all_that_is_made_from_it() -> None:
    assert graph.after("tokenize") == {"tokenize", "train", "baselines", "evaluate"}
    assert graph.after("evaluate") == {"evaluate"}


def test_all_that_others_read_of_a_stage_has_to_be_there() -> None:
    assert graph.files_read("tokenize") == {"tokens.arrow", "vocab.arrow"}
    assert graph.files_read("evaluate") == set()


@pytest.mark.parametrize("name", ["baselines", "training", ""])
def test_what_is_no_stage_cannot_be_forced(name: str) -> None:
    with pytest.raises(ConfigError, match=r"the stages are download, tokenize, train, evaluate$"):
        graph.forced([name])
    with pytest.raises(ConfigError, match="there is no stage"):
        graph.forced([], name)


def test_forced_are_those_named_and_all_after_one() -> None:
    assert graph.forced(["download"], "train") == {"download", "train", "evaluate"}
