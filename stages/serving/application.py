"""The routes: what each answers, and with what."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, Router

from data.errors import ConfigError, CorpusError
from data.moment import now
from stages.scoring.each import score_each
from stages.serving import asked, body, choices, limits, prompt
from stages.serving.refused import Refused
from stages.serving.writer import Wanted

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from stages.serving.asked import Completion
    from stages.serving.metrics import Metrics
    from stages.serving.models import Models, Served
    from stages.serving.prompt import Prompt
    from stages.serving.writer import Job, Writer

Result = TypeVar("Result")


class Application:
    """What answers.

    Args:
        models: that are served.
        writer: writes for them.
        metrics: of all this.
    """

    def __init__(self, models: Models, writer: Writer, metrics: Metrics) -> None:
        self.ending = False
        """Whether nothing new is taken any more."""
        self._models, self._writer, self._metrics = models, writer, metrics
        self._since = now("seconds")
        self._scoring, self._bench = 0, asyncio.Lock()
        self._jobs: set[Job] = set()
        self.routes = Router(
            [
                Route("/v1/completions", self._completions, methods=["POST"]),
                Route("/v1/models", self._list),
                Route("/v1/models/{name}", self._one),
                Route("/score", self._score, methods=["POST"]),
                Route("/health", self._health),
                Route("/metrics", self._counted),
                Route("/", self._page),
            ],
            redirect_slashes=False,
            default=_nowhere,
            lifespan=self._living,
        )

    def cut(self) -> None:
        """End what is still being written."""
        for job in self._jobs:
            job.cut()

    @asynccontextmanager
    async def _living(self, app: object) -> AsyncIterator[None]:
        self._writer.start()
        following = asyncio.create_task(self._models.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await self._writer.end()

    # --- completions

    async def _completions(self, request: Request) -> Response:
        wanted = asked.read(await body.read(request), asked.Completion)
        served = self._models.named(wanted.model)
        if self.ending:
            raise Refused(503, "this server is ending", headers=body.CLOSE)
        began, seed = time.monotonic(), secrets.randbelow(1 << 31) if wanted.seed is None else wanted.seed
        answering = _Answering(self, wanted, served, seed, began)
        headers = {"Rnnlm-Seed": str(seed)}
        if wanted.stream:
            # Whatever may be refused is refused before the first byte.
            await watched(request.receive, answering.begin())
            return Events(answering.events(), answering.leave, headers)
        try:
            await watched(request.receive, answering.begin())
            return JSONResponse(await watched(request.receive, answering.whole()), headers=headers)
        finally:
            answering.leave()

    async def begin(self, served: Served, texts: list[Wanted]) -> Job:
        """Have texts written."""
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

    def first(self, seconds: float) -> None:
        """Note how long a client has waited for the first text."""
        self._metrics.first.observe(seconds)

    def written(self, tokens: int, characters: int) -> None:
        """Note what was written."""
        self._metrics.tokens.inc(tokens)
        self._metrics.characters.inc(characters)

    async def alone(self, work: Callable[[], Result]) -> Result:
        """Do what takes long in a thread, one at a time."""
        if self._scoring >= limits.SCORING:
            raise Refused(429, "too many texts wait to be read: come back in a moment", headers={"Retry-After": "1"})
        self._scoring += 1
        try:
            async with self._bench:
                # A thread cannot be called off: who has gone does not let the next one in before it has ended.
                return await asyncio.shield(asyncio.to_thread(work))
        except (ConfigError, CorpusError) as error:
            raise Refused(400, str(error)) from None
        finally:
            self._scoring -= 1

    # --- the others

    async def _score(self, request: Request) -> Response:
        wanted = asked.read(await body.read(request), asked.Scoring)
        served = self._models.named(wanted.model)

        def scored() -> list[dict[str, Any]]:
            return [
                {name: None if type(value) is float and not math.isfinite(value) else value for name, value in row}
                for row in (vars(one).items() for one in score_each(served.loaded.model, wanted.text))
            ]

        scores = await watched(request.receive, self.alone(scored))
        return JSONResponse({"model": served.name, "system_fingerprint": served.loaded.key, "scores": scores})

    async def _list(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [*map(_described, self._models.served.values())]})

    async def _one(self, request: Request) -> Response:
        return JSONResponse(_described(self._models.named(request.path_params["name"])))

    async def _health(self, request: Request) -> Response:
        models = {name: {"key": one.loaded.key, "since": one.since} for name, one in self._models.served.items()}
        status = "ending" if self.ending else "ok"
        return JSONResponse({"status": status, "since": self._since, "models": models}, 503 if self.ending else 200)

    async def _counted(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _page(self, request: Request) -> Response:
        page, policy = _its_page()
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


class _Answering:
    """One request for completions, from when it was understood to its end."""

    def __init__(self, of: Application, wanted: Completion, served: Served, seed: int, began: float) -> None:
        self._of, self._wanted, self._served, self._seed, self._began = of, wanted, served, seed, began
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
        wanted, model = self._wanted, self._served.loaded.model
        likeliest = wanted.logprobs if wanted.echo else None

        def read() -> list[Prompt]:
            return [prompt.read(model, one, likeliest) for one in wanted.prompt]

        texts = [
            Wanted(
                one,
                wanted.max_tokens,
                wanted.temperature,
                self._seed + number,
                wanted.top_k,
                wanted.top_p,
                wanted.stop,
                wanted.logprobs,
            )
            for one in wanted.prompt
            for number in range(wanted.n)
        ]
        if wanted.max_tokens:
            self._job = await self._of.begin(self._served, texts)
        self._prompts = await (asyncio.to_thread(read) if likeliest is None else self._of.alone(read))

    def leave(self) -> None:
        """Have no more written."""
        if self._job is not None:
            self._of.leave(self._job)
            self._of.written(self._answer.tokens, 0)

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
                self._of.first(time.monotonic() - self._began)
                first = False
            self._answer.tokens += len(one.pieces)
            self._of.written(0, sum(len(piece.text) for piece in one.pieces))
            left -= one.ended is not None
            yield one.choice, one.pieces, one.ended

    def _echoed(self) -> list[list[Any]]:
        return [one.pieces if self._wanted.echo else [] for one in self._prompts for _ in range(self._wanted.n)]

    def _read(self) -> int:
        return sum(one.tokens for one in self._prompts)


class Events(Response):
    """Server-sent events, for as long as somebody listens."""

    def __init__(self, events: AsyncIterator[bytes], leave: Callable[[], None], headers: dict[str, str]) -> None:
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self._events, self._leave = events, leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body"})

        try:
            await watched(receive, sent())
        finally:
            self._leave()


async def watched(receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, Result]) -> Result:
    """What some work gives, unless whoever asked goes away before.

    Raises:
        GoneError: they have; the work is cancelled.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise body.GoneError
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        raise Refused(404, "there is nothing at this address", headers=body.CLOSE)


def _described(served: Served) -> dict[str, Any]:
    from datetime import datetime

    since = int(datetime.fromisoformat(served.since).timestamp())
    return {"id": served.name, "object": "model", "created": since, "owned_by": "rnnlm", "key": served.loaded.key}


@cache
def _its_page() -> tuple[str, str]:
    """The page, and the policy that lets nothing run in it but what stands there."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    hashes = {
        kind: b64encode(hashlib.sha256(found.encode()).digest()).decode()
        for kind in ("style", "script")
        for found in re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
    }
    allowed = "; ".join(f"{kind}-src 'sha256-{digest}'" for kind, digest in hashes.items())
    closed = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return page, f"default-src 'none'; {allowed}; connect-src 'self'; img-src data:; {closed}"
