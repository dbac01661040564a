"""What one client may ask, and how long it is waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.listeners.site import Site, get, post, until
from tests.upstream.peer import Message, Origin, Peer, always, answering, live, ok

_SMALL = {"request_line": "1KiB", "headers": "4KiB", "header_count": 20, "body": "1KiB"}

# More than the sockets hold, handed over in one piece.
_SIZE = 16 << 20
_LARGE = [{"name": "large", "respond": {"body": "x" * _SIZE}}]


def _refusal(response: Message, status: int, reason: bytes) -> None:
    """As every refusal looks: status, reason for people and machines, and the end of the connection."""
    assert response.status == status
    assert response[b"proxy-status"].startswith(b"gateway; error=") and reason in response[b"proxy-status"]
    assert response[b"connection"] == b"close"
    assert reason in response.body
    assert response[b"date"].endswith(b"GMT")


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("status", "reason", "data"),
    [
        (414, b"request_line_too_long", get(b"/" + b"a" * 1024)),
        (414, b"request_line_too_long", get(b"/" + b"a" * 10_000)),
        (414, b"request_line_too_long", b"GET /" + b"a" * 1100 + b" HTTP/1.0\r\n\r\n"),
        (431, b"header_fields_too_large", get(b"/", b"x: " + b"a" * 5000 + b"\r\n")),
        (431, b"header_fields_too_large", get(b"/", b"".join(b"x%d: %0500d\r\n" % (n, n) for n in range(10)))),
        (431, b"too_many_header_fields", get(b"/", b"x: y\r\n" * 30)),
        (413, b"body_too_large", post(bytes(1025))),
        (413, b"body_too_large", get(b"/", b"content-length: 100000000000\r\n", b"POST")),
        (400, b"host_missing", b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"two_framings", get(b"/", b"content-length: 1\r\ntransfer-encoding: chunked\r\n", b"POST")),
        (505, b"version_not_supported", b"GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
        (405, b"target_form_not_served", b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n"),
    ],
)
@live
async def test_beyond_a_limit(at_once: bool, status: int, reason: bytes, data: bytes) -> None:
    async with Origin(always(ok())) as origin, Site(origin, limits=_SMALL) as site:
        client = await site.client()
        for start in range(0, len(data), len(data) if at_once else 512):
            try:
                await client.send(data[start : start + (len(data) if at_once else 512)])
                await asyncio.sleep(0.001)
            except ConnectionError:
                break  # it was refused before we were through
        _refusal(await client.response(), status, reason)
        assert await client.ends() == b""
        assert origin.accepted == 0
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (status, reason.decode())


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "data",
    [
        get(b"/" + b"a" * (1024 - len(b"GET / HTTP/1.1"))),
        get(b"/", b"".join(b"x%d: y\r\n" % n for n in range(19))),
        post(bytes(1024)),
    ],
)
@live
async def test_just_within_a_limit(at_once: bool, data: bytes) -> None:
    async with Origin(always(ok())) as origin, Site(origin, limits=_SMALL) as site:
        client = await site.client(data if at_once else data[:100])
        if not at_once:
            await until(lambda: site.entry.connections)
            await client.send(data[100:])
        assert (await client.response()).status == 200


@live
async def test_the_limit_of_the_fields_counts_also_below_that_of_the_line() -> None:
    limits = {"request_line": "8KiB", "headers": "1KiB"}
    async with Origin(always(ok())) as origin, Site(origin, limits=limits) as site:
        _refusal(await site.ask(get(b"/", b"x: " + b"a" * 4000 + b"\r\n")), 431, b"header_fields_too_large")


@live
async def test_size_is_judged_before_anything_else() -> None:
    """Else whoever sends large heads buys our time with them."""
    lines = b"".join(b"x-%d: y\r\n" % number for number in range(3000))
    async with Origin(always(ok())) as origin, Site(origin) as site:
        response = await site.ask(get(b"/", lines + b"no colon\r\n"))
        assert response.status == 431


@live
async def test_a_chunked_body_beyond_the_limit() -> None:
    async with Origin(always(ok())) as origin, Site(origin, limits=_SMALL) as site:
        client = await site.client(get(b"/", b"transfer-encoding: chunked\r\n", b"POST") + b"200\r\n%0512d\r\n" % 0)
        await until(lambda: origin.accepted)
        await client.send(b"201\r\n%0513d\r\n" % 0)
        _refusal(await client.response(), 413, b"body_too_large")
        assert await client.ends() == b""
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (413, "body_too_large")
        await until(lambda: origin.peers[0].reader.at_eof())
        assert site.well


@live
async def test_a_chunked_body_that_is_none() -> None:
    async with Origin(always(ok())) as origin, Site(origin) as site:
        client = await site.client(get(b"/", b"transfer-encoding: chunked\r\n", b"POST"))
        await until(lambda: origin.accepted)
        await client.send(b"x\r\n")
        _refusal(await client.response(), 400, b"chunk_size_malformed")
        assert await client.ends() == b""


@live
async def test_connections_beyond_the_limit_are_refused() -> None:
    """When none of those that are there is idle."""
    async with Origin(always(ok())) as origin, Site(origin, limits={"connections": 2}) as site:
        first, _ = await site.client(b"GET / HT"), await site.client(b"GET / HT")
        await until(lambda: len(site.entry.connections) == 2 and not any(one.idle for one in site.entry.connections))
        third = await site.client()
        response = await third.response()
        _refusal(response, 503, b"connection_limit_reached")
        assert b"retry-after" in response
        await third.ends()
        first.close()
        await until(lambda: len(site.entry.connections) == 1)
        assert (await site.ask(get())).status == 200


@live
async def test_at_the_limit_the_one_that_is_idle_for_longest_goes() -> None:
    async with Origin(always(ok())) as origin, Site(origin, limits={"connections": 3}) as site:
        clients = [await site.client() for _ in range(3)]
        for client in (clients[1], clients[0], clients[2]):
            await client.send(get())
            assert (await client.response()).status == 200
        await clients[0].send(b"GET /")  # no longer idle
        await until(lambda: sum(not one.idle for one in site.entry.connections) == 1)
        assert (await site.ask(get())).status == 200
        assert await clients[1].ends() == b""
        for client, rest in ((clients[0], b" HTTP/1.1\r\nhost: a\r\n\r\n"), (clients[2], get())):
            await client.send(rest)
            assert (await client.response()).status == 200


@live
async def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    async with Site(limits=_SMALL, routes=[]) as site:
        client = await site.client(get(b"/", b"content-length: 5000000\r\n", b"POST"))
        sending = asyncio.ensure_future(client.send(bytes(1_000_000)))
        assert (await client.response()).status == 413
        await asyncio.gather(sending, return_exceptions=True)


# Deadlines.


@live
async def test_a_head_that_does_not_end() -> None:
    async with Site(timeouts={"head": "200ms"}, routes=[]) as site:
        client = await site.client(b"GET / HTTP/1.1\r\nhost:")
        _refusal(await client.response(), 408, b"request_head_timeout")
        assert await client.ends() == b""
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (408, "request_head_timeout")


@pytest.mark.parametrize("before", [0, 2], ids=["first request", "later request"])
@live
async def test_a_head_that_comes_drop_by_drop(before: int) -> None:
    async with Origin(always(ok())) as origin, Site(origin, timeouts={"head": "300ms"}) as site:
        client = await site.client()
        for _ in range(before):
            await client.send(get())
            assert (await client.response()).status == 200

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nx: " + b"y" * 10_000:
                await client.send(bytes((byte,)))
                await asyncio.sleep(0.02)

        dripping = asyncio.ensure_future(drip())
        try:
            async with asyncio.timeout(5):
                assert (await client.response()).status == 408
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)


@live
async def test_a_client_that_says_nothing_is_let_go_silently() -> None:
    async with Site(timeouts={"head": "200ms"}, routes=[]) as site:
        client = await site.client()
        assert await client.ends() == b""
        assert site.told.empty()


@live
async def test_an_idle_connection_is_let_go_silently() -> None:
    async with Origin(always(ok())) as origin, Site(origin, timeouts={"keep_alive": "200ms"}) as site:
        client = await site.client(get())
        assert (await client.response()).status == 200
        assert await client.ends() == b""
        await site.exchange()
        assert site.told.empty()


@live
async def test_an_idle_connection_is_let_go_also_after_an_answer_that_had_to_wait_for_it() -> None:
    async with Site(timeouts={"keep_alive": "1s"}, routes=_LARGE) as site:
        client = await site.client(get())
        assert len((await client.response()).body) == _SIZE
        async with asyncio.timeout(5):
            assert await client.ends() == b""


@live
async def test_an_answer_takes_as_long_as_it_takes() -> None:
    """No deadline of the client's runs while it is the origin's turn."""
    short = {"head": "100ms", "body_idle": "100ms", "keep_alive": "100ms", "write_idle": "100ms"}

    async def handler(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.5)
        await peer.send(ok())

    async with Origin(handler) as origin, Site(origin, timeouts=short) as site:
        assert (await site.ask(post(b"body"))).status == 200


@live
async def test_a_body_that_stops() -> None:
    async with Origin(always(ok())) as origin, Site(origin, timeouts={"body_idle": "200ms"}) as site:
        client = await site.client(post(b"0123456789")[:-5])
        _refusal(await client.response(), 408, b"request_body_timeout")
        assert await client.ends() == b""
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (408, "request_body_timeout")
        assert site.well


@live
async def test_a_body_that_comes_slowly_but_comes() -> None:
    handler = answering(lambda request: ok(request.body))
    timeouts = {"body_idle": "600ms", "body_min_rate": "10B/s"}
    async with Origin(handler) as origin, Site(origin, timeouts=timeouts) as site:
        client = await site.client(get(b"/", b"content-length: 20\r\n", b"POST"))
        for _ in range(20):
            await client.send(b"x")
            await asyncio.sleep(0.05)
        assert (await client.response()).body == b"x" * 20


@live
async def test_a_body_that_comes_too_slowly() -> None:
    """Each read comes in time, but all together they are below the least rate."""
    timeouts = {"body_idle": "400ms", "body_min_rate": "100B/s"}
    async with Origin(always(ok())) as origin, Site(origin, timeouts=timeouts) as site:
        client = await site.client(get(b"/", b"content-length: 2000\r\n", b"POST"))
        answer = asyncio.create_task(client.response())
        while not answer.done():
            await client.send(b"x")
            await asyncio.sleep(0.05)
        _refusal(await answer, 408, b"body_too_slow")
        assert (await site.exchange()).reason == "body_too_slow"
        assert site.well


@live
async def test_a_body_that_the_origin_does_not_take_is_not_too_slow() -> None:
    """While we don't read, it is not the client that stands still."""
    go_on = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.head()
        await go_on.wait()
        await peer.reader.readexactly(size)
        await peer.send(ok())

    size = 16 * 1024 * 1024
    timeouts = {"body_idle": "700ms", "body_min_rate": "1KiB/s"}
    async with Origin(handler) as origin, Site(origin, timeouts=timeouts) as site:
        client = await site.client(get(b"/", b"content-length: %d\r\n" % size, b"POST"))
        upload = asyncio.create_task(client.send(bytes(size)))
        await asyncio.sleep(2)
        go_on.set()
        assert (await client.response()).status == 200
        await upload


