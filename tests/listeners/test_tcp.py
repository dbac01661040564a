"""A TCP listener: connections to endpoints, relayed both ways, with every end they can have."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway import proxy_protocol
from gateway.metrics.plan import UPSTREAM_OPENED, UPSTREAM_RETRIES
from gateway.scoreboard import Condition
from gateway.upstream import dial as dialling
from gateway.upstream.dial import Shortage
from tests.listeners.site import until
from tests.listeners.streams import Streams
from tests.support.descriptors import descriptors
from tests.upstream.peer import Origin, Peer, closed_port, dial, live


async def echo(peer: Peer) -> None:
    while data := await peer.reader.read(1 << 16):
        await peer.send(data)


async def silent(peer: Peer) -> None:
    await peer.ends()


def named(name: bytes) -> Any:
    async def handler(peer: Peer) -> None:
        await peer.send(name)
        await peer.ends()

    return handler


def dead() -> str:
    return f"127.0.0.1:{closed_port()}"


# Bytes, and their ends.


@live
async def test_bytes_go_both_ways_until_both_have_ended() -> None:
    async with Origin(echo) as origin, Streams(origin) as site:
        client = await site.client(b"first ")
        assert await client.reader.readexactly(6) == b"first "
        assert site.cells[site.entry.tunnels_cell] == 1
        assert [one.in_flight for one in site.upstream().endpoints] == [1]
        await client.send(b"\0\xff")
        client.writer.write_eof()
        assert await client.ends() == b"\0\xff"
        session = await site.session()
        assert (session.bytes_in, session.bytes_out, session.reason, session.retries) == (8, 8, "", 0)
        assert (session.client, session.upstream, session.endpoint) == ("127.0.0.1", "app", origin.address)
        assert session.port == client.writer.get_extra_info("sockname")[1]
        assert session.connect_time > 0
        assert site.cells[site.entry.accepted_cell] == 1
        assert site.cells[site.plan.block("upstream", "app", origin.address) + UPSTREAM_OPENED] == 1


@live
async def test_a_byte_at_a_time() -> None:
    async with Origin(echo) as origin, Streams(origin) as site:
        client = await site.client()
        for number in range(256):
            await client.send(bytes((number,)))
            assert await client.reader.readexactly(1) == bytes((number,))
        client.writer.write_eof()
        assert await client.ends() == b""
        assert (await site.session()).bytes_out == 256


@live
async def test_who_speaks_first_may_be_the_endpoint() -> None:
    async with Origin(named(b"220 hello\r\n")) as origin, Streams(origin) as site:
        client = await site.client()
        assert await client.reader.readexactly(11) == b"220 hello\r\n"
        client.close()
        assert (await site.session()).reason == ""


@pytest.mark.parametrize("who", ["client", "origin"])
@live
async def test_an_end_on_one_side_leaves_the_other_open(who: str) -> None:
    async def handler(peer: Peer) -> None:
        if who == "origin":
            await peer.send(b"mine")
            peer.writer.write_eof()
            heard.append(await peer.ends())
        else:
            heard.append(await peer.ends())
            await peer.send(b"mine")

    heard: list[bytes] = []
    async with Origin(handler) as origin, Streams(origin) as site:
        client = await site.client()
        if who == "origin":
            assert await client.ends() == b"mine"
            await client.send(b"yours")
            client.writer.write_eof()
        else:
            await client.send(b"yours")
            client.writer.write_eof()
            assert await client.ends() == b"mine"
        session = await site.session()
        await until(lambda: heard == [b"yours"])
        assert (session.bytes_in, session.bytes_out, session.reason) == (5, 4, "")


@pytest.mark.parametrize("who", ["client", "origin"])
@live
async def test_a_reset_stays_a_reset(who: str) -> None:
    async def handler(peer: Peer) -> None:
        await peer.reader.readexactly(2)
        if who == "origin":
            peer.reset()
            return
        with pytest.raises(ConnectionResetError):
            await peer.reader.read()
        seen.set()

    seen = asyncio.Event()
    async with Origin(handler) as origin, Streams(origin) as site:
        client = await site.client(b"go")
        if who == "client":
            await until(lambda: origin.accepted)
            client.reset()
            await seen.wait()
        else:
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
        assert (await site.session()).reason == "tunnel_reset"


@live
async def test_a_reset_behind_a_half_close_is_passed_on() -> None:
    async def handler(peer: Peer) -> None:
        assert await peer.ends() == b"go"
        with pytest.raises(ConnectionResetError):
            while True:
                await peer.send(bytes(1 << 16))
        seen.set()

    seen = asyncio.Event()
    async with Origin(handler) as origin, Streams(origin) as site:
        client = await site.client(b"go")
        client.writer.write_eof()
        await client.reader.readexactly(1 << 16)
        client.reset()
        await seen.wait()
        assert (await site.session()).reason == "tunnel_reset"


@pytest.mark.parametrize("who", ["client", "origin"])
@live
async def test_who_does_not_read_is_waited_for(who: str) -> None:
    sent = 0
    size = 48 << 20
    heard: list[int] = []

    async def fill(peer: Peer) -> None:
        nonlocal sent
        while sent < size:
            await peer.send(bytes(1 << 16))
            sent += 1 << 16
        peer.writer.write_eof()

    async def handler(peer: Peer) -> None:
        if who == "client":
            await fill(peer)
            await peer.ends()
        else:
            hold(peer)
            await go.wait()
            hold(peer, False)
            heard.append(len(await peer.ends()))

    go = asyncio.Event()
    before = memory()
    async with Origin(handler) as origin, Streams(origin, send_buffer=1 << 16) as site:
        client = await site.client(receive_buffer=1 << 16, limit=1 << 16)
        filling = asyncio.ensure_future(fill(client)) if who == "origin" else None
        stood = -1
        while stood != sent:
            stood = sent
            await asyncio.sleep(0.15)
        assert sent < size * 2 // 3
        assert memory() - before < 24 << 20
        go.set()
        if filling is not None:
            await filling
        heard.append(len(await client.ends()))
        client.close()
        await site.session()
        await until(lambda: size in heard)


def hold(peer: Peer, stop: bool = True) -> None:
    """Read nothing of a connection; or go on."""
    transport: Any = peer.writer.transport
    if stop:
        transport.pause_reading()
    else:
        transport.resume_reading()


def memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Which endpoint.


@live
async def test_who_refuses_is_passed_over() -> None:
    gone = dead()
    async with Origin(named(b"here")) as origin, Streams(gone, origin) as site:
        for _ in range(4):
            client = await site.client(b"x")
            assert await client.reader.readexactly(4) == b"here"
            client.close()
        sessions = [await site.session() for _ in range(4)]
        assert {session.endpoint for session in sessions} == {origin.address}
        retries = sum(session.retries for session in sessions)
        assert retries >= 1
        assert site.cells[site.plan.block("upstream", "app", gone) + UPSTREAM_RETRIES] == retries


@live
async def test_connect_failures_feed_health() -> None:
    gone = dead()
    upstream = {"outlier": {"consecutive_failures": 2, "eject_for": "60s"}}
    async with Origin(named(b"here")) as origin, Streams(gone, origin, upstream=upstream) as site:
        while site.condition(gone) is Condition.UP:
            client = await site.client()
            assert await client.reader.readexactly(4) == b"here"
            client.close()
            await site.session()
        assert site.condition(gone) is Condition.EJECTED
        client = await site.client()
        assert await client.reader.readexactly(4) == b"here"
        client.close()
        assert (await site.session()).retries == 0


@live
async def test_every_endpoint_is_tried_once() -> None:
    async with Streams(dead(), dead(), dead()) as site:
        client = await site.client(b"lost")
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
        session = await site.session()
        assert (session.reason, session.retries) == ("connection_refused", 3)


@live
async def test_nothing_was_lost_of_who_has_sent_nothing() -> None:
    async with Streams(dead()) as site:
        client = await site.client()
        assert await client.reader.read() == b""
        assert (await site.session()).reason == "connection_refused"


@live
async def test_an_endpoint_that_does_not_answer() -> None:
    """Its queue is full: the kernel lets connections to it wait."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        full = [socket.socket() for _ in range(2)]
        for one in full:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(deaf.getsockname())
        timeouts = {"connect": "200ms"}
        async with Origin(named(b"here")) as origin:
            async with Streams(address, upstream={"timeouts": timeouts}) as site:
                client = await site.client()
                assert await client.ends() == b""
                assert (await site.session()).reason == "connection_timeout"
            async with Streams(address, origin, upstream={"timeouts": timeouts}) as site:
                clients = [await site.client() for _ in range(2)]
                for client in clients:
                    assert await client.reader.readexactly(4) == b"here"
                    client.close()
                assert sorted([(await site.session()).retries for _ in clients]) == [0, 1]
            timeouts = {"connect": "1h", "total": "200ms"}
            async with Streams(
                address, address.replace("127.0.0.1", "localhost"), upstream={"timeouts": timeouts}
            ) as site:
                client = await site.client()  # for both of them together, and the first takes all of it
                assert await client.ends() == b""
                session = await site.session()
                assert (session.reason, session.retries) == ("connection_timeout", 0)
        for one in full:
            one.close()


