"""An S3 endpoint on loopback, moto's, that fails whenever it is told to; what was put there outlives its death."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal
from urllib.request import Request, urlopen

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

Fault = int | float | Literal["dropped", "lost"] | None
"""What becomes of a request: a status instead of an answer, seconds to wait before it, a connection that is cut before
anything is done, or after it."""
Plan = Callable[[str, str, int], Fault]
"""(method, path, number of the request since the plan was made) → what becomes of it."""


class S3:
    """The service; each bucket of a test's own."""

    def __init__(self) -> None:
        # Here, for it takes a second, and who collects the tests needs none.
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Silent)
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.plan(None)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def plan(self, plan: Plan | None) -> None:
        """From now on answer by a plan; None does it as it should be."""
        self._plan = plan or (lambda method, path, number: None)
        self.asked: list[tuple[str, str]] = []

    def bucket(self, name: str) -> str:
        """A new bucket's address."""
        urlopen(Request(f"{self.url}/{name}", method="PUT")).read()
        return f"s3://{name}/store"

    def close(self) -> None:
        self._server.shutdown()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            number = len(self.asked)
            self.asked.append((method, path))
        match self._plan(method, path, number):
            case "dropped":
                return _cut(environ)
            case "lost":
                b"".join(self._app(environ, lambda *answer: None))
                return _cut(environ)
            case int() as status:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response(f"{status} Fault", [("Content-Type", "application/xml")])
                return [b"<Error><Code>Fault</Code><Message>told to</Message></Error>"]
            case float() as seconds:
                threading.Event().wait(seconds)
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer


class _Silent(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def _cut(environ: dict[str, Any]) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionError


@pytest.fixture(scope="session")
def _s3() -> Iterator[S3]:
    service = S3()
    yield service
    service.close()


@pytest.fixture
def s3(_s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The service, which the environment names as it would any other."""
    _s3.plan(None)
    environment = {
        "AWS_ENDPOINT_URL": _s3.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "whom-nobody-may-see",
        "AWS_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return _s3


@pytest.fixture
def bucket(s3: S3, request: pytest.FixtureRequest) -> str:
    """The address of a bucket of the test's own."""
    return s3.bucket(f"b{abs(hash(request.node.nodeid)):x}")
