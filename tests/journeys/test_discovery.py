"""Endpoints that are looked up: they come and go under load, and outlive whatever happens to us or to those we ask."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.dns_server import DnsServer
from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client, get
from tests.support.load import Load
from tests.support.metrics import Metrics
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually, steadily

PROBED = """
[upstreams.found.health]
path = "/hello"
interval = "200ms"
timeout = "300ms"
"""


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as one:
        yield one


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Origin(f"o{number}")) for number in range(3)]


def config(lookup: str, more: str = "", *, admin: bool = True, workers: int = 2) -> Settings:
    """Everything goes to an upstream that is looked up but /app, which goes to one that the configuration lists."""
    upstream = f"[upstreams.found]\ndiscovery = {lookup}\n{more}"
    listed = '[[routes]]\nname = "listed"\npath = "/app"\nupstream = "app"\n'
    found = '[[routes]]\nname = "found"\npath = "/"\nmethods = ["GET", "POST"]\nupstream = "found"\n'
    where = "127.0.0.1:0" if admin else None
    return Settings("127.0.0.1:1", workers=workers, admin=where, more=f"{upstream}\n{listed}{found}")


def dns(server: DnsServer, name: str = "_http._tcp.test") -> str:
    return f'{{ kind = "dns", srv = "{name}", resolver = ["{server.address}"], refresh = "1s" }}'


def file(path: Path) -> str:
    return f'{{ kind = "file", path = "{path}" }}'


def serve(server: DnsServer, *origins: Origin, name: str = "_http._tcp.test") -> None:
    """These are the endpoints from now on; by SRV, for each has a port of its own."""
    server.records["here.test", "A"] = ["127.0.0.1"]
    server.records[name, "SRV"] = [f"1 1 {one.port} here.test." for one in origins]


def listed(path: Path, *origins: Origin) -> None:
    """Another file of that name."""
    new = path.with_name("new.json")
    new.write_text(json.dumps([one.address for one in origins]))
    new.replace(path)


def rows(one: Gateway) -> list[dict[str, Any]]:
    return [row for row in one.ask(do="endpoints")["endpoints"] if row["upstream"] == "found"]


def names(one: Gateway) -> list[str]:
    return [row["endpoint"] for row in rows(one)]


def row(one: Gateway, origin: Origin) -> dict[str, Any]:
    [found] = [row for row in rows(one) if row["endpoint"] == origin.address]
    return found


def trouble(one: Gateway) -> str:
    [told] = one.ask(do="endpoints")["discovery"]
    return str(told["trouble"])


def addresses(*origins: Origin) -> list[str]:
    return sorted(one.address for one in origins)


def become(one: Gateway, *origins: Origin) -> None:
    """Wait until these are the endpoints."""
    eventually(lambda: names(one) == addresses(*origins), f"the endpoints are {addresses(*origins)}")


def is_asked(origin: Origin) -> None:
    """Wait until requests come there."""
    before = origin.requests
    eventually(lambda: origin.requests > before + 20, f"{origin.name} is asked")


def asks_nobody_but(load: Load, *origins: Origin, of: list[Origin]) -> None:
    load.goes_on()
    others = [one for one in of if one not in origins]
    before = [one.requests for one in others]
    load.goes_on()
    assert [one.requests for one in others] == before


def test_answers_of_a_resolver_change_under_load(gateway: Start, server: DnsServer, origins: list[Origin]) -> None:
    a, b, c = origins
    serve(server, a, b)
    one = gateway(config(dns(server)))
    assert names(one) == addresses(a, b), "a generation has its endpoints before it goes"
    pids = one.pids()
    with Load(one.address()) as load:
        for now in ((b, c), (c,), (a, b, c), (a,)):
            serve(server, *now)
            become(one, *now)
            for each in now:
                is_asked(each)
            asks_nobody_but(load, *now, of=origins)
    load.clean()
    assert (one.generation(), one.pids()) == (1, pids)
    metrics = Metrics(one.admin)
    assert metrics("gateway_discovery_up", upstream="found") == 1
    assert metrics("gateway_discovery_endpoints", upstream="found") == 1
    assert metrics("gateway_endpoint_ready", upstream="found", endpoint=a.address) == 1
    assert f"found: 2 endpoints: + {c.address}; - {a.address}" in one.log()


def test_a_request_in_flight_outlives_its_endpoint(gateway: Start, server: DnsServer, origins: list[Origin]) -> None:
    a, b, _ = origins
    serve(server, a)
    one = gateway(config(dns(server), workers=1))
    with Client(one.address()) as client:
        rest = client.send_most("/echo", b"all of it")
        eventually(lambda: a.under_way == 1)
        serve(server, b)
        become(one, b)
        assert get(one.address()).fields["x-origin"] == "o1"
        client.sock.sendall(rest)
        answer = client.answer()
        assert (answer.body, answer.fields["x-origin"]) == (b"all of it", "o0")
        assert client.get().fields["x-origin"] == "o1"

    def connections() -> float:
        return Metrics(one.admin)("gateway_upstream_connections_open", endpoint=a.address)

    eventually(lambda: connections() == 0, "no connection is kept to an endpoint that is gone")


@pytest.mark.parametrize("end", ["SERVFAIL", "", "dead"])
def test_the_last_answer_holds_while_the_resolver_is_away(
    gateway: Start, server: DnsServer, origins: list[Origin], end: str
) -> None:
    a, b, _ = origins
    serve(server, a, b)
    one = gateway(config(dns(server)))
    with Load(one.address()) as load:
        if end == "dead":
            server.stop()
        else:
            server.says |= {"_http._tcp.test": end, "here.test": end}
        eventually(lambda: trouble(one), timeout=30)
        assert names(one) == addresses(a, b)
        is_asked(a)
        is_asked(b)
        assert Metrics(one.admin)("gateway_discovery_up", upstream="found") == 0
        told = one.cli("endpoint", "list")
        assert "found: looking up endpoints fails: no resolver" in told.stderr
        assert "looking up endpoints fails" in one.cli("status", terminal=True).stdout
        assert len([line for line in one.log().splitlines() if "looking up endpoints fails" in line]) <= 2
        if end == "dead":
            server.start()
        server.says.clear()
        serve(server, b)
        eventually(lambda: names(one) == [b.address] and not trouble(one), timeout=30)
        load.goes_on()
    load.clean()
    assert "found: looking up endpoints works again, 1 are there" in one.log()


def test_a_name_that_does_not_resolve_at_the_start(gateway: Start, server: DnsServer, origins: list[Origin]) -> None:
    one = gateway(str(config(dns(server))).replace('"127.0.0.1:1"', f'"{origins[1].address}"'))
    refused = get(one.address())
    assert refused.status == 503 and "destination_unavailable" in refused.fields["proxy-status"]
    assert get(one.address(), "/app").status == 200, "the others work"
    assert "found: looking up endpoints fails: _http._tcp.test does not exist; it has no endpoints" in one.log()
    serve(server, origins[0])
    eventually(lambda: get(one.address()).status == 200)
    assert get(one.address()).fields["x-origin"] == "o0"
    assert one.generation() == 1


def test_a_name_that_is_gone_is_gone_in_the_end(gateway: Start, server: DnsServer, origins: list[Origin]) -> None:
    serve(server, origins[0])
    one = gateway(config(dns(server)))
    assert get(one.address()).status == 200
    server.records.clear()
    eventually(lambda: names(one) == [] and get(one.address()).status == 503)
    assert trouble(one) == "_http._tcp.test does not exist"


def test_a_list_is_written_under_load(gateway: Start, tmp_path: Path, origins: list[Origin]) -> None:
    a, b, c = origins
    path = tmp_path / "list.json"
    listed(path, a, b)
    one = gateway(config(file(path)))
    assert names(one) == addresses(a, b)
    with Load(one.address()) as load:
        listed(path, b, c)
        become(one, b, c)
        is_asked(c)
        asks_nobody_but(load, b, c, of=origins)
        path.write_text(json.dumps([a.address, {"address": c.address, "backup": True}]))
        eventually(lambda: names(one) == [a.address, c.address])
        asks_nobody_but(load, a, of=origins)
        path.write_text('["' + a.address + '",\n7]')
        eventually(lambda: trouble(one).startswith(f"{path}:2:1: endpoints[1]"))
        load.goes_on()
        steadily(lambda: names(one) == [a.address, c.address], 2.5)
        listed(path, b)
        eventually(lambda: names(one) == [b.address] and not trouble(one))
        asks_nobody_but(load, b, of=origins)
    load.clean()
    assert one.log().count(f"{path}:2:1") == 1, "not each second"


def test_lists_outlive_reload_crash_and_upgrade(gateway: Start, server: DnsServer, origins: list[Origin]) -> None:
    a, b, _ = origins
    serve(server, a, b)
    one = gateway(config(dns(server)))
    with Load(one.address()) as load:
        server.says |= {"_http._tcp.test": "SERVFAIL"}
        eventually(lambda: trouble(one))
        os.kill(one.observer, signal.SIGKILL)
        load.goes_on()
        eventually(lambda: one.status()["observer"] is not None and one.status()["observer"]["state"] == "ready")
        assert names(one) == addresses(a, b)
        assert Metrics(one.admin)("gateway_endpoint_ready", upstream="found") == 2
        assert one.reload().returncode == 0
        one.settled(2)
        assert names(one) == addresses(a, b)
        load.goes_on()
        one.upgrade()
        one.settled(2)
        assert names(one) == addresses(a, b)
        is_asked(a)
        is_asked(b)
    load.clean()
    os.kill(one.pids()[0], signal.SIGKILL)
    one.settled(2)
    for _ in range(20):
        assert get(one.address()).status == 200
    server.says.clear()
    serve(server, a)
    become(one, a)


def test_what_is_looked_up_elsewhere_after_a_reload(gateway: Start, server: DnsServer, origins: list[Origin]) -> None:
    a, b, c = origins
    serve(server, a)
    serve(server, b, name="_other._tcp.test")
    one = gateway(config(dns(server)))
    with Load(one.address()) as load:
        one.write(config(dns(server, "_other._tcp.test")))
        assert one.reload().returncode == 0
        one.settled(2)
        assert names(one) == [b.address]
        asks_nobody_but(load, b, of=origins)
        one.write(str(config(dns(server))).replace(f"discovery = {dns(server)}", f'endpoints = ["{c.address}"]'))
        assert one.reload().returncode == 0
        one.settled(2)
        assert names(one) == [c.address]
        asks_nobody_but(load, c, of=origins)
    load.clean()


def test_without_an_admin_listener_somebody_still_looks(
    gateway: Start, server: DnsServer, origins: list[Origin]
) -> None:
    a, b, _ = origins
    serve(server, a)
    one = gateway(config(dns(server), PROBED, admin=False))
    assert one.status()["admin"] is None
    serve(server, a, b)
    become(one, a, b)
    b.stop()
    eventually(lambda: row(one, b)["condition"] == "down")


def test_probes_come_and_go_with_endpoints(gateway: Start, server: DnsServer, origins: list[Origin]) -> None:
    a, b, _ = origins
    serve(server, a)
    one = gateway(config(dns(server), PROBED))
    eventually(lambda: a.requests > 1)
    assert b.requests == 0
    serve(server, b)
    eventually(lambda: b.requests > 1, "the newcomer is probed")
    before = a.requests
    steadily(lambda: a.requests == before, 1.0, "who is gone is not")
    serve(server, a, b)
    b.stop()
    eventually(lambda: names(one) == addresses(a, b) and row(one, b)["condition"] == "down")
    for _ in range(20):
        assert get(one.address()).status == 200
    b.start()
    eventually(lambda: get(one.address()).status == 200 and row(one, b)["condition"] == "up")


def test_newcomers_start_slowly(gateway: Start, server: DnsServer, origins: list[Origin]) -> None:
    a, b, _ = origins
    serve(server, a)
    one = gateway(config(dns(server), 'slow_start = "1h"\n', workers=1))
    assert row(one, a)["since_seconds"] is None, "at the very first there is nobody beside whom to start slowly"
    serve(server, a, b)
    become(one, a, b)
    assert row(one, b)["since_seconds"] is not None
    before = a.requests, b.requests
    for _ in range(220):
        assert get(one.address()).status == 200
    assert b.requests - before[1] <= 40 < 180 <= a.requests - before[0], "a tenth of the weight: one of eleven"
    assert b.requests - before[1] >= 10


def test_draining_an_endpoint_that_was_found(gateway: Start, server: DnsServer, origins: list[Origin]) -> None:
    a, b, _ = origins
    serve(server, a, b)
    one = gateway(config(dns(server)))
    assert one.cli("endpoint", "drain", "found", b.address).returncode == 0
    before = b.requests
    for _ in range(20):
        assert get(one.address()).status == 200
    assert b.requests == before
    serve(server, a)
    become(one, a)
    wrong = one.cli("endpoint", "drain", "found", b.address)
    assert (wrong.returncode, wrong.stderr) == (1, f"there is no endpoint {b.address} of upstream found\n")
    serve(server, a, b)
    become(one, a, b)
    assert row(one, b)["drained"], "an endpoint that comes back is the same one"
    assert one.cli("endpoint", "undrain", "found", b.address).returncode == 0
    eventually(lambda: get(one.address()).status == 200 and b.requests > before)


def test_more_endpoints_than_one_message_holds(gateway: Start, tmp_path: Path, origins: list[Origin]) -> None:
    path = tmp_path / "list.json"
    many = [f"http://{'x' * 60}.{number}.test:80/base" for number in range(600)]
    path.write_text(json.dumps(many))
    one = gateway(config(file(path)))
    eventually(lambda: len(names(one)) == 512)
    assert "found: more than 512 endpoints; left out: " in one.log() and " and 83 more" in one.log()
    listed(path, origins[0])
    eventually(lambda: get(one.address()).status == 200)
    os.kill(one.pids()[1], signal.SIGSTOP)
    try:
        for number in range(4):
            listed(path, origins[number % 2])
            become(one, origins[number % 2])
    finally:
        os.kill(one.pids()[1], signal.SIGCONT)
    for _ in range(30):
        assert get(one.address()).fields["x-origin"] == "o1"
