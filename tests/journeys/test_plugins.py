"""Plug-ins in a real gateway: where their code comes from, and what becomes of bad code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client, get
from tests.support.settings import Settings
from tests.support.waiting import eventually

LAYER = '[[middleware]]\nkind = "hooks"\nuse = "journey:Plug"\nname = "mine"\n'
ROUTE = '[[routes]]\nname = "inner"\npath = "/inner"\nupstream = "app"\nmiddleware = [{ kind = "hooks", use = "%s" }]\n'


class Plugins:
    """A directory of plug-ins. Whatever is written has the same time, as in a reload within the same second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, code: str, name: str = "journey") -> None:
        file = self.folder / f"{name}.py"
        file.write_text(code)
        os.utime(file, (1_700_000_000, 1_700_000_000))

    def adding(self, text: str) -> None:
        """A plug-in that says this in x-plug."""
        hook = "    def modify_response(self, response):\n        response.headers['x-plug'] = "
        self.write(f"class Plug:\n{hook}{text!r}\n")


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    return Plugins(tmp_path / "plugins")


@pytest.fixture
def with_plugins(settings: Settings, plugins: Plugins) -> Settings:
    return settings.but(process={"python_path": [str(plugins.folder)]}, more=LAYER)


def leaves(one: Gateway) -> None:
    """End it without looking at its log, in which there is something to see."""
    one.signal(signal.SIGTERM)
    assert one.ended() == 0
    one.gone()


def test_a_reload_brings_new_code_within_the_second(gateway: Start, with_plugins: Settings, plugins: Plugins) -> None:
    plugins.adding("0")
    one = gateway(with_plugins.but(workers=2))
    for number in range(4):
        plugins.adding(str(number))
        assert one.cli("check").returncode == 0
        answer = one.ask(do="reload")
        assert answer["ok"], answer
        assert {get(one.address()).fields["x-plug"] for _ in range(8)} == {str(number)}
    assert [file.name for file in plugins.folder.iterdir()] == ["journey.py"]


LOUD = "import sys\nprint('loud')\nsys.exit(0)\n"
BROKEN = {
    "import no_such_thing\n": "ModuleNotFoundError: No module named 'no_such_thing' ({file}:1)",
    "class Plug:\n    x = = 1\n": "SyntaxError: invalid syntax ({file}:2)",
    "class Other: pass\n": 'module "journey" ({file}) has no "Plug"',
    "class Plug: pass\n": "it has none of rewrite_request",
    LOUD: "SystemExit: 0 ({file}:3)",
    "class Plug:\n    def __init__(self):\n        raise OSError('no disk')\n": "OSError: no disk ({file}:3)",
}


def test_bad_code_refuses_the_reload_and_the_old_goes_on(
    gateway: Start, with_plugins: Settings, plugins: Plugins
) -> None:
    plugins.adding("good")
    one = gateway(with_plugins)
    before = one.pids()
    for code, said in BROKEN.items():
        plugins.write(code)
        wanted = said.format(file=plugins.folder / "journey.py")
        refused = one.ask(do="reload")
        assert not refused["ok"] and "Traceback" not in refused["error"]
        assert 'hooks "journey:Plug": ' in refused["error"] and wanted in refused["error"]
        assert get(one.address()).fields["x-plug"] == "good"
        one.settled(1)
        assert one.pids() == before and one.generation() == 1
    plugins.write(LOUD)
    for told in (one.reload(), one.cli("check")):
        assert told.returncode == 1 and told.stdout == ""
        assert 'hooks "journey:Plug": ' in told.stderr and "SystemExit: 0 (" in told.stderr
        assert "Traceback" not in told.stderr
    assert one.status()["reloads"]["failed"] == len(BROKEN) + 1
    plugins.adding("better")
    assert one.reload().returncode == 0
    assert get(one.address()).fields["x-plug"] == "better"


