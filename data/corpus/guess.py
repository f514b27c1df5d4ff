"""What bytes seem to be that are not UTF-8 text, and what is to be done about it: words for a refusal, nothing else."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

SAMPLE = 1 << 17
"""Bytes that are looked at."""
ENOUGH = 0.8
"""Of the characters outside of ASCII, the share that must be common ones for a text to seem to be of an encoding."""
FEW = 0.01
"""Of all bytes, the share of control characters that a text may have."""

MARKS = {"utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)}
"""Byte order marks, with which such texts begin."""
_KINDS = (
    (rb"%PDF-", "a PDF"),
    (rb".{257}ustar(\x00|  \x00)", "a tar archive"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (rb"Rar!\x1a\x07", "a RAR archive"),
    (rb"PK\x03\x04", "a zip archive within what was unpacked"),
    (rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd", "a text that was packed more than once"),
    (rb"\x04\x22\x4d\x18", "a text packed by lz4"),
    (rb"\x1f\x9d", "a text packed by compress"),
    (rb"\xd0\xcf\x11\xe0", "a document of an office program"),
)
"""How a file begins that may hold a text, and what it is."""
_BINARY = "but seems to be a binary file; give a plain text"
_HIGH = "[^\x00-\x7f]"
_SIGNS = "‘’‚“”„«»‹›–—…•·°§€£¿¡´"
_WESTERN = "àáâãäåæçèéêëìíîïñòóôõöøœùúûüÿšžßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØŒÙÚÛÜŠŽ"
_TURKISH = "âçğıîöşûüÂÇĞİÎÖŞÛÜ"
_CENTRAL = "áâăäąćčçďđéęëěíîĺľłńňóôőöŕřśšşťţúůűüýźžżßÁÂĂÄĄĆČÇĎĐÉĘËĚÍÎĹĽŁŃŇÓÔŐÖŔŘŚŠŞŤŢÚŮŰÜÝŹŽŻ"


def _letters(alphabet: str) -> Callable[[bytes, str], int]:
    """How many characters are signs, or accented letters beside plain ones, or alone."""
    accented = f"[{alphabet}]{{1,3}}"
    pattern = re.compile(
        f"[{_SIGNS}]|(?<=[A-Za-z]){accented}|{accented}(?=[A-Za-z])|(?<!{_HIGH})[{alphabet}](?!{_HIGH})"
    )
    return lambda _, text: sum(map(len, pattern.findall(text)))


def _script(small: str, capital: str) -> Callable[[bytes, str], int]:
    """How many characters are signs, or letters of words in which only the first one may be a capital."""
    letter = f"[{small}]|(?<![{small}{capital}])[{capital}]"
    pattern = re.compile(f"[{_SIGNS}№]|(?<![A-Za-z])(?:{letter})(?![A-Za-z])")
    return lambda _, text: len(pattern.findall(text))


def _pairs(leading: str) -> Callable[[bytes, str], int]:
    """How many characters begin with one of these bytes, under which a standard has its common characters."""
    pattern = re.compile(f"[{leading}][\x40-\xff]|[\x81-\xff][\x40-\xff]")
    at_home = re.compile(f"[{leading}]")
    return lambda raw, _: sum(at_home.match(pair) is not None for pair in pattern.findall(raw.decode("latin-1")))


# Of equals the first: it has the fewest characters that are common, or the most texts.
_ENCODINGS: list[tuple[str, str, Callable[[bytes, str], int]]] = [
    ("WINDOWS-1252", "cp1252", _letters(_WESTERN)),
    ("WINDOWS-1254", "cp1254", _letters(_TURKISH)),
    ("WINDOWS-1250", "cp1250", _letters(_CENTRAL)),
    ("WINDOWS-1251", "cp1251", _script("а-яё", "А-ЯЁ")),
    ("KOI8-R", "koi8_r", _script("а-яё", "А-ЯЁ")),
    ("WINDOWS-1253", "cp1253", _script("ΐά-ώ", "Ά-Ϋ")),
    ("EUC-KR", "euc_kr", _pairs("\xa1\xa3\xb0-\xc8")),
    ("EUC-JP", "euc_jp", _pairs("\xa1\xa3-\xa5\xb0-\xcf")),
    ("GBK", "gbk", _pairs("\xa1\xa3\xb0-\xd7")),
    ("BIG5", "big5", _pairs("\xa1-\xc6")),
    ("SHIFT_JIS", "cp932", _pairs("\x81-\x83\x88-\x98")),
]
"""The name that ``iconv`` has for an encoding, its codec, and how many characters are common ones where it is that."""


def advice(sample: bytes, start: bytes, nul: bool, encoding: str = "utf-8") -> str:
    """What a text that is not in its encoding seems to be, and what helps, to end a sentence with.

    Args:
        sample: around the first byte that does not fit.
        start: of the file.
        nul: whether that byte is a NUL.
        encoding: that it is not in.
    """
    for begins, kind in _KINDS:
        if re.match(begins, start, re.DOTALL):
            return f"but seems to be {kind}; take the text out of it and give that file"
    if wide := _wide(start):
        return _convert(wide)
    if nul and _is_text(rest := sample.replace(b"\0", b"")) and len(rest) > 0.7 * len(sample):
        return "for it holds NUL, which no text does; remove it with `tr -d '\\000'` and give that file"
    if b"\0" in sample + start:
        wide = max(("UTF-16LE", "UTF-16BE"), key=lambda encoding: _readable(start, encoding))
        return _convert(wide) if _readable(start, wide) > ENOUGH else _BINARY
    if _controls(sample) > FEW:
        return _BINARY
    lost, high = _decoded(sample)
    if encoding != "utf-8" and lost <= high / 100:
        return "but seems to be UTF-8, as texts are if nothing else is said: leave download.encoding out"
    if high and lost <= high / 2:
        return (
            "though most of it is; correct it there, or drop what does not fit with `iconv -c -f UTF-8 -t UTF-8`, and "
            "give that file"
        )
    found = max(_ENCODINGS, key=lambda one: _fits(sample, one[1], one[2]))
    if _fits(sample, *found[1:]) > ENOUGH:
        return _convert(found[0], found[1])
    return (
        "and in no encoding that is known here; find out in which it is, and type `--set download.encoding=` and its "
        "name"
    )


def _convert(encoding: str, name: str = "") -> str:
    return (
        f"but seems to be {encoding}: type `--set download.encoding={name or _python(encoding)}`, or convert it with "
        f"`iconv -f {encoding} -t UTF-8` and give that file"
    )


def _python(encoding: str) -> str:
    """``utf-16-le`` of ``UTF-16LE``."""
    return re.sub("(?<=[0-9])(?=[lb]e$)", "-", encoding.lower())


def _wide(start: bytes) -> str:
    """``UTF-16`` or ``UTF-32``, with its byte order where no mark gives it; empty if ``start`` looks like neither."""
    if start.startswith(MARKS["utf-32"]):
        return "UTF-32"
    if start.startswith(MARKS["utf-16"]):
        return "UTF-16"
    # Mostly Western text: every other byte is NUL, the odd ones if the little end comes first.
    pairs = max(len(start) // 2, 1)
    if start[1::2].count(0) > 0.7 * pairs and start[::2].count(0) < 0.1 * pairs:
        return "UTF-16LE"
    if start[::2].count(0) > 0.7 * pairs and start[1::2].count(0) < 0.1 * pairs:
        return "UTF-16BE"
    return ""


def _readable(start: bytes, encoding: str) -> float:
    """The share of characters that are of scripts in use, once two bytes are taken for each."""
    text = start[: len(start) // 2 * 2].decode(encoding, "replace")
    return len(
        re.findall("[\t\n\r -~¡-\u06ff\u0900-\u0e7f\u2010-\u203f\u3000-\u30ff一-鿿가-힣\uff00-\uffef]", text)
    ) / len(text)


def _is_text(sample: bytes) -> bool:
    return _decoded(sample)[0] == 0 and _controls(sample) <= FEW


def _decoded(sample: bytes) -> tuple[int, int]:
    """Of UTF-8 that may be cut anywhere, how much cannot be decoded, and how many characters are not ASCII."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(sample.lstrip(bytes(range(0x80, 0xC0))))
    return text.count("\ufffd"), sum(map(len, re.findall(f"{_HIGH}+", text)))


def _controls(sample: bytes) -> float:
    """The share of control characters that no text has."""
    return len(re.findall(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]", sample)) / max(len(sample), 1)


def _fits(sample: bytes, codec: str, common: Callable[[bytes, str], int]) -> float:
    """The share of common characters among those outside of ASCII; 0 where it cannot be this encoding."""
    try:
        text = codecs.getincrementaldecoder(codec)().decode(sample)
    except UnicodeDecodeError:
        return 0.0
    return common(sample, text) / max(sum(map(len, re.findall(f"{_HIGH}+", text))), 1)
