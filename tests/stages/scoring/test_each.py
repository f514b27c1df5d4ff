"""Each of many texts is measured as if it were alone, and its word that cost most is named."""

from __future__ import annotations

import itertools
import math
import random
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from data.corpus.letters import SHIFTS
from data.corpus.text import END
from data.errors import ConfigError, CorpusError
from data.tables.vocab import Vocab
from stages.lm.mixture import Mixture
from stages.lm.model import LanguageModel
from stages.lm.ngram import NGram
from stages.lm.parameters import Architecture, together
from stages.scoring import each
from stages.scoring.each import Scored, score_each
from tests.stages.lm import test_subwords

if TYPE_CHECKING:
    from data.corpus.text import LevelName, Normalizer

SAID = "The sea, the SEA! é\nÜber dem Meer 🙂🙂.\t\u3000zq"
WORDS = ["<unk>", *["the", "sea,", "sea!", "über", "dem"], "↵"]


def model(
    vocab: Vocab, level: LevelName = "char", normalizer: Normalizer = "lower", networks: int = 1
) -> LanguageModel:
    architecture = Architecture("lstm", "tanh", 24, 2, len(vocab), ends=vocab.ends, networks=networks)
    drawn = np.random.default_rng(5)
    weights = [
        {name: drawn.normal(0, 0.5, shape).astype(np.float32) for name, shape in architecture.shapes().items()}
        for _ in range(networks)
    ]
    return LanguageModel(architecture, together(weights), vocab, level, normalizer)


def models() -> dict[str, LanguageModel]:
    characters = Vocab(["<unk>", *" aehmrst,\n"], [0] * 11)
    ends = Vocab(["<unk>", END, *" abdehmrstuz,"], [0] * 15)
    beside = model(ends)
    counts = NGram.fit(np.random.default_rng(1).integers(1, 15, 900, np.uint8), 15, 4, ends=True)
    beside.predictor = Mixture(beside.network, counts, [0.3, 0.5, 0.7, 0.6])
    return {
        "characters": model(characters),
        "the book's characters": model(characters, normalizer="book"),
        "letters": model(Vocab(["<unk>", *SHIFTS, *" aehmrst,\n"], [0] * 13), "letter", "none"),
        "words": model(Vocab(WORDS, [0] * len(WORDS)), "word", "lower+lines"),
        "subwords": test_subwords.model(),
        "documents": model(ends),
        "mixture": beside,
        "networks": model(ends, networks=2),
    }


def texts(number: int) -> list[str]:
    drawn = random.Random(3)
    some = ["".join(drawn.choices(SAID, k=drawn.choice([0, 1, 2, 7, 30, 80]))) for _ in range(number)]
    return [*some, "", " ", "s", "\n\n", "the sea,\n\nthe sea\n", "the cat saw the sea, " * 1_000]


def read_by(ours: LanguageModel, text: str) -> str:
    return ours.kind.join(token for piece, _ in ours._read(text) for token in piece)


@pytest.fixture(params=models())
def ours(request: pytest.FixtureRequest) -> LanguageModel:
    return models()[request.param]


def test_figures_are_those_of_the_text_alone(ours: LanguageModel) -> None:
    said = texts(120)
    for text, found in zip(said, score_each(ours, said), strict=True):
        try:
            alone = ours.score(text)
        except ConfigError:
            assert found == Scored(found.characters, 0)
            continue
        assert found.bits_per_character == pytest.approx(alone.bits_per_character, rel=1e-5)
        assert (found.tokens, found.unknown_rate) == (alone.tokens, alone.unknown_rate)
        assert found.characters == len(read_by(ours, text)) + (ours.level == "word" and not text.endswith("\n"))


