"""The download stage on many documents: a folder, a pattern, tables, archives and lists of addresses, as one text."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import logging
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from data.corpus.catalogue import resolve
from data.corpus.fetch import Patience
from data.documents.columns import Columns
from data.documents.reader import Reading
from data.errors import CorpusError
from data.tables.documents import Documents
from stages import download as stage
from stages.config import DownloadConfig
from stages.download import download, obtain

if TYPE_CHECKING:
    from tests.conftest import Route, Server

HASTE = Patience(attempts=2, connect=2, read=0.3, wait=0.01, wait_max=0.05)


def silent(done: float, total: float, figures: str) -> None:
    """Progress that nobody looks at."""


def read(out: Path) -> dict[str, str]:
    """Name → text of each document that lies in a folder, in their order; the text is these and nothing else."""
    assert sorted(path.name for path in out.iterdir()) == ["corpus.txt", "documents.arrow", "source.json"]
    text, table = (out / "corpus.txt").read_bytes(), Documents.read(out / "documents.arrow")
    found, left = {}, text
    for name, start, size, digest in zip(table.names, table.starts, table.sizes, table.digests, strict=True):
        piece = text[start : start + size]
        assert hashlib.sha256(piece).digest() == digest
        left = left.removeprefix(piece if piece.endswith(b"\n") else piece + b"\n")
        found[name] = piece.decode()
    assert left == b""
    assert len(found) == len(table) == record(out)["documents"]
    return found


def record(out: Path) -> dict[str, Any]:
    noted: dict[str, Any] = json.loads((out / "source.json").read_text(encoding="utf-8"))
    return noted


def made(folder: Path, corpus: Path | str, **fields: str) -> dict[str, str]:
    """The documents that the stage makes of a corpus."""
    out = folder / "out"
    if out.exists():
        for path in out.iterdir():
            path.unlink()
    out.mkdir(exist_ok=True)
    download(DownloadConfig.model_validate({"corpus": str(corpus), **fields}), out=out, progress=silent)
    return read(out)


def refused(folder: Path, corpus: Path | str, **fields: str) -> str:
    """What is said of a corpus, of which nothing is kept."""
    with pytest.raises(CorpusError) as refusal:
        made(folder, corpus, **fields)
    assert "\n" not in str(refusal.value)
    assert {path.name for path in (folder / "out").iterdir()} <= {"corpus.txt"}
    return str(refusal.value)


def filled(folder: Path, **files: str | bytes) -> Path:
    """A folder with files, whose names have `_` for each dot and `__` for each slash."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def zipped(**files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, body in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), body)
    return packed.getvalue()


def tarred(**files: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name.replace("__", "/").replace("_", "."))
            info.size = len(body.encode())
            archive.addfile(info, io.BytesIO(body.encode()))
    return packed.getvalue()


def test_a_folder_of_chapters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chapters = {"two_txt": "Two,\r\nwith no end", "one_md": "One.\n", "part__three_txt": "\ufeffThree, é.\n\n"}
    folder = filled(tmp_path / "book", **chapters, blank_txt=" \n\u3000\n", empty_txt="", photo_jpg=b"\xff\xd8")
    texts = {"one.md": "One.\n", "part/three.txt": "Three, é.\n\n", "two.txt": "Two,\r\nwith no end"}
    assert list(made(tmp_path, folder).items()) == list(texts.items())
    assert (tmp_path / "out" / "corpus.txt").read_bytes() == "One.\nThree, é.\n\nTwo,\r\nwith no end\n".encode()
    noted = record(tmp_path / "out")
    assert (noted["file"], noted["files"], noted["documents"], noted["empty"], noted["left_out"]) == (
        "book",
        5,
        3,
        2,
        1,
    )
    assert noted["sha256"] == resolve(str(folder)).sha256
    assert "documents without text that are left out: 2" in caplog.text
    assert made(tmp_path, f"{folder}/*.txt") == {"two.txt": texts["two.txt"]}


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    folder = filled(tmp_path / "book", b_txt="b", a_txt="a")
    written = []
    for _ in range(2):
        made(tmp_path, folder)
        written.append([(tmp_path / "out" / name).read_bytes() for name in ("corpus.txt", "documents.arrow")])
    assert written[0] == written[1]


