"""Archives that are whole, and all that may be wrong with one."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import pyarrow as pa

from data.corpus.archive import unpack
from data.errors import CorpusError
from tests.fuzz.downloads import LIMIT, Text


@dataclass
class Case:
    """What is given as a corpus, and what has to come of it."""

    what: str
    content: bytes | Callable[[], bytes]
    """… or what makes it, where that takes a while."""
    text: Text
    either: bool = False
    said: str = ""


def sentence(rng: Random, length: int) -> str:
    """Characters of any plane, but for halves of pairs and NUL."""
    pools = (
        *((0x20, 0x7F), (0x20, 0x7F), (0x20, 0x7F), (0x01, 0x20), (0x80, 0x250), (0x300, 0x370), (0x400, 0x530)),
        *((0x600, 0x700), (0x1100, 0x1200), (0x2000, 0x2070), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xE000, 0x10000)),
        *((0x10000, 0x110000),),
    )
    alphabet = [chr(rng.randrange(*rng.choice(pools))) for _ in range(rng.randint(1, 200))]
    return "".join(rng.choices(alphabet, k=length))


def zipped(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return packed.getvalue()


def zstd(body: bytes) -> bytes:
    packed: bytes = pa.compress(body, "zstd", asbytes=True)
    return packed


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": partial(gzip.compress, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "zip": lambda body: zipped(a=body),
}


def _bomb(kind: str, letter: bytes, size: int) -> bytes:
    return PACKERS[kind](letter * size)


def _within(outer: str, middle: str, inner: str, size: int) -> bytes:
    """A bomb that is packed three times."""
    return PACKERS[outer](PACKERS[middle](PACKERS[inner](bytes(size))))


def zip_of(*members: tuple[str, bytes, int, int]) -> bytes:
    """A zip archive of members: name, content, method and the bits of its attributes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive, warnings.catch_warnings(action="ignore"):
        for name, body, method, mode in members:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = method, mode << 16
            archive.writestr(info, body)
    return packed.getvalue()


def directory(
    entries: int, *, said: int | None = None, size: int | None = None, start: int = 31, extra: bytes = b""
) -> bytes:
    """A zip archive whose directory names one member so often, and what its end says of that."""
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0xE8B7BE43, 1, 1, 1, 0) + b"aa"
    sizes = (0xFFFFFFFF, 0xFFFFFFFF, 1, len(extra), 0, 0, 0, 0, 0xFFFFFFFF) if extra else (1, 1, 1, 0, 0, 0, 0, 0, 0)
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0xE8B7BE43, *sizes) + b"a" + extra
    number = min(entries if said is None else said, 0xFFFF)
    length = len(entry) * entries if size is None else size
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, number, number, length & 0xFFFFFFFF, start + 1, 0)
    return local + entry * entries + end


def joined(*texts: bytes) -> bytes:
    """Documents as one text."""
    mark = "\ufeff".encode()
    return b"".join(text.removeprefix(mark) + b"\n" * (not text.endswith(b"\n")) for text in texts)


