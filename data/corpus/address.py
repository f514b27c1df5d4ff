"""Addresses: what is asked for, what may be written of it, and which text it stands for.

Whoever may have a text is often said in its address, by a token or a signature. Such secrets come from the environment,
as ``${NAME}`` in the address or in a header, and nothing but the request itself ever holds them. One that stands in an
address all the same is left out wherever that is written, and of what the text is called.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus, urlencode, urlsplit, urlunsplit

from data.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN = "…"
"""What is written in a secret's place."""

_CARRIERS = [ipaddress.ip_network(network) for network in ("::/96", "::ffff:0:0/96", "64:ff9b::/96")]
"""Networks of version 6 in which an address of version 4 is meant: as it was once written, as systems have it inside,
and as a gateway translates it."""
_LOCAL = [ipaddress.ip_network(network) for network in ("fec0::/10", "64:ff9b:1::/48")]
"""And those that are private, though not by Python's list."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = {
    *("token", "key", "apikey", "secret", "signature", "sig", "sign", "hmac", "password", "passwd", "pwd", "auth"),
    *("authorization", "bearer", "credential", "credentials", "session", "expires", "expiry", "policy", "jwt"),
    *("oauth", "passphrase", "passcode", "ticket", "cookie", "creds", "csrf", "sas", "sid", "pat", "otp", "nonce"),
    *("amz", "goog"),
}
"""Words in the name of a query's parameter whose value lets somebody in, or says until when it does."""
_ENDS = ("token", "secret", "password", "signature", "apikey", "accesskey", "credential", "sessionid")
"""What such a word may end with, or such words in the plural: ``accesstoken``."""
_SIGNED = {"st", "se", "sp", "sv", "sr", "spr", "sip", "ss", "srt", "skoid", "sktid", "skt", "ske", "sks", "skv"}
"""What else Azure's signed addresses have beside their ``sig``."""


def is_address(corpus: str) -> bool:
    """Whether what a user calls a corpus is an address, of whatever scheme."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", corpus) is not None


def written(corpus: str) -> str:
    """A corpus as it may be written down: an address without secrets, anything else as it stands."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", corpus):  # also one whose second slash was forgotten
        return corpus
    head, mark, query = next((parts for mark in "?#" if (parts := corpus.partition(mark))[1]), (corpus, "", ""))
    head = re.sub(r"(:/|//)([^/@]*)@", lambda found: f"{found[1]}{_hidden(found[2])}@", head)
    names = {unquote_plus(name) for name in re.findall(r"(?:^|[&;#])([^=&;#]*)", query)}

    def value(found: re.Match[str]) -> str:
        secret = _lets_in(unquote_plus(found[1]), names)
        return f"{found[1]}={_hidden(found[2]) if secret else found[2]}"

    return head + mark + re.sub(r"(?<![^&;#?])([^=&;#?]*)=([^&;#]*)", value, query)


def identity(corpus: str) -> str:
    """Which text an address stands for, whoever asks: its normal form, without secrets and without what is filled in.

    What is no address stays as it is.
    """
    if not is_address(corpus):
        return corpus
    try:
        parts = urlsplit(corpus)
        port = parts.port
    except ValueError:
        return written(corpus)  # which `check` refuses
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = (parts.hostname or "") + (f":{port}" if port not in (None, default) else "")
    query = parse_qsl(parts.query, keep_blank_values=True)
    names = {name for name, _ in query}
    kept = [
        (name, value)
        for name, value in query
        if not (_lets_in(name, names) or _VARIABLE.search(name) or _VARIABLE.search(value))
    ]
    return urlunsplit((parts.scheme, host, parts.path or "/", urlencode(kept, errors="surrogateescape"), ""))


def check(address: str) -> None:
    """Refuse an address at which nothing can be asked, and one that says plainly who asks.

    Raises:
        CorpusError: without what it objects to, where that is secret.
    """
    plain = _VARIABLE.sub("x", address)
    try:
        parts = urlsplit(plain)
        usable = bool(parts.hostname) and parts.port != 0  # .port raises where it is no port number
    except ValueError:
        usable = False
    if not usable or not plain.isprintable() or " " in plain:
        raise CorpusError(f"{written(address)!r} is not a usable http(s) address; check its host, port and characters")
    user = urlsplit(_VARIABLE.sub("", address)).netloc.rpartition("@")[0]
    if user.strip(":"):
        raise CorpusError(
            f"the address on {parts.hostname} holds a user name or password, which would be recorded beside the text; "
            "put both into the environment and write ${NAME} in their place, or download the file yourself and give "
            "its path"
        )


