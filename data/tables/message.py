"""What an Arrow message says of itself: https://arrow.apache.org/docs/format/Columnar.html, in flatbuffers."""

from __future__ import annotations

import struct


class Message:
    """The metadata of a message, by the numbers that the fields of ``Message.fbs`` have there. A place is a byte's.

    What is damaged raises `struct.error`.
    """

    def __init__(self, metadata: bytes) -> None:
        self._metadata = metadata
        self.header = self.inside(self.at("<I", 0), 2)
        """Where what is told of its content begins."""

    def at(self, form: str, place: int) -> int:
        """A number, as `struct` has its form."""
        value: int = struct.unpack_from(form, self._metadata, place)[0]
        return value

    def field(self, table: int, number: int) -> int:
        """Where a table has its field of this number, 0 where it has none."""
        layout = table - self.at("<i", table)
        entry = 4 + 2 * number
        offset = self.at("<H", layout + entry) if entry < self.at("<H", layout) else 0
        return table + offset if offset else 0

    def inside(self, table: int, number: int) -> int:
        """Where the table or the vector begins that such a field points to, 0 where there is none."""
        place = self.field(table, number)
        return place + self.at("<I", place) if place else 0
