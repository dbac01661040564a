"""The datagrams a service manager would get, and the sockets it would pass."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator

import pytest

from gateway.master.systemd import Notifier, forget, listen_fds

# The parallel test runner has a thread, which Python 3.12 warns about; a child here waits for no lock of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.bind(path)
        self.environ = {"NOTIFY_SOCKET": "@" + path[1:] if path.startswith("\0") else path}

    def received(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    path = str(tmp_path_factory.mktemp("n") / "notify")
    manager = Manager(path if request.param == "path" else "\0" + path)
    with manager.socket:
        yield manager


def test_each_message_is_one_datagram(manager: Manager) -> None:
    notifier = Notifier(manager.environ)
    notifier.ready("generation 3, 2 workers")
    assert manager.received() == ["READY=1", "STATUS=generation 3, 2 workers"]
    notifier.status("draining\nREADY=1")
    assert manager.received() == ["STATUS=draining READY=1"]
    notifier.stopping()
    assert manager.received() == ["STOPPING=1"]
    notifier.watchdog()
    assert manager.received() == ["WATCHDOG=1"]
    notifier.main_pid(42)
    assert manager.received() == ["MAINPID=42"]


def test_a_reload_says_when_it_began(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    Notifier(manager.environ).reloading()
    first, second = manager.received()
    assert first == "RELOADING=1"
    found = re.fullmatch(r"MONOTONIC_USEC=(\d+)", second)
    assert found
    assert before <= int(found[1]) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("name", [None, "", "relative", "vsock:2:1234", "/nobody/is/here", "@nobody", "/" + "x" * 200])
def test_without_a_manager_nothing_happens(name: str | None) -> None:
    notifier = Notifier({} if name is None else {"NOTIFY_SOCKET": name})
    notifier.ready("fine")
    notifier.reloading()
    notifier.watchdog()


def test_a_stuck_manager_does_not_stop_the_master(manager: Manager) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:  # until its queue is full
                other.sendto(b"x", manager.socket.getsockname())
    begin = time.monotonic()
    Notifier(manager.environ).watchdog()
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getppid())}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
    ids=str,
)
def test_the_watchdog_is_fed_twice_per_period(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier(environ).watchdog_interval == interval


def test_the_watchdog_of_this_very_process() -> None:
    assert Notifier({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}).watchdog_interval == 0.25


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:admin:web"}, {"web": [3, 5], "admin": [4]}),
        ({"LISTEN_FDS": "2"}, {"unknown": [3, 4]}),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web"}, {"web": [3], "unknown": [4]}),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": ""}, {"unknown": [3]}),
        ({"LISTEN_FDS": "900", "LISTEN_FDNAMES": "web"}, {"web": [3], "unknown": [4, 5]}),
        ({"LISTEN_FDS": "3", "LISTEN_PID": "8"}, {}),
        ({"LISTEN_FDS": "many"}, {}),
        ({}, {}),
    ],
    ids=str,
)
def test_sockets_are_found_by_name_and_close_at_exec(environ: dict[str, str], expected: dict[str, list[int]]) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # where 3, 4 and 5 are what this test puts there, as systemd does, and nothing is above them
        try:
            os.dup2(writing, 1)
            for fd in (3, 4, 5):
                os.dup2(1, fd, inheritable=True)
            os.closerange(6, 4096)
            found = listen_fds({"LISTEN_PID": "7", **environ}, 7)
            kept = [fd for fds in found.values() for fd in fds if os.get_inheritable(fd)]
            os.write(1, json.dumps([found, kept]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert json.load(answer) == [expected, []]
    os.waitpid(child, 0)


def test_without_a_pid_the_sockets_are_not_ours() -> None:
    assert listen_fds({"LISTEN_FDS": "1"}, os.getpid()) == {}


def test_a_child_forgets_the_service_manager() -> None:
    environ = {
        "NOTIFY_SOCKET": "/n",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDNAMES": "web",
        "HOME": "/",
    }
    forget(environ)
    assert environ == {"HOME": "/"}
    forget(environ)
    assert listen_fds(environ, os.getpid()) == {}
