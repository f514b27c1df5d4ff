"""The rules: from a text, a speed and a time to the settings of a run, each with its reason.

They are drawn between the presets and the table of single things in `stages/presets/README.md`, and say nothing that
was not measured of texts far from those: what is known and what is not stands there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from data.errors import ConfigError, CorpusError
from stages.config import TrainConfig
from stages.lm.mixture import FEWEST
from stages.suggestion.speed import met
from stages.suggestion.text import ORDERS

if TYPE_CHECKING:
    from data.corpus.text import LevelName
    from stages.suggestion.speed import Speed
    from stages.suggestion.text import Text

SIZES = (64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768)
"""Hidden units that come into question; wider networks were not measured."""
TIMED = (128, 384)
"""Those whose speed is measured. MXNet takes one core for both."""
SHORTEST = 500
"""Tokens of a text that something can be said about."""
_TRAINING = 0.85
"""Of the time; the rest is for counting and measuring, and for a machine that is busier than it was."""
_MOST_EPOCHS: dict[LevelName, int] = {"char": 40, "letter": 40, "word": 70, "bpe": 40}
_MOST_NETWORKS = 8
_RATES: dict[LevelName, tuple[float, float]] = {
    "char": (6, 0.03),
    "letter": (6, 0.03),
    "word": (2, 0.015),
    "bpe": (1.6, 0.01),
}
"""Of learning: the first over the hidden units, and the second at most. Lower ones are worse; of characters 7 over the
units are better for some texts, and worse for others."""
_WIDTHS: dict[LevelName, tuple[int, int]] = {
    "char": (256, 45_000),
    "letter": (256, 45_000),
    "word": (128, 41_000),
    "bpe": (160, 77_000),
}
"""Hidden units that a text of so many tokens to learn from can use."""
_ENOUGH: dict[LevelName, float] = {"char": 2, "letter": 2, "word": 3.5, "bpe": 2.8}
_REPEATING: dict[LevelName, float] = {"char": 0.3, "letter": 0.3, "word": 0.15, "bpe": 0.15}
"""Dropout of outputs at most, of a text that repeats itself."""
_HELD_OUT, _MEASURED = 2_000, 200_000
"""Tokens that a split which is measured has at least, if a tenth of the text has them, and needs at most."""
LONG = 10_000_000
"""Tokens of a text from which on n-grams that came once are left out."""


class Chosen(NamedTuple):
    """A field's value, and why."""

    value: Any
    reason: str = ""


@dataclass(frozen=True)
class Suggestion:
    """The settings of a run that are not the defaults, and what is to be said of them as a whole."""

    tokenize: dict[str, Chosen]
    train: dict[str, Chosen]
    minutes: float
    """That the training will take."""
    warnings: tuple[str, ...]


def suggest(text: Text, speed: Speed, minutes: float) -> Suggestion:
    """The settings that the rules give; the same for the same arguments.

    Args:
        text: what is to be learnt.
        speed: of the machine.
        minutes: that the training may take.

    Raises:
        ConfigError: too little time for one epoch.
        CorpusError: a text too short.
    """
    check_length(text)
    share = _share(text.tokens)
    learnt = int(text.tokens * (1 - 2 * share))
    size, networks, epochs = _size(text, learnt, speed, 60 * minutes * _TRAINING)
    config = TrainConfig(**network(text.level, size))
    seconds = networks * epochs * learnt * speed.seconds(met(config, text.vocab_size))
    train = {
        **{name: Chosen(value) for name, value in network(text.level, size).items()},
        **_passes(learnt, epochs),
        **_dropped(text, epochs),
        **_counted(text),
    }
    times = f"{networks * epochs:,} times"
    train["hidden_size"] = Chosen(size, f"the widest that this text can use and that reads it {times} in time")
    if networks > 1:
        train["networks"] = Chosen(networks, "each from a seed of its own: better than one that is trained for as long")
    held_out = int(text.tokens * share)
    tokenize = {
        "train_share": Chosen(round(1 - 2 * share, 4)),
        "valid_share": Chosen(share, f"{held_out:,} tokens, which the shares of network and n-gram are chosen on"),
        "test_share": Chosen(share),
    }
    return Suggestion(tokenize, train, seconds / 60, tuple(_warnings(text, held_out, networks * epochs)))


def check_length(text: Text) -> None:
    """Refuse a text too short to say anything about, before a speed is measured.

    Raises:
        CorpusError: it is.
    """
    if text.tokens < SHORTEST:
        raise CorpusError(
            f"the text has {text.tokens:,} tokens, and to suggest anything takes {SHORTEST:,}: give a longer one"
        )


def network(level: LevelName, size: int) -> dict[str, Any]:
    """The model of a width, and how its steps are made."""
    words = level in ("word", "bpe")
    over, most = _RATES[level]
    return {
        "cell": "lstm",
        "hidden_size": size,
        "embedding_size": size if words else 32 if size < 256 else 64 if size < 512 else 128,
        **({"tie_weights": True} if words else {}),
        "initializer": "uniform",
        "optimizer": "adamw",
        "learning_rate": float(f"{min(most, over / size):.2g}"),
        "weight_decay": 0.1,
        "schedule": "cosine",
        "clip_norm": 0.5 if words else 1.0,
        "averaging": 0.0,
    }


def timed(level: LevelName, size: int) -> dict[str, Any]:
    """What speed is measured with: dropout as most suggestions have it, and the shortest minibatches, for longer ones
    are faster by up to a fifth."""
    dropped = {"input_dropout": 0.2, "output_dropout": 0.4}
    return {**network(level, size), **dropped, "batch_size": 32, "num_steps": 32}


