"""The routes: what each answers, and with what."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, Router

from data.moment import now
from stages.scoring.each import Scored, score_each
from stages.serving import asked, body, limits
from stages.serving.bench import Bench
from stages.serving.completing import Answering, Completions
from stages.serving.listener import Events, watched
from stages.serving.page import page
from stages.serving.refused import Refused

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from stages.lm.model import LanguageModel
    from stages.serving.metrics import Metrics
    from stages.serving.models import Models, Served
    from stages.serving.writer import Writer


class Application:
    """What answers.

    Args:
        models: that are served.
        writer: writes for them.
        metrics: of all this.
    """

    def __init__(self, models: Models, writer: Writer, metrics: Metrics) -> None:
        self._models, self._writer, self._metrics = models, writer, metrics
        self._since, self._bench = now("seconds"), Bench()
        self._completions = Completions(writer, self._bench, metrics)
        self.routes = Router(
            [
                Route("/v1/completions", self._complete, methods=["POST"]),
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

    def end(self) -> None:
        """Take nothing new."""
        self._completions.ending = True

    def cut(self) -> None:
        """End what is still being written."""
        self._completions.cut()

    @asynccontextmanager
    async def _living(self, app: object) -> AsyncIterator[None]:
        self._writer.start()
        following = asyncio.create_task(self._models.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await self._writer.end()

    async def _complete(self, request: Request) -> Response:
        wanted = asked.read(await body.read(request), asked.Completion)
        answering = Answering(self._completions, wanted, self._models.named(wanted.model))
        headers = {"Rnnlm-Seed": str(answering.seed)}
        if wanted.stream:
            return Events(answering, headers)
        try:
            await watched(request.receive, answering.begin())
            return JSONResponse(await watched(request.receive, answering.whole()), headers=headers)
        finally:
            answering.leave()

    async def _score(self, request: Request) -> Response:
        wanted = asked.read(await body.read(request), asked.Scoring)
        served = self._models.named(wanted.model)
        scores = await watched(request.receive, self._bench.do(_scored(served.loaded.model, wanted.text)))
        return JSONResponse({"model": served.name, "system_fingerprint": served.loaded.key, "scores": scores})

    async def _list(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [*map(_described, self._models.served.values())]})

    async def _one(self, request: Request) -> Response:
        return JSONResponse(_described(self._models.named(request.path_params["name"])))

    async def _health(self, request: Request) -> Response:
        models = {name: {"key": one.loaded.key, "since": one.since} for name, one in self._models.served.items()}
        ending = self._completions.ending
        told = {"status": "ending" if ending else "ok", "since": self._since, "models": models}
        return JSONResponse(told, 503 if ending else 200)

    async def _counted(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def _page(self, request: Request) -> Response:
        text, policy = page()
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})


def _scored(model: LanguageModel, texts: list[str]) -> Generator[None, None, list[dict[str, Any]]]:
    """What a model makes of each text, so many characters at once as one may have."""
    scores, some, size = list[Scored](), list[str](), 0
    for text in texts:
        some.append(text)
        size += len(text)
        if size >= limits.PROMPT:
            scores += score_each(model, some)
            some, size = [], 0
            yield
    scores += score_each(model, some)
    return [
        {name: None if type(value) is float and not math.isfinite(value) else value for name, value in row}
        for row in (vars(one).items() for one in scores)
    ]


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        raise Refused(404, "there is nothing at this address", headers=body.CLOSE)


def _described(served: Served) -> dict[str, Any]:
    since = int(datetime.fromisoformat(served.since).timestamp())
    return {"id": served.name, "object": "model", "created": since, "owned_by": "rnnlm", "key": served.loaded.key}
