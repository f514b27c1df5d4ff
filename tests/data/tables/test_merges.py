"""Merges cut a text into the subwords that the library `tokenizers` cuts it into, and their file holds nothing else."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from data.corpus import bpe, subwords
from data.errors import StoreError
from data.tables.merges import Merges
from data.tables.vocab import Vocab

TEXT = "the sea, the seas and the théâtre: 你好你好 🙂🙂 aaaa aaaaa 1212 112\n" * 4
MERGES = Merges(bpe.learn(Counter(subwords.split(TEXT)), 330))
VOCAB = Vocab.merged(Counter(subwords.split(TEXT)), MERGES)


def test_subwords_are_those_of_the_library() -> None:
    from tokenizers.models import BPE

    chance = random.Random(7)
    shuffled = chance.sample(MERGES.pairs, len(MERGES.pairs))
    ids = {token: number for number, token in enumerate([*subwords.LETTERS, *map("".join, MERGES.pairs)])}
    known = [*"thesanda 12é你好🙂", "the", "sea", "aa", "\x00", "\t"]
    pieces = ["".join(chance.choices(known, k=chance.randrange(1, 20))) for _ in range(2000)]
    for pairs in (MERGES.pairs, shuffled):  # a merge may come before one that makes what it merges, too
        ours, theirs = Merges(pairs), BPE(ids, pairs)
        for piece in pieces:
            assert ours.split(piece) == [token.value for token in theirs.tokenize(subwords.written(piece))]


def test_an_array_of_pieces_becomes_one_of_tokens() -> None:
    (array,) = subwords.pieces([TEXT])
    tokens, edges = MERGES.tokens(array[3:30])
    pieces = array[3:30].to_pylist()
    assert [tokens.to_pylist()[start:stop] for start, stop in pairwise(edges)] == [
        MERGES.split(piece) for piece in pieces
    ]
    assert len(set(tokens.dictionary.to_pylist())) == len(tokens.dictionary)


def test_the_vocabulary_is_all_bytes_and_what_merges_make_by_how_often_it_comes() -> None:
    tokens = [token for piece in subwords.split(TEXT) for token in MERGES.split(piece)]
    assert len(VOCAB) == 1 + 256 + len(MERGES.pairs)
    assert VOCAB.counts == [0, *(Counter(tokens)[token] for token in VOCAB.tokens[1:])]
    assert VOCAB.counts[1:] == sorted(VOCAB.counts[1:], reverse=True)
    assert VOCAB.characters.sum() == sum(map(subwords.characters, VOCAB.tokens[1:]))
    assert "<unk>" not in Vocab.merged({"<": 5, "unk": 9, ">": 5}, Merges([("u", "n"), ("un", "k")])).tokens[1:]


def test_what_is_known_of_pieces_is_bounded_and_not_sent_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.tables.merges._KNOWN", 3)
    ours = Merges(MERGES.pairs)
    for piece in ("the", "sea", "the", "a", "b", "the"):
        assert ours.split(piece) == MERGES.split(piece)
    assert len(ours._known) <= 3
    sent = copy.deepcopy(ours)
    assert sent._known == {}
    assert sent.split("the sea") == MERGES.split("the sea")


def test_a_file_holds_the_merges_and_the_same_ones_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        VOCAB.write(tmp_path / name / "vocab.arrow")
    assert (tmp_path / "a" / "merges.arrow").read_bytes() == (tmp_path / "b" / "merges.arrow").read_bytes()
    again = Vocab.read(tmp_path / "a" / "vocab.arrow", merged=True)
    assert again.merges
    assert (again.tokens, again.counts, again.merges.pairs) == (VOCAB.tokens, VOCAB.counts, MERGES.pairs)
    assert Vocab.read(tmp_path / "a" / "vocab.arrow").merges is None
    with pa.ipc.open_file(tmp_path / "a" / "merges.arrow") as file:
        assert file.schema == pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("left", "right")])
        assert file.num_record_batches == 1


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (MERGES.pairs[:-1], "what it makes is not what the vocabulary has"),
        ([*MERGES.pairs, ("q", "q")], "what it makes is not what the vocabulary has"),
        ([*MERGES.pairs, MERGES.pairs[0]], "not distinct"),
        (MERGES.pairs[::-1], "before it has made them"),
        ([*MERGES.pairs, ("\x1b", "a")], "merges '\\\\x1b' and 'a' before it has made them"),
    ],
)
def test_merges_that_are_not_the_vocabularys_are_refused(
    tmp_path: Path, pairs: Sequence[tuple[str, str]], said: str
) -> None:
    Merges(pairs).write(tmp_path / "merges.arrow")
    with pytest.raises(StoreError, match=rf"merges\.arrow holds no merges that can be used \(.*{said}.*tokenize again"):
        Merges.read(tmp_path / "merges.arrow", VOCAB.tokens)


def test_no_file_or_another_one_is_refused(tmp_path: Path) -> None:
    VOCAB.write(tmp_path / "vocab.arrow")
    (tmp_path / "merges.arrow").unlink()
    with pytest.raises(StoreError, match=r"merges\.arrow holds no merges that can be used"):
        Vocab.read(tmp_path / "vocab.arrow", merged=True)
    for content in (b"", b"ARROW1\0\0", (tmp_path / "vocab.arrow").read_bytes()):
        (tmp_path / "merges.arrow").write_bytes(content)
        with pytest.raises(StoreError, match=r"merges\.arrow holds no merges that can be used"):
            Merges.read(tmp_path / "merges.arrow", VOCAB.tokens)
