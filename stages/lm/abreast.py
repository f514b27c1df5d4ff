"""Many continuations at once, each of them what it is alone.

A matrix times 64 columns costs a few times as much as that matrix times one vector, so 64 texts are written with one
product per step. But the order of a product's sums follows from its shape: in the last bits the logits are not those
of a text that is written alone, and where a number that was drawn falls next to the border between two tokens, another
one could be taken. So what lies within rounding of a border is computed again alone:

1. Each token comes with a doubt: whether its number falls so near to a border, of what it is drawn by or of what
   ``top_k`` and ``top_p`` keep, that logits a little apart could have taken another one.
2. A text in doubt is read again alone, from where it was last known to the bit, and this token is drawn from those
   logits. Its column goes on from there, so no token is read again twice.
3. How far the logits have drifted apart by then is measured each time, and every few tokens in one text without any
   doubt. Where it is more than half of what step 1 allows for, all texts are written again and more is allowed for;
   and where that is not enough, the network makes large differences of small ones, and all are written alone.

A network in which a difference grows in one text and in none that was looked at would go unseen. One that was trained
forgets a difference sooner than it grows (see `stages.lm.side_by_side`), or has it grow in every text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stages.lm import sampling

if TYPE_CHECKING:
    from stages.lm.layers import State, Vector
    from stages.lm.predictor import Predictor

COLUMNS = 64
"""Texts at once."""
FEWEST = 4
"""With fewer texts there is nothing to gain."""
SEGMENT = 32
"""Tokens after which is seen which texts have ended."""
DRIFTS = 4e-6, 1e-4
"""What two logits may be apart for a token that is not in doubt, for each unit of the largest one's size, and for one
unit more: first the one, and where it is not enough the other. Rounding alone makes up to a third of the first."""
_ROUNDED = 1e-6
"""What two logits may be apart for a token that is not in doubt, over the temperature, because likelihoods are computed
in single precision here."""
LOOKED_AT = 8
"""Tokens after which the first text that has not ended is read again alone."""

How = tuple[float, int, float]
Floats = npt.NDArray[np.floating]
Ids = npt.NDArray[np.int64]


def continuations(
    predictor: Predictor,
    prompt: Sequence[int],
    length: int,
    seeds: Sequence[int],
    how: How,
    *,
    first: int,
    ended: Callable[[npt.NDArray[Any]], bool],
) -> list[list[int]] | None:
    """The ids that follow those of a prompt, for each seed; None where they have to be written alone.

    Args:
        predictor: reads the prompt, and each id that was taken.
        prompt: ids.
        length: ids to take at most.
        seeds: one for each text.
        how: temperature, above 0, and ``top_k`` and ``top_p``, as in `LanguageModel.stream`.
        first: lower ids are read but never taken.
        ended: whether a text has ended, given its ids so far: more of it is then not needed.
    """
    known = predictor.beginning()
    with np.errstate(all="ignore"):  # a state that grew beyond bounds is bad text, and is written alone
        for id_ in prompt:
            predictor.advance(id_, known)
        for drift in DRIFTS:
            texts = np.full((len(seeds), length), -1, np.int32)
            if _write(texts, predictor, known, seeds, how, first, ended, drift):
                return [ids[ids >= 0].tolist() for ids in texts]
    return None


def _write(
    texts: npt.NDArray[np.int32],
    predictor: Predictor,
    known: list[State],
    seeds: Sequence[int],
    how: How,
    first: int,
    ended: Callable[[npt.NDArray[Any]], bool],
    drift: float,
) -> bool:
    """Write into ``texts``, (seeds, length), after the states of a prompt; stop where there is more drift than this."""
    readout, readout_columns = predictor.readout(first), predictor.readout_columns(first)
    streams, length = [np.random.default_rng(seed) for seed in seeds], texts.shape[1]
    alone, read = [[*known] for _ in seeds], [0 for _ in seeds]  # each one's state to the bit, and ids read until then
    live = np.arange(len(seeds))  # column i is that of text live[i]
    columns = [tuple(np.repeat(array[:, None], len(live), axis=1) for array in state) for state in known]
    for number in range(length):
        if number % SEGMENT == 0:
            going = [column for column, text in enumerate(live) if not ended(texts[text, :number])]
            if not going:
                return True
            live, columns = live[going], [tuple(array.take(going, 1) for array in state) for state in columns]
            uniforms = np.array([streams[text].random(min(SEGMENT, length - number)) for text in live])
        if number:
            predictor.advance_columns(texts[live, number - 1], columns)
        logits, uniform = readout_columns(columns), uniforms[:, number % SEGMENT]
        allowed = drift * (1 + np.abs(logits).max(axis=1))
        taken, doubtful = draw(logits, uniform, *how, allowed)
        doubtful[0] |= number % LOOKED_AT == 0
        for column in np.flatnonzero(doubtful).tolist():
            text = int(live[column])
            for id_ in texts[text, read[text] : number].tolist():
                predictor.advance(id_, alone[text])
            read[text] = number
            exactly = readout(alone[text])
            if not np.abs(exactly - logits[column]).max() <= allowed[column] / 2:
                return False
            put(alone[text], columns, column)
            taken[column] = sampling.draw(exactly, float(uniform[column]), *how)
        texts[live, number] = taken + first
    return True


def draw(
    logits: Vector,
    uniform: Floats,
    temperature: npt.ArrayLike,
    top_k: npt.ArrayLike,
    top_p: npt.ArrayLike,
    allowed: Floats,
) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """`stages.lm.sampling.draw` for the rows of logits, and which of them are in doubt.

    Args:
        logits: (rows, tokens).
        uniform: (rows,), a number in [0, 1) for each.
        temperature: above 0; this and the next two are one number, or one for each row.
        top_k, top_p: as in `LanguageModel.stream`.
        allowed: (rows,), what two logits may be apart without a doubt.
    """
    tokens, hot, most, share = logits.shape[1], np.array(temperature), np.array(top_k), np.array(top_p)
    likelihoods = logits - logits.max(axis=1, keepdims=True)
    likelihoods /= hot.astype(np.float32)[..., None]
    np.exp(likelihoods, out=likelihoods)
    apart = allowed / hot + _ROUNDED
    doubtful = np.zeros(len(logits), bool)
    limited = (most > 0) & (most < tokens) | (share < 1)
    if limited.any():
        some, most, share = (np.broadcast_to(array, len(logits)) for array in (limited, most, share))
        of = (array[some] for array in (logits, likelihoods, most, share, allowed, apart))
        likelihoods[some], doubtful[some] = _kept(*of)
    cumulated = likelihoods.astype(np.float64)
    cumulated.cumsum(axis=1, out=cumulated)  # in place: of many words, fresh memory costs more than the sums
    taken = np.minimum((cumulated <= uniform[:, None] * cumulated[:, -1:]).sum(axis=1), tokens - 1)
    return taken, doubtful | _near_border(cumulated, uniform, taken, apart)


def _kept(
    logits: Vector, likelihoods: Floats, top_k: Ids, top_p: Floats, allowed: Floats, apart: Floats
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The likelihoods of the tokens that ``top_k`` and ``top_p`` keep, 0 those of the others; and the rows in doubt."""
    rows, ranks, last_rank = np.arange(len(logits)), np.arange(logits.shape[1]), logits.shape[1] - 1
    order = np.argsort(-logits, axis=1, kind="stable")
    ranked = np.take_along_axis(likelihoods, order, 1)
    ranked[ranks >= np.where(top_k > 0, top_k, len(ranks))[:, None]] = 0
    cumulated = ranked.cumsum(axis=1, dtype=np.float64)
    last = (cumulated < top_p[:, None] * cumulated[:, -1:]).sum(axis=1)
    gap = logits[rows, order[rows, last]] - logits[rows, order[rows, np.minimum(last + 1, last_rank)]]
    doubtful = (last < last_rank) & ~(gap > 2 * allowed)
    doubtful |= (top_p < 1) & _near_border(cumulated, top_p, last, apart)
    ranked[ranks > last[:, None]] = 0
    kept = np.empty_like(likelihoods)
    np.put_along_axis(kept, order, ranked, 1)
    return kept, doubtful


def _near_border(cumulated: Floats, share: Floats | float, at: Ids, apart: Floats) -> npt.NDArray[np.bool_]:
    """Whether a share of the whole lies so near to a border of the interval in which it falls, or is no number, that
    logits which are up to ``apart`` off, over the temperature, could have it fall into another one.

    They let no border's own share c move by more than 2 · c · (1 - c) · ``apart``: its derivative is that of a mean,
    c · (1 - c) times the mean of what is off below it less the mean of what is off above it. So a border next to 0 or
    to 1, where those of rare tokens are, hardly moves.
    """
    rows, whole = np.arange(len(cumulated)), cumulated[:, -1]
    clear = np.ones(len(rows), bool)
    for border in (cumulated[rows, at] / whole, np.where(at > 0, cumulated[rows, at - 1], 0) / whole):
        moves = 2 * border * (1 - border) * apart
        clear &= (np.abs(border - share) > moves) | (border == 0) | (border == 1)
    return ~clear


def put(state: list[State], columns: list[State], column: int) -> None:
    """Let a column go on from the state of one text."""
    for arrays, all_arrays in zip(state, columns, strict=True):
        for array, all_columns in zip(arrays, all_arrays, strict=True):
            all_columns[:, column] = array
