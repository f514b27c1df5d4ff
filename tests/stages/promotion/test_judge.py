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
from data.errors import CorpusError, StoreError
from data.progress import LogLines
from data.store.folder import Store
from data.tables.tokens import Ids, IndexTable
from stages.config import PromotionConfig, RunConfig
from stages.lm.model import LanguageModel
from stages.lm.network import Network
from stages.pipeline.run import Outcome, Walk, perform
from stages.promotion import judge as judging
from stages.promotion import overlap
from stages.promotion.contender import Contender
from stages.promotion.judge import Comparison, Verdict
from stages.promotion.measure import Measured

TEXT = (Path(__file__).parents[3] / "data" / "corpus" / "sample.txt").read_text(encoding="utf-8")
SHARES = {"train_share": 0.8, "valid_share": 0.1, "test_share": 0.1}
SMALL = {"hidden_size": 24, "batch_size": 16, "num_steps": 20, "engine": "bptt"}

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


def judge(
    candidate: Contender, champion: Contender | None, reference: Path | None = None, **rule: float
) -> tuple[Verdict, Comparison]:
    """The verdict, and what came of today's text."""
    verdict = judging.judge(candidate, champion, PromotionConfig.model_validate(rule), reference)
    assert verdict.tests[0].text == "today"
    return verdict, verdict.tests[0]


def interval(found: Comparison) -> tuple[float, float, float]:
    """The gain between the ends of its interval."""
    assert found.lower is not None
    assert found.gain is not None
    assert found.upper is not None
    return found.lower, found.gain, found.upper


