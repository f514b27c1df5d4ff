"""Sums of losses that are interrupted anywhere go on there, and end in the same number to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data.errors import Interrupted
from stages.lm import tally
from stages.lm.layers import State, Vector
from stages.lm.tally import Tally, summed

if TYPE_CHECKING:
    from stages.lm.tally import Sum

LOSSES = np.random.default_rng(0).random(100).astype(np.float32)


def losses(done: int, states: list[State]) -> Iterator[Sum]:
    """Chunks of 7; the state after one is the sum so far, which the next chunk adds to its first loss."""
    return summed(chunks(done, states))


def chunks(done: int, states: list[State]) -> Iterator[Vector]:
    for start in range(done, len(LOSSES), 7):
        chunk = LOSSES[start : start + 7].copy()
        chunk[0] += states[0][0][0]
        states[0] = (states[0][0] + chunk.sum(), states[0][1] + 1)
        yield chunk


def zero() -> list[State]:
    return [(np.zeros(3, np.float32), np.zeros(3, np.float32))]


def nobody(done: int) -> None:
    pass


class Stopped:
    """Progress that is interrupted once so much is done."""

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, list[int]()

    def __call__(self, done: int) -> None:
        self.seen.append(done)
        if done >= self.after:
            raise Interrupted("enough", 15)


@pytest.mark.parametrize("after", [7, 49, 98, 100])
def test_it_goes_on_where_it_was_interrupted(tmp_path: Path, after: int) -> None:
    whole = Tally(tmp_path / "whole").means("one", losses, zero(), nobody)
    with pytest.raises(Interrupted):
        Tally(tmp_path / "cut").means("one", losses, zero(), Stopped(after))
    seen: list[int] = []
    assert Tally(tmp_path / "cut").means("one", losses, zero(), seen.append) == whole
    assert seen == [done for done in [*range(7, 99, 7), 100] if done > after]
    assert Tally(tmp_path / "cut").means("one", losses, zero(), seen.append) == whole, "and what has ended stays"
    assert len(seen) <= 14


def test_a_sum_that_is_killed_has_been_kept_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "SECONDS", 0)
    kept = tmp_path / "tally.json"
    at_50: list[bytes] = []
    whole = Tally(tmp_path).means("one", losses, zero(), lambda done: at_50.append(kept.read_bytes()))
    kept.write_bytes(at_50[6])
    seen: list[int] = []
    assert Tally(tmp_path).means("one", losses, zero(), seen.append) == whole
    assert seen[0] == 56


def test_it_goes_on_only_where_that_is_possible(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        Tally(tmp_path).means("one", losses, zero(), Stopped(63), every=28)
    seen: list[int] = []
    Tally(tmp_path).means("one", losses, zero(), seen.append, every=28)
    assert seen[0] == 63, "56 is a multiple of 28"


def test_sums_are_told_apart_and_what_ended_is_not_read_again(tmp_path: Path) -> None:
    def other(done: int, states: list[State]) -> Iterator[Sum]:
        yield (3.0,), 3

    assert Tally(tmp_path).means("ones", other, [], nobody) == (1,)
    with pytest.raises(Interrupted):
        Tally(tmp_path).means("one", losses, zero(), Stopped(50))
    assert Tally(tmp_path).means("ones", lambda done, states: pytest.fail("read again"), [], nobody) == (1,)
    assert Tally(tmp_path).means("nothing", lambda done, states: [], [], nobody) == ()


def test_several_read_at_once_and_a_state_is_of_the_kind_it_was(tmp_path: Path) -> None:
    begin: list[Any] = [(np.zeros(1, np.float32),), (np.array([2**40, -1]),)]

    def both(done: int, states: list[Any]) -> Iterator[Sum]:
        def chunks() -> Iterator[Vector]:
            for start in range(done, 90, 9):
                assert (states[1][0].dtype, states[1][0][0]) == (np.int64, 2**40 + start)
                states[1] = (states[1][0] + [9, 0],)
                yield np.stack([LOSSES[start : start + 9], 2 * LOSSES[start : start + 9]])

        return summed(chunks())

    whole = Tally(tmp_path / "whole").means("both", both, [*begin], nobody)
    with pytest.raises(Interrupted):
        Tally(tmp_path / "cut").means("both", both, [*begin], Stopped(45))
    assert Tally(tmp_path / "cut").means("both", both, [*begin], nobody) == whole
    assert whole == pytest.approx((LOSSES[:90].mean(), 2 * LOSSES[:90].mean()), rel=1e-6)


@pytest.mark.parametrize(
    "harm", [lambda whole: whole[:-9], lambda whole: whole.replace(b"7", b"8"), lambda whole: b"?"]
)
def test_what_is_damaged_is_measured_again(tmp_path: Path, harm: Any) -> None:
    with pytest.raises(Interrupted):
        Tally(tmp_path).means("one", losses, zero(), Stopped(70))
    kept = tmp_path / "tally.json"
    kept.write_bytes(harm(kept.read_bytes()))
    seen: list[int] = []
    Tally(tmp_path).means("one", losses, zero(), seen.append)
    assert seen[0] == 7


def test_where_nothing_can_be_kept_it_is_measured_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    seen: list[int] = []
    mean = Tally(tmp_path / "file" / "folder").means("one", losses, zero(), seen.append)
    assert mean == Tally(tmp_path / "whole").means("one", losses, zero(), nobody)
