"""What is UTF-8 text, and what each refusal takes other bytes for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from data.corpus.encoding import CHUNK, check_utf8
from data.errors import CorpusError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "abcdefghij é\n".encode() * 30_000


@pytest.mark.parametrize("body", [TEXT, b"\xef\xbb\xbfone\r\ntwo\rthree\n\n", b"x" * (CHUNK - 1) + "é".encode()])
def test_text_passes(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "text").write_bytes(body)
    check_utf8("test", tmp_path / "text")
    assert (tmp_path / "text").read_bytes() == body


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("a café".encode("latin-1"), r"not UTF-8 text \(byte 5\); if it is Latin-1, convert it with `iconv"),
        (TEXT + b"\xc3", rf"not UTF-8 text \(byte {len(TEXT):,}\)"),
        ("é".encode() * 200_000 + b"\xff", r"not UTF-8 text \(byte 400,000\)"),
        (b"x" + "é".encode() * 131_071 + b"\xc3(", r"not UTF-8 text \(byte 262,143\)"),  # cut by a chunk's border
        ("text".encode("utf-16"), "seems to be UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`"),
        ("text".encode("utf-32"), "seems to be UTF-32; convert it with `iconv -f UTF-32 -t UTF-8`"),
        ("plain text".encode("utf-16-le"), r"\(byte 1\) but seems to be UTF-16LE"),
        ("plain text".encode("utf-16-be"), r"\(byte 0\) but seems to be UTF-16BE"),
        (b"some\0text", r"\(byte 4\) but seems to be a binary file"),
        (b"\x89PNG\r\n\0\0\0\rIHDR", "seems to be a binary file"),
        (b" \n\t\r\n ", "nothing but white space"),
        (b"\xef\xbb\xbf\n", "nothing but white space"),
        (b"", "is empty"),
    ],
)
def test_not_a_text(tmp_path: Path, body: bytes, says: str) -> None:
    (tmp_path / "text").write_bytes(body)
    with pytest.raises(CorpusError, match=f"^corpus 'test' .*{says}") as refusal:
        check_utf8("test", tmp_path / "text")
    assert "\n" not in str(refusal.value)
