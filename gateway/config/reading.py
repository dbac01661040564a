"""From a file to parsed TOML, or to the one reason why not."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from gateway.config.problems import ConfigError, ConfigErrors


def read(path: Path, most: int | None = None) -> str:
    """The text of a file, with a byte order mark and carriage returns gone. most: bytes of a regular file, which is
    what it must be then, so that nobody waits for it. Raises ConfigErrors."""
    try:
        content = path.read_bytes() if most is None else _bounded(path, most)
    except OSError as error:
        reason = (error.strerror or str(error)).lower().replace("no such file or directory", "no such file")
        raise ConfigErrors([ConfigError(str(path), 0, 0, "", reason)]) from None
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        message = f"not UTF-8: byte 0x{content[error.start]:02x}"
        raise ConfigErrors([ConfigError(str(path), line, column, "", message)]) from None


def _bounded(path: Path, most: int) -> bytes:
    """Raises OSError."""
    # Opening a FIFO waits for somebody who writes, unless it is told not to.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with os.fdopen(fd, "rb", closefd=False) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError("not a regular file")
            content = file.read(most + 1)
    finally:
        os.close(fd)
    if len(content) > most:
        raise OSError(f"larger than {most} bytes")
    return content


def parse(path: Path, text: str) -> dict[str, Any]:
    """The parsed text of a file. Raises ConfigErrors."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        line, column, message = 0, 0, "nested too deeply"
    except ValueError as error:
        line, column, message = _syntax(str(error), text)
    raise ConfigErrors([ConfigError(str(path), line, column, "", message)])


def _syntax(message: str, text: str) -> tuple[int, int, str]:
    """tomllib says where only in its text, until Python 3.14."""
    if found := re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL):
        return int(found[2]), int(found[3]), _lowered(found[1])
    if found := re.fullmatch(r"(.*) \(at end of document\)", message, re.DOTALL):
        *lines, last = text.split("\n")
        return len(lines) + 1, len(last) + 1, f"{_lowered(found[1])} at the end of the file"
    return 0, 0, _lowered(message)


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]
