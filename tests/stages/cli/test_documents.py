"""A folder of documents from end to end, and a night on which it has grown."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import TEXT, TINY, Rnnlm


def grown(folder: Path, lines: list[str], first: int = 0) -> None:
    """Put a document into the folder for each line."""
    folder.mkdir(exist_ok=True)
    for number, line in enumerate(lines, first):
        (folder / f"{number:03}.txt").write_text(line, encoding="utf-8")


def test_a_folder_is_learnt_from_document_by_document_and_a_night_judges_it_so(here: Rnnlm, tmp_path: Path) -> None:
    preset, texts = tmp_path / "tiny.toml", tmp_path / "texts"
    lines = [f"{line} And {number} more were seen then.\n" for number, line in enumerate(TEXT.splitlines())]
    grown(texts, lines)
    settings = TINY.replace("[tokenize]", '[tokenize]\nsplit = "content"')
    settings += "\n[promotion]\nfewest_characters = 10\n"
    preset.write_text(f'[download]\ncorpus = "{texts}"\n{settings}', encoding="utf-8")

    report = here("run", "--preset", preset).stdout
    assert "Documents: " in report
    assert "each as a whole, as its content says" in report
    model = Path(here("train", "--preset", preset).stdout.strip())
    told = json.loads((model / "config.json").read_text())
    assert told["format"] == 4
    assert told["ends"] is True
    written = here("sample", "--prefix", "", "--temperature", "1", "--count", "20", "--length", "400").stdout
    assert "<end" not in written
    assert any(len(one) < 400 for one in written.split("\n\n")), "some document has come to its end"

    assert "there is no champion yet" in here("night", "--preset", preset).stdout
    grown(texts, [line.replace("Then", "Once") for line in lines[:8]], len(lines))
    verdict = here("night", "--preset", preset, "--set", "train.epochs=3", "--json").stdout
    assert json.loads(verdict)["decision"] in ("promoted", "kept")
