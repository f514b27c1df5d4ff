"""Sampling: text out of the book's model, beside the chapter's prediction and torch; one text, and many."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec

from race import Contender, Pair, Race, alternate
from results import Part

NEEDS = {"book": "mxnet", "torch": "torch", "torch by hand": "torch"}
"""Contender → the package that it needs."""
LENGTH, MANY = 500, 64
"""Characters of a text, and texts at once."""


def measure(*, full: bool) -> Part:
    """Race all that is installed, on one core."""
    del full
    pairs = [Pair("ours", "book", 100), Pair("ours", "torch", 5), Pair("ours", "torch by hand", 5)]
    one = race("one text", (*NEEDS, "ours"), {"length": LENGTH}, pairs)
    many = race(
        f"{MANY} texts",
        ("one after another", "at once"),
        {"length": LENGTH, "count": MANY},
        [Pair("at once", "one after another", 3)],
    )
    beside = [
        race(f"{named}, with an n-gram", ("network", "mixture"), {"length": LENGTH, "count": count}, [pair], same=False)
        for pair in [Pair("mixture", "network", 0.33)]
        for named, count in (("one text", 1), (f"{MANY} texts", MANY))
    ]
    part = Part("Sampling", [one, many, *beside])
    if absent := sorted({package for package in NEEDS.values() if not find_spec(package)}):
        part.notes.append(f"Left out, for it is not installed: {', '.join(absent)}.")
    part.notes += [
        "Characters of a ReLU RNN of 256 over 28 tokens, on one core, the likeliest each time; of many texts those of "
        "temperature 1 and a seed each. Before they are timed all have written the same.",
        "A mixture may take three times as long as its network: that of `sample`, an LSTM of 160, beside an 8-gram.",
    ]
    return part


def race(name: str, who: tuple[str, ...], task: dict[str, int], pairs: list[Pair], *, same: bool = True) -> Race:
    """Let them write in turn."""
    with ExitStack() as stack:
        racing = [
            stack.enter_context(Contender("writers", one, task, threads=1, cores=1))
            for one in who
            if one not in NEEDS or find_spec(NEEDS[one])
        ]
        written = [contender.answer() for contender in racing]
        assert not same or all(text == written[0] for text in written), written
        seconds = alternate([contender.go for contender in racing])
    amount = task["length"] * task.get("count", 1)
    return Race(
        name, {one.name: taken for one, taken in zip(racing, seconds, strict=True)}, pairs, "characters/s", amount
    )
