"""What a language model is to whoever measures it or writes with it: a network, counts, or a mixture of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

State = tuple[NDArray[Any], ...]
"""Of one part, the last axis the columns where several texts are read side by side; never written to."""
Vector = NDArray[np.floating[Any]]


class Predictor(Protocol):
    """Reads ids, and says what may follow. It knows no text.

    The functions that read ids carry ``states``, a list, which they change in place. With ids as columns, many texts
    are read at once, and each is what it is alone but for rounding.
    """

    def zero_state(self, *columns: int) -> list[State]:
        """Before anything is read, of one text, or of so many."""
        ...

    def beginning(self) -> list[State]:
        """Where a text begins: before anything is read, and where documents have ends, behind one."""
        ...

    def advance(self, id_: int, states: list[State]) -> None:
        """Read one token."""
        ...

    def readout(self, first: int = 0) -> Callable[[list[State]], Vector]:
        """From states to the logits of the token that comes next, (vocab - first,): those of the ids from ``first`` on.
        Their softmax is its distribution."""
        ...

    def advance_columns(self, ids: NDArray[Any], states: list[State]) -> None:
        """Read one token of each of several texts, (columns,)."""
        ...

    def readout_columns(self, first: int = 0) -> Callable[[list[State]], Vector]:
        """As ``readout``, for states of several texts: logits (columns, vocab - first)."""
        ...

    def losses(self, ids: NDArray[Any], states: list[State] | None = None) -> Iterator[Vector]:
        """The negative log-likelihood of each token but the first, nats, in the chunks that ``chunks`` says.

        ``states`` is where the first token is read, `beginning` where it is None, and, after each chunk, where its last
        one is to be read: with it ``ids[:n]`` and then ``ids[n - 1:]`` give what ``ids`` gives.
        """
        ...

    def loss(self, ids: NDArray[Any]) -> float:
        """The mean of ``losses``, nats per token; not a number where there are none."""
        ...

    def chunks(self, left: int) -> Iterator[int]:
        """How many of so many ``losses`` are computed at once, one chunk behind another. A chunk alone is one, too."""
        ...

    def separate_losses(self, ids: NDArray[Any], lengths: NDArray[np.int64]) -> Vector:
        """The losses of many texts, one behind another, with ``lengths`` tokens each: of all tokens but the first of
        each, (tokens - texts,) if none is empty. Those of a text do not depend, to the bit, on the others."""
        ...

    def windowed_losses(self, ids: NDArray[Any], window: int) -> Iterator[Vector]:
        """The losses of all tokens but the first, nats, in chunks, where nothing is known every ``window`` tokens."""
        ...

    def windowed_span(self, window: int) -> int:
        """After each multiple of so many tokens ``windowed_losses`` begins anew."""
        ...
