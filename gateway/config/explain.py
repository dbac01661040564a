"""What pydantic found wrong, in the words of the configuration language."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.document import INCLUDE
from gateway.config.model import Config
from gateway.config.problems import KeyPath, Problem, closest
from gateway.config.values import shown

_EXPECTED = {
    "string_type": "a string",
    "tuple_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def explain(error: ValidationError, data: dict[str, Any], root: type[BaseModel] = Config) -> list[Problem]:
    """root: what was validated."""
    return [_problem(details, data, root) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, data: dict[str, Any], root: type[BaseModel]) -> Problem:
    path, value, kind = _written_path(details["loc"], data), details["input"], details["type"]
    context = details.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return Problem(path, f"unknown key {shown(path[-1])}", closest(path[-1], known_keys(path[:-1], root)))
        case "missing":
            return Problem(path, "required, but missing")
        case "value_error":
            return Problem(path, str(context["error"]))
        case "literal_error":
            words = list(get_args(_type_at(path, root)))
            return Problem(path, f"expected {_either(words)}, got {shown(value)}", closest(value, words))
        case _ if kind in _EXPECTED:
            return Problem(path, f"expected {_EXPECTED[kind]}, got {shown(value)}")
        case _:
            return Problem(path, f"not valid: {details['msg']}")


def _either(words: list[str]) -> str:
    *most, last = map(shown, words)
    return f"{', '.join(most)} or {last}" if most else last


def _written_path(location: KeyPath, data: Any) -> KeyPath:
    """The path as far as the file goes: a bare string that stands for a table has no keys of its own."""
    path: KeyPath = ()
    for part in location:
        if part == "[key]" and not (isinstance(data, dict) and part in data):
            break
        if not isinstance(data, dict | list):
            break
        path = (*path, part)
        if isinstance(data, dict):
            data = data.get(str(part), {})
        elif isinstance(part, int) and part < len(data):
            data = data[part]
    return path


def _type_at(path: KeyPath, root: type[BaseModel]) -> Any:
    """The type that the model has at a key path."""
    at: Any = root
    for part in path:
        if isinstance(part, int):
            at = get_args(at)[0]
        elif isinstance(at, type) and issubclass(at, BaseModel):
            at = at.model_fields[part].annotation
        else:
            at = get_args(at)[1]
        at = _unwrapped(at)
    return at


def _unwrapped(at: Any) -> Any:
    """Without what says that it may be absent, and without its validators."""
    while True:
        choices = get_args(at)
        if type(None) in choices:
            at = next(choice for choice in choices if choice is not type(None))
        elif get_origin(at) is Annotated:
            at = choices[0]
        else:
            return at


def known_keys(path: KeyPath, root: type[BaseModel] = Config) -> list[str]:
    """The keys that the table at this path may have."""
    keys = list(_type_at(path, root).model_fields)
    return [*keys, INCLUDE] if not path and root is Config else keys