@live
async def test_the_time_for_a_body_begins_when_it_is_asked_for() -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(1)
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.send(ok(await peer.reader.readexactly(4)))

    async with Origin(handler) as origin, Site(origin, timeouts={"body_idle": "500ms"}) as site:
        client = await site.client(get(b"/", b"expect: 100-continue\r\ncontent-length: 4\r\n", b"POST"))
        assert (await client.head()).status == 100
        await asyncio.sleep(0.2)
        await client.send(b"body")
        assert (await client.response()).body == b"body"


@live
async def test_an_early_answer_is_not_cut_because_the_body_stops() -> None:
    """A client that has its answer may rightly stop sending (RFC 9112, section 9.5)."""

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.1)
            await peer.send(b"x")

    async with Origin(handler) as origin, Site(origin, timeouts={"body_idle": "300ms"}) as site:
        client = await site.client(get(b"/", b"content-length: 4000\r\n", b"POST") + b"some")
        response = await client.response()
        assert (response.status, response.body) == (403, b"x" * 10)
        assert (await site.exchange()).reason == ""


@live
async def test_a_slow_reader_of_an_early_answer_gets_all_of_it() -> None:
    body = bytes(600_000)

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(body))
        await peer.ends()

    async with Origin(handler) as origin, Site(origin, send_buffer=16 * 1024) as site:
        client = await site.client(
            get(b"/", b"content-length: 4000\r\n", b"POST"), receive_buffer=16 * 1024, limit=16 * 1024
        )
        head = await client.head()
        assert head.status == 200
        taken = 0
        while taken < len(body):  # some 200 KB/s: longer than it is lingered for
            taken += len(await client.reader.read(10_000))
            await asyncio.sleep(0.05)
        assert taken == len(body)


