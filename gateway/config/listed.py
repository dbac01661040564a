"""A file that lists the endpoints of an upstream, in TOML or JSON: read like a configuration, with the same words for
what is wrong in which line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.config.document import Document, Place
from gateway.config.explain import explain
from gateway.config.positions import positions
from gateway.config.problems import ConfigError, ConfigErrors, KeyPath, Problem
from gateway.config.reading import parse, read
from gateway.config.upstreams import Endpoint

_LARGEST = 1 << 20  # bytes; of what is found far less is taken


class _Listed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoints: tuple[Endpoint, ...]


def load_endpoints(path: Path) -> tuple[Endpoint, ...]:
    """What the file lists, in its order. Raises ConfigErrors, and nothing else."""
    text = read(path, _LARGEST)
    data, lines = _json(path, text) if path.suffix == ".json" else (parse(path, text), _lines(path, text))
    document = Document(data, {key: Place(str(path), *place) for key, place in lines.items()}, [str(path)])
    try:
        endpoints = _Listed.model_validate(data).endpoints
    except ValidationError as error:
        problems = explain(error, data, _Listed)
    else:
        problems = _repeated(endpoints)
    if problems:
        errors = [document.error(problem.path, problem.message, problem.hint) for problem in problems]
        raise ConfigErrors(sorted(errors, key=lambda error: (error.line, error.column)))
    return endpoints


def _repeated(endpoints: tuple[Endpoint, ...]) -> list[Problem]:
    """Endpoints that are there already: an address is what one is known by."""
    first: dict[str, int] = {}
    return [
        Problem(("endpoints", index), f"{one.address} is listed already")
        for index, one in enumerate(endpoints)
        if first.setdefault(str(one.address), index) != index
    ]


_Positions = dict[KeyPath, tuple[int, int]]


def _lines(path: Path, text: str) -> _Positions:
    try:
        return positions(text)
    except RecursionError:
        raise ConfigErrors([ConfigError(str(path), 0, 0, "", "nested too deeply")]) from None


def _json(path: Path, text: str) -> tuple[dict[str, Any], _Positions]:
    """The document, a bare array as if it had its key, and where the items of the array stand."""
    try:
        data = json.loads(text)
        if not isinstance(data, dict | list):
            raise ConfigErrors([ConfigError(str(path), 1, 1, "", 'expected an array, or a table with "endpoints"')])
        return ({"endpoints": data}, _items(text, 0)) if isinstance(data, list) else (data, _keys(text))
    except RecursionError:
        message, line, column = "nested too deeply", 0, 0
    except json.JSONDecodeError as error:
        message, line, column = error.msg[:1].lower() + error.msg[1:], error.lineno, error.colno
    except ValueError as error:  # a number of thousands of digits
        message, line, column = str(error), 0, 0
    raise ConfigErrors([ConfigError(str(path), line, column, "", message)])


_BLANK = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


def _after(text: str, at: int) -> int:
    """Where the blanks that start here end."""
    found = _BLANK.match(text, at)
    return found.end() if found is not None else at


def _keys(text: str) -> _Positions:
    """The places in a table that json has read already."""
    places: _Positions = {}
    at = _after(text, 0)
    while text[at] != "}":
        start = _after(text, at + 1)  # behind the bracket or a comma
        if text[start] == "}":
            break
        key, end = _decode(text, start)
        places[(key,)] = _place(text, start)
        value = _after(text, _after(text, end) + 1)
        if key == "endpoints" and text[value] == "[":
            places |= _items(text, value)
        at = _after(text, _decode(text, value)[1])
    return places


def _items(text: str, at: int) -> _Positions:
    """The places of the items of the array that starts here."""
    places: _Positions = {}
    at = _after(text, at)
    while text[at] != "]":
        start = _after(text, at + 1)
        if text[start] == "]":
            break
        places[("endpoints", len(places))] = _place(text, start)
        at = _after(text, _decode(text, start)[1])
    return places


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
