"""Which file to read, and which files it names: defaults, relative paths, the control socket."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.config.document import gather
from gateway.config.environment import expand_text, takes_secret
from gateway.config.layers import Kinds, tables
from gateway.config.listeners import listener_kind
from gateway.config.model import DEFAULT_CONTROL
from gateway.config.problems import ConfigError, ConfigErrors, KeyPath, Problem
from gateway.config.reading import parse, read
from gateway.config.values import Secret

DEFAULT_FILES = ("./gateway.toml", "/etc/gateway/gateway.toml")

_FILE_KEYS = (("process", "control"), ("process", "pid_file"), ("log", "access"), ("log", "error"))
_NO_FILES = ("", "stdout", "stderr", "off")  # nobody names a socket or pid file so


def find(path: Path | str | None) -> Path:
    """The file to read: the one that is named, or the first default that exists."""
    if path is not None:
        return Path(path)
    for default in map(Path, DEFAULT_FILES):
        if default.exists():
            return default
    here, there = DEFAULT_FILES
    raise ConfigErrors([ConfigError(here, 0, 0, "", f"no such file, nor {there}; name one with -c FILE")])


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
    if isinstance(value, str) and value not in _NO_FILES and "://" not in value:
        table[key] = str(base / value)


def _anchor_each(table: Any, key: str, base: Path) -> None:
    values = table.get(key) if isinstance(table, dict) else None
    if isinstance(values, list):
        table[key] = [str(base / value) if isinstance(value, str) and value else value for value in values]


def control_path(path: Path | str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The control socket of the gateway that runs this configuration, also while the file is broken.

    Raises ConfigErrors when the file says where the socket is but can't be understood: the default would be the socket
    of another gateway.
    """
    path = find(path)
    control = _control(_lenient(path, environ))
    if not control:
        return DEFAULT_CONTROL
    expanded, wrong = expand_text(control, environ)
    if wrong:
        raise ConfigErrors([ConfigError(str(path), 0, 0, "process.control", message) for message in wrong])
    data = {"process": {"control": expanded}}
    anchor(data, path.absolute().parent, {})
    return data["process"]["control"]


def _lenient(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """As much of the document as can be read: with its includes, else without, else what a broken text still says."""
    text = read(path)
    try:
        data = parse(path, text)
    except ConfigErrors:
        salvaged = _salvage(text)
        if salvaged is None:
            raise
        return salvaged
    try:
        return gather(path, environ).data
    except ConfigErrors:
        return data


def _control(data: dict[str, Any]) -> str | None:
    process = data.get("process")
    control = process.get("control") if isinstance(process, dict) else None
    return control if isinstance(control, str) else None


def _salvage(text: str) -> dict[str, Any] | None:
    """What a broken text says of the control socket, line by line. None when it says something unreadable."""
    section = ""
    for line in text.splitlines():
        if header := re.match(r"\s*\[+\s*([^\]]*?)\s*\]", line):
            section = header[1]
        key = {"process": "control", "": "process.control"}.get(section)
        if key and re.match(rf"\s*{re.escape(key)}\s*=", line):
            try:
                data = tomllib.loads(line)
            except ValueError:
                return None
            return {"process": data} if section else data
    return {}