def filled(address: str) -> str:
    """The address that is asked: the environment's values, as they stand, in the place of each ``${NAME}``.

    Raises:
        CorpusError: a variable that is not set, or holds what no address can.
    """
    return _fill(address, written(address), spaces=False)


def fill_headers(lines: Iterable[str]) -> dict[str, str]:
    """Headers of a request, by name, from lines such as ``Authorization: Bearer ${TOKEN}``.

    Raises:
        ConfigError: a line that is no header, or says plainly what has to be kept secret.
        CorpusError: a variable that is not set, or holds what no header can.
    """
    return {name: _fill(value, f"the header {name}", spaces=True) for name, value in _headers(lines)}


def plain_headers(lines: Iterable[str]) -> list[str]:
    """Those lines of headers that hold nothing of the environment: they may change what is sent, and are no secret.

    Raises:
        ConfigError: as `fill_headers` does.
    """
    return [f"{name}: {value}" for name, value in _headers(lines) if not _VARIABLE.search(value)]


def _headers(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, 1):
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not (
            colon and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) and value.isascii() and value.isprintable()
        ):
            raise ConfigError(f"download.headers: line {number} is no header; write it as Name: value, in ASCII")
        if _words(name) & (_SECRET | {"cookie"}) and not _VARIABLE.search(value):
            raise ConfigError(
                f"download.headers: {name} says what nobody else may read, and would be recorded; put it into the "
                f"environment and write {name}: ${{NAME}}"
            )
        yield name, value


def secrets(address: str, headers: Iterable[str]) -> frozenset[str]:
    """What an address and its headers are asked with and nobody may read, as it is and as an address spells it: whoever
    is asked may say it again, in a title or in a name for this version of the text."""
    query = parse_qsl(address.partition("?")[2])
    names = {name for name, _ in query}
    held = {os.environ.get(name, "").strip() for line in (address, *headers) for name in _VARIABLE.findall(line)}
    held |= {value for name, value in query if _lets_in(name, names)}
    return frozenset(
        spelt for value in held - {""} for spelt in (value, quote(value), quote(value, safe=""), quote_plus(value))
    )


def inside(host: str, *, wholly: bool = False) -> bool:
    """Whether a host is this machine or one of a private network, as far as its name can be resolved here.

    A name may stand for several places: one of them inside will do, or ``wholly`` none may be outside.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # behind a proxy often no name can be resolved
        return False
    return (all if wholly else any)(not _is_global(str(place[0])) for *_, place in found)


def _is_global(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if any(parsed in network for network in _LOCAL):
            return False
        if any(parsed in network for network in _CARRIERS):
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        else:
            parsed = parsed.sixtofour or parsed
    return parsed.is_global and not parsed.is_multicast


def _fill(text: str, where: str, *, spaces: bool) -> str:
    def value(found: re.Match[str]) -> str:
        held = os.environ.get(found[1], "").strip()
        if not held:
            raise CorpusError(f"{where} takes the environment variable {found[1]}, which is not set")
        if not (held.isascii() and held.isprintable()) or (" " in held and not spaces):
            raise CorpusError(f"{where} takes the environment variable {found[1]}, whose characters do not fit there")
        return held

    return _VARIABLE.sub(value, text)


def _hidden(value: str) -> str:
    """What is written of a secret: the names of variables that it is made of, nothing else."""
    return value if not _VARIABLE.sub("", value).strip(":") else HIDDEN


def _lets_in(name: str, names: set[str]) -> bool:
    """Whether the value of a query's parameter is secret, or part of a signature; ``names`` are those of all."""
    words = _words(name)
    ends = any(word.removesuffix("s").endswith(_ENDS) for word in words)
    return ends or bool(words & _SECRET) or ("sig" in names and name in _SIGNED)


def _words(name: str) -> set[str]:
    """``X-Amz-Signature``, ``accessToken`` and ``api_key`` in lowercase words."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
