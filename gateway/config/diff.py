"""What changed between two configurations, in lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from gateway.config.dump import without_secrets
from gateway.config.model import Config
from gateway.config.problems import KeyPath, dotted
from gateway.config.values import HIDDEN, Secret

_LONGEST = 80


def changes(old: Config, new: Config) -> list[str]:
    """One line for each difference: "+" came, "-" went, "~" changed. Listeners and routes are matched by name."""
    before, after = _named(old), _named(new)
    lines = list(_tables((), before, after))
    # Among routes of the same precedence the first one in the file wins.
    stayed = [name for name in before["routes"] if name in after["routes"]]
    if stayed != [name for name in after["routes"] if name in before["routes"]]:
        lines.append("~ routes: another order")
    return lines


def _named(config: Config) -> dict[str, Any]:
    data = config.model_dump()
    for key in ("listeners", "routes"):
        data[key] = {item.pop("name"): item for item in data[key]}
    return data


def _tables(path: KeyPath, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key in old | new:
        yield from _values((*path, key), old.get(key), new.get(key))


def _values(path: KeyPath, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if old is None:
        yield f"+ {dotted(path)}" + ("" if isinstance(new, dict) else f": {_text(new)}")
    elif new is None:
        yield f"- {dotted(path)}"
    elif isinstance(old, dict) and isinstance(new, dict):
        yield from _tables(path, old, new)
    elif _has_tables(old) and _has_tables(new):
        for index, (one, two) in enumerate(zip_longest(old, new)):
            yield from _values((*path, index), one, two)
    else:
        yield f"~ {dotted(path)}: {_text(old)} -> {_text(new)}"


def _has_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value)


def _text(value: Any) -> str:
    if isinstance(value, Secret):
        return HIDDEN
    value = without_secrets(value)
    bare = isinstance(value, str) and value.isprintable() and value != "" and " " not in value
    text = value if bare else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
