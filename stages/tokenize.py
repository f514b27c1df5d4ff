"""From text to ids: the vocabulary and the index table of a corpus, streamed, whatever its size.

The text is read once to count its tokens, once more for the training split's counts where the vocabulary is fitted on
that alone, and once to look up the ids. ``count``, ``merge`` and ``index`` are all that happens to a piece of text, and
know nothing of each other: a piece is an array of code points (characters) or of words, cut anywhere between tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from data.corpus import text
from data.corpus.level import LEVELS, WORD
from data.errors import CorpusError
from data.tables.tokens import LONGEST, SPLITS, IndexTable, Split
from data.tables.vocab import Vocab
from stages.lm.spelling import Spelling

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from data.corpus.level import Piece
    from data.progress import Progress
    from data.tables.tokens import Ids
    from stages.config import TokenizeConfig

logger = logging.getLogger(__name__)

PAIRS = 1 << 16
"""Pairs of bytes that there can be."""
MOSTLY_UNKNOWN = 0.5
"""A validation or test split with a larger share of unknown tokens is warned of."""


def tokenize(config: TokenizeConfig, *, corpus: Path, out: Path, progress: Progress) -> None:
    """Write ``out/vocab.arrow`` and ``out/tokens.arrow`` for the text in ``corpus/corpus.txt``.

    Args:
        config: what a token is, which are known, and where the splits end.
        corpus: a folder that `download` wrote.
        out: an empty folder.
        progress: is told bytes, over all passes, and their rate.

    Raises:
        CorpusError: a text of which nothing is left to train on, or that is not UTF-8.
    """
    path = corpus / "corpus.txt"
    fit_on_all = config.fit_vocab_on == "all"
    reader = _Reader(path, config, 2 if fit_on_all else 3, progress)

    limit = config.max_tokens or None
    if fit_on_all:
        counts = merge(map(count, reader.pieces()))
        total = min(counts.total(), limit or counts.total())
    else:
        total = sum(map(len, reader.pieces(limit)))
    ends = bounds(total, config)
    _check(total, ends, config, path)
    if not fit_on_all:
        counts = merge(map(count, reader.pieces(ends[0])))
    vocab = Vocab.build(counts, config.min_freq)
    if len(vocab) == 1:
        raise CorpusError(f"every token is seen less than {config.min_freq:,} times: lower tokenize.min_freq")

    spill = out / "tokens.spill"
    try:
        ranges = dict(zip(SPLITS, itertools.pairwise((0, *ends)), strict=True))
        if ends[0] > LONGEST:
            ranges["part"] = ends[0] - LONGEST, ends[0]
        splits = _index(reader.pieces(total), vocab, ranges, spill)
        part = splits.pop("part", None)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        ids = np.memmap(spill, vocab.id_type, "r")
        kinds = config.level, reader.normalizer
        IndexTable(ids, splits, *kinds, sha256, len(vocab), part).write(out / "tokens.arrow")
    finally:
        spill.unlink(missing_ok=True)
    vocab.write(out / "vocab.arrow")
    _report(splits, len(vocab), reader, config)


def count(piece: Piece) -> Counter[str]:
    """How often each token stands in a piece."""
    tokens: Iterable[str]
    if isinstance(piece, np.ndarray):
        occurrences = _occurrences(piece)
        tokens = map(chr, np.flatnonzero(occurrences))
    else:
        piece = piece.dictionary_encode()
        occurrences = np.bincount(piece.indices, minlength=len(piece.dictionary))
        tokens = itertools.compress(piece.dictionary.to_pylist(), occurrences)
    return Counter(dict(zip(tokens, occurrences[occurrences > 0].tolist(), strict=True)))


def merge(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """The counts of several pieces as one."""
    merged: Counter[str] = Counter()
    for more in counts:
        merged.update(more)
    return merged


def index(piece: Piece, vocab: Vocab) -> Ids:
    """The ids of a piece's tokens, shape (tokens,), of the vocabulary's ``id_type``; 0 where it has none."""
    if isinstance(piece, np.ndarray):
        if piece.dtype == vocab.id_type == np.uint8:
            return np.frombuffer(piece.tobytes().translate(vocab.by_byte), np.uint8)
        return vocab.by_code_point.take(piece, mode="clip")
    piece = piece.dictionary_encode()
    ids: Ids = np.array(vocab.ids(piece.dictionary.to_pylist()), vocab.id_type)[piece.indices.to_numpy()]
    return ids


def bounds(total: int, config: TokenizeConfig) -> tuple[int, int, int]:
    """Where the training, the validation and the test split of ``total`` tokens end.

    The fractions are taken as the decimals that were written, so that 90 % of ten tokens are nine.
    """
    train, valid = (Fraction(str(fraction)) for fraction in (config.train_share, config.valid_share))
    valid_stop = int(total * (train + valid)) if config.test_share else total
    train_stop = int(total * train) if config.valid_share else valid_stop
    return train_stop, valid_stop, total


class _Reader:
    """Passes over a corpus, each of which tells how far it is."""

    def __init__(self, path: Path, config: TokenizeConfig, passes: int, progress: Progress) -> None:
        self._path = path
        self._config = config
        self.normalizer = text.normalizer(config.normalizer, nfc=config.nfc, line_ends=config.line_ends)
        self._size = path.stat().st_size
        self._passes = passes
        self._pass = 0
        self._progress = progress
        self.characters = 0
        """Characters that the last pass read, before they were normalised."""

    def pieces(self, limit: int | None = None) -> Iterator[Piece]:
        """The first ``limit`` tokens of the corpus, or all of them, a piece at a time."""
        chunks = text.normalize(self._chunks(), self.normalizer, self._config.level)
        pieces = LEVELS[self._config.level].pieces(chunks)
        yield from pieces if limit is None else _first(pieces, limit)
        self._pass += 1

    def _chunks(self) -> Iterator[str]:
        before = self._pass * self._size
        began = time.monotonic()
        read = self.characters = 0
        for chunk in text.read(self._path):
            self.characters += len(chunk)
            read = min(read + text.CHUNK, self._size)
            yield chunk
            rate = read / 1e6 / max(time.monotonic() - began, 1e-9)
            self._progress(before + read, self._passes * self._size, f"{rate:,.0f} MB/s")


def _occurrences(codes: NDArray[np.unsignedinteger]) -> NDArray[np.intp]:
    """How often each code point stands there, by the code point. Bytes are counted as pairs, which takes half the time
    where the table of all pairs is short beside them."""
    if codes.dtype != np.uint8 or len(codes) < PAIRS:
        return np.bincount(codes)
    even = len(codes) // 2 * 2
    kinds = int(codes.max()) + 1
    pairs = np.bincount(codes[:even].view("<u2"), minlength=kinds << 8).reshape(kinds, 1 << 8)
    last = np.bincount(codes[even:], minlength=kinds)
    occurrences: NDArray[np.intp] = pairs.sum(axis=1) + pairs.sum(axis=0)[:kinds] + last
    return occurrences


def _first(pieces: Iterable[Piece], limit: int) -> Iterator[Piece]:
    for piece in pieces:
        yield piece[:limit]
        limit -= min(len(piece), limit)
        if not limit:
            return


def _index(
    pieces: Iterable[Piece], vocab: Vocab, ranges: Mapping[str, tuple[int, int]], spill: Path
) -> dict[str, Split]:
    """Write the ids of all pieces to ``spill`` and measure the tokens in each of these ranges."""
    read = {name: Spelling() for name in ranges}
    position = 0
    with spill.open("wb") as file:
        for piece in pieces:
            if not isinstance(piece, np.ndarray):
                piece = piece.dictionary_encode()  # once, for all that follows
            ids = index(piece, vocab)
            file.write(ids.data)
            for name, (start, stop) in ranges.items():
                inside = slice(max(start - position, 0), max(stop - position, 0))
                read[name].add(piece[inside], ids[inside])
            position += len(ids)
    return {name: Split(*ranges[name], one.characters, one.unknown, one.bits) for name, one in read.items()}


def _check(total: int, ends: tuple[int, ...], config: TokenizeConfig, path: Path) -> None:
    if not total:
        if config.normalizer == "book" and path.stat().st_size:
            raise CorpusError(
                "nothing is left of the corpus: normalizer=book keeps the letters A-Z only, and it has none; "
                "set tokenize.normalizer=lower"
            )
        raise CorpusError("the corpus holds no text to learn from: choose another one")
    if not ends[0]:
        remedy = "set tokenize.level=char" if config.level == WORD.name else "use a longer text or a larger share"
        raise CorpusError(
            f"the training split is empty: of the {total:,} {config.level}s of this text a tokenize.train_share of "
            f"{config.train_share:g} takes none; {remedy}"
        )


def _report(splits: Mapping[str, Split], entries: int, reader: _Reader, config: TokenizeConfig) -> None:
    kept = sum(split.characters for split in splits.values())
    if config.normalizer == "book" and not config.max_tokens and kept < reader.characters / 2:
        logger.warning(
            "normalizer=book keeps the letters A-Z only, %.0f %% of this text: tokenize.normalizer=lower keeps all",
            100 * kept / reader.characters,
        )
    worst = max(("valid", "test"), key=lambda name: splits[name].unknown_rate)
    if splits[worst].unknown_rate > MOSTLY_UNKNOWN:
        logger.warning(
            "%.0f %% of the %s split's %ss are unknown: %s",
            100 * splits[worst].unknown_rate,
            worst,
            LEVELS[config.level].noun,
            "where the text has few spaces, set tokenize.level=char; else lower tokenize.min_freq"
            if config.level == WORD.name
            else "lower tokenize.min_freq",
        )
    sizes = ", ".join(f"{name} {len(split):,} ({split.unknown:,} unknown)" for name, split in splits.items())
    logger.info("%s entries in the vocabulary; tokens: %s", f"{entries:,}", sizes)
