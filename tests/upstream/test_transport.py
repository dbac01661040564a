"""httpx over our own connections: requests made with its objects, and its exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from gateway.upstream.transport import Transport, reason_of
from tests.listeners.site import chunked, until
from tests.upstream.peer import Message, Origin, Peer, always, closed_port, live, noting, ok
from tests.upstream.test_clients import Desk, silent


async def read(response: httpx.Response) -> bytes:
    try:
        return b"".join([part async for part in response.aiter_raw()])
    finally:
        await response.aclose()


@live
async def test_what_is_asked_for_is_sent_and_nothing_else() -> None:
    seen: list[Message] = []
    answer = ok(b"keys", b"Set-Cookie: a=b\r\nset-cookie: c=d\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\n")
    async with Origin(noting(seen, lambda request: answer)) as origin, Desk() as desk:
        transport = Transport(desk.clients)
        url = httpx.URL(f"http://{origin.address}/keys?a=b")
        for _ in range(3):
            response = await transport.handle_async_request(httpx.Request("GET", url))
            assert (response.status_code, await read(response)) == (200, b"keys")
            assert response.headers.get_list("set-cookie") == ["a=b", "c=d"] and "x-hop" not in response.headers
        assert seen[2].head == b"GET /keys?a=b HTTP/1.1\r\nhost: %b\r\n\r\n" % origin.address.encode()
        request = httpx.Request("GET", url, headers=[("Host", "app.test")], extensions={"target": b"//%2e%zz"})
        await read(await transport.handle_async_request(request))
        assert seen[3].start == b"GET //%2e%zz HTTP/1.1" and seen[3][b"host"] == b"app.test"
        assert (origin.accepted, desk.reused) == (1, 3)


@live
async def test_a_whole_client_may_stand_on_it() -> None:
    redirect = b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"
    async with Origin(always(redirect)) as origin, Desk() as desk:
        async with httpx.AsyncClient(transport=Transport(desk.clients)) as client:
            assert (await client.get(f"http://{origin.address}/")).status_code == 302
            assert (await client.head(f"http://{origin.address}/")).status_code == 302
        assert origin.accepted == 1 == desk.open


async def parts(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@live
async def test_bodies() -> None:
    seen: list[Message] = []
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"a", b"b")
    async with Origin(noting(seen, lambda request: answer)) as origin, Desk() as desk:
        transport = Transport(desk.clients)
        url = f"http://{origin.address}/"
        requests = [
            httpx.Request("POST", url, content=b"whole"),
            httpx.Request("POST", url, content=parts(b"in ", b"parts")),
            httpx.Request("POST", url, content=parts(b"in ", b"parts"), headers={"content-length": "8"}),
            httpx.Request("POST", url),
        ]
        for request in requests:
            assert await read(await transport.handle_async_request(request)) == b"ab"
        assert [one.body for one in seen] == [b"whole", b"in parts", b"in parts", b""]
        assert [b"transfer-encoding" in one for one in seen] == [False, True, False, False]

        def synchronous() -> Iterator[bytes]:
            yield b"x"

        with pytest.raises(httpx.LocalProtocolError, match="asynchronous stream"):
            await transport.handle_async_request(httpx.Request("POST", url, content=synchronous()))


@live
async def test_what_goes_wrong_is_said_in_its_words() -> None:
    async def cut(peer: Peer) -> None:
        await peer.request()

    async def garbage(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"220 smtp.test ESMTP\r\n")

    async with Origin(cut) as cutting, Origin(garbage) as talking, Origin(silent) as mute, Desk() as desk:
        transport = Transport(desk.clients)
        cases: list[tuple[str, type[httpx.TransportError], str]] = [
            (f"127.0.0.1:{closed_port()}", httpx.ConnectError, "connection_refused"),
            (cutting.address, httpx.ReadError, "connection_terminated"),
            (talking.address, httpx.RemoteProtocolError, "http_protocol_error"),
            (mute.address, httpx.ReadTimeout, "http_response_timeout"),
        ]
        extensions = {"timeout": {"connect": 3, "read": 0.1, "write": None, "pool": None}}
        for address, kind, reason in cases:
            request = httpx.Request("GET", f"http://{address}/", extensions=extensions)
            with pytest.raises(kind) as raised:
                await transport.handle_async_request(request)
            assert reason_of(raised.value) == reason and raised.value.request is request
        for bad in (
            httpx.Request("GET", "ftp://a/"),
            httpx.Request("GET", "http://a/", extensions={"target": b"/ HTTP/1.1\r\nx: y"}),
            httpx.Request("GET", "http://a/", headers={"x": "a\r\ny: b"}),
            httpx.Request("GET", "http://a/", headers={"host": "a\r\ny: b"}),
        ):
            with pytest.raises(httpx.LocalProtocolError):
                await transport.handle_async_request(bad)


@live
async def test_a_deadline_and_a_bound() -> None:
    async def drips(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.005)

    async with Origin(drips) as origin, Desk() as desk:
        transport = Transport(desk.clients)
        for extension, kind in (({"deadline": 0.1}, httpx.ReadTimeout), ({"most": 3}, httpx.RemoteProtocolError)):
            request = httpx.Request("GET", f"http://{origin.address}/", extensions=extension)
            response = await transport.handle_async_request(request)
            with pytest.raises(kind):
                await read(response)
        await until(lambda: not desk.open)


@live
async def test_an_answer_that_is_given_up_costs_its_connection() -> None:
    async with Origin(always(ok(b"x" * 300_000))) as origin, Desk() as desk:
        transport = Transport(desk.clients)
        response = await transport.handle_async_request(httpx.Request("GET", f"http://{origin.address}/"))
        assert desk.open == 1
        await response.aclose()
        await until(lambda: not desk.open)
