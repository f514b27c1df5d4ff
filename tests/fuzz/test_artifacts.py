"""Damaged artifacts, lying files and strangers' models, a few of each: made again, as before, or one sentence."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz import artifacts
from tests.fuzz.stores import World, load


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    load()
    return World(tmp_path_factory.mktemp("world"), swept=False)


@pytest.mark.parametrize(("only", "runs"), [("", 24), ("ngrams.arrow and its manifest", 10), ("mixture", 10)])
def test_whatever_lies_in_a_store_every_command_goes_on_or_says_what_is_wrong(
    world: World, only: str, runs: int
) -> None:
    found = artifacts.run(world, Random(22), runs, each=2, only=only)
    assert found.codes.total() >= runs
    assert found.wrong == {}
