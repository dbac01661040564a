"""Datagrams through real workers: nothing is lost that we could keep, and a session keeps its endpoint."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import dns.message
import dns.query
import pytest

from tests.support.access_log import lines
from tests.support.datagrams import Callers, Namesakes
from tests.support.dns_server import DnsServer
from tests.support.gateway_process import Gateway, Start
from tests.support.metrics import Metrics
from tests.support.settings import Settings
from tests.support.waiting import eventually

CLIENTS = 200
FEW = 40


@pytest.fixture
def namesakes() -> Iterator[Namesakes]:
    with Namesakes(3) as three:
        yield three


def udp(*endpoints: str, listener: str = "", upstream: str = "", name: str = "udp") -> str:
    """A UDP listener before these."""
    return (
        f'[[listeners]]\nname = "{name}"\nkind = "udp"\nlisten = "127.0.0.1:0"\nupstream = "{name}"\n{listener}\n'
        f"[upstreams.{name}]\nendpoints = {list(endpoints)}\n{upstream}\n"
    )


def before(settings: Settings, *endpoints: str, workers: int = 2, listener: str = "", upstream: str = "") -> Settings:
    return settings.but(workers=workers, more=udp(*endpoints, listener=listener, upstream=upstream))


def tunnels(one: Gateway) -> int:
    """Sessions that are open, as `gateway status` has it."""
    return int(one.status()["tunnels"].get("udp", 0))


def kill(one: Gateway, slot: int) -> None:
    pid = one.pids()[slot]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(one.pids()) > slot and pid not in one.pids(), "it has a successor")


def test_reloads_and_scaling_lose_nothing_and_move_nobody(
    gateway: Start, settings: Settings, namesakes: Namesakes
) -> None:
    """By a balancer that knows nothing of clients: what keeps a session where it is must be remembered."""
    one = gateway(before(settings, *namesakes.addresses))
    with Callers(one.address("udp"), CLIENTS) as callers:
        callers.goes_on()
        for workers in (3, 1):
            assert one.ask(do="scale", workers=workers)["ok"]
            eventually(lambda wanted=workers: len(one.workers()) == wanted)  # type: ignore[misc]
            callers.goes_on()
        assert one.ask(do="reload")["ok"]
        callers.goes_on()
    callers.clean()
    assert all(namesakes.heard)


def test_a_worker_that_is_killed_costs_one_more_try_and_moves_nobody(
    gateway: Start, settings: Settings, namesakes: Namesakes
) -> None:
    one = gateway(before(settings, *namesakes.addresses))
    with Callers(one.address("udp"), CLIENTS, tries=2) as callers:
        callers.goes_on()
        for slot in (0, 1):
            kill(one, slot)
            callers.goes_on()
    callers.clean()
    # What a worker had already read is gone with it, and no more than that.
    assert len(callers.repeated) < CLIENTS / 2


def test_what_waited_for_a_worker_that_was_killed_is_answered_by_its_successor(
    gateway: Start, settings: Settings, namesakes: Namesakes
) -> None:
    one = gateway(before(settings, *namesakes.addresses, workers=1))
    [pid] = one.pids()
    os.kill(pid, signal.SIGSTOP)
    with Callers(one.address("udp"), CLIENTS) as callers:
        eventually(lambda: all(caller.asked_at for caller in callers.callers), "all have asked")
        os.kill(pid, signal.SIGKILL)
        callers.goes_on(1)
    callers.clean()


def test_what_the_kernel_drops_is_counted(gateway: Start, settings: Settings) -> None:
    """Also what it drops while there is no worker."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("127.0.0.1", 0))
        one = gateway(before(settings, f"127.0.0.1:{endpoint.getsockname()[1]}", workers=1))

        def dropped() -> float:
            return Metrics(one.admin)("gateway_datagrams_dropped_total", listener="udp", why="overflow")

        assert dropped() == 0
        host, _, port = one.address("udp").rpartition(":")
        [pid] = one.pids()
        os.kill(pid, signal.SIGSTOP)
        for _ in range(1000):
            endpoint.sendto(b"x" * 30_000, (host, int(port)))
        os.kill(pid, signal.SIGKILL)
        assert 0 < eventually(dropped) < 1000


def test_an_upgrade_in_place_loses_nothing_and_moves_nobody(
    gateway: Start, settings: Settings, namesakes: Namesakes
) -> None:
    one = gateway(before(settings, *namesakes.addresses))
    with Callers(one.address("udp"), FEW) as callers:
        callers.goes_on()
        one.upgrade()
        callers.goes_on()
    callers.clean()


