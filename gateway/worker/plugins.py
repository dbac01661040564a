"""Finds and imports what a configuration calls "module:Name", in a process that runs one configuration only.

The code is read from its source each time: Python believes a compiled file whose source has the same size and, to the
second, the same time, and so a plug-in that was changed and reloaded at once would come back as it was before. Nothing
is compiled into files either: a worker may write nowhere, and what `gateway check` would leave is somebody else's.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from gateway.blame import told
from gateway.errors import StartError


class _FromSource(SourceFileLoader):
    """Python's own loader of source files, but for compiled ones."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder:
    """Finds modules in the directories of the plug-ins, and what lies below them. A place on `sys.meta_path` before
    Python's own, so that none of them comes from a compiled file; the standard library and the gateway can't be
    replaced all the same."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories
        self._protected = sys.stdlib_module_names | {"gateway"}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None:
            if fullname in self._protected:
                return None
            places: Iterable[str] = self._directories
        else:
            places = [one for one in path if self.is_here(one)]
        for place in places:
            finder = FileFinder(place, (_FromSource, [".py"]), (ExtensionFileLoader, EXTENSION_SUFFIXES))
            spec = finder.find_spec(fullname)
            # A mere directory is a package only where there is nothing else of the name.
            if spec is not None and (spec.loader is not None or not _is_installed(fullname, path)):
                return spec
        return None

    def is_here(self, file: str) -> bool:
        return any(Path(file).is_relative_to(directory) for directory in self._directories)


def _is_installed(fullname: str, path: Sequence[str] | None) -> bool:
    return importlib.machinery.PathFinder.find_spec(fullname, path) is not None


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
                raise StartError(
                    f'there is no module "{error.name}" in process.python_path ({places}), nor is it installed'
                ) from None
            raise StartError(f'module "{name}" can\'t be imported: {told(error)}') from error
        except BaseException as error:
            raise StartError(f'module "{name}" can\'t be imported: {told(error)}') from error
        finally:
            sys.dont_write_bytecode = before
