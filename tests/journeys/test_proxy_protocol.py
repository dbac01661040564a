"""PROXY headers between real programs: HAProxy in front and behind, broken headers, and a reload in the middle."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from gateway.proxy_protocol import v1, v2
from tests.support.access_log import lines
from tests.support.gateway_process import Gateway, Start
from tests.support.haproxy import HAProxy
from tests.support.http import Client, connect
from tests.support.metrics import Metrics
from tests.support.settings import Settings
from tests.support.waiting import eventually

TOLD, HERE = ("192.0.2.7", 4711), ("198.51.100.1", 80)


def listener(name: str, accept: str, source: str = "127.0.0.1", more: str = "") -> str:
    rules = f'{{ accept = "{accept}", from = ["{source}"], timeout = "200ms" }}'
    return f'[[listeners]]\nname = "{name}"\nlisten = "127.0.0.1:0"\nproxy_protocol = {rules}\n{more}\n'


def logged(one: Gateway, **having: Any) -> list[dict[str, Any]]:
    return [line for line in lines(one.folder / "access.log") if having.items() <= line.items()]


def told_twice(one: Gateway, client: str) -> bool:
    return len(logged(one, client=client, status=200)) == 2


DEFAULTS = """
global
  maxconn 100
defaults
  timeout connect 5s
  timeout client 20s
  timeout server 20s
"""
IN_FRONT = DEFAULTS + "  mode tcp\n  option httpchk GET /hello?check\n"
WAYS = {
    "one": "send-proxy",
    "two": "send-proxy-v2",
    "summed": "send-proxy-v2 proxy-v2-options crc32c,unique-id",
}


def test_haproxy_in_front(gateway: Start, settings: Settings, tmp_path: Path) -> None:
    """Its clients keep their addresses, for its health checks it speaks for itself."""
    one = gateway(settings.but(more=listener("behind", "require")))
    config = IN_FRONT + "".join(
        f"frontend {name}\n  bind {{{name}}}\n  unique-id-format %{{+X}}o%ci-%ts\n  default_backend b{name}\n"
        f"backend b{name}\n  server gateway {one.address('behind')} check inter 100ms {how}\n"
        for name, how in WAYS.items()
    )
    with HAProxy(tmp_path, config) as haproxy:
        for number, address in enumerate(haproxy.addresses.values(), 71):
            with Client(address, source=f"127.0.0.{number}") as client:
                assert client.get().status == client.get("/size/100000").status == 200
            eventually(partial(told_twice, one, f"127.0.0.{number}"))
        eventually(lambda: len(logged(one, target="/hello?check", status=200, client="127.0.0.1")) >= 6)
    assert not [line for line in logged(one) if line["reason"]]


BEHIND = """
frontend behind
  mode http
  bind {behind} accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst_port]"
