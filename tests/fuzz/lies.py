"""Lies that a file can hold: damaged bytes, other things in its place, JSON, tensors and tables that are not."""

from __future__ import annotations

import copy
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

Lie = Callable[[Path], object]
"""What changes a file in its place."""
ESCAPE, MARKUP = "\x1b]0;mine\x07\x9b31m", "<script>alert(1)</script>"
HOSTILE = f"{ESCAPE}{MARKUP}\r\n# [x](javascript:alert)\n\u202e|"
"""What neither a terminal nor a page may be told."""


def content(bytes_: bytes) -> Lie:
    """Other bytes in the file, whatever lies in its place."""

    def lie(path: Path) -> None:
        path.unlink()
        path.write_bytes(bytes_)

    return lie


# --- bytes


def damaged(size: int, other: Path, rng: Random) -> Iterator[tuple[str, Lie]]:
    """The content of a file, damaged.

    Args:
        size: of the file.
        other: another file of the kind.
        rng: where.
    """

    def by(change: Callable[[bytes], bytes]) -> Lie:
        def lie(path: Path) -> None:
            content(change(path.read_bytes()))(path)

        return lie

    def flipped(at: int, bit: int) -> Lie:
        return by(lambda old: old[:at] + bytes([old[at] ^ 1 << bit]) + old[at + 1 :])

    def over(at: int, new: bytes) -> Lie:
        return by(lambda old: (old[:at] + new + old[at + len(new) :])[: len(old)])

    def cut(at: int) -> Lie:
        return by(lambda old: old[:at])

    within = {*range(size)}
    for at in sorted({0, 8, size // 2, size - 8, size - 1, *(rng.randrange(size) for _ in range(12))} & within):
        yield f"a bit of byte {at} flipped", flipped(at, rng.randrange(8))
    for at in sorted({0, 1, 7, 8, 9, size // 2, size - 8, size - 1, rng.randrange(size)} & within):
        yield f"cut at {at}", cut(at)
    for at in (4 * rng.randrange(max(size // 4, 1)) for _ in range(12)):  # where Arrow and safetensors have numbers
        for number in (-1, 0, 2**31 - 1, -(2**31), 2**30):
            yield f"{number} at {at}", over(at, struct.pack("<i", number))
        for number in (2**63 - 1, -(2**63), 2**40):
            yield f"{number} at {at}", over(at, struct.pack("<q", number))
    yield "extended", by(lambda old: old + b"\0" * 64)
    yield "extended by itself", by(lambda old: old + old)
    yield "swapped", lambda path: content(other.read_bytes())(path)
    yield "zeros", by(lambda old: bytes(len(old)))
    yield "noise", by(lambda old: Random(size).randbytes(len(old)))
    yield "not UTF-8", by(lambda old: b"\xff\xfe" + old)
    yield "escapes", content(HOSTILE.encode())


# --- other things


def places(outside: Path) -> dict[str, Lie]:
    """What can lie in the place of a file or of a folder but itself."""

    def instead(make: Lie) -> Lie:
        def lie(path: Path) -> None:
            path.rename(outside / f"was-{path.name}")
            make(path)

        return lie

    def listening(path: Path) -> None:
        here = os.open(path.parent, os.O_RDONLY)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)

    return {
        "gone": instead(lambda path: None),
        "a folder": instead(Path.mkdir),
        "an empty file": instead(Path.touch),
        "a pipe": instead(os.mkfifo),
        "a socket": instead(listening),
        "a device": instead(lambda path: path.symlink_to("/dev/zero")),
        "a link to nothing": instead(lambda path: path.symlink_to(outside / "nothing")),
        "a link to itself": instead(lambda path: path.symlink_to(path)),
        "a link to what it was": instead(lambda path: path.symlink_to(outside / f"was-{path.name}")),
        "a link to its folder": instead(lambda path: path.symlink_to(path.parent)),
        "no rights": lambda path: path.chmod(0),
    }


# --- JSON

VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 10**6, 2**31, 2**63, 10**30, 10**400, -0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "x" * 100_000, HOSTILE, "../../../etc/passwd", "a\0b", "\ud800", "1", "2026-13-45T99:99:99+00:00"),
    *([], [None], [[]], [-1], ["x"] * 1000, {}, {"": None}, {HOSTILE: HOSTILE}, {"a": {"b": {"c": []}}}),
]


def places_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value within a JSON value, itself first."""
    yield at
    if isinstance(value, dict):
        for name in [*value][: 1 if "code" in at else None]:
            yield from places_in(value[name], (*at, name))
    elif isinstance(value, list):
        for number in [*range(len(value))][:3]:
            yield from places_in(value[number], (*at, number))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value in one place; with ``...`` none."""
    if not at:
        return None if new is ... else new
    result = copy.deepcopy(value)
    inner = result
    for name in at[:-1]:
        inner = inner[name]
    if new is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return result


def json_of(before: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """How to change a JSON value like this one in one place, for each place below ``at`` and each value."""
    inner = before
    for name in at:
        inner = inner[name]
    for place in places_in(inner, at):
        where = ".".join(map(str, place)) or "all"
        for new in (..., *VALUES):
            yield f"{where} {'gone' if new is ... else f'= {str(new)[:30]!r}'}", partial(changed, at=place, new=new)
    for name in inner if isinstance(inner, dict) else ():
        yield f"{name} under another name", partial(_renamed, at=at, name=name)


def _renamed(value: Any, at: tuple[Any, ...], name: str) -> Any:
    inner = value
    for one in at:
        inner = inner[one]
    return changed(value, at, {HOSTILE if one == name else one: kept for one, kept in inner.items()})


def edited(how: Callable[[Any], Any]) -> Lie:
    """A file of JSON with another value."""
    return lambda path: content(json.dumps(how(json.loads(path.read_bytes()))).encode() + b"\n")(path)


def texts(before: str) -> dict[str, Callable[[], bytes]]:
    """JSON that is none, or is more than it should be."""
    inner = before.strip()[1:]
    return {
        "nested deeply": lambda: b'{"a":' * 100_000,
        "lists nested deeply": lambda: b"[" * 100_000 + b"]" * 100_000,
        "5,000 digits": lambda: f'{{"format": {"9" * 5000}, {inner}'.encode(),
        "a key twice": lambda: f'{{"format": 1, "format": 7, {inner}'.encode(),
        "a newer format": lambda: f'{{"format": 99, {inner}'.encode(),
        "a format below zero": lambda: f'{{"format": -1, {inner}'.encode(),
        "a mark before it": lambda: b"\xef\xbb\xbf" + before.encode(),
        "UTF-16": lambda: before.encode("utf-16"),
        "something behind it": lambda: before.encode() + b"{}",
        "a NUL behind it": lambda: before.encode() + b"\0",
        "many small lists": lambda: b'{"a":[' + b"[]," * 1_000_000 + b"[]]}",
        "white space": lambda: b" " * 50_000_000,
    }


# --- safetensors


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of safetensors with this header, whatever it says."""
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(written) if length is None else length) + written + data


def safetensors_of(before: bytes) -> Iterator[tuple[str, bytes]]:
    """Weights whose header lies, or that are not what the architecture has."""
    (size,) = struct.unpack_from("<Q", before)
    header, data = json.loads(before[8 : 8 + size]), before[8 + size :]
    metadata = header.pop("__metadata__", None)

    def with_(name: str, **facts: Any) -> bytes:
        return tensors({**header, name: {**header[name], **facts}}, data)

    for length in (0, 1, size - 1, size + 1, len(before), 100_000_001, 2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1):
        yield f"a header of {length} bytes", tensors(header, data, length)
    yield "a header that is not UTF-8", tensors(b"\xff" * 40, data)
    yield "a header that nests deeply", tensors(b'{"a":' * 50_000, data)
    yield "a header of escapes", tensors({HOSTILE: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
    yield "no header", tensors(b"", data)
    yield "an empty header", tensors({}, b"")
    yield "an empty header and data", tensors({}, data)
    name, last = min(header), max(header, key=lambda one: header[one]["data_offsets"][1])
    begin, end = header[last]["data_offsets"]
    shape = header[last]["shape"]
    for kind in ("F64", "F16", "BF16", "F8_E4M3", "I32", "U8", "BOOL", "I64", "F4", "", HOSTILE, 7, None):
        yield f"dtype {kind!r}", with_(last, dtype=kind)
    for one in ([], [0], [-1], [2**63], [2**64 - 1, 2], [2**32, 2**32], [0, 2**63], [1e3], ["x"], None, shape[::-1]):
        yield f"shape {one!r}", with_(last, shape=one)
    yield "one more axis", with_(last, shape=[1, *shape])
    for one in ([end, begin], [0, end - begin], [begin, end + 4], [begin, 2**63], [-4, end], [2**64 - 4, end], []):
        yield f"offsets {one!r}", with_(last, data_offsets=one)
    yield "two tensors at one place", with_(name, data_offsets=header[last]["data_offsets"], shape=shape)
    yield "a hole in the data", tensors(header, data + bytes(64))
    yield "too little data", tensors(header, data[:-4])
    extra = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
    yield "one more tensor", tensors({**header, "extra": extra}, data + bytes(4))
    yield "one more of escapes", tensors({**header, HOSTILE: extra}, data + bytes(4))
    yield "one less", tensors({one: header[one] for one in header if one != last}, data[:begin])
    yield "another name", tensors({one if one != last else f"{one} ": header[one] for one in header}, data)
    yield "a name twice", tensors(json.dumps(header)[:-1].encode() + b", " + json.dumps(header)[1:].encode(), data)
    yield "metadata of other types", tensors({"__metadata__": {"a": 1}, **header}, data)
    yield "metadata of escapes", tensors({"__metadata__": {HOSTILE: HOSTILE}, **header}, data)
    if metadata:
        yield "no metadata", tensors(header, data)
    for value in (np.nan, np.inf, -np.inf, 3e38, 1e-45):
        yield f"weights of {value}", tensors(header, np.full(len(data) // 4, value, "<f4").tobytes())
    yield "a single NaN", tensors(header, data[:-4] + struct.pack("<f", np.nan))


# --- Arrow

TEXTS = (pa.string(), pa.large_string(), pa.binary())


def arrow(batch: pa.RecordBatch, path: Path, *, batches: int = 1, **options: Any) -> None:
    """Put a table into a file."""
    path.unlink(missing_ok=True)
    chosen = pa.ipc.IpcWriteOptions(**options)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema, options=chosen) as writer:
        for _ in range(batches):
            writer.write_batch(batch)


def opened(path: Path) -> pa.RecordBatch:
    """The one batch of a sound file."""
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).get_batch(0)


def arrow_of(before: pa.RecordBatch) -> Iterator[tuple[str, Lie]]:
    """Tables that are other than the one that is wanted."""

    def put(batch: pa.RecordBatch, **options: Any) -> Lie:
        return lambda path: arrow(batch, path, **options)

    def column(number: int, array: pa.Array, *, nullable: bool | None = None) -> pa.RecordBatch:
        field = before.schema.field(number)
        field = pa.field(field.name, array.type, field.nullable if nullable is None else nullable, field.metadata)
        arrays = [array if at == number else one for at, one in enumerate(before.columns)]
        return pa.record_batch(arrays, schema=before.schema.set(number, field))

    rows = before.num_rows
    yield "no rows", put(before.slice(0, 0))
    yield "a row", put(before.slice(0, 1))
    yield "one row less", put(before.slice(0, rows - 1))
    yield "no batch", put(before, batches=0)
    yield "two batches", put(before, batches=2)
    yield "without metadata", put(before.replace_schema_metadata({}))
    yield "metadata of escapes", put(before.replace_schema_metadata({HOSTILE: HOSTILE}))
    yield "a stream", lambda path: _stream(before, path)
    for kind in ("lz4", "zstd"):
        yield f"compressed by {kind}", put(before, compression=kind)
        yield f"a bomb by {kind}", partial(_packed, before, kind)
    yield "an old version", put(before, metadata_version=pa.ipc.MetadataVersion.V4)
    yield "one more column", put(before.append_column("more", pa.array([0] * rows)))
    yield "no columns", put(pa.record_batch([], schema=pa.schema([])))
    for number, array in enumerate(before.columns):
        name = before.schema.names[number]
        nulls = pa.array([None, *array.to_pylist()[1:]], array.type)
        yield f"{name} lacks a value", put(column(number, nulls))
        yield f"{name} may lack a value", put(column(number, nulls, nullable=True))
        yield f"{name} as a dictionary", put(column(number, array.dictionary_encode()))
        yield f"{name} all alike", put(column(number, pa.array([array[-1].as_py()] * rows, array.type)))
        yield f"{name} the other way round", put(column(number, array.take(pa.array(range(rows))[::-1])))
        for kind in (pa.int8(), pa.int64(), pa.uint64(), pa.float64(), pa.string(), pa.large_string(), pa.binary()):
            new = pa.array(map(str, array.to_pylist()), pa.string()) if kind in TEXTS else array
            new = (
                pa.nulls(rows, kind)
                if pa.types.is_string(array.type) and kind not in TEXTS
                else new.cast(kind, safe=False)
            )
            yield f"{name} of {kind}", put(column(number, new))
        if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
            most = np.iinfo(array.type.to_pandas_dtype()).max if pa.types.is_integer(array.type) else 1e308
            least = -most if not pa.types.is_unsigned_integer(array.type) else 0
            odd = [np.nan, np.inf, -np.inf] if pa.types.is_floating(array.type) else []
            for value in (most, least, 0, 1, *odd):
                row = pa.array([*array.to_pylist()[:-1], value], array.type)
                yield f"{name} ends with {value}", put(column(number, row))
                yield f"{name} of {value} alone", put(column(number, pa.array([value] * rows, array.type)))
        if pa.types.is_string(array.type):
            for text in ("", "two letters", HOSTILE, "\0", "\n", "\U0010ffff", "a" * 1_000_000):
                yield f"{name} ends with {text[:9]!r}", put(column(number, pa.array([*array.to_pylist()[:-1], text])))
            broken = pa.Array.from_buffers(pa.binary(), rows, pa.array([b"\xff\xfe"] * rows).buffers())
            yield f"{name} that is no UTF-8", put(column(number, broken.view(pa.string())))
            for outside in (10**6, -5, 2**31 - 1):
                offsets = np.frombuffer(array.buffers()[1], "<i4", rows + 1).copy()
                offsets[rows // 2] = outside
                buffers = [None, pa.py_buffer(offsets.tobytes()), array.buffers()[2]]
                apart = pa.Array.from_buffers(pa.string(), rows, buffers)
                yield f"{name} with an offset of {outside}", put(column(number, apart))


def _bomb(before: pa.RecordBatch) -> pa.RecordBatch:
    """A table that is hundreds of megabytes large, and next to nothing where it is compressed."""
    if not pa.types.is_string(before.schema.types[0]):
        return before.take(pa.array(np.zeros(400_000_000 // before.get_total_buffer_size() * 10, np.int8)))
    tokens = pa.array([*before.column(0).to_pylist()[:-1], "a" * 400_000_000])
    return pa.record_batch([tokens, *before.columns[1:]], schema=before.schema)


def _packed(before: pa.RecordBatch, kind: str, path: Path) -> None:
    arrow(_bomb(before), path, compression=kind)


def _stream(batch: pa.RecordBatch, path: Path) -> None:
    path.unlink()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def described_of(before: pa.RecordBatch) -> Iterator[tuple[str, Lie]]:
    """A table that says other things of itself, in the JSON of its metadata."""
    facts = {name.decode(): json.loads(fact) for name, fact in (before.schema.metadata or {}).items()}

    def put(new: Any) -> Lie:
        written = {name: json.dumps(fact) for name, fact in new.items()}
        return lambda path: arrow(before.replace_schema_metadata(written), path)

    for what, how in json_of(facts):
        new = how(facts)
        if isinstance(new, dict) and HOSTILE not in new:
            yield what, put(new)
