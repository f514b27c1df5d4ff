"""The tokenize stage on many documents: none in two splits, an end behind each, and what is much alike."""

from __future__ import annotations

import hashlib
import itertools
import logging
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from data import cores
from data.corpus import parts, together
from data.corpus.division import by_content
from data.corpus.level import LEVELS
from data.errors import CorpusError
from data.tables.borders import Borders
from data.tables.documents import Documents
from data.tables.tokens import END_ID, SPLITS, IndexTable
from data.tables.vocab import Vocab
from stages.config import TokenizeConfig
from stages.tokenize import tokenize

WORDS = ["the", "sea", "was", "calm", "and", "grey", "that", "day,", "but", "nobody's", "boat", "Über,", "12", "🙂\n"]


class Tokenized(NamedTuple):
    table: IndexTable
    vocab: Vocab
    borders: Borders

    def texts(self, split: str = "") -> dict[str, str]:
        """Name → text of each document, of one split or of all, as its ids have it."""
        stop = self.table.splits[split].stop if split else len(self.table.ids)
        start = self.table.splits[split].start if split else 0
        level = LEVELS[self.table.level].of(self.vocab)
        found = {}
        for name, first, tokens in zip(self.borders.names, self.borders.first, self.borders.tokens, strict=True):
            if start <= first < stop:
                ids = self.table.ids[first : first + tokens - self.vocab.ends].tolist()
                found[name] = level.join(self.vocab.tokens[row] for row in ids)
        return found


def corpus(folder: Path, texts: dict[str, str]) -> Path:
    """What `download` leaves of documents."""
    folder.mkdir(exist_ok=True)
    table, content = Documents(), b""
    for name, text in texts.items():
        body = text.encode()
        table.add(name, len(content), len(body), hashlib.sha256(body).digest())
        content += body if body.endswith(b"\n") else body + b"\n"
    (folder / "corpus.txt").write_bytes(content)
    table.write(folder / "documents.arrow")
    return folder


def run(folder: Path, texts: dict[str, str], name: str = "out", **fields: Any) -> Tokenized:
    out = folder / name
    out.mkdir()
    tokenize(TokenizeConfig(**fields), corpus=corpus(folder / "corpus", texts), out=out, progress=lambda *_: None)
    merged = fields.get("level") == "bpe"
    files = {"tokens.arrow", "vocab.arrow", "documents.arrow"} | ({"merges.arrow"} if merged else set())
    assert {path.name for path in out.iterdir()} == files
    return Tokenized(
        IndexTable.open(out / "tokens.arrow"),
        Vocab.read(out / "vocab.arrow", merged=merged),
        Borders.read(out / "documents.arrow"),
    )


def story(seed: int, words: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choices(WORDS, k=words))


CASED = {"normalizer": "none"}
DIVIDED = {"split": "content", "train_share": 0.6, "valid_share": 0.2, "test_share": 0.2}
LIBRARY = {f"{number:03}.txt": story(number, random.Random(number).choice((1, 3, 30, 200))) for number in range(80)}


def normal(text: str, level: str) -> str:
    if level == "letter":
        return text
    return " ".join(text.lower().split()) if level == "word" else text.lower()


@pytest.mark.parametrize("level", ["char", "letter", "word", "bpe"])
def test_documents_come_back_each_in_one_split_with_an_end_behind_it(tmp_path: Path, level: str) -> None:
    fields: dict[str, Any] = {"vocab_size": 300} if level == "bpe" else CASED if level == "letter" else {}
    found = run(tmp_path, LIBRARY, level=level, split="content", **fields)
    table, borders = found.table, found.borders
    assert found.vocab.tokens[END_ID] == "<end of document>"
    np.testing.assert_array_equal(np.flatnonzero(table.ids == END_ID), borders.first + borders.tokens - 1)
    assert borders.tokens.sum() == len(table.ids)
    # Those of the validation and the test split may have words that those to train on lack.
    for split in SPLITS if level == "bpe" else ["train"]:
        assert found.texts(split) == {name: normal(LIBRARY[name], level) for name in found.texts(split)}
    each = [set(found.texts(split)) for split in SPLITS]
    assert [len(names) for names in each] == [*borders.found.documents]
    assert all(each)
    assert sorted(set.union(*each)) == sorted(LIBRARY)
    assert sum(map(len, each)) == len(LIBRARY)
    assert found.vocab.counts[END_ID] == len(each[0])
    characters = {name: len(normal(text, level)) + (level == "word") for name, text in LIBRARY.items()}
    for split, names in zip(SPLITS, each, strict=True):
        assert table.splits[split].characters == sum(characters[name] for name in names)