@live
async def test_in_flight_are_connections() -> None:
    one, two = Origin(named(b"a")), Origin(named(b"b"))
    async with one, two, Streams(one, two, upstream={"balance": "least_requests"}) as site:
        clients = [await site.client() for _ in range(6)]
        said = [await client.reader.readexactly(1) for client in clients]
        assert sorted(said) == [b"a"] * 3 + [b"b"] * 3
        assert [endpoint.in_flight for endpoint in site.upstream().endpoints] == [3, 3]
        leaving = [client for client, name in zip(clients, said, strict=True) if name == b"a"]
        for client in leaving:
            client.close()
            await site.session()
        for _ in range(3):
            client = await site.client()
            assert await client.reader.readexactly(1) == b"a"
            clients.append(client)
        for client in clients:
            client.close()
        for _ in range(6):
            await site.session()


@live
async def test_a_client_keeps_its_endpoint_where_it_is_hashed() -> None:
    async with Origin(named(b"a")) as one, Origin(named(b"b")) as two:
        hashed = {"balance": "consistent_hash", "hash_key": "client_ip"}
        heard: dict[str, set[bytes]] = {}
        for number in range(24):  # that all go to one of two ports by chance: 1 in 8 million
            address = f"192.0.2.{number}"
            async with Streams(one, two, upstream=hashed, told=proxy_protocol.Header((address, 1), None)) as site:
                for _ in range(3):
                    client = await site.client()
                    heard.setdefault(address, set()).add(await client.reader.readexactly(1))
                    client.close()
                    assert (await site.session()).client == address
        assert {len(names) for names in heard.values()} == {1}
        assert len(set.union(*heard.values())) == 2


