"""Which file is read, and where its gateway is spoken to, even while the file is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import paths
from gateway.config.load import load
from gateway.config.paths import DEFAULT_CONTROL
from gateway.config.problems import ConfigErrors

from .conftest import MINIMAL, Write


def test_the_named_file_or_the_first_default(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "DEFAULT_FILES", ("./gateway.toml", str(tmp_path / "etc.toml")))
    assert paths.find("named.toml") == Path("named.toml")
    with pytest.raises(ConfigErrors) as raised:
        paths.find(None)
    assert str(raised.value) == f"./gateway.toml: no such file, nor {tmp_path}/etc.toml; name one with -c FILE"
    (tmp_path / "etc.toml").touch()
    assert paths.find(None) == tmp_path / "etc.toml"
    write()
    assert paths.find(None) == Path("gateway.toml")


@pytest.mark.parametrize(
    ("text", "control"),
    [
        (MINIMAL, DEFAULT_CONTROL),
        (MINIMAL + '[process]\ncontrol = "/x/c"', "/x/c"),
        (MINIMAL + '[process]\ncontrol = "c"', "HERE/c"),
        (MINIMAL + '[process]\ncontrol = "${DIR}/c"', "/run/dir/c"),
        (MINIMAL + '[process]\ncontrol = "${NONE:-x}/c"', "HERE/x/c"),
        (MINIMAL + "process.control = '/x/c' # of a listener: no such key", DEFAULT_CONTROL),
        # Valid TOML, but no valid configuration.
        ("[process]\nworkers = -1\ncontrol = '/x/c'", "/x/c"),
        ("[process]\ncontrol = 5", DEFAULT_CONTROL),
        ('include = ["more.toml"]', "/included"),
        ('include = ["more.toml", "none.toml"]', DEFAULT_CONTROL),
        # Broken.
        ("[process]\ncontrol = '/x/c'\n[[listeners", "/x/c"),
        ("a = \n[ process ] # here\nworkers =\n  control='/x/c'\n", "/x/c"),
        ("process.control = '/x/c'\na = ", "/x/c"),
        ("[other]\ncontrol = '/x/c'\na = ", DEFAULT_CONTROL),
        ("[other]\nprocess.control = '/x/c'\na = ", DEFAULT_CONTROL),
        ("[process]\n[other]\ncontrol = '/x/c'\na = ", DEFAULT_CONTROL),
        ("[process]\ncontrolled = 1\na = ", DEFAULT_CONTROL),
    ],
)
def test_control(write: Write, text: str, control: str) -> None:
    path = write(gateway_toml=text, more_toml="process.control = '/included'")
    environ = {"DIR": "/run/dir"}
    assert paths.control_path(path, environ) == control.replace("HERE", str(path.parent))
    try:
        loaded = load(path, environ)
    except ConfigErrors:
        return
    assert loaded.process.control == paths.control_path(path, environ)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[process]\ncontrol = '/x/c\n", "gateway.toml:3:1: expected"),
        ("[process]\ncontrol = '${NONE}/c'\n", "process.control: the environment variable NONE is not set"),
    ],
)
def test_never_the_socket_of_another_gateway(write: Write, text: str, message: str) -> None:
    """A socket that is named but can't be understood is an error: the default may be somebody else's."""
    with pytest.raises(ConfigErrors, match=message):
        paths.control_path(write(gateway_toml=text), {})


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="no such file"):
        paths.control_path(tmp_path / "none.toml", {})
