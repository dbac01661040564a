"""The files that a configuration names: where relative paths start, and what is read of secrets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.config.environment import takes_secret
from gateway.config.layers import Kinds, tables
from gateway.config.listeners import listener_kind
from gateway.config.paths import anchored
from gateway.config.problems import KeyPath, Problem
from gateway.config.values import Secret

_FILE_KEYS = (("process", "control"), ("process", "pid_file"), ("log", "access"), ("log", "error"))


def anchor(data: dict[str, Any], base: Path, kinds: Kinds) -> None:
    """Make the relative paths of files in `data` start at `base`, in place."""
    _anchor_each(data.get("process"), "python_path", base)
    for _, layer in tables(data):
        options = kinds.get(str(layer.get("kind")))
        for key in options.FILES if options is not None else ():
            _anchor(layer, key, base)
            _anchor_each(layer, key, base)
    for section, key in _FILE_KEYS:
        table = data.get(section)
        if isinstance(table, dict):
            _anchor(table, key, base)
    upstreams = data.get("upstreams")
    for upstream in upstreams.values() if isinstance(upstreams, dict) else ():
        _anchor_in(upstream, ("discovery", "path"), base)
        _anchor_in(upstream, ("health", "tls", "ca"), base)
    listeners = data.get("listeners")
    for listener in listeners if isinstance(listeners, list) else ():
        kind = listener_kind(listener)
        for place in kind.FILES if kind is not None else ():
            _anchor_in(listener, place, base)
    for section in ("listeners", "routes"):
        items = data.get(section)
        for item in items if isinstance(items, list) else ():
            pages = item.get("error_pages") if isinstance(item, dict) else None
            if isinstance(pages, dict):
                for key in pages:
                    _anchor(pages, key, base)


def secrets(data: Any, base: Path, path: KeyPath = ()) -> list[Problem]:
    """Put in the place of each secret that is written { file = "PATH" } what that file holds, without the line end
    behind it."""
    problems: list[Problem] = []
    for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
        here = (*path, key)
        is_file = isinstance(value, dict) and value.keys() == {"file"} and isinstance(value["file"], str)
        if is_file and takes_secret(here):
            try:
                data[key] = Secret((base / value["file"]).read_text().removesuffix("\n"))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                problems.append(Problem(here, f"cannot read {value['file']}: {reason}"))
                data[key] = ""
        elif isinstance(value, dict | list):
            problems += secrets(value, base, here)
    return problems


def _anchor_in(table: Any, path: Sequence[str], base: Path) -> None:
    *tables, key = path
    for name in tables:
        table = table.get(name) if isinstance(table, dict) else None
    if isinstance(table, dict):
        _anchor(table, key, base)


def _anchor(table: dict[str, Any], key: str, base: Path) -> None:
    value = table.get(key)
    if isinstance(value, str):
        table[key] = anchored(value, base)


def _anchor_each(table: Any, key: str, base: Path) -> None:
    values = table.get(key) if isinstance(table, dict) else None
    if isinstance(values, list):
        table[key] = [str(base / value) if isinstance(value, str) and value else value for value in values]
