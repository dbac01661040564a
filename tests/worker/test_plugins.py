"""Plug-ins are imported from where the configuration says, as they are now, and what is wrong with one is told."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway.errors import Absent, StartError
from gateway.worker.plugins import Plugins, _libraries
from tests.test_architecture import DOORS


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    Plugins(())


def test_new_code_in_the_same_second_of_the_same_size(tmp_path: Path) -> None:
    file = tmp_path / "plug_now.py"
    for number in range(5):
        file.write_text(f"VALUE = {number}\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert Plugins([tmp_path])("plug_now:VALUE") == number
    assert not (tmp_path / "__pycache__").exists()


def test_a_compiled_file_is_not_believed(tmp_path: Path) -> None:
    package = tmp_path / "plug_package"
    package.mkdir()
    for name in ("__init__", "inner"):
        file = package / f"{name}.py"
        file.write_text("VALUE = 1\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        py_compile.compile(str(file))
        file.write_text("VALUE = 2\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
    plugins = Plugins([tmp_path])
    assert plugins("plug_package:VALUE") == 2 and plugins("plug_package.inner:VALUE") == 2


def test_also_where_the_directory_is_the_current_one(tmp_path: Path) -> None:
    """`python -m gateway` has the current directory on its path already."""
    (tmp_path / "plug_here.py").write_text("VALUE = 1\n")
    os.utime(tmp_path / "plug_here.py", (1_700_000_000, 1_700_000_000))
    code = """
import os, sys
from gateway.worker.plugins import Plugins
sys.path.insert(0, "")
import plug_here
sys.modules.pop("plug_here")
with open("plug_here.py", "w") as file:
    file.write("VALUE = 2\\n")
os.utime("plug_here.py", (1_700_000_000, 1_700_000_000))
print(Plugins([os.getcwd()])("plug_here:VALUE"))
"""
    made = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert made.stdout == "2\n", made.stderr


def test_the_first_directory_wins_and_nested_names_are_found(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plug_twice.py").write_text(f"class Outer:\n    class Inner:\n        name = {name!r}\n")
    assert Plugins([tmp_path / "one", tmp_path / "two"])("plug_twice:Outer.Inner").name == "one"


def test_a_directory_without_code_is_a_package_too(tmp_path: Path) -> None:
    (tmp_path / "plug_space").mkdir()
    (tmp_path / "plug_space" / "inner.py").write_text("VALUE = 1\n")
    (tmp_path / "starlette").mkdir()
    plugins = Plugins([tmp_path])
    assert plugins("plug_space.inner:VALUE") == 1
    assert plugins("starlette.middleware.gzip:GZipMiddleware").__name__ == "GZipMiddleware"


@pytest.mark.parametrize("name", ["sqlite3", "gateway", "jwt", "cryptography", "backports", "redis", "_cffi_backend"])
def test_nobody_takes_the_place_of_what_the_gateway_needs(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / f"{name}.py"
    file.write_text("VALUE = 1\n")
    (tmp_path / "plug_user.py").write_text(f"import {name} as found\n")
    plugins = Plugins([tmp_path])
    assert f"{file} is never imported: " in caplog.text  # though nobody has asked for it yet
    with pytest.raises(StartError) as raised:
        plugins(f"{name}:VALUE")
    assert str(raised.value).startswith(f"{file} can't be imported: ")
    assert not hasattr(plugins("plug_user:found"), "VALUE")


def test_a_library_that_is_imported_late_is_the_one_that_is_installed(tmp_path: Path) -> None:
    """Also where the directory of the plug-ins is the current one, which `python -m gateway` has on its path."""
    for name in ("jwt", "bcrypt"):
        (tmp_path / f"{name}.py").write_text("VALUE = 1\n")
    code = """
import os, sys
from gateway.worker.plugins import Plugins
sys.path.insert(0, "")
Plugins([os.getcwd()])
import bcrypt
from gateway.middleware.identity.keyset import secret_set
[key] = secret_set("s" * 40, ["HS256"]).fitting("HS256", None)
print(key.verifies("HS256", b"x", b"y"), hasattr(bcrypt, "VALUE"))
"""
    made = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert made.stdout == "False False\n", made.stderr


def test_every_library_of_the_gateway_is_known_as_such() -> None:
    """Those that are installed; the tests want all of them."""
    assert {name for name in DOORS if name not in sys.stdlib_module_names and find_spec(name)} <= _libraries()
    assert "pytest" not in _libraries() and "aiohttp" not in _libraries()


def test_what_only_happens_to_be_installed_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "trustme.py").write_text("VALUE = 1\n")
    code = "import sys; from gateway.worker.plugins import Plugins; print(Plugins(sys.argv[1:])('trustme:VALUE'))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "1\n"


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartError) as raised:
        Plugins([tmp_path])("plug_none:Name")
    assert str(raised.value) == (
        f'there is no module "plug_none" in process.python_path ({tmp_path}), nor is it installed'
    )
    with pytest.raises(Absent, match=r'no module "plug_none" in process\.python_path \(which is empty\)'):
        Plugins([])("plug_none.inner:Name")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("\nimport plug_missing\n", "ModuleNotFoundError: No module named 'plug_missing' ({file}:2)"),
        ("\n\ndef f():\n    raise OSError(2, 'no')\nf()\n", "FileNotFoundError: [Errno 2] no ({file}:4)"),
        ("import json\njson.loads('{')\n", "JSONDecodeError: Expecting property name"),
        ("x = 1\n  y = 2\n", "IndentationError: unexpected indent ({file}:2)"),
        ("raise SystemExit(3)\n", "SystemExit: 3 ({file}:1)"),
        ("import asyncio\nraise asyncio.CancelledError\n", "CancelledError ({file}:2)"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines ({file}:1)"),
        ("raise ValueError('x' * 2000)\n", "xxx... ({file}:1)"),
        ("text = '\\x00'\n".replace("\\x00", chr(0)), "can't be imported: "),
    ],
)
def test_what_fails_says_where(tmp_path: Path, code: str, said: str) -> None:
    file = tmp_path / "plug_bad.py"
    file.write_text(code)
    with pytest.raises(StartError) as raised:
        Plugins([tmp_path])("plug_bad:Name")
    text = str(raised.value)
    assert text.startswith('module "plug_bad" can\'t be imported: ')
    assert said.format(file=file) in text and "\n" not in text


def test_what_an_import_prints_is_no_output_of_a_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plug_loud.py").write_text("print('loud')\nVALUE = 1\n")
    Plugins([tmp_path])("plug_loud:VALUE")
    out, err = capfd.readouterr()
    assert out == "" and err == "loud\n"
