"""The options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.pipeline import presets

if TYPE_CHECKING:
    from data.store.folder import Store
    from stages.config import RunConfig


def as_text(value: str | list[str] | None) -> str | list[str] | None:
    """What an option takes as text: UTF-8. For the callback of each such option."""
    for one in [value] if isinstance(value, str) else value or ():
        if not _is_utf8(one):
            raise typer.BadParameter(
                f"{one} is not UTF-8, as text has to be: type it in a terminal that is set to UTF-8"
            )
    return value


def as_corpus(value: str | None) -> str | None:
    """What an option takes as a corpus: a path that is not UTF-8 becomes an address, so that manifests can name it."""
    return value if _is_utf8(value or "") else Path(value or "").absolute().as_uri()


def _is_utf8(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


Preset = Annotated[str, typer.Option(metavar="NAME|FILE", help="A preset (see `rnnlm presets`), or such a TOML file.")]
Corpus = Annotated[
    str | None,
    typer.Option(
        callback=as_corpus,
        metavar="NAME|URL|PATH",
        help="The text: a name (see `rnnlm corpora`), an address, a file, a folder, or - for standard input.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        callback=as_text,
        metavar="STAGE.FIELD=VALUE",
        help="Set a field, train.hidden_size=512 for one; repeatable.",
    ),
]
Force = Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Rerun this stage although cached; repeatable.")]
From = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Rerun this stage and all after it.")]
Model = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="A model's folder. [default: the store's champion, else its newest]"),
]
Made = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME|FILE", help="Instead: the model that a run of this preset has made."),
]
StoreAt = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where artifacts live. [default: $RNNLM_STORE, else the clone's data/artifacts]"),
]
RemoteAt = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="What machines share: s3://BUCKET/PREFIX, gs://… or az://… [default: $RNNLM_REMOTE, else nothing]",
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS|local:N",
        help="Work on the Dask cluster of this scheduler, whose workers see the same store, or remote; local:4 is four "
        "processes of this machine.",
    ),
]
Events = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard",
        metavar="DIR",
        help="Write the figures of each epoch there as well, as TensorBoard shows them: a folder for each training.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Name = Annotated[str, typer.Option(metavar="NAME", help="Which champion: a store has one for each name.")]
Reason = Annotated[str, typer.Option(callback=as_text, metavar="TEXT", help="Why, for the history.")]


@dataclass(frozen=True)
class Configuration:
    """The options that a run's configuration is made of."""

    preset: Preset = presets.DEFAULT
    corpus: Corpus = None
    set_: Set = None

    def load(self) -> RunConfig:
        """Read it.

        Raises:
            ConfigError: a preset, field or value that is not there or does not fit.
        """
        from stages.pipeline import settings

        return settings.load(self.preset, self.corpus, self.set_ or ())

    def files(self, config: RunConfig) -> Iterator[Path]:
        """Where it was read from, and the texts that it names, as far as they are files; others it does not know of."""
        from data.corpus import catalogue

        yield Path(self.preset).expanduser()
        yield from catalogue.resolve(config.download.corpus).looked_at()


@dataclass(frozen=True)
class Place:
    """The options that say where artifacts are kept."""

    store: StoreAt = None
    remote: RemoteAt = None

    def open(self) -> Store:
        """The store, nothing of which is looked at yet.

        Raises:
            ConfigError: what cannot be a folder or a remote.
            StoreError: the name of a file.
        """
        from data.store.folder import open_store

        return open_store(self.store, self.remote)


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """A command as Typer reads it: where a parameter is a `Configuration` or a `Place`, the options of that stand."""
    taken = signature(command, eval_str=True).parameters
    groups = {name: one.annotation for name, one in taken.items() if one.annotation in (Configuration, Place)}
    options = {name: signature(group, eval_str=True).parameters for name, group in groups.items()}
    parameters: list[Parameter] = []
    for name, parameter in taken.items():
        parameters.extend(options[name].values() if name in options else [parameter])

    @wraps(command)
    def flat(**given: Any) -> None:
        grouped = {
            name: group(**{option: given.pop(option) for option in options[name]}) for name, group in groups.items()
        }
        command(**grouped, **given)

    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    by_keyword = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    flat.__signature__ = signature(flat).replace(parameters=by_keyword)  # type: ignore[attr-defined]
    return flat
