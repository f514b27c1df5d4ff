"""The command line as a contract: what users and their scripts rely on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.tables.vocab import Vocab
from stages.lm.model import LanguageModel
from stages.lm.parameters import Architecture

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model that was trained nowhere."""
    folder = tmp_path / "model"
    folder.mkdir()
    vocab = Vocab(["<unk>", *" abcdefghijklmnopqrstuvwxyz\n"], [0] * 29)
    architecture = Architecture("gru", "tanh", 16, 1, len(vocab), 8)
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in architecture.shapes().items()}
    save_file(weights, folder / "model.safetensors")
    vocab.write(folder / "vocab.arrow")
    description = {"format": 2, **asdict(architecture), "level": "char", "normalizer": "lower", "epoch": 1}
    (folder / "config.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def test_run_prints_one_object_and_a_second_one_is_cached(rnnlm: Rnnlm, tiny: Path) -> None:
    first = json.loads(rnnlm("run", "--preset", tiny, "--json").stdout)
    assert [(stage["name"], stage["state"]) for stage in first["stages"]] == [
        ("download", "ran"),
        ("tokenize", "ran"),
        ("train", "ran"),
        ("evaluate", "ran"),
    ]
    for stage in first["stages"]:
        assert set(stage) == {"name", "state", "key", "artifact", "seconds", "reason"}
        assert (Path(stage["artifact"]) / "manifest.json").is_file()
    for split in ("train", "valid", "test"):
        assert {"perplexity", "bits_per_character", "loss", "tokens"} <= set(first["metrics"][split])
        assert first["metrics"]["baselines"]["unigram"][split]["perplexity"] > 1
        assert first["metrics"]["baselines"]["uniform"][split]["perplexity"] > 1
    second = json.loads(rnnlm("run", "--preset", tiny, "--json").stdout)
    assert {stage["state"] for stage in second["stages"]} == {"cached"}
    assert second["metrics"] == first["metrics"]


def test_results_go_to_stdout_and_the_rest_to_stderr(rnnlm: Rnnlm, tiny: Path) -> None:
    done = rnnlm("run", "--preset", tiny)
    assert done.stdout.startswith("# Language model report")
    assert "train     ran" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_verb_walks_as_far_as_its_stage(rnnlm: Rnnlm, tiny: Path) -> None:
    printed = json.loads(rnnlm("tokenize", "--preset", tiny, "--json").stdout)
    assert [stage["name"] for stage in printed["stages"]] == ["download", "tokenize"]
    assert printed["metrics"] == {}
    folder = Path(rnnlm("tokenize", "--preset", tiny).stdout.strip())
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "tokens.arrow", "vocab.arrow"}


def test_status_says_what_would_rerun_and_why(rnnlm: Rnnlm, tiny: Path) -> None:
    def status(*arguments: str) -> dict[str, dict[str, str]]:
        printed = json.loads(rnnlm("status", "--preset", tiny, "--json", *arguments).stdout)
        return {stage["name"]: stage for stage in printed["stages"]}

    assert {stage["state"] for stage in status().values()} == {"missing"}
    rnnlm("run", "--preset", tiny)
    assert {stage["state"] for stage in status().values()} == {"cached"}
    wider = status("--set", "train.hidden_size=16")
    assert [stage["state"] for stage in wider.values()] == ["cached", "cached", "stale", "stale"]
    assert wider["train"]["reason"] == "train.hidden_size: 8 → 16"
    assert "train has to run first" in wider["evaluate"]["reason"]
    text = rnnlm("status", "--preset", tiny, "--set", "train.hidden_size=16").stdout.splitlines()
    assert text[2] == "train     stale    train.hidden_size: 8 → 16"


