"""What is secret is found in no file, line, page or object, however a command ends: marks are looked for in all."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest

from data.store.objects import Objects

if TYPE_CHECKING:
    from tests.conftest import Rnnlm, Server
    from tests.s3 import S3

ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "CORPUS_TOKEN", "GITHUB_TOKEN")
MARKS = {name: f"mark/{name.lower()}+?ZvT9" for name in (*ENVIRONMENT, "proxy", "user", "query", "header")}
"""Where a secret stands → the secret, which is spelt otherwise in an address and in base64."""
USER, QUERY = quote(MARKS["user"], safe=""), quote(MARKS["query"], safe="")


def spelt(mark: str) -> Iterator[bytes]:
    """As it is, as in an address, and in base64 wherever that begins."""
    yield from (form.encode() for form in {mark, quote(mark), quote(mark, safe=""), quote_plus(mark)})
    for before in range(3):
        yield base64.b64encode(b"x" * before + mark.encode())[4 if before else 0 : -4]


FORMS = {form: name for name, mark in MARKS.items() for form in spelt(mark)}


def held(content: bytes) -> set[str]:
    """The marks that stand in it."""
    return {name for form, name in FORMS.items() if form in content}


def test_a_mark_is_seen_however_it_is_spelt() -> None:
    mark = MARKS["query"]
    for said in (
        mark,
        QUERY,
        base64.b64encode(f"x{mark}y".encode()).decode(),
        base64.b64encode(mark.encode()).decode(),
    ):
        assert held(f"it is {said}.".encode()) == {"query"}


Say = Callable[..., None]


@pytest.fixture
def say(
    here: Rnnlm, tmp_path: Path, s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Say]:
    """Run a command among secrets, which nothing that it says may hold; nor, at the end, whatever is kept anywhere."""
    caplog.set_level("INFO")
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, MARKS[name])
    monkeypatch.setenv("CORPUS_TOKEN", quote(MARKS["CORPUS_TOKEN"], safe=""))
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{quote(MARKS['proxy'], safe='')}@127.0.0.1:1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*arguments: str | Path, code: int = 0) -> None:
        caplog.clear()
        done = here(*arguments, code=code)
        said = done.stdout + done.stderr + caplog.text
        assert held(said.encode(errors="backslashreplace")) == set(), f"{arguments}\n{said}"

    yield call
    files = [
        path for folder in (tmp_path / "store", tmp_path / "cache") for path in folder.rglob("*") if path.is_file()
    ]
    assert len(files) > 30
    assert {str(path): found for path in files if (found := held(bytes(path) + path.read_bytes()))} == {}
    s3.plan(None)
    remote = Objects(bucket)
    objects = [one.name for one in remote.listed()]
    assert len(objects) > 10
    assert {one: found for one in objects if (found := held(one.encode() + _content(remote, one)))} == {}


def _content(remote: Objects, name: str) -> bytes:
    found = remote.read(name)
    assert found is not None
    return found.content


def test_whatever_is_run_no_secret_is_said_or_kept(
    say: Say, server: Server, s3: S3, bucket: str, tiny: Path, tiny_text: str
) -> None:
    token = quote(MARKS["CORPUS_TOKEN"], safe="")
    asked = server.route(f"/a.txt?page=1&token={QUERY}&key={token}", lambda h, _: h.body(tiny_text.encode()))
    address = asked.replace(token, "${CORPUS_TOKEN}")
    header = "download.headers=Authorization: Bearer ${CORPUS_TOKEN}"
    shared = ["--preset", tiny, "--remote", bucket]
    given = [*shared, "--corpus", address, "--set", header]
    say("run", *given)
    assert server.requests[0][1]["Authorization"] == f"Bearer {token}"
    say("run", *given, "--force", "evaluate", "--json")
    say("status", *given)
    say("explain", "download", *given, "--json")
    say("night", *given, "--reference", address)
    say("night", *given, "--json")
    say("sweep", *given, "--vary", f"download.corpus={address}", "--jobs", "1")
    say("sweep", *given, "--vary", f"download.corpus={address}", "--jobs", "1", "--json")
    for command in ("history", "runs", "champion", "verify"):
        say(command)
    say("evaluate", "--on", address)
    say("push", "--remote", bucket)
    s3.plan(lambda method, path, number: 403)
    say("run", *given, "--force", "evaluate")


def test_no_refusal_repeats_a_secret(say: Say, server: Server, bucket: str, tiny: Path, tmp_path: Path) -> None:
    shared = ["--preset", tiny, "--remote", bucket]
    say("run", *shared)
    answer = f"no {QUERY} {MARKS['query']}".encode()
    bad = server.route(f"/bad?token={QUERY}", lambda h, _: h.body(answer, 404))
    moved = server.route(f"/moved?token={QUERY}", lambda h, _: h.head(302, Location=f"/bad?token={QUERY}"))
    user = f"http://me:{USER}@{bad.split('/')[2]}/a.txt"
    for text in (bad, moved, user, bad.replace("//", "/"), bad.removeprefix("http://"), f"ftp://h/?sig={QUERY}"):
        say("run", *shared, "--corpus", text, code=2)
        say("night", *shared, "--corpus", text, code=2)
        say("night", *shared, "--reference", text, code=2)
        say("evaluate", "--on", text, code=2)
        say("sweep", *shared, "--vary", f"download.corpus={text}", code=2)
    plain = f"Authorization: {MARKS['header']}"
    for arguments in (
        ["run", "--set", user],
        ["run", "--set", f"corpus={user}"],
        ["run", "--set", f"train.device={bad}"],
        ["run", "--set", f"download.corpu={user}"],
        ["run", *shared, "--corpus", bad, "--set", f"download.headers={plain}"],
        ["sweep", *shared, "--corpus", bad, "--vary", f"download.headers={plain}"],
        ["sweep", *shared, "--vary", user],
        ["sweep", *shared, "--vary", f"train.device={user}"],
        ["sweep", *shared, "--vary", "train.seed=1", "--dask", f"tcp://me:{USER}@127.0.0.1:1"],
        ["run", "--preset", bad],
        ["run", "--force", user],
        [user],
        ["run", user],
        ["run", f"--{user}"],
        ["explain", user],
        ["promote", user],
        ["sample", "--model", user],
        ["champion", "--name", user],
        ["run", "--store", bad],
        ["run", "--store", f"s3://me:{USER}@b/x"],
        ["run", "--remote", f"s3://me:{USER}@b/x"],
        ["gc", "--remote", f"https://b/x?sig={QUERY}"],
    ):
        say(*arguments, code=2)
