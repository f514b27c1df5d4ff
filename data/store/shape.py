"""JSON that anybody may have written, checked for the shape that whoever reads it goes by.

It is parsed first and then looked at, and a list is given up at its first fault: four megabytes of small lists would
take a gigabyte where a model parses them itself, and what it says of four megabytes of faults six.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator

from data.store.fingerprint import canonical

if TYPE_CHECKING:
    from pydantic import BaseModel

    Kind = TypeVar("Kind", bound=BaseModel)

MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(\+00:00|Z)?$"
"""What `data.moment.now` writes."""
_MOST = 1000
"""Entries of a mapping whose values have a shape of their own."""


def parsed(kind: type[Kind], content: bytes) -> Kind:
    """What some JSON says.

    Raises:
        ValueError: no JSON in UTF-8, or of another shape (`pydantic.ValidationError`), or with what is no finite
            number, or half a character.
        RecursionError: it nests too deep.
    """
    value = json.loads(content.decode())
    canonical(value)
    return kind.model_validate(value)


def fits(kind: type[BaseModel]) -> AfterValidator:
    """A mapping that stays as it is, once a model has taken it; what that has no field for stays, too."""

    def check(value: Any) -> Any:
        kind.model_validate(value, strict=True)
        return value

    return AfterValidator(check)


def _few(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > _MOST:
        raise ValueError(f"it has more than {_MOST:,} entries")
    return value


FEW = BeforeValidator(_few)
