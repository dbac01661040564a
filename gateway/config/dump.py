"""A configuration as text: what is in force, and what may be written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from math import isfinite
from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

from gateway.config import layers, listeners
from gateway.config.document import INCLUDE
from gateway.config.layers import Kinds
from gateway.config.listeners import LISTENERS
from gateway.config.model import Config
from gateway.config.section import Section, documented
from gateway.config.values import HIDDEN, Secret, without_credentials

_REFERENCE = r"\$\{"  # a string with a reference to the environment may become anything


def effective(config: Config) -> str:
    """The configuration in force as JSON: every default spelled out, every value as it would be written, but no
    secret."""
    # Options of plug-ins may hold what JSON has no word for: dates and times.
    return json.dumps(without_secrets(config.model_dump()), indent=2, ensure_ascii=False, default=str) + "\n"


def without_secrets(value: Any) -> Any:
    """The same with something else in the place of each secret, also of those in URLs."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if isinstance(value, str):
        return HIDDEN if isinstance(value, Secret) else without_credentials(value)
    return value


Mark = tuple[tuple[str | int, ...], str]


def kept(config: Config) -> tuple[dict[str, Any], list[Mark]]:
    """The configuration as JSON can hold it, with every secret in it; and where something stands that JSON knows only
    as a string, with what it is: no field says so of the options of a plug-in."""
    marks: list[Mark] = []

    def walk(value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        for kind, (theirs, _) in _MARKS.items():
            if isinstance(value, theirs) and not (isinstance(value, float) and isfinite(value)):
                marks.append((path, kind))
                return value.isoformat() if isinstance(value, date | time) else str(value)
        return str(value) if isinstance(value, str) else value

    data: dict[str, Any] = walk(config.model_dump(), ())
    return data, marks


# A datetime is a date as well, and so goes before it.
_MARKS: dict[str, tuple[type, Callable[[str], Any]]] = {
    "secret": (Secret, Secret),
    "datetime": (datetime, datetime.fromisoformat),
    "date": (date, date.fromisoformat),
    "time": (time, time.fromisoformat),
    "float": (float, float),
}


def restored(data: Any, kinds: Kinds, marks: Iterable[Mark] = ()) -> Config | None:
    """The configuration that was `kept`, whose data this takes over; None when a program of another version did, and we
    don't understand it."""
    try:
        for path, kind in marks:
            table = data
            for part in path[:-1]:
                table = table[part]
            table[path[-1]] = _MARKS[kind][1](table[path[-1]])
        return Config.model_validate(data, context=kinds)
    except (ValidationError, LookupError, TypeError, ValueError):
        return None


def schema(kinds: Kinds) -> str:
    """The JSON Schema of a configuration file, for editors. Also true of files before their `${NAME}` are expanded."""
    described = _in_words(Config.model_json_schema(schema_generator=_Untitled), Config)
    described = _with_kinds(described, kinds, layers.SCHEMA, "Layer")
    found = _open(_with_kinds(described, LISTENERS, listeners.SCHEMA, "Listener"))
    found["properties"][INCLUDE] = {
        "type": "array",
        "items": {"type": "string"},
        "default": [],
        "description": "Further files, relative to this one: tables are merged, arrays of tables appended.",
        "examples": [["routes.d/*.toml"]],
    }
    # A file that is one of several need not hold everything.
    found.pop("required", None)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gateway.toml",
        "description": 'Durations are written "30s", sizes "64KiB"; ${NAME} and ${NAME:-default} in any string are '
        "taken from the environment.",
    }
    return json.dumps({**head, **{key: found[key] for key in found if key not in head}}, indent=2) + "\n"


