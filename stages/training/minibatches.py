"""Minibatches: a split cut into rows of ids, to train on, to be measured on, and to read while learning from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray

from data.errors import CorpusError

if TYPE_CHECKING:
    from data.tables.tokens import Ids

Minibatch = tuple[NDArray[np.int32], NDArray[np.int32]]
"""``(inputs, targets)``, the targets one token ahead of the inputs; of shape (rows, steps) each."""
ROWS = 32
"""Of a split that is measured, at most."""
SHORTEST = 512
"""Tokens that each of them has to itself, at least."""
WARM_UP = 256
"""Tokens that each reads before these. Trained models (ReLU and tanh RNNs, GRUs and LSTMs of 128 to 256 units over
characters) then measure what one pass does to 0.000005 bits per token, which is rounding; with 32 to 0.0003."""
AT_ONCE = 2048
"""Tokens of a minibatch then: a bound on the memory of their logits."""


class Minibatches(Sequence[Minibatch]):
    """One epoch over a split: ``self[i]`` is ``(inputs, targets)``, the targets one token ahead of the inputs.

    Both are int32 of shape (batch_size, num_steps), contiguous, and fresh each time. As in the book (d2l, "Language
    Models and the Dataset"), an epoch begins at a random offset of 0 to ``num_steps`` tokens. ``sequential``: row r of
    minibatch i + 1 goes on where row r of minibatch i ended. ``random``: the split is cut into subsequences of
    ``num_steps`` tokens, and these are shuffled.

    Other than in the book, the ends of the rows are not dropped: the last sequential minibatch has as many steps as are
    left, fewer than ``num_steps`` if need be. The rows of all epochs end near the same places, so that the book's model
    hardly ever sees a tenth of its 10,000 characters.

    All that is random happens here and now: the same state of ``rng`` gives the same epoch, any minibatch of it first.

    Raises:
        CorpusError: a split so short that some offset would leave no minibatch.
    """

    def __init__(
        self,
        ids: Ids,
        batch_size: int,
        num_steps: int,
        partition: Literal["sequential", "random"],
        rng: np.random.Generator,
    ) -> None:
        check_length(len(ids), batch_size, num_steps, partition)
        self._ids = ids
        self._num_steps = num_steps
        offset = int(rng.integers(num_steps, endpoint=True))
        left = len(ids) - offset - 1  # the last token is only ever a target
        if partition == "random":
            shuffled = offset + rng.permutation(left // num_steps) * num_steps
            shuffled = shuffled[: len(shuffled) // batch_size * batch_size].reshape(-1, batch_size)
            row = len(shuffled) * num_steps
            self._starts: Callable[[int], NDArray[np.int64]] = shuffled.__getitem__
        else:
            row = left // batch_size
            first = offset + np.arange(batch_size) * row
            self._starts = lambda index: first + index * num_steps
        # `_starts` says where the sequences of a minibatch begin: of a long text they need not all be held.
        self._length = -(-row // num_steps)
        self._last_steps = row - (self._length - 1) * num_steps

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Minibatch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Minibatch]: ...
    def __getitem__(self, index: int | slice) -> Minibatch | list[Minibatch]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        steps = self._last_steps if index == len(self) - 1 else self._num_steps
        sequences = self._ids[self._starts(index)[:, None] + np.arange(steps + 1)].astype(np.int32)
        return np.ascontiguousarray(sequences[:, :-1]), np.ascontiguousarray(sequences[:, 1:])


def check_length(tokens: int, batch_size: int, num_steps: int, partition: Literal["sequential", "random"]) -> None:
    """Refuse a split in which the largest offset, ``num_steps``, would leave no minibatch.

    Raises:
        CorpusError: what would fit, in one sentence.
    """
    if partition == "sequential":  # rows of a single step will do
        needed = batch_size + num_steps + 1
        most_sequences, most_steps, most_steps_alone = tokens - num_steps - 1, tokens - batch_size - 1, tokens - 2
    else:
        needed = batch_size * num_steps + num_steps + 1
        most_sequences = (tokens - 1) // num_steps - 1  # behind the largest offset
        most_steps, most_steps_alone = (tokens - 1) // (batch_size + 1), (tokens - 1) // 2
    if tokens >= needed:
        return
    choices = [
        f"{field} to at most {most}"
        for field, most in (("train.batch_size", most_sequences), ("train.num_steps", most_steps))
        if most >= 1
    ]
    if choices:
        remedy = f"set {' or '.join(choices)}, or use a longer text"
    elif most_steps_alone >= 1:
        remedy = f"set train.batch_size=1 and train.num_steps to at most {most_steps_alone}, or use a longer text"
    else:
        remedy = "the text is too short for any, use a longer one"
    raise CorpusError(
        f"the training split has {tokens:,} tokens, and {partition} minibatches of {batch_size:,} × {num_steps:,} "
        f"(train.batch_size × train.num_steps) need {needed:,}: {remedy}"
    )


def whole(ids: Ids) -> Iterator[Minibatch]:
    """A split to be measured, as rows side by side: every token but the first is a target once, the others are -1.

    A long split is cut into neighbouring rows, for one alone takes many times as long. But a row that began without a
    past would be measured too high at its beginning, and the more rows, the higher: so each first reads `WARM_UP`
    tokens of the row before it that are not counted. What comes out is what one pass from beginning to end gives, to
    what a model still knows of a text that far behind. It depends on the split alone, never on how a model was trained.

    Args:
        ids: of two tokens or more.
    """
    targets = len(ids) - 1
    rows = max(1, min(ROWS, targets // SHORTEST))
    warm_up = WARM_UP if rows > 1 else 0
    own = -(-(targets - warm_up) // rows)
    starts = np.arange(rows)[:, None] * own
    steps = AT_ONCE // rows
    for begin in range(0, warm_up + own, steps):
        step = np.arange(begin, min(begin + steps, warm_up + own))
        at = starts + step
        counted = (at < targets) & ((step >= warm_up) | (starts == 0))
        at = np.minimum(at, targets - 1)  # the last row may end sooner
        yield ids[at].astype(np.int32), np.where(counted, ids[at + 1].astype(np.int32), np.int32(-1))


def single(text: Iterable[Ids], num_steps: int) -> Iterator[Minibatch]:
    """A text that comes in pieces, cut anywhere, as one row: each minibatch goes on where the last one ended.

    Each has ``num_steps`` steps, the last as many as are left.
    """
    held: Ids = np.empty(0, np.uint8)
    for piece in text:
        held = np.concatenate((held, piece))
        while len(held) > num_steps:
            yield _row(held[: num_steps + 1])
            held = held[num_steps:]
    if len(held) > 1:
        yield _row(held)


def _row(ids: Ids) -> Minibatch:
    row = ids.astype(np.int32)[None]
    return row[:, :-1], row[:, 1:]