def test_one_file_in_a_folder_is_one_of_many_and_one_file_is_not(tmp_path: Path) -> None:
    folder = filled(tmp_path / "book", a_txt="Alone.")
    assert made(tmp_path, folder) == {"a.txt": "Alone."}
    (tmp_path / "alone").mkdir()
    download(DownloadConfig(corpus=str(folder / "a.txt")), out=tmp_path / "alone", progress=silent)
    assert {path.name for path in (tmp_path / "alone").iterdir()} == {"corpus.txt", "source.json"}
    assert (tmp_path / "alone" / "corpus.txt").read_bytes() == b"Alone."


def test_a_folder_may_hold_packed_texts_tables_and_archives(tmp_path: Path) -> None:
    folder = filled(
        tmp_path / "all",
        a_txt_gz=gzip.compress(b"packed"),
        b_jsonl='{"text": "one"}\n{"text": null}\n{"text": "three"}\n',
        c_zip=zipped(x_txt="x", y_csv="text\nrow\n"),
        d_tar_gz=gzip.compress(tarred(deep__z_txt="z")),
        e_txt="plain",
    )
    assert list(made(tmp_path, folder).items()) == [
        ("a.txt.gz", "packed"),
        ("b.jsonl:1", "one"),
        ("b.jsonl:3", "three"),
        ("c.zip/x.txt", "x"),
        ("c.zip/y.csv:1", "row"),
        ("d.tar.gz/deep/z.txt", "z"),
        ("e.txt", "plain"),
    ]


