"""What a stage's key is made of: pure functions from values, files and source code to digests, and back to words.

A key is the SHA-256 of its components written as canonical JSON. The components stay readable, definition by
definition, so that two keys that differ can say in words where.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from data.store import cache as known
from data.store import loaded, reading, syntax
from data.store.loaded import PACKAGES, Source

Components = Mapping[str, Any]
"""Nested mappings of JSON values: ``stage``, ``version``, ``config``, ``inputs``, ``code``, ``libraries``, …"""
ROOT = Path(__file__).parents[2]
"""The folder that holds the project's packages: a clone, or the place where all packages are installed."""
OUTSIDE = {
    "data.errors": "which class an error has, and how it is worded, reaches no artifact",
    "data.store.cache": "what it remembers is what would be found out",
    "data.store.kernel": "what the operating system is asked for, it does",
    **dict.fromkeys((*PACKAGES, "data.store.loaded"), "what notes which code is loaded computes nothing"),
}
"""Modules that are in no key, and why."""
_SYNTAX = "data.store.syntax"
"""The module that reads a module."""


def canonical(value: object) -> bytes:
    """One spelling per JSON value: sorted keys, no white space, UTF-8; not-a-number and infinities are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: object) -> str:
    """SHA-256 of ``canonical(value)``, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    return reading.digest(path)


