"""What unknown tokens cost beside ``<unk>``: against counting plainly, and wherever a text is cut."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data.corpus.level import LEVELS
from data.corpus.text import LevelName, normalize
from data.tables.vocab import Vocab
from stages.lm.spelling import Spelling
from stages.promotion.passage import Passage

TEXT = "Œuvre: die See,\n die  Überfahrt 🙂 und die SEE\x1cdie Insel – und die Œuvre "
KNOWN: dict[LevelName, list[str]] = {
    "char": list("dien uS"),
    "letter": [*"\x0e\x0fdien us"],
    "word": ["die", "und", "See,"],
}


def plain(tokens: list[str], known: list[str], level: LevelName) -> float:
    """The formulas once more."""
    unknown = [token for token in tokens[1:] if token not in known]
    if level != "word":
        return len(unknown) * math.log2(len({token for token in tokens if token not in known}))
    return sum(len(word) + 1 for word in unknown) * math.log2(len(set("".join(tokens))) + 1)


def spelled(tokens: list[str], level: LevelName, size: int) -> Spelling:
    vocab, spelling = Vocab(["<unk>", *KNOWN[level]], [0] * (len(KNOWN[level]) + 1)), Spelling(shifts=level == "letter")
    for at in range(0, len(tokens), size):
        piece = tokens[at : at + size]
        spelling.add(LEVELS[level].array(piece), np.array(vocab.ids(piece), np.uint8))
    return spelling


@pytest.mark.parametrize("level", ["char", "letter", "word"])
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_all_unknown_tokens_but_the_first_are_told_apart(level: LevelName, size: int) -> None:
    tokens = LEVELS[level].split(TEXT)
    spelling = spelled(tokens, level, size)
    assert spelling.bits == pytest.approx(plain(tokens, KNOWN[level], level))
    assert spelling.bits > 0
    assert spelling.tokens == len(tokens)
    assert spelling.unknown == sum(token not in KNOWN[level] for token in tokens)
    assert spelling.characters == len(LEVELS[level].join(tokens)) + (level == "word")


@pytest.mark.parametrize("text", ["the sea\nis\n\nfar away", "\n\nthe sea", "the sea\n"])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_line_end_is_the_space_behind_a_word(text: str, size: int) -> None:
    tokens = LEVELS["word"].split("".join(normalize([text], "none+lines", "word")))
    assert LEVELS["word"].join(tokens) == text
    assert spelled(tokens, "word", size).characters == len(text) + (not text.endswith("\n"))


@pytest.mark.parametrize("level", ["char", "letter", "word"])
@pytest.mark.parametrize("text", [TEXT, "new ↵ ↵ Line ↵ end", "↵ Line"])
def test_what_others_have_read_of_a_text_adds_up(level: LevelName, text: str) -> None:
    tokens = LEVELS[level].split(text)
    whole = spelled(tokens, level, 100)
    for first in range(len(tokens) + 1):
        for second in range(first, len(tokens) + 1):
            read = Spelling()
            for some in (tokens[:first], tokens[first:second], tokens[second:]):
                read.extend(spelled(some, level, 100))
            same = ("tokens", "characters", "unknown", "bits")
            assert [getattr(read, name) for name in same] == [getattr(whole, name) for name in same]


@pytest.mark.parametrize("level", ["char", "letter", "word"])
def test_nothing_unknown_costs_nothing(level: LevelName) -> None:
    for tokens in ([], KNOWN[level] * 3, ["?", *KNOWN[level]]):
        assert spelled(tokens, level, 2).bits == 0, "and the first token, which nothing predicts, never does"


@pytest.mark.parametrize("level", ["char", "letter", "word"])
def test_the_judge_charges_the_same(level: LevelName) -> None:
    tokens = LEVELS[level].split(TEXT)
    vocab = Vocab(["<unk>", *KNOWN[level]], [0] * (len(KNOWN[level]) + 1))
    codes = np.array([*map(ord, LEVELS[level].join(tokens))], np.uint32)
    passage = Passage([codes], by_words=level == "word", joined=level == "word")
    cost = passage.read(LEVELS[level], vocab).cost
    assert cost[1:].sum() == pytest.approx(spelled(tokens, level, 7).bits)
