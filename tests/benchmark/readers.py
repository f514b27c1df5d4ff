"""Who turns text into ids in the benchmark: the book's code, nanoGPT's way, tokenizers, polars, and ours.

Each reads a file and ends with ids and the tokens that they stand for; `summary` numbers those of all of them alike,
the most frequent token first, so that the same text has the same digest whoever read it.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpora
import numpy as np

from data.corpus import text
from data.corpus.level import LEVELS
from data.corpus.pieces import keep, kept
from data.tables import counts
from data.tables.vocab import Vocab
from stages import tokenize
from stages.config import TokenizeConfig

if TYPE_CHECKING:
    from data.corpus.level import Piece
    from data.corpus.text import LevelName

Found = tuple[Any, Sequence[str]]
"""Ids, and the token of each."""
Turn = Callable[[], Any]


def summary(found: Any) -> Any:
    """What stands for a result: of ids and tokens a digest and how many there are; of counts all of them, in order."""
    if isinstance(found, Counter):
        return sorted(found.items())
    if not isinstance(found, tuple):
        return found
    ids, tokens = np.asarray(found[0], np.int64), found[1]
    counts = np.bincount(ids, minlength=len(tokens))
    order = sorted((int(row) for row in np.flatnonzero(counts)), key=lambda row: (-counts[row], tokens[row]))
    place = np.zeros(len(tokens), np.int64)
    place[order] = np.arange(len(order))
    named = "\n".join(tokens[row] for row in order).encode()
    return [len(ids), hashlib.sha256(place[ids].tobytes() + named).hexdigest()]


def ours(path: str, level: LevelName, normalizer: str) -> Turn:
    """Read once, and kept in a file; counted and looked up from there."""

    def turn() -> Found:
        with tempfile.TemporaryDirectory() as folder:
            aside = Path(folder) / "pieces"
            read = sum(keep(pieces(path, level, normalizer), aside))
            vocab = Vocab.build(counts.merge(map(counts.count, kept(aside, read))))
            return np.concatenate([counts.index(piece, vocab) for piece in kept(aside, read)]), vocab.tokens

    return turn


def counted(path: str, level: LevelName, normalizer: str) -> Turn:
    """Counted, and not kept."""
    return lambda: counts.merge(map(counts.count, pieces(path, level, normalizer)))


def pieces(path: str, level: LevelName, normalizer: str) -> Iterator[Piece]:
    """The tokens of a file, normalised, a piece at a time."""
    return LEVELS[level].pieces(text.normalize(text.read(Path(path)), normalizer, level))


def stage(path: str, level: LevelName, normalizer: str) -> Turn:
    """The whole stage, with all that it writes."""
    config = TokenizeConfig.model_validate({"level": level, "normalizer": normalizer})

    def turn() -> int:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            tokenize.tokenize(config, corpus=Path(path).parent, out=out, progress=lambda *said: None)
            return (out / "tokens.arrow").stat().st_size

    return turn


def streamed(path: str, level: LevelName, normalizer: str, size: int) -> Turn:
    """A stream of so many characters, of which nothing is kept: how much memory it takes."""
    del path

    def turn() -> int:
        vocab = Vocab.build(counts.merge(map(counts.count, made())))
        return sum(counts.index(piece, vocab).size for piece in made())

    def made() -> Iterator[Piece]:
        return LEVELS[level].pieces(text.normalize(corpora.stream(size), normalizer, level))

    return turn


def book(path: str, level: LevelName, normalizer: str) -> Turn:
    """The chapter's way: lines through a regular expression, lists of tokens, a counter, a dict."""
    del normalizer

    def turn() -> Found:
        with Path(path).open(encoding="utf-8") as file:
            lines = [re.sub("[^A-Za-z]+", " ", line).strip().lower() for line in file]
        tokens = [line.split() if level == "word" else list(line) for line in lines]
        counter = Counter(token for line in tokens for token in line)
        frequent = sorted(counter.items(), key=lambda row: row[1], reverse=True)
        known = ["<unk>", *(token for token, _ in frequent)]
        rows = {token: row for row, token in enumerate(known)}
        return [rows[token] for line in tokens for token in line], known

    return turn


