"""The vocabulary: who is in it, in which order, and what its file holds."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from data.corpus.level import CHAR, WORD
from data.errors import StoreError
from data.tables.vocab import Vocab


def test_frequent_tokens_come_first_and_ties_stand_in_code_point_order() -> None:
    vocab = Vocab.build(Counter("ябззaaBB🙂\uffff"))
    assert vocab.tokens == ["<unk>", "B", "a", "з", "б", "я", "\uffff", "🙂"]
    assert vocab.counts == [0, 2, 2, 2, 1, 1, 1, 1]
    assert len(vocab) == 8


def test_rare_tokens_are_unknown_and_counted_as_such() -> None:
    vocab = Vocab.build({"a": 5, "b": 2, "c": 1, "d": 1}, min_freq=2)
    assert vocab.tokens == ["<unk>", "a", "b"]
    assert vocab.counts == [2, 5, 2]
    assert vocab.ids(["a", "c", "nowhere"]) == [1, 0, 0]


def test_an_unknown_that_the_text_spells_out_is_no_second_entry() -> None:
    vocab = Vocab.build({"<unk>": 7, "the": 3, "of": 1}, min_freq=2)
    assert vocab.tokens == ["<unk>", "the"]
    assert vocab.counts == [8, 3]


def test_ids_are_as_small_as_the_vocabulary_allows() -> None:
    sizes = {2: "uint8", 256: "uint8", 257: "uint16", 65_536: "uint16", 65_537: "uint32"}
    for size, kind in sizes.items():
        assert Vocab([*map(str, range(size))], [1] * size).id_type == kind


def test_text_to_ids_and_back() -> None:
    characters = Vocab.build(Counter("abac"))
    assert characters.ids("cab?") == [3, 1, 2, 0]
    assert characters.decode([3, 1, 2, 0], CHAR) == "cab<unk>"
    words = Vocab.build(Counter(["to", "be", "to"]))
    assert words.ids(["be", "to", "not"]) == [2, 1, 0]
    assert words.decode([2, 1], WORD) == "be to"


def test_code_points_without_an_entry_are_unknown() -> None:
    table = Vocab.build({"b": 2, "я": 1}).by_code_point
    assert table.take([ord("b"), ord("я"), ord("a"), ord("🙂")], mode="clip").tolist() == [1, 2, 0, 0]


def test_a_file_holds_the_vocabulary_and_the_same_one_the_same_bytes(tmp_path: Path) -> None:
    vocab = Vocab.build(Counter("Ünï\x00🙂 \n\n"))
    vocab.write(tmp_path / "a.arrow")
    Vocab.build(dict(reversed(Counter("Ünï\x00🙂 \n\n").items()))).write(tmp_path / "b.arrow")
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()

    again = Vocab.read(tmp_path / "a.arrow")
    assert (again.tokens, again.counts) == (vocab.tokens, vocab.counts)
    assert again.ids("🙂Ü") == vocab.ids("🙂Ü")
    with pa.OSFile(str(tmp_path / "a.arrow"), "rb") as file, pa.ipc.open_file(file) as reader:
        assert reader.num_record_batches == 1
        assert reader.schema == pa.schema([("token", pa.string(), False), ("count", pa.int64(), False)])


def test_what_is_no_vocabulary_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "vocab.arrow"
    with pytest.raises(StoreError, match=r"vocab\.arrow is not a vocabulary"):
        Vocab.read(file)
    Vocab.build(Counter("some text")).write(file)
    whole = file.read_bytes()
    for damaged in (b"", b"not Arrow at all", whole[:-9], whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match="tokenize again"):
            Vocab.read(file)
    Vocab(["a", "b"], [1, 1]).write(file)
    with pytest.raises(StoreError, match="<unk>"):
        Vocab.read(file)
