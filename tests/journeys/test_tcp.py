"""TCP through real gateways: a database over reloads, long streams, kills, and TLS that nobody decrypts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from gateway import cli
from tests.support import access_log
from tests.support.gateway_process import Gateway, Start
from tests.support.http import connect
from tests.support.metrics import Metrics
from tests.support.redis_server import PASSWORD, RedisServer
from tests.support.talker import Talker
from tests.support.waiting import eventually

QUERIES = 10_000
CLIENTS = 4


def settings(*endpoints: str, workers: int = 1, drain: str = "20s", more: str = "", **listener: Any) -> str:
    keys = "\n".join(f"{key} = {value if isinstance(value, int) else repr(value)}" for key, value in listener.items())
    return f"""
[process]
workers = {workers}
control = "control.sock"
drain_timeout = "{drain}"
[log]
access = "access.log"
[admin]
listen = "127.0.0.1:0"
[[listeners]]
name = "tcp"
kind = "tcp"
listen = "127.0.0.1:0"
upstream = "db"
{keys}
[upstreams.db]
balance = "least_requests"
endpoints = {list(endpoints)}
{more}
"""


def lines(one: Gateway, count: int) -> list[dict[str, Any]]:
    """The access log once it has so many lines."""
    file = one.folder / "access.log"
    return eventually(lambda: found if len(found := access_log.lines(file)) >= count else [], f"{count} lines")


def reload(one: Gateway) -> None:
    before = one.generation()
    one.signal(signal.SIGHUP)
    eventually(lambda: one.generation() > before, "the reload is done", 60)


def open_tunnels(one: Gateway) -> float:
    return Metrics(one.admin)("gateway_tunnels_open", listener="tcp")


class Redis:
    """A client that speaks only as much of it as is needed here."""

    def __init__(self, address: str) -> None:
        self._sock = connect(address)
        self._file = self._sock.makefile("rwb")
        assert self.ask((b"AUTH", PASSWORD.encode())) == [b"OK"]

    def ask(self, *queries: tuple[bytes, ...]) -> list[bytes]:
        """The answers to queries that are sent at once: of a string, a number or a state its text."""
        for words in queries:
            parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
            self._file.write(b"*%d\r\n%b" % (len(words), b"".join(parts)))
        self._file.flush()
        return [self._answer() for _ in queries]

    def _answer(self) -> bytes:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), "the connection is cut"
        if line[:1] == b"$":
            size = int(line[1:])
            return self._file.read(size + 2)[:-2]
        assert line[:1] in b"+:", line
        return line[1:-2]

    def close(self) -> None:
        self._file.close()
        self._sock.close()

    def __enter__(self) -> Redis:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as one:
        yield one


def test_ten_thousand_queries_over_two_reloads(gateway: Start, redis: RedisServer) -> None:
    """Half of the clients keep their connection, the others make a new one every 50 queries. Nobody sees an error, and
    what was written is there."""
    one = gateway(settings(f"unix:{redis.path}", workers=2))
    address = one.address("tcp")
    asked = 0
    errors: list[BaseException] = []
    halfway = threading.Event()

    def work(number: int) -> None:
        nonlocal asked
        chance = random.Random(number)
        own = b"n%d" % number
        try:
            client = Redis(address)
            for turn in range(QUERIES // CLIENTS // 2):
                if number % 2 and turn % 25 == 24:
                    client.close()
                    client = Redis(address)
                value = chance.randbytes(chance.choice((10, 1000, 20_000)))
                assert client.ask((b"SET", own, value), (b"GET", own)) == [b"OK", value]
                asked += 2
                if turn > QUERIES // CLIENTS // 8:
                    halfway.set()
            client.close()
        except BaseException as error:
            errors.append(error)
            halfway.set()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    assert halfway.wait(30)
    for _ in range(2):
        reload(one)
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert asked == QUERIES
    one.settled(2)
    assert {line["reason"] for line in lines(one, CLIENTS)} == {""}


def test_a_long_stream_lives_on_in_the_old_worker(gateway: Start) -> None:
    with Talker() as talker:
        one = gateway(settings(talker.address))
        chance = random.Random(1)
        sent, heard = hashlib.sha256(), hashlib.sha256()
        with connect(one.address("tcp")) as sock:

            def talk(size: int) -> None:
                data = chance.randbytes(size)
                sent.update(data)
                sock.sendall(data)
                left = size
                while left:
                    piece = sock.recv(left)
                    assert piece
                    heard.update(piece)
                    left -= len(piece)

            talk(30_000)
            reload(one)
            for _ in range(50):
                talk(30_000)
            status = one.status()
            assert status["tunnels"] == {"tcp": 1}
            assert {(two["generation"], two["state"]): two["tunnels"] for two in status["workers"]} == {
                (1, "draining"): {"tcp": 1},
                (2, "ready"): {},
            }
            assert f"tcp on {one.address('tcp')} (1 tunnels)" in cli._table(status)
            assert open_tunnels(one) == 1
            assert sent.digest() == heard.digest()
        one.settled(1)
        assert open_tunnels(one) == 0
        [line] = lines(one, 1)
        assert (line["bytes_in"], line["bytes_out"], line["reason"]) == (51 * 30_000, 51 * 30_000, "")
        assert (line["listener"], line["client"], line["endpoint"]) == ("tcp", "127.0.0.1", talker.address)
        numbers = Metrics(one.admin)
        assert numbers("gateway_sessions_total", listener="tcp") == 1
        assert numbers("gateway_session_bytes_in_total", listener="tcp") == 51 * 30_000
        assert numbers("gateway_session_endings_total", listener="tcp", reason="") == 1


@pytest.mark.parametrize(
    "how", [{"drain": "1s"}, {"drain": "60s", "on_reload": "close"}], ids=["when the drain ends", "at once"]
)
def test_a_reload_ends_tunnels(gateway: Start, how: dict[str, Any]) -> None:
    with Talker() as talker:
        one = gateway(settings(talker.address, **how))
        with connect(one.address("tcp")) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            reload(one)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        one.settled(1)
        assert [line["reason"] for line in lines(one, 1)] == ["drain_timeout"]


def test_connections_of_one_client_are_counted_over_all_workers(gateway: Start) -> None:
    """Also when a worker is killed: what it had counts no more."""
    most = 6
    with Talker(b"hello") as talker:
        one = gateway(settings(talker.address, workers=2, max_connections_per_client=most))
        address = one.address("tcp")
        with contextlib.ExitStack() as stack:

            def greeted() -> bool:
                sock = stack.enter_context(connect(address))
                with contextlib.suppress(ConnectionResetError):
                    return sock.recv(5) == b"hello"
                return False

            def spread() -> list[int]:
                return [worker.connections for worker in one.workers()]

            assert all(greeted() for _ in range(most))
            assert not greeted() and not greeted()
            eventually(lambda: sum(spread()) == most)
            busiest = max(one.workers(), key=lambda worker: worker.connections)
            os.kill(busiest.pid, signal.SIGKILL)
            eventually(lambda: len(one.workers()) == 2 and busiest.pid not in one.pids())
            assert all(greeted() for _ in range(busiest.connections))
            assert not greeted()
        refused = [line for line in lines(one, 3) if line["reason"] == "connection_limit_reached"]
        assert {line["endpoint"] for line in refused} == {""}


def test_tls_goes_by_its_name(gateway: Start) -> None:
    """A browser's handshake reaches the origin that has the certificate; other protocols go where they always went."""
    authority = trustme.CA()

    def context(*names: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(made)
        return made

    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with Talker(b"a", context("a.example")) as a, Talker(b"b", context("*.b.example")) as b, Talker(b"ssh") as plain:
        routes = "".join(
            f'[[tcp_routes]]\nname = "{name}"\nsni = ["{sni}"]\nupstream = "{name}"\n'
            f'[upstreams.{name}]\nendpoints = ["{origin.address}"]\n'
            for name, sni, origin in (("a", "a.example", a), ("b", "*.b.example", b))
        )
        one = gateway(settings(plain.address, more=routes))
        address = one.address("tcp")
        for name, answer in (("a.example", b"a"), ("x.b.example", b"b")):
            with connect(address) as sock, trusting.wrap_socket(sock, server_hostname=name) as tls:
                assert tls.recv(1) == answer
                tls.sendall(b"again")
                assert tls.recv(5) == b"again"
        with connect(address) as sock:
            sock.sendall(b"SSH-2.0-x\r\n")
            assert sock.recv(3) == b"ssh"
        found = {line["sni"]: line["endpoint"] for line in lines(one, 3)}
        assert found == {"a.example": a.address, "x.b.example": b.address, "": plain.address}


def test_an_upgraded_connection_ends_with_the_reload_if_it_shall(gateway: Start) -> None:
    """`on_reload` is for HTTP listeners as well."""
    http = '\n[[listeners]]\nname = "web"\nlisten = "127.0.0.1:0"\non_reload = "close"\n'
    http += '[[routes]]\nname = "r"\nupstream = "db"\n'
    fields = b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as origin:
        one = gateway(settings(f"127.0.0.1:{origin.getsockname()[1]}", drain="60s", more=http))
        with connect(one.address("web")) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: a.example\r\n" + fields)
            server, _ = origin.accept()
            with server:
                heard = b""
                while not heard.endswith(b"\r\n\r\n"):
                    heard += server.recv(1 << 16)
                server.sendall(b"HTTP/1.1 101 Switching Protocols\r\n" + fields)
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 101")
                reload(one)
                for side in (client, server):
                    with pytest.raises(ConnectionResetError):
                        side.recv(1)
        one.settled(1)
        [line] = lines(one, 1)
        assert (line["status"], line["reason"]) == (101, "drain_timeout")