def test_an_import_that_hangs_ends_in_the_boot_timeout(
    gateway: Start, with_plugins: Settings, plugins: Plugins
) -> None:
    plugins.adding("good")
    settings = with_plugins.but(process={**with_plugins.process, "boot_timeout": "2s"})
    one = gateway(settings)
    plugins.write("import time\ntime.sleep(3600)\n")
    refused = one.reload()
    assert refused.returncode == 1
    one.settled(1)
    assert get(one.address()).fields["x-plug"] == "good"
    leaves(one)


def test_a_gateway_does_not_start_with_bad_code(tmp_path: Path, with_plugins: Settings, plugins: Plugins) -> None:
    plugins.write("1 / 0\n")
    file = tmp_path / "gateway.toml"
    file.write_text(str(with_plugins))
    command = [sys.executable, "-m", "gateway", "run", "-c", str(file)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert made.returncode != 0
    assert "ZeroDivisionError: division by zero" in made.stderr and "journey.py:1" in made.stderr
    assert "Traceback" not in made.stderr


def test_only_workers_import_plug_ins(gateway: Start, with_plugins: Settings, plugins: Plugins, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    plugins.write(
        f"import os, pathlib\npathlib.Path({str(pids)!r}, str(os.getpid())).touch()\n"
        "class Plug:\n    def modify_response(self, response): pass\n"
    )
    one = gateway(with_plugins.but(workers=2))
    first = one.pids()
    assert one.reload().returncode == 0
    assert {int(file.name) for file in pids.iterdir()} == {*first, *one.pids()}


def test_a_hook_that_fails_or_hangs_costs_its_request_only(
    gateway: Start, with_plugins: Settings, plugins: Plugins
) -> None:
    plugins.write(
        "import asyncio\n"
        "class Plug:\n"
        "    def __init__(self): self.calls = 0\n"
        "    async def rewrite_request(self, request):\n"
        "        if request.path == '/inner/fails':\n"
        "            raise KeyError('tenant')\n"
        "        if request.path == '/inner/hangs':\n"
        "            await asyncio.Event().wait()\n",
        "failing",
    )
    settings = with_plugins.but(
        more=(ROUTE % "failing:Plug").replace('"failing:Plug" }', '"failing:Plug", timeout = "50ms" }')
    )
    one = gateway(settings)
    for _ in range(3):
        answer = get(one.address(), "/inner/fails")
        assert answer.status == 500 and b"middleware_failed" in answer.body
    answer = get(one.address(), "/inner/hangs")
    assert answer.status == 500 and b"hook_timeout" in answer.body
    assert get(one.address(), "/hello").status == 200
    log = eventually(lambda: one.log() if "took longer" in one.log() else "", "the log tells of it")
    where = "route inner, layer hooks: rewrite_request of failing:Plug"
    assert log.count(f"{where} failed: KeyError: 'tenant' ({plugins.folder}/failing.py:6)") == 3
    assert f"{where} took longer than 0.05s" in log
    assert log.count("Traceback") == 1
    leaves(one)


def test_a_plug_in_that_is_named_like_a_library(gateway: Start, settings: Settings, plugins: Plugins) -> None:
    """The library comes in with the first token, long after the directory of plug-ins is looked into."""
    plugins.adding("1")
    plugins.write("class Plug:\n    def modify_response(self, response): pass\n", "jwt")
    secret = "s" * 40
    layer = f'[[middleware]]\nkind = "jwt"\nsecret = "{secret}"\nalgorithms = ["HS256"]\n'
    one = gateway(settings.but(process={"python_path": [str(plugins.folder)]}, more=layer + LAYER))
    token = jwt.encode({"exp": int(time.time()) + 600}, secret, "HS256")
    with Client(one.address()) as client:
        client.send("GET", "/hello", fields={"authorization": f"Bearer {token}"})
        answer = client.answer()
    assert answer.status == 200 and answer.fields["x-plug"] == "1"
    assert f"{plugins.folder}/jwt.py is never imported: " in one.log()
    one.write(settings.but(process={"python_path": [str(plugins.folder)]}, more=LAYER.replace("journey:", "jwt:")))
    told = one.ask(do="reload")
    assert not told["ok"] and f"{plugins.folder}/jwt.py can't be imported: " in told["error"]
    leaves(one)
