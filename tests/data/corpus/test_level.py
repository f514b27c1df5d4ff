"""What a token is: a text falls into tokens, and these join to a text again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from data.corpus import subwords, text
from data.corpus.level import BPE, CHAR, LETTER, LEVELS, WORD, Level
from data.errors import CorpusError
from data.tables.merges import Merges
from data.tables.vocab import Vocab

SAID = "Über dem Meer,\n  to be 🙂 "
PAIRS = [("e", "r"), ("Ġ", "M"), ("e", "er"), ("ĠM", "eer"), ("ð", "Ł")]
SUBWORDS = BPE.of(Vocab.merged({}, Merges(PAIRS)))


def test_characters_and_words_are_split_and_joined() -> None:
    assert CHAR.split("a b\n") == ["a", " ", "b", "\n"]
    assert CHAR.join(["a", " ", "b"]) == "a b"
    assert WORD.split(" to  be\n") == ["to", "be"]
    assert WORD.join(["to", "be"]) == "to be"
    assert [*LEVELS] == [level.name for level in LEVELS.values()] == ["char", "letter", "word", "bpe"]


def test_letters_are_split_with_their_shifts_and_joined_without() -> None:
    tokens = ["\x0e", "t", "h", "e", " ", "\x0e", "s", "\x0e", "e", "a"]
    assert LETTER.split("The SEA") == tokens
    assert LETTER.join(tokens) == "The SEA"
    assert [added for added, _ in LETTER.added(zip(tokens, itertools.count()))] == ["", *"The ", "", "S", "", *"EA"]
    assert "".join(LETTER.texts(tokens[at : at + 1] for at in range(len(tokens)))) == "The SEA"
    assert (LETTER.after(tokens), LETTER.after(["s"], "\x0e"), CHAR.after(tokens)) == ("\x0es\x0eea", "\x0es", "a")
    assert LETTER.says(["l"], ["L"], LETTER.after(tokens))
    assert not LETTER.says(["l"], ["l"], LETTER.after(tokens))
    assert [*map(LETTER.has, ["a", "\x0e", "\x0f", "A", "ab"])] == [True, True, True, False, False]


def test_subwords_are_split_and_joined_and_before_there_are_any_their_pieces() -> None:
    assert BPE.split("the Meer") == ["the", " Meer"]
    assert BPE.join(["the", " Meer"]) == "the Meer"
    assert SUBWORDS.split("ber Meer é") == ["b", "er", "ĠMeer", "Ġ", "Ã", "©"]
    assert SUBWORDS.join(SUBWORDS.split(SAID)) == SAID
    assert SUBWORDS.has("ĠMeer")
    assert not SUBWORDS.has(" Meer")


def test_a_subword_adds_what_it_completes() -> None:
    tokens = SUBWORDS.split("a🙂é")
    assert [added for added, _ in SUBWORDS.added((token, None) for token in tokens)] == ["a", "", "", "🙂", "", "é"]
    assert [*SUBWORDS.added(zip(tokens[:3], "xyz", strict=True))] == [("a", "x"), ("", "y"), ("\ufffd", "z")]
    assert [added for added, _ in SUBWORDS.added((token, None) for token in [*tokens[:2], "a", "©", "b"])] == [
        *("a", "", "\ufffda", "\ufffd", "b")
    ]
    drawn = iter(tokens)
    assert next(SUBWORDS.added((token, None) for token in drawn)) == ("a", None)
    assert len([*drawn]) == 5, "what is complete waits for nothing"
    pieces = [tokens[at : at + 2] for at in range(0, len(tokens), 2)]
    assert "".join(SUBWORDS.texts(pieces)) == "a🙂é"


def test_what_subwords_say_is_found_wherever_they_begin() -> None:
    tokens = SUBWORDS.split("a🙂é!")
    assert SUBWORDS.says(tokens[2:], ["é!"])
    assert not SUBWORDS.says(tokens[2:], ["🙂", "\ufffd"])
    assert WORD.says(["to", "be"], ["o b"])
    assert not WORD.says(["to", "be"], [])


def test_a_line_end_among_words_is_one_in_the_text() -> None:
    assert WORD.join(["to", "be", "↵", "or", "↵", "↵", "not"]) == "to be\nor\n\nnot"
    assert WORD.join(["↵", "to", "↵"]) == "\nto\n"
    assert CHAR.join("a↵b") == "a↵b"


@pytest.mark.parametrize("level", [*LEVELS.values(), SUBWORDS], ids=["char", "letter", "word", "pieces", "bpe"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_where_a_text_is_cut_into_chunks_does_not_show(level: Level, size: int) -> None:
    chunks = [SAID[at : at + size] for at in range(0, len(SAID), size)]
    assert [token for tokens in level.tokens(chunks) for token in tokens] == level.split(SAID)
    pieces = [
        [*map(chr, piece.tolist())] if isinstance(piece, np.ndarray) else piece.to_pylist()
        for piece in level.pieces(chunks)
    ]
    assert [token for tokens in pieces for token in tokens] == level.split(SAID)


def test_a_text_without_white_space_has_no_words() -> None:
    endless = ["x" * 300_000] * 4
    for read in (WORD.tokens, WORD.pieces):
        with pytest.raises(CorpusError, match="no words to speak of"):
            list(read(endless))


@pytest.mark.parametrize(
    ("level", "tokens", "joined"),
    [
        (CHAR.of(Vocab.build({}, ends=2)), ["a", text.END, "b", text.END], "a\nb\n"),
        (LETTER, ["\x0e", "a", "\x0e", "b", text.END, "c", "\x0e", text.END], "AB\nc\n"),
        (WORD, ["a", "b", text.END, "c", text.LINE_END, text.END], "a b\nc\n\n"),
        (SUBWORDS, ["a", subwords.written("é")[:1], text.END, "b"], "a\ufffd\nb"),
    ],
)
def test_where_a_document_ends_a_line_does(level: Level, tokens: list[str], joined: str) -> None:
    assert level.join(tokens) == joined
    assert "".join(level.texts([tokens])).rstrip(" ") == joined
    added = [*level.added(zip(tokens, itertools.count()))]
    assert [beside for _, beside in added] == [*range(len(tokens))]
    assert "".join(piece for piece, _ in added) == joined
