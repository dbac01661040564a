"""The types that the fields of the model are made of; here texts, flags and secrets.

Each is a plain Python type that knows how it is written in the file, how it is written back, and how it looks in the
JSON Schema. They replace pydantic's own validators, so a wrong value costs exactly one error, in our words.
"""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from gateway.config import values
from gateway.config.environment import as_read
from gateway.config.values import shown

NAME = r"[A-Za-z0-9_.-]{1,64}"
_LONGEST_REGEX = 1000


def matching(pattern: str, what: str) -> AfterValidator:
    """A validator for texts that are like this from end to end. what: they are called so where one is not."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"expected {what}, got {shown(value)}")
        return value

    return AfterValidator(check)


def text(pattern: str, **more: Any) -> WithJsonSchema:
    """The schema of such texts. more: other keys of it."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", **more})


Name = Annotated[str, matching(NAME, "1 to 64 letters, digits, '_', '.' or '-'"), text(NAME)]
NonEmpty = Annotated[str, matching(r"[^\0]+", "some text"), text(r"[\s\S]+")]
Texts = Annotated[
    tuple[NonEmpty, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
FilePath = Annotated[str, matching(r"[^\0]*[^\0/]", "the path of a file"), text(r"[\s\S]*[^/]")]

LogTarget = Annotated[
    FilePath,
    text(r"[\s\S]*[^/]", examples=["stdout", "stderr", "off", "/var/log/gateway/access.log"]),
]


def _error_log(value: str) -> str:
    if value in ("stdout", "off"):
        raise ValueError(f'expected "stderr" or the path of a file, got {shown(value)}')
    return value


ErrorLogTarget = Annotated[
    FilePath,
    AfterValidator(_error_log),
    text(r"[\s\S]*[^/]", examples=["stderr", "/var/log/gateway/error.log"]),
]


def _regex(value: str) -> str:
    if len(value) > _LONGEST_REGEX:
        raise ValueError(f"expected a regular expression of at most {_LONGEST_REGEX} characters, got {len(value)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a pattern that a later Python reads in another way
            re.compile(value)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


Regex = Annotated[str, AfterValidator(_regex), WithJsonSchema({"type": "string", "maxLength": _LONGEST_REGEX})]


def _flag(value: object) -> bool:
    flag = as_read(value)
    if not isinstance(flag, bool):
        raise ValueError(f"expected true or false, got {shown(value)}")
    return flag


Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema({"type": "boolean"})]


def _some(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise ValueError("expected at least one item, got none")
    return items


# Not pydantic's min_length: that one counts the right items only, and so tells of one mistake twice.
AT_LEAST_ONE = (AfterValidator(_some), Field(json_schema_extra={"minItems": 1}))


def _secret(value: object) -> values.Secret:
    """What is wrong with one is said without showing it."""
    if not isinstance(value, str):
        raise ValueError('expected a string, { env = "NAME", default = "TEXT" } or { file = "PATH" }')
    if not value:
        raise ValueError("a secret can't be empty")
    return values.Secret(value)


Secret = Annotated[
    str,
    PlainValidator(_secret),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"env": {"type": "string"}, "default": {"type": "string"}},
                    "required": ["env"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {"file": {"type": "string"}},
                    "required": ["file"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]

# Whose values are not shown where their names are telling.
GUARDED = AfterValidator(lambda value: values.guarded(value))


def _no_empty_secret(value: Any) -> Any:
    if isinstance(value, values.Secret) and not value:
        raise ValueError("a secret can't be empty")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _no_empty_secret(item)
    return value


# What is handed on to somebody else's code.
PluginOptions = Annotated[dict[str, Any], AfterValidator(_no_empty_secret), GUARDED]
