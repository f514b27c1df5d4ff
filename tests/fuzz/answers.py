"""A server on loopback that sends what it is told to, byte by byte, and answers for it to send."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.fuzz.downloads import Text

TEXT = "".join(f"Line {number} of a text, and é.\n" for number in range(3000)).encode()
OTHER = TEXT.replace(b"text", b"test")

Answer = Callable[[socket.socket, dict[str, str], int], None]
"""Sends what it likes to whoever asked: connection, headers of the request (and its ``path``), requests before it."""


@dataclass
class Case:
    """An answer, and what has to come of it."""

    what: str
    answer: Answer
    text: Text
    either: bool = False
    said: str = ""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[Answer]]]:
    """The port of a server that answers as the last of these does."""
    answers: list[Answer] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    asked: dict[int, int] = {}

    def one(connection: socket.socket) -> None:
        with suppress(OSError, ValueError, IndexError):
            connection.settimeout(20)
            if context:
                connection = context.wrap_socket(connection, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
                head += more
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if ": " in line) | {"path": first.split()[1]}
            answer = answers[-1]
            before = asked[id(answer)] = asked.get(id(answer), -1) + 1
            answer(connection, headers, before)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.2)
            while connection.recv(65536):
                pass
        connection.close()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1], answers
    finally:
        listener.close()


def head(status: str = "200 OK", *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape")


def whole(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    return head(status, *lines, f"Content-Length: {len(body)}") + body


def says(*parts: bytes | float) -> Answer:
    """Sends these, and waits so many seconds between them."""

    def answer(to: socket.socket, headers: dict[str, str], before: int) -> None:
        for part in parts:
            if isinstance(part, float):
                time.sleep(part)
            else:
                to.sendall(part)

    return answer


def endlessly(begin: bytes, part: bytes, pause: float = 0.0) -> Answer:
    """Sends one thing and then another for as long as anybody listens, a minute at most."""

    def answer(to: socket.socket, headers: dict[str, str], before: int) -> None:
        to.sendall(begin)
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            to.sendall(part)
            time.sleep(pause)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """Another answer each time, the last one for ever."""

    def answer(to: socket.socket, headers: dict[str, str], before: int) -> None:
        answers[min(before, len(answers) - 1)](to, headers, before)

    return answer


def chunked(*bodies: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in (*bodies, b""))


def ranged(
    *lines: str, span: str | None = None, body: bytes | None = None, status: str = "206 Partial Content"
) -> Answer:
    """The rest that was asked for, or what stands in its place; the first time a half of the text."""

    def answer(to: socket.socket, headers: dict[str, str], before: int) -> None:
        start = int(re.findall(r"\d+", headers.get("Range", "0"))[0])
        rest = TEXT[start:] if body is None else body
        where = f"bytes {start}-{len(TEXT) - 1}/{len(TEXT)}" if span is None else span
        named = [f"Content-Range: {where}"] if where else []
        to.sendall(whole(rest, *named, *lines, status=status))

    half = head("200 OK", 'ETag: "1"', f"Content-Length: {len(TEXT)}") + TEXT[: len(TEXT) // 2]
    return in_turn(says(half), answer, answer)


def led(location: str, status: str = "302 Found") -> Answer:
    return says(head(status, f"Location: {location}", "Content-Length: 0"))


def told(what: Callable[[str], bytes]) -> Answer:
    """Tells what it was told."""

    def answer(to: socket.socket, headers: dict[str, str], before: int) -> None:
        to.sendall(what(headers["path"] + " " + headers.get("Authorization", "")))

    return answer
