"""The losses of a long text as a single pass from its beginning gives them, many stretches of it at a time.

A recurrent state is carried, so a text has to be read in order; a matrix times one vector after the other is slow. Here
the text is cut into stretches that are read side by side, each from a state of zero. A trained network forgets where it
began: read again from the state in which the stretch before it ended, a stretch soon comes to the states that it had
before, and from there on it has been read already. Where it does not, it is read to its end, and so is the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stages.lm.layers import Layer, State, Vector

COLUMNS = 64
"""Stretches at a time."""
SHORTEST, LONGEST = 256, 1024
"""Tokens of a stretch. Below the first there is nothing to gain, and the second bounds the memory."""
_EVERY = 64
"""Steps after which states are compared."""
_SAME = 1e-5
"""What two states may differ by to be the same, as a share of what is above 1: rounding makes more than a tenth of
that."""

Nats = Callable[["Vector", npt.NDArray[Any]], "Vector"]


def losses(
    layers: list[Layer], nats: Nats, inputs: npt.NDArray[Any], targets: npt.NDArray[Any], states: list[State]
) -> Vector:
    """The loss of each target, nats, in the order of the text.

    Args:
        layers: of the model.
        nats: from outputs (rows, hidden) and targets (rows,) to losses (rows,).
        inputs: ids of shape (COLUMNS, steps), one stretch of the text per row.
        targets: the ids that follow, same shape.
        states: of the layers before the text; in their place come those after it.
    """
    steps = inputs.shape[1]
    marks = {step for step in range(steps) if (step + 1) % _EVERY == 0 or step == steps - 1}
    result = np.empty(inputs.shape, np.float32)
    seen: dict[int, list[State]] = {}  # step → states of all stretches after it
    columns = np.arange(COLUMNS)
    current = [tuple(_first_column(array, COLUMNS) for array in state) for state in states]
    while len(columns):
        for step in range(steps):
            outputs: Any = inputs[columns, step]
            for number, layer in enumerate(layers):
                current[number] = layer.step(layer.project(outputs).T, current[number])
                outputs = current[number][0].T
            result[columns, step] = nats(outputs, targets[columns, step])
            if step not in marks:
                continue
            if step not in seen:
                seen[step] = [tuple(array.copy() for array in state) for state in current]
                continue
            differs = np.zeros(len(columns), bool)
            for known, now in zip(_arrays(seen[step]), _arrays(current), strict=True):
                before = known[:, columns]
                differs |= (np.abs(now - before) > _SAME * np.maximum(np.abs(before), 1)).any(axis=0)
                known[:, columns] = now
            columns = columns[differs]
            current = [tuple(array[:, differs] for array in state) for state in current]
            if not len(columns):
                break
        # What came to another end begins the next stretch otherwise.
        columns = columns[columns < COLUMNS - 1] + 1
        current = [tuple(array[:, columns - 1] for array in state) for state in seen[steps - 1]]
    states[:] = [tuple(array[:, -1].copy() for array in state) for state in seen[steps - 1]]
    return result.reshape(-1)


def _first_column(vector: Vector, columns: int) -> Vector:
    """Zeros of shape (hidden, columns) but for the first column."""
    array = np.zeros((len(vector), columns), np.float32)
    array[:, 0] = vector
    return array


def _arrays(states: list[State]) -> list[Vector]:
    return [array for state in states for array in state]
