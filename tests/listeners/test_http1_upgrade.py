"""Switching protocols: the handshake, and then bytes that nobody reads."""

from __future__ import annotations

import asyncio

import pytest

from tests.listeners.site import Site, get, until
from tests.upstream.peer import Origin, Peer, always, live, ok

ASKED = b"connection: Upgrade\r\nupgrade: WebSocket\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-A: b\r\n\r\n"


async def echo(peer: Peer) -> None:
    """An origin that switches and then says everything again."""
    head = await peer.head()
    assert (head[b"connection"], head[b"upgrade"]) == (b"upgrade", b"WebSocket")
    await peer.send(SWITCHED)
    while data := await peer.reader.read(1 << 16):
        await peer.send(data)


@live
async def test_bytes_go_both_ways_until_both_have_ended() -> None:
    async with Origin(echo) as origin, Site(origin) as site:
        client = await site.client(get(b"/chat", ASKED) + b"early ")
        head = await client.head()
        assert head.start == b"HTTP/1.1 101 Switching Protocols"
        assert (head[b"connection"], head[b"upgrade"], head[b"x-a"]) == (b"upgrade", b"websocket", b"b")
        assert site.cells[site.entry.tunnels_cell] == 1
        await client.send(b"\x00\xff")
        assert await client.reader.readexactly(8) == b"early \x00\xff"
        client.writer.write_eof()
        assert await client.ends() == b""
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (101, "")
        assert (exchange.bytes_in, exchange.bytes_out) == (8, 8)
        assert site.cells[site.entry.tunnels_cell] == 0


@live
async def test_an_end_on_one_side_leaves_the_other_open() -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCHED + b"hello")
        peer.writer.write_eof()
        heard.append(await peer.ends())

    heard: list[bytes] = []
    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get(b"/", ASKED))
        await client.head()
        assert await client.ends() == b"hello"
        await client.send(b"still here")
        client.writer.write_eof()
        await site.exchange()
        await until(lambda: heard == [b"still here"])


@pytest.mark.parametrize("who", ["client", "origin"])
@live
async def test_a_reset_stays_a_reset(who: str) -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCHED)
        if who == "origin":
            await peer.reader.readexactly(2)
            peer.reset()
        else:
            with pytest.raises(ConnectionError):
                await peer.reader.read()
            seen.set()

    seen = asyncio.Event()
    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get(b"/", ASKED))
        await client.head()
        await client.send(b"go")
        if who == "client":
            client.reset()
            await seen.wait()
        else:
            with pytest.raises(ConnectionError):
                await client.reader.read()
        assert (await site.exchange()).reason == "tunnel_reset"


@live
async def test_nothing_for_too_long_ends_a_tunnel() -> None:
    timeouts = {"tunnel_idle": "300ms"}
    async with Origin(echo) as origin, Site(origin, upstream={"timeouts": timeouts}) as site:
        client = await site.client(get(b"/", ASKED))
        await client.head()
        for _ in range(8):
            await client.send(b"x")
            assert await client.reader.readexactly(1) == b"x"
            await asyncio.sleep(0.1)
        assert await client.ends() == b""
        exchange = await site.exchange()
        assert (exchange.reason, exchange.bytes_in) == ("tunnel_idle_timeout", 8)
        assert site.well


@live
async def test_who_does_not_read_is_waited_for() -> None:
    sent = 0

    async def handler(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(SWITCHED)
        while sent < size:
            await peer.send(bytes(64 * 1024))
            sent += 64 * 1024
        peer.writer.write_eof()
        await peer.ends()

    size = 64 * 1024 * 1024
    async with Origin(handler) as origin, Site(origin, send_buffer=64 * 1024) as site:
        client = await site.client(get(b"/", ASKED), receive_buffer=64 * 1024, limit=64 * 1024)
        await client.head()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < size // 2
        assert len(await client.ends()) == size


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket, other\r\n\r\n",
    ],
)
@live
async def test_a_protocol_that_was_not_asked_for(answer: bytes) -> None:
    async with Origin(always(answer)) as origin, Site(origin) as site:
        response = await site.ask(get(b"/", ASKED))
        assert response.status == 502 and b"http_upgrade_failed" in response[b"proxy-status"]


@live
async def test_a_switch_that_nobody_asked_for() -> None:
    async with Origin(always(SWITCHED)) as origin, Site(origin) as site:
        response = await site.ask(get())
        assert response.status == 502 and b"http_protocol_error" in response[b"proxy-status"]


@pytest.mark.parametrize(
    ("route", "request_head"),
    [
        ({"upgrade": []}, get(b"/", ASKED)),
        ({"upgrade": ["other"]}, get(b"/", ASKED)),
        ({}, get(b"/", b"connection: upgrade\r\nupgrade: h2c\r\n")),
        ({}, get(b"/", b"upgrade: websocket\r\n")),
        ({}, get(b"/", ASKED + b"content-length: 24\r\n", b"POST") + b"GET /smuggled HTTP/1.1\r\n"),
    ],
)
@live
async def test_an_upgrade_that_is_not_accepted_is_a_plain_request(
    route: dict[str, object], request_head: bytes
) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            request = await peer.request()
            assert b"upgrade" not in request and b"connection" not in request
            await peer.send(ok(request.start + b" " + request.body))

    routes = [{"name": "app", "upstream": "app", **route}]
    async with Origin(handler) as origin, Site(origin, routes=routes) as site:
        client = await site.client(request_head + get(b"/next"))
        assert (await client.response()).status == 200
        assert b"/next" in (await client.response()).body


@live
async def test_an_upgrade_that_the_origin_declines() -> None:
    async with Origin(always(ok(b"plain"))) as origin, Site(origin) as site:
        client = await site.client(get(b"/", ASKED) + get(b"/2"))
        assert (await client.response()).body == b"plain"
        assert (await client.response()).body == b"plain"


@live
async def test_a_protocol_that_is_required_is_named() -> None:
    answer = b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade\r\ncontent-length: 0\r\n\r\n"
    async with Origin(always(answer)) as origin, Site(origin) as site:
        response = await site.ask(get())
        assert (response.status, response[b"upgrade"], response[b"connection"]) == (426, b"websocket", b"upgrade")
