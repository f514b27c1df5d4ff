"""Completions: what a request for them has written, and how it is told."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

from data.errors import ConfigError, CorpusError
from stages.serving import choices, limits, prompt
from stages.serving.refused import Refused
from stages.serving.writer import Wanted

if TYPE_CHECKING:
    from stages.serving.asked import Completion
    from stages.serving.bench import Bench
    from stages.serving.metrics import Metrics
    from stages.serving.models import Served
    from stages.serving.prompt import Prompt
    from stages.serving.writer import Job, Writer


class Completions:
    """All that are on.

    Args:
        writer: writes them.
        bench: where a prompt is read whose logarithms are asked for.
        metrics: of them.
    """

    def __init__(self, writer: Writer, bench: Bench, metrics: Metrics) -> None:
        self.ending = False
        """Whether nothing new is taken any more."""
        self.bench, self.metrics = bench, metrics
        self._writer = writer
        self._jobs: set[Job] = set()

    async def begin(self, served: Served, texts: list[Wanted]) -> Job:
        """Have texts written.

        Raises:
            Refused: too many are on, the end has come, or a value that does not fit.
        """
        if self.ending:
            raise Refused(503, "this server is ending")
        if self._writer.on + len(texts) > limits.TEXTS:
            raise Refused(429, "too many texts are being written: come back in a moment", headers={"Retry-After": "1"})
        try:
            job = await self._writer.begin(served.loaded, texts)
        except (ConfigError, CorpusError) as error:
            raise Refused(400, str(error)) from None
        self._jobs.add(job)
        return job

    def leave(self, job: Job) -> None:
        """Have no more of them."""
        self._jobs.discard(job)
        self._writer.leave(job)

    def cut(self) -> None:
        """End all that is still written."""
        for job in self._jobs:
            job.cut()


class Answering:
    """One request for completions, from when it was understood to its end."""

    def __init__(self, of: Completions, wanted: Completion, served: Served) -> None:
        self._of, self._wanted, self._served, self._began = of, wanted, served, time.monotonic()
        self.seed = secrets.randbelow(1 << 31) if wanted.seed is None else wanted.seed
        self._job: Job | None = None
        self._prompts: list[Prompt] = []
        number = len(wanted.prompt) * wanted.n
        usage = wanted.stream_options.include_usage
        self._answer = choices.Answer(served.name, served.loaded.key, number, wanted.logprobs, usage=usage)

    async def begin(self) -> None:
        """Read the prompts, and have the texts begun.

        Raises:
            Refused: a value that does not fit, or too much at once.
        """
        asked, model = self._wanted, self._served.loaded.model

        def measured(likeliest: int) -> Generator[None, None, list[Prompt]]:
            found = []
            for one in asked.prompt:
                found.append((yield from prompt.measured(model, one, likeliest)))
            return found

        how = asked.top_k, asked.top_p, asked.stop, asked.logprobs
        texts = [
            Wanted(one, asked.max_tokens, asked.temperature, self.seed + number, *how)
            for one in asked.prompt
            for number in range(asked.n)
        ]
        if asked.max_tokens:
            self._job = await self._of.begin(self._served, texts)
        if asked.echo and asked.logprobs is not None:
            self._prompts = await self._of.bench.do(measured(asked.logprobs))
        else:
            self._prompts = await asyncio.to_thread(lambda: [prompt.read(model, one) for one in asked.prompt])

    def leave(self) -> None:
        """Have no more written."""
        if self._job is not None:
            self._of.leave(self._job)

    async def whole(self) -> dict[str, Any]:
        """The answer, once it is all there."""
        found: list[list[Any]] = [[*echoed] for echoed in self._echoed()]
        reasons = ["length"] * len(found)
        async for index, pieces, ended in self._gained():
            found[index] += pieces
            reasons[index] = ended or ""
        listed = [
            self._answer.choice(index, pieces, reason)
            for index, (pieces, reason) in enumerate(zip(found, reasons, strict=True))
        ]
        return self._answer.whole(listed, self._read())

    async def events(self) -> AsyncIterator[bytes]:
        """The answer as it comes."""
        for index, echoed in enumerate(self._echoed()):
            if echoed or self._job is None:
                yield self._answer.chunk(self._answer.choice(index, echoed, None if self._job else "length"))
        try:
            async for index, pieces, ended in self._gained():
                yield self._answer.chunk(self._answer.choice(index, pieces, ended))
        except Refused as refused:
            yield choices.event(refused.told())
            return
        if self._wanted.stream_options.include_usage:
            yield self._answer.last(self._read())
        yield choices.DONE

    async def _gained(self) -> AsyncIterator[tuple[int, list[Any], str | None]]:
        left = 0 if self._job is None else len(self._wanted.prompt) * self._wanted.n
        first = True
        while left and self._job:
            one = await self._job.gained.get()
            if one.ended == "error":
                status, why = (503, "this server is ending") if self._of.ending else (500, "the model failed")
                raise Refused(status, why)
            if first:
                self._of.metrics.first.observe(time.monotonic() - self._began)
                first = False
            self._answer.tokens += len(one.pieces)
            self._of.metrics.tokens.inc(len(one.pieces))
            self._of.metrics.characters.inc(sum(len(piece.text) for piece in one.pieces))
            left -= one.ended is not None
            yield one.choice, one.pieces, one.ended

    def _echoed(self) -> list[list[Any]]:
        return [one.pieces if self._wanted.echo else [] for one in self._prompts for _ in range(self._wanted.n)]

    def _read(self) -> int:
        return sum(one.tokens for one in self._prompts)
