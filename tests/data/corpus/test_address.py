"""Addresses: what is written of them, which text they stand for, and where they lead."""

from __future__ import annotations

import pytest

from data.corpus.address import identity, inside, written


@pytest.mark.parametrize(
    ("address", "shown", "text"),
    [
        ("https://h/a.txt?page=2#top", "https://h/a.txt?page=2#top", "https://h/a.txt?page=2"),
        ("https://h/a?page=2&access_token=abc", "https://h/a?page=2&access_token=…", "https://h/a?page=2"),
        ("https://h/a?X-Amz-Date=1&X-Amz-Signature=ab%2F", "https://h/a?X-Amz-Date=…&X-Amz-Signature=…", "https://h/a"),
        ("https://h/a?accesstoken=abc&keyword=sea", "https://h/a?accesstoken=…&keyword=sea", "https://h/a?keyword=sea"),
        ("https://h/a?b?client_secrets=abc", "https://h/a?b?client_secrets=…", "https://h/a"),
        ("https://h/a?sv=2&sig=abc", "https://h/a?sv=…&sig=…", "https://h/a"),
        ("https://h/a?sv=2", "https://h/a?sv=2", "https://h/a?sv=2"),
        ("https://h/a?token=${TOKEN}&page=2", "https://h/a?token=${TOKEN}&page=2", "https://h/a?page=2"),
        ("https://h/a?${SIGNED}", "https://h/a?${SIGNED}", "https://h/a"),
        ("https://h/a?token=${TOKEN}abc", "https://h/a?token=…", "https://h/a"),
        ("https://me:word@h/a", "https://…@h/a", "https://h/a"),
        ("https://${ME}:${WORD}@h/a", "https://${ME}:${WORD}@h/a", "https://h/a"),
        ("https://h/a#access_token=abc", "https://h/a#access_token=…", "https://h/a"),
        ("https:/h/a?token=abc", "https:/h/a?token=…", "https:/h/a?token=abc"),
        ("what?key=1.txt", "what?key=1.txt", "what?key=1.txt"),
    ],
)
def test_what_is_secret_is_neither_written_nor_part_of_what_a_text_is_called(
    address: str, shown: str, text: str
) -> None:
    assert written(address) == shown
    assert identity(address) == text
    assert identity(shown) == identity(address) or not text.startswith("https://")


def test_bytes_that_are_no_text_are_told_apart() -> None:
    assert identity("http://h/?a=\udcff") != identity("http://h/?a=\udcfe")


def test_a_long_address_is_read_in_a_moment() -> None:
    """And not in the square of its length: this one would take a minute."""
    assert written(f"https://h/?{'a' * 100_000}").endswith("aaa")


@pytest.mark.parametrize(
    ("host", "is_inside"),
    [
        *[(host, True) for host in ("127.0.0.1", "localhost", "::1", "10.1.2.3", "192.168.1.1", "169.254.169.254")],
        *[(host, True) for host in ("0.0.0.0", "100.64.0.1", "fe80::1", "::ffff:127.0.0.1", "2130706433", "127.1")],
        *[
            (host, True)
            for host in ("::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "fec0::1", "224.0.0.1")
        ],
        *[(host, False) for host in ("64:ff9b::5db8:d70e", "2002:5db8:d70e::1", "::ffff:93.184.215.14")],
        *[(host, False) for host in ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "a..b")],
    ],
)
def test_what_lies_inside(host: str, is_inside: bool) -> None:
    assert inside(host) is inside(host, wholly=True) is is_inside
