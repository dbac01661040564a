"""What every table of a configuration is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the file. An unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True)


def or_table(**text: object) -> Any:
    """For the JSON Schema of a section that may also be written as a bare string."""

    def change(schema: dict[str, Any]) -> None:
        table = dict(schema)
        schema.clear()
        schema["anyOf"] = [{"type": "string", **text}, table]

    return change
