"""What the documents say is so: their commands parse, their links lead somewhere, what they name exists."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from data.corpus import catalogue, client
from data.documents import columnar, members, rows, urls
from data.store import reading
from stages import config
from stages.cli import app as cli
from stages.pipeline import graph, presets, settings
from stages.report import words
from stages.serving import limits
from stages.sweep import pool, worker

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parent.parent
DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "flows/README.md",
        "stages/presets/README.md",
        "stages/serving/README.md",
        "data/corpus/README.md",
        "data/store/README.md",
        "stages/indexing/README.md",
        "stages/export/README.md",
        ".github/CONTRIBUTING.md",
        ".github/RELEASES.md",
        ".github/SECURITY.md",
    )
}
"""Path → text of everything that is written to be read."""
TREE = ROOT / "tests" / "tree.py"
README = DOCUMENTS["README.md"]
OURS = re.compile(r"(\.ci|\.github|data|flows|stages|tests)/[\w./-]*|[\w-]+\.(md|toml|txt|yaml)")
"""What in backticks looks like one of this project's paths."""
MADE = re.compile(r"(data/artifacts|tests/benchmark/results)\b.*|(corpus|tail|my)\.t\w+")
"""… and is made by a run, or by the reader."""


def blocks(document: str) -> list[str]:
    """A document's blocks of shell commands, a string each."""
    return re.findall(r"^ *```sh\n(.*?)```", DOCUMENTS[document], re.DOTALL | re.MULTILINE)


