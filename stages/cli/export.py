"""The command that writes a model as other programs take it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from data.errors import ConfigError
from data.store.naming import DEFAULT
from stages.cli import chosen
from stages.cli.options import Made, Model, Name, Place, configured

if TYPE_CHECKING:
    from collections.abc import Callable

Format = Literal["torch", "onnx", "hf"]
_LACKING = {
    "torch": "--to torch needs PyTorch, which is not installed here: requirements-torch.txt says how",
    "onnx": "--to onnx needs onnx, which is not installed here: `pip install 'onnx>=1.23'` adds it",
}
"""What has to be installed → the sentence of whoever lacks it."""


@configured
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What is to be made; an empty one is replaced.")],
    *,
    to: Annotated[Format, typer.Option(help="For PyTorch alone, for runtimes of ONNX, or for a model hub.")],
    model: Model = None,
    name: Name = DEFAULT,
    preset: Made = None,
    place: Place,
) -> None:
    """Write a model as other programs take it, into a folder of its own that says how it is used."""
    from stages.export import folder as exported

    exported.check(folder)
    write = _writer(to)
    found = chosen.asked(model, name, preset, place)
    with exported.made(folder) as out:
        write(found, out)
    print(f"{folder} is for {_FOR[to]}: its README.md says how it is used")


_FOR = {"torch": "PyTorch", "onnx": "ONNX", "hf": "a model hub"}


def _writer(to: Format) -> Callable[[Path, Path], None]:
    """What fills the folder.

    Raises:
        ConfigError: its library is not installed.
    """
    try:
        match to:
            case "torch":
                from stages.export.torch import write
            case "onnx":
                from stages.export.onnx import write
            case "hf":
                from stages.export.hub import write
    except ModuleNotFoundError as error:
        if error.name not in _LACKING:
            raise
        raise ConfigError(_LACKING[error.name]) from None
    return write