@live
async def test_the_most_connections_of_an_upstream() -> None:
    async with Origin(named(b"x")) as origin, Streams(origin, upstream={"max_requests": 1}) as site:
        first = await site.client()
        await first.reader.readexactly(1)
        second = await site.client()
        assert await second.ends() == b""
        assert (await site.session()).reason == "upstream_busy"
        first.close()
        await site.session()


@live
async def test_waiting_in_line_for_room() -> None:
    upstream = {"max_requests": 1, "queue": {"size": 1, "timeout": "10s"}}
    async with Origin(named(b"x")) as origin, Streams(origin, upstream=upstream) as site:
        first = await site.client()
        await first.reader.readexactly(1)
        second = await site.client(b"waiting")
        await until(lambda: len(site.state.tasks) == 2)
        first.close()
        assert await second.reader.readexactly(1) == b"x"
        second.close()
        await site.session()
        assert (await site.session()).bytes_in == 7


@live
async def test_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    shortage = Shortage()
    monkeypatch.setattr(dialling, "_descriptors", shortage)
    async with Origin(echo) as origin, Streams(origin) as site:
        shortage.begin(os.strerror(errno.EMFILE))
        client = await site.client()
        assert await client.ends() == b""
        assert (await site.session()).reason == "descriptors_exhausted"
        assert site.condition(origin) is Condition.UP


@pytest.mark.parametrize("data", [b"", b"some"])
@live
async def test_a_client_that_goes_while_it_is_connected(data: bytes) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        full = [socket.socket() for _ in range(2)]
        for one in full:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(deaf.getsockname())
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        timeouts = {"connect": "300ms"}
        async with Streams(address, dead(), upstream={"timeouts": timeouts}) as site:
            left = []
            for _ in range(2):  # one of them is sent to the deaf one first
                client = await site.client(data)
                await until(lambda: site.state.tasks or not site.told.empty())
                client.reset()
                left.append((await site.session()).reason)
            assert "client_gone" in left
            await until(lambda: not site.state.tasks)
        for one in full:
            one.close()


