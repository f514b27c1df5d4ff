"""The texts of archives that nobody vouches for: which are read, and what each refusal says."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data.documents import members
from data.documents.members import of_tar, of_zip
from data.errors import CorpusError


def tarred(*entries: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            archive.addfile(info, io.BytesIO(entry[1]))
    return packed.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(*entries: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in entries:
            archive.writestr(name, body)
    return packed.getvalue()


def read(folder: Path, packed: bytes) -> list[tuple[str, bytes]]:
    (folder / "raw").write_bytes(packed)
    of = of_zip if packed.startswith(b"PK") else of_tar
    return [(member.name, b"".join(member.chunks)) for member in of("test", folder / "raw")]


FILES = [("b.txt", b"b"), ("a/c.txt", b"c" * 300_000), ("a.txt", b"a"), ("../../climbs", b"1"), ("/etc/absolute", b"2")]
FILES += [("n" * 200, b"long"), ("é.txt", b"accent"), ("\x1b[2J", b"escape")]
CLUTTER = [(".hidden", b"-"), (".git/x", b"-"), ("__MACOSX/a.txt", b"-"), ("photo.jpg", b"-"), ("folder/", b"")]


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_members_are_in_the_order_of_their_names_and_clutter_is_passed_over(
    tmp_path: Path, pack: Callable[..., bytes]
) -> None:
    clutter = CLUTTER if pack is zipped else CLUTTER[:-1]
    expected = sorted(FILES, key=lambda one: one[0].encode())
    assert read(tmp_path, pack(*FILES, *clutter)) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}  # no name is a path that anything is written to


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_forms_of_tar(tmp_path: Path, form: int) -> None:
    entries = [("./a.txt", b"a"), ("d" * 90 + "/" + "n" * 90, b"long"), ("two", b"x" * 512)]
    found = read(tmp_path, tarred(*entries, form=form))
    assert found == [("a.txt", b"a"), *sorted(entries[1:])]


def test_links_and_devices_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    links = [
        special("a", tarfile.SYMTYPE, "/etc/passwd"),
        special("b", tarfile.LNKTYPE, "text"),
        special("c", tarfile.FIFOTYPE),
        special("d", tarfile.CHRTYPE),
        special("e", tarfile.DIRTYPE),
    ]
    assert read(tmp_path, tarred(*links, ("text", b"it"))) == [("text", b"it")]


def changed(packed: bytes, at: int, to: bytes) -> bytes:
    """A tar whose first header says something else, and is right about its checksum."""
    header = bytearray(packed[:512])
    header[at : at + len(to)] = to
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + packed[512:]


WHOLE = tarred(("a", b"a" * 600), ("b", b"b"), form=tarfile.USTAR_FORMAT)
SPARSE = special("sparse", tarfile.GNUTYPE_SPARSE)
TWO = zipped(("a", b"a"), ("b", b"b"))


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (WHOLE[:700], "damaged tar archive"),
        (WHOLE[:1536], "damaged tar archive .*ends too early"),
        (WHOLE[:2000], "damaged tar archive"),
        (WHOLE[:1540] + b"\xff" * 40 + WHOLE[1580:], "damaged tar archive .*or goes on with something else"),
        (changed(WHOLE, 124, b"77777777777\0"), "damaged tar archive"),
        (changed(WHOLE, 124, b"\xff" * 12), "damaged tar archive"),
        (changed(changed(WHOLE, 156, b"x"), 124, b"\xff" * 12), "damaged tar archive"),
        (changed(changed(WHOLE, 156, b"L"), 124, b"77777777777\0"), "an archive with more in it than"),
        (tarred(SPARSE, ("b", b"b"), form=tarfile.GNU_FORMAT), "'sparse' of corpus 'test' has holes"),
        (TWO[:-30], "damaged zip archive"),
        (TWO.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"), "encrypted zip archive, in 'a'"),
        (TWO.replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x0c\0"), "otherwise than by deflate, in 'a'"),
        (TWO.replace(b"\x43\xbe\xb7\xe8", b"\x44\xbe\xb7\xe8"), "damaged zip archive, at 'a'"),
        (TWO + TWO, "zip archive behind something else that begins like one"),
    ],
)
def test_what_is_damaged_or_asks_for_too_much_is_refused(tmp_path: Path, packed: bytes, says: str) -> None:
    with pytest.raises(CorpusError, match=says) as refusal:
        read(tmp_path, packed)
    assert "\n" not in str(refusal.value)


def test_a_tar_cut_anywhere_is_whole_or_refused(tmp_path: Path) -> None:
    expected = read(tmp_path, WHOLE)
    for end in range(512, len(WHOLE), 128):
        try:
            assert read(tmp_path, WHOLE[:end]) == expected
            assert end > 2560  # the end of the last member, and the block that says so
        except CorpusError:
            continue


def test_an_archive_of_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MEMBERS", 2)
    for pack in (tarred, zipped):
        assert len(read(tmp_path, pack(*FILES[:2]))) == 2
        with pytest.raises(CorpusError, match="an archive with more in it than the 2 files that are read of one"):
            read(tmp_path, pack(*FILES[:3]))
