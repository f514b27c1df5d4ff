"""Bytes from http(s) addresses: resumed where they break off, capped in size, and asked for only if they have changed.

Every refusal is one sentence that says what came instead of the file.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.corpus.arrival import Arrival, plain
from data.errors import CorpusError, TransientError

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from data.corpus.catalogue import Source
    from data.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How often one address is asked and how long it is waited for, in seconds."""

    attempts: int = 4
    connect: float = 10.0
    read: float = 30.0
    wait: float = 0.5
    """Before the second attempt, doubled for each one after it; up to as much again is added at random."""
    wait_max: float = 5.0
    """Also the most of a Retry-After that is honoured."""


@dataclass(frozen=True)
class Fetched:
    """What was fetched from where, and what its address calls this version of it."""

    address: str
    sha256: str
    """Hex digest of the bytes as they came."""
    etag: str = ""
    """Empty where the server gives none. A date would be no substitute: a file put back with its old date, or changed
    twice within a second, goes unnoticed."""


def fetch(
    source: Source, raw: Path, progress: Progress, patience: Patience, limit: int, known: Fetched | None = None
) -> Fetched | None:
    """Fetch into the file ``raw`` from the first address that sends what it should.

    Args:
        source: the addresses, and the digest that the bytes must have, where somebody knows it.
        raw: written anew for each address.
        progress: is told bytes, and their rate.
        patience: with each address.
        limit: the most bytes that are taken.
        known: what was fetched before; its address is asked for another version only.

    Returns:
        What was fetched; None where there is nothing but what is ``known``, and then ``raw`` is empty.

    Raises:
        TransientError: a network or a server was at fault, and another try may help.
        CorpusError: another try will not help.
    """
    import httpx

    failures: list[CorpusError] = []
    try:
        client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(patience.read, connect=patience.connect),
            # identity: sizes and ranges then count the bytes that arrive
            headers={"User-Agent": "rnnlm", "Accept-Encoding": "identity"},
        )
    except (OSError, ValueError) as error:
        raise CorpusError(f"SSL_CERT_FILE or a proxy in the environment cannot be used: {plain(str(error))}") from None
    with client:
        for address in source.addresses:
            etag = known.etag if known and known.address == address else ""
            try:
                with raw.open("w+b") as file:
                    arrival = Arrival(address, file, limit, known=etag)
                    _insist(client, arrival, progress, patience)
                    if arrival.unchanged:
                        return None
                    arrival.check(source.sha256)
                    return Fetched(address, arrival.digest.hexdigest(), arrival.etag)
            except CorpusError as failure:
                failures.append(failure)
                if address != source.addresses[-1]:
                    logger.warning("%s; trying the next address", failure)
    transient = any(isinstance(failure, TransientError) for failure in failures)
    what = "; ".join(map(str, failures))
    if len(failures) > 1:
        what = f"corpus {source.name!r} could not be had from any of its {len(failures)} addresses: {what}"
    if transient:
        raise TransientError(f"{what}; check the network and try again later")
    raise CorpusError(f"{what}; check the address, or get the text yourself and give the path of the file")


def _insist(client: httpx.Client, arrival: Arrival, progress: Progress, patience: Patience) -> None:
    """Ask one address, as often as it takes and patience allows, until all has come or nothing has changed."""
    import stamina

    def again(error: Exception) -> bool | float:
        if not isinstance(error, TransientError):
            return False
        return True if arrival.retry_after is None else min(arrival.retry_after, patience.wait_max)

    attempts = stamina.retry_context(
        on=again,
        attempts=patience.attempts,
        timeout=None,
        wait_initial=patience.wait,
        wait_jitter=patience.wait,
        wait_max=patience.wait_max,
    )
    try:
        for attempt in attempts:
            with attempt:
                if attempt.num > 1:
                    logger.warning("%s: attempt %d of %d", arrival.address, attempt.num, patience.attempts)
                _ask(client, arrival, progress)
    except TransientError as error:
        raise TransientError(f"{error} ({patience.attempts} attempts)") from error


def _ask(client: httpx.Client, arrival: Arrival, progress: Progress) -> None:
    """Ask once for what is missing and take in what comes. Raises TransientError where asking again may help."""
    import httpx

    address, arrival.retry_after = arrival.address, None
    try:
        with client.stream("GET", address, headers=arrival.headers()) as response:
            arrival.begin(response)
            if arrival.unchanged:
                return
            started, first = time.monotonic(), arrival.done
            for chunk in response.iter_raw():
                arrival.take(chunk)
                progress(arrival.done, arrival.total, rate(arrival.done - first, started))
    except httpx.ConnectTimeout:
        raise TransientError(f"{address} could not be connected to in {client.timeout.connect:g} s") from None
    except httpx.TimeoutException:
        raise TransientError(f"{address} sent nothing for {client.timeout.read:g} s{arrival.so_far}") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
        raise CorpusError(f"{address} leads nowhere: {plain(str(error))}") from None
    except httpx.RequestError as error:
        if arrival.done:
            raise TransientError(f"{address} broke off{arrival.so_far}") from None
        raise TransientError(f"{address} cannot be reached: {plain(str(error)) or 'connection lost'}") from None
    if arrival.done < arrival.total:  # a range that ends early is complete as a message
        raise TransientError(f"{address} broke off{arrival.so_far}")


def rate(size: int, started: float) -> str:
    """Megabytes per second since a moment of ``time.monotonic``."""
    return f"{size / max(time.monotonic() - started, 1e-6) / 1e6:.1f} MB/s"
