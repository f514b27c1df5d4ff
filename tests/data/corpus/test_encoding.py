"""What is UTF-8 text, and what each refusal takes other bytes for."""

from __future__ import annotations

import random
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


FRENCH = "L’été dernier, les élèves ont mangé des crêpes – « délicieuses » – à côté du café. Ça coûte 3 €.\n"
GERMAN = "Die Männer gingen über die Brücke. Es war schön und kühl, überall Äpfel und größere Bäume.\n"
POLISH = "Wczoraj wieczorem poszedłem do sklepu, żeby kupić chleb. Było już późno, a gęś siedziała w łóżku.\n"
RUSSIAN = "Вчера вечером я пошёл в магазин, чтобы купить хлеба и молока. Было уже поздно.\n"
GREEK = "Χθες το βράδυ πήγα στο μαγαζί για να αγοράσω ψωμί και γάλα.\n"
TURKISH = "Dün akşam ekmek ve süt almak için dükkâna gittim; ışıklar sönmüştü ve sokak boştu, çığlık yoktu.\n"
CHINESE = "从前有座山，山上有座庙，庙里有个老和尚在给小和尚讲故事。\n"
TAIWANESE = "從前有座山，山上有座廟，廟裡有個老和尚在給小和尚講故事。\n"
JAPANESE = "昔々あるところに、おじいさんとおばあさんが住んでいました。\n"
KOREAN = "옛날 옛적에 호랑이가 담배 피우던 시절, 한 마을에 나무꾼이 살고 있었습니다.\n"


@pytest.mark.parametrize("times", [1, 20_000], ids=["short", "longer than what is looked at"])
@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        (FRENCH, "cp1252", "WINDOWS-1252"),
        (GERMAN, "latin-1", "WINDOWS-1252"),
        (POLISH, "cp1250", "WINDOWS-1250"),
        (TURKISH, "cp1254", "WINDOWS-1254"),
        (GREEK, "cp1253", "WINDOWS-1253"),
        (RUSSIAN, "cp1251", "WINDOWS-1251"),
        (RUSSIAN, "koi8-r", "KOI8-R"),
        (CHINESE, "gbk", "GBK"),
        (TAIWANESE, "big5", "BIG5"),
        (JAPANESE, "shift_jis", "SHIFT_JIS"),
        (JAPANESE, "euc_jp", "EUC-JP"),
        (KOREAN, "euc_kr", "EUC-KR"),
        *[(text, "utf-16-le", "UTF-16LE") for text in (FRENCH, RUSSIAN, CHINESE, KOREAN)],
        *[(text, "utf-16-be", "UTF-16BE") for text in (GERMAN, RUSSIAN, JAPANESE)],
        (GERMAN, "utf-16", "UTF-16"),
        (GERMAN, "utf-32", "UTF-32"),
    ],
)
def test_another_encoding_is_named_as_iconv_calls_it(
    tmp_path: Path, text: str, codec: str, name: str, times: int
) -> None:
    body = text.encode(codec) * times
    if times > 1 and not codec.startswith("utf"):
        body = b"Title\n" * 20_000 + body  # the first byte that does not fit comes late
    (tmp_path / "text").write_bytes(body)
    with pytest.raises(CorpusError, match=f"but seems to be {name}; convert it with `iconv -f {name} -t UTF-8` and"):
        check_utf8("test", tmp_path / "text")
    assert body.decode(name)  # Python knows it by that name too


BINARY = "but seems to be a binary file; give a plain text"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("a café".encode("latin-1"), r"not UTF-8 text \(byte 5, in line 1\) but seems to be WINDOWS-1252"),
        (TEXT + b"\xc3", rf"\(byte {len(TEXT):,}, in line 30,001\) though most of it is; correct it there, or drop"),
        ("é\n".encode() * 150_000 + b"\xff", r"\(byte 450,000, in line 150,001\) though most of it is"),
        (b"x" + "é".encode() * 131_071 + b"\xc3(", r"\(byte 262,143, in line 1\) though"),  # cut by a chunk's border
        (b"one \xe2\x80\x9cquote and \xff stray", r"\(byte 17, in line 1\) though most of it is"),
        (b"some\0text", r"\(byte 4, in line 1\) for it holds NUL, which no text does; remove it with `tr -d '.000'`"),
        ("é\n".encode() * 200_000 + b"\0", r"\(byte 600,000, in line 200,001\) for it holds NUL"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "but seems to be a PDF; take the text out of it and give that file"),
        (b"letters.txt".ljust(257, b"\0") + b"ustar\x0000", "but seems to be a tar archive; take the text out of it"),
        (b"\x89PNG\r\n\0\0\0\rIHDR", BINARY),
        (bytes(range(256)) * 40, BINARY),
        (bytes(random.Random(0).choices(range(1, 256), k=10_000)), BINARY),
        (
            bytes(random.Random(0).choices(range(160, 256), k=500)),
            "in no encoding that is known here; find out in which it is",
        ),
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