@live
async def test_what_is_sent_early_waits() -> None:
    """Before there is an endpoint no more is read than comes with the first look."""
    upstream = {"max_requests": 1, "queue": {"size": 1, "timeout": "10s"}}
    size = 32 << 20
    sent = 0
    heard: list[int] = []

    async def handler(peer: Peer) -> None:
        await peer.send(b"x")
        heard.append(len(await peer.ends()))

    async def fill(peer: Peer) -> None:
        nonlocal sent
        while sent < size:
            await peer.send(bytes(1 << 16))
            sent += 1 << 16
        peer.writer.write_eof()

    async with Origin(handler) as origin, Streams(origin, upstream=upstream) as site:
        first = await site.client()
        await first.reader.readexactly(1)
        second = await site.client()
        filling = asyncio.ensure_future(fill(second))
        stood = -1
        while stood != sent:
            stood = sent
            await asyncio.sleep(0.1)
        assert sent < size
        assert all(len(one._rest) <= 1 << 20 for one in site.entry.connections)
        first.close()
        await filling
        await second.ends()
        await site.session()
        assert (await site.session()).bytes_in == size
        await until(lambda: size in heard)


@live
async def test_what_an_endpoint_is_told_of_the_client() -> None:
    async def handler(peer: Peer) -> None:
        heard.append(await peer.ends())

    heard: list[bytes] = []
    for version, write in (("v1", proxy_protocol.v1), ("v2", proxy_protocol.v2)):
        heard.clear()
        async with Origin(handler) as origin, Streams(origin, proxy_protocol={"send": version}) as site:
            client = await site.client(b"hello")
            client.writer.write_eof()
            await client.ends()
            session = await site.session()
            header = write(client.writer.get_extra_info("sockname"), ("127.0.0.1", site.port))
            await until(lambda: heard)
            assert heard == [header + b"hello"]
            assert (session.bytes_in, session.client) == (5, "127.0.0.1")


