"""What surprises a champion in a text and what does not, with a real model and with one whose bits can be counted."""

from __future__ import annotations

import codecs
import math
import random
import re
import textwrap
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.corpus import text
from data.tables.tokens import IndexTable
from stages.lm.model import LanguageModel
from stages.promotion import surprise as surprising
from stages.promotion.contender import Contender
from stages.promotion.surprise import Surprise, surprise

ROOT = Path(__file__).parents[3]
STORY = (ROOT / "data" / "corpus" / "sample.txt").read_text(encoding="utf-8")
LIMIT = 0.5

Untrained = Callable[..., Contender]
Change = Callable[[str], str]


def folder(path: Path, body: str) -> Path:
    path.mkdir(parents=True)
    (path / "corpus.txt").write_text(body, encoding="utf-8")
    return path


def letters(count: int, seed: int = 0, alphabet: str = "abcd") -> str:
    return "".join(random.Random(seed).choices(alphabet, k=count))


def replaced(body: str, share: float) -> str:
    """With so many of its characters replaced by others of it."""
    draw = random.Random(1)
    return "".join(draw.choice(body) if draw.random() < share else character for character in body)


def rewrapped(body: str) -> str:
    return "\n\n".join(textwrap.fill(paragraph, 60) for paragraph in body.split("\n\n"))


def typographic(body: str) -> str:
    return re.sub(r'(^|\s)"', r"\1“", body).replace('"', "”").replace("'", "’").replace("--", "—")


def edited(body: str) -> str:
    draw = random.Random(1)
    return "\n".join(line for line in body.replace("the", "this").splitlines() if draw.random() > 0.1)


