"""The download stage: what it writes, what it carries over, and that a refusal leaves nothing behind."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from data.corpus.catalogue import Source, resolve
from data.corpus.fetch import Patience
from data.errors import CorpusError, RnnlmError
from stages import download as stage
from stages.config import DownloadConfig
from stages.download import download, obtain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from data.progress import Progress
    from tests.conftest import Rnnlm, Server

TEXT = "One line of a corpus, and é.\n".encode() * 10_000
HASTE = Patience(attempts=4, connect=2, read=0.3, wait=0.01, wait_max=0.05)


def silent(done: float, total: float, figures: str) -> None:
    """Progress that nobody looks at."""


def fetched(out: Path, *addresses: str, sha256: str | None = None, previous: Path | None = None) -> bytes:
    """The text that the stage makes of these addresses."""
    out.mkdir(exist_ok=True)
    source = Source("test", addresses, None, sha256)
    obtain(source, out=out, progress=silent, patience=HASTE, previous=previous)
    assert sorted(path.name for path in out.iterdir()) == ["corpus.txt", "source.json"]
    return (out / "corpus.txt").read_bytes()


def copied(folder: Path, corpus: Path, progress: Progress = silent, previous: Path | None = None) -> Path:
    """The folder that the stage fills from a local file."""
    out = folder / "out"
    out.mkdir()
    download(DownloadConfig(corpus=str(corpus)), out=out, progress=progress, previous=previous)
    return out


def record(out: Path) -> dict[str, Any]:
    """What the stage noted of where the text is from."""
    noted: dict[str, Any] = json.loads((out / "source.json").read_text(encoding="utf-8"))
    return noted


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


# --- what an address sends


def test_a_good_address(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: h.body(TEXT))
    download(DownloadConfig(corpus=address), out=tmp_path, progress=silent)
    assert (tmp_path / "corpus.txt").read_bytes() == TEXT
    noted = record(tmp_path)
    assert noted.pop("when").endswith("+00:00")
    assert noted == {"name": address, "address": address, "sha256": sha(TEXT), "bytes": len(TEXT)}


def test_byte_order_mark_and_line_ends_stay(server: Server, tmp_path: Path) -> None:
    body = b"\xef\xbb\xbfone\r\ntwo\rthree\n\n"
    assert fetched(tmp_path, server.route("/a", lambda h, _: h.body(body)), sha256=sha(body)) == body


def test_an_archive_is_unpacked(server: Server, tmp_path: Path) -> None:
    packed = gzip.compress(TEXT, mtime=0)
    assert fetched(tmp_path, server.route("/a.txt", lambda h, _: h.body(packed)), sha256=sha(packed)) == TEXT
    noted = record(tmp_path)
    assert (noted["sha256"], noted["bytes"], noted["text_sha256"]) == (sha(packed), len(packed), sha(TEXT))


def test_the_mirror_that_sent_it_is_noted(server: Server, tmp_path: Path) -> None:
    missing = server.route("/missing", lambda h, _: h.body(b"", 404))
    good = server.route("/good", lambda h, _: h.body(TEXT))
    assert fetched(tmp_path, missing, good, sha256=sha(TEXT)) == TEXT
    assert record(tmp_path)["address"] == good


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "sent an empty body"),
        (TEXT[:-1] + b"\xff", "is not UTF-8 text"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (gzip.compress(TEXT, mtime=0)[:-8], "damaged gzip file"),
        (gzip.compress(b"a" * 1_000_001, mtime=0), "unpacks to more than the 1,000,000 bytes"),
        (b"a" * 1_000_001, "sends more than the 1,000,000 bytes"),
    ],
    ids=["nothing", "no text", "packed nothing", "damaged", "bomb", "too large"],
)
def test_a_refusal_leaves_neither_record_nor_leftovers(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, says: str
) -> None:
    monkeypatch.setattr(stage, "MAX_BYTES", 1_000_000)
    address = server.route("/a", lambda h, _: h.body(body))
    with pytest.raises(CorpusError, match=says):
        fetched(tmp_path, address)
    assert {path.name for path in tmp_path.iterdir()} <= {"corpus.txt"}


# --- what was fetched before

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
VERSIONS = {"strong": {"ETag": '"1"'}, "weak": {"ETag": 'W/"1"'}}


def earlier(out: Path, address: str) -> Path:
    """A first download of an address, some time ago."""
    fetched(out, address)
    (out / "source.json").write_text(json.dumps(record(out) | {"when": "2026-01-02T03:04:05+00:00"}), encoding="utf-8")
    return out


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_an_unchanged_file_is_carried_over(
    server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    version: dict[str, str],
    pack: Callable[[bytes], bytes],
) -> None:
    caplog.set_level(logging.INFO)
    address = server.route("/a", lambda h, _: h.versioned(pack(TEXT), **version))
    first = earlier(tmp_path / "first", address)
    sent = server.sent
    assert fetched(tmp_path / "second", address, previous=first) == TEXT
    assert server.sent == sent
    assert server.conditions()[0] == {}
    assert list(server.conditions()[1].values()) == list(version.values())
    assert "test: unchanged since 2026-01-02 03:04 UTC" in caplog.text
    second = record(tmp_path / "second")
    assert second.pop("checked") > second["when"] == "2026-01-02T03:04:05+00:00"
    assert second == record(first)

    # and once more, from what was carried over
    assert fetched(tmp_path / "third", address, previous=tmp_path / "second") == TEXT
    assert record(tmp_path / "third")["when"] == second["when"]
    assert server.sent == sent


def test_the_stage_takes_what_it_made_before(server: Server, tmp_path: Path) -> None:
    config = DownloadConfig(corpus=server.route("/a", lambda h, _: h.versioned(TEXT, ETag='"1"')))
    for name, previous in ("first", None), ("second", tmp_path / "first"):
        (tmp_path / name).mkdir()
        download(config, out=tmp_path / name, progress=silent, previous=previous)
    assert (tmp_path / "second" / "corpus.txt").samefile(tmp_path / "first" / "corpus.txt")
    assert server.sent == len(TEXT)


def test_a_file_system_without_links(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    address = server.route("/a", lambda h, _: h.versioned(TEXT, ETag='"1"'))
    assert fetched(tmp_path / "second", address, previous=earlier(tmp_path / "first", address)) == TEXT
    assert not (tmp_path / "second" / "corpus.txt").samefile(tmp_path / "first" / "corpus.txt")


def test_a_changed_file_replaces_the_earlier_one(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: h.versioned(TEXT, ETag='"1"', Last_Modified=DATE))
    first = earlier(tmp_path / "first", address)
    server.route("/a", lambda h, _: h.versioned(b"a new chapter", ETag='"2"', Last_Modified=DATE.replace("21", "22")))
    assert fetched(tmp_path / "second", address, previous=first) == b"a new chapter"
    assert (first / "corpus.txt").read_bytes() == TEXT
    second = record(tmp_path / "second")
    assert second["when"] > record(first)["when"]
    assert (second["sha256"], second["etag"]) == (sha(b"a new chapter"), '"2"')
    assert "checked" not in second


def test_a_server_that_knows_no_versions_sends_all_again(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    address = server.route("/a", lambda h, _: h.body(TEXT))
    first = earlier(tmp_path / "first", address)
    assert fetched(tmp_path / "second", address, previous=first) == TEXT
    assert server.conditions()[1] == {}
    assert "sent again, but unchanged since 2026-01-02 03:04 UTC" in caplog.text
    assert record(tmp_path / "second").pop("checked") > record(tmp_path / "second")["when"] == record(first)["when"]


def test_a_known_content_needs_no_request(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    address = server.route("/a", lambda h, _: h.versioned(TEXT, ETag='"1"'))
    first = earlier(tmp_path / "first", address)
    assert fetched(tmp_path / "second", address, sha256=sha(TEXT), previous=first) == TEXT
    assert len(server.asked()) == 1
    assert record(tmp_path / "second") == record(first)
    assert "test: unchanged since 2026-01-02 03:04 UTC" in caplog.text

    new = server.route("/a", lambda h, _: h.head(304) if h.headers["If-None-Match"] else h.body(b"new"))
    assert fetched(tmp_path / "third", new, sha256=sha(b"new"), previous=first) == b"new"


# --- secrets

SECRET = "s3cr3t"


def everything(folder: Path) -> str:
    """All that lies in a folder, as text."""
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def test_what_the_environment_holds_is_asked_with_and_written_nowhere(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, "")
    monkeypatch.setenv("CORPUS_TOKEN", f"{SECRET}\n")
    path = f"/a?part=1&token={SECRET}"
    server.route(path, lambda h, n: h.body(TEXT) if n else h.body(b"", 503))
    address = server.route("/a", lambda h, _: h.body(b"", 404))
    config = DownloadConfig(
        corpus=address + "?part=1&token=${CORPUS_TOKEN}", headers=("Authorization: Bearer ${CORPUS_TOKEN}",)
    )
    monkeypatch.setattr("data.corpus.fetch.time.sleep", lambda seconds: None)
    download(config, out=tmp_path, progress=silent)
    assert server.asked(path)[0]["Authorization"] == f"Bearer {SECRET}"
    assert record(tmp_path)["address"] == record(tmp_path)["name"] == config.corpus
    assert "attempt 2 of 4" in caplog.text
    assert SECRET not in caplog.text + everything(tmp_path)


def test_a_signature_in_an_address_is_written_nowhere_and_another_one_is_the_same_text(
    server: Server, tmp_path: Path, here: Rnnlm
) -> None:
    paths = [f"/a.txt?page=2&X-Amz-Date={number}&X-Amz-Signature={SECRET}{number}" for number in range(3)]
    addresses = [server.route(path, lambda h, _: h.versioned(TEXT, ETag='"1"')) for path in paths]
    said = here("download", "--corpus", addresses[0]).stdout
    said += here("status", "--corpus", addresses[1]).stdout
    assert "cached" in said
    said += here("explain", "download", "--corpus", addresses[1]).stdout
    # under another label the text is asked for by the new address, and known by what the old one was
    said += here("download", "--corpus", addresses[1], "--set", "download.as_of=later").stdout
    assert server.conditions(paths[1]) == [{"If-None-Match": '"1"'}]
    server.route(paths[2], lambda h, _: h.body(b"", 404))
    refusal = here("download", "--corpus", addresses[2], "--set", "download.as_of=even later", code=2).stderr
    assert "/a.txt?page=2&X-Amz-Date=…&X-Amz-Signature=… answered with status 404" in refusal
    assert SECRET not in said + refusal + everything(tmp_path)


@pytest.mark.parametrize("same", [True, False], ids=["the same host", "another host"])
def test_headers_are_for_who_is_asked_and_nobody_else(server: Server, tmp_path: Path, same: bool) -> None:
    there = server.route("/b", lambda h, _: h.body(TEXT))
    target = there if same else there.replace("127.0.0.1", "localhost")
    address = server.route("/a", lambda h, _: h.body(b"", 302, Location=target))
    download(DownloadConfig(corpus=address, headers=("X-Team: letters",)), out=tmp_path, progress=silent)
    assert server.asked("/a")[0]["X-Team"] == "letters"
    assert ("X-Team" in server.asked("/b")[0]) is same


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"corpus": "http://h/a?key=${NOWHERE}"}, r"takes the environment variable NOWHERE, which is not set"),
        ({"corpus": "http://h/a?key=${BROKEN}"}, r"variable BROKEN, whose characters do not fit there"),
        ({"corpus": "http://h/a", "headers": ("Cookie: ${NOWHERE}",)}, "the header Cookie takes .* NOWHERE"),
        ({"corpus": "http://h/a", "headers": ("Authorization: s3cr3t",)}, r"write Authorization: \$\{NAME\}"),
        ({"corpus": "http://h/a", "headers": ("Accept: a", "s3cr3t")}, "line 2 is no header; write it as Name: value"),
    ],
)
def test_what_cannot_be_filled_in_is_named_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], says: str
) -> None:
    monkeypatch.setenv("BROKEN", f"{SECRET} \n{SECRET}")
    with pytest.raises(RnnlmError, match=says) as refusal:
        download(DownloadConfig(**fields), out=tmp_path, progress=silent)
    assert SECRET not in str(refusal.value)


# --- local files


def test_a_local_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_bytes(TEXT)
    told: list[tuple[float, float, str]] = []
    out = copied(tmp_path, mine, lambda *figures: told.append(figures))
    assert (out / "corpus.txt").read_bytes() == mine.read_bytes() == TEXT
    noted = record(out)
    assert noted.pop("when")
    assert noted == {"name": str(mine), "file": "mine.txt", "sha256": sha(TEXT), "bytes": len(TEXT)}
    assert told[-1][:2] == (len(TEXT), len(TEXT))


def test_a_local_file_is_read_again_whatever_was_before(server: Server, tmp_path: Path) -> None:
    first = earlier(tmp_path / "first", server.route("/a", lambda h, _: h.versioned(TEXT, ETag='"1"')))
    mine = tmp_path / "mine.txt"
    mine.write_bytes(TEXT)
    out = copied(tmp_path, mine, previous=first)
    assert record(out).keys() == {"name", "file", "sha256", "bytes", "when"}
    assert not (out / "corpus.txt").samefile(first / "corpus.txt")
    assert len(server.asked()) == 1


def test_a_local_archive_is_unpacked(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(gzip.compress(TEXT))
    assert (copied(tmp_path, mine) / "corpus.txt").read_bytes() == TEXT


def test_a_process_substitution_is_unpacked(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, gzip.compress(TEXT))
    os.close(write)
    download(DownloadConfig(corpus=f"/dev/fd/{read}"), out=tmp_path, progress=silent)
    os.close(read)
    assert (tmp_path / "corpus.txt").read_bytes() == TEXT
    assert record(tmp_path)["name"] == f"/dev/fd/{read}"


def test_a_local_html_page_is_text_and_said_to_be_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = tmp_path / "mine.html"
    mine.write_bytes(b"\xef\xbb\xbf\n<!DOCTYPE html><html>mine</html>")
    assert (copied(tmp_path, mine) / "corpus.txt").read_bytes() == mine.read_bytes()
    assert f"{mine} is an HTML page: its tags are learnt like all else in it" in caplog.text


def test_a_local_file_that_changes_or_vanishes(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    source = Source(str(mine), (), mine, sha(b"as it was"))
    mine.write_bytes(b"as it is")
    with pytest.raises(CorpusError, match=r"mine.txt' changed while it was read"):
        obtain(source, out=tmp_path, progress=silent)
    mine.unlink()
    with pytest.raises(CorpusError, match=r"mine.txt' cannot be read: No such file"):
        obtain(source, out=tmp_path, progress=silent)


@pytest.mark.parametrize("grows", ["while it is resolved", "while it is copied"])
def test_a_file_that_never_stops_growing_is_read_to_where_it_ended(tmp_path: Path, grows: str) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_bytes(TEXT)

    def grow(*_: object) -> None:
        with mine.open("ab") as file:
            file.write(TEXT)

    if grows == "while it is copied":
        assert (copied(tmp_path, mine, grow) / "corpus.txt").read_bytes() == TEXT
    else:
        assert resolve("/proc/self/pagemap").sha256 == sha(b"")  # whose size the system does not say, nor an end


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    os.mkfifo(mine)
    with pytest.raises(CorpusError, match=r"mine.txt' changed while it was read"):
        obtain(Source(str(mine), (), mine, sha(TEXT)), out=tmp_path, progress=silent)


def test_an_empty_local_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.touch()
    with pytest.raises(CorpusError, match=r"mine.txt' is empty"):
        copied(tmp_path, mine)


def test_a_failing_disk_is_not_blamed_on_the_corpus(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_bytes(TEXT)
    with pytest.raises(FileNotFoundError):
        download(DownloadConfig(corpus=str(mine)), out=tmp_path / "no such folder", progress=silent)