def altered(contender: Contender, folder: Path, change: Callable[[Weights], object]) -> Contender:
    """The same contender with other weights."""
    shutil.copytree(contender.model, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    (folder / "manifest.json").unlink()  # which says that they are others
    return Contender(folder, contender.tokens, contender.corpus)


def test_subwords_are_judged_by_the_characters_that_they_stand_for(make: Make) -> None:
    novice, expert = make(epochs=1), make(epochs=2, level="bpe", vocab_size=400)
    verdict, today = judge(expert, novice)
    losses, ids, model = measured(expert)
    characters = model.vocab.characters.take(ids)
    assert today.bits == pytest.approx(losses.sum() / characters[1:].sum(), rel=0.02)
    assert 0 <= characters.sum() - today.characters - today.left_out < 20, "all but the first word"
    assert verdict.promoted == (today.lower is not None and today.lower > 0.02)
    assert judge(expert, make(level="bpe", vocab_size=257))[1].gain is not None
    assert judge(expert, make(epochs=1, level="word", min_freq=3))[1].characters > 0
    book = make(level="bpe", vocab_size=300, normalizer="book"), make(normalizer="book")
    refused = judging.judge(*book, PromotionConfig())
    assert "level=bpe and level=char with normalizer=book make different texts" in refused.reason


def test_letters_are_judged_by_the_characters_that_they_stand_for(make: Make) -> None:
    plain, spelt = make(epochs=1, normalizer="none"), make(epochs=2, level="letter", normalizer="none")
    today = judge(spelt, plain)[1]
    losses, ids, model = measured(spelt)
    characters = model.vocab.characters.take(ids)
    assert characters.sum() < len(ids)
    assert today.bits == pytest.approx(losses.sum() / characters[1:].sum(), rel=0.02)
    assert characters.sum() - today.characters - today.left_out == 1, "all but the first"
    assert interval(judge(plain, spelt)[1])[1] < 0 < interval(today)[1]


def test_the_better_trained_is_promoted_and_the_worse_is_not(make: Make) -> None:
    novice, expert = make(epochs=1), make(epochs=4)
    verdict, today = judge(expert, novice)
    assert verdict.promoted
    assert verdict.reason == today.reason
    assert today.reason.startswith("on today's test text this model is better than the champion by more than chance")
    lower, gain, upper = interval(today)
    assert 0.02 < lower < gain < upper
    for contender, bits in ((expert, today.bits), (novice, today.bits_champion)):
        assert bits == pytest.approx(measured(contender)[0].mean(), rel=1e-6)
    assert today.characters == len(measured(expert)[1]) - 1
    assert today.left_out == 0
    assert json.loads(json.dumps(verdict.json(), allow_nan=False)) == verdict.json()

    back, today = judge(novice, expert)
    assert not back.promoted
    assert back.reason.startswith("on today's test text this model is worse than the champion")
    assert interval(today) == pytest.approx((-upper, -gain, -lower))
    assert judge(novice, expert)[0] == back


def test_the_same_weights_are_the_champions_equal(make: Make, tmp_path: Path) -> None:
    champion = make(epochs=4)
    again = altered(champion, tmp_path / "again", lambda weights: None)
    for equal in (champion, again):
        verdict = judging.judge(equal, champion, PromotionConfig())
        assert verdict == Verdict(False, "it is the champion's equal: the same weights")


def test_a_difference_that_may_be_chance_does_not_promote(make: Make, tmp_path: Path) -> None:
    """A model that says more spaces than the champion, just so many more that it is right as often as wrong."""
    champion = make(epochs=4)
    _, ids, model = measured(champion)
    assert isinstance(model.network, Network)
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
    verdict, today = judge(
        altered(champion, tmp_path / "spaced", lambda weights: weights["dense.bias"].__iadd__(shift)), champion
    )
    assert not verdict.promoted
    assert "is no better than the champion by more than chance and 0.02 bits" in verdict.reason
    lower, _, upper = interval(today)
    assert lower < 0 < upper


def test_without_a_champion_a_finite_model_is_promoted(make: Make) -> None:
    verdict, today = judge(make(epochs=1), None)
    assert verdict.promoted
    assert "no champion yet" in verdict.reason
    assert today.bits == pytest.approx(measured(make(epochs=1))[0].mean(), rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_is_never_promoted_and_always_beaten(make: Make, tmp_path: Path, value: float) -> None:
    def break_(weights: Weights) -> None:
        weights["dense.weight"][:] = value

    sound = make(epochs=1)
    broken = altered(sound, tmp_path / "broken", break_)
    for champion in (None, sound):
        verdict, _ = judge(broken, champion)
        assert not verdict.promoted
        assert "not finite" in verdict.reason
        json.dumps(verdict.json(), allow_nan=False)
    verdict, today = judge(sound, broken)
    assert verdict.promoted
    assert today.bits_champion is None
    assert "what the champion makes of it is not finite" in verdict.reason


def test_vocabularies_may_differ_and_unknown_characters_are_told_apart(make: Make) -> None:
    spelled = TEXT.replace("e", "é").replace("o", "ö").replace("a", "ä")
    champion, candidate = make(epochs=4), make(spelled, epochs=4)
    _, today = judge(candidate, champion)
    assert today.passed
    model = LanguageModel.load(champion.model)
    _, ids, own = measured(candidate)
    text = own.vocab.decode(ids, CHAR)
    losses = np.concatenate(list(model.network.losses(np.array(model.vocab.ids(text))))) / math.log(2)
    unknown = sum(letter in "éöä" for letter in text[1:])
    assert unknown > 100
    expected = (losses.sum(dtype=float) + unknown * math.log2(3)) / (len(text) - 1)
    assert today.bits_champion == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("level", ["char", "word"])
def test_to_call_everything_unknown_does_not_pay(make: Make, level: str) -> None:
    honest, lazy = make(epochs=4, level=level), make(epochs=4, level=level, min_freq=500)
    assert measured(lazy)[0].mean() < measured(honest)[0].mean()
    assert not judge(lazy, honest)[0].promoted
    assert judge(honest, lazy)[0].promoted


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

    _, today = judge(words, others)
    characters_of_words = sum(len(word) + 1 for word in text[1:])
    assert today.characters == pytest.approx(characters_of_words, abs=1)
    assert today.bits == pytest.approx((losses.sum() + sum(spelled[1:])) / today.characters, rel=1e-6)

    _, mixed = judge(words, characters)
    assert mixed.characters == ends[-1] - ends[0]
    expected = (losses.sum() + sum(spelled[1:]) + sum(white[1:])) / mixed.characters
    assert mixed.bits == pytest.approx(expected, rel=1e-6)
    back = judge(characters, words)[1]
    assert interval(back)[1] == pytest.approx(-interval(mixed)[1], abs=0.005)


def test_texts_that_differ_are_left_to_people(make: Make) -> None:
    for candidate, champion, said in (
        (make(normalizer="none"), make(), "normalizer=none and normalizer=lower"),
        (make(normalizer="book", level="word"), make(normalizer="book"), "level=word and level=char"),
    ):
        verdict = judging.judge(candidate, champion, PromotionConfig())
        assert not verdict.promoted
        assert not verdict.tests
        assert said in verdict.reason
        assert "by hand" in verdict.reason


def test_what_the_champion_was_trained_on_is_left_out(make: Make) -> None:
    """Today's text is yesterday's and more, so that today's test split holds what the champion learnt."""
    begins, border, ends = 36_000, 37_500, 40_000  # of the test split, of what the champion saw, of the text
    champion, candidate = make(TEXT[10_000:border] + "\N{BULLET}" * 6_875, epochs=4), make(TEXT[:ends], epochs=4)
    assert IndexTable.open(champion.tokens / "tokens.arrow").splits["train"].stop == border - 10_000
    _, today = judge(candidate, champion)
    assert today.left_out == border - begins
    assert today.characters == ends - border
    losses, _, _ = measured(candidate)
    assert today.bits == pytest.approx(losses[border - begins - 1 :].mean(), rel=1e-6)


def by_text(verdict: Verdict) -> dict[str, Comparison]:
    return {test.text: test for test in verdict.tests}


def with_digits(text: str) -> str:
    """A tenth of the characters are others now: what length, script and markup do not tell."""
    rng = np.random.default_rng(0)
    drawn = zip(text, rng.random(len(text)), rng.integers(10, size=len(text)), strict=True)
    return "".join(str(digit) if chance < 0.1 else letter for letter, chance, digit in drawn)


def without_vowels(text: str) -> str:
    return re.sub("[aeiou]", "", text)


@pytest.mark.parametrize("spoil", [with_digits, without_vowels])
def test_a_corpus_that_got_worse_makes_no_champion(make: Make, tmp_path: Path, spoil: Callable[[str], str]) -> None:
    """On its own text the model is better than the champion, which knows no such text, and worse on what was there."""
    champion, candidate = make(epochs=4), make(spoil(TEXT), epochs=4)
    verdict, today = judge(candidate, champion)
    assert today.passed
    assert not verdict.promoted
    ground = by_text(verdict)["champion"]
    assert ground.passed is False
    assert verdict.reason == ground.reason
    assert verdict.reason.startswith(
        "on the champion's own test text this model is worse than the champion by more than chance and 0.02 bits"
    )
    losses, _, _ = measured(champion)
    assert ground.bits_champion == pytest.approx(losses.mean(), rel=1e-6)
    assert interval(ground)[1] < -0.02
    assert interval(ground)[2] < 0
    assert judge(candidate, champion, largest_setback=3)[0].promoted

    (tmp_path / "corpus.txt").write_text(TEXT[-4_000:].upper(), encoding="utf-8")
    pinned = by_text(judge(candidate, champion, tmp_path, largest_setback=0.03)[0])
    assert pinned["reference"].passed is False
    assert "on the reference text this model is worse" in judge(candidate, champion, tmp_path)[0].reason
    assert pinned["reference"].characters == 3_999


@pytest.mark.parametrize(
    ("gain", "scatter", "passed"),
    [(-0.03, 0.001, False), (-0.03, 0.1, True), (-0.01, 0.001, True), (0.01, 0.001, True)],
    ids=["lost", "lost by chance, maybe", "hardly lost", "better"],
)
def test_ground_is_lost_by_more_than_chance_and_a_margin(gain: float, scatter: float, passed: bool) -> None:
    characters = np.full((20, 1), 1_000.0)
    theirs = 2.5 * characters
    ours = theirs - (gain + scatter * np.resize([1, -1], (20, 1))) * characters
    found = judging.compare("champion", Measured(characters, (ours, theirs)), PromotionConfig())
    assert found.gain == pytest.approx(gain)
    assert found.passed is passed


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        (PromotionConfig(), True),
        (PromotionConfig(smallest_gain=0.03), False),
        (PromotionConfig(confidence=0.999), False),
        (PromotionConfig(fewest_characters=20_001), None),
    ],
    ids=["as it comes", "a larger gain", "more confidence", "more characters"],
)
def test_how_much_is_asked_for_is_for_the_rule_to_say(rule: PromotionConfig, passed: bool | None) -> None:
    characters = np.full((20, 1), 1_000.0)
    theirs = 2.5 * characters
    ours = theirs - (0.05 + 0.04 * np.resize([1, -1], (20, 1))) * characters
    found = judging.compare("today", Measured(characters, (ours, theirs)), rule)
    assert found.passed is passed
    assert passed is not None or "20,000 unseen characters, 1 too few" in found.reason


