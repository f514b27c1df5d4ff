"""Texts that join and leave at any moment: each is, piece by piece, what it is alone."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data.corpus import subwords, text
from data.corpus.level import LEVELS
from data.corpus.text import LevelName
from data.errors import ConfigError
from data.tables.merges import Merges
from data.tables.vocab import Vocab
from stages.lm import abreast, joined
from stages.lm.joined import Joined, Piece, Writing
from stages.lm.layers import State
from stages.lm.model import LanguageModel
from stages.lm.network import Network
from stages.lm.ngram import NGram
from stages.lm.parameters import Architecture, together

Floats = npt.NDArray[np.float32]
Request = dict[str, Any]
Gained = dict[Writing, list[Piece]]
SAID = "The sea, the sea! The machine of the time.\nÜber dem Meer — 🙂🙂 and over the sea."
MODELS: list[dict[str, Any]] = [
    {},
    {"networks": 2},
    {"ngram": True, "ends": True},
    {"level": "word", "ngram": True},
    {"level": "word", "ends": True},
    {"level": "letter", "ngram": True, "ends": True},
    {"level": "bpe"},
    {"level": "bpe", "ngram": True, "networks": 2},
]


def model(
    level: LevelName = "char",
    scale: float = 0.3,
    *,
    ngram: bool = False,
    ends: bool = False,
    networks: int = 1,
    **changes: Any,
) -> LanguageModel:
    if level == "bpe":
        merges = Merges([("e", "r"), ("h", "e"), ("t", "he"), ("Ġ", "s"), ("ð", "Ł")])
        vocab = Vocab.merged(Counter(subwords.split(SAID)), merges)
    else:
        tokens = ["<unk>", *[text.END] * ends, *dict.fromkeys(LEVELS[level].split(SAID))]
        vocab = Vocab(tokens, [0] * len(tokens))
    settings = {"cell": "lstm", "activation": "tanh", "hidden_size": 16, "layers": 1, "ends": ends, **changes}
    architecture, rng = Architecture(vocab_size=len(vocab), networks=networks, **settings), np.random.default_rng(5)
    drawn = [
        {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in architecture.shapes().items()}
        for _ in range(networks)
    ]
    ids = np.array(vocab.ids(LEVELS[level].of(vocab).split(SAID)), np.uint8)
    counted = NGram.fit(ids, len(vocab), 4, ends=ends) if ngram else None
    weights = together(drawn) if networks > 1 else drawn[0]
    return LanguageModel(architecture, weights, vocab, level, "none", counted, [0.5] * 4 if ngram else ())


def requests(number: int, seed: int = 0, **fixed: Any) -> list[Request]:
    drawn = random.Random(seed)
    return [
        {
            "prefix": drawn.choice(["", "The sea", "a", "🙂", SAID, SAID * 4]),
            "length": drawn.choice([0, 1, 7, 40, 90]),
            "temperature": drawn.choice([0.0, 0.6, 1.0]),
            "seed": drawn.randrange(99),
            "top_k": drawn.choice([0, 0, 3, 10_000]),
            "top_p": drawn.choice([1.0, 1.0, 0.8]),
            "stop": drawn.choice([(), (), ("he s", "sea!"), ("e", " m"), ("ÜB", "Er")]),
            **fixed,
        }
        for _ in range(number)
    ]


def begin(joined: Joined, request: Request, **options: Any) -> Writing:
    arguments = {**request, **options}
    return joined.begin(arguments.pop("prefix"), arguments.pop("length"), **arguments)


def until_all_end(joined: Joined) -> Gained:
    gained: Gained = {}
    while len(joined):
        for writing, pieces in joined.step():
            gained.setdefault(writing, []).extend(pieces)
    return gained


def together_as_alone(ours: LanguageModel, many: Sequence[Request]) -> None:
    together = Joined(ours)
    writings = [begin(together, request) for request in many]
    gained = until_all_end(together)
    assert [told(gained[writing]) for writing in writings] == [alone(ours, request) for request in many]


def told(pieces: Sequence[Piece]) -> list[str]:
    return [piece.text for piece in pieces]


def alone(ours: LanguageModel, request: Request) -> list[str]:
    return [text for text, _ in ours.stream(**request)]


def end(ours: LanguageModel, request: Request) -> str:
    whole = alone(ours, {**request, "stop": ()})
    stopped = any(stop in "".join(whole) for stop in request["stop"])
    return "stop" if stopped or len(whole) < request["length"] else "length"


def noisy(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """Let the logits of columns differ from those of one text by more than rounding makes here."""
    readout, rng = Network.readout_columns, np.random.default_rng(0)

    def changed(self: Network, first: int = 0) -> Callable[[list[State]], Floats]:
        logits = readout(self, first)
        return lambda states: (found := logits(states)) + rng.uniform(-noise, noise, found.shape).astype(np.float32)

    monkeypatch.setattr(Network, "readout_columns", changed)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many columns were read at each step from now on."""
    advance, widths = Network.advance_columns, list[int]()

    def counting(self: Network, ids: npt.NDArray[Any], states: list[State]) -> None:
        widths.append(len(ids))
        assert all(array.flags.c_contiguous for state in states for array in state)  # else a step takes longer
        advance(self, ids, states)

    monkeypatch.setattr(Network, "advance_columns", counting)
    return widths


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_each_text_is_what_it_is_alone_whoever_joins_and_leaves(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined, "_TRIAL", 300)
    monkeypatch.setattr(joined, "_STEP", 2e-4)  # so that all meet at many moments
    ours, drawn, widths = model(**changes), random.Random(1), counted(monkeypatch)
    together, waiting, left = Joined(ours), requests(150), set[Writing]()
    wanted, gained = dict[Writing, Request](), Gained()
    while waiting or len(together):
        for _ in range(drawn.choice([0, 0, 1, 30]) if len(together) < 90 else 0):
            if waiting:
                request = waiting.pop()
                wanted[begin(together, request)] = request
        on = [writing for writing in wanted if writing.ended is None and writing not in left]
        if on and drawn.random() < 0.2:
            left.add(leaving := drawn.choice(on))
            together.leave(leaving)
        for writing, pieces in together.step():
            assert writing not in left
            gained.setdefault(writing, []).extend(pieces)
    for writing, request in wanted.items():
        expected = alone(ours, request)
        if writing in left:
            begun = told(gained.get(writing, []))
            assert begun == expected[: len(begun)]
            assert writing.ended is None
        else:
            assert told(gained[writing]) == expected
            assert writing.ended == end(ours, request)
    assert max(widths) > joined.FEWEST
    assert 3 < len(left) < len(wanted) / 2


