"""Commands that use a model, as a contract: what it writes, and what is said of a text that it reads."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stages.lm.model import LanguageModel

if TYPE_CHECKING:
    from tests.conftest import Server

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]

# --- sample

DRAWN = ["--prefix", "Then ", "--length", "40", "--temperature", "1.3"]


def test_sample_continues_with_the_newest_model(here: Rnnlm, trained: Path) -> None:
    folder = here("train", "--preset", trained).stdout.strip()
    greedy = here("sample", "--prefix", "Then the", "--length", 12).stdout
    assert greedy.startswith("then the")
    assert len(greedy) == len("then the") + 12 + 1
    assert here("sample", "--model", folder, "--prefix", "Then the", "--length", 12).stdout == greedy
    assert here("sample", "--length", 12).stdout == greedy, "which is how its text begins"
    shutil.copytree(folder, trained.parent / "alone")
    assert len(here("sample", "--model", trained.parent / "alone", "--length", 12).stdout) == 12 + 1
    three = ["sample", "--prefix", "Then", "--length", 30, "--temperature", 1, "--count", 3, "--seed", 5]
    drawn = here(*three).stdout
    assert here(*three).stdout == drawn
    assert len(set(drawn.splitlines())) >= 3


def test_an_untrained_model_writes_nonsense_before_anything_is_trained(here: Rnnlm, tiny: Path) -> None:
    text = here("sample", "--untrained", "--preset", tiny, "--prefix", "the", "--length", 10).stdout
    assert text.startswith("the")
    assert len(text) == 14


def test_sample_prints_what_the_model_writes(here: Rnnlm, model: Path) -> None:
    ours = LanguageModel.load(model)
    said = {
        (): ours.sample("Then ", 40, 1.3),
        ("--seed", "7"): ours.sample("Then ", 40, 1.3, 7),
        ("--top-k", "3"): ours.sample("Then ", 40, 1.3, top_k=3),
        ("--top-p", "0.4"): ours.sample("Then ", 40, 1.3, top_p=0.4),
        ("--stop", "e", "--stop", "th"): ours.sample("Then ", 40, 1.3, stop=["e", "th"]),
    }
    assert len(set(said.values())) == len(said)
    for options, text in said.items():
        assert here("sample", "--model", model, *DRAWN, *options).stdout == text + "\n"


def test_several_continuations_are_those_of_the_seeds_that_follow(here: Rnnlm, model: Path) -> None:
    several = here("sample", "--model", model, *DRAWN, "--seed", 5, "--count", 6).stdout
    ours = LanguageModel.load(model)
    assert several == "".join(ours.sample("Then ", 40, 1.3, seed) + "\n" for seed in range(5, 11))


def test_tokens_come_with_probabilities(here: Rnnlm, model: Path) -> None:
    tokens = list(LanguageModel.load(model).stream("Then ", 40, 1.3, probabilities=True))
    lines = here("sample", "--model", model, *DRAWN, "--probabilities").stdout.splitlines()
    pairs = [line.split("\t") for line in lines]
    assert [json.loads(piece) for piece, _ in pairs] == [piece for piece, _ in tokens]
    assert [float(printed) for _, printed in pairs] == pytest.approx([given for _, given in tokens], rel=1e-5)

    arguments = ["sample", "--model", model, *DRAWN, "--count", 2, "--stop", "e", "--json"]
    samples = json.loads(here(*arguments).stdout)["samples"]
    assert [sample["seed"] for sample in samples] == [0, 1]
    for sample in samples:
        assert set(sample) == {"seed", "text", "tokens"}
        assert sample["text"] == "then " + "".join(token["text"] for token in sample["tokens"])
        assert all(0 < token["probability"] < 1 for token in sample["tokens"])


def test_what_the_vocabulary_lacks_is_said_once_and_beside_the_text(here: Rnnlm, model: Path) -> None:
    done = here("sample", "--model", model, "--prefix", "Café 7", "--temperature", 1, "--count", 3)
    assert done.stderr == "the vocabulary lacks 'é', '7': read as <unk>\n"
    assert done.stdout.count("café 7") == 3


def streaming(model: Path, **options: Any) -> subprocess.Popen[bytes]:
    """A continuation that takes its time."""
    command = [sys.executable, "-m", "stages.cli", "sample", "--model", str(model), "--length", "1000000"]
    return subprocess.Popen(
        [*command, "--prefix", "once upon"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        **options,
    )


def test_a_text_is_seen_while_it_is_written_and_ctrl_c_ends_it(model: Path) -> None:
    process = streaming(model)
    assert process.stdout
    seen = b""
    while len(seen) < 2000:
        seen += os.read(process.stdout.fileno(), 2000)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    text = (seen + rest).decode()
    assert process.returncode == 130
    assert errors.decode().splitlines() == ["rnnlm: interrupted by SIGINT; what was finished is kept"]
    assert text.startswith("once upon")
    assert text.endswith("\n")
    assert len(text) < 900_000


def test_whoever_has_read_enough_of_a_text_may_go(model: Path) -> None:
    process = streaming(model)
    assert process.stdout
    assert process.stdout.read(9) == b"once upon"
    process.stdout.close()
    began = time.monotonic()
    assert process.stderr
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 1
    assert time.monotonic() - began < 5


# --- evaluate --on


def test_any_text_is_measured_with_any_model(here: Rnnlm, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_bytes("\ufeffDear Zoë,\r\nthe sea is 7 miles away.\r\n".encode() * 30)
    score = LanguageModel.load(model).score("Dear Zoë,\nthe sea is 7 miles away.\n".join(["", *["\ufeff"] * 29, ""]))
    said = json.loads(here("evaluate", "--on", text, "--model", model, "--json").stdout)
    assert said.pop("model") == str(model)
    assert said == pytest.approx(asdict(score), rel=1e-6)
    assert {"perplexity", "bits_per_character", "loss", "tokens", "unknown_rate"} == set(said)

    lines = here("evaluate", "--on", text, "--model", model).stdout.splitlines()
    rows = dict(line.split("  ", 1) for line in lines)
    assert {name: value.strip() for name, value in rows.items()} == {
        "model": str(model),
        "perplexity": f"{score.perplexity:,.2f}",
        "bits per character": f"{score.bits_per_character:.4g}",
        "loss (nats)": f"{score.loss:.5g}",
        "characters": f"{score.tokens:,}",
        "unknown": f"{score.unknown_rate:.2%} (spelled out in bits per character, mere <unk> in perplexity and loss)",
    }
    assert not (tmp_path / "store").exists()


def test_a_model_that_learns_from_what_it_reads_says_so(here: Rnnlm, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("the sea is miles away\n" * 40)
    still = json.loads(here("evaluate", "--on", text, "--model", model, "--json").stdout)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    said = json.loads(here("evaluate", "--on", text, "--model", model, "--adapt", 0.003, "--json").stdout)
    assert said.pop("adapt") == 0.003
    assert said.keys() == still.keys()
    assert said["tokens"] == still["tokens"]
    assert said["loss"] < still["loss"]
    assert here("evaluate", "--on", text, "--model", model, "--adapt", 0.003).stdout.startswith(
        f"model               {model}, adapting at 0.003\n"
    )
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    for arguments, sentence in (
        (["--on", text, "--adapt", -1], "a model cannot adapt at a rate of -1: give 0, or 1e-30 to 0.1"),
        (["--on", text, "--adapt", "nan"], "a model cannot adapt at a rate of nan"),
        (["--on", text, "--adapt", 0.2], "a model cannot adapt at a rate of 0.2"),
        (["--on", text, "--model", model, "--adapt", 0], "has none: give one above 0"),
        (["--adapt", 3e-4], "--adapt is for the text of --on"),
    ):
        assert sentence in here("evaluate", *arguments, code=2).stderr


def test_several_networks_learn_as_one_model(here: Rnnlm, trained: Path, tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("the sea is miles away\n" * 40)
    model = here("train", "--preset", trained, "--set", "train.networks=2").stdout.strip()
    still, hardly, learning = (
        json.loads(here("evaluate", "--on", text, "--model", model, "--json", *adapting).stdout)["loss"]
        for adapting in ((), ("--adapt", 1e-9), ("--adapt", 0.003))
    )
    assert hardly == pytest.approx(still, rel=1e-5)
    assert learning < still


def test_an_n_gram_may_learn_alone(here: Rnnlm, trained: Path, tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("the sea is miles away\n" * 40)
    model = here("train", "--preset", trained, "--set", "train.ngram=4").stdout.strip()
    still, counting = (
        json.loads(here("evaluate", "--on", text, "--model", model, "--json", *adapting).stdout)
        for adapting in ((), ("--adapt", 0))
    )
    assert counting.pop("adapt") == 0
    assert counting["tokens"] == still["tokens"]
    assert counting["loss"] < still["loss"]


def test_a_text_is_read_from_standard_input_or_a_pipe(rnnlm: Rnnlm, here: Rnnlm, model: Path, tmp_path: Path) -> None:
    said = "the sea is miles away\n" * 5
    expected = pytest.approx(LanguageModel.load(model).score(said).loss, rel=1e-6)
    done = rnnlm("evaluate", "--on", "-", "--model", model, "--json", input=said)
    assert json.loads(done.stdout)["loss"] == expected
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'w').write({said!r})"])
    assert json.loads(here("evaluate", "--on", pipe, "--model", model, "--json").stdout)["loss"] == expected
    assert writer.wait(timeout=30) == 0


def test_a_pipe_into_which_nobody_writes_is_not_waited_for(
    here: Rnnlm, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("data.corpus.spool.PATIENCE", 0.1)
    done = here("evaluate", "--on", tmp_path / "pipe", "--model", model, code=2)
    assert f"nobody writes into the pipe '{tmp_path / 'pipe'}', after 0.1 s: begin there first" in done.stderr


def test_where_a_text_cannot_be_kept_is_one_sentence(
    here: Rnnlm, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    done = here("evaluate", "--on", "sample", "--model", model, code=2)
    assert "the text sample cannot be kept among the temporary files (No such file or directory)" in done.stderr


def test_a_text_may_be_whatever_a_corpus_is(here: Rnnlm, model: Path, tmp_path: Path, server: Server) -> None:
    said = "the sea is miles away\n" * 5
    packed = tmp_path / "letter"
    packed.write_bytes(lzma.compress(said.encode()))
    address = server.route("/a", lambda h, _: h.body(gzip.compress(said.encode())))
    read, write = os.pipe()
    os.write(write, bz2.compress(said.encode()))
    os.close(write)
    losses = {
        json.loads(here("evaluate", "--on", text, "--model", model, "--json").stdout)["loss"]
        for text in (packed, address, f"/dev/fd/{read}")
    }
    os.close(read)
    assert len(losses) == 1
    losses_of_it = {*losses}
    assert losses.pop() == pytest.approx(LanguageModel.load(model).score(said).loss, rel=1e-6)
    assert "characters" in here("evaluate", "--on", "sample", "--model", model).stdout
    (tmp_path / "sample").write_text(said)
    mine = here("evaluate", "--on", "sample", "--model", model, "--json", cwd=tmp_path)
    assert json.loads(mine.stdout)["loss"] in losses_of_it


def test_without_a_model_the_newest_one_is_measured_and_nothing_runs(here: Rnnlm, trained: Path) -> None:
    folder = Path(here("train", "--preset", trained).stdout.strip())
    text = trained.parent / "text.txt"
    before = sorted((trained.parent / "store").rglob("*"))
    done = here("evaluate", "--on", text, "--json")
    assert json.loads(done.stdout)["model"] == str(Path(__file__).parents[3] / folder)
    assert done.stderr == ""
    assert sorted((trained.parent / "store").rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"caf\xe9\n", "is not UTF-8 text (byte 3, in line 1) but seems to be WINDOWS-1252"),
        (b" \n\n ", "nothing but white space"),
        (b"a", "the text is too short: normalised (lower) it has 1 characters"),
        (None, "there is no corpus file '"),
    ],
)
def test_a_text_that_cannot_be_measured_is_one_sentence(
    here: Rnnlm, model: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    text = tmp_path / "letter.txt"
    if content is not None:
        text.write_bytes(content)
    done = here("evaluate", "--on", text, "--model", model, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("rnnlm: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "--temperature", "1", "--top-p", "1.5"], "top_p must be above 0 and at most 1, not 1.5"),
        (["sample", "--stop", ""], "a stop string must hold at least one character"),
        (["evaluate", "--on", "nowhere/*.txt"], "there is no corpus file 'nowhere/*.txt'"),
        (["evaluate", "--on", "/dev/ptmx"], "'/dev/ptmx' is not a regular file"),  # which would be waited for
    ],
)
def test_so_is_a_mistake_about_a_model_that_is_there(here: Rnnlm, model: Path, arguments: list[str], said: str) -> None:
    done = here(*arguments, "--model", model, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("rnnlm: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
