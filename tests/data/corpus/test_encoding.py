"""What is UTF-8 text, and what each refusal takes other bytes for."""

from __future__ import annotations

import codecs
import encodings.aliases
import hashlib
import random
import re
from typing import TYPE_CHECKING

import pytest

from data.corpus.encoding import CHUNK, Decoding, check_utf8, codec, convert
from data.errors import ConfigError, CorpusError

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
    ("text", "encoding", "name"),
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
def test_another_encoding_is_named_as_iconv_calls_it_and_read_by_the_name_to_type(
    tmp_path: Path, text: str, encoding: str, name: str, times: int
) -> None:
    body = text.encode(encoding) * times
    if times > 1 and not encoding.startswith("utf"):
        body = b"Title\n" * 20_000 + body  # the first byte that does not fit comes late
    (tmp_path / "text").write_bytes(body)
    typed = f"`--set download.encoding=(.*)`, or convert it with `iconv -f {name} -t UTF-8` and"
    with pytest.raises(CorpusError, match=f"but seems to be {name}: type {typed}") as refusal:
        check_utf8("test", tmp_path / "text")
    assert body.decode(name)  # Python knows it by that name too
    said = re.search(typed, str(refusal.value))
    assert said
    if times > 1:
        return
    digest = convert("test", tmp_path / "text", tmp_path / "converted", codec(said[1]))
    converted = (tmp_path / "converted").read_bytes()
    assert converted.decode().removeprefix("\ufeff").endswith(text)
    assert digest == hashlib.sha256(converted).hexdigest()


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
            "in no encoding that is known here; find out in which it is, and type `--set download.encoding=` and its",
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


# --- an encoding that somebody named


def decoded(body: bytes, encoding: str, size: int = 1) -> bytes:
    """A text in UTF-8, of bytes in chunks of some size."""
    chunks = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(Decoding("corpus 'test'", codec(encoding)).utf8(chunks))


@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, JAPANESE, "plain\r\n", ""], ids=lambda text: text[:5])
def test_a_text_may_be_cut_anywhere_in_whatever_encoding(text: str) -> None:
    tried = 0
    for name in sorted({*encodings.aliases.aliases.values()}):
        try:
            found = codec(name)
            body = text.encode(found)
        except (ConfigError, UnicodeEncodeError):
            continue
        tried += 1
        expected = body.decode(found)
        for size in (1, 3, 1000):
            assert decoded(body, name, size).decode() == expected, name
    assert tried > 10


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("latn-1", "no encoding of texts called 'latn-1'; did you mean 'latin-1'?"),
        ("utf_88", "did you mean 'utf-8'?"),
        ("zzzzzz", "name one as Python does: utf-8, latin-1, cp1252, utf-16"),
        ("rot13", "no encoding of texts called 'rot13'"),
        ("base64", "no encoding of texts"),
        ("punycode", "no encoding of texts"),
        ("unicode_escape", "no encoding of texts"),
        ("undefined", "no encoding of texts"),
        ("../../x", "no encoding of texts"),
        ("a\0b", "no encoding of texts"),
    ],
)
def test_what_is_no_encoding_is_refused_with_the_nearest(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^download.encoding: there is .*{re.escape(says)}"):
        codec(name)


def test_an_encoding_has_one_name() -> None:
    assert codec("latin-1") == codec("ISO 8859-1") == codec("l1")


@pytest.mark.parametrize(
    ("body", "encoding", "says"),
    [
        (FRENCH.encode(), "ascii", r"^corpus 'test' is not ASCII text \(byte 1, in line 1\) but seems to be UTF-8, as"),
        (b"one\ntwo \x81\n", "cp1252", r"not CP1252 text \(byte 8, in line 2\)"),
        (RUSSIAN.encode("cp1251"), "shift_jis", "but seems to be WINDOWS-1251"),
        ("a text".encode("utf-16")[:-1], "utf-16", r"not UTF-16 text \(byte 12\)"),
        ("a text".encode("utf-16-le"), "utf-16", "byte order mark.*type `--set download.encoding=utf-16-le` or"),
        ("some\0text".encode("latin-1"), "latin-1", r"not ISO8859-1 text \(character 4\) for it holds NUL"),
        ("half \ud83d".encode("utf-7", "surrogatepass"), "utf-7", "half a pair|not UTF-7"),
    ],
)
def test_what_is_not_in_the_encoding_that_was_named(body: bytes, encoding: str, says: str) -> None:
    for size in (1, 1000):
        with pytest.raises(CorpusError, match=says):
            decoded(body, encoding, size)


def test_a_mark_says_which_way_round_it_is() -> None:
    for mark, order in ((codecs.BOM_UTF16_LE, "le"), (codecs.BOM_UTF16_BE, "be")):
        assert decoded(mark + GREEK.encode(f"utf-16-{order}"), "utf-16") == GREEK.encode()