EXPECTED: dict[str, Change] = {
    "the same": lambda body: body,
    "rewrapped": rewrapped,
    "typographic marks": typographic,
    "edited": edited,
    "in capitals, to a champion that reads lower case": str.upper,
    "a third removed": lambda body: body[len(body) // 3 :],
    "a third as much again in another voice": lambda body: body + (ROOT / "README.md").read_text("utf-8")[:5_000],
    "a hundredth replaced": lambda body: replaced(body, 0.01),
}
SURPRISING: dict[str, Change] = {
    "a tenth replaced": lambda body: replaced(body, 0.1),
    "no vowels": lambda body: re.sub("[aeiou]", "", body),
    "no spaces": lambda body: body.replace(" ", ""),
    "backwards": lambda body: body[::-1],
    "in cipher": lambda body: codecs.encode(body, "rot13"),
    "a quarter in cipher": lambda body: body[:38_000] + codecs.encode(body[38_000:], "rot13"),
    "half of it noise": lambda body: body[: len(body) // 2] + letters(len(body) // 2, alphabet="etaoinshr \n"),
    "letters in any order": lambda body: re.sub(
        r"\w+", lambda word: "".join(random.sample(word[0], len(word[0]))), body
    ),
}


def met(champion: Contender, place: Path, body: str, fewest: int = 2_000) -> Surprise:
    found = surprise(champion, folder(place, body), fewest)
    assert found
    return found


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the story is enough to tell."""
    monkeypatch.setattr(surprising, "STRETCHES", 8)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("change", EXPECTED.values(), ids=EXPECTED)
def test_a_later_state_of_a_text_hardly_surprises(champion: Contender, tmp_path: Path, change: Change) -> None:
    assert met(champion, tmp_path / "today", change(STORY)).excess < LIMIT


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("change", SURPRISING.values(), ids=SURPRISING)
def test_what_only_looks_like_the_text_does(champion: Contender, tmp_path: Path, change: Change) -> None:
    assert met(champion, tmp_path / "today", change(STORY)).excess > LIMIT


def test_the_figures_are_the_models(champion: Contender, tmp_path: Path) -> None:
    """Each stretch of the test text read from the zero state; of today's text all that it was not trained on."""
    model = LanguageModel.load(champion.model)
    table = IndexTable.open(champion.tokens / "tokens.arrow")
    ids = table.split("test")
    stretches = [ids[start : start + 2_000] for start in range(0, len(ids), 2_000)]
    nats = np.concatenate([losses for stretch in stretches for losses in model.network.losses(stretch)])
    own = float(nats.mean(dtype=float)) / math.log(2)

    learnt = STORY[: table.splits["train"].stop]
    found = met(champion, tmp_path / "learnt", learnt)
    assert (found.share, found.excess) == (0, 0)
    assert found.own == pytest.approx(own, rel=1e-6)

    learnt = learnt[:6_000]
    noise = letters(len(learnt))
    found = met(champion, tmp_path / "more", learnt + noise)
    assert found.share == pytest.approx(0.5, abs=0.01)
    assert found.excess == pytest.approx(found.share * (found.bits - own), rel=1e-6)
    alone = met(champion, tmp_path / "noise", noise)
    assert alone.share == 1
    assert found.bits == pytest.approx(alone.bits, rel=0.02)


def test_what_a_champion_lacks_is_spelled_out(untrained: Untrained, tmp_path: Path) -> None:
    champion = untrained(
        folder(tmp_path / "before" / "corpus", letters(1_000)), valid_share=0.1, test_share=0.4, train_share=0.5
    )
    found = met(champion, tmp_path / "known", letters(1_500, seed=1), 300)
    assert found.own == pytest.approx(math.log2(5))
    assert found.excess == pytest.approx(0, abs=1e-6)
    found = met(champion, tmp_path / "unknown", letters(1_500, alphabet="wxyz"), 300)
    assert found.excess == pytest.approx(math.log2(4))


def test_words_are_read_as_words(untrained: Untrained, tmp_path: Path) -> None:
    """A word that is known costs the same as any other, one that is not costs its letters, too."""
    some = [letters(4, seed) for seed in range(50)]
    draw = random.Random(0)
    before, today = (" ".join(some + draw.choices(some, k=400)) for _ in range(2))
    champion = untrained(
        folder(tmp_path / "before" / "corpus", before), level="word", test_share=0.4, train_share=0.5, valid_share=0.1
    )
    vocab = len(LanguageModel.load(champion.model).vocab)
    found = met(champion, tmp_path / "known", today.replace(" ", " \n\n"), 300)
    assert found.own == pytest.approx(math.log2(vocab) / 5)
    assert found.bits == pytest.approx(found.own)
    found = met(champion, tmp_path / "unknown", today.upper().replace("A", "Q").lower(), 300)
    assert found.excess > LIMIT
    found = met(champion, tmp_path / "unbroken", today + " " + letters(5_000, alphabet="efghijkl"), 300)
    assert found.excess > LIMIT


def test_subwords_are_read_as_subwords(untrained: Untrained, tmp_path: Path) -> None:
    """Each one costs the same, and what was learnt as a whole takes fewer."""
    some = [letters(4, seed) for seed in range(50)]
    draw = random.Random(0)
    before, today = (" ".join(some + draw.choices(some, k=400)) for _ in range(2))
    shares = {"test_share": 0.4, "train_share": 0.5, "valid_share": 0.1}
    champion = untrained(folder(tmp_path / "before" / "corpus", before), level="bpe", vocab_size=300, **shares)
    test = IndexTable.open(champion.tokens / "tokens.arrow").splits["test"]
    found = met(champion, tmp_path / "known", today, 300)
    assert found.own == pytest.approx(math.log2(300) * len(test) / test.characters, rel=0.01)
    assert found.bits == pytest.approx(found.own, rel=0.05)
    found = met(champion, tmp_path / "unknown", letters(2_005, alphabet="wxyz"), 300)
    assert found.bits == pytest.approx(math.log2(300))
    assert found.excess > LIMIT


def test_without_enough_of_its_own_a_champion_says_nothing(champion: Contender, tmp_path: Path) -> None:
    today = folder(tmp_path / "today", letters(10_000))
    length = len(IndexTable.open(champion.tokens / "tokens.arrow").split("test"))
    counted = length - math.ceil(length / 2_000)
    assert surprise(champion, today, counted)
    assert surprise(champion, today, counted + 1) is None


def test_a_champion_that_is_not_finite_says_nothing(untrained: Untrained, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    champion = untrained(
        folder(tmp_path / "before" / "corpus", letters(1_000)), valid_share=0.1, test_share=0.4, train_share=0.5
    )
    weights = load_file(champion.model / "model.safetensors")
    weights["dense.bias"][:] = np.nan
    save_file(weights, champion.model / "model.safetensors")
    assert surprise(champion, folder(tmp_path / "today", letters(1_500, seed=1)), 300) is None


def test_of_a_long_text_evenly_spaced_stretches_are_read(
    untrained: Untrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = untrained(
        folder(tmp_path / "before" / "corpus", letters(1_000)), valid_share=0.1, test_share=0.4, train_share=0.5
    )
    parts = [letters(1_000, seed, alphabet) for seed, alphabet in enumerate(("abcd", "wxyz", "abcd", "abcd"))]
    today = folder(tmp_path / "today", "".join(parts))
    whole = surprise(champion, today, 300)
    monkeypatch.setattr(surprising, "STRETCHES", 8)
    monkeypatch.setattr(surprising, "LENGTH", 100)
    some = surprise(champion, today, 300)
    assert whole
    assert some
    assert some.excess == pytest.approx(whole.excess, rel=0.02)
    read = text.read
    monkeypatch.setattr(text, "read", lambda path: read(path, 37))
    assert surprise(champion, today, 300) == some


def test_memory_does_not_grow_with_the_text(untrained: Untrained, tmp_path: Path) -> None:
    champion = untrained(
        folder(tmp_path / "before" / "corpus", letters(1_000)), valid_share=0.1, test_share=0.4, train_share=0.5
    )
    size = 40_000_000
    today = folder(tmp_path / "today", letters(1_000) * (size // 1_000))
    tracemalloc.start()
    try:
        assert surprise(champion, today, 300)
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()
