"""A command of its own: documents of any kind and number, divided and tokenized in any way.

    .venv/bin/python tests/fuzz/divided.py [FIRST] [CASES]

Each case has to end in tables that fit each other, or in one sentence. The suite runs a few of them, see
``test_divided.py``.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from data.corpus import parts, text, together
from data.errors import RnnlmError
from data.tables.borders import Borders
from data.tables.tokens import END_ID, IndexTable
from data.tables.vocab import Vocab
from stages.config import TokenizeConfig
from stages.pipeline import sound
from stages.tokenize import tokenize
from tests.stages.test_divided import corpus

PIECES = [
    *(
        "the sea ",
        "Über ",
        "KINGs",
        "\n",
        "  ",
        "🙂",
        "a\u0301",
        "12 ",
        "...",
        "x" * 200,
        "\r\n",
        "日本語",
        "\u2028",
        "a b " * 99,
    ),
    *("<end of document>", "<unk> ", "word"),
]


def documents(rng: Random) -> dict[str, str]:
    """Some of them more than once."""
    many = rng.choice((1, 2, 5, 30, 200))
    pool = ["".join(rng.choices(PIECES, k=rng.choice((1, 3, 20, 300)))) for _ in range(many)]
    return {f"{number}": rng.choice(pool) for number in range(many)}


def fields(rng: Random) -> dict[str, Any]:
    """Of the configuration."""
    level = rng.choice(("char", "letter", "word", "bpe"))
    shares = rng.choice(((0.9, 0.05, 0.05), (0.6, 0.2, 0.2), (1, 0, 0)))
    chosen = {
        "level": level,
        "normalizer": rng.choice(("book", "lower", "none")),
        "nfc": rng.random() < 0.3,
        "split": rng.choice(("auto", "content", "order", "position")),
        "split_seed": rng.randrange(3),
        "end_tokens": rng.random() < 0.7,
        "near_duplicates": rng.choice(("keep", "drop")),
        "fit_vocab_on": rng.choice(("train", "all")),
        "max_tokens": rng.choice((0, 0, 1, 10, 500)),
        "min_freq": rng.choice((0, 0, 2)),
        **dict(zip(("train_share", "valid_share", "test_share"), shares, strict=True)),
    }
    if level == "letter":
        chosen["normalizer"] = "none"
    if level == "bpe":
        chosen["vocab_size"] = rng.choice((257, 258, 300))
    if level == "word" and chosen["normalizer"] != "book":
        chosen["line_ends"] = rng.random() < 0.3
    return chosen


def case(seed: int, folder: Path) -> bool:
    """Whether a case ends in tables; else in a sentence. What else it ends in is raised."""
    rng, out = Random(seed), folder / "out"
    out.mkdir()
    texts, config = documents(rng), TokenizeConfig(**fields(rng))
    with (
        patch.object(parts, "SIZE", rng.choice((1, 100, 1 << 24))),
        patch.object(together, "SHORT", rng.choice((10, 1 << 16))),
        patch.object(text, "CHUNK", rng.choice((50, 1 << 18))),
    ):
        try:
            tokenize(config, corpus=corpus(folder / "corpus", texts), out=out, progress=lambda *_: None)
        except RnnlmError:
            return False
    sound.tokenize(out)
    table, borders = IndexTable.open(out / "tokens.arrow"), Borders.read(out / "documents.arrow")
    vocab = Vocab.read(out / "vocab.arrow", merged=config.level == "bpe")
    assert vocab.ends is config.end_tokens
    if vocab.ends:
        assert (np.flatnonzero(table.ids == END_ID) == borders.first + borders.tokens - 1).all()
    found = borders.found
    assert sum(found.documents) == len(borders) <= len(texts)
    assert config.max_tokens or len(borders) + found.empty + found.left_out == len(texts)
    return True


def main() -> None:
    """Say how many cases ended how; the first that ends otherwise says which it is."""
    first, cases = (int(given) for given in (*sys.argv[1:], *("0", "1000")[len(sys.argv) - 1 :]))
    logging.disable(logging.CRITICAL)
    ended = [0, 0]
    for seed in range(first, first + cases):
        with tempfile.TemporaryDirectory() as folder:
            try:
                ended[case(seed, Path(folder))] += 1
            except Exception as error:
                raise AssertionError(f"case {seed}") from error
    print(f"{cases:,} cases: {ended[1]:,} with tables, {ended[0]:,} with a sentence")


if __name__ == "__main__":
    main()
