"""Whether an artifact means what its stage makes: bytes may be as they were published, and still be no model.

Each function of a stage reads an artifact's folder, and raises a `StoreError` that names the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.errors import CorpusError, StoreError
from data.store.reading import read

if TYPE_CHECKING:
    from pathlib import Path

    from stages.pipeline.written import Kind, Source


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
    from stages.pipeline.written import Source

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
    from stages.pipeline.written import Baselines

    found = _parse(folder / "baselines.json", Baselines).losses
    if found.keys() != {"uniform", "unigram", f"{ORDER}gram"} or any([*one] != [*SPLITS] for one in found.values()):
        raise StoreError(f"{folder / 'baselines.json'} lacks a baseline: measure it again")


def evaluate(folder: Path) -> None:
    """Figures of each split, and texts."""
    from stages.pipeline.written import Metrics, Samples

    _parse(folder / "metrics.json", Metrics)
    _parse(folder / "samples.json", Samples)


def _parse(path: Path, kind: type[Kind]) -> Kind:
    from pydantic import ValidationError

    try:
        return kind.model_validate_json(read(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path} does not say what it should ({where}: {first['msg']})") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror})") from None