@live
async def test_who_takes_nothing_is_cut_off_however_much_it_asks_for() -> None:
    """A pipelined request that is read meanwhile gives no further time."""
    body = bytes(8 * 1024 * 1024)
    async with (
        Origin(always(ok(body))) as origin,
        Site(origin, timeouts={"write_idle": "400ms"}, send_buffer=16 * 1024) as site,
    ):
        client = await site.client(get() * 3, receive_buffer=16 * 1024, limit=16 * 1024)
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        assert (await site.exchange()).reason == "client_write_timeout"


@live
async def test_a_slow_body_is_not_held_against_the_origin() -> None:
    """`idle` of the upstream is for the endpoint: while we wait for the client it is not the one that stands still."""
    handler = answering(lambda request: ok(request.body))
    timeouts = {"idle": "200ms"}
    async with Origin(handler) as one, Origin(handler) as two, Site(one, two, upstream={"timeouts": timeouts}) as site:
        client = await site.client(get(b"/", b"content-length: 4\r\n", b"POST") + b"ab")
        await asyncio.sleep(0.5)
        await client.send(b"cd")
        response = await client.response()
        assert site.well
        assert (response.status, response.body) == (200, b"abcd")


async def _slow_origin(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 << 20))
    for _ in range(1024):
        await peer.send(bytes(1 << 16))


