"""The client that asks: by which proxies, how far it may be led, and that nothing secret is logged."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data.corpus.address import inside
from data.corpus.arrival import plain
from data.errors import CorpusError

if TYPE_CHECKING:
    import httpx

REDIRECTS = 20
"""How often one address may lead to another."""


def client_for(connect: float, read: float) -> httpx.Client:
    """A client that waits so many seconds for a connection, and for the next byte.

    Raises:
        CorpusError: the environment names a proxy or certificates that cannot be used.
    """
    import httpx

    try:
        return httpx.Client(
            timeout=httpx.Timeout(read, connect=connect),
            limits=httpx.Limits(max_keepalive_connections=0),  # each request is watched over connections of its own
            # identity: sizes and ranges then count the bytes that arrive
            headers={"User-Agent": "rnnlm", "Accept-Encoding": "identity"},
        )
    except Exception as error:  # whatever httpx makes of what the environment holds
        raise CorpusError(_unusable(error)) from None


def _unusable(error: Exception) -> str:
    """Which variable of the environment httpx makes nothing of; its value may hold a password, and is not repeated."""
    import httpx

    if isinstance(error, OSError):
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        return f"{name} in the environment names certificates that cannot be read: correct or unset it"
    for name in ("all_proxy", "http_proxy", "https_proxy", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        value = os.environ.get(name)
        if not value:
            continue
        try:
            httpx.Client(proxy=value if "://" in value else f"http://{value}", trust_env=False).close()
        except ImportError:
            return (
                f"{name} in the environment names a SOCKS proxy, which takes a package more: install socksio, or name "
                "an http proxy"
            )
        except Exception:
            return f"{name} in the environment names no proxy that can be used: write http://HOST:PORT, or unset it"
    name = "no_proxy" if "no_proxy" in os.environ else "NO_PROXY"
    return (
        f"{name} in the environment holds what is no host: write names and addresses with commas between them, without "
        "brackets, or unset it"
    )


@contextmanager
def answer(
    client: httpx.Client, request: httpx.Request, headers: Mapping[str, str], shown: str, secrets: Iterable[str]
) -> Iterator[httpx.Response]:
    """What comes in the end, where one address leads to another.

    Args:
        client: asks.
        request: what is asked first.
        headers: those in it that are for whoever is asked first, and for nobody else.
        shown: how sentences name what was asked first.
        secrets: what they must not say, wherever that leads to.

    Raises:
        CorpusError: it leads nowhere, from an encrypted place to one that is not, or from outside into this machine or
            a private network.
    """
    for _ in range(REDIRECTS + 1):
        response = client.send(request, stream=True)
        if response.next_request is None:
            try:
                yield response
            finally:
                response.close()
            return
        response.close()
        before, request = request.url, response.next_request
        _check_redirect(before, request.url, shown, secrets)
        if not _same_place(before, request.url):
            for name in headers:
                request.headers.pop(name, None)
    raise CorpusError(f"{shown} leads nowhere: it redirects more than {REDIRECTS} times")


def _check_redirect(before: httpx.URL, after: httpx.URL, shown: str, secrets: Iterable[str]) -> None:
    """Refuse to be led where a stranger must not lead."""
    to = f"{shown} redirects to {plain(f'{after.scheme}://{after.netloc.decode()}', secrets)}"
    if before.scheme == "https" and after.scheme == "http":
        raise CorpusError(f"{to}, where anybody on the way can read and change what is sent")
    if inside(after.host) and not inside(before.host, wholly=True):
        raise CorpusError(f"{to}, which is this machine or one of a private network; give that address if it is meant")


def _same_place(before: httpx.URL, after: httpx.URL) -> bool:
    """Whether who is asked is the same, or the same by now encrypted."""
    places = [(one.scheme, one.host, one.port) for one in (before, after)]
    return places[0] == places[1] or places == [("http", after.host, None), ("https", after.host, None)]


@contextmanager
def unlogged() -> Iterator[None]:
    """While this holds, httpx logs nothing of what this thread asks: it would write each address with its secrets."""
    thread = threading.get_ident()

    def of_another(record: logging.LogRecord) -> bool:
        return record.thread != thread

    loggers = [logging.getLogger(name) for name in ("httpx", "httpcore.http11")]
    for one in loggers:
        one.addFilter(of_another)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(of_another)
