"""What a champion may be called: a store has one for each name."""

from __future__ import annotations

import re

from data.errors import ConfigError

DEFAULT = "default"
"""The name of a store's champion where none is given."""
_NAME = re.compile("[a-z0-9][a-z0-9-]{0,39}")


def fits(name: str) -> bool:
    """Whether this can be a champion's name."""
    return _NAME.fullmatch(name) is not None


def check(name: str) -> str:
    """A champion's name, as it is.

    Raises:
        ConfigError: what cannot be one.
    """
    if not fits(name):
        raise ConfigError(
            f"the name {name!r} does not fit: a champion's has up to 40 of a-z, 0-9 and -, and begins with a letter or "
            "a digit"
        )
    return name
