"""What ids add to a text, as they come one after the other and not, as in `LanguageModel.stream`, when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Generic

from stages.lm.sampling import Before, Beside

if TYPE_CHECKING:
    from data.corpus.level import Level


class Telling(Generic[Beside]):
    """The text of one continuation.

    Args:
        kind: how tokens become text.
        after: what comes before them, as `data.corpus.level.Level.after` has it.
        stops: strings of which none is told, nor what comes behind one.
    """

    def __init__(self, kind: Level, after: str, stops: Sequence[str]) -> None:
        self.after = after
        """The same, now."""
        self._kind, self._before = kind, Before[Beside](stops) if stops else None
        self._open: list[tuple[str, Beside]] = []
        self._told = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._before is not None and self._before.found

    def more(self, token: str, beside: Beside) -> list[tuple[str, Beside]]:
        """What the text is known to go on with, now that this token has come with what is beside it."""
        before, self.after = self.after, self._kind.after([token], self.after)
        if not self._kind.merges:
            return self._known([*self._kind.added([(token, beside)], after=before)])
        self._open.append((token, beside))
        all_read = False

        def tokens() -> Iterator[tuple[str, Beside]]:
            nonlocal all_read
            yield from self._open
            all_read = True

        # What comes out only once there are no more tokens is the beginning of a character that may yet be completed.
        come = []
        for added in self._kind.added(tokens()):
            if all_read:
                break
            come.append(added)
        new = come[self._told :]
        self._told = len(come)
        if len(come) == len(self._open):
            self._told = 0
            self._open.clear()
        return self._known(new)

    def rest(self) -> list[tuple[str, Beside]]:
        """What is still to be told where no token comes any more."""
        known = self._known([*self._kind.added(self._open)][self._told :])
        return known + self._before.rest() if self._before and not self.stopped else known

    def alone(self, token: str) -> str:
        """What a token would add if it came next; of a part of a character, U+FFFD."""
        return "".join(text for text, _ in self._kind.added([(token, None)], after=self.after))

    def _known(self, added: list[tuple[str, Beside]]) -> list[tuple[str, Beside]]:
        if not self._before:
            return added
        known = []
        for token in added:
            if not self._before.found:
                known += self._before.more(token)
        return known
