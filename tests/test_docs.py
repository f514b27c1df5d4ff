"""What the README says is so: its commands run, its names exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main

from stages import config
from stages.cli import app as cli
from stages.pipeline import graph, settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Every command line of ``rnnlm`` in the README's code blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if re.match(r"(\.venv/bin/)?rnnlm ", line)]


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    lines = [line for line in script.splitlines() if line.startswith(("python", ".venv"))]
    assert len(lines) == 3
    for line in lines:
        assert line.replace(" --quiet", "") in README


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_documented_command_is_understood(arguments: list[str]) -> None:
    group = typer.main.get_command(cli.app)
    name, *rest = arguments
    command = group.commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, rest)
    given = context.params
    if given.get("set_"):
        settings.load(given["preset"], None, given["set_"])
    for stage in given.get("force") or []:
        assert stage in graph.shown()


def test_every_command_of_the_help_is_documented() -> None:
    group = typer.main.get_command(cli.app)
    for name in group.commands:  # type: ignore[attr-defined]
        assert re.search(rf"rnnlm [^\n]*\b{name}\b|`{name}`", README), f"the README never mentions {name}"


def test_every_field_of_the_configuration_is_documented() -> None:
    for stage, field in config.RunConfig.model_fields.items():
        for name, own in field.annotation.model_fields.items():  # type: ignore[union-attr]
            assert own.description, f"{stage}.{name} has no description"


@pytest.mark.parametrize("name", list(settings.presets()))
def test_a_preset_explains_itself_and_fits(name: str) -> None:
    text = settings.presets()[name].read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len([line for line in text.splitlines() if line.startswith("#")]) >= 3
    settings.load(name)


def test_pins_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = dict(
        line.split("==")
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    )
    asked = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    for requirement in asked:
        assert re.match(r"[a-z0-9-]+", requirement)[0] in pinned  # type: ignore[index]
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-gpu.txt"):
        assert "http" not in (ROOT / name).read_text(encoding="utf-8").replace("http-", "").replace(
            "httpx", ""
        ).replace("httpcore", "")
