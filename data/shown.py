"""Text as people may be shown it: what would command their terminal, or pass for a line of ours, is spelt out."""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters of a sentence or of a log line; of a longer one the middle is left out."""
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for the tab and the newline
    "\u2028\u2029"  # ends of a line and of a paragraph
    "\u202a-\u202e\u2066-\u2069"  # what turns the direction of the text after it
    "\ud800-\udfff]"  # halves of pairs, and what stands for a byte that is not UTF-8
)
_BREAKS = re.compile("[\t\n]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}:/[^\s'\"`<>]*")


def visible(text: str) -> str:
    """A text of several lines in which nothing commands a terminal: an escape becomes the four characters ``\\x1b``."""
    return _COMMANDS.sub(_spelt, text)


def line(text: str) -> str:
    """The same on one line, of no more than `LONGEST` characters, and without what is secret in an address: a file's or
    a field's name may hold anything."""
    if ":/" in text:
        from data.corpus.address import written  # whose errors are shown by this

        text = _ADDRESS.sub(lambda found: written(found[0]), text)
    if len(text) > LONGEST:
        left_out = len(text) - LONGEST
        text = f"{text[: LONGEST * 2 // 3]} … {left_out:,} characters … {text[-LONGEST // 3 :]}"
    return _BREAKS.sub(_spelt, visible(text))


def escaped(text: str) -> str:
    """JSON that says the same, and in which nothing commands a terminal: an escape becomes the six ``\\u001b``."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _spelt(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # the byte that it stands for
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(found[0]) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    )
