"""The command that reads many texts and says of each how well a model foresees it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from data.errors import ConfigError, CorpusError
from data.progress import reporting
from data.store.naming import DEFAULT
from stages.cli import chosen
from stages.cli.models import meant, stream, text_of
from stages.cli.options import Made, Model, Name, Place, as_corpus, as_text, configured

if TYPE_CHECKING:
    from data.progress import Progress
    from stages.lm.model import LanguageModel
    from stages.scoring.texts import Entry

Unit = Literal["line", "document", "row"]
DECIMALS = 6
"""That are written of what is no whole number."""


@configured
def score(
    file: Annotated[str, typer.Argument(callback=as_corpus, metavar="FILE", help="The texts, named as for --corpus.")],
    *,
    per: Annotated[Unit, typer.Option(help="What is one text: a line, a document, or a row of a table.")],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Write .arrow, .parquet, .jsonl or .csv, in the place of an old one. "
            "[default: JSON lines on standard output]",
        ),
    ] = None,
    text_column: Annotated[
        str, typer.Option(callback=as_text, metavar="NAME", help="The column of a table that has the texts.")
    ] = "text",
    model: Model = None,
    name: Name = DEFAULT,
    preset: Made = None,
    place: Place,
) -> None:
    """Say of each line, document or row how well a model predicts it, and which word it foresaw least.

    Each is read by itself: no figure depends on the others. Sorted by bits_per_character, what is odd comes first.
    """
    from data.documents.joined import TEXT
    from stages.scoring import table
    from stages.scoring.plain import plain
    from stages.scoring.texts import entries, lines

    if to is not None:
        table.check(to)
        with suppress(OSError):
            if to.samefile(file):
                raise ConfigError(f"--to {to} is the text itself: name another file")
    language_model = chosen.load(chosen.asked(model, name, preset, place))
    with reporting() as reporter, _its_own_option(), ExitStack() as stack:
        if per == "line" and (found := plain(meant(file))):
            texts, size = lines(file, found.chunks), found.size
        else:
            folder = stack.enter_context(text_of(file, reporter("download"), text_column))
            texts, size = entries(folder, file, per), (folder / TEXT).stat().st_size
        rows = _rows(language_model, texts, size, reporter("score"))
        if to is None:
            stream(map(table.line, rows))
        else:
            table.write(to, rows)


def _rows(model: LanguageModel, texts: Iterator[Entry], total: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """The rows of the table; each tells how far it is, of so many bytes, or 0 where nobody knows."""
    from stages.scoring.each import score_each

    began, done, characters = time.monotonic(), 0, 0
    entry, again = itertools.tee(texts)
    for one, scored in zip(entry, score_each(model, (other.text for other in again)), strict=True):
        figures = {
            key: round(value, DECIMALS) if type(value) is float else value for key, value in vars(scored).items()
        }
        yield {"number": one.number, "name": one.name, **figures}
        done, characters = done + len(one.text.encode()) + 1, characters + len(one.text)
        progress(min(done, total or done), total, f"{characters / (time.monotonic() - began):,.0f} characters/s")


@contextmanager
def _its_own_option() -> Iterator[None]:
    """What names the column is an option here, and a field to everybody else."""
    try:
        yield
    except CorpusError as error:
        said = str(error).replace("--set download.text_column=", "--text-column ")
        raise type(error)(said.replace("download.text_column", "--text-column")) from None
