"""What a client is told when it is the origin that fails, and what becomes of the connection to it."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import ExitStack
from typing import Any

import pytest

from gateway.metrics.plan import UPSTREAM_FAILURES, UPSTREAM_RETRIES
from gateway.scoreboard import Condition, Mark
from tests.listeners.site import Site, get, post, until
from tests.upstream.peer import Message, Origin, Peer, always, closed_port, live, ok


def _told(response: Message, status: int, error: bytes) -> None:
    assert response.status == status
    assert response[b"proxy-status"] == b"gateway; error=" + error
    assert response.body.startswith(b"%d " % status)
    assert (b"retry-after" in response) == (status == 503)


AT_ONCE = {"outlier": {"consecutive_failures": 1}}


@live
async def test_an_endpoint_that_refuses_is_passed_over() -> None:
    async with Origin(always(ok())) as origin, Site(f"127.0.0.1:{closed_port()}", origin, upstream=AT_ONCE) as site:
        for _ in range(4):
            assert (await site.ask(post(b"body"))).status == 200  # nothing was sent: also safe for a POST
        exchanges = [await site.exchange() for _ in range(4)]
        assert sum(exchange.retries for exchange in exchanges) == 1  # after that it is known
        assert {exchange.endpoint for exchange in exchanges} == {origin.address}
        down, up = site.upstream.endpoints
        assert (down.health.condition, up.health.condition) == (Condition.EJECTED, Condition.UP)
        assert site.cells[down.cells + UPSTREAM_FAILURES] == site.cells[down.cells + UPSTREAM_RETRIES] == 1


@live
async def test_all_endpoints_refuse() -> None:
    async with Site(f"127.0.0.1:{closed_port()}", f"127.0.0.1:{closed_port()}") as site:
        client = await site.client(get())
        response = await client.response()
        _told(response, 502, b"connection_refused")
        assert b"connection" not in response  # it is not the client's fault
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason, exchange.retries) == (502, "connection_refused", 3)
        tried = [endpoint for endpoint, reason, _ in exchange.attempts]
        assert len(tried) == 4 and set(tried[:2]) == {one.name for one in site.upstream.endpoints}
        for _ in range(4):  # the last one is never taken out
            await client.send(get())
            _told(await client.response(), 502, b"connection_refused")


@live
async def test_a_single_endpoint_is_asked_again_and_again() -> None:
    async with Site(f"127.0.0.1:{closed_port()}") as site:
        for _ in range(3):
            _told(await site.ask(get()), 502, b"connection_refused")


@live
async def test_no_response_in_time() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.ends()

    async with Origin(handler) as origin, Site(origin, upstream={"timeouts": {"response": "200ms"}}) as site:
        client = await site.client(get())
        _told(await client.response(), 504, b"http_response_timeout")
        assert (await site.exchange()).reason == "http_response_timeout"
        await until(lambda: origin.peers[0].reader.at_eof())
        await client.send(get())
        _told(await client.response(), 504, b"http_response_timeout")
        assert origin.accepted == 2


@live
async def test_a_request_that_timed_out_is_sent_elsewhere_if_it_may_be_repeated() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.ends()

    timeouts = {"response": "200ms"}
    async with Origin(handler) as one, Origin(handler) as two, Site(one, two, upstream={"timeouts": timeouts}) as site:
        _told(await site.ask(get()), 504, b"http_response_timeout")
        assert (one.accepted, two.accepted) == (1, 1)
        _told(await site.ask(post(b"")), 504, b"http_response_timeout")
        assert one.accepted + two.accepted == 3


@live
async def test_a_body_that_stands_still() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await peer.ends()

    async with Origin(handler) as origin, Site(origin, upstream={"timeouts": {"idle": "200ms"}}) as site:
        client = await site.client(get())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.response()
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (200, "connection_read_timeout")


@live
async def test_all_connections_busy() -> None:
    release = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await release.wait()
        await peer.send(ok())

    pool = {"max_connections": 1, "queue_timeout": "200ms"}
    async with Origin(handler) as origin, Site(origin, upstream={"pool": pool}) as site:
        first = await site.client(get())
        await until(lambda: origin.accepted)
        _told(await site.ask(get()), 503, b"connection_limit_reached")
        release.set()
        assert (await first.response()).status == 200
        assert site.well


@live
async def test_no_port_left() -> None:
    """It is nobody's fault, so nobody is ejected."""
    foreign = {"source_addresses": ["198.51.100.77"], "retry": {"attempts": 0}}  # not this machine's (RFC 5737)
    async with Origin(always(ok())) as origin, Site(origin, origin, upstream=foreign | AT_ONCE) as site:
        for _ in range(3):
            _told(await site.ask(post(b"body")), 503, b'proxy_internal_error; details="ports_exhausted"')
            assert (await site.exchange()).reason == "ports_exhausted"
        assert site.well and origin.accepted == 0