def test_a_corpus_that_grows_moves_no_document_and_another_seed_divides_otherwise(tmp_path: Path) -> None:
    half = dict([*LIBRARY.items()][::2])
    before, after = run(tmp_path, half, "before", **DIVIDED), run(tmp_path, LIBRARY, "after", **DIVIDED)
    for split in SPLITS:
        assert {name for name in after.texts(split) if name in half} == {*before.texts(split)}
    other = run(tmp_path, half, "other", split_seed=1, **DIVIDED)
    assert {*other.texts("train")} != {*before.texts("train")}


@pytest.mark.parametrize("level", ["char", "letter", "bpe"])
@pytest.mark.parametrize("split", ["content", "order", "position"])
def test_the_same_bytes_however_documents_fall_into_parts_and_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, split: str
) -> None:
    fields = {"level": level, "split": split, **({"vocab_size": 300} if level == "bpe" else {})}
    fields |= CASED if level == "letter" else {}
    run(tmp_path, LIBRARY, "whole", **fields)
    monkeypatch.setattr(parts, "SIZE", 500)
    monkeypatch.setattr(together, "SHORT", 100)
    run(tmp_path, LIBRARY, "parts", **fields)
    if split == "content" and level == "char":
        monkeypatch.setattr(parts, "LARGE", 0)
        monkeypatch.setattr(cores, "available", lambda: 2)
        run(tmp_path, LIBRARY, "processes", **fields)
    for path in (tmp_path / "whole").iterdir():
        for other in ("parts", "processes"):
            if (tmp_path / other).exists():
                assert (tmp_path / other / path.name).read_bytes() == path.read_bytes()


def test_by_order_the_first_are_trained_on_and_a_copy_is_where_the_first_of_its_like_is(tmp_path: Path) -> None:
    texts = {f"{number:02}": story(number, 50) for number in range(20)}
    texts["19"] = texts["03"]
    found = run(tmp_path, texts, split="order", train_share=0.8, valid_share=0.1, test_share=0.1)
    names = [*texts]
    train = [*found.texts("train")]
    assert train == [*names[: len(train) - 1], "19"]
    assert [*found.texts("valid"), *found.texts("test")] == names[len(train) - 1 : 19]
    assert found.borders.found.copies == 1
    shares = [len(found.table.split(name)) / len(found.table.ids) for name in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.06)


def test_by_position_the_splits_are_cut_as_those_of_one_text(tmp_path: Path) -> None:
    found = run(tmp_path, {"a": "x" * 100, "b": "y" * 100}, split="position")
    assert [found.table.splits[name].characters for name in SPLITS] == [180, 10, 10]
    assert [len(found.table.split(name)) for name in SPLITS] == [181, 10, 11]  # with the ends
    assert found.borders.found.documents == (2, 0, 0)


@pytest.mark.parametrize("level", ["char", "word"])
def test_without_ends_there_are_documents_all_the_same(tmp_path: Path, level: str) -> None:
    found = run(tmp_path, LIBRARY, level=level, split="content", end_tokens=False)
    assert not found.vocab.ends
    assert found.borders.tokens.sum() == len(found.table.ids)
    assert found.texts("train") == {name: normal(LIBRARY[name], level) for name in found.texts("train")}