def test_packed_texts_of_a_folder_are_whole(tmp_path: Path) -> None:
    text = "".join(random.Random(0).choices("abcdefghij é\n", k=700_000)) + "end\n"
    body = text.encode()
    zstd = pa.compress(body, "zstd", asbytes=True)
    folder = filled(tmp_path / "all", a=gzip.compress(body), b=bz2.compress(body), c=lzma.compress(body), d=zstd)
    found = made(tmp_path, folder)
    assert [*found] == ["a", "b", "c", "d"]
    assert {*found.values()} == {text}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", b'{"body": "one", "n": 2}\n{"body": "two", "n": 1}\n{"body": ""}\n'),
        ("t.jsonl.gz", gzip.compress(b'{"body": "one", "n": 2}\n{"body": "two", "n": 1}\n{"body": ""}\n', mtime=0)),
        ("t.csv", b"n,body\n2,one\n1,two\n3,\n"),
        ("t.csv.gz", gzip.compress(b"n,body\n2,one\n1,two\n3,\n", mtime=0)),
        ("t.CSV", b"n,body\n2,one\n1,two\n3,\n"),
    ],
)
def test_a_table_is_a_document_for_each_row(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert made(tmp_path, tmp_path / name, text_column="body") == {f"{name}:1": "one", f"{name}:2": "two"}
    ordered = made(tmp_path, tmp_path / name, text_column="body", order_column="n")
    assert list(ordered.items()) == [(f"{name}:2", "two"), (f"{name}:1", "one")]
    assert record(tmp_path / "out")["empty"] == 1
    says = refused(tmp_path, tmp_path / name)
    assert f"{name}' has no column 'text': its columns are " in says
    assert "--set download.text_column=" in says


def test_tables_below_a_folder_are_ordered_together(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard, days in enumerate(([3, 1], [2, 1])):
        table = pa.table({"text": [f"{shard}-{day}" for day in days], "day": days})
        parquet.write_table(table, folder / f"{shard}.parquet")
    assert [*made(tmp_path, folder / "*.parquet", order_column="day").values()] == ["0-1", "1-1", "1-2", "0-3"]
    filled(folder, note_txt="without a day")
    assert "has 1 rows of 5 without a value in the column that" in refused(tmp_path, folder, order_column="day")


def test_columns_of_a_corpus_without_tables_are_said_to_be_of_no_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, filled(tmp_path / "book", a_txt="a"), text_column="body")
    assert "has no table: download.text_column and download.order_column say nothing of it" in caplog.text


@pytest.mark.parametrize("pack", [zipped, tarred, lambda **files: gzip.compress(tarred(**files))])
def test_an_archive_is_a_document_for_each_member(tmp_path: Path, pack: Callable[..., bytes]) -> None:
    path = tmp_path / "letters"  # whatever it is called
    path.write_bytes(pack(b_txt="b", a__x_txt="x", a_txt="a"))
    assert list(made(tmp_path, path).items()) == [("a.txt", "a"), ("a/x.txt", "x"), ("b.txt", "b")]
    path.write_bytes(pack(b_txt="b", a_dat="\x00\x01\x02\x03"))
    assert refused(tmp_path, path).startswith(f"'a.dat' of corpus '{path}' is not UTF-8 text (byte 0, in line 1) ")
    path.write_bytes(pack(b_jpg="b", a_png="a"))
    assert "is an archive with no file that may be text" in refused(tmp_path, path)


def test_one_text_in_a_zip_is_that_text_and_one_table_its_rows(tmp_path: Path) -> None:
    path, out = tmp_path / "a.zip", tmp_path / "alone"
    out.mkdir()
    path.write_bytes(zipped(story_txt="Alone."))
    download(DownloadConfig(corpus=str(path)), out=out, progress=silent)
    assert {path.name for path in out.iterdir()} == {"corpus.txt", "source.json"}
    path.write_bytes(zipped(reviews_csv="text\none\ntwo\n"))
    assert made(tmp_path, path) == {"reviews.csv:1": "one", "reviews.csv:2": "two"}


def test_encodings(tmp_path: Path) -> None:
    folder = filled(tmp_path / "old", a_txt="déjà\n".encode("cp1252"), b_csv="text\nça\n".encode("cp1252"))
    says = refused(tmp_path, folder)
    assert says.startswith(
        f"'a.txt' of corpus '{folder}' is not UTF-8 text (byte 1, in line 1) but seems to be WINDOWS"
    )
    assert "--set download.encoding=cp1252" in says
    assert made(tmp_path, folder, encoding="cp1252") == {"a.txt": "déjà\n", "b.csv:1": "ça"}
    (folder / "b.csv").unlink()
    (folder / "a.txt").write_bytes("déjà\n".encode("utf-16"))
    assert made(tmp_path, folder, encoding="utf-16") == {"a.txt": "déjà\n"}


def test_one_text_in_another_encoding(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("déjà\n".encode("latin-1")))
    download(DownloadConfig(corpus=str(tmp_path / "a.txt.gz"), encoding="latin-1"), out=out, progress=silent)
    assert (out / "corpus.txt").read_bytes() == "déjà\n".encode()
    assert record(out)["text_sha256"] == hashlib.sha256("déjà\n".encode()).hexdigest()
    assert {path.name for path in out.iterdir()} == {"corpus.txt", "source.json"}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a_txt": "", "b_txt": " "}, "has no text, for all of its 2 documents are empty; give one that has"),
        ({"a_txt": "text", "b_bin2": b"\x00\xff\x01"}, "'b.bin2' of corpus"),
        ({"a_jsonl": '{"text": "a"}\n{"text": 7}'}, "a.jsonl' has in row 2 no text in the column 'text' but 7"),
        ({"a_jsonl": '{"text": "a\\u0000b"}'}, "row 1 of corpus"),
        ({"a_zip": zipped(b_zip="PK\x03\x04" + "\x00" * 30, c_txt="c")}, "'a.zip/b.zip' of corpus"),
        ({"a_gz": gzip.compress(b"a" * 100, mtime=0)[:-4]}, "a.gz' is a damaged gzip file"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, files: dict[str, str | bytes], says: str) -> None:
    assert says in refused(tmp_path, filled(tmp_path / "in", **files))


@pytest.mark.parametrize(
    "files",
    [
        {"a_txt": "a" * 60_000, "b_txt": "a" * 60_000},
        {"a_gz": gzip.compress(b"a" * 300_000, mtime=0)},
        {"a_gz": gzip.compress(b" " * 300_000, mtime=0), "b_txt": "b"},
        {"a_zip": zipped(a_txt="a" * 60_000, b_txt="a" * 60_000)},
        {"a_csv_gz": gzip.compress(b"n,text\n" + b"1,a\n" * 100_000, mtime=0)},
        {"a_tar_gz": gzip.compress(tarred(a_txt="a" * 300_000))},
        {"a_jsonl": ('{"text": "' + "a" * 90 + '"}\n') * 2000},
    ],
    ids=["texts", "packed", "packed blanks", "zip", "packed table", "packed tar", "rows"],
)
def test_more_than_a_corpus_may_have(
    tmp_path: Path, files: dict[str, str | bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "MAX_BYTES", 100_000)
    assert "more than the 100,000 bytes that a corpus may have" in refused(tmp_path, filled(tmp_path / "in", **files))


def test_many_bombs_of_blanks_stop_at_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MAX_BYTES", 100_000)
    bombs = {f"{number}_txt": " " * 90_000 for number in range(200)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in bombs.items():
            archive.writestr(name, body)
    (tmp_path / "bombs").write_bytes(packed.getvalue())
    assert "more than the 100,000 bytes that a corpus may have" in refused(tmp_path, tmp_path / "bombs")


def test_files_that_change_while_they_are_read(tmp_path: Path) -> None:
    folder = filled(tmp_path / "book", a_txt="a" * 10, b_txt="b" * 10, c_txt="c" * 10)
    source = resolve(str(folder))

    def change(how: Callable[[], object]) -> str:
        """Do something to a file once the first one was read."""
        out = tmp_path / "changed"
        out.mkdir(exist_ok=True)
        done: list[object] = []

        def progress(*_: object) -> None:
            if not done:
                done.append(how())

        with pytest.raises(CorpusError) as refusal:
            obtain(source, out=out, progress=progress)
        return str(refusal.value)

    says = f"the corpus '{folder}' changed while it was read; run again once it is complete"
    assert change(lambda: (folder / "b.txt").write_text("B" * 10, encoding="utf-8")) == says
    filled(folder, b_txt="b" * 10)
    assert change(lambda: (folder / "a.txt").write_text("A", encoding="utf-8")) == says.replace(
        "the corpus", "'a.txt' of the corpus"
    )
    filled(folder, a_txt="a" * 10)
    assert change((folder / "c.txt").unlink) == says
    filled(folder, c_txt="c" * 10, d_txt="d")  # since it was resolved
    assert change(lambda: None) == says


def sending(body: bytes) -> Route:
    return lambda h, _: h.body(body)


def addresses(server: Server, folder: Path, **bodies: bytes) -> Path:
    """A file of addresses, at each of which there is something."""
    lines = [server.route(f"/{name.replace('_', '.')}", sending(body)) for name, body in bodies.items()]
    path = folder / "our.urls"
    path.write_text("# ours\n" + "\n".join(lines), encoding="utf-8")
    return path


def test_addresses_in_a_file(server: Server, tmp_path: Path) -> None:
    path = addresses(
        server, tmp_path, b=b"b", a_txt_gz=gzip.compress(b"a", mtime=0), t_csv=b"text\nrow\n", z=zipped(x_txt="x")
    )
    base = f"http://127.0.0.1:{server.server_port}"
    documents = {f"{base}/b": "b", f"{base}/a.txt.gz": "a", f"{base}/t.csv:1": "row", f"{base}/z/x.txt": "x"}
    assert list(made(tmp_path, path).items()) == list(documents.items())
    noted = record(tmp_path / "out")
    assert (noted["file"], noted["files"]) == ("our.urls", 4)


def test_an_address_that_fails_is_named_and_no_secret_is(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "s3cret")
    good = server.route("/a?token=s3cret", lambda h, _: h.body(b"a"))
    missing = server.route("/b?key=s3cret", lambda h, _: h.body(b"", 404))
    path = tmp_path / "our.urls"
    path.write_text(f"{good}\n".replace("s3cret", "${OURS}"), encoding="utf-8")
    (name,) = made(tmp_path, path)
    assert name.endswith("/a?token=${OURS}")
    path.write_text(f"{good}\n{missing}\n", encoding="utf-8")
    says = refused(tmp_path, path)
    assert "/b?key=… answered with status 404" in says
    assert not [one for one in (tmp_path / "out").iterdir() if b"s3cret" in one.read_bytes()]


def test_an_address_of_a_table_is_carried_over_with_its_documents(server: Server, tmp_path: Path) -> None:
    address = server.route("/t.csv?x=1", lambda h, _: h.versioned(b"text,n\none,2\ntwo,1\n", ETag='"1"'))
    reading = Reading(columns=Columns(order="n"))

    def fetched(name: str, previous: Path | None = None) -> Path:
        (tmp_path / name).mkdir()
        obtain(
            resolve(address), out=tmp_path / name, progress=silent, patience=HASTE, previous=previous, reading=reading
        )
        return tmp_path / name

    first = fetched("first")
    sent = server.sent
    assert read(fetched("second", first)) == read(first) == {"t.csv:2": "two", "t.csv:1": "one"}
    assert server.sent == sent
    (first / "documents.arrow").unlink()  # as a version that read tables as texts has left it
    assert read(fetched("third", first)) == read(tmp_path / "second")
    assert server.sent > sent


def test_a_text_that_says_what_begins_a_tar_archive_is_a_text(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    said = " " * 256 + "mustard with the beef\n"
    (folder / "a.txt").write_text(said)
    assert made(tmp_path, folder) == {"a.txt": said}
    assert not (tmp_path / "out" / "scratch").exists()
