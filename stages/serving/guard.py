"""Who may ask: the door that every request comes through, and where what went wrong behind it is told."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

from stages.serving.body import CLOSE, GoneError
from stages.serving.refused import Refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stages.serving.metrics import Metrics

logger = logging.getLogger(__name__)

ROUTES = ("/v1/completions", "/v1/models", "/score", "/health", "/metrics", "/")
"""By which requests are counted; all else is one."""
OPEN = "/health"
"""What needs no token: it says whether the server lives, to what watches over it."""
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
_GONE = 499
"""What a request is counted as whose client did not wait for an answer."""


class Guard:
    """An application that lets through what may come in.

    Args:
        app: what answers.
        metrics: in which requests are counted.
        hosts: names under which this is asked for, where it listens to its own machine only: a web page whose name
            was made to lead here has another. None takes all.
        token: that is asked of everybody, if one is.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: frozenset[str] | None, token: str | None) -> None:
        self._app, self._metrics, self._hosts = app, metrics, hosts
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def telling(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            await self._app({**scope, "app": self}, receive, telling)
        except GoneError:
            status = _GONE
            self._metrics.abandoned.inc()
        except Refused as refused:
            await refused.response()(scope, receive, telling)
        except HTTPException as error:  # a method that a route does not have
            told = Refused(error.status_code, error.detail, headers={**CLOSE, **(error.headers or {})})
            await told.response()(scope, receive, telling)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                await Refused(500, "this server has a defect; its log says more").response()(scope, receive, telling)
        finally:
            path = "/v1/models" if scope["path"].startswith("/v1/models/") else scope["path"]
            route = path if path in ROUTES else "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _host(headers.get("host", "")) not in self._hosts:
            raise Refused(403, "this server is asked for by the names of this machine only", headers=CLOSE)
        if self._token is not None and scope["path"] != OPEN and not self._known(headers.get("authorization", "")):
            ask = {"WWW-Authenticate": 'Bearer, Basic realm="rnnlm: any name, and the token"', **CLOSE}
            raise Refused(401, "Authorization must be Bearer and the token", code="invalid_api_key", headers=ask)

    def _known(self, authorization: str) -> bool:
        """Whether it has the token: as programs send it, or as the password that a browser asks for."""
        scheme, _, given = authorization.partition(" ")
        token = given.strip().encode()
        if scheme.lower() == "basic":
            try:
                token = base64.b64decode(token, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(token, self._token or b"")


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    name, _, port = header.rpartition(":")
    return (name if name and port.isdecimal() else header).lower()
