"""A configuration as text: what is in force, and what may be written."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

from gateway.config.document import INCLUDE
from gateway.config.model import Config, Section
from gateway.config.values import HIDDEN, Secret

_REFERENCE = r"\$\{"  # a string with a reference to the environment may become anything


def effective(config: Config) -> str:
    """The configuration in force as JSON: every default spelled out, every value as it would be written, but no
    secret."""
    return json.dumps(_without_secrets(config.model_dump()), indent=2, ensure_ascii=False) + "\n"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return HIDDEN if isinstance(value, Secret) else value


def restored(dumped: object) -> Config | None:
    """The configuration that `model_dump` was called on; None when a program of another version did, and we don't
    understand it."""
    try:
        return Config.model_validate(dumped)
    except ValidationError:
        return None


def schema() -> str:
    """The JSON Schema of a configuration file, for editors. Also true of files before their `${NAME}` are expanded."""
    found = _open(_with_written_defaults(Config.model_json_schema(schema_generator=_Untitled)))
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


def _with_written_defaults(found: dict[str, Any]) -> dict[str, Any]:
    """The same schema with defaults such as "30s", where pydantic gives the number that it stands for."""
    for section in Section.__subclasses__():
        # A section that may be a bare string is described by the last of its forms.
        definition = found if section is Config else found["$defs"][section.__name__]
        table = definition["anyOf"][-1] if "anyOf" in definition else definition
        written = section.model_construct().model_dump()
        for name, described in table["properties"].items():
            if described.get("default") is not None:
                described["default"] = written[name]
    return found


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
