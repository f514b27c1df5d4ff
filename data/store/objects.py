"""The objects below an address of a service that many machines use: read, put, compared and set, listed, deleted.

What a service answers is told in a sentence, and nothing else of it is shown: it may hold what is secret. Who may do
what, and where the service is, comes from the environment that its own tools read (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``, ``AWS_ALLOW_HTTP``, ``GOOGLE_SERVICE_ACCOUNT``, ``AZURE_STORAGE_ACCOUNT_NAME``, …), and nothing of
that is ever written or said.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from data.errors import ConfigError, DeniedError, RemoteError
from data.store.reading import LARGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from obstore.store import RetryConfig

logger = logging.getLogger(__name__)

SCHEMES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""Scheme of an address → what the names of its variables in the environment begin with."""
TRIES, PAUSE = 6, 0.1
"""How often a service that was too busy is asked in all, and seconds until the second time; then twice as many, …"""
CONNECTING, READING = "5s", "30s"
"""How long a connection may take, and a service be silent."""
RETRYING: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=15)}
"""How often a request is tried again that was not answered, and until when after it began."""

Tag: TypeAlias = dict[str, str]
"""Which version of an object it is, as its service has it."""


class Object(NamedTuple):
    """An object as it was read."""

    content: bytes
    tag: Tag


class Listed(NamedTuple):
    """An object as a remote lists it."""

    name: str
    bytes: int
    changed: datetime


