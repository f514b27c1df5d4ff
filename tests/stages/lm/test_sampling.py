"""Text out of a model: what is drawn, among which tokens, where it ends, and what is said of the prompt."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pytest

from data.corpus.level import CHAR
from data.corpus.text import LevelName, Normalizer
from data.errors import ConfigError
from data.tables.vocab import Vocab
from stages.lm.model import LanguageModel
from stages.lm.network import Network
from stages.lm.parameters import Architecture, Parameters

LETTERS = Vocab(["<unk>", *" abcdefgh"], [0] * 10)
WORDS = Vocab(["<unk>", "time", "machine", "the", "a", "of", "sea", "seas", "over", "he"], [0] * 10)
Cell = Literal["rnn", "gru", "lstm"]
CELLS: list[tuple[Cell, int]] = [("rnn", 1), ("rnn", 2), ("gru", 1), ("gru", 3), ("lstm", 1), ("lstm", 2)]


def random_weights(architecture: Architecture) -> Parameters:
    rng = np.random.default_rng(5)
    scale = 0.15 if architecture.activation == "relu" else 0.3  # a ReLU RNN explodes early
    return {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in architecture.shapes().items()}


def model(
    cell: Cell = "gru",
    layers: int = 1,
    vocab: Vocab = LETTERS,
    level: LevelName = "char",
    normalizer: Normalizer = "lower",
    probabilities: Sequence[float] | None = None,
) -> LanguageModel:
    """With ``probabilities`` it gives each token the same probability wherever it stands."""
    architecture = Architecture(cell, "relu" if cell == "rnn" else "tanh", 16, layers, len(vocab))
    weights = random_weights(architecture)
    if probabilities is not None:
        weights["dense.weight"][:] = 0
        weights["dense.bias"][:] = np.log(probabilities)
    return LanguageModel(architecture, weights, vocab, level, normalizer)


def words(**options: Any) -> LanguageModel:
    return model(vocab=WORDS, level="word", **options)


def frequencies(text: str, letters: str) -> list[float]:
    assert set(text) <= set(letters)
    return [text.count(letter) / len(text) for letter in letters]


# --- how a text is spelled


def test_words_come_in_lines_where_line_ends_are_words() -> None:
    vocab = Vocab(["<unk>", "↵", "sea", "the"], [0] * 4)
    chances = [0.001, 0.499, 0.3, 0.2]
    ours = model(vocab=vocab, level="word", normalizer="none+lines", probabilities=chances)
    said = ours.sample("the\nsea", 40, temperature=1.0, seed=1)
    assert said.startswith("the\nsea")
    assert said.count("\n") > 10
    assert not {" \n", "\n ", "↵", "  "} & {said[at : at + length] for at in range(len(said)) for length in (1, 2)}
    assert ours.sample("the\nsea", 40, temperature=1.0, seed=1, stop="\n\n") == said[: said.index("\n\n")]


@pytest.mark.parametrize(("known", "read"), [("é", "é"), ("e\u0301", "e\u0301")])
@pytest.mark.parametrize("prefix", ["é", "e\u0301"])
def test_a_prompt_has_its_accents_as_the_vocabulary_has_them(
    caplog: pytest.LogCaptureFixture, known: str, read: str, prefix: str
) -> None:
    vocab = Vocab(["<unk>", *known, "t"], [0] * (len(known) + 2))
    assert model(vocab=vocab).sample(prefix + "T", 3).startswith(read + "t")
    assert not caplog.text


# --- what is drawn


@pytest.mark.parametrize(("cell", "layers"), CELLS)
def test_greedily_the_likeliest_token_follows(cell: Cell, layers: int) -> None:
    ours = model(cell, layers)
    ids = np.array(LETTERS.ids(ours.sample("abc", 20)), np.uint8)
    for position in range(3, len(ids)):
        last = [list(ours.network.losses(np.append(ids[:position], other)))[-1][-1] for other in range(1, len(LETTERS))]
        assert np.argmin(last) + 1 == ids[position]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_each_token_takes_one_number_of_the_seeds_stream(temperature: float) -> None:
    """So a seed's text stays what it is, whatever becomes of the sampler."""
    ours = model("lstm", 2)
    ids = LETTERS.ids("abc")
    for number in np.random.default_rng(11).random(25):
        losses = [list(ours.network.losses(np.array([*ids, other])))[-1][-1] for other in range(1, len(LETTERS))]
        cumulated = np.exp(-np.array(losses, np.float64) / temperature).cumsum()
        ids.append(int(np.argmax(cumulated / cumulated[-1] > number)) + 1)
    assert ours.sample("abc", 25, temperature, 11) == LETTERS.decode(ids, CHAR)


