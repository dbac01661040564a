"""From a file to a Config, or to all of its mistakes at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from gateway.config import files
from gateway.config.checks import check
from gateway.config.document import Document, gather
from gateway.config.environment import expand, untouched
from gateway.config.explain import explain
from gateway.config.layers import Kinds
from gateway.config.lint import lint
from gateway.config.model import Config
from gateway.config.problems import ConfigError, ConfigErrors, Problem

_NONE: Kinds = MappingProxyType({})


def load(path: Path | str, environ: Mapping[str, str] = os.environ, kinds: Kinds = _NONE) -> Config:
    """Read a configuration with all that it includes. kinds: of layers that there are. Raises ConfigErrors, and nothing
    else.

    Relative paths of files in it start at the directory of `path`.
    """
    return _loaded(Path(path), environ, kinds)[0]


def load_and_lint(
    path: Path | str, environ: Mapping[str, str] = os.environ, kinds: Kinds = _NONE
) -> tuple[Config, list[ConfigError]]:
    """The same with warnings: what is allowed and yet can't be meant."""
    config, document = _loaded(Path(path), environ, kinds)
    return config, _placed(lint(config), document)


def _loaded(path: Path, environ: Mapping[str, str], kinds: Kinds) -> tuple[Config, Document]:
    document = gather(path, environ)
    data, unread = expand(document.data, environ)
    unread += files.secrets(data, path.absolute().parent)
    files.anchor(data, path.absolute().parent, kinds)
    config, problems = _validated(data, kinds)
    problems = [*unread, *untouched([*problems, *check(data, kinds)], unread)]
    if problems or config is None:
        raise ConfigErrors(_placed(problems, document))
    return config, document


def _validated(data: dict[str, Any], kinds: Kinds) -> tuple[Config | None, list[Problem]]:
    try:
        return Config.model_validate(data, context=kinds), []
    except ValidationError as error:
        return None, explain(error, data, kinds=kinds)


def _placed(problems: list[Problem], document: Document) -> list[ConfigError]:
    def placed(problem: Problem) -> ConfigError:
        other = f" ({document.place(problem.other)})" if problem.other else ""
        return document.error(problem.path, problem.message + other, problem.hint)

    order = {file: index for index, file in enumerate(document.files)}
    return sorted(map(placed, problems), key=lambda error: (order[error.file], error.line, error.column))
