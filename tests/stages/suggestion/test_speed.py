"""How fast a machine is: measured by a clock that the test holds, and read back as it was written."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from data.errors import ConfigError
from stages.config import TrainConfig
from stages.suggestion import rule
from stages.suggestion.speed import Speed, measure, met
from stages.training.engine import EngineState, Figures, Recipe, Step

VOCAB = 60


class Machine:
    """An engine that takes 10 microseconds per token and 50 more for each million weights, by a clock of its own."""

    def __init__(self) -> None:
        self.now, self.weights = 0.0, 0

    def build(self, recipe: Recipe) -> Machine:
        size = recipe.architecture.hidden_size
        self.weights = met(TrainConfig(**rule.timed("char", size)), VOCAB)
        return self

    def restore(self, state: EngineState) -> None:
        pass

    def run(self, steps: Iterable[Step]) -> list[Figures]:
        self.now += sum(step.inputs.size for step in steps) * (10 + 50 * self.weights / 1e6) / 1e6
        return []


def test_both_figures_of_a_machine_are_found() -> None:
    machine = Machine()
    few, many = (TrainConfig(**rule.timed("char", size)) for size in rule.TIMED)
    found = measure(few, many, VOCAB, machine.build, lambda: machine.now)  # type: ignore[arg-type]
    assert found == Speed(10, 50)
    assert found.seconds(2_000_000) == pytest.approx(110e-6)


def test_a_speed_is_read_as_it_was_written() -> None:
    found = Speed.between((100_000, 15.123), (800_000, 47.9))
    assert Speed.parse(str(found)) == found


def test_measurements_that_contradict_each_other_give_no_time_below_zero() -> None:
    assert Speed.between((100_000, 20.0), (800_000, 10.0)) == Speed(10, 0)
    assert Speed.between((100_000, 1.0), (800_000, 80.0)) == Speed(0, 100)


@pytest.mark.parametrize("text", ["", "11", "11,45,3", "fast", "-1,5", "0,0", "nan,1", "1,inf"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="microseconds per token"):
        Speed.parse(text)