def tarred(*members: tuple[str, bytes, bytes]) -> bytes:
    """A tar archive of members: name, content and kind."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, body, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(body), "/etc/passwd"
            archive.addfile(info, io.BytesIO(body))
    return packed.getvalue()


def tars(rng: Random, body: bytes, other: bytes) -> Iterator[Case]:
    """Tar archives, packed or not, and all that may be wrong with one."""
    for name in ("../../climbs", "/etc/absolute", "\x1b[2J\u202e", "two\nlines", "n" * 5000, "é/..", "./a"):
        yield Case(f"tar with {name[:20]!r}", tarred((name, body, b"0")), joined(body))
    for kind in b"1234567xgLKS":
        packed = tarred(("a", body, b"0"), ("b", other if kind == ord("7") else b"", bytes([kind])), ("c", other, b"0"))
        swapped = joined(other, body)  # which has no name behind one that is empty
        expected = {joined(body, other), *([swapped] if kind in b"LK" else [])}
        yield Case(f"tar with a member of the kind {chr(kind)}", packed, expected.__contains__, either=True)
    whole = tarred(("a", body, b"0"), ("b", other, b"0"))
    for pack in (bytes, *(pack for kind, pack in PACKERS.items() if kind != "zip")):
        packed = pack(whole)
        yield Case("tar", packed, joined(body, other))
        yield Case("tar cut", packed[: rng.randrange(600, len(packed))], joined(body, other), either=True)
        flipped = bytearray(packed)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        yield Case("tar with a bit flipped", bytes(flipped), lambda _: True, either=True)
    header = bytearray(whole[:512])
    for _ in range(3):
        at = rng.randrange(100, 345)
        header[at : at + 12] = rng.choice((b"\xff" * 12, b"7" * 11 + b"\0", b"\x80" + rng.randbytes(11), b" " * 12))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        yield Case("tar with a header that lies", bytes(header) + whole[512:], lambda _: True, either=True)
    yield Case("tar of a bomb", partial(_tar_bomb, LIMIT + 1), None, said="more than")
    yield Case("tar of nothing", tarred(), None)


def _tar_bomb(size: int) -> bytes:
    return gzip.compress(tarred(("a", b"a" * size, b"0")), mtime=0)


def archives(rng: Random) -> Iterator[Case]:
    """Archives that are whole, and all that may be wrong with one."""
    while True:
        body = sentence(rng, rng.choice((2, 100, 50_000))).encode() + b"."
        other = sentence(rng, 1000).encode() + b"."
        for kind, pack in PACKERS.items():
            packed = pack(body)
            cut = rng.randrange(min(12, len(packed) - 1), len(packed))
            yield Case(f"{kind}", packed, body)
            yield Case(f"{kind} cut", packed[:cut], None)
            yield Case(f"{kind} that begins late", packed[cut:], None, either=True)
            yield Case(f"{kind} of nothing", pack(b""), None, said="is empty")
            yield Case(f"{kind} of white space", pack(b" \n" * 1000), None, said="nothing but white space")
            yield Case(f"{kind} of no text", pack(rng.randbytes(1000)), None)
            yield Case(f"{kind}, a bomb", partial(_bomb, kind, b"\0", LIMIT + 1), None, said="unpacks to more than")
            yield Case(
                f"{kind}, a bomb of letters",
                partial(_bomb, kind, b"a", LIMIT * 4),
                None,
                said="unpacks to more than",
            )
            yield Case(f"{kind} just small enough", partial(_bomb, kind, b"a", LIMIT), b"a" * LIMIT)
            inner = rng.choice([*PACKERS])
            yield Case(f"{inner} in {kind}", pack(PACKERS[inner](body)), None)
            yield Case(
                f"a bomb by {inner} in {kind}",
                partial(_within, kind, inner, kind, LIMIT * 8),
                None,
            )
            if kind != "zip":
                padding = bytes(rng.choice((4, 1000, 600_000)))
                yield Case(f"{kind} of two parts", packed + pack(other), body + other)
                yield Case(f"{kind} of many parts", pack(b"a\n") * 10_000, b"a\n" * 10_000)
                yield Case(f"{kind} of many parts of nothing", pack(b"") * 50_000 + packed, body)
                yield Case(f"{kind} and zeros", packed + padding, body, either=kind == "zstd")
                yield Case(
                    f"{kind}, zeros and {kind}", packed + padding + pack(other), body + other, either=kind == "zstd"
                )
                yield Case(f"{kind} and half of one", packed + pack(other)[: rng.randrange(4, 20)], None)
                yield Case(f"{kind} and a text", packed + other, None)
                yield Case(
                    f"{kind} and another kind", packed + PACKERS["xz" if kind == "gzip" else "gzip"](other), None
                )
            if kind != "zstd":  # whose checksum may be left out
                flipped = bytearray(packed)
                flipped[rng.randrange(4, len(flipped))] ^= 1 << rng.randrange(8)
                yield Case(f"{kind} with a bit flipped", bytes(flipped), body, either=True)
        yield from zips(rng, body, other)
        yield from tars(rng, body, other)
        yield from headers(rng, body)


def zips(rng: Random, body: bytes, other: bytes) -> Iterator[Case]:
    """What only zip has."""
    stored, deflated = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    file, link, folder, pipe = 0o100644, 0o120777, 0o040755, 0o010644
    for name in (
        "../../climbs",
        "/etc/absolute",
        "a/../../b",
        "C:\\windows",
        "..",
        "\x1b[2J\u202e",
        "two\nlines",
        "n" * 60_000,
    ):
        yield Case(f"zip with {name[:20]!r}", zip_of((name, body, deflated, file)), body, either=True)
        both = zip_of((name, body, stored, file), (name, other, stored, 0))
        yield Case(f"zip with {name[:20]!r} twice", both, joined(body, other), either=True)
    yield Case("zip with a link", zip_of(("a", b"/etc/passwd", stored, link)), None)
    yield Case("zip with a link beside", zip_of(("a", b"/etc/passwd", stored, link), ("b", body, stored, file)), body)
    yield Case("zip with a pipe", zip_of(("a", body, stored, pipe)), None)
    yield Case("zip with a folder", zip_of(("a/", b"", stored, folder)), None)
    yield Case("zip by bzip2", zip_of(("a", body, zipfile.ZIP_BZIP2, file)), None, said="otherwise than by deflate")
    yield Case("zip by lzma", zip_of(("a", body, zipfile.ZIP_LZMA, file)), None, said="otherwise than by deflate")
    yield Case("zip behind zip", zipped(a=body) + zipped(a=other), None)
    yield Case("zip and a text", zipped(a=body) + b"a text" * 10, body, either=True)
    yield Case("zip of 5,000", lambda: zipped(**{f"{n}": b"a" for n in range(5000)}), b"a\n" * 5000)
    yield Case("zip of a million", partial(directory, 1_000_000), None)
    yield Case("zip with one so often", directory(300), b"a\n" * 300, either=True)
    yield Case("zip that says less", directory(300, said=1), b"a\n" * 300, either=True)
    yield Case("zip that says more", directory(1, said=9), b"a", either=True)
    yield Case("zip with a large directory", directory(1, size=0xFFFFFFF0), None)
    yield Case("zip whose directory is elsewhere", directory(1, start=rng.randrange(1 << 31)), None, either=True)
    for start in (1 << 62, (1 << 64) - 1, 1 << 63):
        extra = struct.pack("<HHQQQ", 1, 24, 1, 1, start)
        yield Case("zip whose member is nowhere", directory(1, extra=extra), None)
    for size in (0, 2, 1 << 40, (1 << 64) - 1):
        extra = struct.pack("<HHQQQ", 1, 24, size, 1, 0)
        yield Case("zip that lies about a size", directory(1, extra=extra), b"a", either=True)
    packed = bytearray(zipped(a=body))
    flags = packed.rindex(b"PK\x01\x02") + 8
    packed[flags] |= rng.choice((0x01, 0x20, 0x40))
    yield Case("zip that is encrypted or patched", bytes(packed), None, either=True)


def headers(rng: Random, body: bytes) -> Iterator[Case]:
    """Heads of archives that ask for a lot."""
    deflated = gzip.compress(body, mtime=0)[10:]
    yield Case("gzip with a long name", b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 1_000_000 + b"\0" + deflated, body)
    yield Case("gzip with an endless name", b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 1_000_000, None)
    yield Case("gzip by another method", b"\x1f\x8b\x07\0" + bytes(6) + deflated, None)
    large = lzma.compress(body, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << rng.choice((28, 29, 30))}])
    yield Case("xz with a large dictionary", large, None, either=True)
    yield Case("xz without a checksum", lzma.compress(body, check=lzma.CHECK_NONE), body)
    for window in (0x78, 0xA0, 0xF8):
        frame = b"\x28\xb5\x2f\xfd\x00" + bytes([window]) + (len(body) << 3 | 1).to_bytes(3, "little") + body
        yield Case("zstd with a large window", frame, body, either=True)
    yield Case("zstd that says a size", b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + b"\x01\0\0", None)
    yield Case("zstd with a dictionary", b"\x28\xb5\x2f\xfd\x03\x68" + b"\x01\0\0\0" + b"\x01\0\0", None)
    for magic in (
        b"7z\xbc\xaf\x27\x1c",
        b"Rar!\x1a\x07\0",
        b"\x04\x22\x4d\x18",
        b"\x1f\x9d\x90",
        b"%PDF-1.7\n\xff",
        b"\x50\x2a\x4d\x18",
    ):
        yield Case("another kind of archive", magic + rng.randbytes(1000), None)


def everywhere(kind: str, body: bytes, bits: int = 8) -> Iterator[str]:
    """What is wrong where an archive is cut or flipped at each byte; without the command line, which takes longer."""
    packed = PACKERS[kind](body)
    made = [packed[:end] for end in range(len(packed))]
    if kind != "zstd":
        made += [
            packed[:at] + bytes([packed[at] ^ 1 << bit]) + packed[at + 1 :]
            for at in range(len(packed))
            for bit in range(bits)
        ]
    with tempfile.TemporaryDirectory() as folder:
        raw, text = Path(folder, "raw"), Path(folder, "text")
        for content in made:
            raw.write_bytes(content)
            try:
                unpack("it", raw, text, LIMIT)
            except CorpusError:
                continue
            if text.read_bytes() not in (body, content):
                yield f"{kind} of {len(content)} bytes becomes {text.read_bytes()[:40]!r}"
