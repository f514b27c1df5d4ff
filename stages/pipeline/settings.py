"""Where a run's settings come from: a preset, then `--corpus`, then `--set`; and what does not fit, in one sentence."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from data.errors import ConfigError
from stages.config import RunConfig
from stages.pipeline.presets import DEFAULT, presets

_TOO_MUCH = "it has an integer of thousands of digits, or values within values within values"
"""What the readers of TOML end in a `ValueError` and a `RecursionError` for; these values cannot be repeated either."""
LARGEST, _DOTS = 1 << 18, 1000
"""Bytes of a preset and full stops in one of its lines, at most: a key of many parts is read in the square of them."""


def load(preset: str = DEFAULT, corpus: str | None = None, assignments: Iterable[str] = ()) -> RunConfig:
    """The configuration of a run.

    Args:
        preset: a preset's name, or the path of a TOML file with the same sections.
        corpus: takes the place of ``download.corpus``.
        assignments: ``STAGE.FIELD=VALUE`` each; the last one for a field holds.

    Raises:
        ConfigError: a preset, field or value that is not there or does not fit.
    """
    values = _read_preset(preset)
    if corpus is not None:
        assignments = (f"download.corpus={corpus}", *assignments)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        stage, dot, field = name.strip().partition(".")
        if not (equals and dot and stage and field):
            raise ConfigError(f"--set {assignment}: write it as STAGE.FIELD=VALUE, such as train.hidden_size=512")
        section = values.setdefault(stage, {})
        if isinstance(section, dict):
            section[field] = _value(stage, field, value)
    return parse(values)


def parse(values: object) -> RunConfig:
    """A run's configuration out of nested values, the first thing wrong with them said in one sentence."""
    for stage, section in values.items() if isinstance(values, Mapping) else ():
        for field, value in section.items() if isinstance(section, Mapping) else ():
            if isinstance(value, bool) and (info := _field(stage, field)) and info.annotation in (int, float):
                raise ConfigError(f"{stage}.{field}: {value} does not fit: input should be a number")
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def _read_preset(preset: str) -> dict[str, Any]:
    path = presets().get(preset)
    if path is None:
        try:
            path = Path(preset).expanduser()
            there = path.is_file()
        except (OSError, RuntimeError):  # a name too long, or of a user that there is not
            path, there = Path(), False
        if not there:
            raise ConfigError(
                f"there is no preset {preset!r}: name one of {', '.join(presets())}, or the path of a TOML file"
            )
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ConfigError(f"the preset {path} has more than {LARGEST:,} bytes, which is more than settings take")
        if any(line.count(b".") > _DOTS for line in content.splitlines()):
            raise RecursionError
        return tomllib.loads(content.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the preset {path} cannot be read: {error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"the preset {path} cannot be read: {_TOO_MUCH}") from None


def _value(stage: str, field: str, text: str) -> object:
    """The text of an assignment; a field of several values takes a TOML array, or one value as it stands."""
    info = _field(stage, field)
    if info is None or get_origin(info.annotation) is not tuple:
        return text
    if not text.lstrip().startswith("["):
        return [text]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        raise ConfigError(f'{stage}.{field}: {text} is not an array; write it as ["one", "two"]') from None


def _field(stage: str, field: str) -> FieldInfo | None:
    section = RunConfig.model_fields.get(stage)
    model = section.annotation if section else None
    return model.model_fields.get(field) if isinstance(model, type) and issubclass(model, BaseModel) else None


def _sentence(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path) or "the configuration"
    if problem["type"] == "extra_forbidden":
        model: Any = RunConfig
        for part in path[:-1]:
            model = model.model_fields[part].annotation
        owner, known = (f"the stage {path[-2]} has no field", "fields") if path[1:] else ("there is no stage", "stages")
        guess = difflib.get_close_matches(path[-1], model.model_fields, n=1)
        hint = f"did you mean {guess[0]!r}?" if guess else f"its {known} are {', '.join(model.model_fields)}"
        return f"{name}: {owner} {path[-1]!r}; {hint}"
    message = re.sub("^Value error, ", "", problem["msg"])
    if problem["type"] == "value_error":
        return f"{name}: {message}"
    if problem["type"] == "string_pattern_mismatch" and path[-1] == "device":
        message = "should be auto, cpu, gpu or gpu:N"
    if path[:2] == ["download", "headers"]:  # which may say what nobody else is to read
        return f"{name}: {message[0].lower()}{message[1:]}"
    try:
        given = repr(problem["input"])
    except (ValueError, RecursionError):  # as above
        given = "a value too large to repeat"
    for bound in problem.get("ctx", {}).values():
        if isinstance(bound, float):  # which Pydantic writes out, with thirty zeros
            message = f"{message.rpartition(' ')[0]} {bound:g}"
    return f"{name}: {given} does not fit: {message[0].lower()}{message[1:]}"
