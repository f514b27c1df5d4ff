"""Whether recipes are told apart: the figures by hand, the seeds that are trained, and what is refused."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.errors import ConfigError
from data.tables.tokens import Split
from stages.config import RunConfig, TrainConfig
from stages.sweep import compare, pool, worker
from stages.sweep.compare import Recipe
from stages.sweep.pool import Workers
from stages.sweep.trial import Trial

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]

VALID = Split(0, 100, characters=100, unknown=1)


def recipe(cell: str, *bits: float) -> Recipe:
    """Of seeds 0, 1, …; one that is not finite has failed."""
    trials = [
        Trial(RunConfig(), {"train.cell": cell, "train.seed": seed}, valid=VALID, bits=one, perplexity=2**one)
        for seed, one in enumerate(bits)
    ]
    for trial in trials:
        if not math.isfinite(trial.bits):
            trial.fail("it burst")
    return Recipe({"train.cell": cell}, tuple(trials))


def test_a_difference_is_students_t_over_pairs_of_seeds() -> None:
    first, second = recipe("gru", 2.50, 2.62, 2.55), recipe("lstm", 2.40, 2.50, 2.47)
    # d = -0.10, -0.12, -0.08: mean -0.10, s = 0.02; t for 97.5 % and 2 degrees of freedom is 4.3027.
    (difference,) = compare.differences([first, second])
    assert difference
    assert difference.mean == pytest.approx(-0.10)
    reach = 4.3027 * 0.02 / math.sqrt(3)
    assert (difference.lower, difference.upper) == pytest.approx((-0.10 - reach, -0.10 + reach), abs=1e-5)
    assert difference.beyond_luck
    assert second.mean == pytest.approx(2.456667, abs=1e-6)
    assert second.deviation == pytest.approx(0.051316, abs=1e-6)


def test_of_several_recipes_every_interval_is_wider() -> None:
    recipes = [recipe("rnn", 2.7, 2.9), recipe("gru", 2.6, 2.7), recipe("lstm", 2.6, 2.7)]
    # Two comparisons, so 97.5 % each: t = 25.452 with one degree of freedom; d = -0.1, -0.2.
    gru, lstm = compare.differences(recipes)
    assert gru == lstm
    assert gru
    assert gru.upper - gru.mean == pytest.approx(25.452 * statistics.stdev([-0.1, -0.2]) / math.sqrt(2), rel=1e-4)
    assert not gru.beyond_luck


def test_the_table_and_its_sentences() -> None:
    recipes = [
        recipe("rnn", 2.7, 2.71, 2.7),
        recipe("gru", 2.6, 2.61, 2.61),
        recipe("lstm", 2.4, 2.9, 2.7),
        recipe("x", 2, math.inf, 2),
    ]
    first, *others = compare.rows(recipes)
    assert first == {
        "train.cell": "rnn",
        "bits per character": "2.7033",
        "deviation": "0.0057735",
        "unknown": "1.00%",
        "against the first": "–",
        "interval": "–",
        "seeds": "3",
    }
    assert [row["against the first"] for row in others] == ["-0.0967", "-0.0367", "–"]
    assert others[2]["bits per character"] == "–", "two of three seeds would flatter it"
    assert others[2]["seeds"] == "2 of 3; it burst"
    better, either, none = compare.sentences(recipes)
    assert better.startswith(
        "train.cell=gru against train.cell=rnn: 0.0967 bits per character fewer, more than the luck"
    )
    assert "0.0367 bits per character fewer, which may be the luck of 3 seeds" in either
    assert "no comparison" in none
    assert [row["beyond_luck"] for row in compare.results(recipes)] == [None, True, False, None]
    json.dumps(compare.results(recipes), allow_nan=False)


def test_every_recipe_has_the_same_seeds_from_the_configurations_on() -> None:
    config = RunConfig(train=TrainConfig(seed=7))
    made = compare.trials(config, ["train.cell=gru,lstm", "train.layers=1,2"], 3)
    assert [(trial.config.train.cell, trial.config.train.layers, trial.config.train.seed) for trial in made] == [
        (cell, layers, seed) for cell in ("gru", "lstm") for layers in (1, 2) for seed in (7, 8, 9)
    ]
    assert [len(recipe.trials) for recipe in compare.recipes(made)] == [3] * 4
    assert compare.recipes(made)[1].values == {"train.cell": "gru", "train.layers": 2}


@pytest.mark.parametrize(
    ("vary", "said"),
    [(["train.cell=gru"], "is one recipe"), (["train.seed=1,2"], "--seeds"), (["train.cells=gru,lstm"], "train.cells")],
)
def test_what_cannot_be_compared_is_one_sentence(vary: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        compare.trials(RunConfig(), vary, 2)
    assert "\n" not in str(caught.value)


@contextmanager
def here_and_now(at_a_time: int) -> Iterator[Workers]:
    """Trainings in this process, each of which would take a moment to load MXNet in one of its own."""
    assert at_a_time == 2
    yield lambda jobs: ((position, worker.train(job)) for position, job in enumerate(jobs))


def test_recipes_are_trained_and_compared_and_what_was_trained_is_kept(
    here: Rnnlm, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "processes", here_and_now)
    asked = ("compare", "--preset", tiny, "--vary", "train.learning_rate=0.001,1", "--seeds", "2", "--jobs", "2")
    printed = here(*asked).stdout
    assert "train.learning_rate=1.0 against train.learning_rate=0.001: " in printed
    found = json.loads(here(*asked, "--json").stdout)
    assert found["trained"] == 0
    first, second = found["recipes"]
    assert [one["values"] for one in found["recipes"]] == [{"train.learning_rate": rate} for rate in (0.001, 1)]
    assert [one["seed"] for one in second["seeds"]] == [0, 1]
    of_first, of_second = ([one["bits_per_character"] for one in recipe["seeds"]] for recipe in (first, second))
    assert len({*of_first, *of_second}) == 4, "every seed is a training of its own"
    assert first["mean"] == pytest.approx(statistics.fmean(of_first))
    assert first["difference"] is None
    differences = [own - other for own, other in zip(of_second, of_first, strict=True)]
    reach = 12.7062 * statistics.stdev(differences) / math.sqrt(2)  # t for 97.5 % and one degree of freedom
    assert second["difference"] == pytest.approx(statistics.fmean(differences))
    assert second["upper"] == pytest.approx(second["difference"] + reach, rel=1e-4)
    assert second["beyond_luck"] == (second["lower"] > 0 or second["upper"] < 0)
    alone = here("evaluate", "--preset", tiny, "--set", "train.learning_rate=1", "--set", "train.seed=1", "--json")
    assert json.loads(alone.stdout)["metrics"]["valid"]["bits_per_character"] == pytest.approx(of_second[1], rel=1e-12)
