"""What pydantic found wrong, in the words of the configuration language."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.config import layers
from gateway.config.document import INCLUDE
from gateway.config.layers import Kinds, LayerOptions
from gateway.config.listeners import Listener, listener_kind
from gateway.config.model import Config
from gateway.config.problems import KeyPath, Problem, closest
from gateway.config.values import shown

_NONE: Kinds = MappingProxyType({})
_EXPECTED = {
    "string_type": "a string",
    "tuple_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def explain(
    error: ValidationError, data: dict[str, Any], root: type[BaseModel] = Config, kinds: Kinds = _NONE
) -> list[Problem]:
    """root: what was validated, with these kinds of layers."""
    types = _Types(root, data, kinds)
    return [_problem(details, data, types) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, data: dict[str, Any], types: _Types) -> Problem:
    path, value, kind = _written_path(details["loc"], data), details["input"], details["type"]
    context = details.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return Problem(path, f"unknown key {shown(path[-1])}", closest(path[-1], types.keys(path[:-1])))
        case "missing":
            return Problem(path, "required, but missing")
        case "value_error":
            return Problem(path, str(context["error"]))
        case "literal_error":
            words = list(get_args(types.at(path)))
            return Problem(path, f"expected {_either(words)}, got {shown(value)}", closest(value, words))
        case layers.UNKNOWN_KIND:
            named, known, of = context["kind"], context["known"], context["of"]
            return Problem((*path, "kind"), f"there is no kind {shown(named)} of {of}", closest(named, known))
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


class _Types:
    """What type the model has where in a document."""

    def __init__(self, root: type[BaseModel], data: dict[str, Any], kinds: Kinds) -> None:
        self._root = root
        self._data = data
        self._kinds = kinds

    def at(self, path: KeyPath) -> Any:
        at: Any = self._root
        data: Any = self._data
        for part in path:
            if isinstance(part, int):
                at = get_args(at)[0]
            elif isinstance(at, type) and issubclass(at, BaseModel):
                at = _fields(at)[part].annotation
            else:
                at = get_args(at)[1]
            at = _unwrapped(at)
            data = _part(data, part)
            if isinstance(data, dict) and _is_layer(at):
                at = self._kinds.get(str(data.get("kind")), LayerOptions)
            elif at is Listener:
                at = listener_kind(data) or Listener
        return at

    def keys(self, path: KeyPath) -> list[str]:
        """The keys that the table at this path may have."""
        keys = list(_fields(self.at(path)))
        return [*keys, INCLUDE] if not path and self._root is Config else keys


def _fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """By the names under which they are written."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _part(data: Any, part: str | int) -> Any:
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


def _is_layer(at: Any) -> bool:
    return at is LayerOptions or LayerOptions in get_args(at)


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