def test_explain_shows_the_key_and_the_difference_to_the_closest_artifact(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    rnnlm("train", "--preset", tiny, "--set", "train.seed=1", "--set", "train.layers=2")
    text = rnnlm("explain", "train", "--preset", tiny, "--set", "train.seed=2").stdout
    assert "train is stale: train.seed: 0 → 2" in text
    assert "stages/training/gluon.py" in text
    assert "mxnet: 2.0.0b1" in text
    parsed = json.loads(rnnlm("explain", "evaluate", "--preset", tiny, "--json").stdout)
    assert parsed["state"] == "cached"
    assert parsed["components"] == parsed["closest"]["components"]


def test_sample_continues_with_the_newest_model(rnnlm: Rnnlm, tiny: Path) -> None:
    folder = rnnlm("train", "--preset", tiny).stdout.strip()
    greedy = rnnlm("sample", "--prefix", "Then the", "--length", 12).stdout
    assert greedy.startswith("then the")
    assert len(greedy) == len("then the") + 12 + 1
    assert rnnlm("sample", "--model", folder, "--prefix", "Then the", "--length", 12).stdout == greedy
    three = ["sample", "--prefix", "Then", "--length", 30, "--temperature", 1, "--count", 3, "--seed", 5]
    drawn = rnnlm(*three).stdout
    assert rnnlm(*three).stdout == drawn
    assert len(set(drawn.splitlines())) >= 3


def test_an_untrained_model_writes_nonsense_before_anything_is_trained(rnnlm: Rnnlm, tiny: Path) -> None:
    text = rnnlm("sample", "--untrained", "--preset", tiny, "--prefix", "the", "--length", 10).stdout
    assert text.startswith("the")
    assert len(text) == 14


# --- sample

DRAWN = ["--prefix", "Then ", "--length", "40", "--temperature", "1.3"]


def test_sample_prints_what_the_model_writes(rnnlm: Rnnlm, model: Path) -> None:
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
        assert rnnlm("sample", "--model", model, *DRAWN, *options).stdout == text + "\n"


def test_several_continuations_are_those_of_the_seeds_that_follow(rnnlm: Rnnlm, model: Path) -> None:
    several = rnnlm("sample", "--model", model, *DRAWN, "--seed", 5, "--count", 3).stdout
    ours = LanguageModel.load(model)
    assert several == "".join(ours.sample("Then ", 40, 1.3, seed) + "\n" for seed in (5, 6, 7))


def test_tokens_come_with_probabilities(rnnlm: Rnnlm, model: Path) -> None:
    tokens = list(LanguageModel.load(model).stream("Then ", 40, 1.3, probabilities=True))
    lines = rnnlm("sample", "--model", model, *DRAWN, "--probabilities").stdout.splitlines()
    pairs = [line.split("\t") for line in lines]
    assert [(json.loads(piece), pytest.approx(float(share), rel=1e-5)) for piece, share in pairs] == tokens

    arguments = ["sample", "--model", model, *DRAWN, "--count", 2, "--stop", "e", "--json"]
    samples = json.loads(rnnlm(*arguments).stdout)["samples"]
    assert [sample["seed"] for sample in samples] == [0, 1]
    for sample in samples:
        assert set(sample) == {"seed", "text", "tokens"}
        assert sample["text"] == "then " + "".join(token["text"] for token in sample["tokens"])
        assert all(0 < token["probability"] < 1 for token in sample["tokens"])


def test_what_the_vocabulary_lacks_is_said_once_and_beside_the_text(rnnlm: Rnnlm, model: Path) -> None:
    done = rnnlm("sample", "--model", model, "--prefix", "Café 7", "--temperature", 1, "--count", 3)
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


def test_any_text_is_measured_with_any_model(rnnlm: Rnnlm, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_bytes("\ufeffDear Zoë,\r\nthe sea is 7 miles away.\r\n".encode() * 30)
    score = LanguageModel.load(model).score("Dear Zoë,\nthe sea is 7 miles away.\n".join(["", *["\ufeff"] * 29, ""]))
    said = json.loads(rnnlm("evaluate", "--on", text, "--model", model, "--json").stdout)
    assert said.pop("model") == str(model)
    assert said == pytest.approx(asdict(score), rel=1e-6)
    assert {"perplexity", "bits_per_character", "loss", "tokens", "unknown_rate"} == set(said)

    lines = rnnlm("evaluate", "--on", text, "--model", model).stdout.splitlines()
    rows = dict(line.split("  ", 1) for line in lines)
    assert {name: value.strip() for name, value in rows.items()} == {
        "model": str(model),
        "perplexity": f"{score.perplexity:,.2f}",
        "bits per character": f"{score.bits_per_character:.4g}",
        "loss (nats)": f"{score.loss:.5g}",
        "characters": f"{score.tokens:,}",
        "unknown": f"{score.unknown_rate:.2%} (measured as <unk>, which flatters the model)",
    }
    assert not (tmp_path / "store").exists()


def test_a_model_that_learns_from_what_it_reads_says_so(rnnlm: Rnnlm, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("the sea is miles away\n" * 40)
    still = json.loads(rnnlm("evaluate", "--on", text, "--model", model, "--json").stdout)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    said = json.loads(rnnlm("evaluate", "--on", text, "--model", model, "--adapt", 0.3, "--json").stdout)
    assert said.pop("adapt") == 0.3
    assert said.keys() == still.keys()
    assert said["tokens"] == still["tokens"]
    assert said["loss"] < still["loss"]
    assert rnnlm("evaluate", "--on", text, "--model", model, "--adapt", 0.3).stdout.startswith(
        f"model               {model}, adapting at 0.3\n"
    )
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    for arguments, sentence in (
        (["--on", text, "--adapt", 0], "--adapt must be above 0, not 0"),
        (["--on", text, "--adapt", "nan"], "--adapt must be above 0, not nan"),
        (["--adapt", 0.3], "--adapt is for the text of --on"),
    ):
        assert sentence in rnnlm("evaluate", *arguments, code=2).stderr


def test_a_text_is_read_from_standard_input_or_a_pipe(rnnlm: Rnnlm, model: Path, tmp_path: Path) -> None:
    said = "the sea is miles away\n" * 5
    expected = pytest.approx(LanguageModel.load(model).score(said).loss, rel=1e-6)
    done = rnnlm("evaluate", "--on", "-", "--model", model, "--json", input=said)
    assert json.loads(done.stdout)["loss"] == expected
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'w').write({said!r})"])
    assert json.loads(rnnlm("evaluate", "--on", pipe, "--model", model, "--json").stdout)["loss"] == expected
    assert writer.wait(timeout=30) == 0


def test_without_a_model_the_newest_one_is_measured_and_nothing_runs(rnnlm: Rnnlm, tiny: Path) -> None:
    folder = Path(rnnlm("train", "--preset", tiny).stdout.strip())
    text = tiny.parent / "text.txt"
    before = sorted((tiny.parent / "store").rglob("*"))
    done = rnnlm("evaluate", "--on", text, "--json")
    assert json.loads(done.stdout)["model"] == str(Path(__file__).parents[3] / folder)
    assert done.stderr == ""
    assert sorted((tiny.parent / "store").rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"caf\xe9\n", "is not UTF-8 text (byte 3)"),
        (b" \n\n ", "nothing but white space"),
        (b"a", "the text is too short: normalised (lower) it has 1 characters"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_text_that_cannot_be_measured_is_one_sentence(
    rnnlm: Rnnlm, model: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    text = tmp_path / "letter.txt"
    if content is not None:
        text.write_bytes(content)
    done = rnnlm("evaluate", "--on", text, "--model", model, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("rnnlm: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_verify_finds_what_the_next_run_mends(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    assert rnnlm("verify").stdout.count("sound") == 5
    (vocab,) = (tiny.parent / "store" / "tokenize").glob("*/vocab.arrow")
    content = bytearray(vocab.read_bytes())
    content[-1] ^= 1
    vocab.write_bytes(content)
    done = rnnlm("verify", code=2)
    assert "1 of 5 artifacts" in done.stderr
    assert "the content of vocab.arrow is not what was published" in done.stdout
    again = rnnlm("run", "--preset", tiny, "--json")
    states = [stage["state"] for stage in json.loads(again.stdout)["stages"]]
    assert states == ["cached", "ran", "cached", "cached"]
    assert "tokenize: the artifact is damaged: the content of vocab.arrow" in again.stderr
    rnnlm("verify")


def test_gc_says_what_it_would_take_and_takes_it(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    leftover = tiny.parent / "store" / "tmp" / "train-0123456789abcdef-01234567"
    leftover.mkdir(parents=True)
    assert str(leftover) in rnnlm("gc", "--dry-run").stdout
    assert leftover.is_dir()
    assert "freed" in rnnlm("gc").stdout
    assert not leftover.exists()
    assert rnnlm("verify").stdout.count("sound") == 5


def test_presets_and_corpora_are_listed(rnnlm: Rnnlm) -> None:
    assert {line.split()[0] for line in rnnlm("presets").stdout.splitlines()} >= {"book", "sample"}
    assert {line.split()[0] for line in rnnlm("corpora").stdout.splitlines()} == {
        "sample",
        "timemachine",
        "tinyshakespeare",
    }


MISTAKES = [
    (["run", "--preset", "nowhere"], "no preset 'nowhere'"),
    (["run", "--set", "train.hiden_size=3"], "did you mean 'hidden_size'?"),
    (["run", "--set", "train.hidden_size=many"], "train.hidden_size: 'many' does not fit"),
    (["run", "--set", "hidden_size=3"], "STAGE.FIELD=VALUE"),
    (["run", "--corpus", "nowhere.txt"], "nowhere.txt"),
    (["run", "--corpus", "timemachin"], "timemachine"),
    (["run", "--force", "training"], "there is no stage 'training'"),
    (["tokenize", "--force", "train"], "does not reach the stage train"),
    (["run", "--from", ""], "there is no stage ''"),
    (["download", "--from", "train"], "does not reach the stage train"),
    (["run", "--store", str(Path(__file__))], "is a file: name a folder"),
    (["run", "--preset", "~nobody-of-that-name/x"], "no preset"),
    (["run", "--preset", "x" * 5000], "no preset"),
    (["train", "--set", "train.hidden_size=1000000000"], "train.hidden_size"),
    (["promote", "0123"], "no models"),
    (["rollback"], "no champion"),
    (["run", "--set", "train.device=gpu"], "train.device = gpu cannot be used"),
    (["run", "--store", "s3://bucket"], "s3://bucket"),
    (["explain", "training"], "there is no stage 'training'"),
    (["sample"], "no trained model"),
    (["sample", "--model", "nowhere"], "nowhere"),
    (["sample", "--count", "2"], "--temperature"),
    (["sample", "--length", "0"], "--length"),
    (["sample", "--top-k", "-1", "--temperature", "1"], "--top-k"),
    (["sample", "--top-k", "5"], "--temperature"),
    (["evaluate", "--model", "somewhere"], "--on FILE"),
    (["evaluate", "--on", "x.txt", "--set", "train.epochs=3"], "--set is for the pipeline"),
    (["evaluate", "--on", "x.txt", "--preset", "sample"], "--preset is for the pipeline"),
    (["evaluate", "--on", "x.txt", "--from", "train"], "--from is for the pipeline"),
    (["evaluate", "--on", "x.txt"], "no trained model"),
    (["run", "--nonsense"], "--nonsense"),
    (["walk"], "walk"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(row[0])[:60] for row in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_2(rnnlm: Rnnlm, arguments: list[str], said: str) -> None:
    done = rnnlm(*arguments, code=2)
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rnnlm: ")
    assert said in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "--temperature", "1", "--top-p", "1.5"], "top_p must be above 0 and at most 1, not 1.5"),
        (["sample", "--stop", ""], "a stop string must hold at least one character"),
        (["evaluate", "--on", "."], ". cannot be read (Is a directory)"),
    ],
)
def test_so_is_a_mistake_about_a_model_that_is_there(
    rnnlm: Rnnlm, model: Path, arguments: list[str], said: str
) -> None:
    done = rnnlm(*arguments, "--model", model, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("rnnlm: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_failed_stage_leaves_what_came_before_and_the_last_good_artifact(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    done = rnnlm("run", "--preset", tiny, "--set", "train.batch_size=5000", code=2)
    assert "train.batch_size" in done.stderr
    assert rnnlm("verify").stdout.count("sound") == 5
    assert list((tiny.parent / "store" / "tmp").iterdir()) == []


def test_a_text_that_the_normalizer_empties_is_said_so(rnnlm: Rnnlm, tiny: Path) -> None:
    text = tiny.parent / "russian.txt"
    text.write_text("Мороз и солнце; день чудесный!\n" * 50, encoding="utf-8")
    done = rnnlm("run", "--preset", tiny, "--corpus", text, "--set", "tokenize.normalizer=book", code=2)
    assert "tokenize.normalizer" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(rnnlm: Rnnlm, tiny: Path) -> None:
    rnnlm("run", "--preset", tiny)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "stages.cli", "run", "--preset", str(tiny)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RNNLM_STORE": str(tiny.parent / "store")},
        timeout=60,
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