def test_text_is_the_normalised_prefix_and_the_continuation() -> None:
    text = model().sample("AbC ", 30)
    assert text.startswith("abc ")
    assert len(text) == 34
    assert model().sample("AbC ", 0) == "abc "
    assert len(model().sample("", 5)) == 5
    assert model(normalizer="book").sample("A--b", 3).startswith("a b")


def test_words_are_joined_with_a_space() -> None:
    text = words().sample("The  time ", 4)
    assert text.startswith("the time ")
    assert len(text.split(" ")) == 6
    assert len(words().sample("", 4).split(" ")) == 4


def test_a_seed_draws_the_same_text_again_and_another_one_another() -> None:
    texts = [model().sample("ab", 40, 1.0, seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_temperature_goes_from_the_likeliest_to_anything() -> None:
    ours = model("lstm")
    greedy = ours.sample("ab", 40)
    assert ours.sample("ab", 40, 1e-300) == ours.sample("ab", 40, 1e-9) == greedy
    assert set(ours.sample("ab", 600, float("inf"))) == set(" abcdefgh")


def test_tokens_are_drawn_as_the_softmax_says() -> None:
    ours = model(probabilities=[0.5, 0.7, 0.2, 0.1, *[1e-9] * 6])
    for temperature, shares in ((1.0, [0.7, 0.2, 0.1]), (0.5, [0.907, 0.074, 0.019])):
        assert frequencies(ours.sample("", 4000, temperature), " ab") == pytest.approx(shares, abs=0.03)


# --- among which tokens


@pytest.mark.parametrize(("cell", "layers"), CELLS)
def test_among_one_token_nothing_is_left_to_chance(cell: Cell, layers: int) -> None:
    ours = model(cell, layers)
    greedy = ours.sample("ab", 60)
    for seed in range(3):
        assert ours.sample("ab", 60, 2.0, seed, top_k=1) == greedy
        assert ours.sample("ab", 60, 2.0, seed, top_p=1e-9) == greedy
    assert ours.sample("ab", 60, top_k=3, top_p=0.5) == greedy


def test_a_wide_choice_is_no_choice() -> None:
    ours = model("lstm")
    for seed in range(5):
        text = ours.sample("ab", 60, 1.0, seed)
        for wide in (0, 9, 10, 1000):
            assert ours.sample("ab", 60, 1.0, seed, top_k=wide) == text
        assert ours.sample("ab", 60, 1.0, seed, top_p=1.0) == text


def test_top_k_keeps_the_likeliest_and_their_proportions() -> None:
    ours = model(probabilities=[0.3, 0.05, 0.4, 0.1, 0.2, *[0.01] * 5])
    assert frequencies(ours.sample("", 4000, 1.0, top_k=1), "a") == [1]
    assert frequencies(ours.sample("", 4000, 1.0, top_k=2), "ac") == pytest.approx([2 / 3, 1 / 3], abs=0.03)
    assert frequencies(ours.sample("", 4000, 1.0, top_k=3), "abc") == pytest.approx([4 / 7, 1 / 7, 2 / 7], abs=0.03)


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    ours = model(probabilities=[0.5, 0.1, 0.4, 0.2, 0.3, *[1e-9] * 5])  # of those that are said: 0.1, 0.4, 0.2, 0.3
    for top_p, kept in ((0.01, "a"), (0.39, "a"), (0.41, "ac"), (0.69, "ac"), (0.71, "abc"), (0.91, " abc")):
        assert set(ours.sample("", 2000, 1.0, top_p=top_p)) == set(kept)
    assert frequencies(ours.sample("", 4000, 1.0, top_p=0.5), "ac") == pytest.approx([4 / 7, 3 / 7], abs=0.03)


def test_both_count_what_the_temperature_made_of_the_probabilities() -> None:
    ours = model(probabilities=[0.5, 0.5, 0.3, 0.2, *[1e-9] * 6])
    assert set(ours.sample("", 2000, 1.0, top_p=0.6)) == set(" a")
    assert set(ours.sample("", 2000, 0.5, top_p=0.6)) == set(" ")  # 0.66, 0.24, 0.11
    assert set(ours.sample("", 2000, 5.0, top_p=0.6)) == set(" a")
    assert set(ours.sample("", 2000, 5.0, top_p=0.7)) == set(" ab")


def test_top_p_looks_at_what_top_k_left() -> None:
    ours = model(probabilities=[0.5, 0.4, 0.3, 0.2, 0.1, *[1e-9] * 5])
    assert set(ours.sample("", 2000, 1.0, top_p=0.55)) == set(" a")
    assert set(ours.sample("", 2000, 1.0, top_k=2, top_p=0.55)) == set(" ")  # 0.57, 0.43


def test_at_any_temperature_the_likeliest_are_the_likeliest() -> None:
    ours = model(probabilities=[0.3, 0.05, 0.4, 0.1, 0.2, *[0.01] * 5])
    for temperature in (1e-300, 1.0, 1e300, float("inf")):
        assert set(ours.sample("", 500, temperature, top_k=2)) <= set("ac")
        assert set(ours.sample("", 500, temperature, top_k=5, top_p=0.01)) == set("a")


def test_of_equals_the_first_are_kept() -> None:
    ours = model(probabilities=[0.1] * 10)
    assert set(ours.sample("", 500, 1.0, top_k=3)) == set(" ab")
    assert set(ours.sample("", 500, 1.0, top_p=0.3)) == set(" ab")
    assert set(ours.sample("", 500, float("inf"), top_k=3)) == set(" ab")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -1}, "temperature must be 0 or more, not -1"),
        ({"temperature": float("nan")}, "temperature must be 0 or more, not nan"),
        ({"top_k": -1}, "top_k must be 1 or more, or 0 for all tokens, not -1"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, not 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, not 1.1"),
        ({"top_p": float("nan")}, "top_p must be above 0 and at most 1, not nan"),
        ({"stop": ["a", ""]}, "a stop string must hold at least one character"),
        ({"stop": ""}, "a stop string must hold at least one character"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_before_anything_is_drawn(options: dict[str, Any], said: str) -> None:
    for call in (model().sample, model().stream):
        with pytest.raises(ConfigError, match=said):
            call("ab", 4, **options)


# --- a token at a time


@pytest.mark.parametrize("ours", [model("lstm", 2), words(), words(normalizer="none")])
@pytest.mark.parametrize("prefix", ["", "the", " The  sea "])
def test_what_is_streamed_joins_to_the_sample(ours: LanguageModel, prefix: str) -> None:
    for options in ({}, {"temperature": 1.0, "seed": 3}, {"temperature": 1.0, "top_k": 4, "stop": ["e", "sea"]}):
        pieces = [piece for piece, _ in ours.stream(prefix, 30, **options)]
        assert ours.prompt(prefix) + "".join(pieces) == ours.sample(prefix, 30, **options)
        assert len(pieces) <= 30


def test_a_token_is_there_before_the_next_one_is_computed() -> None:
    first, second = itertools.islice(model().stream("ab", 10**9), 2)
    assert model().sample("ab", 2) == "ab" + first[0] + second[0]


def test_probabilities_are_the_models_whatever_it_was_drawn_by() -> None:
    shares = [0.4, 0.3, 0.2, 0.06, *[0.04 / 6] * 6]  # <unk> first
    ours = model(probabilities=shares)
    drawn: list[dict[str, Any]] = [
        {},
        {"temperature": 0.3},
        {"temperature": 9.0, "top_k": 3},
        {"temperature": 1, "top_p": 0.8},
    ]
    for options in drawn:
        for piece, probability in ours.stream("", 50, **options, probabilities=True):
            assert probability == pytest.approx(shares[LETTERS.tokens.index(piece)], abs=1e-6)
    assert {probability for _, probability in ours.stream("", 50)} == {None}
    with_them = [piece for piece, _ in ours.stream("a", 50, 1.0, probabilities=True)]
    assert "a" + "".join(with_them) == ours.sample("a", 50, 1.0)


# --- where it ends


def cut(text: str, stops: Iterable[str]) -> str:
    """The text before the first place where one of the strings stands."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


@pytest.mark.parametrize("make", [model, words])
def test_a_stop_string_ends_the_text_right_before_it(make: Callable[[], LanguageModel]) -> None:
    ours, rng, ended = make(), np.random.default_rng(0), 0
    for seed in range(150):
        whole = ours.sample("", 40, 1.5, seed)
        places = rng.integers(0, len(whole), rng.integers(1, 4))
        stops = [whole[at : at + rng.integers(1, 9)] for at in places]  # of any tokens' ends and beginnings
        stops += [stops[0] + "!", whole[places[0] + 1 :][:1] or "!", "!" + stops[0]]  # and what only might become one
        expected = cut(whole, stops)
        assert ours.sample("", 40, 1.5, seed, stop=stops) == expected
        assert "".join(piece for piece, _ in ours.stream("", 40, 1.5, seed, stop=stops)) == expected
        ended += expected != whole
    assert ended > 100


def test_what_may_begin_a_stop_string_waits_and_the_rest_does_not() -> None:
    ours = model(probabilities=[0.1, 0.1, 0.5, *[0.05] * 7])
    assert ours.sample("", 5) == "aaaaa"
    assert ours.sample("", 5, stop="aaaaaa") == "aaaaa"
    assert ours.sample("", 5, stop="aaaaa") == ""
    assert next(ours.stream("", 10**9, stop=["ab", "b"]))[0] == "a"  # once the second one is no b
    assert ours.sample("", 5, stop=["aab", "a"]) == ""
    assert ours.sample("", 5, stop="b") == "aaaaa"


def test_a_stop_string_in_the_prompt_is_none() -> None:
    ours = model(probabilities=[0.1, 0.1, 0.5, *[0.05] * 7])
    assert ours.sample("bab", 3, stop="b") == "babaaa"
    assert ours.sample("ba", 3, stop="ba") == "baaaa"


def test_a_word_is_cut_where_a_stop_string_begins() -> None:
    shares = np.full(10, 0.01)
    shares[WORDS.tokens.index("machine")] = 0.9
    ours = words(probabilities=shares)
    assert ours.sample("the", 3) == "the machine machine machine"
    assert ours.sample("the", 3, stop="chi") == "the ma"
    assert ours.sample("the", 3, stop=["e m", "xyz"]) == "the machin"
    assert ours.sample("the", 3, stop="machine") == "the "
    assert [piece for piece, _ in ours.stream("the", 3, stop="e mac")] == [" machin"]


# --- what the vocabulary lacks


def test_unknown_is_read_and_never_said() -> None:
    ours = model()
    assert isinstance(ours.network, Network)
    ours.network._dense[1][0] = 100
    assert ours.sample("aXYZ?b", 20).startswith("axyz?b")
    for temperature in (0, 0.5, 50):
        assert "<unk>" not in ours.sample("q", 50, temperature)
    assert ours.sample("a?", 9)[2:] == ours.sample("a!", 9)[2:]
    nothing = model(vocab=Vocab(["<unk>"], [3]))
    assert nothing.sample("", 2, 1.0) == "<unk><unk>"


def test_what_a_prompt_holds_that_the_vocabulary_lacks_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    ours = model()
    with caplog.at_level(logging.WARNING):
        ours.sample("aé7bé ", 5)
        list(ours.stream("7é", 5))
    assert caplog.messages == ["the vocabulary lacks 'é', '7': read as <unk>"]
    ours.sample("É?", 5)
    assert caplog.messages[1:] == ["the vocabulary lacks '?': read as <unk>"]
    ours.sample("abc", 5)
    ours.score("aü")
    assert len(caplog.messages) == 2


def test_unknown_words_are_named_as_words_and_many_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        words().sample("The <unk> whale sinks", 2)
        model().sample("qrstuvwxyz", 2)
    assert caplog.messages == [
        "the vocabulary lacks 'whale', 'sinks': read as <unk>",
        "the vocabulary lacks 'q', 'r', 's', 't', 'u', 'v', 'w', 'x' and 2 more: read as <unk>",
    ]