def wanted(learnt: int) -> int:
    """Epochs that a network should have before a wider one is better: 4 of a million tokens, 20 of 40,000."""
    return min(max(1, round(4 * math.sqrt(1e6 / learnt))), 20)


def enough(level: LevelName, learnt: int) -> int:
    """Epochs that a network should have before a second one is better: 8 of a million characters, 14 of 300,000, 36 of
    50,000; more of words, of which one that reads 40,000 of them 70 times is better than two."""
    return max(8, round(_ENOUGH[level] * wanted(learnt)))


def widest(text: Text, learnt: int) -> int:
    """Hidden units that a text can use: 256 for 45,000 characters, 384 for 300,000, 512 for a million; of words, which
    have a vector as wide each, 128 for 41,000 and 256 for 200,000, and twice as many where they repeat themselves."""
    units, tokens = _WIDTHS[text.level]
    # Of more characters than that, time is worth more in epochs and in further networks than in width.
    growth = 0.25 if text.level in ("char", "letter") and learnt > tokens else 0.43
    limit = units * (learnt / tokens) ** growth * (2 if text.repeats and text.level == "word" else 1)
    return min(SIZES, key=lambda size: abs(math.log(size / limit)))


def _size(text: Text, learnt: int, speed: Speed, seconds: float) -> tuple[int, int, int]:
    """Hidden units, networks, and epochs of each."""

    def passes(size: int) -> float:
        weights = met(TrainConfig(**network(text.level, size)), text.vocab_size)
        return seconds / (learnt * speed.seconds(weights))

    least = SIZES[0]
    if passes(least) < 1:
        needed = math.ceil(10 * seconds / passes(least) / _TRAINING / 60) / 10
        part = int(text.tokens * passes(least))
        raise ConfigError(
            f"one epoch of this text with the smallest network, {least} units, takes longer than that: give --minutes "
            f"{needed:g} or more, or a part of the text with --set tokenize.max_tokens={part}"
        )
    fitting = [size for size in SIZES if size <= widest(text, learnt) and passes(size) >= wanted(learnt)]
    size = max(fitting, default=least)
    networks = min(max(int(passes(size)) // enough(text.level, learnt), 1), _MOST_NETWORKS)
    return size, networks, min(_MOST_EPOCHS[text.level], int(passes(size) / networks))


def _share(tokens: int) -> float:
    """Of the validation split, and of the test split."""
    if tokens * 0.05 > _MEASURED:
        return float(f"{_MEASURED / tokens:.1g}")
    return min(0.1, max(0.05, math.ceil(100 * _HELD_OUT / tokens) / 100))


def _passes(learnt: int, epochs: int) -> dict[str, Chosen]:
    """Minibatches and epochs."""
    rows = next((rows for rows in (32, 16, 8) if learnt >= 16 * rows * 32), 4)
    updates = learnt * epochs / rows
    steps = next((steps for steps in (128, 64) if updates / steps >= 4_000), 32)
    return {
        "batch_size": Chosen(rows),
        "num_steps": Chosen(steps, "shorter where there would be too few steps" if steps < 128 else ""),
        "epochs": Chosen(epochs, "the rate has fallen to zero by then: another number is another training"),
        "warmup_epochs": Chosen(1.0 if epochs > 4 else 0.1),
    }


def _dropped(text: Text, epochs: int) -> dict[str, Chosen]:
    """What keeps a text from being learnt by heart."""
    if epochs < 4:
        inputs, outputs, recurrent = 0.0, 0.1, 0.0
        why = "it is hardly read twice: there is little to be learnt by heart"
    elif text.level == "word":
        inputs, outputs, recurrent = 0.4, 0.5, 0.3 if epochs >= 20 else 0.0
        why = "words come seldom, and would be learnt by heart"
    elif text.level == "bpe":
        inputs, outputs, recurrent = 0.2, 0.3, 0.2 if epochs >= 20 else 0.0
        why = "without it the text is learnt by heart"
    else:
        # Recurrent weights that are dropped only slow a short training.
        inputs, outputs, recurrent = (
            (0.1, 0.1, 0.0) if epochs < 10 else (0.1, 0.3, 0.0) if epochs < 20 else (0.2, 0.5, 0.2)
        )
        why = "without it the text is learnt by heart"
    most = _REPEATING[text.level]
    if text.repeats and outputs > most:
        outputs, why = most, "little, for the text repeats itself: what is learnt by heart comes again"
    dropped = {"input_dropout": inputs, "output_dropout": outputs, "weight_dropout": recurrent}
    return {name: Chosen(share, why if name == "output_dropout" else "") for name, share in dropped.items()}


def _counted(text: Text) -> dict[str, Chosen]:
    order = max(text.order, ORDERS[text.level])
    if text.tokens <= LONG:
        why = ": long, for the text repeats itself" if text.repeats else ", and better than either"
        return {"ngram": Chosen(order, f"mixed with the network{why}")}
    return {
        "ngram": Chosen(min(order, 6), "mixed with the network; no longer, for the text is long"),
        "ngram_min_count": Chosen(2, "those that came once would take most of the memory"),
    }


def _warnings(text: Text, held_out: int, passes: int) -> list[str]:
    said, most = [], _MOST_EPOCHS[text.level]
    if text.hopeless:
        said.append(
            "what comes before a token says nothing here of what comes next, as far as counting tells: no setting "
            "will be better than how often each token comes"
        )
    if held_out <= FEWEST:
        said.append(
            f"the validation split has {held_out:,} tokens, too few to choose by how much network and n-gram count: "
            "both will count alike"
        )
    if passes == _MOST_NETWORKS * most:
        said.append(
            f"{_MOST_NETWORKS} networks of {most} epochs are the most: by these rules more time would change nothing"
        )
    return said