def test_an_ngram_writes_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "_TRIAL", 300)
    ours = model(ngram=True)
    ours.predictor = NGram.fit(np.array(ours.vocab.ids(list(SAID)), np.uint8), len(ours.vocab))
    together_as_alone(ours, requests(80))


@pytest.mark.parametrize("options", [{"temperature": 1.0}, {"top_k": 4}, {"top_p": 0.8}, {"temperature": 0.0}], ids=str)
def test_what_is_in_doubt_is_computed_again_alone(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, unlike = model(), {"top_k": 0, "top_p": 1.0, "temperature": 1.0, **options}
    if not options.get("temperature", 1):  # of two that are equally likely it is the first one alone
        dense = ours.network._dense  # type: ignore[attr-defined]
        dense[0][5:9], dense[1][5:9] = dense[0][4], 2.0
        dense[1][4] = 2.0
    noisy(monkeypatch, 5e-4)
    monkeypatch.setattr(joined, "_TRIAL", 0)
    monkeypatch.setattr(abreast, "DRIFTS", (1e-3,))
    together_as_alone(ours, requests(64, length=150, stop=(), **unlike))


@pytest.mark.parametrize("noise", [3e-5, 0.3])
def test_where_more_drift_is_seen_more_is_allowed_for_or_all_go_on_alone(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy(monkeypatch, noise)
    monkeypatch.setattr(joined, "_TRIAL", 500)
    widths, ours = counted(monkeypatch), model()
    together_as_alone(ours, requests(80, length=90))
    assert len(widths) > 50 if noise < 0.1 else len(widths) == 1


def test_where_drift_comes_late_all_go_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "_TRIAL", 0)
    monkeypatch.setattr(joined, "_STEP", 0.0)
    ours, widths, readout = model(), counted(monkeypatch), Network.readout_columns

    def changed(self: Network) -> Callable[[list[State]], Floats]:
        logits = readout(self)  # all are off alike, so that none would be drawn otherwise
        return lambda states: logits(states) + np.float32(len(widths) > 40)

    monkeypatch.setattr(Network, "readout_columns", changed)
    together_as_alone(ours, requests(32, length=90, stop=(), top_k=0, top_p=1.0))
    assert 40 < len(widths) <= 40 + abreast.LOOKED_AT


@pytest.mark.parametrize("changes", [{"scale": 2.0}, {"scale": 0.6, "activation": "relu"}], ids=str)
def test_a_network_that_makes_much_of_little_writes_each_text_alone(changes: dict[str, Any]) -> None:
    ours = model(**{"cell": "rnn", "hidden_size": 64, **changes})
    together_as_alone(ours, requests(64, length=120, temperature=1.0))


def test_few_are_written_alone_and_many_by_one_product_of_64_columns_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, widths = model(), counted(monkeypatch)
    together_as_alone(ours, requests(joined.FEWEST - 1))
    assert not widths
    many = requests(abreast.COLUMNS + 20, length=60, stop=(), prefix="a")
    together_as_alone(
        ours, [{**request, "length": 400} if number < 3 else request for number, request in enumerate(many)]
    )
    assert max(widths) == abreast.COLUMNS
    assert len(widths) < 200  # for the three that are left are alone


def test_who_waits_is_served_in_the_order_of_coming() -> None:
    ours = model()
    together = Joined(ours)
    writings = [begin(together, request) for request in requests(abreast.COLUMNS + 9, length=300, stop=())]
    gained = {writing for writing, _ in together.step()}
    assert gained <= {*writings[: abreast.COLUMNS]}
    together.leave(writings[abreast.COLUMNS])
    together.leave(writings[1])
    assert len(together) == abreast.COLUMNS + 7
    assert {*until_all_end(together)} == {*writings} - {writings[1], writings[abreast.COLUMNS]}


def test_a_prompt_that_several_have_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, advance, read = model(), Network.advance, list[int]()

    def counting(self: Network, id_: int, states: list[State]) -> None:
        read.append(id_)
        advance(self, id_, states)

    monkeypatch.setattr(Network, "advance", counting)
    together = Joined(ours)
    for seed in range(5):
        together.begin(SAID * 5, 10, 1.0, seed)
    until_all_end(together)
    assert len(read) < len(SAID) * 5 + 5 * 10


def test_a_long_prompt_keeps_nobody_waiting() -> None:
    together = Joined(model())
    slow, quick = together.begin(SAID * 400, 3), together.begin("a", 300)
    gained = list[Writing]()
    while len(together):
        gained += [writing for writing, _ in together.step()]
    assert gained.index(slow) > len(gained) - 1 - gained[::-1].index(quick)


@pytest.mark.parametrize("level", ["char", "letter", "word", "bpe"])
def test_logprobs_are_those_of_the_model_at_temperature_1(level: LevelName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "_TRIAL", 100)
    ours, together, many = model(level), Joined(model(level)), requests(40, stop=(), length=60)
    asked = [begin(together, request, likeliest=number % 4) for number, request in enumerate(many)]
    others = [begin(together, request) for request in many]
    everything = together.begin("The sea", 3, likeliest=10_000)
    gained = until_all_end(together)
    for number, (writing, request) in enumerate(zip(asked, many, strict=True)):
        stream = [*ours.stream(**request, probabilities=True)]
        assert told(gained[writing]) == [text for text, _ in stream]
        logprobs = [piece.logprob for piece in gained[writing]]
        assert logprobs == pytest.approx([math.log(chance) for _, chance in stream if chance is not None], abs=1e-4)
        for piece in gained[writing]:
            best = [logprob for _, logprob in piece.likeliest]
            assert len(best) == number % 4
            assert best == sorted(best, reverse=True)
            assert all(piece.logprob <= best[0] for _ in best[:1] if piece.logprob is not None)
            if level != "bpe" and piece.logprob in best:
                assert piece.text in dict(piece.likeliest)
    assert all(piece[1:] == (None, ()) for writing in others for piece in gained[writing])
    for piece in gained[everything]:
        assert sum(math.exp(logprob) for _, logprob in piece.likeliest) == pytest.approx(1)


def test_a_network_that_says_no_numbers_goes_on_as_it_does_alone() -> None:
    ours = model()
    ours.network._dense[1][3] = np.nan  # type: ignore[attr-defined]
    together_as_alone(ours, requests(20))
    together = Joined(ours)
    together.begin("a", 5, 1.0, likeliest=1)
    [pieces] = until_all_end(together).values()
    assert {piece.logprob for piece in pieces} == {-math.inf}


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"top_p": 2.0}, {"top_k": -1}, {"stop": [""]}, {"likeliest": -1}],
    ids=str,
)
def test_a_value_that_does_not_fit_is_refused_before_anything_is_written(options: dict[str, Any]) -> None:
    together = Joined(model())
    with pytest.raises(ConfigError):
        together.begin("a", 5, **options)
    assert not len(together)
    assert together.step() == []
