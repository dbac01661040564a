"""Bodies that are too large: refused as early as that is known."""

from __future__ import annotations

import asyncio

from tests.listeners.site import Site, chunked, get, post
from tests.upstream.peer import Origin, Peer, always, live, ok

TEN = [{"kind": "body_limit", "max": "10B"}]


@live
async def test_a_body_that_says_how_large_it_is() -> None:
    async with Origin(always(ok())) as origin, Site(origin, middleware=TEN) as site:
        assert (await site.ask(post(b"x" * 10))).status == 200
        assert (await site.ask(get())).status == 200
        client = await site.client(get(b"/", b"content-length: 11\r\n", b"POST"))  # and nothing of it
        answer = await client.response()
        assert answer.status == 413 and answer[b"connection"] == b"close"
        exchanges = [await site.exchange() for _ in range(3)]
        assert [one.reason for one in exchanges] == ["", "", "body_too_large"]
        assert origin.accepted == 1


@live
async def test_a_client_that_asks_first_is_not_told_to_go_on() -> None:
    async with Origin(always(ok())) as origin, Site(origin, middleware=TEN) as site:
        client = await site.client(get(b"/", b"content-length: 11\r\nexpect: 100-continue\r\n", b"POST"))
        assert (await client.response()).status == 413
        small = await site.client(get(b"/", b"content-length: 10\r\nexpect: 100-continue\r\n", b"POST"))
        await small.send(b"x" * 10)
        assert (await small.response()).status in (100, 200)


@live
async def test_a_body_that_becomes_too_large() -> None:
    async with Origin(always(ok())) as origin, Site(origin, middleware=TEN) as site:
        chunks = get(b"/", b"transfer-encoding: chunked\r\n", b"POST")
        assert (await site.ask(chunks + chunked(b"x" * 5, b"x" * 5))).status == 200
        answer = await site.ask(chunks + chunked(b"x" * 5, b"x" * 6))
        assert answer.status == 413
        client = await site.client(chunks + b"5\r\n12345\r\n")
        await asyncio.sleep(0)
        await client.send(b"6\r\n123456\r\n")  # and more would come
        assert (await client.response()).status == 413
        assert [(await site.exchange()).reason for _ in range(3)] == ["", "body_too_large", "body_too_large"]
        assert site.well


@live
async def test_an_answer_that_has_begun_is_cut() -> None:
    async def early(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")
        await peer.ends()

    async with Origin(early) as origin, Site(origin, middleware=TEN) as site:
        client = await site.client(get(b"/", b"transfer-encoding: chunked\r\n", b"POST") + b"5\r\n12345\r\n")
        assert (await client.head()).status == 200
        await client.send(b"6\r\n123456\r\n")
        assert await client.ends() in (b"some", b"")
        assert (await site.exchange()).reason == "body_too_large"
        assert site.well


@live
async def test_it_does_not_touch_what_it_lets_pass() -> None:
    seen = []

    async def echo(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append(request.body)
            await peer.send(ok(request.body))

    async with Origin(echo) as origin, Site(origin, middleware=[{"kind": "body_limit", "max": "1MiB"}]) as site:
        body = bytes(range(256)) * 1024
        chunks = get(b"/", b"transfer-encoding: chunked\r\n", b"POST")
        pieces = [body[at : at + 9999] for at in range(0, len(body), 9999)]
        assert (await site.ask(chunks + chunked(*pieces))).body == body
        assert (await site.ask(post(body))).body == body
        assert seen == [body, body]
