"""A command is given the options of a configuration, and has it as one thing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import typer
from typer.testing import CliRunner

from stages.cli.options import Configuration, Json, configured
from stages.pipeline import graph

Asked = tuple[str, int, Configuration, bool]


@pytest.fixture
def ask() -> Callable[..., Asked]:
    """Call a command that keeps what it was given."""
    given: list[Asked] = []
    app = typer.Typer()

    @app.command()
    @configured
    def command(name: str, *, count: int = 1, config: Configuration, as_json: Json = False) -> None:
        """Keep it."""
        given.append((name, count, config, as_json))

    def call(*arguments: str) -> Asked:
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return given.pop()

    return call


def test_options_of_a_configuration_come_as_one(ask: Callable[..., Asked]) -> None:
    assert ask("a") == ("a", 1, Configuration(), False)
    arguments = ["a", "--preset", "book", "--set", "train.epochs=3", "--set", "train.seed=2", "--count", "4", "--json"]
    name, count, config, as_json = ask(*arguments)
    assert (name, count, as_json) == ("a", 4, True)
    assert config == Configuration("book", None, ["train.epochs=3", "train.seed=2"])
    assert (config.load().train.epochs, config.load().train.seed) == (3, 2)


def test_each_stage_that_is_shown_has_its_command() -> None:
    from stages.cli.app import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if name in graph.STAGES] == graph.shown()
    (stage,) = (parameter for parameter in commands["explain"].params if parameter.name == "stage")
    assert all(name in stage.help for name in graph.shown())