def test_a_text_that_the_new_model_has_learnt_says_nothing(make: Make, tmp_path: Path) -> None:
    """A corpus that grows: yesterday's test text is trained on today, and what is pinned counts on."""
    champion, candidate = make(TEXT[:20_000], epochs=1), make(epochs=4)
    (tmp_path / "corpus.txt").write_text(TEXT[-3_000:], encoding="utf-8")
    verdict, _ = judge(candidate, champion, tmp_path)
    assert verdict.promoted
    found = by_text(verdict)
    assert found["champion"] == Comparison(
        text="champion",
        passed=None,
        reason="the champion's own test text has 0 unseen characters, 2,000 too few to tell anything, 2,000 having "
        "been seen in training",
        left_out=2_000,
    )
    assert found["reference"].passed
    assert found["reference"].characters == 2_999


def test_one_text_for_both_is_said_to_be_one(make: Make, tmp_path: Path) -> None:
    found = by_text(judge(make(epochs=4), make(epochs=1))[0])
    assert found["champion"].reason.endswith("; it is the same text as today's")
    assert found["champion"].gain == found["today"].gain
    corpus = (make().corpus / "corpus.txt").read_text(encoding="utf-8")
    start = IndexTable.open(make().tokens / "tokens.arrow").splits["test"].start
    (tmp_path / "corpus.txt").write_text(corpus[start:], encoding="utf-8")
    pinned = by_text(judge(make(epochs=4), make(epochs=1), tmp_path)[0])["reference"]
    assert (pinned.gain, pinned.lower, pinned.characters) == (
        *(found["today"].gain, found["today"].lower, found["today"].characters),
    )


