"""Where a file is cut into parts, and that what is read of them is the text."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from data import cores
from data.corpus import parts, text
from data.corpus.parts import Part, cut, passes
from data.errors import CorpusError

LINES = "\ufeffOne,\r\ntwo:\n\n\u0301\n\ufeff three 🙂\rand four\n five"


@pytest.mark.parametrize("end", ["", "\n"])
def test_parts_end_with_a_line_and_are_read_as_the_text_is(tmp_path: Path, end: str) -> None:
    path = tmp_path / "corpus.txt"
    content = (LINES + end).encode()
    path.write_bytes(content)
    for size in range(1, len(content) + 2):
        cuts = cut(path, size)
        assert (cuts[0].start, cuts[-1].stop) == (0, len(content))
        for one, after in itertools.pairwise(cuts):
            assert one.stop == after.start >= one.start + size
            assert content[: one.stop].endswith(b"\n")
        for chunk in (1, 5, text.CHUNK):
            read = "".join("".join(text.read(path, chunk, part=part)) for part in cuts)
            assert read == "".join(text.read(path)) == "One,\ntwo:\n\n\u0301\n\ufeff three 🙂\nand four\n five" + end


def test_a_text_without_line_ends_is_one_part(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    for length in (0, 1, 1000):
        path.write_bytes(b"x" * length)
        assert cut(path, 10) == [Part(0, length)]


def test_other_bytes_than_utf8_are_located_in_the_file_and_not_in_its_part(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"a line\n" * 5 + b"a \xff\n")
    last = cut(path, 10)[-1]
    assert last.start == 28
    for size in (1, text.CHUNK):
        with pytest.raises(CorpusError, match="see byte 37"):
            list(text.read(path, size, part=last))


def test_random_texts_are_normalised_part_by_part(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    chance = random.Random(3)
    for _ in range(100):
        path.write_text("".join(chance.choices("aB .\n\u0301", k=60)), encoding="utf-8")
        cuts = cut(path, chance.randrange(1, 30))
        for rule in ("book", "lower+nfc", "none+nfc+lines"):
            whole = "".join(text.normalize(text.read(path), rule, "char"))
            each = ["".join(text.normalize(text.read(path, part=part), rule, "char")) for part in cuts]
            assert "".join(each) == whole


def sleep(part: Part, seconds: int, *, folder: Path) -> Part:
    time.sleep(seconds)
    return part


def interrupted(path: Path) -> None:
    with passes(cut(path), 1, lambda *report: None, path.parent) as over:
        for _ in over(sleep, cut(path), [0, 120, 120]):
            raise KeyboardInterrupt


def test_what_fails_does_not_wait_for_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"one\ntwo\nthree\n")
    for name, value in (("SIZE", 1), ("LARGE", 0)):
        monkeypatch.setattr(parts, name, value)
    monkeypatch.setattr(cores, "available", lambda: 2)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert time.monotonic() - began < 60


def test_one_part_is_worth_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"a line without an end")
    monkeypatch.setattr(parts, "LARGE", 0)
    monkeypatch.setattr(cores, "available", lambda: 2)
    with passes(cut(path), 1, lambda *report: None, tmp_path) as over:
        assert list(over(lambda part, folder: (os.getpid(), folder), cut(path))) == [(os.getpid(), tmp_path)]


def test_the_parts_of_a_large_text_have_a_size_that_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"a line of it\n" * 1000)
    for name, value in (("SIZE", 10), ("MOST", 4), ("BOUND", 100)):
        monkeypatch.setattr(parts, name, value)
    with passes(cut(path), 1, lambda *report: None, tmp_path) as over:
        sizes = list(over(lambda part, folder: part.stop - part.start, cut(path)))
    assert max(sizes) < 100 + len("a line of it\n")
    assert sum(sizes) == 13_000


def test_no_more_is_begun_than_may_be_under_way() -> None:
    begun: list[int] = []

    def begin() -> Iterator[Callable[[], int]]:
        for number in range(9):
            begun.append(number)
            yield partial(int, number)

    for number in parts.ahead(begin(), lambda: 3):
        assert len(begun) <= number + 3
    assert number == 8
