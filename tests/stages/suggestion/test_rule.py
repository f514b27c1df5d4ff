"""What the rules give: the same for the same, wider networks for more time, a sentence where there is nothing."""

from __future__ import annotations

from typing import Any

import pytest

from data.errors import ConfigError, CorpusError
from stages.config import TrainConfig
from stages.suggestion import rule
from stages.suggestion.rule import Suggestion, suggest
from stages.suggestion.speed import Speed, met
from stages.suggestion.text import Text

TWO_CORES = Speed(11, 45)


def values(suggestion: Suggestion) -> dict[str, Any]:
    return {name: one.value for name, one in suggestion.train.items()}


def test_the_first_preset_is_about_what_is_suggested_for_its_text() -> None:
    found = values(suggest(Text("char", 48_300, 47), TWO_CORES, 0.5))
    assert (found["cell"], found["batch_size"], found["num_steps"]) == ("lstm", 32, 32)
    assert 128 <= found["hidden_size"] <= 256
    assert 15 <= found["epochs"] <= 40


@pytest.mark.parametrize("level", ["char", "letter", "word", "bpe"])
@pytest.mark.parametrize("tokens", [1_000, 5_000, 50_000, 200_000, 1_000_000, 10_000_000])
@pytest.mark.parametrize("minutes", [10, 30, 1000])
def test_what_is_suggested_is_a_configuration_and_ends_in_time(level: str, tokens: int, minutes: float) -> None:
    vocab_size = 70 if level in ("char", "letter") else 1_000
    text = Text(level, tokens, vocab_size)  # type: ignore[arg-type]
    found = suggest(text, TWO_CORES, minutes)
    shares = [found.tokenize[name].value for name in ("train_share", "valid_share", "test_share")]
    assert sum(shares) == pytest.approx(1, abs=1e-9)
    config = TrainConfig(**values(found))
    learnt = int(tokens * shares[0])
    seconds = config.networks * config.epochs * learnt * TWO_CORES.seconds(met(config, vocab_size))
    assert seconds <= 60 * minutes
    assert found.minutes == pytest.approx(seconds / 60, rel=0.01)
    assert config.ngram > 1
    assert config.batch_size * (config.num_steps + 1) < learnt
    assert suggest(text, TWO_CORES, minutes) == found


def test_more_time_or_a_faster_machine_makes_no_smaller_network() -> None:
    text = Text("char", 1_000_000, 65)
    sizes = [values(suggest(text, TWO_CORES, minutes))["hidden_size"] for minutes in (1, 3, 10, 30, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] <= rule.widest(text, 900_000)
    assert values(suggest(text, Speed(1, 2), 3))["hidden_size"] == sizes[-1]


def test_a_network_that_is_wide_enough_is_read_more_often_and_then_has_another_beside_it() -> None:
    text, speed = Text("char", 400_000, 90), Speed(2.8, 36)
    found = [values(suggest(text, speed, minutes)) for minutes in (2, 3, 6, 10)]
    assert {one["hidden_size"] for one in found} == {384}
    assert [one.get("networks", 1) for one in found] == [1, 1, 2, 3]
    assert found[0]["epochs"] < found[1]["epochs"]


def test_a_time_too_short_for_one_epoch_says_which_is_enough() -> None:
    text = Text("char", 1_000_000, 65)
    with pytest.raises(ConfigError, match="give --minutes") as refused:
        suggest(text, TWO_CORES, 0.01)
    words = str(refused.value).split()
    enough = float(words[words.index("--minutes") + 1])
    assert values(suggest(text, TWO_CORES, enough))["epochs"] == 1
    part = int(str(refused.value).rpartition("=")[2])
    assert values(suggest(Text("char", part, 65), TWO_CORES, 0.01))["epochs"] == 1


def test_a_text_too_short_to_say_anything_about_is_refused() -> None:
    with pytest.raises(CorpusError, match="499 tokens"):
        suggest(Text("char", 499, 30), TWO_CORES, 1)


def test_what_cannot_be_helped_is_said() -> None:
    assert any("too few to choose" in said for said in suggest(Text("char", 1_500, 30), TWO_CORES, 1).warnings)
    assert any("no setting" in said for said in suggest(Text("char", 50_000, 30, True), TWO_CORES, 1).warnings)
    assert not suggest(Text("char", 50_000, 30), TWO_CORES, 0.5).warnings


def test_the_ngram_is_as_long_as_the_text_asks_for() -> None:
    assert values(suggest(Text("char", 50_000, 30), TWO_CORES, 1))["ngram"] == 8
    assert values(suggest(Text("char", 50_000, 30, order=14), TWO_CORES, 1))["ngram"] == 14
    assert values(suggest(Text("char", 20_000_000, 30, order=8), TWO_CORES, 100))["ngram"] == 6


def test_a_text_that_repeats_itself_may_be_learnt_by_heart() -> None:
    texts = [[Text(level, 45_000, 900, repeats=repeats) for repeats in (False, True)] for level in ("char", "word")]
    characters, words = ([values(suggest(text, TWO_CORES, 3)) for text in pair] for pair in texts)
    assert characters[0]["output_dropout"] > characters[1]["output_dropout"] == 0.3
    assert words[0]["output_dropout"] > words[1]["output_dropout"] == 0.15
    assert characters[0]["hidden_size"] == characters[1]["hidden_size"]
    assert words[0]["hidden_size"] < words[1]["hidden_size"]
