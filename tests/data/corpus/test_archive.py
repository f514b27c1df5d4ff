"""One text out of an archive that nobody vouches for."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import random
import struct
import zipfile
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from data.corpus.archive import unpack
from data.documents import members
from data.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT = "".join(random.Random(0).choices("abcdefghij é\n", k=300_000)).encode()


def unpacked(folder: Path, packed: bytes, limit: int = 1 << 30) -> tuple[bytes, str | None]:
    """The text that is made of these bytes, and its digest if they were packed."""
    (folder / "raw").write_bytes(packed)
    digest = unpack("test", folder / "raw", folder / "text", limit)
    return (folder / "text").read_bytes(), digest


def zipped(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name.replace("__slash__", "/"), body)
    return packed.getvalue()


def zstd(body: bytes) -> bytes:
    packed: bytes = pa.compress(body, "zstd", asbytes=True)
    return packed


@pytest.mark.parametrize("text", [TEXT, b"BZhang came home.", b"PK is a name.", b"\x1f"])
def test_a_text_is_taken_as_it_is(tmp_path: Path, text: bytes) -> None:
    assert unpacked(tmp_path, text) == (text, None)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    "pack",
    [
        lambda: gzip.compress(TEXT, mtime=0),
        lambda: gzip.compress(TEXT[:1000], mtime=0) + gzip.compress(TEXT[1000:], mtime=0),
        lambda: bz2.compress(TEXT),
        lambda: bz2.compress(TEXT[:1000]) + bz2.compress(TEXT[1000:]),
        lambda: bz2.compress(TEXT[:1000]) + bytes(600_000) + bz2.compress(TEXT[1000:]) + bytes(8),
        lambda: lzma.compress(TEXT),
        lambda: lzma.compress(TEXT[:1000]) + bytes(4) + lzma.compress(TEXT[1000:]) + bytes(8),
        lambda: lzma.compress(TEXT[:1000]) + bytes(600_000) + lzma.compress(TEXT[1000:]),
        lambda: zstd(TEXT),
        lambda: zstd(TEXT[:1000]) + zstd(TEXT[1000:]),
        lambda: zipped(**{"a.txt": TEXT}),
        lambda: zipped(**{"folder/": b"", "folder/a.txt": TEXT, "__MACOSX/a.txt": b"-", "folder/.DS_Store": b"-"}),
    ],
    ids=[
        *("gzip", "gzip of two parts", "bzip2", "bzip2 of two parts", "bzip2 with zeros between"),
        *(
            "xz",
            "xz of two parts",
            "xz with many zeros between",
            "zstd",
            "zstd of two parts",
            "zip",
            "zip with clutter",
        ),
    ],
)
def test_an_archive_is_unpacked(tmp_path: Path, pack: Callable[[], bytes]) -> None:
    assert unpacked(tmp_path, pack()) == (TEXT, hashlib.sha256(TEXT).hexdigest())


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, zstd, lambda body: zipped(bomb=body)],
    ids=["gzip", "bzip2", "xz", "zstd", "zip"],
)
def test_a_bomb_stops_at_the_cap(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"a" * 5_000_000)
    assert len(packed) < 10_000
    with pytest.raises(CorpusError, match="unpacks to more than the 1,000,000 bytes that a corpus may have"):
        unpacked(tmp_path, packed, 1_000_000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    packed = zipped(a=TEXT).replace(struct.pack("<I", len(TEXT)), struct.pack("<I", 10))
    with pytest.raises(CorpusError, match="corpus 'test' is a damaged zip archive"):
        unpacked(tmp_path, packed)


def nowhere() -> bytes:
    """A zip archive whose directory has its text behind the end of any file."""
    hidden = struct.pack("<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0) + b".a"
    place = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    text = struct.pack("<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, 1, 1, 1, len(place), 0, 0, 0, 0, 0xFFFFFFFF)
    entries = hidden + text + b"a" + place
    return b"PK\3\4" + entries + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, len(entries), 4, 0)


def test_a_zip_with_a_directory_of_millions_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zipped(**{f"{number}": b"" for number in range(6000)})
    monkeypatch.setattr(members, "DIRECTORY", members.CHUNK)
    with pytest.raises(CorpusError, match="an archive with more in it than the 1,048,576 files that are read"):
        unpacked(tmp_path, packed)
    assert unpacked(tmp_path, zipped(a=TEXT))[0] == TEXT


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 65536 failed")

    monkeypatch.setattr(pa, "CompressedInputStream", none_left)
    with pytest.raises(CorpusError, match="takes more memory to unpack than there is"):
        unpacked(tmp_path, zstd(TEXT))


@pytest.mark.parametrize(
    ("pack", "says"),
    [
        (
            lambda: zipped(**{"a.txt": b"a", "b.txt": b"b"}),
            r"zip archive with 2 files \('a.txt', 'b.txt'\) where exactly one",
        ),
        (lambda: zipped(**{f"{i}.txt": b"a" for i in range(9)}), r"9 files \('0.txt', '1.txt', '2.txt', '3.txt', …\)"),
        (zipped, "zip archive with no file"),
        (lambda: zipped(a=TEXT)[:-30], "damaged zip archive"),
        (
            lambda: zipped(a=TEXT).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"),
            "encrypted zip",
        ),
        (
            lambda: zipped(a=TEXT).replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x0c\0"),
            "compressed otherwise than by deflate",
        ),
        (lambda: zipped(a=TEXT) + zipped(b=TEXT), "zip archive behind something else that begins like one"),
        (nowhere, "damaged zip archive"),
        (lambda: gzip.compress(TEXT, mtime=0)[:-2000], "damaged gzip file"),
        (lambda: gzip.compress(TEXT, mtime=0)[:-8] + bytes(8), "damaged gzip file"),
        (lambda: b"\x1f\x8b" + TEXT, "damaged gzip file"),
        (lambda: bz2.compress(TEXT)[:-2000], r"damaged bzip2 file"),
        (lambda: b"BZh91AY&SY" + TEXT, "damaged bzip2 file"),
        (lambda: bz2.compress(TEXT) + b"and more", "damaged bzip2 file"),
        (lambda: bz2.compress(TEXT) + b"-" + bz2.compress(TEXT), "damaged bzip2 file"),
        (lambda: lzma.compress(TEXT)[:-2000], "damaged xz file"),
        (lambda: lzma.compress(TEXT) + b"and more", "damaged xz file"),
        (lambda: lzma.compress(TEXT, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]), "xz file .*[Mm]emory"),
        (lambda: zstd(TEXT)[:-2000], "damaged zstd file"),
        (lambda: b"\x28\xb5\x2f\xfd" + TEXT, "damaged zstd file"),
    ],
    ids=[
        *(
            "two",
            "nine",
            "none",
            "torn zip",
            "encrypted",
            "zip by bzip2",
            "zip behind zip",
            "a place of more than 64 bits",
        ),
        *("torn gzip", "wrong checksum", "gzip's magic only", "torn bzip2", "bzip2's magic only"),
        *("bzip2 and more", "a bzip2 part that is damaged"),
        *("torn xz", "xz and more", "a large dictionary", "torn zstd", "zstd's magic only"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, pack: Callable[[], bytes], says: str) -> None:
    with pytest.raises(CorpusError, match=says) as refusal:
        unpacked(tmp_path, pack())
    assert "\n" not in str(refusal.value)
