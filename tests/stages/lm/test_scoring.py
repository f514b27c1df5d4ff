"""What a model makes of a given text, normalised and read as for training."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from data.corpus import text
from data.corpus.level import LEVELS
from data.corpus.text import LevelName, Normalizer
from data.errors import ConfigError
from data.tables.vocab import Vocab
from stages.lm.layers import State, Vector
from stages.lm.model import LanguageModel
from stages.lm.network import Network
from stages.lm.parameters import Architecture

LETTERS = Vocab(["<unk>", *" abcdefgh"], [0] * 10)


def model(vocab: Vocab = LETTERS, level: LevelName = "char", normalizer: Normalizer = "lower") -> LanguageModel:
    architecture = Architecture("gru", "tanh", 16, 2, len(vocab))
    return LanguageModel(architecture, architecture.initial("uniform", 5), vocab, level, normalizer)


def test_a_score_is_what_the_losses_amount_to() -> None:
    ours = model()
    score = ours.score("AbCd É?abc")
    ids = np.array(LETTERS.ids("abcd é?abc"), np.uint8)
    assert score.loss == pytest.approx(ours.network.loss(ids), abs=1e-6)
    assert score.perplexity == pytest.approx(np.exp(score.loss))
    told_apart = 2 * np.log2(2)  # é and ?
    assert score.bits_per_character == pytest.approx(score.loss / np.log(2) + told_apart / 9)
    assert score.tokens == 9
    assert score.unknown_rate == 0.2
    listed = list(ours.log_probabilities("AbCd É?abc"))
    assert "".join(token for token, _ in listed) == "bcd é?abc"
    assert -np.mean([value for _, value in listed]) == pytest.approx(score.loss, abs=1e-6)


@pytest.mark.parametrize("normalizer", ["book", "lower", "none"])
@pytest.mark.parametrize("level", ["char", "word"])
def test_a_text_is_scored_as_training_would_read_it_wherever_it_is_cut(
    level: LevelName, normalizer: Normalizer
) -> None:
    said = "The sea, the SEA!\nAnd a  light\n\nover the sea ΣΑΣ.\n" * 10
    tokens = LEVELS[level].split("".join(text.normalize([said], normalizer, level)))
    vocab = Vocab(["<unk>", *sorted(set(tokens))[1:]], [0] * len(set(tokens)))
    ours = model(vocab, level, normalizer)
    expected = ours.network.loss(np.array(vocab.ids(tokens)))
    for pieces in (said, [said], [said[at : at + 3] for at in range(0, len(said), 3)], ["", said[:1], "", said[1:]]):
        score = ours.score(pieces)
        assert score.loss == pytest.approx(expected, abs=1e-6)
        assert score.tokens == len(tokens) - 1
        assert score.unknown_rate == pytest.approx(tokens.count(sorted(set(tokens))[0]) / len(tokens))
        characters = len(" ".join(tokens)) + 1 if level == "word" else len(tokens)
        unknown = [token for token in tokens[1:] if token not in vocab.tokens]
        letters = sum(len(word) + 1 for word in unknown) if level == "word" else 0  # of characters one is unknown
        spelled = letters * np.log2(len(set("".join(tokens))) + 1)
        bits = (expected / np.log(2) + spelled / score.tokens) * len(tokens) / characters
        assert score.bits_per_character == pytest.approx(bits, rel=1e-6)
        assert [token for token, _ in ours.log_probabilities(pieces)] == tokens[1:]


def test_a_large_text_is_not_held_as_a_whole() -> None:
    architecture = Architecture("rnn", "relu", 2, 1, len(LETTERS))
    ours = LanguageModel(architecture, architecture.initial("uniform", 5), LETTERS, "char", "none")
    tracemalloc.start()
    score = ours.score("abcdefgh" * 2500 for _ in range(8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert score.tokens == 159_999
    assert peak < 1_500_000


@pytest.mark.parametrize("size", [1_001, 16_384, 100_000])
def test_wherever_a_text_is_cut_its_tokens_are_read_side_by_side(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = Architecture("rnn", "tanh", 2, 1, len(LETTERS))
    ours = LanguageModel(architecture, architecture.initial("uniform", 5), LETTERS, "char", "none")
    said = "abcdefgh" * 10_000
    whole = ours.score(said).loss
    assert isinstance(ours.network, Network)
    (layer,) = ours.network._layers
    alone = 0
    step = layer.step

    def counted(projected: Vector, state: State) -> State:
        nonlocal alone
        alone += 1
        return step(projected, state)

    monkeypatch.setattr(layer, "step", counted)
    score = ours.score(said[at : at + size] for at in range(0, len(said), size))
    assert score.loss == pytest.approx(whole, abs=1e-6)
    assert score.tokens == len(said) - 1
    assert alone < 1_000, "one by one they take several times as long"


@pytest.mark.parametrize(("level", "said"), [("char", ""), ("char", "a"), ("word", " alone\n"), ("word", "  ")])
def test_a_text_in_which_nothing_is_predicted_is_refused(level: LevelName, said: str) -> None:
    ours = model(level=level, normalizer="none")
    count = len(said.split()) if level == "word" else len(said)
    with pytest.raises(ConfigError, match=rf"too short: normalised \(none\) it has {count} (characters|words)"):
        ours.score(said)
