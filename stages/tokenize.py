"""From text to ids: the vocabulary and the index table of a corpus, streamed, whatever its size.

The text is read once, and kept as pieces: these are counted, as far as the vocabulary is fitted on them, and looked up.
It is read in parts, a large text by several processes. ``count``, ``merge`` and ``index`` are all that happens to a
piece, and know nothing of each other: a piece is an array of code points (characters) or of words, cut anywhere
between tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import sys
import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from data.corpus import pieces, text
from data.corpus.level import LEVELS, WORD
from data.corpus.parts import passes
from data.errors import CorpusError
from data.tables.tokens import LONGEST, SPLITS, IndexTable, Split
from data.tables.vocab import Vocab
from stages.lm.spelling import Spelling

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from data.corpus.level import Piece
    from data.corpus.parts import Part
    from data.corpus.text import LevelName, Normalizer
    from data.progress import Progress
    from data.tables.tokens import Ids
    from stages.config import TokenizeConfig

    Ranges: TypeAlias = Mapping[str, tuple[int, int]]
    """Of tokens, by what they are called."""

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
    source = _Source(path, config.level, text.normalizer(config.normalizer, nfc=config.nfc, line_ends=config.line_ends))
    fit_on_all = config.fit_vocab_on == "all"
    limit = config.max_tokens or sys.maxsize
    digest = _digest(path)
    with TemporaryDirectory(dir=out) as aside, passes(path, 3, progress) as over:
        folder = Path(aside)
        starts, characters = [0], 0  # of the parts, and the end of the last; before they were normalised
        read_on = repeat(sys.maxsize if fit_on_all else limit)
        for tokens, had in over(partial(_keep, source=source, folder=folder), read_on):
            starts.append(starts[-1] + tokens)
            characters += had
            if not fit_on_all and starts[-1] >= limit:
                break
        total = min(starts[-1], limit)
        ends = bounds(total, config)
        _check(total, ends, config, path)
        fitted = _before(sys.maxsize if fit_on_all else ends[0], starts[:-1])
        counts = merge(over(partial(_count, folder=folder), fitted))
        vocab = Vocab.build(counts, config.min_freq)
        if len(vocab) == 1:
            raise CorpusError(f"every token is seen less than {config.min_freq:,} times: lower tokenize.min_freq")

        ranges = dict(zip(SPLITS, itertools.pairwise((0, *ends)), strict=True))
        if ends[0] > LONGEST:
            ranges["part"] = ends[0] - LONGEST, ends[0]
        read = {name: Spelling() for name in ranges}
        spill = folder / "ids"
        spill.touch()
        indexed = partial(_index, folder=folder, vocab=vocab, ranges=ranges, spill=spill)
        for found in over(indexed, _before(total, starts[:-1]), starts):
            for name, one in found.items():
                read[name].extend(one)
        splits = {name: Split(*ranges[name], one.characters, one.unknown, one.bits) for name, one in read.items()}
        part = splits.pop("part", None)
        ids = np.memmap(spill, vocab.id_type, "r")
        kinds = config.level, source.normalizer
        IndexTable(ids, splits, *kinds, digest.result(), len(vocab), part).write(out / "tokens.arrow")
    vocab.write(out / "vocab.arrow")
    _report(splits, len(vocab), characters, config)


def count(piece: Piece) -> Counter[str]:
    """How often each token stands in a piece."""
    if isinstance(piece, np.ndarray):
        occurrences = _occurrences(piece)
        tokens = [*map(chr, np.flatnonzero(occurrences).tolist())]
    else:
        piece = piece.dictionary_encode()
        occurrences = np.bincount(piece.indices, minlength=len(piece.dictionary))
        tokens = piece.dictionary.filter(occurrences > 0).to_pylist()
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
    ids: Ids = np.array(vocab.ids(piece.dictionary.to_pylist()), vocab.id_type).take(piece.indices.to_numpy())
    return ids


def bounds(total: int, config: TokenizeConfig) -> tuple[int, int, int]:
    """Where the training, the validation and the test split of ``total`` tokens end.

    The fractions are taken as the decimals that were written, so that 90 % of ten tokens are nine.
    """
    train, valid = (Fraction(str(fraction)) for fraction in (config.train_share, config.valid_share))
    valid_stop = int(total * (train + valid)) if config.test_share else total
    train_stop = int(total * train) if config.valid_share else valid_stop
    return train_stop, valid_stop, total


def _before(stop: int, starts: list[int]) -> list[int]:
    """For the parts that begin before a token: how many tokens it is from there."""
    return [stop - start for start in starts if start < stop]


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


@dataclass(frozen=True)
class _Source:
    """A text and how it becomes tokens."""

    path: Path
    level: LevelName
    normalizer: Normalizer

    def pieces(self, chunks: Iterable[str], limit: int) -> Iterator[Piece]:
        """The first ``limit`` tokens of chunks, a piece at a time."""
        for piece in LEVELS[self.level].pieces(text.normalize(chunks, self.normalizer, self.level)):
            yield piece[:limit]
            limit -= len(piece)
            if limit <= 0:
                return


def _keep(part: Part, limit: int, *, source: _Source, folder: Path) -> tuple[int, int]:
    """Read a part and keep its first tokens in a file.

    Returns:
        How many there are, and the characters that were read, before they were normalised.
    """
    characters = 0

    def chunks() -> Iterator[str]:
        nonlocal characters
        for chunk in text.read(source.path, part=part):
            characters += len(chunk)
            yield chunk

    return sum(pieces.keep(source.pieces(chunks(), limit), _kept(folder, part))), characters


def _kept(folder: Path, part: Part) -> Path:
    return folder / f"{part.start}"


def _count(part: Part, limit: int, *, folder: Path) -> Counter[str]:
    """How often each token stands among the first ones of a part."""
    return merge(map(count, pieces.kept(_kept(folder, part), limit)))


def _index(
    part: Part, limit: int, start: int, *, folder: Path, vocab: Vocab, ranges: Ranges, spill: Path
) -> dict[str, Spelling]:
    """Write the ids of the first tokens of a part, of which ``start`` is the number of the first, to where they belong.

    Returns:
        What was read in each range of tokens.
    """
    read = {name: Spelling() for name in ranges}
    with spill.open("r+b") as file:
        file.seek(start * vocab.id_type.itemsize)
        for piece in pieces.kept(_kept(folder, part), limit):
            ids = index(piece, vocab)
            file.write(ids.data)
            for name, (first, stop) in ranges.items():
                inside = slice(max(first - start, 0), max(stop - start, 0))
                read[name].add(piece[inside], ids[inside])
            start += len(ids)
    _kept(folder, part).unlink()  # the ids take its place
    return read


def _digest(path: Path) -> Future[str]:
    """A file's SHA-256, taken beside all that follows; where that fails, nothing waits for it."""
    digest: Future[str] = Future()

    def take() -> None:
        try:
            with path.open("rb") as file:
                digest.set_result(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            digest.set_exception(error)

    threading.Thread(target=take, daemon=True).start()
    return digest


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


def _report(splits: Mapping[str, Split], entries: int, characters: int, config: TokenizeConfig) -> None:
    kept = sum(split.characters for split in splits.values())
    if config.normalizer == "book" and not config.max_tokens and kept < characters / 2:
        logger.warning(
            "normalizer=book keeps the letters A-Z only, %.0f %% of this text: tokenize.normalizer=lower keeps all",
            100 * kept / characters,
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