def test_the_sessions_of_an_endpoint_that_is_gone_go_to_the_others(
    gateway: Start, settings: Settings, namesakes: Namesakes
) -> None:
    _, *others = namesakes.addresses
    one = gateway(before(settings, *namesakes.addresses))
    with Callers(one.address("udp"), FEW) as callers:
        callers.goes_on()
        one.write(before(settings, *others))
        assert one.ask(do="reload")["ok"]
        callers.goes_on()
        moved = callers.moved()
        assert all(0 in caller.endpoints for caller in callers.callers if caller.port in moved)
        assert len(moved) == sum(0 in caller.endpoints for caller in callers.callers)
    assert not callers.lost


def test_a_listener_that_is_removed_and_comes_back(gateway: Start, settings: Settings, namesakes: Namesakes) -> None:
    more = udp(namesakes.addresses[1], name="other")
    one = gateway(before(settings, *namesakes.addresses))
    with Callers(one.address("udp"), 10) as callers:
        callers.goes_on()
        for extra in (more, "", more):  # the second time its socket still has somebody who drains
            one.write(settings.but(workers=2, more=udp(*namesakes.addresses) + extra))
            assert one.ask(do="reload")["ok"]
            if extra:
                with Callers(one.address("other"), 5) as others:
                    others.goes_on(2)
                others.clean()
        callers.goes_on()
    callers.clean()


def test_sessions_are_seen_and_told_of(gateway: Start, settings: Settings, namesakes: Namesakes) -> None:
    one = gateway(before(settings, *namesakes.addresses, listener='idle_timeout = "500ms"'))
    with Callers(one.address("udp"), 20) as callers:
        callers.goes_on(2)
        eventually(lambda: tunnels(one) == 20)
    eventually(lambda: tunnels(one) == 0, "they are idle")
    now = Metrics(one.admin)
    assert now("gateway_sessions_total", listener="udp") == 20
    assert now("gateway_tunnels_open", listener="udp") == 0
    asked = sum(sum(heard.values()) for heard in namesakes.heard)
    assert now("gateway_datagrams_total", listener="udp", direction="in") == asked
    assert now("gateway_datagrams_total", listener="udp", direction="out") == asked
    one.stop()
    told = lines(one.folder / "access.log")
    assert {line["client"] for line in told} == {"127.0.0.1"} and len(told) == 20
    assert {line["endpoint"] for line in told} == set(namesakes.addresses)
    assert {line["reason"] for line in told} == {""}
    assert sum(line["bytes_in"] for line in told) > 0


def test_a_gateway_that_stops_waits_for_no_idle_session(
    gateway: Start, settings: Settings, namesakes: Namesakes
) -> None:
    one = gateway(before(settings, *namesakes.addresses, listener='idle_timeout = "1h"'))
    with Callers(one.address("udp"), 20) as callers:
        callers.goes_on(2)
    one.stop()  # within drain_timeout, which `settled` and `ended` would wait for
    assert {line["reason"] for line in lines(one.folder / "access.log")} == {""}


# DNS.


@pytest.fixture
def resolver() -> Iterator[DnsServer]:
    with DnsServer() as server:
        for number in range(20):
            server.records[f"n{number}.app.test", "A"] = [f"10.0.0.{number}"]
        yield server


def dig(address: str, *names: str) -> list[str]:
    program = shutil.which("dig")
    assert program is not None, "dig is not installed"
    host, _, port = address.rpartition(":")
    command = [program, f"@{host}", "-p", port, "+short", "+tries=1", "+time=10", *names]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout
    return ran.stdout.split()


def test_dig_and_dnspython_ask_over_a_reload(gateway: Start, settings: Settings, resolver: DnsServer) -> None:
    one = gateway(before(settings, resolver.address, listener="max_responses = 1"))
    names = [f"n{number}.app.test" for number in range(20)]
    addresses = [f"10.0.0.{number}" for number in range(20)]
    assert dig(one.address("udp"), *names) == addresses
    assert one.ask(do="reload")["ok"]
    assert dig(one.address("udp"), *names) == addresses
    assert tunnels(one) == 0  # each was over with its answer
    assert resolver.asked["n7.app.test", "A"] == 2
    host, _, port = one.address("udp").rpartition(":")
    query = dns.message.make_query("n7.app.test", "A")
    answer = dns.query.udp(query, host, timeout=10, port=int(port))
    assert [item.address for rrset in answer.answer for item in rrset] == ["10.0.0.7"]
