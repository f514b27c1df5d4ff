"""What a client asks for: the fields of each kind of request, and how a body becomes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, field_validator, model_validator

from data import shown
from data.store.naming import DEFAULT
from stages.serving import limits
from stages.serving.refused import Refused

Asked = TypeVar("Asked", bound="_Asked")
Stop = Annotated[str, Field(min_length=1, max_length=limits.STOP)]


class _Asked(BaseModel):
    """Fields of the right type and none that is not known; ``null`` is as good as left out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    model: str = DEFAULT

    @model_validator(mode="before")
    @classmethod
    def _given(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


class StreamOptions(BaseModel):
    """What else a stream brings."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    include_usage: StrictBool = False
    include_obfuscation: Literal[False] = False


class Completion(_Asked):
    """Texts that go on from prompts: the fields of OpenAI's legacy API, and their defaults."""

    prompt: Annotated[list[str], Field(min_length=1)] = [""]
    max_tokens: Annotated[int, Field(ge=0, le=limits.TOKENS)] = 16
    temperature: Annotated[float, Field(ge=0, le=1000)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """Ours: draw among so many of the likeliest; 0 is all."""
    n: Annotated[int, Field(ge=1, le=limits.CHOICES)] = 1
    stream: StrictBool = False
    stream_options: StreamOptions = StreamOptions()
    stop: Annotated[list[Stop], Field(max_length=limits.STOPS)] = []
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=limits.LIKELIEST)] | None = None
    echo: StrictBool = False
    user: str = ""
    # What clients send as a matter of course, and what means something only where it says something else.
    suffix: Literal[""] = ""
    best_of: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[str, float] = {}

    @field_validator("prompt", "stop", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("prompt")
    @classmethod
    def _short(cls, prompts: list[str]) -> list[str]:
        if (characters := sum(map(len, prompts))) > limits.PROMPT:
            raise ValueError(f"{characters:,} characters are more than the {limits.PROMPT:,} that are read")
        return prompts

    @model_validator(mode="after")
    def _supported(self) -> Completion:
        for name, neutral in {
            "best_of": self.n if "best_of" in self.model_fields_set else 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "logit_bias": {},
        }.items():
            if getattr(self, name) != neutral:
                raise ValueError(f"{name}: only {neutral} is supported, or leave it out")
        if self.n * len(self.prompt) > limits.CHOICES:
            raise ValueError(f"n: {self.n * len(self.prompt)} texts are more than the {limits.CHOICES} of one request")
        if self.logprobs is not None:
            each = sum(map(len, self.prompt)) * self.echo + len(self.prompt) * self.max_tokens
            if (listed := each * self.n * (1 + self.logprobs)) > limits.LISTED:
                raise ValueError(f"logprobs: {listed:,} tokens may have to be listed, more than {limits.LISTED:,}")
        return self


class Scoring(_Asked):
    """Texts to be measured."""

    text: list[Annotated[str, Field(max_length=limits.PROMPT)]]

    @field_validator("text", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


def read(body: bytes, kind: type[Asked]) -> Asked:
    """A body as what it asks for.

    Raises:
        Refused: what is no JSON, has a field twice, an unknown one or none of its type, or a value out of bounds.
    """
    try:
        fields = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = "it is too deep" if isinstance(error, RecursionError) else shown.line(str(error))
        raise Refused(400, f"the body is no JSON: {why}", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise Refused(400, "the body must be a JSON object", code="invalid_json")
    for number, depth in enumerate(_depths(fields)):
        if depth > limits.DEEP:
            raise Refused(400, f"the body is more than {limits.DEEP} deep", code="invalid_json")
        if number > limits.VALUES:
            raise Refused(400, f"the body has more than {limits.VALUES:,} values", code="invalid_json")
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused(400, "the body has half of a character, \\ud800 for one", code="invalid_json") from None
    if kind is Completion and _ids(fields.get("prompt")):
        raise Refused(400, "prompt: token ids are not supported, give text", param="prompt")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _wrong(error) from None


def _wrong(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # what we say of several fields begins with the name of one
        return Refused(400, message, param=message.partition(":")[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        message = "there is no such field"
    return Refused(400, shown.line(f"{where}: {message}"), param=str(first["loc"][0]))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field stands there twice")
    return fields


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is none of its numbers")


def _depths(value: Any, depth: int = 0) -> Iterator[int]:
    """How deep a value and all within it stand, no further than is taken."""
    yield depth
    if depth <= limits.DEEP:
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from _depths(inner, depth + 1)


def _ids(prompt: Any) -> bool:
    first = prompt[0] if isinstance(prompt, list) and prompt else None
    return type(first) in (int, list)
