"""The reference of the kinds, out of their own docstrings and options: what `gateway middleware` prints, and what
stands in `conf/middleware.md`."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gateway.config.dump import options_schema
from gateway.middleware.middleware import Middleware

Table = Mapping[str, type[Middleware]]

_TITLE = """# Middleware

Layers around a route, outermost first. `[[middleware]]` stands around everything, a route's `middleware` inside that.
Printed by `gateway middleware --markdown`: the text is that of the code.
"""


_DEEP = " " * 6


class Option(NamedTuple):
    """An option of a kind, or a key of a table in it ("keys[].name"). default: as it is written, "" for none."""

    name: str
    type: str
    default: str
    text: str


def summary(made: type[Middleware]) -> str:
    """The first sentence of what a kind does."""
    text = _paragraphs(made)[0]
    return text.partition(". ")[0].removesuffix(".") + "."


def _paragraphs(made: type[Middleware]) -> list[str]:
    return [" ".join(part.split()) for part in (inspect.getdoc(made) or "").split("\n\n")]


def options(made: type[Middleware]) -> list[Option]:
    """Every option of a kind, those of tables in it behind the one that is the table."""
    schema = options_schema(made.OPTIONS)
    found = [*_options(schema, schema.get("$defs", {}), "")]
    # What all kinds have comes last.
    return [one for one in found if one.name != "name"] + [one for one in found if one.name == "name"]


def _options(table: dict[str, Any], definitions: dict[str, Any], before: str) -> Iterator[Option]:
    for name, described in table["properties"].items():
        if name == "kind" and not before:
            continue
        inner, kind = _type(described, definitions)
        default = described.get("default", ... if name in table.get("required", ()) else None)
        is_default_shown = default is not None and not (inner is not None and isinstance(default, dict))
        yield Option(
            before + name,
            kind,
            "required" if default is ... else json.dumps(default, ensure_ascii=False) if is_default_shown else "",
            " ".join(described.get("description", "").split()),
        )
        if inner is not None:
            yield from _options(inner, definitions, f"{before}{name}{'[]' if kind == 'array of tables' else ''}.")


def _type(described: dict[str, Any], definitions: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The table that an option is, if it is one, and what it is in words."""
    choices = [one for one in described.get("anyOf", (described,)) if one.get("type") != "null"]
    words = []
    table = None
    for one in choices:
        if "$ref" in one:
            table = definitions[one["$ref"].rpartition("/")[2]]
            if "anyOf" in table:
                table = table["anyOf"][-1]
            words.append("table")
        elif "enum" in one or "const" in one:
            words += [json.dumps(value) for value in one.get("enum", [one.get("const")])]
        elif one.get("type") == "array":
            table, of = _type(one.get("items", {}), definitions)
            words.append(f"array of {of}s" if of else "array")
        else:
            words.append({"object": "table"}.get(one.get("type", ""), one.get("type", "")))
    return table, " or ".join(dict.fromkeys(words))


def described(kind: str, made: type[Middleware]) -> str:
    """A kind with its options, in Markdown."""
    parts = [f"## {kind}", *_paragraphs(made), f"```toml\nmiddleware = [{made.EXAMPLE}]\n```"]
    rows = ["| option | type | default | |", "|---|---|---|---|"]
    rows += [
        f"| `{one.name}` | {one.type} | {f'`{one.default}`' if one.default not in ('', 'required') else one.default} | "
        f"{one.text.replace('|', chr(92) + '|')} |"
        for one in options(made)
    ]
    return "\n\n".join((*parts, "\n".join(rows)))


def plain(kind: str, made: type[Middleware]) -> str:
    """A kind with its options, for a terminal."""
    lines = [kind, ""]
    for paragraph in _paragraphs(made):
        lines += [*textwrap.wrap(paragraph, 100), ""]
    lines += ["Example:", f"  {made.EXAMPLE}", "", "Options:"]
    for one in options(made):
        default = {"": "", "required": ", required"}.get(one.default, f" = {one.default}")
        lines += [f"  {one.name} ({one.type}){default}", *(_DEEP + line for line in textwrap.wrap(one.text, 94))]
    return "\n".join(lines)


def listing(table: Table) -> str:
    """All kinds, a line for each."""
    width = max(map(len, table))
    return "\n".join(f"{kind.ljust(width)}  {summary(made)}" for kind, made in sorted(table.items()))


def markdown(table: Table) -> str:
    """All kinds with all options."""
    return "\n\n".join((_TITLE.strip(), *(described(kind, made) for kind, made in sorted(table.items())))) + "\n"
