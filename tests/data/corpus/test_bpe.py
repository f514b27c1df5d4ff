"""Merges are those that plain counting finds, whatever they are learnt beside."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from data.corpus import bpe, subwords

ROOT = Path(__file__).parents[3]
TEXT = (
    "The sea was calm, the tide came in; then he saw the théâtre by the sea: 12, 112 and 1212 seats. 你好你好 🙂🙂\n"
    * 3
)
COUNTS = Counter(subwords.split(TEXT))


def plain(counts: dict[str, int], size: int, least: int) -> list[tuple[str, str]]:
    """The two neighbours that stand there most often become one; of equals, those whose tokens came first."""
    words = {piece: list(subwords.written(piece)) for piece in counts}
    ids = {letter: number for number, letter in enumerate(sorted(subwords.LETTERS))}
    merges: list[tuple[str, str]] = []
    while len(ids) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for piece, tokens in words.items():
            for pair in pairwise(tokens):
                pairs[pair] += counts[piece]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        if pairs[best] < least:
            break
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        for tokens in words.values():
            at = 0
            while at < len(tokens) - 1:
                if (tokens[at], tokens[at + 1]) == best:
                    tokens[at : at + 2] = ["".join(best)]
                at += 1
    return merges


@pytest.mark.parametrize(("size", "least"), [(256, 0), (270, 0), (2000, 0), (2000, 7)])
def test_merges_are_those_of_plain_counting(size: int, least: int) -> None:
    found = bpe.learn(COUNTS, size, least)
    assert found == plain(COUNTS, size, max(least, 2))
    assert len(found) <= size - 256
    if size < 1000:
        assert len(found) == size - 256


def test_in_which_order_pieces_are_counted_and_in_which_process_changes_nothing() -> None:
    expected = bpe.learn(COUNTS, 400)
    items = list(COUNTS.items())
    random.Random(0).shuffle(items)
    assert bpe.learn(dict(items), 400) == expected
    script = "import json, sys; from data.corpus import bpe; print(json.dumps(bpe.learn(json.loads(sys.argv[1]), 400)))"
    environment = {**os.environ, "RAYON_NUM_THREADS": "7", "TOKENIZERS_PARALLELISM": "true", "PYTHONHASHSEED": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(dict(items))],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [tuple(pair) for pair in json.loads(done.stdout)] == expected


def test_of_a_large_text_each_count_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {piece: 9 * count + 2 for piece, count in COUNTS.items()}
    total = sum(len(piece.encode()) * count for piece, count in many.items())
    monkeypatch.setattr(bpe, "MOST", total // 4)
    share = 5  # a quarter, rounded down, takes a fifth
    expected = plain({piece: count // share for piece, count in many.items() if count >= share}, 400, 2)
    assert bpe.learn(many, 400, 10) == expected


def test_many_of_one_piece_are_handed_over_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "_TOGETHER", 20)
    assert bpe.learn(COUNTS, 400) == plain(COUNTS, 400, 2)


@pytest.mark.parametrize("before", [None, "true"])
def test_the_environment_stays_as_it_was(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    bpe.learn({"aa": 3}, 300)
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before
