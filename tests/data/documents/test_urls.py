"""Files of addresses, and the commands for what is not fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.corpus.catalogue import resolve
from data.documents.urls import LARGEST, fetching, read
from data.errors import CorpusError

LIST = "\ufeff# our texts\n\nhttps://example.org/a.txt  # the first\n\thttp://example.org/b.txt#part\r\n"


def test_an_address_in_each_line_and_comments(tmp_path: Path) -> None:
    (tmp_path / "our.urls").write_text(LIST, encoding="utf-8")
    assert read("our.urls", tmp_path / "our.urls") == ["https://example.org/a.txt", "http://example.org/b.txt#part"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no address; write one"),
        (b"# nothing\n", "holds no address"),
        (b"https://example.org/a\nexample.org/b", "line 2 of 'our.urls' is no http(s) address: 'example.org/b'"),
        (b"ftp://me:secret@h/b?token=secret", "line 1 of 'our.urls' is no http(s) address: 'ftp://…@h/b?token=…'"),
        (b"https://me:secret@example.org/a", "line 1 of 'our.urls': the address on example.org holds a user name or"),
        (b"https://example.org:99999/", "line 1 of 'our.urls': 'https://example.org:99999/' is not a usable"),
        (b"\xff", "is not UTF-8 text, as a file of addresses has to be"),
        (b"#" * (LARGEST + 1), "has more than the 1,048,576 bytes that a file of addresses may have"),
    ],
)
def test_refusals(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "our.urls").write_bytes(content)
    with pytest.raises(CorpusError) as refusal:
        read("our.urls", tmp_path / "our.urls")
    assert says in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_the_identity_is_of_the_addresses_without_secrets_and_of_nothing_else(tmp_path: Path) -> None:
    def identity(text: str) -> str:
        (tmp_path / "our.urls").write_text(text, encoding="utf-8")
        return resolve(str(tmp_path / "our.urls")).identity

    plain = identity("https://h/a?x=1\nhttps://h/b\n")
    assert plain.startswith("addresses:")
    assert identity("# signed anew\nhttps://h/a?x=1&token=abc\nhttps://h/b") == plain
    assert identity("https://h/b\nhttps://h/a?x=1\n") != plain
    assert identity("https://h/a?x=1\n") != plain


@pytest.mark.parametrize(
    ("address", "command"),
    [
        (
            "hf://datasets/me/tales",
            "`hf download me/tales --repo-type dataset --local-dir tales` and give --c",
        ),
        ("hf://datasets/me/tales@main/data/x.parquet", "`hf download me/tales --repo-type dataset --local-dir tales`"),
        ("hf://me/model", "`hf download me/model --local-dir model`"),
        ("hf://datasets/me/$(id)", "`hf download 'me/$(id)' --repo-type dataset --local-dir '$(id)'`"),
        ("gs://bucket/texts", "`gcloud storage cp --recursive gs://bucket/texts .`"),
        ("ftp://me:pw@host/a.txt", "`curl --remote-name 'ftp://…@host/a.txt'`"),
        ("s3://bucket/a.txt", "get the file yourself and give its path"),
        ("javascript://x", "get the file yourself and give its path"),
    ],
)
def test_what_is_not_fetched_is_refused_with_the_command_that_does(address: str, command: str) -> None:
    assert command in fetching(address)
    with pytest.raises(CorpusError, match="only http:// and https:// can be fetched; get") as refusal:
        resolve(address)
    assert command in str(refusal.value)
