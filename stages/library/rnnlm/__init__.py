"""The package `rnnlm`: the model as a library, under a name that collides with nothing; and the way into the command.

    import rnnlm

    model = rnnlm.LanguageModel.load(folder)

A program may have a package `data`, `stages` or `flows` of its own, and keeps it. So the floors are not loaded under
their names here, but as ``rnnlm.data`` and ``rnnlm.stages``, and what one of their modules imports of another comes
from there too: each is given an ``__import__`` of its own, where CPython looks for what an import statement calls.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data.errors import RnnlmError
    from stages.lm.model import LanguageModel
    from stages.scoring.adapting import adapting
    from stages.scoring.each import score_each

__all__ = ["LanguageModel", "RnnlmError", "adapting", "score_each"]

_ROOT = next(folder for folder in Path(__file__).parents if (folder / "stages" / "lm").is_dir())
"""Where the floors lie: in a clone this file is in one of them, installed it lies beside them."""
_FLOORS = ("data", "stages")
_WHERE = {
    "LanguageModel": "stages.lm.model",
    "RnnlmError": "data.errors",
    "adapting": "stages.scoring.adapting",
    "score_each": "stages.scoring.each",
}
"""What is there to use → its module. It is loaded when it is asked for: the command has no use for it."""


def main() -> None:
    """The command `rnnlm`, a process of our own: there the floors have their names, whatever else has them too."""
    if import_module(f"{__name__}.stages.cli.again").answered():
        return
    spec = PathFinder.find_spec("data", [str(_ROOT)])
    assert spec
    assert spec.loader
    sys.modules["data"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["data"])  # from now on it keeps the other floors to where it lies
    from stages.cli.__main__ import main

    main()


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def _import(name: str, *context: Any) -> ModuleType:
    """What the modules of the floors have for ``__import__``."""
    return builtins.__import__(f"{__name__}.{name}" if name.partition(".")[0] in _FLOORS else name, *context)


class _Loader(SourceFileLoader):
    """Loads a module that takes the floors from this package."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


class _Finder:
    """Finds the floors within this package."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, module = name.partition(".")
        if package != __name__ or module.partition(".")[0] not in _FLOORS:
            return None
        if module in _FLOORS:  # its folder alone: what it does first is for those who run stages
            spec: ModuleSpec | None = ModuleSpec(name, None, is_package=True)
            assert spec
            spec.submodule_search_locations = [str(_ROOT / module)]
            return spec
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder())
