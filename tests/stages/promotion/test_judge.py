"""The judge: better by more than chance, on text that nobody trained on, whatever the vocabularies."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from data.corpus.level import CHAR
from data.errors import StoreError
from data.progress import LogLines
from data.store.folder import Store
from data.tables.tokens import Ids, IndexTable
from stages.config import RunConfig
from stages.lm.model import LanguageModel
from stages.pipeline.run import Outcome, Walk, perform
from stages.promotion import judge as judging
from stages.promotion import overlap
from stages.promotion.judge import Contender, Verdict, bootstrap, judge

TEXT = (Path(__file__).parents[3] / "data" / "corpus" / "sample.txt").read_text(encoding="utf-8")
SHARES = {"train_share": 0.8, "valid_share": 0.1, "test_share": 0.1}
SMALL = {"hidden_size": 24, "batch_size": 16, "num_steps": 20, "device": "cpu"}

Weights = dict[str, NDArray[Any]]


class Makers:
    """Contenders by what they are made of, each trained once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(folder / "store")

    def __call__(self, text: str = TEXT, epochs: int = 1, **tokenize: Any) -> Contender:
        corpus = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.txt"
        corpus.write_text(text, encoding="utf-8")
        config = RunConfig.model_validate(
            {
                "download": {"corpus": str(corpus)},
                "tokenize": SHARES | tokenize,
                "train": {"epochs": epochs, **SMALL},
            }
        )

        def one(name: str, upstream: Any) -> Outcome:
            return perform(name, config, upstream, self.store, LogLines(name))

        walk = Walk(one)
        walk.to("train")
        return Contender(*(walk.artifacts[name].folder for name in ("train", "tokenize", "download")))


Make = Callable[..., Contender]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    return Makers(tmp_path_factory.mktemp("contenders"))


def measured(contender: Contender) -> tuple[NDArray[np.float64], Ids, LanguageModel]:
    """Losses of the test split in bits, the ids of that, and the model that says so."""
    model = LanguageModel.load(contender.model)
    ids = IndexTable.open(contender.tokens / "tokens.arrow").split("test")
    return np.concatenate(list(model.network.losses(ids))).astype(float) / math.log(2), ids, model


def interval(verdict: Verdict) -> tuple[float, float, float]:
    """The difference between the ends of its interval."""
    assert verdict.low is not None
    assert verdict.difference is not None
    assert verdict.high is not None
    return verdict.low, verdict.difference, verdict.high


