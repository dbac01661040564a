"""Where in a TOML text each key stands: tomllib gives values without positions.

Pure. The text must be one that tomllib accepts; this scanner only keeps count and does not validate.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

from gateway.config.problems import KeyPath

Position = tuple[int, int]  # line and column, both from 1

_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
# Up to two quotes may stand right before the closing three.
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{1,2})?', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'''(?:'{1,2})?", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def positions(text: str) -> dict[KeyPath, Position]:
    """Every key path of the document with the place of its last segment; an array item with the place of its value.

    A table that is opened more than once ([a.b], [a.c]) stands where it is first named.
    """
    text = text.replace("\r\n", "\n")
    offsets = _Scanner(text).document()
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    places: dict[KeyPath, Position] = {}
    for path, offset in offsets.items():
        line = bisect_right(starts, offset)
        places[path] = (line, offset - starts[line - 1] + 1)
    return places


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._offsets: dict[KeyPath, int] = {}
        self._tables: dict[KeyPath, int] = {}  # how many [[tables]] an array has so far

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._offsets

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"not TOML at offset {self._at}")
        self._at = found.end()
        return found[0]

    def _note(self, path: KeyPath, offset: int) -> None:
        self._offsets.setdefault(path, offset)

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        *parents, (last, offset) = self._key()
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        for name, place in parents:
            path = (*path, name)
            self._note(path, place)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        path = (*path, last)
        self._note(path, offset)
        if is_array:
            index = self._tables.get(path, 0)
            self._tables[path] = index + 1
            path = (*path, index)
            self._note(path, offset)
        return path

    def _key(self) -> list[tuple[str, int]]:
        """The segments of a dotted key, each with its offset. Stands behind it and its blanks afterwards."""
        segments = []
        while True:
            self._skip(_BLANK)
            offset = self._at
            match self._text[self._at]:
                case '"':
                    name = tomllib.loads("key = " + self._skip(_BASIC))["key"]
                case "'":
                    name = self._skip(_LITERAL)[1:-1]
                case _:
                    name = self._skip(_BARE_KEY)
            segments.append((name, offset))
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return segments
            self._at += 1

    def _pair(self, table: KeyPath) -> None:
        path = table
        for name, offset in self._key():
            path = (*path, name)
            self._note(path, offset)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        match self._text[self._at]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"':
                self._skip(_LONG_BASIC if self._text.startswith('"""', self._at) else _BASIC)
            case "'":
                self._skip(_LONG_LITERAL if self._text.startswith("'''", self._at) else _LITERAL)
            case _:
                self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        index = 0
        while self._another("]"):
            self._note((*path, index), self._at)
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while self._another("}"):
            self._pair(path)

    def _another(self, end: str) -> bool:
        """Step over the opening bracket or a comma to the next item; over the closing one when there is none."""
        self._skip(_BLANK)
        if self._text[self._at] != end:
            self._at += 1
            self._skip(_BLANK)
        if self._text[self._at] != end:
            return True
        self._at += 1
        return False
