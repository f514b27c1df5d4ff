"""The losses of a long text, read as many rows side by side, equal to those of one pass from its beginning to its end.

The network needs its state after one token to read the next, so one pass multiplies a matrix with one vector after the
other. With 64 vectors at once that is several times as fast. So the text is cut into 64 rows of equal length, and one
step reads one token of every row. But a row has to begin in the state in which the row before it ends, and that is not
known yet:

1. All rows are read, the first one from the state that is given, the others from zero, so that the losses at their
   beginnings are not yet right.
2. Each of the others is read again, from the state in which the row before it ended, and the new losses take the place
   of the old. Now and then its state is compared with what it was there before. Once they are the same, so would be
   all that follows, and the row is done. A trained network soon forgets how a text began: most rows are done after
   few such comparisons.
3. A row whose states never were the same is read to its end, and ends in another state than before. So the row after
   it began in a wrong one: step 2 is repeated for the rows after such rows, until there are none.

A network that forgets nothing is measured rightly too, but slowly: the k-th row is then read k times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stages.lm.layers import State, Vector

ROWS = 64
"""Rows at a time."""
SHORTEST, LONGEST = 256, 2048
"""Tokens of a row. With fewer than the first there is nothing to gain, and the second bounds the memory."""
MOST = ROWS * LONGEST
"""Tokens at a time."""
_TOGETHER = 256
"""Outputs whose losses are computed at once: the product with them is then nearly as fast as it gets, and what it gives
still lies in a processor's cache."""
_EVERY = 16
"""Tokens after which states are first compared; later on, after an eighth of those that were read."""
_SAME = 1e-5
"""What two values of a state may differ by to be the same, relative to them where they are above 1. Rounding alone
makes more than a tenth of that."""
_CELLS_SAME = 1e-3
"""The same for an LSTM's cells, if what comes out of them, their tanh, is the same by the measure above. A cell that is
far out, at 20 say, forgets hundreds of tokens longer than can be seen of it."""

Advance = Callable[[npt.NDArray[Any], list["State"]], None]
Nats = Callable[["Vector", npt.NDArray[Any]], "Vector"]


def losses(
    advance: Advance,
    nats: Nats,
    inputs: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    states: list[State],
    most: int,
) -> Vector:
    """The loss of each target, nats, in the order of the text.

    Args:
        advance: reads ids (rows,), and puts the next states in the place of those of the layers, (hidden, rows).
        nats: from outputs (hidden, rows) and targets (rows,) to losses (rows,).
        inputs: ids of shape (`ROWS`, steps), row after row the text.
        targets: the ids that follow, same shape.
        states: of the layers before the text; in their place come those after it.
        most: rows that ``nats`` may be given at once, unless one step has more.
    """
    steps = inputs.shape[1]
    inputs, targets = (np.ascontiguousarray(ids.T) for ids in (inputs, targets))  # what a step reads lies together
    compared = {steps - 1, *_compared(steps)}
    result = np.empty(inputs.shape, np.float32)
    known: dict[int, list[State]] = {}  # step → states after it, (hidden, ROWS), as each row was last read
    rows = np.arange(ROWS)  # those that are being read: column i of `current` is the state of row rows[i]
    current = [tuple(_first_column(array) for array in state) for state in states]
    while len(rows):
        begun = 0  # the step whose outputs are the first in `held`, which has no losses yet
        held = _space(current[-1][0], most)
        for step in range(steps):
            advance(inputs[step, rows], current)
            held[:, step - begun] = current[-1][0]
            if step - begun + 1 == held.shape[1] or step in compared:
                together = held[:, : step + 1 - begun].reshape(len(held), -1)
                found = nats(together, targets[begun : step + 1, rows].reshape(-1))
                result[begun : step + 1, rows] = found.reshape(-1, len(rows))
                begun = step + 1
            if step not in compared:
                continue
            if step not in known:
                known[step] = [tuple(array.copy() for array in state) for state in current]
                continue
            differs = np.zeros(len(rows), bool)
            for all_states, state in zip(known[step], current, strict=True):
                differs |= _differ(tuple(array[:, rows] for array in all_states), state)
                for all_rows, now in zip(all_states, state, strict=True):
                    all_rows[:, rows] = now
            rows = rows[differs]
            if not len(rows):
                break
            current = [tuple(array.compress(differs, 1) for array in state) for state in current]
            held = _space(current[-1][0], most)
        # The rows that are left end in another state than before: the rows after them have to begin in it.
        rows = rows[rows < ROWS - 1] + 1
        current = [tuple(array.take(rows - 1, 1) for array in state) for state in known[steps - 1]]
    states[:] = [tuple(array[:, -1].copy() for array in state) for state in known[steps - 1]]
    return result.T.reshape(-1)


def _space(outputs: Vector, most: int) -> Vector:
    """Room for outputs (hidden, rows) of the steps whose losses are computed at once: (hidden, steps, rows)."""
    hidden, rows = outputs.shape
    return np.empty((hidden, max(min(most, _TOGETHER) // rows, 1), rows), np.float32)


def _first_column(vector: Vector) -> Vector:
    """Zeros of shape (hidden, ROWS) but for the first column."""
    array = np.zeros((len(vector), ROWS), np.float32)
    array[:, 0] = vector
    return array


def _compared(steps: int) -> Iterator[int]:
    """The steps after which states are compared, further and further apart, for each takes memory."""
    read = _EVERY
    while read < steps:
        yield read - 1
        read += max(read // 8 // _EVERY, 1) * _EVERY


def _differ(before: State, now: State) -> npt.NDArray[np.bool_]:
    """Which columns of a layer's states are not the same."""
    (hidden, *cells), (new_hidden, *new_cells) = before, now
    differs = _apart(hidden, new_hidden, _SAME)
    for cell, new_cell in zip(cells, new_cells, strict=True):
        differs |= _apart(cell, new_cell, _CELLS_SAME) | _apart(np.tanh(cell), np.tanh(new_cell), _SAME)
    return differs


def _apart(before: Vector, now: Vector, share: float) -> npt.NDArray[np.bool_]:
    apart: npt.NDArray[np.bool_] = (np.abs(now - before) > share * np.maximum(np.abs(before), 1)).any(axis=0)
    return apart