def test_no_digit_depends_on_the_other_texts(ours: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    said = texts(250)
    found = [*score_each(ours, said)]
    order = random.Random(4).sample(range(len(said)), len(said))
    assert [*score_each(ours, [said[text] for text in order])] == [found[text] for text in order]
    others = [said[at] if at % 9 == 0 else "zzz " * at for at in range(len(said))]
    assert [*score_each(ours, others)][::9] == found[::9]
    assert [*score_each(ours, said[5:6])] == found[5:6]
    monkeypatch.setattr(each, "WINDOW", 300)
    assert [*score_each(ours, said)] == found


def test_a_shift_is_charged_to_the_word_of_its_letter() -> None:
    ours = models()["letters"]
    [found] = score_each(ours, ["at TEA"])
    of_tea = [*ours.log_probabilities("at TEA")][2:]
    assert [letter for letter, _ in of_tea] == ["", "T", "", "E", "A"]
    assert (found.span, found.span_at) == ("TEA", 3)
    assert found.span_bits == pytest.approx(-sum(nats for _, nats in of_tea) / math.log(2), rel=1e-5)


def test_of_a_text_that_is_one_word_it_cost_all(ours: LanguageModel) -> None:
    for text in ("these", "seaste,", "thesea"):
        [found] = score_each(ours, [text])
        if not found.tokens:  # of words it is one
            continue
        assert found.span == text.rstrip("," if "book" in ours.normalizer else "")
        assert found.span_at == 0
        assert found.bits_per_character is not None
        # The first token is charged for nothing, and taken to be as long as the mean.
        assert found.span_bits == pytest.approx(
            found.bits_per_character * found.characters * found.tokens / (found.tokens + 1)
        )


def test_the_word_that_cost_most_is_found_where_the_text_as_read_has_it(ours: LanguageModel) -> None:
    said = texts(200)
    seen = 0
    for text, found in zip(said, score_each(ours, said), strict=True):
        if found.span is None or found.span_at is None:
            continue
        seen += 1
        read = read_by(ours, text)
        assert read[found.span_at :].startswith(found.span)
        assert len(found.span.split()) == 1
        assert found.span in read.split() or len(found.span) == each.LONGEST
        assert read[: found.span_at].endswith((" ", "\n", "\t", "\u3000")) or not found.span_at
    assert seen > 80


def test_among_characters_a_word_costs_what_its_characters_do() -> None:
    ours = models()["characters"]
    text = "the sea ate me \u3000 heart"
    costs = [0.0, *(-nats / np.log(2) for _, nats in ours.log_probabilities(text))]
    words = [(sum(costs[at : at + len(word)]), word, at) for word in text.split() for at in [text.index(word)]]
    [found] = score_each(ours, [text])
    bits, word, at = max(words)
    assert (found.span, found.span_at) == (word, at)
    assert found.span_bits == pytest.approx(bits, rel=1e-5)


def test_an_unknown_word_is_spelled_out_and_found() -> None:
    text = "the sea, the qzx1qzx1qzx1 sea, dem"
    for kind in ("characters", "words", "mixture"):
        [found] = score_each(models()[kind], [text.replace("1", "qzx" * 9)])
        assert found.span is not None
        assert "qzx" in found.span, kind


def test_what_runs_on_is_cut() -> None:
    [found] = score_each(models()["characters"], ["the " + "s" * 500])
    assert found.span == "s" * each.LONGEST
    assert found.span_at is not None
    assert (found.span_at - 4) % each.LONGEST == 0


def test_a_network_without_bounds_gives_the_largest_number() -> None:
    vocab = Vocab(["<unk>", *" aehmrst,\n"], [0] * 11)
    architecture = Architecture("rnn", "relu", 16, 1, len(vocab))
    weights = {name: np.full(shape, 3, np.float32) for name, shape in architecture.shapes().items()}
    ours = LanguageModel(architecture, weights, vocab, "char", "lower")
    found = [*score_each(ours, ["the sea " * 40, "me"])]
    assert found[0].bits_per_character == found[0].span_bits == sys.float_info.max
    assert found[1].bits_per_character == pytest.approx(ours.score("me").bits_per_character, rel=1e-5)


def test_a_text_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(each, "MOST", 20)
    with pytest.raises(CorpusError, match=r"text 2 has 21 characters, more than the 20"):
        [*score_each(models()["characters"], ["the sea", "s" * 21])]


def test_texts_are_taken_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(each, "WINDOW", 100)
    endless = score_each(models()["characters"], itertools.repeat("the sea"))
    assert len([*itertools.islice(endless, 50)]) == 50
