"""Reading and normalising, against the plain rules they must agree with."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from data.corpus import text
from data.errors import CorpusError

TEXTS = {
    "nothing": "",
    "one letter": "a",
    "no letter": " \n-- \n",
    "one line": "  The Time Machine, by H. G. Wells [1898]  ",
    "prose": "The Time Machine\n\n  by H. G. Wells\n\n\nI -- the\tfirst-\nborn, said: “no”.\n",
    "newline in a run": "one, \n two\n...three .\n. four",
    "many scripts": "Überfluß — œuvre ÅÄÖ İstanbul; ΟΔΥΣΣΕΥΣ ΣΑΣ. Σ\nПривет, МИР! 你好，世界。 🙂 a\u0301 שלום",
    "rare white space": "a\u2028b\x85c\x1cd\u3000e\xa0\x0bf\x0c",
    "accents apart": "e\u0301te\u0301 s\u0307\u0323\n a\u0308\u0304 \u1112\u1161\u11ab\u1173 \u09c7\u09be \u212b",
    "lines with more before them": 'One.\n"Two"\n\n  "Three,\n\n\nfour"\n . \n"five \n',
    "long runs": "a" + " ." * 40 + "b" + "\n " * 40 + "c" + " " * 90,
}


def book(source: str) -> str:
    """The chapter's rule, line by line."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", source)
    return "".join(re.sub("[^A-Za-z]+", " ", line).strip().lower() for line in lines)


def book_words(source: str) -> str:
    return " ".join(re.sub("[^A-Za-z]+", " ", source).lower().split())


def lower(source: str) -> str:
    return "".join("σ" if character == "Σ" else character.lower() for character in source)


def composed(source: str) -> str:
    return unicodedata.normalize("NFC", source)


def cuts(source: str, chance: random.Random) -> Iterator[str]:
    """The text in pieces of random lengths, some of them empty."""
    at = 0
    while at < len(source):
        length = chance.choice((0, 1, 1, 2, 3, 7, 20))
        yield source[at : at + length]
        at += length


@pytest.mark.parametrize("source", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize(
    ("normalizer", "level", "rule"),
    [
        ("book", "char", book),
        ("book", "word", book_words),
        ("lower", "char", lower),
        ("none", "char", str),
        ("none+nfc", "char", composed),
        ("lower+nfc", "word", lambda source: lower(composed(source))),
        ("book+nfc", "char", lambda source: book(composed(source))),
        ("lower+nfc+lines", "word", lambda source: lower(composed(source)).replace("\n", " ↵ ")),
    ],
)
def test_every_cut_gives_the_text_that_the_rule_gives(
    normalizer: text.Normalizer, level: text.LevelName, rule: Callable[[str], str], source: str
) -> None:
    chance = random.Random(normalizer + source)
    for _ in range(100):
        assert "".join(text.normalize(cuts(source, chance), normalizer, level)) == rule(source)


def test_whatever_may_be_composed_with_what_comes_before_waits_for_it() -> None:
    every = map(chr, (code for code in range(0x20000) if not 0xD800 <= code < 0xE000))
    apart = [unicodedata.normalize("NFD", one) for one in every if len(composed(one)) == 1]
    for one in apart:
        if len(one) > 1:
            assert "".join(text.normalize([one[:-1], one[-1]], "none+nfc", "char")) == composed(one)


def test_marks_without_end_upon_one_character_are_refused_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(3)
    monkeypatch.setattr(text, "MOST_MARKS", 4)
    refused = 0
    for _ in range(1000):
        source = "".join(chance.choices("a\u0301\u0315", (1, 2, 2), k=chance.randrange(30)))
        stacked = re.search("[\u0301\u0315]{5}", source) is not None
        refused += stacked
        with pytest.raises(CorpusError, match="more than 4 marks upon it") if stacked else nullcontext():
            assert "".join(text.normalize(cuts(source, chance), "none+nfc", "char")) == composed(source)
    assert 100 < refused < 900


def test_random_texts_are_normalised_by_the_rule_of_the_book() -> None:
    chance = random.Random(7)
    for _ in range(1000):
        source = "".join(chance.choices("aB  \n.é", k=chance.randrange(30)))
        assert "".join(text.normalize(cuts(source, chance), "book", "char")) == book(source)
        assert "".join(text.normalize(cuts(source, chance), "book", "word")) == book_words(source)


def test_lines_end_in_newlines_whoever_wrote_them(tmp_path: Path) -> None:
    file = tmp_path / "corpus.txt"
    file.write_bytes("\ufeffÄ\r\nb\rc\n\r\n\r".encode())
    for size in range(1, 16):
        assert "".join(text.read(file, size)) == "Ä\nb\nc\n\n\n"


def test_other_bytes_than_utf8_are_refused_and_located(tmp_path: Path) -> None:
    file = tmp_path / "corpus.txt"
    file.write_bytes("é".encode() * 5 + "é".encode("latin-1") + b" end")
    for size in (1, 3, 100):
        with pytest.raises(CorpusError, match=r"corpus\.txt is not UTF-8 text \(see byte 10\)"):
            list(text.read(file, size))
    file.write_bytes("é".encode()[:1])
    with pytest.raises(CorpusError, match="byte 0"):
        list(text.read(file))


def test_a_prompt_is_spelled_like_the_text_and_keeps_its_ends() -> None:
    assert text.normalize_prefix(" The 2nd, ", "book", "char") == " the nd "
    assert text.normalize_prefix("ΟΔΟΣ ", "lower", "char") == "οδοσ "
    assert text.normalize_prefix(" Été, ", "none", "char") == " Été, "
    for prefix in ("Time flies ", " Time flies "):
        assert text.normalize_prefix(prefix, "book", "bpe") == " time flies "
    assert text.normalize_prefix("", "book", "bpe") == ""
    assert text.normalize_prefix("Été ", "none", "bpe") == "Été "


def test_by_the_books_rule_each_line_of_a_text_for_subwords_begins_with_a_space() -> None:
    said = "The 2nd time.\n\n  No: 3 o'clock\nit said"
    for size in (1, 3, 50):
        chunks = [said[at : at + size] for at in range(0, len(said), size)]
        assert "".join(text.normalize(chunks, "book", "bpe")) == " the nd time no o clock it said"
    lines = ["".join(text.normalize([line], "book", "bpe")) for line in said.splitlines(keepends=True)]
    assert "".join(lines) == " the nd time no o clock it said"


def test_a_prompt_is_composed_and_its_lines_end_as_in_the_text() -> None:
    assert text.normalize_prefix("E\u0301te\u0301\n", "lower+nfc+lines", "char") == "été ↵ "
    assert text.spellings("É", "lower", "char") == ["é", "é", "e\u0301"]
    assert text.spellings("É", "lower+nfc", "char") == ["é"] * 3


def test_code_points_are_numbers_of_characters() -> None:
    assert text.code_points("az").tolist() == [97, 122]
    assert text.code_points("aя🙂").tolist() == [97, 0x44F, 0x1F642]
