"""A Dask cluster that the user names: its scheduler's address, or how many processes of this machine are to be one."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from data.corpus.address import written
from data.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

LOCAL = "local:"
MOST = 256
"""Processes of this machine."""
SECONDS_TO_ANSWER = 10.0


def check(named: str) -> None:
    """See that there is such a cluster, or can be.

    Raises:
        ConfigError: Dask is not installed, nobody answers at the address, or it is no number of processes.
    """
    if named.startswith(LOCAL):
        _processes(named)
    try:
        from distributed import Security
        from distributed.comm import connect
    except ImportError:
        raise ConfigError(
            "--dask needs Dask, which this project does not bring: `pip install distributed`, here and on the workers"
        ) from None
    if named.startswith(LOCAL):
        return

    async def knock() -> None:
        (await connect(named, timeout=SECONDS_TO_ANSWER, **Security().get_connection_args("client"))).abort()

    try:
        asyncio.run(knock())  # a client that never got through cannot be got rid of in silence
    except (OSError, ValueError) as error:
        why = f" ({error})" if written(named) == named else ""  # which may repeat what is secret in it
        raise ConfigError(f"--dask: no Dask scheduler answers at {named}{why}") from None


@contextmanager
def client(named: str, scratch: Path | None = None) -> Iterator[Client]:
    """Whoever gives a cluster work. Processes of this machine begin with the block, and end with it and with this
    process.

    Args:
        named: ``tcp://HOST:PORT`` of a scheduler, or ``local:N``.
        scratch: where processes of this machine may write what is gone with them; by default where Dask has it.

    Raises:
        ConfigError: see `check`.
    """
    check(named)
    from dask import config
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is said here, in a sentence
    with ExitStack() as stack:
        stack.enter_context(config.set({"distributed.comm.timeouts.connect": SECONDS_TO_ANSWER}))
        at: str | LocalCluster = named
        if named.startswith(LOCAL):
            at = LocalCluster(
                n_workers=_processes(named),
                threads_per_worker=1,
                security=True,  # nobody else on this machine may give them work
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
                local_directory=None if scratch is None else str(scratch),
            )
            stack.callback(_quietly, at.close)
        found = Client(at, set_as_default=False, direct_to_workers=True)
        stack.callback(_quietly, found.close)
        yield found


def _processes(named: str) -> int:
    number = named.removeprefix(LOCAL)
    if not number.isdecimal() or not 1 <= int(number) <= MOST:
        raise ConfigError(
            f"--dask {named} starts no worker: write local:4 for four processes of this machine ({MOST} at most), or "
            "the address of a scheduler, such as tcp://10.0.0.1:8786"
        )
    return int(number)


def _quietly(close: object) -> None:
    with suppress(Exception):  # a cluster that has gone can be told nothing, and that was said
        close()  # type: ignore[operator]
