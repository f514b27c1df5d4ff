"""Whether an artifact means what its stage makes: bytes may be as they were published, and still be no model.

Each function of a stage reads an artifact's folder, and raises a `StoreError` that names the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data.errors import CorpusError, StoreError
from data.store.reading import SMALL, read

if TYPE_CHECKING:
    from pathlib import Path

    from stages.pipeline.written import Kind, Metrics, Source, Trained

_TEXTS = 1 << 26
"""Bytes of what a model wrote, at most."""


def anything(folder: Path) -> None:
    """What is asked of a stage that has no check of its own."""


def download(folder: Path) -> None:
    """A text that is UTF-8, where it comes from, and where its documents lie, if there are several."""
    from data.corpus.encoding import check_utf8
    from data.tables.documents import Documents

    many, text = source(folder).documents is not None, folder / "corpus.txt"
    try:
        check_utf8("the text", text)
    except (OSError, CorpusError):
        raise StoreError(f"{text} is no text in UTF-8: download again") from None
    if many and text.stat().st_size - Documents.read(folder / "documents.arrow").end not in (0, 1):
        raise StoreError(f"{folder / 'documents.arrow'} does not fit its text: download again")


def source(folder: Path) -> Source:
    """Where the text of a download comes from."""
    from stages.pipeline.written import Source

    return _parse(folder / "source.json", Source)


def tokenize(folder: Path) -> None:
    """Ids that the vocabulary has, of a kind of text that is known; where there are documents, all ids are theirs."""
    from data.corpus.level import LEVELS
    from data.corpus.text import NORMALIZERS
    from data.tables.borders import DOCUMENTS, Borders
    from data.tables.tokens import IndexTable
    from data.tables.vocab import Vocab

    table = IndexTable.open(folder / "tokens.arrow")
    vocab = Vocab.read(folder / "vocab.arrow", merged=table.level == "bpe")
    known = table.level in LEVELS and table.normalizer in NORMALIZERS
    if not known or len(vocab) != table.vocab_size or vocab.ends is not table.ends:
        raise StoreError(f"{folder / 'tokens.arrow'} does not fit its vocabulary: tokenize again")
    if misfit := vocab.misfit(LEVELS[table.level]):
        raise StoreError(f"{folder / 'vocab.arrow'} has {misfit}, which is no {table.level}: tokenize again")
    if (path := folder / DOCUMENTS).exists() and Borders.read(path).tokens.sum() != len(table.ids):
        raise StoreError(f"{path} has other documents than {folder / 'tokens.arrow'}: tokenize again")


def train(folder: Path) -> None:
    """A model that loads, and how its training went."""
    from stages.lm.model import LanguageModel

    LanguageModel.load(folder)
    history(folder)
    trained(folder)


def history(folder: Path) -> dict[str, list[Any]]:
    """How a training went."""
    from data.tables import history

    path = folder / "history.arrow"
    if None in (*(found := history.read(path))["grad_norm_mean"], *found["grad_norm_max"]):
        raise StoreError(f"{path} lacks norms of gradients: train again")
    return found


def trained(folder: Path) -> Trained:
    """What a model's description says of its training."""
    from stages.pipeline.written import Trained

    return _parse(folder / "config.json", Trained)


def baselines(folder: Path) -> None:
    """A loss of each baseline on each split."""
    from stages.pipeline.written import Baselines

    _parse(folder / "baselines.json", Baselines)


def evaluate(folder: Path) -> None:
    """Figures of each split, and texts."""
    from stages.pipeline.written import Samples

    metrics(folder)
    _parse(folder / "samples.json", Samples, _TEXTS)


def metrics(folder: Path) -> Metrics:
    """What an evaluation measured."""
    from stages.pipeline.written import Metrics

    return _parse(folder / "metrics.json", Metrics)


def _parse(path: Path, kind: type[Kind], most: int = SMALL) -> Kind:
    from pydantic import ValidationError

    from data.store.shape import parsed

    try:
        return parsed(kind, read(path, most))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        why = f"does not say what it should ({where}: {first['msg']})"
    except (ValueError, RecursionError):
        why = "is no JSON of ours"
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
    raise StoreError(f"{path} {why}: run again with --force {path.parent.parent.name}")