class _Untitled(GenerateJsonSchema):
    """Without the titles that pydantic makes up from the names of the fields."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _with_kinds(
    found: dict[str, Any], kinds: Mapping[str, type[Section]], stands_for: dict[str, Any], name: str
) -> dict[str, Any]:
    """The same with a table of any of these kinds, under this name, where something else stands for it. What belongs to
    one kind has its name before its own."""
    definitions = found["$defs"]
    for kind, options in sorted(kinds.items()):
        described = options_schema(options)
        inner = described.pop("$defs", {})
        own = {f"#/$defs/{name}": f"#/$defs/{kind}.{name}" for name in inner}
        definitions[kind] = _renamed(described, own)
        definitions |= {f"{kind}.{name}": _renamed(one, own) for name, one in inner.items()}
    definitions[name] = {"anyOf": [{"$ref": f"#/$defs/{kind}"} for kind in sorted(kinds)]}

    def put(node: Any) -> Any:
        if node == stands_for:
            return {"$ref": f"#/$defs/{name}"}
        if isinstance(node, list):
            return [put(item) for item in node]
        return {key: put(value) for key, value in node.items()} if isinstance(node, dict) else node

    placed: dict[str, Any] = put(found)
    return placed


def _renamed(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {
            key: names.get(value, value) if key == "$ref" else _renamed(value, names) for key, value in node.items()
        }
    return [_renamed(item, names) for item in node] if isinstance(node, list) else node


def options_schema(options: type[Section]) -> dict[str, Any]:
    """The JSON Schema of one kind of layer or listener."""
    described = _in_words(options.model_json_schema(schema_generator=_Untitled), options)
    kind = described["properties"].pop("kind")
    described["properties"] = {"kind": kind, **described["properties"]}
    needed = [name for name in described.get("required", ()) if name != "kind"]
    described["required"] = needed if options is listeners.HttpListener else ["kind", *needed]
    return described


def _in_words(found: dict[str, Any], root: type[Section]) -> dict[str, Any]:
    """The schema of root with what stands below the fields, and with defaults such as "30s", where pydantic gives the
    number that it stands for."""
    for section in _sections(Section):
        definition = found if section is root else found.get("$defs", {}).get(section.__name__)
        if definition is None or (section is not root and section.__module__ not in _modules(root)):
            continue
        # A section that may be a bare string is described by the last of its forms.
        table = definition["anyOf"][-1] if "anyOf" in definition else definition
        written = section.model_construct().model_dump(warnings=False)
        texts = documented(section)
        for name, field in section.model_fields.items():
            key = field.alias or name
            described = table["properties"][key]
            if described.get("default") is not None:
                described["default"] = written[key]
            if text := texts.get(name):
                described.setdefault("description", text)
                table["properties"][key] = dict(sorted(described.items()))
    return found


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    """All that derive from it."""
    for one in section.__subclasses__():
        yield one
        yield from _sections(one)


def _modules(root: type[Section]) -> set[str]:
    """Where the sections of root may be written: two kinds may each have one of the same name."""
    room = Section.__module__.rpartition(".")[0]
    return {root.__module__, *(one.__module__ for one in _sections(Section) if one.__module__.startswith(room))}


def _open(node: Any) -> Any:
    """Let a reference to the environment stand where a value with rules is wanted. Leave out null: TOML has none."""
    if isinstance(node, list):
        return [_open(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: value if key in ("default", "examples") else _open(value) for key, value in node.items()}
    if node.get("default", ...) is None:
        del node["default"]
    if "anyOf" in node:
        choices = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
        if len(choices) == 1:
            del node["anyOf"]
            return {**choices[0], **node}
        return {**node, "anyOf": choices}
    if isinstance(pattern := node.get("pattern"), str):
        return {**node, "pattern": f"({pattern})|{_REFERENCE}"}
    if node.get("type") in ("integer", "boolean") or "enum" in node or "const" in node:
        rules = {key: node.pop(key) for key in ("type", "enum", "const", "minimum", "maximum") if key in node}
        return {**node, "anyOf": [rules, {"type": "string", "pattern": _REFERENCE}]}
    return node
