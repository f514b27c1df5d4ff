"""A split that is read in stretches, by anyone and in any order, gives every sum of one pass to the bit."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from stages.lm import side_by_side, stretches
from stages.lm.network import Network
from stages.lm.tally import summed
from tests.stages.lm.test_side_by_side import counter, ids, network

if TYPE_CHECKING:
    from stages.lm.tally import Sum

TOKENS = 30_000


def edges(ours: Network, tokens: int = TOKENS) -> list[int]:
    return [*itertools.accumulate(ours.chunks(tokens - 1), initial=0)]


def shared(ours: Network, text: Any, begin: int, states: list[Any]) -> list[Sum]:
    some = [*stretches.cut(edges(ours, len(text)), begin)]
    assert len(some) > 1
    found = reversed([stretches.read(ours, text, stretch) for stretch in reversed(some)])
    return [*stretches.joined(ours, text, some, found, states)]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "LENGTH", 8_000)
    monkeypatch.setattr(side_by_side, "SHORTEST", 16)
    monkeypatch.setattr(side_by_side, "MOST", 64 * 64)


MODELS: dict[str, dict[str, Any]] = {
    "one that forgets": {},
    "a GRU": {"cell": "gru", "scale": 3.0},
    "of documents": {"ends": True},
    "one that forgets nothing": {"cell": "rnn", "activation": "relu", "hold": 1.0},
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("short_chunks", [False, True])
def test_every_sum_is_that_of_one_pass(
    changes: dict[str, Any], short_chunks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if short_chunks:
        monkeypatch.setattr(side_by_side, "SHORTEST", TOKENS)
    ours, text = network(**changes), ids(TOKENS)
    states, expected_states = ours.beginning(), ours.beginning()
    expected = [*summed(ours.losses(text, expected_states))]
    assert shared(ours, text, 0, states) == expected
    assert stretches._same(states, expected_states)


def test_it_goes_on_from_any_chunk() -> None:
    ours, text = network(), ids(TOKENS)
    begin, states = edges(ours)[2], ours.beginning()
    first = [*summed(ours.losses(text[: begin + 1], states))]
    assert [*first, *shared(ours, text, begin, states)] == [*summed(ours.losses(text))]


@pytest.mark.parametrize("forgets", [True, False])
def test_only_what_was_begun_in_a_wrong_state_is_read_again(forgets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, text = counter(2.0 if forgets else 20.0), ids(TOKENS)
    some = [*stretches.cut(edges(ours), 0)]
    found = [stretches.read(ours, text, stretch) for stretch in some]
    begun, read = list[int](), stretches._read

    def counted(ours: Network, text: Any, chunks: Any, states: Any) -> Any:
        begun.append(chunks[0])
        return read(ours, text, chunks, states)

    monkeypatch.setattr(stretches, "_read", counted)
    sums = [*stretches.joined(ours, text, some, found, ours.beginning())]
    assert sums == [*summed(ours.losses(text))]
    assert begun == ([] if forgets else [stretch[1] for stretch in some[1:]])


def test_stretches_stand_behind_one_another_and_know_the_chunk_before() -> None:
    some = [*stretches.cut([0, 3_000, 6_000, 9_000, 12_000, 13_000], 0)]
    assert some == [(0, 0, 3_000, 6_000, 9_000), (6_000, 9_000, 12_000, 13_000)]
    assert [*stretches.cut([0, 3_000, 6_000], 3_000)] == [(0, 3_000, 6_000)]
    assert np.ravel([*stretches.cut([0], 0)]).size == 0
