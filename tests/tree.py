"""The map of the project, a line per folder and a line per file, taken from what each says of itself.

    .venv/bin/python tests/tree.py

Writes the block between the marks in README.md and in .github/CONTRIBUTING.md. A test runs it and expects no change.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent
FLOORS = ("flows", "stages", "data")
UNSAID = {
    "tests": "Tests, in the same folders as what they test; and measurements that are commands of their own.",
    "stages/library": "A folder for the path, with the one package that whoever installs this finds.",
    ".github": "How to change it, how it is released.",
    "data/corpus/sample.txt": "A short story, written for this project, so that everything runs offline.",
}
"""Path → the line of what has no place to say it itself."""
UNLISTED = ("tests/data/store/published/", "tests/data/store/formats/", "tests/benchmark/results/")
"""A store kept for a test, whose files are nobody's reading, and what the benchmark found."""


def files() -> list[PurePosixPath]:
    """The project's files, tracked or about to be, each before those in folders below it."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {PurePosixPath(name) for name in listed if not name.startswith(UNLISTED) and (ROOT / name).is_file()}
    return sorted(found, key=lambda path: (path.parent.parts, path.name))


def line(path: PurePosixPath) -> str:
    """What a file or folder says of itself, in one line: its docstring's or its comment's first, its page's first."""
    if str(path) in UNSAID:
        return UNSAID[str(path)]
    if (ROOT / path).is_dir():
        package = ROOT / path / "__init__.py"
        return line(path / ("__init__.py" if package.is_file() else "README.md"))
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    elif path.suffix == ".md":
        text = re.sub(r"^# .*\n+", "", text)
    else:
        text = re.sub(r"^(# |\{# |<!-- )", "", text)
    return text.partition("\n")[0].removesuffix(" #}").removesuffix(" -->").replace("``", "`")


def folders() -> str:
    """Every folder of the three floors, then the others at the top, as a block of text."""
    parents = {parent for path in files() for parent in path.parents if parent.parts and parent.parts[0] in FLOORS}
    ordered = sorted(parents, key=lambda path: (FLOORS.index(path.parts[0]), path.parts[1:]))
    rows = [
        ("  " * (len(path.parts) - 1) + f"{path.name}/", line(path))
        for path in [*ordered, *map(PurePosixPath, ("tests", ".github"))]
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(["```", *(f"{name:{width}}{said.replace('`', '')}" for name, said in rows), "```"])


def pages() -> str:
    """Every file of the three floors and of the tests, as lists of links from a page in ``.github/``."""
    found = [path for path in files() if path.parts[0] in (*FLOORS, "tests") and path.name != "__init__.py"]
    found.sort(key=lambda path: ([*FLOORS, "tests"].index(path.parts[0]), path.parent.parts[1:]))
    text, folder = [], PurePosixPath()
    for path in found:
        if path.parent != folder:
            folder = path.parent
            text += ["", f"**`{folder}/`**", ""]
        text.append(f"- [{path.name}](../{path}): {line(path)}")
    return "\n".join(text).strip()


BLOCKS = {"README.md": folders, ".github/CONTRIBUTING.md": pages}
"""Document → what stands between its marks."""


def written(document: str) -> str:
    """A document with its block as it should be."""
    text = (ROOT / document).read_text(encoding="utf-8")
    before, rest = text.split("<!-- tests/tree.py writes this -->\n")
    _, after = rest.split("<!-- to here -->\n")
    return f"{before}<!-- tests/tree.py writes this -->\n{BLOCKS[document]()}\n<!-- to here -->\n{after}"


if __name__ == "__main__":
    for name in BLOCKS:
        (ROOT / name).write_text(written(name), encoding="utf-8")