def spans(document: str) -> list[str]:
    """What stands in backticks in a document's prose."""
    prose = re.sub(r"^ *(````?)\w*\n.*?^ *\1\n", "", DOCUMENTS[document], flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


def commands() -> list[list[str]]:
    """The arguments of every command line of ``rnnlm`` in a document, in a block or in the prose."""
    found = []
    for document in DOCUMENTS:
        lines = [line.partition("  #")[0].strip() for block in blocks(document) for line in block.splitlines()]
        for line in [*lines, *spans(document)]:
            if re.match(r"(\.venv/bin/)?rnnlm ", line) and not line.endswith("--help"):
                arguments = shlex.split(line)[1:]
                if arguments not in found:
                    found.append(arguments)
    return found


def rnnlm() -> TyperGroup:
    """The command line as the library behind it has it."""
    return typer.main.get_group(cli.app)


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    lines = script.replace("python3.11 ", "python3 ").replace(" --quiet", "").splitlines()
    run, test = (block.splitlines() for block in blocks("README.md")[:2])
    documented = [run[0], *test]
    assert [line for line in lines if line in documented] == documented
    workflows = [path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").iterdir()]
    assert [re.findall(r"run: (.*)", text) for text in workflows] == [["bash .ci/run"]]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_documented_command_is_understood(arguments: list[str]) -> None:
    name, *rest = arguments
    command = rnnlm().commands[name]
    given = command.make_context(name, rest).params if rest else {}  # in prose a command may be named alone
    if given.get("set_"):
        settings.load(given["preset"], None, given["set_"])
    for stage in given.get("force") or []:
        assert stage in graph.shown()


REFUSED = {"rollback": "no champion to go back", "promote": "2f41c0"}
"""What cannot be done in the order of the documents, and what is said of it."""


@pytest.mark.parametrize("document", ["README.md", "flows/README.md", "stages/presets/README.md"])
def test_the_commands_of_a_document_run(
    document: str, here: Rnnlm, tmp_path: Path, tiny: Path, tiny_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, each preset a small one; what asks for a server is run by the tests of the flows."""
    preset = "# Small.\n" + tiny.read_text(encoding="utf-8").replace("epochs = 2", "epochs = 1")
    for name in (*presets.presets(), "my"):
        (tmp_path / f"{name}.toml").write_text(preset, encoding="utf-8")
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    (tmp_path / "chapters").mkdir()
    for name in ("my.txt", "letters.txt", "chapters/one.txt"):
        (tmp_path / name).write_text(tiny_text, encoding="utf-8")
    monkeypatch.setattr(pool, "processes", partial(pool.processes, do=lambda job, stopped: worker.train(job)))
    lines = [line for block in blocks(document) for line in block.splitlines() if line.startswith(".venv/bin/rnnlm ")]
    assert lines
    for line in lines:
        command, *rest = shlex.split(line.replace("hidden_size=512", "hidden_size=16"), comments=True)[1:]
        done = here(command, *rest, code=2 if command in REFUSED else 0, cwd=tmp_path)
        assert REFUSED.get(command, "") in done.stderr


def test_the_library_does_what_the_readme_shows(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example] = re.findall(r"^```python\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "artifacts").symlink_to(finished)
    [model] = (finished / "train").iterdir()
    monkeypatch.chdir(tmp_path)
    file = ROOT / "stages" / "library" / "rnnlm" / "__init__.py"  # which has another name where it is installed
    spec = importlib.util.spec_from_file_location("rnnlm", file, submodule_search_locations=[str(file.parent)])
    assert spec
    assert spec.loader
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setitem(sys.modules, "rnnlm", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sys.modules["rnnlm"])
    shown: dict[str, Any] = {}
    exec(example.replace("<key>", model.name), shown)
    assert type(shown["model"]).__module__ == "rnnlm.stages.lm.model"


def test_every_command_of_the_help_is_documented() -> None:
    for name in rnnlm().commands:
        pattern = rf"rnnlm [^\n]*\b{name}\b|`{name}`"
        assert any(re.search(pattern, text) for text in DOCUMENTS.values()), f"no document ever mentions {name}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_program_that_is_to_be_run_exists(document: str) -> None:
    for line in [*"\n".join(blocks(document)).splitlines(), *spans(document)]:
        if module := re.search(r"python -m ([\w.]+)", line):
            assert importlib.util.find_spec(module[1]) is not None or module[1] == "venv", line
        elif path := re.search(r"(?:python|python -P|pytest -n 0|bash) ((?:tests|\.ci)/[^\s`]+)", line):
            assert (ROOT / path[1]).is_file() or (ROOT / path[1] / "__main__.py").is_file(), line


@pytest.mark.parametrize("program", ["benchmark/__main__", "digests", "kill", "suggestions", "tree", "wheels", "years"])
def test_a_long_form_finds_what_it_is_about(program: str) -> None:
    """None of them runs here, but all that they import is there."""
    script = f"import runpy; runpy.run_path('tests/{program}.py')"
    done = subprocess.run([sys.executable, "-P", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_deployment_that_is_named_is_declared(document: str) -> None:
    declared = yaml.safe_load((ROOT / "flows" / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    names = {f"{one['entrypoint'].rpartition('.')[2].replace('_', '-')}/{one['name']}" for one in declared}
    assert set(re.findall(r"deployment run (\S+)", DOCUMENTS[document])) <= names
    assert {span for span in spans(document) if re.fullmatch(r"[\w-]+/(nightly|on-demand)", span)} <= names
    if document == "flows/README.md":
        assert all(f"| `{name}` |" in DOCUMENTS[document] for name in names)


def test_the_readme_shows_what_the_first_command_trains() -> None:
    """And that is better than counting, which nobody would show who did not believe it."""
    preset = settings.load()
    table = {cells[0]: cells for line in README.splitlines() if len(cells := line.strip("| ").split(" | ")) == 9}
    train, vocab_size = preset.train, int(float(table["train"][8]))
    described = words.description(
        {
            **train.model_dump(),
            "mixture": {"order": train.ngram},
            "vocab_size": vocab_size,
            "level": preset.tokenize.level,
        },
        train.epochs,
    )
    assert described in README.splitlines()
    perplexity, fivegram = float(table["test"][2]), float(table["test"][6])
    assert perplexity < fivegram
    assert f"{perplexity:.2f} on unseen text, where a 5-gram reaches {fivegram:.2f}." in README


def test_a_night_trains_as_the_first_command_does() -> None:
    declared = yaml.safe_load((ROOT / "flows" / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    [nightly] = [one for one in declared if one["name"] == "nightly"]
    night = settings.parse(nightly["parameters"]["config"])
    assert (night.train, night.tokenize) == (settings.load().train, settings.load().tokenize)


def anchors(path: Path) -> set[str]:
    """The names by which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_link_leads_somewhere(document: str) -> None:
    prose = re.sub(r"^(````?)\w*\n.*?^\1\n", "", DOCUMENTS[document], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            path = (ROOT / document).parent / name if name else ROOT / document
            assert path.exists(), f"{document} links to {target}"
            assert not anchor or anchor in anchors(path), f"{document} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_path_that_is_named_exists(document: str) -> None:
    known = {path.name for path in runpy.run_path(str(TREE))["files"]()}
    for span in spans(document):
        name = span.split()[0].removesuffix(",")
        if OURS.fullmatch(name) and not MADE.fullmatch(name):
            assert name in known or (ROOT / name).exists(), f"{document} names {name}"


def test_the_maps_are_what_the_project_says_of_itself() -> None:
    tree = runpy.run_path(str(TREE))
    for name in tree["BLOCKS"]:
        assert tree["written"](name) == DOCUMENTS[name], f"{name} has an old map: run python tests/tree.py"


def test_every_file_says_in_one_line_what_it_is() -> None:
    for line in re.findall(r"^- \[.*", DOCUMENTS[".github/CONTRIBUTING.md"], re.MULTILINE):
        assert re.fullmatch(r"- \[\S+\]\(\S+\): \S.*[.)]", line), f"no sentence ends on its first line: {line}"


def test_every_field_of_the_configuration_is_documented() -> None:
    for stage, field in config.RunConfig.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, config.StageConfig)
        for name, own in section.model_fields.items():
            assert own.description, f"{stage}.{name} has no description"


@pytest.mark.parametrize("name", list(presets.presets()))
def test_a_preset_explains_itself_and_fits(name: str) -> None:
    text = presets.presets()[name].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len([line for line in text.splitlines() if line.startswith("#")]) >= 3
    settings.load(name)


def test_the_bounds_that_are_written_are_those_of_the_code() -> None:
    bounds = [
        int(found.replace(",", "")) for found in re.findall(r"\d{1,3}(?:,\d{3})+", DOCUMENTS[".github/SECURITY.md"])
    ]
    assert bounds == [
        *(catalogue.MAX_BYTES, members.DIRECTORY, members.MEMBERS, rows.BLOCK, columnar.BATCH, urls.LARGEST),
        *(reading.LARGEST, settings.LARGEST, limits.BODY),
    ]
    assert client.REDIRECTS == 20  # in words there
    written = re.findall(r"\d{1,3}(?:,\d{3})+", DOCUMENTS["stages/serving/README.md"])
    bounds = [limits.BODY, limits.VALUES, limits.PROMPT, limits.TOKENS, limits.LISTED, limits.CONNECTIONS]
    assert written == [f"{bound:,}" for bound in bounds]


def test_pins_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = dict(
        line.split("==", 1)
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    )
    asked = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    for requirement in asked:
        assert re.split(r"[^a-z0-9-]", requirement.lower())[0] in pinned
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-gpu.txt", "requirements-benchmark.txt"):
        assert "http" not in (ROOT / name).read_text(encoding="utf-8").replace("http-", "").replace(
            "httpx", ""
        ).replace("httpcore", "")
