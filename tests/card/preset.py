"""A preset's text, settings and training steps as the stages make them, with no other library than NumPy.

`tests/acceptance.py` runs where neither pydantic nor pyarrow may be; a test holds these against the stages' own.
"""

from __future__ import annotations

import ast
import itertools
import tomllib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from data.corpus import text
from stages.training import dropout, schedule
from stages.training.engine import Recipe, Step
from stages.training.minibatches import Minibatches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data.tables.tokens import Ids
    from stages.config import TrainConfig

STAGES = Path(__file__).parents[2] / "stages"


def training_text(path: Path) -> tuple[Ids, int]:
    """The ids of the characters that the preset `book` trains on, and the size of their vocabulary.

    Raises:
        OSError: a file that cannot be read.
        CorpusError: one that is not text.
    """
    told = _preset("book")["tokenize"]
    content = "".join(text.normalize(text.read(path), told["normalizer"], told["level"]))
    ranked = sorted(Counter(content).items(), key=lambda item: (-item[1], item[0]))
    ids = {character: id_ for id_, (character, _) in enumerate(ranked, 1)}  # 0 is the unknown one
    end = int(min(len(content), told["max_tokens"]) * told["train_share"])
    return np.array([ids[character] for character in content[:end]], np.uint8), 1 + len(ids)


def settings(preset: str, **changes: Any) -> TrainConfig:
    """A preset's training. The defaults are read from the source of the configuration, which cannot be loaded here."""
    module = ast.parse((STAGES / "config.py").read_text(encoding="utf-8"))
    [declared] = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "TrainConfig"]
    fields = [field for field in declared.body if isinstance(field, ast.AnnAssign) and field.value]
    defaults = {ast.unparse(field.target): ast.literal_eval(cast("ast.expr", field.value)) for field in fields}
    return cast("TrainConfig", SimpleNamespace(**{**defaults, **_preset(preset)["train"], **changes}))


def epochs(config: TrainConfig, ids: Ids, vocab_size: int) -> Iterator[list[Step]]:
    """The steps of the training loop, an epoch at a time and without end."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=(1,))))
    architecture = Recipe.of(config, vocab_size).architecture
    numbers = itertools.count(1)
    for epoch in itertools.count():
        minibatches = Minibatches(ids, config.batch_size, config.num_steps, config.partition, rng)
        yield [
            Step(
                inputs=inputs,
                targets=targets,
                masks=dropout.masks(config, architecture, inputs.shape[1], number),
                learning_rate=schedule.learning_rate(config, epoch + (index + 0.5) / len(minibatches), []),
                number=number,
                reset_state=index == 0 or config.partition == "random",
                averaging=schedule.averaging(config, number),
            )
            # The minibatches first: they end, and the numbers go on where they are.
            for index, ((inputs, targets), number) in enumerate(zip(minibatches, numbers, strict=False))
        ]


def _preset(name: str) -> dict[str, Any]:
    return tomllib.loads((STAGES / "presets" / f"{name}.toml").read_text(encoding="utf-8"))
