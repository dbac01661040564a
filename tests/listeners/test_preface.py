"""PROXY headers on real connections: who is believed, who is cut, and nothing is lost on the way to what is spoken."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from gateway.listeners.identity import Trust
from gateway.listeners.preface import Expected, Preface
from gateway.proxy_protocol import Address, Header, v1, v2
from tests.listeners.site import Site, get, post, until
from tests.upstream.peer import Message, Origin, Peer, dial, live, noting, ok

TOLD = ("192.0.2.7", 4711)
HERE = ("198.51.100.1", 443)
V1 = v1(TOLD, HERE)
V2 = v2(TOLD, HERE)
LOCAL = v2(None, None)
NOBODY = "203.0.113.0/24"  # nobody of these ever connects


def rules(accept: str, source: str = "127.0.0.0/8", timeout: str = "60s") -> dict[str, Any]:
    return {"accept": accept, "from": [source], "timeout": timeout}


def lone(site: Site) -> Preface:
    """The one connection that waits for its header."""
    [connection] = site.entry.connections
    assert isinstance(connection, Preface)
    return connection


async def waiting(site: Site, connections: int = 1) -> None:
    await until(lambda: len(site.entry.connections) == connections)


def accepted(site: Site) -> int:
    return int(site.cells[site.entry.accepted_cell])


async def cut(site: Site, client: Peer, reason: str, status: int) -> None:
    """It is reset, and told once why, with the address of its own."""
    with pytest.raises(ConnectionResetError):
        await client.reader.read()
    exchange = await site.exchange()
    assert (exchange.reason, exchange.status, exchange.client) == (reason, status, "127.0.0.1")
    assert site.told.empty() and accepted(site) == 1
    await until(lambda: not site.entry.connections and not site.state.connections)


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize("accept", ["optional", "require"])
@pytest.mark.parametrize(
    ("header", "client"),
    [
        (V1, "192.0.2.7"),
        (V2, "192.0.2.7"),
        (v2(TOLD, HERE, is_udp=True), "192.0.2.7"),
        (v2(("2001:db8::7", 1), ("::1", 2)), "2001:db8::7"),
        (v1(("::ffff:192.0.2.7", 1), ("::1", 2)), "192.0.2.7"),
        (LOCAL, "127.0.0.1"),
        (b"PROXY UNKNOWN what nobody reads\r\n", "127.0.0.1"),
    ],
)
@live
async def test_the_client_is_who_the_header_says(header: bytes, client: str, accept: str, piece: int) -> None:
    seen: list[Message] = []
    async with (
        Origin(noting(seen, lambda request: ok(request.body))) as origin,
        Site(origin, proxy_protocol=rules(accept)) as site,
    ):
        data = header + post(b"body") + get()
        peer = await site.client()
        for start in range(0, len(data), piece):
            await peer.send(data[start : start + piece])
            await asyncio.sleep(0)
        assert [(await peer.response()).body for _ in range(2)] == [b"body", b""]
        assert [request[b"x-forwarded-for"] for request in seen] == [client.encode()] * 2
        assert {(await site.exchange()).client for _ in range(2)} == {client}
        assert accepted(site) == 1 == site.entry.prefaces
        [connection] = site.entry.connections
        assert (connection.scope["client"][0] == client) and not isinstance(connection, Preface)
        if header in (V1, V2):
            assert connection.scope["client"] == TOLD


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "data", [get(), post(b"body"), get(method=b"PROPFIND"), get(method=b"PROXYS"), b"\r\n" + get()]
)
@live
async def test_an_optional_header_may_be_missing(data: bytes, at_once: bool) -> None:
    seen: list[Message] = []
    async with (
        Origin(noting(seen, lambda request: ok())) as origin,
        Site(origin, proxy_protocol=rules("optional")) as site,
    ):
        client = await site.client()
        for start in range(0, len(data), len(data) if at_once else 1):
            await client.send(data[start : start + (len(data) if at_once else 1)])
            await asyncio.sleep(0)
        assert (await client.response()).status == 200
        assert seen[0][b"x-forwarded-for"] == b"127.0.0.1" and accepted(site) == 1


@live
async def test_who_is_not_believed_is_served_by_its_own_address() -> None:
    """What it sends is a request or none; a header is none."""
    seen: list[Message] = []
    async with (
        Origin(noting(seen, lambda request: ok())) as origin,
        Site(origin, proxy_protocol=rules("optional", NOBODY)) as site,
    ):
        assert (await site.ask(get())).status == 200
        assert seen[0][b"x-forwarded-for"] == b"127.0.0.1"
        assert (await site.ask(V1 + get())).status == 400
        client = await site.client()
        await waiting(site, 2)
        assert site.entry.prefaces == 0, "it does not wait for anything"
        client.close()


@live
async def test_who_is_not_believed_is_cut_where_a_header_is_required() -> None:
    async with Site("127.0.0.1:9", proxy_protocol=rules("require", NOBODY)) as site:
        await cut(site, await site.client(), "proxy_peer_not_trusted", 403)


@pytest.mark.parametrize(
    ("reason", "accept", "data"),
    [
        ("proxy_header_missing", "require", get()),
        ("proxy_header_missing", "require", b"PROXI"),
        ("proxy_header_missing", "require", b"\r\n\r\n\0\r\nQUIT\r"),
        ("proxy_header_malformed", "require", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"),
        ("proxy_header_malformed", "optional", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n" + get()),
        ("proxy_header_malformed", "optional", V1[:-2] + b"\n" + get()),
        ("proxy_header_malformed", "optional", V2[:12] + b"\x31" + V2[13:] + get()),
        ("proxy_header_malformed", "require", V2[:14] + b"\xff\xff" + V2[16:]),
    ],
)
@live
async def test_what_is_cut(reason: str, accept: str, data: bytes) -> None:
    async with Site("127.0.0.1:9", proxy_protocol=rules(accept)) as site:
        await cut(site, await site.client(data), reason, 400)


@pytest.mark.parametrize(
    ("accept", "data"), [("require", b""), ("require", V1[:-1]), ("optional", V1[:10]), ("optional", V2[:12])]
)
@live
async def test_a_header_that_takes_too_long(accept: str, data: bytes) -> None:
    async with Site("127.0.0.1:9", proxy_protocol=rules(accept, timeout="50ms")) as site:
        await cut(site, await site.client(data), "proxy_header_timeout", 408)


@pytest.mark.parametrize(("data", "rest"), [(b"", get()), (b"P", get(method=b"OST")), (b"\r\n", get())])
@live
async def test_who_waits_has_no_header_where_it_is_optional(data: bytes, rest: bytes) -> None:
    seen: list[Message] = []
    async with (
        Origin(noting(seen, lambda request: ok())) as origin,
        Site(origin, proxy_protocol=rules("optional", timeout="50ms")) as site,
    ):
        client = await site.client(data)
        await until(lambda: accepted(site))
        await client.send(rest)
        assert (await client.response()).status == 200
        assert seen[0][b"x-forwarded-for"] == b"127.0.0.1"


@pytest.mark.parametrize("accept", ["optional", "require"])
@live
async def test_who_only_looks_whether_we_are_there(accept: str) -> None:
    """As balancers do that connect and close. That is nothing to tell."""
    async with Site("127.0.0.1:9", proxy_protocol=rules(accept)) as site:
        client = await site.client()
        await waiting(site)
        client.close()
        await waiting(site, 0)
        client = await site.client(V1[:-1])
        await waiting(site)
        client.reset()
        await waiting(site, 0)
        assert site.told.empty() and accepted(site) == 2


@pytest.mark.parametrize(("accept", "data"), [("require", b"P"), ("require", V2[:-1]), ("optional", V1[:-1])])
@live
async def test_a_header_that_ends_in_the_middle(accept: str, data: bytes) -> None:
    async with Site("127.0.0.1:9", proxy_protocol=rules(accept)) as site:
        client = await site.client(data)
        client.writer.write_eof()
        await cut(site, client, "proxy_header_malformed", 400)


# Who is asked about a client asks about the one that was told.


@pytest.mark.parametrize(
    ("told", "trusted", "client", "listed"),
    [
        ("192.0.2.7", NOBODY, "192.0.2.7", b"192.0.2.7"),
        ("192.0.2.7", "127.0.0.0/8", "192.0.2.7", b"192.0.2.7"),
        ("203.0.113.5", NOBODY, "10.9.8.7", b"10.9.8.7, 203.0.113.5"),
    ],
)
@live
async def test_whom_x_forwarded_for_is_believed(told: str, trusted: str, client: str, listed: bytes) -> None:
    seen: list[Message] = []
    async with (
        Origin(noting(seen, lambda request: ok())) as origin,
        Site(origin, proxy_protocol=rules("require"), trusted_proxies=[trusted]) as site,
    ):
        await site.ask(v2((told, 1), HERE) + get(fields=b"x-forwarded-for: 10.9.8.7\r\n"))
        assert seen[0][b"x-forwarded-for"] == listed
        assert (await site.exchange()).client == client


@live
async def test_layers_judge_by_the_address_that_was_told() -> None:
    layers: list[dict[str, Any]] = [
        {"kind": "ip_allow", "deny": ["192.0.2.8"]},
        {"kind": "rate_limit", "rate": "1/h", "burst": 1},
    ]
    routes = [{"name": "all", "respond": {"body": "ok"}}]
    async with Site(middleware=layers, routes=routes, proxy_protocol=rules("require")) as site:

        async def status(host: str) -> int:
            return (await site.ask(v1((host, 1), HERE) + get())).status

        assert await status("192.0.2.8") == 403
        assert [await status("192.0.2.7") for _ in range(2)] == [200, 429]
        assert await status("192.0.2.9") == 200


# Room, and the end of a worker.


@live
async def test_one_that_waits_makes_room() -> None:
    routes = [{"name": "all", "respond": {"body": "ok"}}]
    async with Site(routes=routes, proxy_protocol=rules("require"), limits={"connections": 1}) as site:
        idle = await site.client()
        await waiting(site)
        assert lone(site).idle
        client = await site.client(V1 + get())
        assert (await client.response()).status == 200
        assert await idle.ends() == b"", "nobody needed it as much"


@live
async def test_one_that_has_begun_takes_a_place() -> None:
    async with Site("127.0.0.1:9", proxy_protocol=rules("require"), limits={"connections": 1}) as site:
        first = await site.client(V1[:-1])
        await until(lambda: site.entry.connections and not lone(site).idle)
        client = await site.client(V1 + get())
        answer = await client.response()
        assert answer.status == 503 and b"connection_limit_reached" in answer[b"proxy-status"]
        assert await client.ends() == b""
        first.reset()
        await waiting(site, 0)
        assert accepted(site) == 2


@live
async def test_what_the_door_asks_of_one_that_waits() -> None:
    routes = [{"name": "all", "respond": {"body": "ok"}}]
    async with Site(routes=routes, proxy_protocol=rules("require")) as site:
        client = await site.client()
        await waiting(site)
        one = lone(site)
        site.entry.draining = True
        one.drain()
        await client.send(V1[:9])
        await until(lambda: not one.idle)
        assert not one.close_if_idle(), "its header is under way"
        await client.send(V1[9:] + get())
        answer = await client.response()
        assert answer.status == 200 and answer[b"connection"] == b"close"
        assert await client.ends() == b"" and not one.idle

        client = await site.client()
        await waiting(site)
        one = lone(site)
        assert one.close_if_idle() and await client.ends() == b""
        await waiting(site, 0)
        assert not one.close_if_idle()

        client = await site.client(V2[:20])
        await waiting(site)
        lone(site).abort()
        assert await client.ends() == b""
        await waiting(site, 0)
        assert accepted(site) == 3


@live
async def test_who_was_put_on_the_list_of_the_idle_stays_on_it() -> None:
    """A drain lists the connections that there are: one whose header comes later is still closed at its time."""
    routes = [{"name": "all", "respond": {"body": "ok"}}]
    async with Site(routes=routes, proxy_protocol=rules("require")) as site:
        client = await site.client()
        await waiting(site)
        one = lone(site)
        since = one.idle_since
        await client.send(V1 + get())
        await client.response()
        assert one.idle_since != since, "who remembers it as idle since then must find that it is not"
        assert one.close_if_idle() and await client.ends() == b""


# The way to any protocol. This one tells what it was told.


class Inner(asyncio.Protocol):
    def __init__(self, heard: list[Any], closes: bool = False, told: Header | None = None) -> None:
        self._heard = heard
        self._closes = closes
        heard.append(("peer", told and told.source))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._heard.append("made")
        if self._closes:
            transport.abort()

    def drain(self) -> None:
        self._heard.append("drain")

    def data_received(self, data: bytes) -> None:
        self._heard.append(data)

    def eof_received(self) -> bool:
        self._heard.append("eof")
        self._transport.write(b"heard")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._heard.append("lost" if error is None else "reset")


class Behind:
    """A server of that protocol, on TCP or on a unix socket. An async context manager; clients are gone at its end."""

    def __init__(self, accept: str, path: Path | None = None, closes: bool = False) -> None:
        self.heard: list[Any] = []
        self.site = Site(routes=[{"name": "all", "respond": {}}], proxy_protocol=rules(accept))
        self._is_required = accept == "require"
        self._path = path
        self._inner = partial(Inner, self.heard, closes)
        self._clients: list[Peer] = []
        self._server: asyncio.Server

    async def __aenter__(self) -> Behind:
        site = await self.site.__aenter__()
        expected = Expected(Trust(["127.0.0.1", "unix"]), self._is_required, 60.0, self._refused)
        make = partial(Preface, site.entry, expected, site.state, self._inner)
        loop = asyncio.get_running_loop()
        if self._path is None:
            self._server = await loop.create_server(make, "127.0.0.1", 0)
        else:
            self._server = await loop.create_unix_server(make, self._path)
        return self

    def _refused(self, entry: Any, client: str, port: int, started: float, reason: str) -> None:
        self.heard.append((client, port, reason))

    async def client(self, data: bytes = b"") -> Peer:
        if self._path is None:
            peer = await dial(self._server.sockets[0].getsockname()[1])
        else:
            peer = Peer(*await asyncio.open_unix_connection(self._path))
        self._clients.append(peer)
        await peer.send(data)
        return peer

    async def told(self) -> list[Any]:
        """All of one connection, that has ended."""
        await until(lambda: self.heard and self.heard[-1] in ("lost", "reset"))
        heard = self.heard.copy()
        self.heard.clear()
        return heard

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        for client in self._clients:
            client.writer.transport.abort()
        await self.site.__aexit__(kind, error, at)


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("rest", [b"", b"hello"])
@live
async def test_a_half_close_behind_the_header(header: bytes, rest: bytes) -> None:
    async with Behind("require") as behind:
        client = await behind.client(header + rest)
        client.writer.write_eof()
        assert await client.ends() == b"heard"
        assert await behind.told() == [("peer", TOLD), "made", *([rest] if rest else []), "eof", "lost"]


@pytest.mark.parametrize("data", [b"", b"PRO", b"\r\n\r\n"])
@live
async def test_a_half_close_in_place_of_an_optional_header(data: bytes) -> None:
    async with Behind("optional") as behind:
        client = await behind.client(data)
        client.writer.write_eof()
        assert await client.ends() == b"heard"
        assert await behind.told() == [("peer", None), "made", *([data] if data else []), "eof", "lost"]


@live
async def test_a_reset_behind_the_header() -> None:
    async with Behind("require") as behind:
        client = await behind.client(V1)
        await until(lambda: behind.heard)
        client.reset()
        assert await behind.told() == [("peer", TOLD), "made", "reset"]


@live
async def test_one_that_was_told_to_drain_tells_it_on() -> None:
    async with Behind("require") as behind:
        client = await behind.client(V1[:-1])
        await waiting(behind.site)
        lone(behind.site).drain()
        await client.send(V1[-1:] + b"hello")
        client.writer.write_eof()
        assert await behind.told() == [("peer", TOLD), "made", "drain", b"hello", "eof", "lost"]


@pytest.mark.parametrize(("accept", "data", "peer"), [("require", V1 + b"hello", TOLD), ("optional", b"", None)])
@live
async def test_one_that_is_not_wanted_hears_nothing_more(accept: str, data: bytes, peer: Address | None) -> None:
    async with Behind(accept, closes=True) as behind:
        client = await behind.client(data)
        if not data:
            client.writer.write_eof()
        assert await client.ends() == b""
        assert await behind.told() == [("peer", peer), "made", "lost"]


@live
async def test_who_comes_by_a_unix_socket(tmp_path: Path) -> None:
    async with Behind("require", tmp_path / "socket") as behind:
        for data, peer in ((V2, TOLD), (LOCAL, None)):
            client = await behind.client(data + b"hello")
            client.writer.write_eof()
            assert await client.ends() == b"heard"
            assert await behind.told() == [("peer", peer), "made", b"hello", "eof", "lost"]
        client = await behind.client(b"hello")
        assert await client.ends() == b""
        assert behind.heard == [("unix", 0, "proxy_header_missing")]


@live
async def test_wherever_it_is_cut_it_is_the_same_to_what_is_spoken() -> None:
    data = V2 + b"hello"
    async with Behind("require") as behind:
        for at in range(1, len(data)):
            client = await behind.client(data[:at])
            await asyncio.sleep(0)
            await client.send(data[at:])
            client.writer.write_eof()
            assert await client.ends() == b"heard"
            peer, made, *pieces, eof, lost = await behind.told()
            assert (peer, made, b"".join(pieces), eof, lost) == (("peer", TOLD), "made", b"hello", "eof", "lost")
