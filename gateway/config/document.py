"""One document out of a file and all that it includes, remembering where each key came from."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gateway.config.environment import expand
from gateway.config.positions import positions
from gateway.config.problems import ConfigError, ConfigErrors, KeyPath, dotted
from gateway.config.reading import parse, read

INCLUDE = "include"


class Place(NamedTuple):
    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass
class Document:
    """Parsed TOML before any check, and the place of every key path in it."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """Where a key path stands, or the nearest thing around it that stands somewhere."""
        for length in range(len(path), 0, -1):
            if found := self.places.get(path[:length]):
                return found
        return Place(self.files[0], 1, 1)

    def error(self, path: KeyPath, message: str, hint: str = "") -> ConfigError:
        return ConfigError(*self.place(path), dotted(path), message, hint)


def gather(path: Path, environ: Mapping[str, str]) -> Document:
    """Read a file and what it includes. Raises ConfigErrors with everything that keeps the files from being one."""
    gathering = _Gathering(environ)
    gathering.take(path, ())
    if gathering.errors:
        raise ConfigErrors(gathering.errors)
    return gathering.document


class _Gathering:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._taken: dict[str, Place] = {}  # where each file was included
        self.document = Document()
        self.errors: list[ConfigError] = []

    def take(self, path: Path, including: tuple[str, ...]) -> None:
        self.document.files.append(str(path))
        try:
            text = read(path)
            data = parse(path, text)
        except ConfigErrors as error:
            self.errors += error.errors
            return
        own = Document(data, {}, [str(path)])
        try:
            own.places = {key: Place(str(path), *place) for key, place in positions(text).items()}
        except RecursionError:
            self.errors.append(ConfigError(str(path), 0, 0, "", "nested too deeply"))
            return
        patterns = data.pop(INCLUDE, [])
        self._merge(data, own)
        self._include(path, patterns, own, (*including, os.path.realpath(path)))

    def _include(self, path: Path, patterns: object, own: Document, including: tuple[str, ...]) -> None:
        if not isinstance(patterns, list) or not all(isinstance(item, str) and "\0" not in item for item in patterns):
            message = 'expected an array of file patterns such as ["routes.d/*.toml"]'
            self.errors.append(own.error((INCLUDE,), message))
            return
        expanded, unset = expand(patterns, self._environ, (INCLUDE,))
        self.errors += [own.error(problem.path, problem.message) for problem in unset]
        unread = {problem.path for problem in unset}
        matched: set[str] = set()  # patterns of one list may overlap
        for index, pattern in enumerate(expanded):
            key: KeyPath = (INCLUDE, index)
            for file in _matches(path.parent, pattern) if key not in unread else ():
                real = os.path.realpath(file)
                if real in matched:
                    continue
                matched.add(real)
                if real in including:
                    self.errors.append(own.error(key, f"{file} includes itself"))
                elif real in self._taken:
                    self.errors.append(own.error(key, f"{file} is already included at {self._taken[real]}"))
                elif not os.path.lexists(file):
                    self.errors.append(own.error(key, f"{file}: no such file"))
                else:
                    self._taken[real] = own.place(key)
                    self.take(file, including)

    def _merge(self, new: dict[str, Any], own: Document) -> None:
        """Tables are merged, arrays of tables appended; anything else may be given only once."""
        moved: dict[KeyPath, KeyPath] = {}  # from the place in its own file to the place in the whole

        def merge(new: dict[str, Any], into: dict[str, Any], at: KeyPath) -> None:
            for key, value in new.items():
                path = (*at, key)
                if key not in into:
                    into[key] = value
                    moved[path] = path
                elif isinstance(value, dict) and isinstance(into[key], dict):
                    merge(value, into[key], path)
                elif _is_tables(value) and _is_tables(into[key]):
                    for index, item in enumerate(value):
                        moved[(*path, index)] = (*path, len(into[key]))
                        into[key].append(item)
                else:
                    self.errors.append(own.error(path, f"already given at {self.document.place(path)}"))

        merge(new, self.document.data, ())
        for path, place in own.places.items():
            for length in range(1, len(path) + 1):
                if target := moved.get(path[:length]):
                    self.document.places[target + path[length:]] = place
                    break


def _matches(base: Path, pattern: str) -> list[Path]:
    """The files that a pattern means, sorted. It may match none; a name without wildcards is taken as it is."""
    whole = str(base / pattern)
    if not glob.has_magic(pattern):
        return [Path(whole)]
    rooted = glob.escape(str(base)) + "/" + pattern if not pattern.startswith("/") else pattern
    return sorted(map(Path, glob.glob(rooted, recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute pattern


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
