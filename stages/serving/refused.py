"""What a client is told that asks for what it cannot have, in the shape that clients of this kind of API know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.responses import Response

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: one sentence.
        param: the field that is wrong, if one is.
        code: a word for programs.
        headers: to go with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def told(self) -> dict[str, dict[str, str | None]]:
        """The body that says so."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The answer that says so."""
        return JSONResponse(self.told(), self.status, self.headers)