@live
async def test_a_client_that_takes_nothing_is_cut() -> None:
    async with Origin(_slow_origin) as origin, Site(origin, timeouts={"write_idle": "300ms"}) as site:
        await site.client(get(), receive_buffer=1 << 14, limit=1 << 10)
        exchange = await site.exchange()
        assert exchange.reason == "client_write_timeout"
        await until(lambda: not site.entry.connections)
        assert site.well


@live
async def test_a_client_that_takes_nothing_is_cut_also_when_its_answer_is_complete() -> None:
    timeouts = {"write_idle": "300ms", "keep_alive": "300ms"}
    async with Site(timeouts=timeouts, routes=_LARGE) as site:
        await site.client(get(), receive_buffer=1 << 14, limit=1 << 10)
        await until(lambda: site.entry.connections)
        async with asyncio.timeout(5):
            await until(lambda: not site.entry.connections)


@live
async def test_a_client_that_takes_nothing_after_connection_close_is_cut() -> None:
    async with Site(timeouts={"write_idle": "300ms"}, routes=_LARGE) as site:
        await site.client(get(b"/", b"connection: close\r\n"), receive_buffer=1 << 14, limit=1 << 10)
        await until(lambda: site.entry.connections)
        async with asyncio.timeout(5):
            await until(lambda: not site.entry.connections)


@live
async def test_a_client_that_takes_little_at_a_time_is_not_cut() -> None:
    """`write_idle` is for one that takes nothing."""
    timeouts = {"write_idle": "400ms"}
    async with Origin(_slow_origin) as origin, Site(origin, timeouts=timeouts, send_buffer=1 << 16) as site:
        client = await site.client(get(), receive_buffer=1 << 14, limit=1 << 10)
        await client.head()
        for _ in range(60):  # all in all for much longer than write_idle
            assert len(await client.reader.readexactly(16_000)) == 16_000
            await asyncio.sleep(0.04)
        client.reset()


@live
async def test_deadlines_do_not_outlive_their_request() -> None:
    short: dict[str, Any] = {"head": "200ms", "body_idle": "200ms", "write_idle": "200ms"}
    async with Origin(answering(lambda request: ok(request.body))) as origin, Site(origin, timeouts=short) as site:
        client = await site.client()
        for _ in range(3):
            await client.send(post(b"ab"))
            assert (await client.response()).body == b"ab"
            await asyncio.sleep(0.25)
        await client.send(get())
        assert (await client.response()).status == 200
