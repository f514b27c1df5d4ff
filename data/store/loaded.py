"""What this process has loaded: the source of each module of the project as it was then, and the libraries' versions.

Somebody edits a file, pulls or upgrades while a process runs: what it holds is the old code, and what it makes is the
old code's. So keys are made from what is noted here, and not from files as they lie there by then; and whoever
publishes asks first whether they still are the same.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType, ModuleType

BEGAN = time.time_ns()
"""When this process began to look at files, before it loaded any other module of the project."""
PACKAGES = ("data", "stages", "flows")
"""The project's code is these, whatever else lies beside them. Each calls `record` before anything of it is loaded."""
_ROOT = str(Path(__file__).parents[2])
LIBRARIES = ("mxnet", "numpy", "pyarrow", "safetensors", "tokenizers", "torch")
"""The distributions that a stage's result can depend on; MXNet's builds for a GPU are called mxnet-cu…."""


@dataclass
class Source:
    """A module's file, and what stood in it."""

    path: Path
    text: bytes
    """When this process saw it first: when it loaded the module, or made a key of it before that."""
    later: list[bytes] = field(default_factory=list)
    """What else the module was loaded from afterwards."""


_sources: dict[str, Source] = {}
_versions: dict[str, str] = {}


def record() -> None:
    """Note from now on what is loaded of the project, and which versions of libraries are installed now."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    _versions.update(_installed())
    for name in LIBRARIES[1:]:  # a notebook may have loaded one before, and another version may have come since
        loaded = str(getattr(sys.modules.get(name), "__version__", ""))
        if name in _versions and loaded and _release(loaded) != _release(_versions[name]):
            _versions[name] = loaded
    for name, module in [*sys.modules.items()]:
        if _ours(name) and (file := getattr(module, "__file__", None)):
            note(name, Path(file))


def source(module: str) -> Source | None:
    """What is noted of a module; None where this process has not seen it."""
    return _sources.get(module)


def files() -> list[Path]:
    """The files of all modules that are noted."""
    return [source.path for source in _sources.values()]


def note(module: str, path: Path) -> Source:
    """Read a module's file, and note what stands in it; what was noted first stays."""
    text = path.read_bytes()
    noted = _sources.setdefault(module, Source(path, text))
    if text != noted.text:
        noted.later.append(text)
    return noted


def versions(library: str) -> dict[str, str]:
    """Distribution → version of a library's builds, as this process began; empty where there is none."""
    return {name: version for name, version in _versions.items() if name.partition("-")[0] == library}


def version(library: str) -> str:
    """The version of a library as this process began, and the name of its build, where that has one of its own.

    Empty where there is none. Where there are two, the build for a GPU is what the user meant.
    """
    found = versions(library)
    name = max(found, key=lambda name: name != library, default="")
    return found.get(name, "") + (f" ({name})" if name not in ("", library) else "")


def exchanged(libraries: Sequence[str]) -> str:
    """Which of some libraries has another version than this process began with, in words; empty where none has."""
    now = _installed()
    for name in sorted(_versions.keys() | now.keys()):
        before, after = _versions.get(name, "absent"), now.get(name, "absent")
        if before != after and name.partition("-")[0] in libraries:
            return f"{name} {before} became {after} after this process had begun"
    return ""


def _release(version: str) -> str:
    """Without what torch adds: 2.13.0+cpu, and +cu130 that only the loaded module says."""
    return version.partition("+")[0]


def _ours(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


def _installed() -> dict[str, str]:
    """Distribution → version, of the libraries.

    The ``importlib.metadata`` that says the same takes longer to load than all this.
    """
    found: dict[str, str] = {}
    for entry in sys.path:
        with suppress(OSError), os.scandir(entry or ".") as folders:  # it may be gone, or an archive
            for folder in folders:
                if folder.name.endswith(".dist-info"):
                    name = folder.name.partition("-")[0].lower().replace("_", "-")
                    if name in LIBRARIES or name.startswith("mxnet-cu"):
                        found.setdefault(name, _version(Path(folder.path, "METADATA")))
    return found


def _version(metadata: Path) -> str:
    with suppress(OSError), metadata.open(encoding="utf-8", errors="replace") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("Version:")), "unknown")
    return "unknown"


def _outdated(path: str) -> bool:
    """Whether what Python keeps compiled of a file is older than the file.

    Python itself goes by the second and the length, and runs the old code after an edit that leaves both as they were.
    """
    with suppress(OSError, NotImplementedError):
        return Path(cache_from_source(path)).stat().st_mtime_ns < Path(path).stat().st_mtime_ns
    return False


class _Loader(SourceFileLoader):
    """Notes what stands in a module's file, and then loads the module from it."""

    def get_code(self, fullname: str) -> CodeType | None:
        # Whoever edits between these two lines is noticed: the file is no longer what was noted.
        note(fullname, Path(self.path))
        if _outdated(self.path):
            return self.source_to_code(self.get_data(self.path), self.path)
        return super().get_code(fullname)


class _Finder:
    """Lets every module of the project be loaded by `_Loader`, from where this one lies: other folders on the path may
    be called so too."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not _ours(name):
            return None
        spec = PathFinder.find_spec(name, [_ROOT] if path is None else path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(name, spec.loader.path)
        return spec
