"""What a corpus means: the catalogue, addresses, local files, and what each refusal says."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from data.corpus import catalogue as corpora
from data.corpus.catalogue import catalogue, resolve
from data.errors import CorpusError

REAL = Path(__file__).parents[3].parent / "shared" / "corpora"


@pytest.mark.parametrize("name", ["timemachine", "tinyshakespeare"])
def test_a_local_copy_has_the_identity_of_the_catalogue_name(name: str) -> None:
    copy = REAL / f"{name}.txt"
    if not copy.exists():
        pytest.skip(f"the real corpus {name} is not here")
    assert resolve(str(copy)).identity == resolve(name).identity


def test_the_catalogue_pins_every_corpus_that_is_fetched() -> None:
    entries = catalogue()
    assert list(entries) == ["sample", "timemachine", "tinyshakespeare"]
    for entry in entries.values():
        assert entry.title
        assert entry.licence
        if entry.file is None:
            assert len(entry.sha256 or "") == 64
            assert entry.addresses[0].startswith("https://")


def test_a_catalogue_name_wins_over_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("timemachine").write_text("mine", encoding="utf-8")
    assert resolve("timemachine").path is None
    assert resolve("./timemachine").sha256 == hashlib.sha256(b"mine").hexdigest()


def test_a_packaged_corpus_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = tmp_path / "corpora.toml"
    toml.write_text('[ours]\ntitle = "t"\nlicence = "MIT"\nfile = "ours.txt"\n', encoding="utf-8")
    monkeypatch.setattr(corpora, "CATALOGUE", toml)
    with pytest.raises(CorpusError, match="packaged corpus 'ours' is missing"):
        resolve("ours")
    (tmp_path / "ours.txt").write_text("our text", encoding="utf-8")
    source = resolve("ours")
    assert source.path == tmp_path / "ours.txt"
    assert source.identity == "sha256:" + hashlib.sha256(b"our text").hexdigest()


def test_an_address_is_its_own_identity() -> None:
    source = resolve("HTTPS://example.org/a.txt?b=c")
    assert source.addresses == ("HTTPS://example.org/a.txt?b=c",)
    assert source.identity == "https://example.org/a.txt?b=c"
    assert source.path is None
    assert source.sha256 is None


def test_the_home_directory_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    assert resolve("~/a.txt").path == tmp_path / "a.txt"


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ("timemachin", "no corpus or file is called 'timemachin'; did you mean 'timemachine'"),
        ("zzz", r"no corpus or file is called 'zzz'; give a name of the catalogue \(sample, timemachine"),
        ("https:/example.org/a?page=1&token=abc", r"no corpus file 'https:/example.org/a\?page=1&token=…'"),
        ("no/such/file.txt", "there is no corpus file 'no/such/file.txt'"),
        ("no/*.txt", r"there is no corpus file 'no/\*.txt'"),
        ("example.org?token=abc", r"no file is called as 'example.org\?token=…' says"),
        ("*.nothing", r"no file is called as '\*.nothing' says"),
        (os.devnull, "not a regular file"),
        ("a\0b", "cannot be used"),
        ("n" * 5000, "cannot be used"),
        ("~nobody-of-that-name/a.txt", "cannot be used"),
        ("ftp://example.org/a.txt", "scheme ftp://, but only http:// and https://"),
        ("file://host/a.txt", "scheme file://"),
        ("file:///nowhere/caf\udce9.txt", "there is no corpus file 'file:///nowhere/caf"),
        ("s3://bucket/a.txt", "scheme s3://"),
        ("http://", "not a usable"),
        ("http:///a.txt", "not a usable"),
        ("http://[::1/a.txt", "not a usable"),
        ("http://example.org:99999/", "not a usable"),
        ("http://example.org/a b", "not a usable"),
        ("http://example.org/a\n", "not a usable"),
    ],
)
def test_refusals(corpus: str, says: str) -> None:
    with pytest.raises(CorpusError, match=says) as refusal:
        resolve(corpus)
    assert "\n" not in str(refusal.value)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(CorpusError, match=r"example\.org holds a user name or password") as refusal:
        resolve("https://me:secret@example.org/a.txt")
    assert "secret" not in str(refusal.value)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path = tmp_path / "a.txt"
    path.write_text("a", encoding="utf-8")
    monkeypatch.setattr(os, "open", denied)  # a mode of 000 would not stop root
    with pytest.raises(CorpusError, match=r"a\.txt' cannot be read: Permission denied"):
        resolve(str(path))


def test_a_file_that_no_corpus_can_be_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorpusError, match=r"a\.txt' has 1,099,511,627,776 bytes, more than the 4,294,967,296 that a"):
        resolve(str(path))
