"""A command of its own: texts that are none, damaged archives and bombs, and places that hold no file, as a corpus.

    .venv/bin/python tests/fuzz/corpora.py [--seed S] [--cases N] [--processes N] [--only WORD] [--sentences]

Each is downloaded through the command line. It has to be taken as what plain decoding gives, or refused in a sentence
with exit code 2: see `downloads.Place`; some also in processes that are started as a user does. Archives are also cut
and flipped at every byte, without the command line. The suite runs a few of them.
"""

from __future__ import annotations

import codecs
import gzip
import itertools
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz import packed
from tests.fuzz.downloads import LIMIT, Place, Text, arguments
from tests.fuzz.packed import Case, sentence

BOMS = {
    **{"UTF-8": codecs.BOM_UTF8, "UTF-16LE": codecs.BOM_UTF16_LE, "UTF-16BE": codecs.BOM_UTF16_BE},
    **{"UTF-32LE": codecs.BOM_UTF32_LE, "UTF-32BE": codecs.BOM_UTF32_BE, "UTF-7": b"+/v8-", "UTF-1": b"\xf7\x64\x4c"},
    **{
        "UTF-EBCDIC": b"\xdd\x73\x66\x73",
        "SCSU": b"\x0e\xfe\xff",
        "BOCU-1": b"\xfb\xee\x28",
        "GB18030": b"\x84\x31\x95\x33",
    },
}
ENCODINGS = (
    *("latin-1", "cp1252", "cp1251", "cp437", "koi8_r", "shift_jis", "euc_jp", "gbk", "gb18030", "big5", "euc_kr"),
    *("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-7", "cp037", "mac_roman"),
)
NAMES = (
    *(
        "two\nlines",
        "\x1b[2J\x1b]0;owned\x07",
        "left\u202eright\u2066",
        "a\u2028b",
        "\udcff\udcfe",
        "-rf",
        "--help",
        "~",
        "~x",
    ),
    *(
        "<script>alert(1)</script>".replace("/", "∕"),
        "](javascript:alert(1))",
        "`${SECRET}`",
        "$(id)",
        "%s%n",
        "{name}",
    ),
    *(
        "n" * 255,
        "é" * 127,
        " ",
        "\t",
        "..a",
        "a\rb",
        "\x7f\x80\x9b",
        "sample ",
        "http:",
        "CON",
        "a'b\"c",
        "\\",
        "*",
        "?q=1#f",
    ),
)


# --- texts


