"""A mistake in a configuration: first by key path, then by file and line, as the user reads it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import GatewayError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake before it is known in which line it stands.

    hint: what was probably meant, "" when nothing comes close.
    other: a second place that has to do with it.
    """

    path: KeyPath
    message: str
    hint: str = ""
    other: KeyPath | None = None


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One mistake. line and column count from 1; line 0 is the file as a whole, key "" likewise."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        key = f"{self.key}: " if self.key else ""
        hint = f' (did you mean "{self.hint}"?)' if self.hint else ""
        return f"{place}: {key}{self.message}{hint}"


class ConfigErrors(GatewayError):
    """All the mistakes of a configuration, in the order of files and lines."""

    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


def dotted(path: KeyPath) -> str:
    """A key path as users write it: upstreams.app.endpoints[1].weight"""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if bare else json.dumps(part, ensure_ascii=False))
    return text


def closest(word: object, known: Iterable[str]) -> str:
    """The known word that was probably meant, "" when none is near."""
    return next(iter(difflib.get_close_matches(str(word), list(known), n=1)), "")
