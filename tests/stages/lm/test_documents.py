"""A model that knows where documents end: each is read from nothing, and written from nothing to its end."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from data.corpus.letters import SHIFTS
from data.corpus.level import BPE
from data.corpus.text import END, LevelName
from data.tables.merges import Merges
from data.tables.tokens import END_ID
from data.tables.vocab import Vocab
from stages.lm import abreast, side_by_side
from stages.lm.layers import State
from stages.lm.model import LanguageModel
from stages.lm.network import Network
from stages.lm.parameters import Architecture, Parameters
from stages.lm.predictor import Predictor
from stages.training import adaptation

LETTERS = Vocab(["<unk>", END, *" abcdefgh"], [0] * 11)
CASED = Vocab(["<unk>", END, *SHIFTS, *" abcde"], [0] * 10)
WORDS = Vocab(["<unk>", END, "time", "machine", "the", "a", "of", "sea", "seas", "over"], [0] * 10)
SUBWORDS = Vocab.merged({"the": 5, " sea": 5}, Merges([("t", "h"), ("th", "e")]), ends=3)
CELLS: list[tuple[Literal["rnn", "gru", "lstm"], int]] = [("rnn", 2), ("gru", 1), ("lstm", 2)]
every_cell = pytest.mark.parametrize(("cell", "layers"), CELLS)


def random_weights(architecture: Architecture, end: float) -> Parameters:
    rng = np.random.default_rng(5)
    weights = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in architecture.shapes().items()}
    weights["dense.bias"][END_ID] = end
    return weights


def model(
    cell: Any = "gru", layers: int = 1, vocab: Vocab = LETTERS, level: LevelName = "char", end: float = 0.0
) -> LanguageModel:
    """One that ends a document the more often, the higher ``end`` is."""
    architecture = Architecture(cell, "tanh", 16, layers, len(vocab), ends=True)
    return LanguageModel(architecture, random_weights(architecture, end), vocab, level, "lower")


def losses(network: Predictor, ids: Any, *given: Any) -> npt.NDArray[np.float32]:
    return np.concatenate([np.empty(0, np.float32), *network.losses(np.asarray(ids), *given)])


@pytest.mark.parametrize("longest", [4, 60, 900])
@every_cell
def test_documents_cost_what_each_of_them_costs_alone(
    cell: str, layers: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, rng = model(cell, layers).network, np.random.default_rng(1)
    some = [rng.integers(END_ID + 1, len(LETTERS), rng.integers(1, longest)).tolist() for _ in range(3000 // longest)]
    some = [*some, [2] * 700]
    whole = np.array([id_ for document in some for id_ in (END_ID, *document)], np.uint8)
    expected = np.concatenate([losses(network, [END_ID, *document, END_ID], network.zero_state()) for document in some])
    expected = expected[:-1]  # nothing ends the last of them
    monkeypatch.setattr(side_by_side, "ROWS", 8)
    monkeypatch.setattr(side_by_side, "SHORTEST", 50)  # so that they are read as rows
    assert len(whole) > 8 * 50
    np.testing.assert_allclose(losses(network, whole), expected, atol=2e-5)
    monkeypatch.setattr(side_by_side, "SHORTEST", len(whole))
    np.testing.assert_allclose(losses(network, whole), expected, atol=2e-5)
    # From the first token on, behind an end that is not there; and over any cut.
    np.testing.assert_allclose(losses(network, whole[1:]), expected[1:], atol=2e-5)
    states = network.zero_state()
    both = [losses(network, part, states) for part in (whole[:500], whole[499:])]
    np.testing.assert_allclose(np.concatenate(both), expected, atol=2e-5)
    windows = [losses(network, whole[at : at + 51], network.zero_state()) for at in range(0, len(whole) - 1, 50)]
    windowed = np.concatenate([*network.windowed_losses(whole, 50)])
    assert windowed.mean() == pytest.approx(np.concatenate(windows).mean(), abs=1e-6)


@every_cell
def test_token_by_token_and_in_columns_a_document_begins_from_nothing(cell: str, layers: int) -> None:
    network = model(cell, layers).network
    states, columns = network.zero_state(), network.zero_state(3)
    for id_ in (4, 5):
        network.advance(id_, states)
        network.advance_columns(np.array([4, id_, 5]), columns)
    network.advance(END_ID, states)
    network.advance_columns(np.array([END_ID, 7, END_ID]), columns)
    begun = network.beginning()
    for array, many, first in zip(*(itertools.chain(*all_) for all_ in (states, columns, begun)), strict=True):
        np.testing.assert_array_equal(array, first)
        np.testing.assert_allclose(many[:, ::2], np.stack([first, first], 1), atol=1e-6)
        assert np.abs(many[:, 1] - first).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"stop": ["b c", "d", "Ba", "EE"]}, {"top_k": 5}], ids=str)
@pytest.mark.parametrize(("vocab", "level"), [(LETTERS, "char"), (CASED, "letter"), (WORDS, "word"), (SUBWORDS, "bpe")])
def test_a_text_ends_where_the_end_of_a_document_is_drawn(
    vocab: Vocab, level: LevelName, options: dict[str, Any]
) -> None:
    ours, seeds = model(vocab=vocab, level=level, end=5.0 if level == "bpe" else 2.0), range(abreast.COLUMNS + 5)
    for prefix in ("", "The sea"):
        alone = [ours.sample(prefix, 40, 1.0, seed, **options) for seed in seeds]
        assert [*ours.samples(prefix, 40, 1.0, seeds, **options)] == alone
        added = {len(text) - len(ours.prompt(prefix)) for text in alone}
        assert {0} < added, "some are empty, and others are not"
        assert not any("document" in text for text in alone)


def test_stops_are_found_among_letters_however_far_back_a_word_of_capitals_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, seeds, stop = model(vocab=CASED, level="letter", end=-9.0), range(abreast.COLUMNS), ["EDC", "da"]
    alone = [ours.sample("AB", 400, 1.0, seed, stop=stop) for seed in seeds]
    monkeypatch.setattr(abreast, "SEGMENT", 3)
    assert [*ours.samples("AB", 400, 1.0, seeds, stop=stop)] == alone


def test_what_is_drawn_follows_the_end_of_another_document() -> None:
    ours = model("lstm", 2, end=-5.0)
    for prefix in ("", "ab"):
        ids = [END_ID, *LETTERS.ids(prefix)]
        for text, probability in ours.stream(prefix, 30, 1.0, 3, probabilities=True):
            [token] = LETTERS.ids(text)
            expected = losses(ours.network, [*ids, token], ours.network.zero_state())[-1]
            assert probability == pytest.approx(np.exp(-expected), rel=1e-4)
            ids.append(token)
        assert len(ids) > 5


def test_a_model_that_says_nothing_but_ends_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, advance, read = model(end=50.0), Network.advance_columns, itertools.count()

    def counted(self: Network, ids: Any, states: list[State]) -> None:
        next(read)
        advance(self, ids, states)

    monkeypatch.setattr(Network, "advance_columns", counted)
    for temperature in (0.0, 1.0):
        assert list(ours.stream("ab", 20, temperature)) == []
        assert ours.sample("", 20, temperature) == ""
    assert [*ours.samples("ab", 2000, 1.0, range(9))] == ["ab"] * 9
    assert next(read) <= abreast.SEGMENT, "what has ended is not written on"


def test_a_text_is_measured_as_one_document() -> None:
    ours = model("lstm", 2)
    text = "a bad cab, " * 30
    ids = [END_ID, *LETTERS.ids(text)]
    expected = losses(ours.network, ids, ours.network.zero_state())[1:]
    score = ours.score(text)
    assert score.tokens == len(text) - 1
    assert score.loss == pytest.approx(expected.mean(), abs=1e-6)
    listed = [value for _, value in ours.log_probabilities(text)]
    np.testing.assert_allclose(listed, -expected, atol=1e-5)
    weights, text_ids = random_weights(ours.architecture, 0.0), np.array(ids[1:], np.uint8)
    learning = adaptation.losses(ours.architecture, [weights], 1e-9, [text_ids])
    np.testing.assert_allclose(np.concatenate([*learning]), expected, atol=1e-5)


def test_the_first_words_of_several_documents_are_words() -> None:
    ids = np.array([END_ID, *LETTERS.ids("bad"), END_ID, *LETTERS.ids("cab a")])
    assert model().opening(ids) == "bad cab"
    pieces = BPE.of(SUBWORDS).split("the")
    assert model(vocab=SUBWORDS, level="bpe").opening(np.array([*SUBWORDS.ids(pieces), END_ID] * 2)) == "the the"
