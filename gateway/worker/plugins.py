"""Finds and imports what a configuration calls "module:Name", in a process that runs one configuration only.

The code is read from its source each time: Python believes a compiled file whose source has the same size and, to the
second, the same time, and so a plug-in that was changed and reloaded at once would come back as it was before. Nothing
is compiled into files either: a worker may write nowhere, and what `gateway check` would leave is somebody else's.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from gateway.blame import told
from gateway.errors import Absent, StartError

log = logging.getLogger("gateway")

# The gateway's own extras that bring libraries which it imports.
_EXTRAS = ("argon2", "redis")
_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[([^]]*)\])?")
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w.-]+)["']""")


class _FromSource(SourceFileLoader):
    """Python's own loader of source files, but for compiled ones."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder:
    """Finds modules in the directories of the plug-ins, and what lies below them. A place on `sys.meta_path` before
    Python's own, so that none of them comes from a compiled file. The standard library, the gateway and the libraries
    that it needs can't be replaced all the same: many of those are imported late, when a plug-in could come first."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = self._found(fullname, path)
        if found is None or path is not None or not self._is_needed(fullname):
            return found
        # Not left to Python: one of the directories may be on its path, as the current one is for `python -m`.
        return self._elsewhere(fullname)

    def shadowed(self, name: str) -> str | None:
        """The file of this top-level name in a directory of plug-ins, if it can't be imported because something that
        the gateway needs has the name."""
        found = self._found(name, None)
        if found is None or found.loader is None or not self._is_needed(name):
            return None
        known = getattr(sys.modules.get(name), "__spec__", None) or self._elsewhere(name)
        return None if known is not None and known.origin == found.origin else found.origin

    def _found(self, fullname: str, path: Sequence[str] | None) -> ModuleSpec | None:
        places: Iterable[str] = self._directories if path is None else [one for one in path if self._is_here(one)]
        for place in places:
            finder = FileFinder(place, (_FromSource, [".py"]), (ExtensionFileLoader, EXTENSION_SUFFIXES))
            spec = finder.find_spec(fullname)
            # A mere directory is a package only where there is nothing else of the name.
            if spec is not None and (spec.loader is not None or PathFinder.find_spec(fullname, path) is None):
                return spec
        return None

    def _is_needed(self, name: str) -> bool:
        if name in sys.stdlib_module_names or name == "gateway":
            return True
        return self._elsewhere(name) is not None and name in _libraries()

    def _elsewhere(self, name: str) -> ModuleSpec | None:
        places = [one for one in sys.path if str(Path(one).absolute()) not in self._directories]
        return PathFinder.find_spec(name, places)

    def _is_here(self, file: str) -> bool:
        return any(Path(file).is_relative_to(directory) for directory in self._directories)


@cache
def _libraries() -> frozenset[str]:
    """The top-level names of what is installed because the gateway needs it, or something that it needs."""
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    wanted = [("gateway", extra) for extra in ("", *_EXTRAS)]
    while wanted:
        project, extra = wanted.pop()
        if (project, extra) in seen:
            continue
        seen.add((project, extra))
        try:
            distribution = metadata.distribution(project)
        except metadata.PackageNotFoundError:  # an extra that nobody has asked for, or one for another Python
            continue
        if not extra:
            names.update(_modules_of(distribution))
        for requirement in distribution.requires or ():
            needed, _, marker = requirement.partition(";")
            only_for = _EXTRA.findall(marker)
            match = _REQUIREMENT.match(needed)
            if match is not None and (extra in only_for if extra else not only_for):
                extras = [one.strip() for one in (match[2] or "").split(",")]
                wanted += [(match[1], one) for one in {"", *extras}]
    return frozenset(names)


def _modules_of(distribution: metadata.Distribution) -> Iterator[str]:
    if not distribution.files:  # some packagers leave the list out
        yield from (distribution.read_text("top_level.txt") or "").split()
        return
    for file in distribution.files:
        name = file.parts[0] if len(file.parts) > 1 else file.name.partition(".")[0]
        is_module = name.isidentifier() and (len(file.parts) > 1 or file.suffix in (".py", ".so"))
        if is_module and name not in ("__pycache__", "tests"):  # some install their tests, too
            yield name


class Plugins:
    """What plug-ins are imported by. Each one begins anew: modules that an earlier one in this process has imported
    from directories of plug-ins are forgotten."""

    def __init__(self, python_path: Iterable[str | Path]) -> None:
        """python_path: absolute directories, asked in this order, before the installed packages."""
        self._directories = tuple(str(one) for one in python_path)
        self._finder = _Finder(self._directories)
        sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Finder)]
        for name, module in list(sys.modules.items()):
            if isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _FromSource):
                del sys.modules[name]
        sys.meta_path.insert(0, self._finder)
        for one in pkgutil.iter_modules(self._directories):
            file = self._finder.shadowed(one.name)
            if file is not None:
                log.warning("%s is never imported: %s", file, _why(one.name))

    def __call__(self, use: str) -> Any:
        """What "module:Name" names. Raises StartError with one sentence that says what is wrong, and where."""
        name, _, attribute = use.partition(":")
        module = self._imported(name)
        found: Any = module
        for part in attribute.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                file = getattr(module, "__file__", None) or "a package without code"
                raise StartError(f'module "{name}" ({file}) has no "{attribute}"') from None
        return found

    def _imported(self, name: str) -> ModuleType:
        top = name.partition(".")[0]
        if (shadowed := self._finder.shadowed(top)) is not None:
            raise StartError(f"{shadowed} can't be imported: {_why(top)}; give the file another name")
        before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            # What a module prints as it is imported must not end up in the output of a command.
            with contextlib.redirect_stdout(sys.stderr):
                return importlib.import_module(name)
        except KeyboardInterrupt:
            raise
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                places = ", ".join(self._directories) or "which is empty"
                raise Absent(
                    f'there is no module "{error.name}" in process.python_path ({places}), nor is it installed'
                ) from None
            raise StartError(f'module "{name}" can\'t be imported: {told(error)}') from error
        except BaseException as error:
            raise StartError(f'module "{name}" can\'t be imported: {told(error)}') from error
        finally:
            sys.dont_write_bytecode = before


def _why(name: str) -> str:
    if name == "gateway":
        return "the gateway itself has this name"
    is_python = name in sys.stdlib_module_names
    return f'"{name}" is ' + ("a module of Python's own library" if is_python else "a library that the gateway needs")