@live
async def test_a_client_that_another_proxy_has_named() -> None:
    async def handler(peer: Peer) -> None:
        heard.append(await peer.ends())

    heard: list[bytes] = []
    named = proxy_protocol.Header(("::ffff:192.0.2.7", 4711), ("192.0.2.1", 80))
    async with Origin(handler) as origin, Streams(origin, told=named, proxy_protocol={"send": "v1"}) as site:
        client = await site.client(b"hello")
        client.writer.write_eof()
        await client.ends()
        session = await site.session()
        assert (session.client, session.port) == ("192.0.2.7", 4711)
        await until(lambda: heard)
        assert heard == [b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nhello"]  # also where it was meant to go


# Bounds.


@live
async def test_nothing_for_too_long() -> None:
    async with Origin(echo) as origin, Streams(origin, idle_timeout="300ms") as site:
        client = await site.client()
        for _ in range(6):
            await client.send(b"x")
            assert await client.reader.readexactly(1) == b"x"
            await asyncio.sleep(0.1)
        assert await client.reader.read() == b""
        session = await site.session()
        assert (session.reason, session.bytes_in) == ("tunnel_idle_timeout", 6)
        assert site.condition(origin) is Condition.UP


@live
async def test_the_longest_time() -> None:
    async with Origin(echo) as origin, Streams(origin, max_duration="200ms") as site:
        client = await site.client(b"x")
        assert await client.reader.readexactly(1) == b"x"
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
        assert (await site.session()).reason == "tunnel_too_long"


@pytest.mark.parametrize("way", ["in", "out"])
@live
async def test_the_bandwidth(way: str) -> None:
    """Whatever the machine does, no more comes through than the time allows; and it does come through."""
    rate, size = 400_000, 160_000

    async def handler(peer: Peer) -> None:
        if way == "in":
            count = 0
            while data := await peer.reader.read(1 << 16):
                count += len(data)
                arrived(count)
            await peer.send(b"done")
        else:
            await peer.send(bytes(size))

    def arrived(count: int) -> None:
        assert count <= rate * (loop.time() - began + 0.15)

    loop = asyncio.get_running_loop()
    began = loop.time()
    async with Origin(handler) as origin, Streams(origin, bandwidth=f"{rate}B/s") as site:
        client = await site.client()
        if way == "in":
            await client.send(bytes(size))
            client.writer.write_eof()
            assert await client.ends() == b"done"
            assert (await site.session()).bytes_in == size
        else:
            count = 0
            while data := await client.reader.read(1 << 16):
                count += len(data)
                arrived(count)
            client.close()
            assert count == size
            session = await site.session()
            assert (session.bytes_out, session.reason) == (size, "")
        assert loop.time() - began > size / rate - 0.15


@live
async def test_a_client_that_is_held_back_and_goes() -> None:
    async with Origin(silent) as origin, Streams(origin, bandwidth="1KiB/s") as site:
        client = await site.client(bytes(1 << 20))
        await until(lambda: site.cells[site.entry.tunnels_cell])
        client.reset()
        assert (await site.session()).reason == "tunnel_reset"


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_client"])
@live
async def test_no_more_than_the_listener_takes(limit: str) -> None:
    keys: dict[str, Any] = {limit: 2}
    async with Origin(echo) as origin, Streams(origin, **keys) as site:
        clients = [await site.client(b"x") for _ in range(2)]
        for client in clients:
            assert await client.reader.readexactly(1) == b"x"
        third = await site.client()
        assert await third.ends() == b""
        session = await site.session()
        assert (session.reason, session.upstream) == ("connection_limit_reached", "")
        clients[0].close()
        await site.session()
        fourth = await site.client(b"y")
        assert await fourth.reader.readexactly(1) == b"y"
        for client in (clients[1], fourth):
            client.close()
            await site.session()


# Leaving.


@live
async def test_tunnels_live_on_to_the_end_of_the_drain() -> None:
    async with Origin(echo) as origin, Streams(origin) as site:
        client = await site.client(b"x")
        assert await client.reader.readexactly(1) == b"x"
        site.drain()
        await client.send(b"y")
        assert await client.reader.readexactly(1) == b"y"
        site.abort()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
        session = await site.session()
        assert (session.reason, session.bytes_in) == ("drain_timeout", 2)


@live
async def test_the_endpoint_sees_the_reset_as_well() -> None:
    async def handler(peer: Peer) -> None:
        await peer.reader.readexactly(1)
        up.set()
        with pytest.raises(ConnectionResetError):
            await peer.reader.read()
        seen.set()

    up, seen = asyncio.Event(), asyncio.Event()
    async with Origin(handler) as origin, Streams(origin) as site:
        await site.client(b"x")
        await up.wait()
        site.abort()
        assert (await site.session()).reason == "drain_timeout"
        await seen.wait()


@live
async def test_who_has_not_said_where_to_go_is_closed_in_a_drain() -> None:
    routes = [{"name": "tls", "sni": ["*.example.com"], "upstream": "app"}]
    async with Origin(echo) as origin, Streams(origin, routes=routes) as site:
        client = await site.client()
        await until(lambda: site.entry.connections)
        site.drain()
        [connection] = site.entry.connections
        assert connection.close_if_idle()
        assert await client.reader.read() == b""
        assert (await site.session()).reason == "drain_timeout"


@live
async def test_a_reload_may_close_them_at_once() -> None:
    async with Origin(echo) as origin, Streams(origin, on_reload="close") as site:
        client = await site.client(b"x")
        assert await client.reader.readexactly(1) == b"x"
        site.drain()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
        assert (await site.session()).reason == "drain_timeout"


@live
async def test_the_drain_ends_while_it_is_connected() -> None:
    upstream = {"max_requests": 1, "queue": {"size": 1, "timeout": "10s"}}
    async with Origin(named(b"x")) as origin, Streams(origin, upstream=upstream) as site:
        first = await site.client()
        await first.reader.readexactly(1)
        second = await site.client()
        await until(lambda: len(site.state.tasks) == 2)
        site.abort()
        for client in (first, second):
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
        assert {(await site.session()).reason for _ in range(2)} == {"drain_timeout"}


@live
async def test_ten_at_once_and_nothing_is_left() -> None:
    """Resets, ends and half-ends in any order; `Streams` looks for what is left."""
    async with Origin(echo) as origin, Streams(origin) as site:
        before = descriptors()
        for round_ in range(3):
            clients = [await dial(site.port) for _ in range(10)]
            for number, client in enumerate(clients):
                await client.send(bytes(1000 * number))
                match (number + round_) % 4:
                    case 0:
                        client.reset()
                    case 1:
                        client.close()
                    case 2:
                        client.writer.write_eof()
                        assert len(await client.ends()) == 1000 * number
                        client.close()
                    case 3:
                        await client.reader.readexactly(1000 * number)
                        client.reset()
            for _ in clients:
                await site.session()
        await until(lambda: descriptors() <= before)
