"""Every kind of address serves; listeners come and go and nobody who was connected is let down."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client, get
from tests.support.load import Load
from tests.support.settings import Settings

ONE, TWO = "127.0.0.1:0", "localhost:0"


def test_a_listener_that_a_reload_adds_serves(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(listeners={"web": ONE}))
    web = one.address()
    with Load(web) as load:
        one.write(settings.but(listeners={"web": ONE, "new": ONE}))
        assert "+ listeners.new" in one.reload().stdout
        assert one.address("web") == web != one.address("new")
        with Load(one.address("new"), gets=1, posts=1, fresh=1) as more:
            more.goes_on()
        more.clean()
    load.clean()


@pytest.mark.parametrize("workers", [1, 2])
def test_removing_a_listener_under_load_loses_nothing(gateway: Start, settings: Settings, workers: int) -> None:
    settings = settings.but(workers=workers)
    one = gateway(settings.but(listeners={"web": ONE, "old": TWO}))
    with Load(one.address()) as load:
        for number in range(2):
            old = one.address("old")
            with contextlib.ExitStack() as stack:
                kept = [stack.enter_context(Client(old)) for _ in range(10)]
                assert all(client.get().status == 200 for client in kept[:5])
                one.write(settings.but(listeners={"web": ONE}))
                assert "- listeners.old" in one.reload().stdout, number
                assert all(client.get().closes for client in kept)
            one.settled(workers)
            with pytest.raises(ConnectionRefusedError):
                get(old)
            load.goes_on(50)
            one.write(settings.but(listeners={"web": ONE, "old": TWO}))
            assert one.reload().returncode == 0
    load.clean()


@pytest.mark.parametrize("workers", [1, 2])
def test_whoever_gets_through_to_a_listener_while_it_is_removed_is_answered(
    gateway: Start, settings: Settings, workers: int
) -> None:
    settings = settings.but(workers=workers)
    one = gateway(settings.but(listeners={"web": ONE, "old": TWO}))
    with Load(one.address("old"), fresh=6) as load:
        one.write(settings.but(listeners={"web": ONE}))
        assert one.reload().returncode == 0
        one.settled(workers)
        failures = load.stop().failures
    assert all(failure.port == 0 and "Refused" in failure.reason for failure in failures), str(load.report)


def test_a_listener_that_is_removed_and_comes_back_at_once_serves(gateway: Start, settings: Settings) -> None:
    both = settings.but(listeners={"web": ONE, "old": TWO})
    one = gateway(both)
    old = one.address("old")
    for _ in range(3):
        for config in (settings.but(listeners={"web": ONE}), both):
            one.write(config)
            assert one.ask(do="reload")["ok"]
        assert one.address("old") == old  # its socket had not been closed yet
        assert get(old).status == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_who_waits_at_a_listener_that_is_removed_is_answered(gateway: Start, settings: Settings, workers: int) -> None:
    settings = settings.but(workers=workers)
    one = gateway(settings.but(listeners={"web": ONE, "old": TWO}))
    old, before = one.address("old"), one.pids()
    with contextlib.ExitStack() as stack:
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        waiting = [stack.enter_context(Client(old)) for _ in range(20)]
        for client in waiting[:10]:
            client.send("GET", "/hello")
        one.write(settings.but(listeners={"web": ONE}))
        assert one.reload().returncode == 0
        for pid in before:
            os.kill(pid, signal.SIGCONT)
        for client in waiting[10:]:
            client.send("POST", "/echo", b"still here")
        assert [client.answer().status for client in waiting] == [200] * 20
    one.settled(workers)


def test_several_at_once(gateway: Start, settings: Settings) -> None:
    names = ["a", "b", "c", "d"]
    one = gateway(settings.but(workers=2, listeners=dict.fromkeys(names, ONE)))
    addresses = [one.address(name) for name in names]
    assert len({*addresses, one.admin}) == 5
    assert [get(address).status for address in addresses] == [200] * 4
    one.write(settings.but(workers=2, listeners=dict.fromkeys(reversed(names), ONE)))
    assert one.reload().returncode == 0
    assert [one.address(name) for name in names] == addresses


def test_a_unix_socket(gateway: Start, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    settings = settings.but(workers=2, listeners={"web": f"unix:{path}"})
    one = gateway(settings)
    with Load(one.address()) as load:
        for workers in (2, 1, 3, 1):
            one.write(settings.but(workers=workers))
            assert one.reload().returncode == 0
            load.goes_on(50)
            one.ask(do="scale", workers=2)
            one.settled(2)
        one.upgrade()
        load.goes_on()
        one.settled(1)
    load.clean()
    one.stop()
    assert not path.exists()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_both_families_at_once(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(listeners={"web": ":0"}))
    address = one.address()
    assert address.startswith("[::]:")
    port = address.removeprefix("[::]:")
    assert get(f"127.0.0.1:{port}").status == 200
    assert get(f"[::1]:{port}").status == 200


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6_alone(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(listeners={"web": "[::1]:0"}, admin="[::1]:0"))
    assert one.address().startswith("[::1]:")
    with Load(one.address()) as load:
        assert one.reload().returncode == 0
        load.goes_on()
    load.clean()
    assert get(one.admin, "/ready").status == 200


def journey(one: Gateway, settings: Settings) -> None:
    """What a socket that somebody else bound must live through."""
    with Load(one.address()) as load:
        for workers in (1, 3):
            one.write(settings.but(workers=workers))
            assert one.reload().returncode == 0
            one.settled(workers)
            load.goes_on(50)
        one.upgrade()
        load.goes_on()
        one.settled(3)
    load.clean()
    one.write(settings.but(listeners={"other": ONE}))
    assert one.reload().returncode == 0
    one.write(settings)
    assert one.reload().returncode == 0, one.log()
    assert get(one.address()).status == 200


def test_an_inherited_descriptor(gateway: Start, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        settings = settings.but(workers=2, listeners={"web": f"fd:{ours.fileno()}"})
        one = gateway(settings, pass_fds=[ours.fileno()])
        assert one.address() == f"127.0.0.1:{ours.getsockname()[1]}"
        journey(one, settings)
        one.stop()
        Client(f"127.0.0.1:{ours.getsockname()[1]}").close()  # it is ours and goes on


AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_socket_of_systemd(gateway: Start, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        settings = settings.but(workers=2, listeners={"web": "systemd:web"})
        before = (sys.executable, "-c", AS_SYSTEMD, str(ours.fileno()))
        journey(gateway(settings, pass_fds=[ours.fileno()], before=before), settings)
