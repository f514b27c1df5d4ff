"""JSON that is kept as it is, once it is seen to have the shape that whoever reads it goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import AfterValidator

if TYPE_CHECKING:
    from pydantic import BaseModel

MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(\+00:00|Z)?$"
"""What `data.moment.now` writes."""


def fits(kind: type[BaseModel]) -> AfterValidator:
    """What a model has no field for stays, too; nothing is converted."""

    def check(value: Any) -> Any:
        kind.model_validate(value, strict=True)
        return value

    return AfterValidator(check)
