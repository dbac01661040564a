"""What every table of a configuration is."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the file. An unknown key is an error."""

    # Not use_attribute_docstrings: pydantic would read and parse the source of all sections at each start.
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


def documented(section: type[Section]) -> dict[str, str]:
    """The docstrings below the fields, by field: "" where there is none. Nothing where Python has no source."""
    found: dict[str, str] = {}
    for one in reversed(section.__mro__):
        if issubclass(one, Section):
            found |= _docstrings(one.__module__).get(one.__name__, {})
    return found


@cache
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """By class."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:
        return {}
    return {one.name: dict(_below_fields(one)) for one in tree.body if isinstance(one, ast.ClassDef)}


def _below_fields(section: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise([*section.body, ast.Pass()]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield field.target.id, inspect.cleandoc(text)
                case _:
                    yield field.target.id, ""


def or_table(**text: object) -> Any:
    """For the JSON Schema of a section that may also be written as a bare string."""

    def change(schema: dict[str, Any]) -> None:
        table = dict(schema)
        schema.clear()
        schema["anyOf"] = [{"type": "string", **text}, table]

    return change