def altered(contender: Contender, folder: Path, change: Callable[[Weights], object]) -> Contender:
    """The same contender with other weights."""
    shutil.copytree(contender.model, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    return Contender(folder, contender.tokens, contender.corpus)


def test_the_better_trained_is_promoted_and_the_worse_is_not(make: Make) -> None:
    novice, expert = make(epochs=1), make(epochs=4)
    verdict = judge(expert, novice)
    assert verdict.promoted
    assert verdict.reason.startswith("it is better by more than chance")
    low, difference, high = interval(verdict)
    assert 0 < low < difference < high
    for contender, bits in ((expert, verdict.candidate_bits), (novice, verdict.champion_bits)):
        assert bits == pytest.approx(measured(contender)[0].mean(), rel=1e-6)
    assert verdict.characters == len(measured(expert)[1]) - 1
    assert verdict.left_out == 0
    assert json.loads(json.dumps(verdict.json(), allow_nan=False)) == verdict.json()

    back = judge(novice, expert)
    assert not back.promoted
    assert back.reason.startswith("it is worse than the champion")
    assert interval(back) == pytest.approx((-high, -difference, -low), abs=0.005)
    assert judge(novice, expert) == back


def test_the_same_weights_are_the_champions_equal(make: Make, tmp_path: Path) -> None:
    champion = make(epochs=4)
    again = altered(champion, tmp_path / "again", lambda weights: None)
    for equal in (champion, again):
        assert judge(equal, champion) == Verdict(False, "it is the champion's equal: the same weights")


def test_a_difference_that_may_be_chance_does_not_promote(make: Make, tmp_path: Path) -> None:
    """A model that says more spaces than the champion, just so many more that it is right as often as wrong."""
    champion = make(epochs=4)
    _, ids, model = measured(champion)
    bias = model.network._dense[1]
    space, before = model.vocab.tokens.index(" "), bias.copy()

    def loss(shift: float) -> float:
        bias[space] = before[space] + shift
        return model.network.loss(ids)

    # The loss is convex in the shift: from 0 it falls on one side, and comes back to where it was.
    sign = 1 if loss(1e-3) < loss(0) else -1
    inner, outer = 1e-3, 8.0
    for _ in range(12):
        middle = (inner + outer) / 2
        inner, outer = (middle, outer) if loss(sign * middle) < loss(0) else (inner, middle)
    shift = np.zeros_like(before)
    shift[space] = sign * inner
    verdict = judge(
        altered(champion, tmp_path / "spaced", lambda weights: weights["dense.bias"].__iadd__(shift)), champion
    )
    assert not verdict.promoted
    assert "may be chance" in verdict.reason
    low, _, high = interval(verdict)
    assert low < 0 < high


def test_without_a_champion_a_finite_model_is_promoted(make: Make) -> None:
    verdict = judge(make(epochs=1), None)
    assert verdict.promoted
    assert "no champion yet" in verdict.reason
    assert verdict.candidate_bits == pytest.approx(measured(make(epochs=1))[0].mean(), rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_is_never_promoted_and_always_beaten(make: Make, tmp_path: Path, value: float) -> None:
    def break_(weights: Weights) -> None:
        weights["dense.weight"][:] = value

    sound = make(epochs=1)
    broken = altered(sound, tmp_path / "broken", break_)
    for champion in (None, sound):
        verdict = judge(broken, champion)
        assert not verdict.promoted
        assert "not finite" in verdict.reason
        json.dumps(verdict.json(), allow_nan=False)
    verdict = judge(sound, broken)
    assert verdict.promoted
    assert verdict.champion_bits is None
    assert "champion makes of that text is not finite" in verdict.reason


def test_vocabularies_may_differ_and_unknown_characters_are_told_apart(make: Make) -> None:
    spelled = TEXT.replace("e", "é").replace("o", "ö").replace("a", "ä")
    champion, candidate = make(epochs=4), make(spelled, epochs=4)
    verdict = judge(candidate, champion)
    assert verdict.promoted
    model = LanguageModel.load(champion.model)
    _, ids, own = measured(candidate)
    text = own.vocab.decode(ids, CHAR)
    losses = np.concatenate(list(model.network.losses(np.array(model.vocab.ids(text))))) / math.log(2)
    unknown = sum(letter in "éöä" for letter in text[1:])
    assert unknown > 100
    expected = (losses.sum(dtype=float) + unknown * math.log2(3)) / (len(text) - 1)
    assert verdict.champion_bits == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("level", ["char", "word"])
def test_to_call_everything_unknown_does_not_pay(make: Make, level: str) -> None:
    honest, lazy = make(epochs=4, level=level), make(epochs=4, level=level, min_freq=500)
    assert measured(lazy)[0].mean() < measured(honest)[0].mean()
    assert not judge(lazy, honest).promoted
    assert judge(honest, lazy).promoted


def test_words_are_charged_for_what_they_leave_open(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word model's bits, counted one by one: spelling where both read words, white space too against characters."""
    monkeypatch.setattr(overlap, "WINDOW", 1_000)  # the sample repeats a line or two
    words, others, characters = (
        make(epochs=1, level="word", min_freq=3),
        make(epochs=2, level="word", min_freq=8),
        make(epochs=4),
    )
    losses, ids, _ = measured(words)
    start = IndexTable.open(words.tokens / "tokens.arrow").splits["test"].start
    spans = [match.span() for match in re.finditer(r"\S+", TEXT.lower())]
    lowered = TEXT.lower()
    text = [lowered[slice(*span)] for span in spans[start:]]
    alphabet = len(set("".join(text)))
    spelled = [(len(word) + 1) * math.log2(alphabet + 1) * (id_ == 0) for word, id_ in zip(text, ids, strict=True)]
    ends = [begin for begin, _ in spans[start + 1 :]] + [len(lowered)]
    gaps = [lowered[stop:end] for (_, stop), end in zip(spans[start:], ends, strict=True)]
    seen: Counter[str] = Counter()
    white: list[float] = []
    for number, gap in enumerate(gaps):
        white.append(-math.log2((seen[gap] + 1) / (number + len(set(gaps)))))
        seen[gap] += 1

    verdict = judge(words, others)
    characters_of_words = sum(len(word) + 1 for word in text[1:])
    assert verdict.characters == pytest.approx(characters_of_words, abs=1)
    assert verdict.candidate_bits == pytest.approx((losses.sum() + sum(spelled[1:])) / verdict.characters, rel=1e-6)

    mixed = judge(words, characters)
    assert mixed.characters == ends[-1] - ends[0]
    expected = (losses.sum() + sum(spelled[1:]) + sum(white[1:])) / mixed.characters
    assert mixed.candidate_bits == pytest.approx(expected, rel=1e-6)
    assert judge(characters, words).promoted != mixed.promoted


def test_texts_that_differ_are_left_to_people(make: Make) -> None:
    for candidate, champion, said in (
        (make(normalizer="none"), make(), "normalizer=none and normalizer=lower"),
        (make(normalizer="book", level="word"), make(normalizer="book"), "level=word and level=char"),
    ):
        verdict = judge(candidate, champion)
        assert not verdict.promoted
        assert said in verdict.reason
        assert "by hand" in verdict.reason


def test_what_the_champion_was_trained_on_is_left_out(make: Make) -> None:
    """Today's text is yesterday's and more, so that today's test split holds what the champion learnt."""
    begins, border, ends = 36_000, 37_500, 40_000  # of the test split, of what the champion saw, of the text
    champion, candidate = make(TEXT[10_000:border] + "\N{BULLET}" * 6_875, epochs=4), make(TEXT[:ends], epochs=4)
    assert IndexTable.open(champion.tokens / "tokens.arrow").splits["train"].stop == border - 10_000
    verdict = judge(candidate, champion)
    assert verdict.left_out == border - begins
    assert verdict.characters == ends - border
    losses, _, _ = measured(candidate)
    assert verdict.candidate_bits == pytest.approx(losses[border - begins - 1 :].mean(), rel=1e-6)


def test_all_seen_is_too_little_to_tell(make: Make) -> None:
    champion, candidate = make(TEXT, epochs=1), make(TEXT[:20_000], epochs=4)
    verdict = judge(candidate, champion)
    assert not verdict.promoted
    assert verdict.reason.startswith("there is too little unseen text to tell: 0 characters of the test split")
    assert verdict.left_out == 2_000
    nothing = judge(make(train_share=0.9, test_share=0.0), None)
    assert not nothing.promoted
    assert nothing.left_out == nothing.characters == 0


def test_the_interval_excludes_zero_for_an_effect_and_rarely_for_noise() -> None:
    rng = np.random.default_rng(11)
    characters = rng.integers(90, 110, 100).astype(float)
    noise = rng.normal(0, 1, (200, 100)) * np.sqrt(characters)
    outside = 0
    for number, row in enumerate(noise):
        low, high = bootstrap(row, characters, draws=1_000, seed=number)
        outside += not low <= 0 <= high
        low, high = bootstrap(row + characters, characters, draws=1_000, seed=number)
        assert 0.8 < low < high < 1.2
    assert outside <= 9  # 2 expected; a binomial of 200 at 1 % is above this once in ten thousand
    assert bootstrap(noise[0], characters) == bootstrap(noise[0], characters)
    assert bootstrap(noise[0], characters) != bootstrap(noise[0], characters, seed=1)


def test_a_long_text_is_resampled_in_several_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    differences, characters = np.random.default_rng(2).normal(0.5, 1, 50), np.ones(50)
    whole = bootstrap(differences, characters)
    monkeypatch.setattr(judging, "_RESAMPLED", 1_000)
    assert bootstrap(differences, characters) == pytest.approx(whole)


def test_folders_that_do_not_belong_together_are_one_sentence(make: Make, tmp_path: Path) -> None:
    sound, other = make(epochs=1), make(TEXT[:20_000], epochs=4)
    with pytest.raises(StoreError, match=r"is not the text that .* was made from: tokenize again"):
        judge(Contender(sound.model, sound.tokens, other.corpus), None)
    with pytest.raises(StoreError, match="cannot be read"):
        judge(Contender(sound.model, sound.tokens, tmp_path), None)
    with pytest.raises(StoreError, match="was not trained on"):
        judge(Contender(make(normalizer="none").model, sound.tokens, sound.corpus), None)
