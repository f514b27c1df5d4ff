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


def test_whatever_lies_in_a_store_every_command_goes_on_or_says_what_is_wrong(world: World) -> None:
    found = artifacts.run(world, Random(17), 24, each=2)
    assert found.codes.total() >= 24
    assert found.wrong == {}
