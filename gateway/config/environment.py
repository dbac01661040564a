"""`${NAME}` and `${NAME:-default}` in the strings of a configuration.

Pure: the environment is an argument. Values are expanded before the model sees them and stay marked as `Expanded`, so
that only a key which wants a number reads "2" as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.config.problems import KeyPath, Problem
from gateway.config.values import Secret

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>.*))?", re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,18}\.[0-9]{1,18}")


class Expanded(str):
    """A string that took something from the environment."""

    __slots__ = ()


def as_read(value: object) -> object:
    """What a value from the environment says when its key wants a number or a boolean; anything else unchanged."""
    if isinstance(value, Expanded):
        if _NUMBER.fullmatch(value):
            return int(value)
        if _DECIMAL.fullmatch(value):
            return float(value)
        if value in ("true", "false"):
            return value == "true"
    return value


def expand_text(text: str, environ: Mapping[str, str], is_secret: bool = False) -> tuple[str, list[str]]:
    """The text with its references replaced, and one message for each that can't be. is_secret: the messages don't
    quote it."""
    wrong: list[str] = []

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        inside = _INSIDE.fullmatch(found["inside"])
        quoted = "${...}" if is_secret else found[0]
        if not found["end"]:
            wrong.append(f'"{quoted}" has no closing brace; "$${{" is a plain "${{"')
        elif inside is None:
            wrong.append(f'"{quoted}" names no environment variable; "$${{" is a plain "${{"')
        elif "${" in (inside["default"] or ""):
            wrong.append(f'the default in "{quoted}" can\'t refer to another variable')
        elif inside["default"] is not None:
            return environ.get(inside["name"]) or inside["default"]
        elif inside["name"] in environ:
            return environ[inside["name"]]
        else:
            wrong.append(f"the environment variable {inside['name']} is not set, and no default is given")
        return ""

    expanded = _REFERENCE.sub(replace, text)
    return (text if expanded == text and not wrong else Expanded(expanded)), wrong


_SECRETS = frozenset(("secret",))


def takes_secret(path: KeyPath) -> bool:
    """Whether a secret may stand here, which may also be written { env = "NAME" } or { file = "PATH" }: as the value of
    certain keys, and anywhere within the `options` that a layer hands on to a plug-in."""
    return bool(path) and (path[-1] in _SECRETS or _is_option(path))


def _is_option(path: KeyPath) -> bool:
    # In `middleware`, or in that of a set or a route.
    return any(len(path) > at + 3 and (path[at], path[at + 2]) == ("middleware", "options") for at in (0, 2))


def expand(value: Any, environ: Mapping[str, str], path: KeyPath = ()) -> tuple[Any, list[Problem]]:
    """A copy of parsed TOML with all strings expanded. A string that can't be is left empty and reported."""
    problems: list[Problem] = []

    def secret(table: dict[str, Any], path: KeyPath) -> Any:
        """What { env = "NAME", default = "TEXT" } stands for; another table as it is."""
        name = table.get("env")
        if not isinstance(name, str) or not table.keys() <= {"env", "default"}:
            return {key: walk(item, (*path, key)) for key, item in table.items()}
        if environ.get(name) or (name in environ and "default" not in table):
            return Secret(environ[name])
        if "default" in table:  # also for an empty one, as with ${NAME:-default}
            default = walk(table["default"], path)
            return Secret(default) if isinstance(default, str) else default
        problems.append(Problem(path, f"the environment variable {name} is not set, and no default is given"))
        return ""

    def walk(value: Any, path: KeyPath) -> Any:
        match value:
            case str():
                text, wrong = expand_text(value, environ, bool(path) and path[-1] in _SECRETS)
                problems.extend(Problem(path, message) for message in wrong)
                return text
            case list():
                return [walk(item, (*path, index)) for index, item in enumerate(value)]
            case dict() if takes_secret(path):
                return secret(value, path)
            case dict():
                return {key: walk(item, (*path, key)) for key, item in value.items()}
            case _:
                return value

    return walk(value, path), problems


def untouched(problems: list[Problem], unread: list[Problem]) -> Iterator[Problem]:
    """Those problems that don't merely follow from a value which could not be expanded."""
    paths = {problem.path for problem in unread}
    for problem in problems:
        if not any(problem.path[:length] in paths for length in range(len(problem.path) + 1)):
            yield problem
