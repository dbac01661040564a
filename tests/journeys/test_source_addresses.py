"""Connections to endpoints from several addresses of this machine."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import psutil

from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client
from tests.support.metrics import Metrics
from tests.support.origin import HELLO, Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually

MANY = 20


def from_(settings: Settings, *addresses: str) -> str:
    table = "[upstreams.app]\n"
    assert table in str(settings)
    return str(settings).replace(table, f"{table}source_addresses = {list(addresses)}\n")


def ends(one: Gateway, origin: Origin) -> Counter[str]:
    """The workers' ends of their connections to the origin, by address."""
    found: Counter[str] = Counter()
    for pid in one.pids():
        for connection in psutil.Process(pid).net_connections("tcp"):
            if connection.raddr and connection.raddr.port == origin.port and connection.status == "ESTABLISHED":
                found[connection.laddr.ip] += 1
    return found


def test_two_addresses_share_the_connections(gateway: Start, origin: Origin, settings: Settings) -> None:
    one = gateway(from_(settings, "127.0.0.2", "127.0.0.3"))
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(one.address())) for _ in range(MANY)]
        for client in clients:
            client.send("GET", "/slow?ms=500")
        for client in clients:
            assert client.answer().body == HELLO
        assert ends(one, origin) == {"127.0.0.2": MANY // 2, "127.0.0.3": MANY // 2}


def test_without_a_port_requests_are_refused_and_the_endpoint_is_not_blamed(
    gateway: Start, origin: Origin, settings: Settings
) -> None:
    one = gateway(from_(settings, "198.51.100.77"))  # an address for documentation (RFC 5737)
    with Client(one.address()) as client:
        for _ in range(10):
            answer = client.post("/echo", b"body")
            assert (answer.status, answer.fields["proxy-status"]) == (
                503,
                'gateway; error=proxy_internal_error; details="ports_exhausted"',
            )
        one.write(from_(settings, "127.0.0.2"))
        assert one.reload().returncode == 0
        eventually(lambda: one.generation() == 2)
    with Client(one.address()) as client:
        assert client.post("/echo", b"body").body == b"body"
    assert Metrics(one.admin)("gateway_upstream_failures_total") == 0
    assert set(ends(one, origin)) == {"127.0.0.2"}
