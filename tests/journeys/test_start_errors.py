"""What can't be started says why in one plain sentence, ends with status 1 and leaves nothing behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.gateway_process import Start
from tests.support.http import get
from tests.support.settings import Settings

SETTINGS = Settings("127.0.0.1:9")

UNPRIVILEGED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 10)  # PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE
os.execv(sys.argv[1], sys.argv[1:])
"""


def refused(folder: Path, config: Settings | str | None, before: Sequence[str] = ()) -> str:
    """What a gateway that does not start says."""
    file = folder / "gateway.toml"
    if config is not None:
        file.write_text(str(config))
    command = [*before, sys.executable, "-m", "gateway", "run", "-c", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert ended.returncode == 1, ended
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    left = {path.name for path in folder.iterdir()} - {"gateway.toml", "access.log"}
    assert not left, f"left behind: {left}"
    return ended.stderr


def test_an_address_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        taken = f"127.0.0.1:{theirs.getsockname()[1]}"
        said = refused(tmp_path, SETTINGS.but(listeners={"web": taken}))
        assert said == f"cannot listen on {taken}: address already in use\n"
        said = refused(tmp_path, SETTINGS.but(admin=taken))
        assert said == f"cannot listen on {taken}: address already in use\n"


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    said = refused(tmp_path, SETTINGS.but(listeners={"web": "192.0.2.1:80"}))
    assert said == "cannot listen on 192.0.2.1:80: no interface of this machine has this address\n"


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1, reason="every port is free to all here"
)
def test_a_port_that_needs_privilege(tmp_path: Path) -> None:
    said = refused(
        tmp_path, SETTINGS.but(listeners={"web": "127.0.0.1:1"}), before=(sys.executable, "-c", UNPRIVILEGED)
    )
    reason = "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE or root)"
    assert said == f"cannot listen on 127.0.0.1:1: {reason}\n"


def test_a_unix_socket_without_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "none" / "web.sock"
    said = refused(tmp_path, SETTINGS.but(listeners={"web": f"unix:{path}"}))
    assert said == f"cannot listen on unix:{path}: the directory {path.parent} does not exist\n"


def test_a_descriptor_that_is_not_there(tmp_path: Path) -> None:
    said = refused(tmp_path, SETTINGS.but(listeners={"web": "fd:77"}))
    assert said == "cannot listen on fd:77: descriptor 77 is not open\n"
    said = refused(tmp_path, SETTINGS.but(listeners={"web": "systemd:web"}))
    assert said.startswith("cannot listen on systemd:web: systemd passed no socket of this name")
    assert said.count("\n") == 1


def test_a_missing_file(tmp_path: Path) -> None:
    said = refused(tmp_path, None)
    assert str(tmp_path / "gateway.toml") in said
    assert "no such file" in said.lower()
    assert said.count("\n") == 1


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    said = refused(tmp_path, "[[listeners\n")
    assert said.startswith(f"{tmp_path / 'gateway.toml'}:1:")
    assert said.count("\n") == 1


def test_every_mistake_of_a_file_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, SETTINGS.but(process={"worker": 3, "drain_timeout": "soon"}, admin="everywhere"))
    lines = said.splitlines()
    assert all(line.startswith(f"{tmp_path / 'gateway.toml'}:") for line in lines if not line.startswith(" "))
    for key in ("process.worker", "process.drain_timeout", "admin.listen"):
        assert key in said
    assert "workers" in said  # what was meant


@pytest.mark.parametrize("which", ["access", "error"])
def test_a_log_file_without_a_directory(tmp_path: Path, which: str) -> None:
    path = tmp_path / "none" / "some.log"
    said = refused(tmp_path, SETTINGS.but(log={which: str(path)}))
    assert said == f"cannot open the log file {path}: No such file or directory\n"


def test_a_user_that_does_not_exist(tmp_path: Path) -> None:
    said = refused(tmp_path, SETTINGS.but(process={"user": "nobody-of-this-name"}))
    assert said == 'process.user: there is no user "nobody-of-this-name"\n'


def test_a_control_socket_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").touch()
    path = tmp_path / "gateway.toml" / "control.sock"
    said = refused(tmp_path, SETTINGS.but(process={"control": str(path)}))
    assert said == f"cannot make the control socket {path}: file exists\n"


def test_workers_that_do_not_come_up(tmp_path: Path) -> None:
    said = refused(tmp_path, SETTINGS.but(process={"boot_timeout": "1ms"}))
    assert "cannot start: not ready within 0.001 s: " in said


def test_a_second_gateway_with_the_same_control_socket(gateway: Start, settings: Settings, tmp_path: Path) -> None:
    one = gateway(settings)
    folder = tmp_path / "second"
    folder.mkdir()
    said = refused(folder, settings.but(process={"control": one.control}))
    assert said == f"cannot make the control socket {one.control}: another gateway answers there\n"
    assert one.status()["ok"]
    assert get(one.address()).status == 200


def test_a_second_gateway_with_the_same_pid_file(gateway: Start, settings: Settings, tmp_path: Path) -> None:
    pid_file = tmp_path / "gateway.pid"
    one = gateway(settings.but(process={"pid_file": str(pid_file)}))
    folder = tmp_path / "second"
    folder.mkdir()
    said = refused(folder, settings.but(process={"pid_file": str(pid_file)}))
    assert said == f"another gateway is running with PID {one.pid} ({pid_file})\n"
    assert pid_file.read_text() == f"{one.pid}\n"


def test_a_second_gateway_on_the_same_address(gateway: Start, settings: Settings, tmp_path: Path) -> None:
    """Though the first one's sockets would share the port with any of the same user."""
    one = gateway(settings)
    address = one.address()
    folder = tmp_path / "second"
    folder.mkdir()
    said = refused(folder, settings.but(listeners={"web": address}))
    assert said == f"cannot listen on {address}: address already in use\n"


@pytest.mark.parametrize(
    "layer",
    [
        'kind = "ip_allow"\nallow_file = "nobody.txt"',
        'kind = "hooks"\nuse = "not_here:Plug"',
        'kind = "jwt"\nalgorithms = ["ES256"]\njwks = "no-keys.json"',
        'kind = "static"\nroot = "/not/here"',
    ],
)
def test_what_a_layer_names_is_not_here(tmp_path: Path, layer: str) -> None:
    """`gateway check` only warns of it."""
    assert "there is no " in refused(tmp_path, SETTINGS.but(more=f"[[middleware]]\n{layer}\n"))