@live
async def test_nobody_ready() -> None:
    async with Site(f"127.0.0.1:{closed_port()}", f"127.0.0.1:{closed_port()}") as site:
        for endpoint in site.upstream.endpoints:  # as probes would have it
            endpoint.health.record[Mark.CONDITION] = Condition.DOWN
        site.upstream.refresh()
        _told(await site.ask(get()), 503, b"destination_unavailable")


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
    ],
    ids=lambda answer: repr(answer[:60]),
)
@live
async def test_a_malformed_response(answer: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.ends()

    async with Origin(handler) as origin, Site(origin, upstream={"timeouts": {"response": "3s"}}) as site:
        client = await site.client(get())
        _told(await client.response(), 502, b"http_protocol_error")
        await until(lambda: origin.peers[0].reader.at_eof())
        await client.send(get())
        assert (await client.response()).status == 502
        assert origin.accepted == 2


@live
async def test_a_malformed_body_cuts_the_answer() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n")
        await until(lambda: got.done())
        await peer.send(b"xyz\r\n")
        await peer.ends()

    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get())
        got.set_result(await client.reader.readuntil(b"good\r\n"))
        rest = await client.ends()
        assert b"0\r\n" not in rest
        assert (await site.exchange()).reason == "http_protocol_error"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
@pytest.mark.parametrize("by_reset", [False, True])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@live
async def test_a_body_that_is_cut_looks_cut(head: bytes, by_reset: bool, version: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        await until(lambda: got.done())
        if by_reset:
            peer.reset()

    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(b"GET / HTTP/%b\r\nhost: a\r\n\r\n" % version)
        got.set_result(await client.reader.readuntil(b"half"))
        if version == b"1.0" and b"chunked" in head:
            with pytest.raises(ConnectionError):  # nothing else can tell it from the end
                while await client.reader.read(100):
                    pass
        else:
            assert b"0\r\n\r\n" not in await client.ends()
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (200, "connection_terminated")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
@live
async def test_an_origin_that_hangs_up_on_a_new_connection(said: bytes, method: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(said)

    async with Origin(handler) as origin, Site(origin) as site:
        _told(await site.ask(get(b"/", b"content-length: 0\r\n", method)), 502, b"connection_terminated")
        assert origin.accepted == (1 if method == b"POST" else 3)  # it may have acted on the request


class _Stale:
    """Answers the first request of a connection, and hangs up on the second as soon as it comes: what a keep-alive time
    that runs out in the same moment looks like. `patient` connections at the end are answered for good."""

    def __init__(self, rude: int) -> None:
        self.rude = rude
        self.seen: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.seen.append(request.start)
            if len(self.seen) > 1 and self.rude:
                self.rude -= 1
                return
            await peer.send(ok())


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"TRACE"])
@live
async def test_a_kept_connection_that_was_closed_is_no_failure_for_what_may_be_repeated(method: bytes) -> None:
    origin_of = _Stale(1)
    async with Origin(origin_of) as origin, Site(origin) as site:
        client = await site.client(get())
        assert (await client.response()).status == 200
        await client.send(get(b"/again", b"", method))
        assert (await client.response(method)).status == 200
        assert origin_of.seen.count(method + b" /again HTTP/1.1") == 2
        assert origin.accepted == 2
        await site.exchange()
        exchange = await site.exchange()
        assert (exchange.retries, exchange.reason, exchange.reused) == (1, "", False)
        assert site.well


@pytest.mark.parametrize("data", [post(b""), post(b"a body"), get(b"/", b"", b"PATCH")])
@live
async def test_a_kept_connection_that_was_closed_is_a_failure_for_what_may_not(data: bytes) -> None:
    origin_of = _Stale(1)
    async with Origin(origin_of) as origin, Site(origin) as site:
        client = await site.client(get())
        assert (await client.response()).status == 200
        await client.send(data)
        _told(await client.response(), 502, b"connection_terminated")
        assert len(origin_of.seen) == 2