def book_counted(path: str, level: LevelName, normalizer: str) -> Turn:
    """As far as the counter, and without the lists."""
    del level, normalizer

    def turn() -> Counter[str]:
        with Path(path).open(encoding="utf-8") as file:
            return Counter(character for line in file for character in re.sub("[^A-Za-z]+", " ", line).strip().lower())

    return turn


def nanogpt(path: str, level: LevelName, normalizer: str) -> Turn:
    """As nanoGPT prepares Shakespeare's characters: a sorted set, a dict, a list, an array of 16 bits in a file."""
    del level, normalizer

    def turn() -> Found:
        data = Path(path).read_text(encoding="utf-8")
        characters = sorted(set(data))
        rows = {character: row for row, character in enumerate(characters)}
        ids = np.array([rows[character] for character in data], dtype=np.uint16)
        with tempfile.TemporaryFile() as file:
            ids.tofile(file)
        return ids, characters

    return turn


def tokenizers(path: str, level: LevelName, normalizer: str) -> Turn:
    """Hugging Face's library with a model of whole words, or whole characters: trained on the lines, then encoding."""
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.trainers import WordLevelTrainer

    def turn() -> Found:
        with Path(path).open(encoding="utf-8") as file:
            lines = file.readlines()
        tokenizer = Tokenizer(WordLevel(unk_token="<unk>"))
        if normalizer == "book":
            space = normalizers.Replace(Regex("[^A-Za-z]+"), " ")
            tokenizer.normalizer = normalizers.Sequence([space, normalizers.Strip(), normalizers.Lowercase()])
        whole = pre_tokenizers.WhitespaceSplit()
        tokenizer.pre_tokenizer = whole if level == "word" else pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        trainer = WordLevelTrainer(vocab_size=1 << 30, special_tokens=["<unk>"], show_progress=False)
        tokenizer.train_from_iterator(lines, trainer)
        ids = [id_ for line in tokenizer.encode_batch_fast(lines) for id_ in line.ids]
        vocab = tokenizer.get_vocab()
        return ids, sorted(vocab, key=vocab.__getitem__)

    return turn


def polars(path: str, level: LevelName, normalizer: str) -> Turn:
    """A column of lines, exploded into tokens; what they are is counted, and they become categories in that order."""
    import polars as pl

    def turn() -> Found:
        line: Any = pl.col("line")
        if normalizer == "book":
            line = line.str.replace_all("[^A-Za-z]+", " ").str.strip_chars(" ").str.to_lowercase()
        elif level == "char":
            line = line + "\n"
        token: Any = line.str.split(" " if level == "word" else "").explode()
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        lines = lines if lines[-1] else lines[:-1]
        tokens = pl.DataFrame({"line": lines}).select(token=token)["token"]
        tokens = tokens.filter(tokens != "")
        known = tokens.value_counts().sort(["count", "token"], descending=[True, False])["token"]
        return tokens.cast(pl.Enum(known)).to_physical().to_numpy(), known.to_list()

    return turn


def copied(path: str, level: LevelName, normalizer: str) -> Turn:
    """Nothing but a copy of the file's bytes from one place in memory to another."""
    del level, normalizer
    source = np.fromfile(path, np.uint8)
    target = np.empty_like(source)
    return partial(np.copyto, target, source)


CONTENDERS = {
    "book": book,
    "nanoGPT": nanogpt,
    "tokenizers": tokenizers,
    "polars": polars,
    "ours": ours,
    "book, counting": book_counted,
    "ours, counting": counted,
    "ours, 1 core": stage,
    "ours, all cores": stage,
    "stream": streamed,
    "copy": copied,
}
