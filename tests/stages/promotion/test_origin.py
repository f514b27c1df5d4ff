"""Which corpus a champion was made from, and whether tonight's is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.store.artifact import Artifact
from data.store.manifest import Manifest
from stages.promotion import origin


@pytest.mark.parametrize(
    ("corpus", "source"),
    [
        ("sample", "sample"),
        ("https://Host.example:443/a.txt", "https://host.example/a.txt"),
        ("http://host.example:8080", "http://host.example:8080/"),
        ("https://user:word@host.example/a.txt#part", "https://host.example/a.txt"),
        ("https://host.example/get?file=a.txt&page=2", "https://host.example/get?file=a.txt&page=2"),
        ("https://host.example/get?file=a.txt&access_token=abc", "https://host.example/get?file=a.txt"),
        ("https://host.example/a?accessToken=abc&apiKey=d&api_key=e&AWSAccessKeyId=f", "https://host.example/a"),
        ("https://host.example/a?X-Amz-Date=1&X-Amz-Signature=abc&Expires=3", "https://host.example/a"),
        ("https://host.example/a?sv=2&se=2026&sig=abc", "https://host.example/a"),
        ("https://host.example/a?sv=2", "https://host.example/a?sv=2"),
        ("https://host.example/a?keyword=sea", "https://host.example/a?keyword=sea"),
        ("/somewhere/./else/../a.txt", "/somewhere/a.txt"),
    ],
)
def test_a_source_is_a_name_an_address_without_secrets_or_an_absolute_path(corpus: str, source: str) -> None:
    assert origin.source(corpus) == source
    assert origin.same(source, source)


def test_a_link_stays_the_name_that_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "monday.txt").write_text("text")
    (tmp_path / "latest.txt").symlink_to("monday.txt")
    monkeypatch.chdir(tmp_path)
    assert origin.source("latest.txt") == str(tmp_path / "latest.txt")


def made(corpus: str) -> list[Artifact]:
    described: dict[str, Any] = {
        "components": {},
        "outputs": {},
        "parents": {},
        "created": "2026-01-02T03:04:05+00:00",
        "key": "0" * 64,
    }
    configs: dict[str, dict[str, Any]] = {"train": {"epochs": 1}, "download": {"corpus": corpus}}
    manifests = [Manifest(stage=stage, config=config, **described) for stage, config in configs.items()]
    return [Artifact(Path(manifest.stage), manifest) for manifest in manifests]


@pytest.mark.parametrize(
    ("recorded", "tonight", "same"),
    [
        ("sample", "sample", True),
        ("text.txt", "/home/a/text.txt", True),
        ("../text.txt", "/home/a/text.txt", True),
        ("text.txt", "/home/a/context.txt", False),
        ("sub/text.txt", "/home/a/text.txt", False),
        ("./sample", "sample", False),
        ("/home/a/text.txt", "/home/b/text.txt", False),
        ("https://h.example/a?token=1", "https://h.example/a?token=2", True),
        ("https://h.example/a", "https://h.example/b", False),
        ("https://h.example/a?file=1", "https://h.example/a?file=2", False),
    ],
)
def test_what_an_old_download_names_is_compared_with_what_tonight_names(
    recorded: str, tonight: str, same: bool
) -> None:
    theirs = origin.recorded(made(recorded))
    assert theirs
    assert origin.same(origin.source(tonight), theirs) is same


def test_what_names_no_corpus_has_no_source() -> None:
    assert origin.recorded(made("x")[:1]) is None