"""


def test_haproxy_behind(gateway: Start, settings: Settings, tmp_path: Path) -> None:
    """It hears from a TCP listener who the client is, also of one that a header in front has named."""
    with HAProxy(tmp_path, DEFAULTS + BEHIND) as haproxy:
        rules = 'kind = "tcp"\nupstream = "behind"\n'
        more = "".join(
            f'[[listeners]]\nname = "{send}"\nlisten = "127.0.0.1:0"\n{rules}'
            f'proxy_protocol = {{ accept = "optional", from = ["127.0.0.1"], timeout = "60s", send = "{send}" }}\n'
            for send in ("v1", "v2")
        )
        more += f'[upstreams.behind]\nendpoints = ["{haproxy.addresses["behind"]}"]\n'
        one = gateway(settings.but(more=more))
        for send in ("v1", "v2"):
            port = one.address(send).rpartition(":")[2]
            with Client(one.address(send), source="127.0.0.81") as client:
                own = client.sock.getsockname()[1]
                assert client.get().body.decode() == f"127.0.0.81 {own} {port}"
            for header in (v1(TOLD, HERE), v2(TOLD, HERE)):
                with Client(one.address(send)) as client:
                    client.sock.sendall(header)
                    assert client.get().body.decode() == f"192.0.2.7 4711 {HERE[1]}"  # where it was meant to go
            with Client(one.address(send)) as client:
                client.sock.sendall(v2(None, None))
                own = client.sock.getsockname()[1]
                assert client.get().body.decode() == f"127.0.0.1 {own} {port}"


BROKEN = {
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n": "proxy_header_missing",
    b"\x16\x03\x01\x02\x00\x01\x00": "proxy_header_missing",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n": "proxy_header_malformed",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 2\r\n": "proxy_header_malformed",
    b"PROXY TCP4 " + b"1" * 200: "proxy_header_malformed",
    v2(TOLD, HERE)[:12] + b"\x41\x11\x00\x0c" + bytes(12): "proxy_header_malformed",
    v2(TOLD, HERE)[:14] + b"\xff\xff" + bytes(500): "proxy_header_malformed",
    v2(TOLD, HERE)[:14] + b"\x00\x13" + bytes(12) + b"\3\0\4sums": "proxy_header_malformed",
    b"PROXY TCP4 1.2.3.4": "proxy_header_timeout",
    v2(TOLD, HERE)[:-1]: "proxy_header_timeout",
    b"": "proxy_header_timeout",
}


def test_what_is_broken_leaves_nothing_behind(gateway: Start, settings: Settings) -> None:
    """Each is cut, said once in the log and counted, by HTTP and TCP listeners alike; whoever comes next is served."""
    tcp = 'kind = "tcp"\nupstream = "app"\n'
    more = listener("web1", "require") + listener("raw", "require", more=tcp)
    more += listener("other", "require", "192.0.2.0/24")
    one = gateway(settings.but(more=more))
    [worker] = one.pids()
    for name in ("web1", "raw"):
        with Client(one.address(name)) as client:
            client.sock.sendall(v2(TOLD, HERE))
            assert client.get().status == 200
    before = Metrics(one.admin)
    descriptors = psutil.Process(worker).num_fds()
    peers = []
    for name in ("web1", "raw"):
        for data in BROKEN:
            for piece in (1, 1000):
                peer = connect(one.address(name))
                peers.append(peer)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                with contextlib.suppress(ConnectionError):  # it was cut before the end
                    for start in range(0, len(data), piece):
                        peer.sendall(data[start : start + piece])
    with contextlib.suppress(ConnectionResetError):  # cut before we heard that it was accepted
        peers.append(connect(one.address("other")))
    for peer in peers:
        with peer, contextlib.suppress(ConnectionError):
            assert peer.recv(100) == b""
    expected = Counter((name, reason) for name in ("web1", "raw") for reason in BROKEN.values() for _ in range(2))
    expected["other", "proxy_peer_not_trusted"] = 1

    def said() -> bool:
        refused = [line for line in logged(one, client="127.0.0.1") if line["reason"]]
        return Counter((line["listener"], line["reason"]) for line in refused) == expected

    eventually(said, f"{expected} are in the log")
    now = Metrics(one.admin)
    assert now("gateway_refusals_total", reason="proxy_header_malformed") == 12
    assert now("gateway_refusals_total", reason="proxy_peer_not_trusted") == 1
    eventually(lambda: psutil.Process(worker).num_fds() <= descriptors)
    assert one.pids() == [worker]
    now.since(before)


def test_a_header_that_is_half_there_when_the_workers_are_replaced(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(more=listener("behind", "require").replace("200ms", "60s")))
    header = v1(TOLD, HERE)
    with Client(one.address("behind")) as client:
        client.sock.sendall(header[:20])
        eventually(lambda: Metrics(one.admin)("gateway_connections_open", listener="behind") == 1)
        before = one.generation()
        one.signal(signal.SIGHUP)
        eventually(lambda: one.generation() > before, "the workers are replaced", 60)
        client.sock.sendall(header[20:])
        answer = client.get()
        assert answer.status == 200 and answer.closes
    eventually(lambda: logged(one, listener="behind", status=200, client=TOLD[0]))