class Objects:
    """Objects by name.

    Args:
        address: ``s3://bucket/prefix``, ``gs://…`` or ``az://…``.

    Raises:
        ConfigError: an address that is none.
        RemoteError: of every verb, a service that does not answer, or not as one does; `DeniedError`, that lets nobody
            do that who asks like this.
    """

    def __init__(self, address: str) -> None:
        self.address = check(address)
        self._reads = True
        self._service = _opened(self.address)

    def read(self, name: str) -> Object | None:
        """A small object; None where there is none."""
        import obstore

        try:
            found = self._asked(obstore.get, name)
            if found.meta["size"] > LARGEST:
                return Object(b"", _tag(found.meta))  # which is nothing that we have written
            with self._told():
                return Object(bytes(found.bytes()), _tag(found.meta))
        except FileNotFoundError:
            return None
        except DeniedError as error:
            # Who may not list is told this of what is not there, too.
            if self._reads:
                logger.warning("%s: what cannot be read there counts as missing", error)
            self._reads = False
            return None

    def swap(self, name: str, content: bytes, tag: Tag | None) -> bool:
        """Put a whole new object in the place of the version that was read, or of none.

        Returns:
            Whether it is there; False where another one was faster.
        """
        import obstore

        for tried in range(TRIES):
            with suppress(_ConditionError, FileNotFoundError), self._told():
                obstore.put(self._service, name, content, mode=tag or "create", use_multipart=False)  # type: ignore[arg-type]
                return True
            now = self.read(name)
            if now is not None and now.content == content:
                return True  # it was told so, and the answer was lost
            if (now.tag if now else None) != tag:
                return False
            _rest(tried)  # nobody was faster: the service was busy
        raise RemoteError(f"the remote {self.address} is too busy to change {name}: run the same again later")

    def listed(self, prefix: str = "") -> Iterator[Listed]:
        """All objects whose names begin with a folder's."""
        import obstore

        with self._told():
            for some in obstore.list(self._service, prefix or None):
                for one in some:
                    yield Listed(one["path"], one["size"], one["last_modified"])

    def delete(self, names: list[str]) -> None:
        """Delete objects; those that are gone already are passed over."""
        import obstore

        for name in names:
            with suppress(FileNotFoundError):
                self._asked(obstore.delete, name)

    def now(self) -> datetime:
        """What time the service has: its objects' ages are by that, and not by anybody's clock."""
        import obstore

        self.put("clock", b"")
        found: datetime = self._asked(obstore.head, "clock")["last_modified"]
        return found

    def piece(self, name: str, start: int, stop: int) -> bytes | None:
        """Bytes of an object; None where it is not there, or ends before them."""
        import obstore

        try:
            return bytes(self._asked(obstore.get_range, name, start=start, end=stop))
        except (FileNotFoundError, _BeyondItsEndError):
            return None

    def put(self, name: str, content: IO[bytes] | bytes) -> None:
        """Put an object in whatever place."""
        import obstore

        self._asked(obstore.put, name, content, max_concurrency=2)

    def _asked(self, verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Ask for something without a condition; of a condition speaks only who is too busy."""
        for tried in range(TRIES):
            with suppress(_ConditionError), self._told():
                return verb(self._service, *arguments, **options)
            _rest(tried)
            for file in filter(lambda one: hasattr(one, "seek"), arguments):
                file.seek(0)
        raise RemoteError(f"the remote {self.address} is too busy")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in a sentence what a service answers, of which nothing else may be shown: it may hold what is secret."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
        from obstore.exceptions import PermissionDeniedError as Denied
        from obstore.exceptions import UnauthenticatedError as Unknown

        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise _ConditionError from None
        except (Denied, Unknown):
            raise DeniedError(f"the remote {self.address} does not let us do that with these credentials") from None
        except (BaseError, OSError) as error:
            said = str(error)
            if re.search("NoSuchBucket|ContainerNotFound|bucket does not exist", said):
                raise RemoteError(f"the remote {self.address} is not there: make its bucket, or name another") from None
            if isinstance(error, FileNotFoundError):
                raise
            if "BadScheme" in said:
                raise RemoteError(
                    f"the remote {self.address} is to be asked without TLS: set AWS_ALLOW_HTTP=true where that is meant"
                ) from None
            status = re.search(r"status code: (\d{3})", said)
            if (status and status[1] == "416") or ("range" in said.lower() and not status):
                raise _BeyondItsEndError from None
            why = f"answers {status[1]}" if status else "does not answer"
            raise RemoteError(f"the remote {self.address} {why}") from None


class _ConditionError(Exception):
    """What a put asked for is not so, or, as 409 means it, not now."""


class _BeyondItsEndError(Exception):
    """An object is shorter than what is asked of it."""


def check(address: str) -> str:
    """An address without a slash at its end.

    Raises:
        ConfigError: one that is none, or holds what may be secret.
    """
    try:
        parts = urlsplit(address)
        usable = parts.scheme in SCHEMES and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", parts.hostname or "")
        secret = "@" in parts.netloc or parts.query or parts.fragment
    except ValueError:
        usable = secret = None
    if secret:
        raise ConfigError(
            "the remote's address holds more than a bucket and a prefix: who may read it is said by the environment, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for one"
        )
    if not usable or not address.isprintable() or " " in address:
        raise ConfigError(
            f"the remote {address!r} is no address: it is s3://BUCKET/PREFIX, or begins with gs:// or az://"
        )
    return address.rstrip("/")


def _opened(address: str) -> Any:
    """The objects below an address; nothing is asked of the service yet.

    Raises:
        ConfigError: something is missing in the environment.
    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    begins = SCHEMES[urlsplit(address).scheme]
    client: Any = {"connect_timeout": CONNECTING, "read_timeout": READING, "timeout": "1h"}
    client["allow_http"] = os.environ.get(f"{begins}_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    try:
        return from_url(address, client_options=client, retry_config=RETRYING)
    except (BaseError, ValueError) as error:
        missing = "AZURE_STORAGE_ACCOUNT_NAME is not set" if "Account must" in str(error) else "see its environment"
        raise ConfigError(f"the remote {address} cannot be used as it is set up: {missing}") from None


def _rest(tried: int) -> None:
    time.sleep(random.uniform(0.5, 1) * PAUSE * 2**tried)


def _tag(meta: Any) -> Tag:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}
