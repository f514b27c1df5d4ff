"""How the commands print what they found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data import shown
from data.shown import line


def print_json(value: dict[str, Any]) -> None:
    """Print the one object of ``--json``."""
    print(written(value), end="")


def written(value: dict[str, Any]) -> str:
    """The same as text."""
    return shown.escaped(json.dumps(value, indent=1, ensure_ascii=False)) + "\n"


def short(path: Path) -> Path:
    """A path as short as it can be typed from here."""
    try:
        return path.relative_to(Path.cwd())
    except (OSError, ValueError):  # there is no such folder any more, or it is no part of the path
        return path


def tree(components: dict[str, Any], indent: str = "  ") -> list[str]:
    """What a key is made of as lines, ``name: value`` each, what lies deeper further to the right."""
    lines = []
    for name, value in components.items():
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{name}")
            lines.extend(tree(value, indent + "  "))
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(f"{indent}{line(name)}: {line(text)}")
    return lines
