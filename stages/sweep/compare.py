"""Whether one recipe is better than another, or only luckier: each is trained with several seeds.

All seeds of all recipes are measured on one text, the validation split. Recipes are compared by pairs of trainings of
the same seed, which begin alike as far as the recipes let them: with n seeds and differences d of bits per character,
the mean of d has the interval mean ± t · s / √n, where s is their standard deviation and t the quantile of Student's t
with n - 1 degrees of freedom (Student, "The Probable Error of a Mean", Biometrika, 1908). It says what other seeds
would give on this text, and nothing of another text.

Of several recipes each is compared with the first one. The more there are, the likelier it is that chance favours one
of them: each interval is made so much wider that all of them together hold with the probability that is stated
(Bonferroni's inequality; Dunn, "Multiple Comparisons Among Means", Journal of the American Statistical Association,
1961).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.errors import ConfigError
from stages.promotion.interval import quantile
from stages.sweep import space
from stages.sweep.table import significant
from stages.sweep.trial import Trial

if TYPE_CHECKING:
    from stages.config import RunConfig
    from stages.sweep.space import Values

CONFIDENCE = 0.95
"""With which all intervals hold together."""
_SEED = "train.seed"


@dataclass(frozen=True)
class Difference:
    """What a recipe needs more than the first one, bits per character: below 0 it is better."""

    mean: float
    lower: float
    """Where its interval begins."""
    upper: float

    @property
    def beyond_luck(self) -> bool:
        """Whether other seeds are not expected to turn it round."""
        return self.lower > 0 or self.upper < 0


@dataclass(frozen=True)
class Recipe:
    """A configuration, trained once for each seed."""

    values: Values
    """What sets it apart from the other recipes."""
    trials: tuple[Trial, ...]
    """By seed."""

    @property
    def bits(self) -> list[float]:
        """Bits per character of each seed; infinite where it could not be trained."""
        return [trial.bits for trial in self.trials]

    @property
    def mean(self) -> float:
        """Infinite where one of its seeds could not be trained, for the others alone would flatter it."""
        return statistics.fmean(self.bits)

    @property
    def deviation(self) -> float:
        """The standard deviation over seeds (that of a sample, n - 1); not a number where there is no mean."""
        return statistics.stdev(self.bits) if math.isfinite(self.mean) else math.nan

    def against(self, first: Recipe, confidence: float) -> Difference | None:
        """Its difference from another one of the same seeds; None where one of them has no mean."""
        if not (math.isfinite(self.mean) and math.isfinite(first.mean)):
            return None
        differences = [own - other for own, other in zip(self.bits, first.bits, strict=True)]
        mean, number = statistics.fmean(differences), len(differences)
        reach = quantile((1 + confidence) / 2, number - 1) * statistics.stdev(differences) / math.sqrt(number)
        return Difference(mean, mean - reach, mean + reach)


def trials(config: RunConfig, vary: Sequence[str], seeds: int) -> list[Trial]:
    """What is to be trained: each recipe of the grid with each seed, from the configuration's on.

    Raises:
        ConfigError: a field or value that is not there or does not fit, or fewer than two recipes.
    """
    if any(text.partition("=")[0].strip() == _SEED for text in vary):
        raise ConfigError(f"{_SEED} is what makes the trainings of one recipe: say how many with --seeds")
    if len(space.configurations(config, vary)) < 2:
        raise ConfigError(f"{' '.join(vary)} is one recipe: give a field two values or more to compare")
    first = config.train.seed
    drawn = f"{_SEED}={','.join(str(seed) for seed in range(first, first + seeds))}"
    return [Trial(*found) for found in space.configurations(config, [*vary, drawn])]


def recipes(trained: Iterable[Trial]) -> list[Recipe]:
    """The recipes in the order in which they were named; what became of each of their seeds."""
    found: dict[str, list[Trial]] = {}
    for trial in trained:
        found.setdefault(space.settings(_values(trial)), []).append(trial)
    return [Recipe(_values(one[0]), tuple(one)) for one in found.values()]


def differences(compared: Sequence[Recipe]) -> list[Difference | None]:
    """Of each recipe but the first from the first."""
    first, *others = compared
    each = 1 - (1 - CONFIDENCE) / max(len(others), 1)
    return [other.against(first, each) for other in others]


def rows(compared: Sequence[Recipe]) -> list[dict[str, str]]:
    """A table of the recipes: a row for each, heading → cell."""
    return [
        {
            **{name: space.shown(value) for name, value in recipe.values.items()},
            "bits per character": significant(recipe.mean),
            "deviation": significant(recipe.deviation),
            "unknown": _unknown(recipe),
            "against the first": f"{difference.mean:+.4f}" if difference else "–",
            "interval": f"{difference.lower:+.4f} to {difference.upper:+.4f}" if difference else "–",
            "seeds": _ended(recipe),
        }
        for recipe, difference in zip(compared, [None, *differences(compared)], strict=True)
    ]


def sentences(compared: Sequence[Recipe]) -> list[str]:
    """What each recipe but the first is against the first, in words."""
    first, *others = compared
    said = []
    for other, difference in zip(others, differences(compared), strict=True):
        names = f"{space.settings(other.values)} against {space.settings(first.values)}"
        if difference is None:
            said.append(f"{names}: no comparison, for not every seed could be trained.")
            continue
        said.append(
            f"{names}: {abs(difference.mean):.4f} bits per character {'fewer' if difference.mean < 0 else 'more'}, "
            f"{'more than' if difference.beyond_luck else 'which may be'} the luck of {len(first.trials)} seeds "
            f"(interval {difference.lower:+.4f} to {difference.upper:+.4f})."
        )
    return said


def results(compared: Sequence[Recipe]) -> list[dict[str, Any]]:
    """The recipes in their order as JSON; a figure that is not there is null."""
    return [
        {
            "values": recipe.values,
            "mean": _finite(recipe.mean),
            "deviation": _finite(recipe.deviation),
            "difference": difference.mean if difference else None,
            "lower": difference.lower if difference else None,
            "upper": difference.upper if difference else None,
            "beyond_luck": difference.beyond_luck if difference else None,
            "seeds": [{"seed": trial.values[_SEED], **trial.json()} for trial in recipe.trials],
        }
        for recipe, difference in zip(compared, [None, *differences(compared)], strict=True)
    ]


def _values(trial: Trial) -> Values:
    return {name: value for name, value in trial.values.items() if name != _SEED}


def _ended(recipe: Recipe) -> str:
    failed = [trial for trial in recipe.trials if trial.state == "failed"]
    number = len(recipe.trials)
    return f"{number - len(failed)} of {number}; {failed[0].reason}" if failed else str(number)


def _unknown(recipe: Recipe) -> str:
    valid = recipe.trials[0].valid
    return f"{valid.unknown_rate:.2%}" if valid else "–"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