def plainly(content: bytes) -> Text:
    """The bytes themselves, if they are a text: what plain decoding says."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text or not text.replace("\ufeff", "").strip() else content


def texts(rng: Random) -> Iterator[Case]:
    """Texts, and what is nearly one."""

    def case(what: str, content: bytes) -> Case:
        return Case(what, content, plainly(content))

    while True:
        text = sentence(rng, rng.choice((1, 2, 10, 1000, 100_000)))
        content = text.encode()
        other = sentence(rng, 100)
        at = rng.randrange(len(content) + 1)
        name, mark = rng.choice([*BOMS.items()])
        encoding = rng.choice(ENCODINGS)
        yield case("characters of any kind", content)
        yield case("cut anywhere", content[:at])
        yield case("begun anywhere", content[at:])
        yield case("random bytes", rng.randbytes(rng.choice((1, 3, 100, 300_000))))
        yield case("a NUL in it", content[:at] + bytes(rng.choice((1, 1000))) + content[at:])
        yield case("only NUL", bytes(rng.choice((1, 300_000))))
        yield case(f"the mark of {name}", mark + content)
        yield case(f"the mark of {name} and nothing", mark)
        yield case(f"the mark of {name} twice", mark * 2 + content)
        yield case(f"the mark of {name} in the middle", text[: len(text) // 2].encode() + mark + other.encode())
        yield case(f"in {encoding}", "Then the cat saw birds, déjà vu, и море.\n".encode(encoding, "ignore") * 50)
        yield case(f"in {encoding}, of any kind", (mark if at % 2 else b"") + other.encode(encoding, "ignore"))
        yield case("half pairs", content + "\ud83d".encode("utf-8", "surrogatepass") + other.encode())
        yield case(
            "overlong",
            content + rng.choice((b"\xc0\x80", b"\xe0\x80\xaf", b"\xf8\x88\x80\x80\x80", b"\xf4\x90\x80\x80")),
        )
        yield case("line ends of all kinds", b"a" + bytes(rng.choices(b"\r\n\x0b\x0c\x85a ", k=1000)))
        yield case(
            "empty lines", rng.choice((b"\n", b"\r\n", b" \n", "\u3000\n".encode())) * rng.choice((1, 1_000_000))
        )
        yield case("nothing but white space", "\ufeff \u00a0\u2028\t\n".encode() * rng.choice((1, 1000)))
        yield case("nothing", b"")
        yield case("a long line", b"word " * 1_000_000 if at % 5 == 0 else content * 3)
        yield case("bytes exchanged", bytes(rng.choices(content, k=len(content))))
        flipped = bytearray(content)
        for _ in range(rng.randint(1, 5)):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        yield case("bits flipped", bytes(flipped))


# --- places


def places(place: Path) -> Iterator[tuple[str, str, Text]]:
    """What is no file, or has an odd name."""
    text = b"A text.\n" * 100
    (place / "text").write_bytes(text)
    os.mkfifo(place / "pipe")
    (place / "loop").symlink_to("loop")
    (place / "there").symlink_to("back")
    (place / "back").symlink_to("there")
    (place / "link").symlink_to("text")
    (place / "dangling").symlink_to("nowhere")
    (place / "to a pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(place / "socket"))
    with (place / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    for name in (
        "pipe",
        "loop",
        "there",
        "dangling",
        "to a pipe",
        "socket",
        "sparse",
        ".",
        "text/",
        "text/a",
        "nowhere",
        "x" * 300,
    ):
        yield name, f"{place}/{name}", None if name != "text/" else (lambda found: found == text)
    for path in (
        "/dev/zero",
        "/dev/null",
        "/dev/full",
        "/dev/random",
        "/dev/tty",
        "/dev/ptmx",
        "/proc/kmsg",
        "/proc/kcore",
    ):
        yield path, path, None
    for path in (
        "/proc/self/mem",
        "/proc/self/environ",
        "/proc/self/pagemap",
        "/proc/self/fd/99",
        "/dev/fd/1",
        "/dev/fd/x",
    ):
        yield path, path, None
    for path in (
        "",
        " ",
        "/",
        "//",
        "..",
        "file:///",
        "file:///dev/zero",
        "file:///%00",
        f"file://{place}/text%zz",
        "a\0b",
    ):
        yield repr(path), path, None
    for address in (
        "http://",
        "https:///a",
        "http://:80/",
        "http://h:0/",
        "http://h:99999/",
        "http://[::1",
        "http://h/ a",
        "http://u:p@h/",
    ):
        yield address, address, None
    for address in (
        "ftp://h/a",
        "data:text/plain,a",
        "file:a",
        "file://h/a",
        "HTTPS://",
        "http:/h/a",
        "s3://b/a",
        "javascript:alert(1)",
    ):
        yield address, address, None
    yield "a link", f"{place}/link", text
    yield "an address of a file", f"file://{place}/text", text
    for name in NAMES:
        (place / name).write_bytes(text)
        yield f"the name {name[:20]!r}", f"{place}/{name}", text
        yield f"the name {name[:20]!r} from here", name, lambda _: True


# --- what changes while it is read


@contextmanager
def changing(path: Path, how: str) -> Iterator[None]:
    """A file that changes for as long as this holds."""
    line, over = b"The same line again.\n", threading.Event()
    path.write_bytes(line * 100_000)

    def change() -> None:
        with path.open("r+b") as file:
            while not over.is_set():
                if how == "grows":
                    file.seek(0, os.SEEK_END)
                    file.write(line * 1000)
                    if file.tell() > LIMIT // 2:
                        file.truncate(len(line) * 1000)
                elif how == "shrinks":
                    file.truncate(max(path.stat().st_size // 2, len(line)) if path.exists() else 0)
                    time.sleep(0.0005)
                    file.truncate(0)
                    file.seek(0)
                    file.write(line * 100_000)
                elif how == "is replaced":
                    other = path.with_name("other")
                    other.write_bytes(line * 50_000)
                    other.replace(path)
                elif how == "goes and comes":
                    path.unlink(missing_ok=True)
                    time.sleep(0.001)
                    path.write_bytes(line * 60_000)
                elif how == "becomes a pipe":
                    path.unlink(missing_ok=True)
                    os.mkfifo(path)
                    time.sleep(0.001)
                    path.unlink()
                    path.write_bytes(line * 60_000)
                file.flush()

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.unlink(missing_ok=True)


def of_one_line(found: bytes) -> bool:
    """Whether a text may be what such a file held at some moment."""
    line = b"The same line again.\n"
    return found == (line * (len(found) // len(line) + 1))[: len(found)]


# --- standard input


def inputs(rng: Random) -> Iterator[tuple[str, Callable[[], int], Text]]:
    """Standard input of all kinds, by its number."""
    text = sentence(rng, 1000).encode() + b"."

    def piped(*chunks: bytes, endless: bool = False) -> int:
        read, write = os.pipe()

        def give() -> None:
            try:
                for chunk in chunks:
                    os.write(write, chunk)
                while endless:
                    os.write(write, chunks[-1])
            except OSError:
                pass
            os.close(write)

        threading.Thread(target=give, daemon=True).start()
        return read

    yield "closed", lambda: -1, None
    yield "nothing", lambda: os.open(os.devnull, os.O_RDONLY), None
    yield "a text", lambda: piped(text[:500], text[500:]), text
    yield "no text", lambda: piped(b"\xff" + rng.randbytes(1000)), None
    yield "endless", lambda: piped(b"and so on " * 1000, endless=True), None
    yield "endless zeros", lambda: os.open("/dev/zero", os.O_RDONLY), None
    yield "packed", lambda: piped(gzip.compress(text)), text
    yield "a bomb", lambda: piped(gzip.compress(b"a" * (LIMIT + 1))), None
    yield "a folder", lambda: os.open("/", os.O_RDONLY), None
    yield "only for writing", lambda: os.open(os.devnull, os.O_WRONLY), None
    yield "a socket", lambda: socket.socketpair()[0].detach(), None


def run(place: Place, rng: Random, number: int, share: float = 1.0, only: str = "") -> None:
    """Try so many texts and archives each, and a share of all the rest."""
    outside = place.folder / f"outside of {place.tried}"
    outside.mkdir()
    path = outside / "corpus"
    for cases in (texts(rng), packed.archives(rng)):
        several = [one for one in itertools.islice(cases, max(3 * number, 120)) if only in one.what]
        for count, case in enumerate(rng.sample(several, min(number, len(several)))):
            path.write_bytes(case.content if isinstance(case.content, bytes) else case.content())
            ended = place.attempt(case.what, str(path), case.text, either=case.either, said=case.said)
            if count % 10 == 0 and ended.code == 0 and isinstance(case.text, bytes) and len(case.text) < 400_000:
                place.read(case.what, str(path), case.text)
            place.forget()
    for what, corpus, text in places(outside):
        if only in what and rng.random() < share:
            place.attempt(what, corpus, text, either=callable(text), seconds=20)
    place.forget()
    for what, stdin, text in inputs(rng):
        if only in f"standard input: {what}" and rng.random() < share:
            place.attempt(f"standard input: {what}", "-", text, stdin=stdin)
    for how in ("grows", "shrinks", "is replaced", "goes and comes", "becomes a pipe"):
        if only in f"a file that {how}":
            for _ in range(max(number // 50, 1)):
                with changing(outside / "changing", how):
                    place.attempt(f"a file that {how}", str(outside / "changing"), of_one_line, either=True, seconds=20)
    place.forget()


def main() -> None:
    """Print what failed, and counts."""
    asked = arguments()
    rng, began = Random(asked.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        run(place, rng, asked.cases, only=asked.only)
        place.real = True
        run(place, rng, asked.processes, min(asked.processes / 100, 1), only=asked.only)
    wrong = [one for kind in packed.PACKERS for one in packed.everywhere(kind, packed.sentence(rng, 60).encode())]
    for one in wrong:
        print(one)
    code = place.summary(asked.sentences)
    print(f"seed {asked.seed}, {time.monotonic() - began:.0f} s")
    sys.exit(code or bool(wrong))


if __name__ == "__main__":
    main()
