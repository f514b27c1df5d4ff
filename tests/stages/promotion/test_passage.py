"""The text that is compared, word by word and figure by figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data.corpus import text
from data.corpus.letters import SHIFTS
from data.corpus.level import BPE, CHAR, LEVELS, WORD
from data.corpus.text import LevelName
from data.tables.merges import Merges
from data.tables.tokens import IndexTable, Split
from data.tables.vocab import Vocab
from stages.promotion.contender import Side
from stages.promotion.passage import END, Passage, adaptive_cost, split
from tests.stages.test_divided import corpus as documents

if TYPE_CHECKING:
    from tests.stages.promotion.conftest import Untrained

TEXT = " the sea\n\nthe tide  sea\nseas "


def passage(body: str = TEXT, *, by_words: bool = True, joined: bool = False) -> Passage:
    pieces = map(text.code_points, (body[:7], body[7:]))
    return Passage(pieces, by_words=by_words, joined=joined)


def test_the_adaptive_code_counts_as_it_goes() -> None:
    assert adaptive_cost(np.array([0, 0, 1, 0])) == pytest.approx(-np.log2([1 / 2, 2 / 3, 1 / 4, 3 / 5]))
    assert adaptive_cost(np.zeros(5, int)) == pytest.approx(0)


def test_blocks_and_masks_keep_words_whole() -> None:
    words = passage()
    tens = np.arange(len(TEXT), dtype=np.int32) // np.int32(10)
    assert [len(list(group)) for group in runs(words.uncut(tens))] == [10, 10, 9]
    assert TEXT[10:20] == "the tide  ", "a word that begins in a block stays in it, with the white space behind it"
    assert words.first == slice(0, 5), "the first word with all white space around it"
    mask = np.zeros(len(TEXT), np.bool_)
    mask[[6, 21]] = True
    assert np.flatnonzero(words.whole(mask)).tolist() == [*range(5, 10), *range(20, 24)]

    characters = passage(by_words=False)
    assert (characters.uncut(tens) == tens).all()
    assert characters.first == slice(0, 1)
    assert (characters.whole(mask) == mask).all()


def runs(blocks: Iterable[int]) -> Iterator[Iterator[int]]:
    return (group for _, group in itertools.groupby(blocks))


def test_an_unknown_word_is_spelled_out_and_white_space_is_charged_for() -> None:
    vocab = Vocab(["<unk>", "the", "sea"], [2, 2, 2])
    reading = passage().read(WORD, vocab)
    assert reading.ids.tolist() == [1, 2, 1, 0, 2, 0]
    assert reading.starts.tolist() == [0, 5, 10, 14, 20, 24]
    letter = math.log2(len(set("theseatideseas")) + 1)
    spelled = np.array([0, 0, 0, 5, 0, 5]) * letter
    gaps = [" ", "\n\n", " ", "  ", "\n", " "]
    kinds = np.unique(gaps, return_inverse=True)[1]
    assert reading.cost == pytest.approx(spelled + adaptive_cost(kinds))
    assert passage(joined=True).read(WORD, vocab).cost == pytest.approx(spelled)


def test_an_unknown_character_is_told_from_the_other_unknown_ones() -> None:
    reading = passage("abcdabcd", by_words=False).read(CHAR, Vocab(["<unk>", "a"], [6, 2]))
    assert reading.ids.tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert reading.starts.tolist() == list(range(8))
    assert reading.cost == pytest.approx([0, *[math.log2(3)] * 3] * 2)


def test_a_subword_is_charged_to_all_characters_that_it_has_a_part_in() -> None:
    body = "die See 🙂é"
    vocab = Vocab.merged({}, Merges([("e", "e"), ("Ġ", "S"), ("ĠS", "ee"), ("ð", "Ł"), ("ĻĤ", "Ã")][:4]))
    level = BPE.of(vocab)
    tokens = level.split(body)
    assert tokens == ["d", "i", "e", "ĠSee", "Ġ", "ðŁ", "Ļ", "Ĥ", "Ã", "©"]
    reading = Passage([text.code_points(body)], by_words=False, joined=False, merged=True).read(level, vocab)
    assert reading.ids.tolist() == vocab.ids(tokens)
    assert reading.starts.tolist() == [0, 1, 2, 3, 7, 8, 8, 8, 9, 9]
    places, bits = reading.spread(slice(1, None), np.array([1.0, 1, 8, 1, 1, 1, 1, 2, 2]))
    charged = np.bincount(places, bits, len(body))
    assert charged.tolist() == [0, 1, 1, 2, 2, 2, 2, 1, 3, 4]


def test_what_the_first_subword_may_have_is_predicted_by_nothing() -> None:
    def first(body: str) -> int:
        return Passage([text.code_points(body)], by_words=False, joined=False, merged=True).first.stop

    assert first("internationally so") == len("internationally ")
    assert first("  a b") == 4
    assert first("x" * 1000) == 64


def test_a_split_of_subwords_is_the_text_of_its_characters(tmp_path: Path, untrained: Untrained) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    body = "Die See, — die See! 🙂 Über dem Meer.\n" * 20
    (corpus / "corpus.txt").write_text(body, encoding="utf-8")
    contender = untrained(corpus, level="bpe", vocab_size=300, normalizer="none")
    table = IndexTable.open(contender.tokens / "tokens.arrow")
    found = ["".join(map(chr, np.concatenate([*Side(contender).split(name, joined=False)]))) for name in table.splits]
    assert "".join(found) == body
    assert [len(part) for part in found] == [split.characters for split in table.splits.values()]


def test_a_text_without_words_is_empty() -> None:
    assert len(passage(" \n" * 9).codes) == 0


@pytest.mark.parametrize(("level", "joined"), [("char", False), ("word", False), ("word", True)])
def test_a_split_is_the_text_of_its_tokens_wherever_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: LevelName, joined: bool
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(TEXT, encoding="utf-8")
    tokens = len(TEXT.split()) if level == "word" else len(TEXT)
    bounds = {"train": Split(0, 2, 0, 0), "valid": Split(2, 4, 0, 0), "test": Split(4, tokens, 0, 0)}
    table = IndexTable(np.zeros(tokens, np.uint8), bounds, level, "none", "", 1)
    expected = {
        ("char", False): [TEXT[:2], TEXT[2:4], TEXT[4:]],
        ("word", False): [" the sea\n\n", "the tide  ", "sea\nseas "],
        ("word", True): [" the sea ", "the tide ", "sea seas "],
    }[level, joined]
    read = text.read
    for size in (1, 3, 100):
        monkeypatch.setattr(text, "read", partial(read, size=size))
        found = ["".join(map(chr, np.concatenate([*split(corpus, table, name, joined=joined)]))) for name in bounds]
        # What stands before the first word comes with it, or not: nothing is ever predicted of it.
        assert [part.lstrip() for part in found] == [part.lstrip() for part in expected]


@pytest.mark.parametrize("level", ["char", "letter", "word", "bpe"])
@pytest.mark.parametrize("how", ["content", "position"])
def test_documents_are_read_one_by_one_and_where_they_end_is_told(
    tmp_path: Path, untrained: Untrained, level: LevelName, how: str
) -> None:
    texts = {f"{number:02}": f"Die See, die See! {number} Über dem Meer 🙂" * (1 + number % 3) for number in range(60)}
    folder = documents(tmp_path / "corpus", texts)
    fields: dict[str, Any] = {"vocab_size": 300} if level == "bpe" else {"fit_vocab_on": "all"}
    contender = untrained(folder, level=level, split=how, normalizer="none", **fields)
    table, side = IndexTable.open(contender.tokens / "tokens.arrow"), Side(contender)
    vocab = Vocab.read(contender.tokens / "vocab.arrow", merged=level == "bpe")
    for name in table.splits:
        read = Passage(side.split(name, joined=level == "word"), by_words=level == "word", joined=level == "word")
        reading = read.read(LEVELS[level].of(vocab), vocab)
        ids, before = table.split(name), table.ids[: table.splits[name].start][-1:]
        if level == "letter":  # a split may end between a shift and its letter, which then is read with it
            shifts = vocab.ids(SHIFTS)
            ids = np.concatenate([before[np.isin(before, shifts)], ids[: len(ids) - np.isin(ids[-1], shifts)]])
        np.testing.assert_array_equal(reading.ids, ids)
        assert len(read.codes) == table.splits[name].characters
        assert (np.diff(reading.starts) >= 0).all()
    # A text that is read as a whole has the same documents.
    whole = [piece.tolist() for piece in side.other(folder / "corpus.txt", joined=False)]
    assert whole.count([END]) == len(texts)


def test_a_model_that_knows_no_ends_reads_documents_without(tmp_path: Path, untrained: Untrained) -> None:
    folder = documents(tmp_path / "corpus", {f"{number:02}": f"{number} seas" for number in range(40)})
    contender = untrained(folder, split="position", end_tokens=False)
    side = Side(contender)
    read = Passage(side.split("train", joined=False), by_words=False, joined=False)
    reading = read.read(side.level, side.model.vocab)
    np.testing.assert_array_equal(reading.ids, IndexTable.open(contender.tokens / "tokens.arrow").split("train"))
