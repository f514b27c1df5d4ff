"""Bytes from http(s) addresses: resumed where they break off, capped in size, and asked for only if they have changed.

Every refusal is one sentence that says what came instead of the file. No address is written but without its secrets.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.corpus.address import fill_headers, filled, secrets, written
from data.corpus.arrival import Arrival
from data.corpus.client import answer, client_for, unlogged
from data.corpus.pace import watched
from data.errors import CorpusError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    """For the next byte, whichever it is."""
    pace: float = 1000.0
    """The fewest bytes per second, over each ``window``: a connection that gives fewer is broken off."""
    window: float = 60.0
    longest: float = 86_400.0
    """For one address, all attempts together: what comes slowly but for ever ends with the day."""
    wait: float = 0.5
    """Before the second attempt, doubled for each one after it; up to as much again is added at random."""
    wait_max: float = 5.0
    """Also the most of a Retry-After that is honoured."""

    def pause(self, attempt: int, asked: float | None) -> float:
        """Seconds to wait after an attempt, counted from 1; ``asked``: for how long the server wants to be left."""
        wait = self.wait * (2 ** (attempt - 1) + random.random()) if asked is None else asked
        return min(wait, self.wait_max)


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
    failures: list[CorpusError] = []
    with client_for(patience.connect, patience.read) as client, unlogged():
        for address in source.addresses:
            shown = written(address)
            etag = known.etag if known and known.address == shown else ""
            try:
                with raw.open("w+b") as file:
                    arrival = Arrival(shown, file, limit, secrets(address, source.headers), known=etag)
                    _insist(client, filled(address), fill_headers(source.headers), arrival, progress, patience)
                    if arrival.unchanged:
                        return None
                    arrival.check(source.sha256)
                    return Fetched(shown, arrival.digest.hexdigest(), arrival.etag)
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


def _insist(
    client: httpx.Client,
    address: str,
    headers: Mapping[str, str],
    arrival: Arrival,
    progress: Progress,
    patience: Patience,
) -> None:
    """Ask one address, as often as it takes and patience allows, until all has come or nothing has changed."""
    ends = time.monotonic() + patience.longest
    for attempt in range(1, patience.attempts + 1):
        try:
            _ask(client, address, headers, arrival, progress, patience, ends)
            return
        except TransientError as error:
            if attempt == patience.attempts:
                raise TransientError(f"{error} ({patience.attempts} attempts)") from error
            pause = patience.pause(attempt, arrival.retry_after)
            logger.warning("%s; attempt %d of %d in %.1f s", error, attempt + 1, patience.attempts, pause)
            time.sleep(pause)


def _ask(
    client: httpx.Client,
    address: str,
    headers: Mapping[str, str],
    arrival: Arrival,
    progress: Progress,
    patience: Patience,
    ends: float,
) -> None:
    """Ask once for what is missing and take in what comes, until a moment of ``time.monotonic``. Raises TransientError
    where asking again may help."""
    import httpx

    shown, arrival.retry_after = arrival.address, None
    with watched(lambda: arrival.received, patience.pace, patience.window, ends) as pace:
        try:
            request = client.build_request(
                "GET", address, headers={**headers, **arrival.headers()}, extensions={"trace": pace.note}
            )
            with answer(client, request, headers, shown, arrival.secrets) as response:
                arrival.begin(response)
                if arrival.unchanged:
                    return
                started, first = time.monotonic(), arrival.done
                for chunk in response.iter_raw():
                    arrival.take(chunk)
                    progress(arrival.done, arrival.total, rate(arrival.done - first, started))
        except httpx.ConnectTimeout:
            raise TransientError(f"{shown} could not be connected to in {patience.connect:g} s") from None
        except httpx.TimeoutException:
            raise TransientError(f"{shown} sent nothing for {patience.read:g} s{arrival.so_far}") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise CorpusError(f"{shown} leads nowhere: {arrival.plain(str(error))}") from None
        except httpx.RequestError as error:
            if not (pace.slow or pace.late):
                if arrival.done:
                    raise TransientError(f"{shown} broke off{arrival.so_far}") from None
                raise TransientError(
                    f"{shown} cannot be reached: {arrival.plain(str(error)) or 'connection lost'}"
                ) from None
    # Either ends a file of unknown length as if it were whole.
    if pace.late:
        raise CorpusError(f"{shown} has not sent all of it in {patience.longest:,.0f} s{arrival.so_far}")
    if pace.slow:
        raise TransientError(
            f"{shown} sent less than {patience.pace:,.0f} bytes a second for {patience.window:g} s{arrival.so_far}"
        )
    if arrival.done < arrival.total:  # a range that ends early is complete as a message
        raise TransientError(f"{shown} broke off{arrival.so_far}")


def rate(size: int, started: float) -> str:
    """Megabytes per second since a moment of ``time.monotonic``."""
    return f"{size / max(time.monotonic() - started, 1e-6) / 1e6:.1f} MB/s"
