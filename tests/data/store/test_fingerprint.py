"""What counts as a change of code and what does not."""

from pathlib import Path

import pytest

from data.store import fingerprint

SOURCE = '''
"""Module docstring."""
from __future__ import annotations
from typing import TYPE_CHECKING
import os
import json
import numpy
from stages import helper
if TYPE_CHECKING:
    from stages import types

SIZE = 3

def work(x):
    """What it does."""
    from stages.deep import inner  # imported late
    return helper.help(x) + SIZE

class Model:
    """A model."""
    width = 2
    def forward(self, x):
        from stages import method
        return x * self.width
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "stages" / "deep").mkdir(parents=True)
    (tmp_path / "stages" / "__init__.py").write_text("")
    (tmp_path / "stages" / "work.py").write_text(SOURCE)
    (tmp_path / "stages" / "helper.py").write_text("from . import below\ndef help(x):\n    return below.base(x)\n")
    (tmp_path / "stages" / "below.py").write_text("def base(x):\n    return x\n")
    (tmp_path / "stages" / "types.py").write_text("class Config: ...\n")
    (tmp_path / "stages" / "method.py").write_text("VALUE = 1\n")
    (tmp_path / "stages" / "other.py").write_text("def nobody(): ...\n")
    (tmp_path / "stages" / "deep" / "__init__.py").write_text("")
    (tmp_path / "stages" / "deep" / "inner.py").write_text("VALUE = 1\n")
    # What happens to lie beside the project's packages, as it does where they are installed.
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("VALUE = 1\n")
    return tmp_path


def changed(tree: Path, name: str, text: str) -> list[str]:
    before = {"code": fingerprint.code("stages.work", root=tree)}
    (tree / "stages" / name).write_text(text)
    return fingerprint.difference("work", before, {"code": fingerprint.code("stages.work", root=tree)})


def test_follows_every_import_of_the_project_and_nothing_else(tree: Path) -> None:
    assert list(fingerprint.code("stages.work", root=tree)) == [
        "stages/below.py",
        "stages/deep/inner.py",
        "stages/helper.py",
        "stages/method.py",
        "stages/work.py",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# imported late", "# imported somewhat later"),
        ('"""What it does."""', '"""Says it in other words."""'),
        ('    """A model."""\n', ""),
        ("return x * self.width", "return (\n            x\n            * self.width\n        )"),
        ("import os\nimport json\n", "import json\nimport os\n"),
        ("from stages import types", "from stages import types, other"),
    ],
)
def test_what_cannot_change_a_result_does_not_count(tree: Path, old: str, new: str) -> None:
    assert old in SOURCE
    assert changed(tree, "work.py", SOURCE.replace(old, new)) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("+ SIZE", "- SIZE", "work"),
        ("SIZE = 3", "SIZE = 4", "module level"),
        ("x * self.width", "x + self.width", "Model.forward"),
        ("width = 2", "width = 3", "Model"),
        ("import os\n", "", "module level"),
    ],
)
def test_a_change_of_code_is_named_by_its_definition(tree: Path, old: str, new: str, where: str) -> None:
    assert changed(tree, "work.py", SOURCE.replace(old, new)) == [f"stages/work.py changed: {where}"]


def test_a_change_far_below_counts(tree: Path) -> None:
    assert changed(tree, "below.py", "def base(x):\n    return x + 1\n") == ["stages/below.py changed: base"]


def test_a_module_that_nobody_imports_does_not_count(tree: Path) -> None:
    assert changed(tree, "other.py", "def nobody():\n    return 1\n") == []
    assert changed(tree, "types.py", "class Config:\n    size = 1\n") == []


def test_another_class_of_error_does_not_count(tree: Path) -> None:
    (tree / "data").mkdir()
    (tree / "data" / "errors.py").write_text("class Error(Exception): ...\n")
    assert changed(tree, "helper.py", "from data.errors import Error\ndef help(x):\n    raise Error\n")
    assert "data/errors.py" not in fingerprint.code("stages.work", root=tree)


def test_differences_are_said_in_words() -> None:
    old = {"config": {"hidden_size": 256, "cell": "rnn"}, "inputs": {"tokens.arrow": "a" * 64}, "device": "cpu"}
    new = {"config": {"hidden_size": 512, "cell": "rnn"}, "inputs": {"tokens.arrow": "b" * 64}, "device": "gpu"}
    assert fingerprint.difference("train", old, new) == [
        "train.hidden_size: 256 → 512",
        "device: cpu → gpu",
        "tokens.arrow has other bytes",
    ]
    files = ("download/corpus.txt", "tokenize/tokens.arrow", "tokenize/vocab.arrow")
    before, after = ({"inputs": dict.fromkeys(files, digit * 64)} for digit in "ab")
    assert fingerprint.difference("x", before, after) == ["the corpus, tokens.arrow and vocab.arrow have other bytes"]
    (shown,) = fingerprint.difference("train", old, new, digests=True)[2:]
    assert shown == "tokens.arrow has other bytes (tokens.arrow aaaaaaaaaaaa… → bbbbbbbbbbbb…)"
    assert fingerprint.difference("train", {"libraries": {"numpy": "2.4"}}, {"libraries": {"numpy": "2.5"}}) == [
        "numpy 2.4 → 2.5"
    ]
    older: dict[str, object] = {"libraries": {"numpy": "2.4", "python": "3.11"}, "version": 1}
    newer: dict[str, object] = {"libraries": {"numpy": "2.5", "letters": "15.1"}, "version": 2}
    assert fingerprint.difference("train", older, newer) == [
        "the version of Python (3.11) no longer counts",
        "numpy 2.4 → 2.5",
        "format version of train: 1 → 2",
    ]


def test_equal_values_have_one_spelling() -> None:
    assert fingerprint.canonical({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'.encode()
    assert fingerprint.digest({"a": 1, "b": 2}) == fingerprint.digest({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint.canonical(float("nan"))


def test_every_python_gives_a_code_the_same_digests(tree: Path) -> None:
    """These are 3.11's. Pythons after it know more of a function, leave out what is empty, read formats anew."""
    (tree / "stages" / "work.py").write_text(
        "import os\n"
        "async def wait(*, time=-1.5, **other): return f'{time!r:>{WIDTH}}'\n"
        "class Model(Base):\n"
        "    width: int = 2\n"
        "    @property\n"
        "    def size(self): return [lambda: '' for _ in ()]\n"
    )
    assert fingerprint.code("stages.work", root=tree) == {
        "stages/work.py": {
            "<module>": "efd35fa3a8ffd0d6",
            "Model": "1dc6b996f144be18",
            "Model.size": "2ce5e766f6dc0bd1",
            "wait": "3304bcc9556bc2ed",
        }
    }