@pytest.mark.parametrize(
    "data",
    [post(b""), post(b"a body"), get(b"/", b"transfer-encoding: chunked\r\n", b"POST") + b"4\r\nbody\r\n0\r\n\r\n"],
    ids=["no body", "a body", "chunks"],
)
@live
async def test_what_a_kept_connection_took_nothing_of_is_sent_again(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The origin resets it after the look at its socket and before the first byte."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.setblocking(False)
        accepted: list[socket.socket] = []

        async def serve(end: bytes) -> None:
            """Answer the next request on a connection of its own."""
            sock, _ = await loop.sock_accept(server)
            stack.enter_context(sock)
            accepted.append(sock)
            heard = b""
            while not heard.endswith(end):
                heard += await loop.sock_recv(sock, 10_000)
            await loop.sock_sendall(sock, ok())

        def look(transport: Any) -> bool:
            accepted[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted[0].close()
            return False

        async with Site(f"127.0.0.1:{server.getsockname()[1]}") as site:
            first = asyncio.ensure_future(serve(b"\r\n\r\n"))
            client = await site.client(get())
            assert (await client.response()).status == 200
            await first
            monkeypatch.setattr("gateway.upstream.http1.waiting", look)
            second = asyncio.ensure_future(serve(data[-5:]))
            await client.send(data)
            assert (await client.response()).status == 200
            await second
            assert len(accepted) == 2
            await site.exchange()
            exchange = await site.exchange()
            assert (exchange.retries, exchange.reason, exchange.reused) == (1, "", False)
            assert site.well


@live
async def test_repeating_has_an_end() -> None:
    origin_of = _Stale(100)
    async with Origin(origin_of) as origin, Site(origin) as site:
        client = await site.client(get())
        assert (await client.response()).status == 200
        await client.send(get())
        _told(await client.response(), 502, b"connection_terminated")
        assert len(origin_of.seen) <= 6


@live
async def test_a_connection_that_the_origin_closed_while_idle_is_not_used() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())  # and closes, without a word of it before

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client()
        for _ in range(3):
            await client.send(post(b"not to be repeated"))
            assert (await client.response()).status == 200
            await until(lambda: site.upstream.endpoints[0].pool._total == 0)
        assert origin.accepted == 3


@live
async def test_an_answer_with_more_than_its_body_is_the_last_of_its_connection() -> None:
    async with Origin(always(ok() + ok(b"poison"))) as origin, Site(origin) as site:
        client = await site.client()
        for _ in range(2):
            await client.send(get())
            assert (await client.response()).body == b"ok"
        assert origin.accepted == 2


@live
async def test_no_route() -> None:
    routes = [{"name": "a", "path": "/a", "methods": ["GET", "PUT"], "respond": {"body": "a"}}]
    async with Site(routes=routes) as site:
        client = await site.client(get(b"/b"))
        response = await client.response()
        assert response.status == 404 and b"no_route" in response[b"proxy-status"]
        await client.send(get(b"/a", b"", b"DELETE"))
        response = await client.response()
        assert response.status == 405 and response[b"allow"] == b"GET, PUT"
        await client.send(get(b"/a/../b"))
        assert (await client.response()).status == 400
        await client.send(get(b"/a"))
        assert (await client.response()).body == b"a"
        exchanges = [await site.exchange() for _ in range(4)]
        assert [one.reason for one in exchanges] == ["no_route", "method_not_allowed", "ambiguous_path", ""]
        assert [one.route and one.route.name for one in exchanges] == [None, None, None, "a"]


@live
async def test_a_body_that_is_refused_in_the_segment_of_its_head() -> None:
    """The application has not had its first step yet then."""
    async with Origin(always(ok())) as origin, Site(origin) as site:
        response = await site.ask(get(b"/", b"transfer-encoding: chunked\r\n", b"POST") + b"nonsense\r\n")
        assert response.status == 400 and b"chunk_size_malformed" in response[b"proxy-status"]
        assert (await site.exchange()).reason == "chunk_size_malformed"
        assert not origin.accepted


@live
async def test_a_client_that_is_gone_before_its_application_begins() -> None:
    async with Origin(always(ok())) as origin, Site(origin) as site:
        for _ in range(30):
            client = await site.client(get())
            client.reset()
        for _ in range(30):
            await site.exchange()