@cache
def letters() -> str:
    """Digest of what this Python makes lower case of, and of what it takes for white space; 12 hexadecimal digits.

    The version of its Unicode tables says less: mostly they grow by signs that neither is about.
    """
    name = known.named(sys.version, "letters")
    found = known.get("code", name)
    if not isinstance(found, str):
        every = array("I", range(sys.maxunicode + 1)).tobytes().decode(f"utf-32-{sys.byteorder[0]}e", "surrogatepass")
        each = every.replace("Σ", "σ").lower().split()  # of that letter it depends on what is beside it
        found = hashlib.sha256("\n".join(each).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        known.put("code", name, found)
    return found


def in_clone() -> bool:
    """Whether this code lies in a clone of the project, and not among the installed packages."""
    return (ROOT / "pyproject.toml").is_file()


def code(*modules: str, root: Path | None = None) -> dict[str, dict[str, str]]:
    """Digests of everything that some modules run out of the project's packages.

    ``{"stages/train.py": {"train": digest, "Trainer.step": digest, "<module>": digest}, …}`` for the modules themselves
    and every module of the project that they import, transitively, wherever in the code the import stands. Comments,
    docstrings, formatting, the order of imports and what only a type checker reads do not count; a file of nothing
    else, such as a package's docstring, is left out.

    Args:
        modules: their names, such as ``stages.train``.
        root: the folder of another copy of the project, whose files are read as they lie there now. None is the code
            that this process has loaded, whatever its files say by now.
    """
    digests = {}
    for module, source in _closure(modules, root):
        if definitions := _contents(source.text, _package(module, source))[1]:
            digests[_file(module, source)] = definitions
    return dict(sorted(digests.items()))


def edited(*modules: str) -> str:
    """Which file of those that `code` covers is another one than this process has loaded, in words.

    Empty where all are as they were, but for what does not count: a comment, a docstring, the formatting.
    """
    changes = (_edit(module, source) for module, source in _closure(modules, None))
    return min(filter(None, changes), default="")


def _edit(module: str, source: Source) -> str:
    path, package = _file(module, source), _package(module, source)
    try:
        for text in (source.path.read_bytes(), *source.later):
            if text != source.text and (now := _contents(text, package)) != (then := _contents(source.text, package)):
                changed = _names(then[1], now[1])
                return f"{path} was edited after this process had loaded it ({changed})"
    except OSError:
        return f"{path} was removed after this process had loaded it"
    except (SyntaxError, ValueError):  # an editor is at work on it, or git
        return f"{path} was edited after this process had loaded it (it cannot be parsed)"
    return ""


def _closure(modules: Iterable[str], root: Path | None) -> Iterator[tuple[str, Source]]:
    """Some modules of the project and all that they import of it; a name that is no module's is passed over."""
    waiting = [*modules]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name in OUTSIDE:
            continue
        seen.add(name)
        waiting.extend(_parents(name))
        source = _source(name, root)
        if source is not None:
            waiting.extend(_contents(source.text, _package(name, source))[0])
            yield name, source


def _file(module: str, source: Source) -> str:
    """A module's file as it stands in keys, such as ``stages/train.py``."""
    name = f"{module}.__init__" if source.path.name == "__init__.py" else module
    return f"{name.replace('.', '/')}.py"


def _package(module: str, source: Source) -> str:
    return module if source.path.name == "__init__.py" else module.rpartition(".")[0]


@cache
def _contents(source: bytes, package: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """What a module of a package imports, and the digests of its definitions.

    The same source is parsed once by one code and one Python, and what came of it is remembered.
    """
    reader = loaded.note(_SYNTAX, Path(syntax.__file__)).text
    name = known.named(sys.version, reader, package, source)
    found = known.get("code", name)
    if not isinstance(found, list) or [type(part) for part in found] != [list, dict]:
        imports, definitions = syntax.read(source, package)
        found = [imports, {of: digest(dumps)[:16] for of, dumps in sorted(definitions.items())}]
        known.put("code", name, found)
    imports, digests = found
    return tuple(imports), digests


def _source(module: str, root: Path | None) -> Source | None:
    """The source of a module of this project; None for anything else, an imported function for one."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    if root is None and (noted := loaded.source(module)):
        return noted
    base = (root or ROOT).joinpath(*module.split("."))
    path = next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
    if path is None:
        return None
    return Source(path, path.read_bytes()) if root else loaded.note(module, path)


def _parents(module: str) -> Iterator[str]:
    """Importing a.b.c runs a/__init__.py and a/b/__init__.py too."""
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def difference(stage: str, old: Components, new: Components, *, digests: bool = False) -> list[str]:
    """What changed between two keys of a stage, one phrase each; empty when nothing did.

    Args:
        stage: its name.
        old: the components of one key.
        new: those of the other.
        digests: whether to show those of inputs, which say nothing to most.
    """
    phrases: list[str] = []
    for component in sorted(old.keys() | new.keys()):
        before, after = old.get(component), new.get(component)
        if before == after:
            continue
        if component == "code":
            phrases.extend(_code_difference(before or {}, after or {}))
        elif component == "inputs" and (before or after):
            phrases.append(_input_difference(before or {}, after or {}, digests=digests))
        elif isinstance(before, Mapping) or isinstance(after, Mapping):
            before, after = before or {}, after or {}
            if component == "libraries" and "python" in before.keys() - after.keys():
                phrases.append(f"the version of Python ({before['python']}) no longer counts")
                both = before.keys() & after.keys()  # what has come in its place is no change
                before, after = ({name: each[name] for name in both} for each in (before, after))
            for name in sorted(before.keys() | after.keys()):
                if before.get(name) != after.get(name):
                    phrases.append(_phrase(stage, component, name, before.get(name), after.get(name)))
        else:
            phrases.append(_phrase(stage, component, "", before, after))
    return phrases


def _phrase(stage: str, component: str, name: str, before: object, after: object) -> str:
    change = f"{_show(before)} → {_show(after)}"
    match component:
        case "config" | "sources":
            return f"{stage}.{name}: {change}"
        case "libraries":
            return f"{name} {change}"
        case "version":
            return f"format version of {stage}: {change}"
        case _:
            return f"{component}: {change}"


def _show(value: object) -> str:
    if value is None:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    prefix, _, tail = text.rpartition(":")
    if len(tail) == 64 and all(character in "0123456789abcdef" for character in tail):
        return f"{prefix}:{tail[:12]}…" if prefix else f"{tail[:12]}…"
    return text


def _input_difference(old: Mapping[str, str], new: Mapping[str, str], *, digests: bool) -> str:
    """Of inputs, ``download/corpus.txt`` for one."""
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    *before, last = ("the corpus" if name == "download/corpus.txt" else name.rpartition("/")[2] for name in changed)
    named = f"{', '.join(before)} and {last} have" if before else f"{last} has"
    shown = "; ".join(f"{name} {_show(old.get(name))} → {_show(new.get(name))}" for name in changed)
    return f"{named} other bytes{f' ({shown})' if digests else ''}"


def _code_difference(old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before is None:
            yield f"{path} is now imported"
        elif after is None:
            yield f"{path} is no longer imported"
        elif before != after:
            yield f"{path} changed: {_names(before, after)}"


def _names(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Which definitions of a file differ."""
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    names = ["module level" if name == "<module>" else name for name in changed]
    more = f", and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}"
