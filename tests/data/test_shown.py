"""What a terminal may be shown: no text that a user or a corpus brings commands it or passes for a line of ours."""

from __future__ import annotations

import pytest

from data import shown
from data.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("over\rwritten", r"over\rwritten"),
        ("\u202egnp.exe\u2028", r"\u202egnp.exe\u2028"),
        ("caf\udce9", r"caf\xe9"),
        ("two\n\tlines", "two\n\tlines"),
        ("Ελληνικά नमस्ते 👩‍🚀", "Ελληνικά नमस्ते 👩‍🚀"),
    ],
)
def test_what_commands_a_terminal_is_spelt_out(text: str, seen: str) -> None:
    assert shown.visible(text) == seen


def test_a_line_is_one_and_not_endless() -> None:
    assert shown.line("a\nrnnlm: b\t") == r"a\nrnnlm: b\t"
    long = shown.line("the value " + "x" * 100_000 + " does not fit")
    assert len(long) < 1100
    assert long.startswith("the value x")
    assert long.endswith("x does not fit")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("no 'http://me:word@h/a?page=1&token=abc', it says", "no 'http://…@h/a?page=1&token=…', it says"),
        ("1. --set x=ftp://me@h https://h/?sig=a#b s3://b/x", "1. --set x=ftp://…@h https://h/?sig=…#b s3://b/x"),
        ("http://h/?token=" + "a" * 100_000, "http://h/?token=…"),
        ("a" * 100_000 + "://me@h", None),
    ],
    ids=["quoted", "several", "long", "no scheme"],
)
def test_a_line_holds_no_secret_of_an_address(text: str, seen: str | None) -> None:
    assert shown.line(text).endswith(seen or "://…@h")


def test_an_error_is_one_line_whatever_it_names() -> None:
    assert str(ConfigError("no file a\nrnnlm: all is well\x1b[0m")) == r"no file a\nrnnlm: all is well\x1b[0m"
