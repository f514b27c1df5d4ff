"""Whether an artifact means what its stage makes: bytes may be as they were published, and still be no model.

Each function of a stage reads an artifact's folder, and raises a `StoreError` that names the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from data.errors import CorpusError, StoreError
from data.store.reading import read

if TYPE_CHECKING:
    from pathlib import Path

Kind = TypeVar("Kind", bound=BaseModel)


class Written(BaseModel):
    """A file of JSON; it may hold more than is asked for here."""

    model_config = ConfigDict(allow_inf_nan=False)


class Source(Written):
    """``source.json`` of `download`."""

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: int
    when: str


class Baselines(Written):
    """``baselines.json``."""

    losses: dict[str, dict[str, float | None]]
    fitted_on: int


class Figures(Written):
    """Of one split."""

    loss: float
    perplexity: float
    bits_per_character: float
    tokens: int


class Measured(Figures):
    """The same of a model."""

    unknown_rate: float


class Memorization(Written):
    """What a model has by heart."""

    length: int
    windows: int
    share: float | None


class Metrics(Written):
    """``metrics.json`` of `evaluate`."""

    train: Measured | None
    valid: Measured | None
    test: Measured | None
    baselines: dict[str, dict[str, Figures | int | None]]
    memorization: Memorization


class Sample(Written):
    """One of ``samples.json``."""

    prefix: str
    temperature: float
    text: str


class Samples(RootModel[list[Sample]]):
    """All of it."""


def anything(folder: Path) -> None:
    """What is asked of a stage that has no check of its own."""


def download(folder: Path) -> None:
    """A text that is UTF-8, and where it comes from."""
    from data.corpus.encoding import check_utf8

    source(folder)
    try:
        check_utf8("the text", folder / "corpus.txt")
    except (OSError, CorpusError):
        raise StoreError(f"{folder / 'corpus.txt'} is no text in UTF-8: download again") from None


def source(folder: Path) -> Source:
    """Where the text of a download comes from."""
    return _parse(folder / "source.json", Source)


def tokenize(folder: Path) -> None:
    """Ids that the vocabulary has, of a kind of text that is known."""
    from data.corpus.level import LEVELS
    from data.corpus.text import NORMALIZERS
    from data.tables.tokens import IndexTable
    from data.tables.vocab import Vocab

    table, vocab = IndexTable.open(folder / "tokens.arrow"), Vocab.read(folder / "vocab.arrow")
    if len(vocab) != table.vocab_size or table.level not in LEVELS or table.normalizer not in NORMALIZERS:
        raise StoreError(f"{folder / 'tokens.arrow'} does not fit its vocabulary: tokenize again")


def train(folder: Path) -> None:
    """A model that loads, and how its training went."""
    from data.tables import history
    from stages.lm.model import LanguageModel

    LanguageModel.load(folder)
    history.read(folder / "history.arrow")


def baselines(folder: Path) -> None:
    """A loss of each baseline on each split."""
    from data.tables.tokens import SPLITS
    from stages.lm.ngram import ORDER

    found = _parse(folder / "baselines.json", Baselines).losses
    if found.keys() != {"uniform", "unigram", f"{ORDER}gram"} or any([*one] != [*SPLITS] for one in found.values()):
        raise StoreError(f"{folder / 'baselines.json'} lacks a baseline: measure it again")


def evaluate(folder: Path) -> None:
    """Figures of each split, and texts."""
    _parse(folder / "metrics.json", Metrics)
    _parse(folder / "samples.json", Samples)


def _parse(path: Path, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate_json(read(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path} does not say what it should ({where}: {first['msg']})") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror})") from None
