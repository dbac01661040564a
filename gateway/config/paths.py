"""Which file to read, where the paths in it start, and where its gateway is spoken to.

Commands that ask a running gateway something need no more than this, so nothing here imports the model: building that
takes a fifth of a second.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config.document import gather
from gateway.config.environment import expand_text
from gateway.config.problems import ConfigError, ConfigErrors
from gateway.config.reading import parse, read

DEFAULT_FILES = ("./gateway.toml", "/etc/gateway/gateway.toml")
DEFAULT_CONTROL = "/run/gateway/control.sock"

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


def anchored(path: str, base: Path) -> str:
    """A path as it stands in a file, made to start at `base`. What is no path of a file stays as it is."""
    return path if path in _NO_FILES or "://" in path else str(base / path)


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
    return anchored(expanded, path.absolute().parent)


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