@pytest.mark.parametrize("split", ["content", "position"])
@pytest.mark.parametrize("short", [1 << 16, 30], ids=["together", "alone"])
def test_the_first_tokens_are_those_of_the_first_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, short: int
) -> None:
    monkeypatch.setattr(together, "SHORT", short)
    monkeypatch.setattr("data.corpus.text.CHUNK", 100)
    found = run(tmp_path, LIBRARY, split=split, max_tokens=5000)
    texts = {name: text.lower() for name, text in LIBRARY.items()}
    kept, left = {}, 5000
    for name, text in texts.items():
        if left:
            kept[name] = text[:left]
            left -= len(kept[name])
    assert sum(found.table.splits[name].characters for name in SPLITS) == 5000
    cut = max(kept)
    assert {*found.texts()} == {*kept}
    assert len(found.texts()[cut]) == len(kept[cut]) < len(texts[cut])


def test_a_document_of_which_nothing_is_left_is_counted(tmp_path: Path) -> None:
    found = run(tmp_path, {**LIBRARY, "numbers": "1234 5678\n"}, split="content", normalizer="book")
    assert "numbers" not in found.texts()
    assert found.borders.found.empty >= 1
    assert found.borders.tokens.min() > 1


def test_a_few_documents_are_cut_anywhere_unless_they_are_to_stay_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chapters = {"one": story(1, 300), "two": story(2, 300)}
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path, chapters)
    assert found.borders.found.split == "position"
    assert "tokenize.split=position" in caplog.text
    for split, named in (("content", "another tokenize.split_seed"), ("order", "tokenize.valid_share")):
        with pytest.raises(CorpusError, match=f"none falls into the valid split.*{named}"):
            run(tmp_path, chapters, split, split=split)


def altered(text: str, words: int, seed: int) -> str:
    """The same with some words replaced."""
    rng, each = random.Random(seed), text.split(" ")
    for place in rng.sample(range(len(each)), words):
        each[place] = "quite"
    return " ".join(each)


def test_what_is_much_like_a_held_out_document_is_counted_and_left_out_if_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(tmp_path, LIBRARY, "first", **DIVIDED)
    assert first.borders.found.near == (0, 0)
    texts = dict(LIBRARY)
    for split, number in (("valid", 3), ("test", 2)):  # that are to be trained on
        of = max(first.texts(split), key=lambda name: len(LIBRARY[name]))
        like = (altered(LIBRARY[of], 2, seed) for seed in itertools.count())
        trained = (one for one in like if not by_content([hashlib.sha256(one.encode()).digest()], (0.6, 0.2, 0.2), 0))
        texts = {f"like {of} {place}": one for place, one in enumerate(itertools.islice(trained, number))} | texts
    with caplog.at_level(logging.WARNING):
        kept = run(tmp_path, texts, "kept", **DIVIDED)
    assert kept.borders.found.near == (1, 1)
    assert "tokenize.near_duplicates=drop" in caplog.text
    dropped = run(tmp_path, texts, "dropped", near_duplicates="drop", **DIVIDED)
    assert dropped.borders.found.left_out == 5
    assert {*texts} - {*dropped.texts()} == {name for name in texts if name.startswith("like ")}
    assert dropped.texts("test") == kept.texts("test")
    # Of the last document not all is read, and then it is left out.
    last = next(name for name in texts if name.startswith("like "))
    some = sum(map(len, LIBRARY.values())) + 50
    fewer = run(tmp_path, {**LIBRARY, last: texts[last]}, "fewer", near_duplicates="drop", max_tokens=some, **DIVIDED)
    assert {*fewer.texts()} == {*LIBRARY}


def test_one_document_cannot_be_divided(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "corpus.txt").write_text(story(1, 200), encoding="utf-8")
    (tmp_path / "out").mkdir()
    with caplog.at_level(logging.WARNING):
        tokenize(TokenizeConfig(split="order"), corpus=tmp_path, out=tmp_path / "out", progress=lambda *_: None)
    assert "the corpus is one document: tokenize.split" in caplog.text
    assert not (tmp_path / "out" / "documents.arrow").exists()
