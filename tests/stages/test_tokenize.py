"""The stage on the book's file and on texts of many kinds, against a plain implementation of the same rules."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import random
import re
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from data import cores
from data.corpus import bpe, parts, subwords, text
from data.corpus.letters import SHIFTS
from data.corpus.level import BPE, CHAR, LEVELS, WORD
from data.errors import CorpusError
from data.tables.counts import PAIRS, count, index, merge
from data.tables.tokens import IndexTable
from data.tables.vocab import Vocab
from stages.config import TokenizeConfig
from stages.tokenize import LEARNING, bounds, tokenize

CORPORA = Path(__file__).parents[2].parent / "shared" / "corpora"
ON_ALL = {"fit_vocab_on": "all", "normalizer": "book"}
POLYGLOT = (
    "Ein Überfluß — œuvre; İstanbul. ΟΔΟΣ ΣΑΣ!\nПривет, МИР: привет.\n\n"
    "你好，世界。 世界 🙂🙂 <unk> a\u0301 שלום\u2028new\x85line\x1cend \n Oh, oh - no. "
)
TEXTS = {
    "polyglot": POLYGLOT * 3,
    "CRLF": "One line,\r\nanother  line.\r\n\r\nThe end\r\n" * 9,
    "no newline": "to be or not to be that is the question " * 5,
    "one line": "It was so; so it was.\n",
    "byte order mark": "\ufeffabc abd abc\n",
    "tiny": "no no",
}


def corpus(name: str) -> Path:
    path = CORPORA / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside this checkout")
    return path


def run(folder: Path, content: bytes, name: str = "out", **fields: Any) -> tuple[IndexTable, Vocab]:
    """Tokenize a text; the stage leaves its two files and nothing else."""
    (folder / "corpus.txt").write_bytes(content)
    out = folder / name
    out.mkdir()
    reports: list[tuple[float, float, str]] = []
    tokenize(TokenizeConfig(**fields), corpus=folder, out=out, progress=lambda *report: reports.append(report))
    merged = fields.get("level") == "bpe"
    assert sorted(path.name for path in out.iterdir()) == [*["merges.arrow"] * merged, "tokens.arrow", "vocab.arrow"]
    assert all(0 <= done <= total and figures.endswith((" MB/s", LEARNING)) for done, total, figures in reports)
    assert (LEARNING in {figures for _, _, figures in reports}) == merged
    return IndexTable.open(out / "tokens.arrow"), Vocab.read(out / "vocab.arrow", merged=merged)


def plain(content: bytes, config: TokenizeConfig) -> tuple[list[str], list[int], list[str], list[int]]:
    """The rules once more, all in memory: the tokens, their ids, the vocabulary, its counts."""
    source = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    if config.normalizer == "book":
        lines = [re.sub("[^A-Za-z]+", " ", line).strip().lower() for line in source.split("\n")]
        source = (" " if config.level == "word" else "").join(lines)
    elif config.normalizer == "lower":
        source = source.replace("Σ", "σ").lower()
    tokens = source.split() if config.level == "word" else list(source)
    kept = tokens[: config.max_tokens or None]
    fitted = tokens if config.fit_vocab_on == "all" else kept[: bounds(len(kept), config)[0]]
    counts = Counter(token for token in fitted if token != "<unk>")
    ranked = sorted((-n, token) for token, n in counts.items() if n >= config.min_freq)
    entries = ["<unk>", *(token for _, token in ranked)]
    known = [-n for n, _ in ranked]
    rows = {token: row for row, token in enumerate(entries)}
    return kept, [rows.get(token, 0) for token in kept], entries, [len(fitted) - sum(known), *known]


def spelled(tokens: list[str], entries: list[str], level: str) -> float:
    """Bits that the unknown tokens of a split but its first cost."""
    unknown = [token for token in tokens[1:] if token not in entries[1:]]
    if level == "char":
        return len(unknown) * math.log2(max(len(set(tokens) - set(entries)), 1))
    return sum(len(word) + 1 for word in unknown) * math.log2(len(set("".join(tokens))) + 1)


@pytest.mark.parametrize(
    ("level", "tokens", "entries", "digest"),
    [
        ("char", 170_580, 28, "e0cb0e5148310a24022ed764f5ebf2c63fff9e8a3ca74a0cf1f1e2be1a0f4b3f"),
        ("word", 32_775, 4_580, "ceb9554bcc5845449ee824f2bb4882a204a0497cd0fc3b16bcf215755f83acee"),
    ],
)
def test_the_ids_are_the_books(tmp_path: Path, level: str, tokens: int, entries: int, digest: str) -> None:
    content = corpus("timemachine.txt").read_bytes()
    table, vocab = run(tmp_path, content, level=level, **ON_ALL)
    assert (len(table.ids), len(vocab), table.vocab_size) == (tokens, entries, entries)
    assert hashlib.sha256(table.ids.astype("<u2").tobytes()).hexdigest() == digest
    assert table.ids.dtype == ("uint8" if level == "char" else "uint16")
    assert table.corpus_sha256 == hashlib.sha256(content).hexdigest()

    first, fitted = run(tmp_path, content, name="first", level=level, max_tokens=10_000, **ON_ALL)
    assert np.array_equal(first.ids, table.ids[:10_000])
    assert fitted.tokens == vocab.tokens


def test_nine_tenths_are_the_nine_tenths_of_nanogpt(tmp_path: Path) -> None:
    content = corpus("tinyshakespeare.txt").read_bytes()
    table, vocab = run(tmp_path, content, normalizer="none", train_share=0.9, valid_share=0.1, test_share=0)
    characters = len(content.decode())
    assert table.splits["train"].stop == int(characters * 0.9)
    assert table.splits["valid"].stop == table.splits["test"].stop == characters
    assert len(vocab) == 66
    assert vocab.decode(table.ids[:13].tolist(), CHAR) == "First Citizen"


def test_accents_are_one_character_and_line_ends_a_word_where_that_is_asked_for(tmp_path: Path) -> None:
    content = "E\u0301te\u0301.\nUn été.\n".encode()
    table, vocab = run(tmp_path, content, name="nfc", nfc=True, fit_vocab_on="all")
    assert "\u0301" not in vocab.tokens
    assert vocab.decode(table.ids.tolist(), CHAR) == "été.\nun été.\n"
    whole = {"train_share": 1, "valid_share": 0, "test_share": 0}
    table, vocab = run(tmp_path, content, name="lines", level="word", nfc=True, line_ends=True, **whole)
    assert vocab.decode(table.ids.tolist(), WORD) == "été.\nun été.\n"
    assert table.splits["train"].characters == 13


def test_a_vocabulary_of_a_given_size_is_one_of_subwords() -> None:
    with pytest.raises(ValidationError, match="vocab_size needs level=bpe"):
        TokenizeConfig(vocab_size=300)
    with pytest.raises(ValidationError, match="greater than or equal to 257"):
        TokenizeConfig(level="bpe", vocab_size=256)


@pytest.mark.parametrize("fields", [{}, {"level": "word", "normalizer": "book"}])
def test_lines_that_a_token_has_already_or_the_book_joins_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="line_ends needs level=word"):
        TokenizeConfig.model_validate({"line_ends": True, **fields})


@pytest.mark.parametrize("source", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("normalizer", ["book", "lower", "none"])
@pytest.mark.parametrize("level", ["char", "word"])
def test_small_texts_agree_with_the_plain_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, normalizer: str, source: str
) -> None:
    content = source.encode()
    shares = {"train_share": 0.5, "valid_share": 0.25, "test_share": 0.25}
    settings: list[dict[str, Any]] = [
        {"fit_vocab_on": "all"},
        {"fit_vocab_on": "train"},
        {"fit_vocab_on": "train", "min_freq": 2, "max_tokens": 50},
        {"fit_vocab_on": "all", "min_freq": 2, "max_tokens": 3},
    ]
    for number, fields in enumerate(settings):
        for size in (3, text.CHUNK):
            monkeypatch.setattr(text.read, "__defaults__", (size,))
            config = TokenizeConfig.model_validate({"level": level, "normalizer": normalizer, **shares, **fields})
            tokens, ids, entries, counts = plain(content, config)
            if len(entries) == 1:
                continue
            table, vocab = run(tmp_path, content, name=f"{number}-{size}", **config.model_dump())
            assert table.ids.tolist() == ids
            assert (vocab.tokens, vocab.counts) == (entries, counts)
            assert (table.level, table.normalizer) == (level, normalizer)
            for split in table.splits.values():
                inside = slice(split.start, split.stop)
                behind = 1 if level == "word" else 0
                assert split.unknown == ids[inside].count(0)
                assert split.characters == sum(len(token) + behind for token in tokens[inside])
                assert split.spelling == pytest.approx(spelled(tokens[inside], entries, level))


@pytest.mark.parametrize("source", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("normalizer", ["book", "lower", "none"])
def test_subwords_of_small_texts_agree_with_the_plain_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalizer: text.Normalizer, source: str
) -> None:
    plain = source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    whole = "".join(text.normalize([plain], normalizer, "bpe"))
    pieces = subwords.split(whole)
    shares = {"train_share": 0.5, "valid_share": 0.25, "test_share": 0.25}
    settings: list[dict[str, Any]] = [{"fit_vocab_on": "all"}, {"min_freq": 3}, {"max_tokens": 9}]
    for number, fields in enumerate(settings):
        kept = pieces[: fields.get("max_tokens")]
        config = TokenizeConfig.model_validate(
            {"level": "bpe", "vocab_size": 290, "normalizer": normalizer, **shares, **fields}
        )
        ends = bounds(len(kept), config)
        if not ends[0]:
            continue
        for size in (3, text.CHUNK):
            monkeypatch.setattr(text.read, "__defaults__", (size,))
            table, vocab = run(tmp_path, source.encode(), name=f"{number}-{size}", **config.model_dump())
            counts = Counter(pieces if config.fit_vocab_on == "all" else kept[: ends[0]])
            assert vocab.merges
            assert vocab.merges.pairs == bpe.learn(counts, 289, config.min_freq)
            level = BPE.of(vocab)
            assert table.ids.tolist() == vocab.ids(token for piece in kept for token in vocab.merges.split(piece))
            assert vocab.decode(table.ids.tolist(), level) == "".join(kept)
            for name, start, stop in zip(("train", "valid", "test"), (0, *ends), ends, strict=False):
                split = table.splits[name]
                assert vocab.decode(table.split(name).tolist(), level) == "".join(kept[start:stop])
                assert split.characters == len("".join(kept[start:stop]))
                assert (split.unknown, split.spelling) == (0, 0)


def test_a_long_training_split_of_subwords_is_measured_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.tokenize.LONGEST", 100)
    table, vocab = run(tmp_path, POLYGLOT.encode() * 20, level="bpe", vocab_size=300)
    assert table.part
    part = vocab.decode(table.ids[table.part.start : table.part.stop].tolist(), BPE.of(vocab))
    assert len(subwords.split(part)) == 100
    assert table.part.stop == table.splits["train"].stop
    assert table.part.characters == len(part)


@pytest.mark.parametrize("level", ["char", "letter", "word", "bpe"])
def test_the_same_text_gives_the_same_bytes_however_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    content = (POLYGLOT * 50).encode()
    folders: list[str] = []
    for size in (11, 1000, text.CHUNK, text.CHUNK):
        monkeypatch.setattr(text.read, "__defaults__", (size,))
        folders.append(f"out{len(folders)}")
        run(tmp_path, content, name=folders[-1], level=level, min_freq=2, normalizer="none")
    for file in (tmp_path / folders[0]).iterdir():
        assert len({(tmp_path / folder / file.name).read_bytes() for folder in folders}) == 1


def test_any_cut_into_parts_and_chunks_gives_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(15)
    for number in range(25):
        known = chance.sample(
            ["a", "The", "ABC", " ", "\n", "\r\n", ". ", "é", "e\u0301", "Σ", "你好", "🙂", " ↵ ", "<unk>"], 6
        )
        content = ("seen " + "".join(chance.choices(known, k=300))).encode()
        level, normalizer = chance.choice(["char", "letter", "word", "bpe"]), chance.choice(["book", "lower", "none"])
        normalizer = "none" if level == "letter" else normalizer
        fields = {
            "level": level,
            "normalizer": normalizer,
            "nfc": chance.random() < 0.5,
            "line_ends": level == "word" and normalizer != "book",
            "min_freq": chance.choice([0, 3]),
            "max_tokens": chance.choice([0, 40]),
            "fit_vocab_on": chance.choice(["all", "train"]),
        }
        try:
            run(tmp_path, content, name=f"{number}", **fields)
        except CorpusError:
            continue
        for cut in ("a", "b"):
            monkeypatch.setattr(parts, "SIZE", chance.randrange(1, 200))
            monkeypatch.setattr(text.read, "__defaults__", (chance.randrange(1, 50),))
            run(tmp_path, content, name=f"{number}{cut}", **fields)
            for whole in (tmp_path / f"{number}").iterdir():
                again = tmp_path / f"{number}{cut}" / whole.name
                assert whole.read_bytes() == again.read_bytes(), fields
        monkeypatch.undo()


def test_shifts_are_known_however_seldom_and_are_no_characters(tmp_path: Path) -> None:
    content = "a sea, a Sea of seas, " * 9 + "TVs! " + "seas, " * 9
    table, vocab = run(tmp_path, content.encode(), level="letter", normalizer="none", min_freq=5)
    level, [shift, unshift] = LEVELS["letter"], vocab.ids(SHIFTS)
    assert (vocab.counts[shift], vocab.counts[unshift], vocab.tokens.count("t")) == (11, 1, 0)
    assert len(table.ids) == len(content) + 12
    assert sum(split.characters for split in table.splits.values()) == len(content)
    assert sum(split.unknown for split in table.splits.values()) == 3  # t, v and !
    assert vocab.decode(table.ids.tolist(), level).startswith(content[: len("a sea, a Sea")])
    with pytest.raises(ValidationError, match="level=letter needs normalizer=none: lower leaves no capital"):
        TokenizeConfig(level="letter")


@pytest.mark.parametrize("fields", [{"level": "word", "line_ends": True, "min_freq": 2}, {"level": "bpe"}])
def test_several_processes_give_the_tables_and_the_errors_that_one_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    content = (POLYGLOT * 300).encode()
    run(tmp_path, content, name="alone", **fields)
    monkeypatch.setattr(parts, "SIZE", 10_000)
    monkeypatch.setattr(parts, "LARGE", 0)
    monkeypatch.setattr(cores, "available", lambda: 2)
    run(tmp_path, content, name="together", **fields)
    for alone in (tmp_path / "alone").iterdir():
        assert alone.read_bytes() == (tmp_path / "together" / alone.name).read_bytes()
    with pytest.raises(CorpusError, match=f"see byte {len(content):,}"):
        run(tmp_path, content + b"\xff", name="broken", **fields)


@pytest.mark.parametrize("level", ["char", "word", "bpe"])
def test_memory_does_not_grow_with_the_text(level: text.LevelName) -> None:
    def peak(chunks: int) -> int:
        tracemalloc.start()
        pieces = LEVELS[level].pieces(text.normalize(itertools.repeat(POLYGLOT * 500, chunks), "book", level))
        merge(map(count, pieces))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(1)  # what is loaded at first is none of the text's
    assert peak(80) < 1.2 * peak(20)


@pytest.mark.parametrize("level", ["char", "letter", "word", "bpe"])
def test_pieces_can_be_counted_and_looked_up_apart_and_in_any_order(level: text.LevelName) -> None:
    source = POLYGLOT * 4
    whole = list(LEVELS[level].pieces([source]))
    pieces = list(LEVELS[level].pieces(source[at : at + 37] for at in range(0, len(source), 37)))
    shuffled = random.Random(0).sample(pieces, len(pieces))
    counts = merge(map(count, shuffled))
    assert counts == count(whole[0]) == Counter(LEVELS[level].split(source))
    vocab = Vocab.build(counts, min_freq=5)
    assert np.array_equal(np.concatenate([index(piece, vocab) for piece in pieces]), index(whole[0], vocab))


def test_long_pieces_of_bytes_are_counted_like_short_ones() -> None:
    source = "".join(random.Random(1).choices("ab \n\x00\x7f", weights=range(1, 7), k=PAIRS + 1))
    for length in (PAIRS - 1, PAIRS, PAIRS + 1):
        assert count(text.code_points(source[:length])) == Counter(source[:length])


def test_more_tokens_than_there_are_keep_them_all(tmp_path: Path) -> None:
    table, _ = run(tmp_path, b"abc" * 20, max_tokens=10**9)
    assert len(table.ids) == 60


def test_shares_are_cut_at_the_decimals_they_say() -> None:
    def ends(total: int, train: float, valid: float, test: float) -> tuple[int, int, int]:
        return bounds(total, TokenizeConfig(train_share=train, valid_share=valid, test_share=test))

    assert ends(10, 0.7, 0.2, 0.1) == (7, 9, 10)
    assert ends(100, 0.29, 0.28, 0.43) == (29, 57, 100)
    assert ends(1_000_000_007, 0.8, 0.1, 0.1) == (800_000_005, 900_000_006, 1_000_000_007)
    assert ends(11, 1, 0, 0) == (11, 11, 11)
    assert ends(11, 0.9, 0, 0.1) == (9, 9, 11)
    assert ends(11, 0.9, 0.1, 0) == (9, 11, 11)
    assert ends(3, 1e-05, 0.5, 0.49999) == (0, 1, 3)


@pytest.mark.parametrize(
    ("content", "fields", "sentence"),
    [
        ("Привет, мир!\n" * 40, {"normalizer": "book"}, "set tokenize.normalizer=lower"),
        (
            "你好" * 40,
            {"normalizer": "book", "level": "word", "fit_vocab_on": "all"},
            "normalizer=book keeps the letters",
        ),
        ("", {}, "no text to learn from"),
        ("", {"normalizer": "book"}, "no text to learn from"),
        (" \n\r\n ", {"level": "word"}, "no text to learn from"),
        ("a", {}, "training split is empty: of the 1"),
        ("some text", {"max_tokens": 1}, "training split is empty: of the 1"),
        ("text", {"level": "bpe"}, "training split is empty: of the 1 pieces"),
        (" \n", {"level": "bpe", "normalizer": "book"}, "set tokenize.normalizer=lower"),
        ("你好" * 1_000_000, {"level": "word"}, "tokenize.level=char"),
        ("some text", {"min_freq": 100}, "lower tokenize.min_freq"),
        ("Some text", {"min_freq": 100, "level": "letter", "normalizer": "none"}, "lower tokenize.min_freq"),
    ],
)
def test_a_text_that_cannot_be_learnt_from_is_refused(
    tmp_path: Path, content: str, fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CorpusError, match=re.escape(sentence)):
        run(tmp_path, content.encode(), **fields)
    assert not list((tmp_path / "out").iterdir())


def test_a_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="not UTF-8"):
        run(tmp_path, "où".encode("utf-16"))


def test_a_text_that_the_books_rule_mostly_drops_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path, b"Plain prose, line by line.\n" * 20, name="plain", normalizer="book")
        run(tmp_path, "Ещё немного text\n".encode() * 20, name="lower")
        assert not caplog.records
        run(tmp_path, "Ещё немного text\n".encode() * 20, normalizer="book")
    assert "24 % of this text" in caplog.text


@pytest.mark.parametrize(
    ("content", "fields", "sentence"),
    [
        ("".join(f"{chr(0x4E00 + code) * 9}。\n" for code in range(40)), {"level": "word"}, "set tokenize.level=char"),
        ("the sea and the tide " * 9 + "ΧΨΩ" * 4, {}, "lower tokenize.min_freq"),
    ],
)
def test_a_text_of_which_most_is_unknown_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, fields: dict[str, Any], sentence: str
) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path, content.encode(), **fields)
    (record,) = caplog.records
    assert re.search(r"100 % of the (valid|test) split's (word|char)", record.getMessage())
    assert sentence in record.getMessage()