def test_a_reference_that_cannot_be_read_is_one_sentence(make: Make, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.txt cannot be read .*: name another reference"):
        judge(make(epochs=4), make(epochs=1), tmp_path)


def test_all_seen_is_too_little_to_tell(make: Make) -> None:
    champion, candidate = make(TEXT, epochs=1), make(TEXT[:20_000], epochs=4)
    verdict, today = judge(candidate, champion)
    assert not verdict.promoted
    assert verdict.reason == (
        "today's test text has 0 unseen characters, 2,000 too few to tell anything, 2,000 having been seen in training"
    )
    assert today.passed is None
    assert today.bits is None
    assert today.left_out == 2_000
    nothing, today = judge(make(train_share=0.9, test_share=0.0), None)
    assert not nothing.promoted
    assert today.left_out == today.characters == 0


def test_folders_that_do_not_belong_together_are_one_sentence(make: Make, tmp_path: Path) -> None:
    sound, other = make(epochs=1), make(TEXT[:20_000], epochs=4)
    with pytest.raises(StoreError, match=r"is not the text that .* was made from: tokenize again"):
        judge(Contender(sound.model, sound.tokens, other.corpus), None)
    with pytest.raises(StoreError, match="cannot be read"):
        judge(Contender(sound.model, sound.tokens, tmp_path), None)
    with pytest.raises(StoreError, match="was not trained on"):
        judge(Contender(make(normalizer="none").model, sound.tokens, sound.corpus), None)
