"""A directory of configuration files, and `load` as the tests speak of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gateway.config.load import load
from gateway.config.model import Config
from gateway.config.problems import ConfigErrors

Write = Callable[..., Path]
Mistakes = Callable[..., list[str]]

# A loaded machine is no reason to fail.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

MINIMAL = '[[listeners]]\nname = "web"\nlisten = ":8080"\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files, named by keyword with "_" for the dot of their suffix, and give the path of the first."""

    def write(*, gateway_toml: str | bytes = MINIMAL, **others: str | bytes) -> Path:
        for name, text in {"gateway_toml": gateway_toml, **others}.items():
            content = text if isinstance(text, bytes) else text.encode()
            (tmp_path / name.replace("_toml", ".toml")).write_bytes(content)
        return tmp_path / "gateway.toml"

    return write


@pytest.fixture
def config(write: Write) -> Callable[..., Config]:
    """The configuration of a text that is added to a minimal one."""

    def config(text: str = "", **environ: str) -> Config:
        return load(write(gateway_toml=MINIMAL + text), environ)

    return config


@pytest.fixture
def mistakes(write: Write, tmp_path: Path) -> Mistakes:
    """What is wrong in these files, one line each, without the name of the directory."""

    def mistakes(text: str | bytes, environ: dict[str, str] | None = None, **others: str | bytes) -> list[str]:
        with pytest.raises(ConfigErrors) as raised:
            load(write(gateway_toml=text, **others), environ or {})
        assert len(raised.value.errors) == len({str(error) for error in raised.value.errors})
        return str(raised.value).replace(f"{tmp_path}/", "").splitlines()

    return mistakes
