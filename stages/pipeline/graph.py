"""The four stages, declared once: the page to show people.

    download → tokenize → train → evaluate
                   └────────────────┘
                   └→ baselines ────┘

Everything that is special about one stage stands in its entry here. Whoever runs stages, the command line, a flow, a
night or a sweep, takes order and inputs from this graph. Adding a stage touches its own file, its section of the
configuration, and its entry (with the inputs of those that read it).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import ConfigError
from stages.pipeline import lend, sound
from stages.training import engines

if TYPE_CHECKING:
    from data.store.folder import Store


@dataclass(frozen=True)
class Input:
    """What a stage reads of another one."""

    stage: str
    files: tuple[str, ...]
    """The files of that stage's artifact that are read: the digests of these, and of no others, are in the key."""
    maybe: tuple[str, ...] = ()
    """Likewise, where the artifact has them."""


@dataclass(frozen=True)
class Stage:
    """One stage: what it runs, what it reads, and what else its key is made of."""

    name: str
    summary: str
    """One sentence for `rnnlm --help` and Prefect."""
    function: Callable[..., Mapping[str, float] | None]
    """``function(config, *, out, progress, …)`` writes its files into the empty folder ``out``. By keyword it is given
    the folder of each input, and what ``lend`` gives. Returns what it measured of its own speed."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    """Keyword of ``function`` → what is read."""
    sources: Callable[[Any], Mapping[str, str | None]] = lambda config: {}
    """Of the configuration: field → what stands in the key in that field's place, None for nothing. For a corpus it is
    the digest of its bytes, whatever its name; for engine and device, what they come down to here."""
    modules: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """Modules that the configuration chooses and ``lend`` gives, such as an engine's: their code is in the key without
    being imported by the stage."""
    libraries: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """Distributions whose numerics or formats the outputs depend on; their versions are in the key. `unicode` and
    `letters` stand for what Python knows of characters: all, or their lower case and white space."""
    check: Callable[[Path], None] = sound.anything
    """Raises a `StoreError` where what an artifact's folder holds is not what the stage makes."""
    lost: Callable[[Any, Mapping[str, Any], Store], str] = lambda config, components, store: ""
    """Of the configuration, the components of the key and the store: what was begun and will not be gone on with, in a
    sentence; empty for nothing."""
    lend: lend.Lend = lend.nothing
    """A context that gives the function what changes no byte of its result, by keyword."""
    shown: bool = True
    """Whether people are told of it. What is not shown has no settings, and runs before the stages that read it."""
    version: int = 1
    """Raised when the outputs change their meaning though no code of the stage does."""


def late(module: str) -> Callable[..., Mapping[str, float] | None]:
    """The function that has its module's name, loaded when it is called: who asks what there is needs no stage."""

    def function(*arguments: Any, **named: Any) -> Mapping[str, float] | None:
        found: Callable[..., Mapping[str, float] | None] = getattr(import_module(module), function.__name__)
        return found(*arguments, **named)

    function.__module__, function.__name__ = module, module.rpartition(".")[2]
    return function


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "download",
            "Get the corpus and check that it is text.",
            late("stages.download"),
            sources=lend.corpus,
            libraries=lambda config: ("pyarrow",),
            check=sound.download,
            lend=lend.previous_download,
        ),
        Stage(
            "tokenize",
            "Turn the corpus into a vocabulary and an index table.",
            late("stages.tokenize"),
            inputs={"corpus": Input("download", ("corpus.txt",), maybe=("documents.arrow",))},
            libraries=lambda config: (
                *("numpy", "pyarrow", "unicode" if config.nfc else "letters"),
                *(["tokenizers"] if config.level == "bpe" else []),
            ),
            check=sound.tokenize,
            lend=lend.workers,
        ),
        Stage(
            "train",
            "Train the model, or go on where training stopped.",
            late("stages.train"),
            inputs={"tokens": Input("tokenize", ("tokens.arrow", "vocab.arrow"), maybe=("merges.arrow",))},
            sources=lend.computing,
            modules=lambda config: (*engines.choose(config).modules, *([lend.MIXING] if config.ngram else [])),
            libraries=lambda config: (*engines.choose(config).libraries, "numpy", "pyarrow", "safetensors"),
            check=sound.train,
            lost=lend.lost,
            lend=lend.training,
        ),
        Stage(
            "baselines",
            "Measure what the text costs without a model.",
            late("stages.lm.baselines"),
            inputs={"tokens": Input("tokenize", ("tokens.arrow",))},
            libraries=lambda config: ("numpy",),
            check=sound.baselines,
            shown=False,
        ),
        Stage(
            "evaluate",
            "Measure the model and write the report.",
            late("stages.evaluate"),
            inputs={
                "model": Input(
                    "train", ("model.safetensors", "config.json", "vocab.arrow"), maybe=("merges.arrow", "ngrams.arrow")
                ),
                "tokens": Input("tokenize", ("tokens.arrow",)),
                "baselines": Input("baselines", ("baselines.json",)),
            },
            libraries=lambda config: ("numpy", "unicode"),
            check=sound.evaluate,
            lend=lend.evaluation,
        ),
    )
}
LAST = "evaluate"
"""Where a whole run ends."""


def shown() -> list[str]:
    """The stages that people are told of, in the order in which they run."""
    return [name for name in order(LAST) if STAGES[name].shown]


def order(until: str) -> list[str]:
    """A stage and all that it is made from, each after what it reads."""
    found: list[str] = []

    def visit(name: str) -> None:
        # As they are declared, where what they read leaves a choice.
        before = {one.stage for one in STAGES[name].inputs.values()}
        for other in STAGES:
            if other in before:
                visit(other)
        if name not in found:
            found.append(name)

    visit(until)
    return found


def after(name: str) -> set[str]:
    """A stage and all that is made from it."""
    return {other for other in STAGES if name in order(other)}


def files_read(name: str) -> set[str]:
    """The files of a stage that other stages read."""
    inputs = (one for stage in STAGES.values() for one in stage.inputs.values())
    return {file for one in inputs if one.stage == name for file in one.files}


def forced(force: Collection[str], from_stage: str | None = None) -> set[str]:
    """The stages that ``--force`` and ``--from`` rerun.

    Raises:
        ConfigError: a name that is no stage.
    """
    names = shown()
    for name in [*force, *([] if from_stage is None else [from_stage])]:
        if name not in names:
            raise ConfigError(f"there is no stage {name!r}: the stages are {', '.join(names)}")
    return set(force) | (set() if from_stage is None else after(from_stage))
