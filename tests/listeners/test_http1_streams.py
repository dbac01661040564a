"""Bodies that move: large ones, slow readers and writers on either side, and clients that go away."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from tests.listeners.site import Site, get, post, until
from tests.upstream.peer import Message, Origin, Peer, answering, live, ok

_LARGE = 8 << 20


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("chunked", [False, True])
@live
async def test_eight_mebibytes_each_way_arrive_equal(chunked: bool) -> None:
    data = _noise(_LARGE)

    async def handler(peer: Peer) -> None:
        request = await peer.request()
        assert hashlib.sha256(request.body).digest() == hashlib.sha256(data).digest()
        if not chunked:
            await peer.send(ok(request.body))
            return
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for at in range(0, len(data), 100_000):
            piece = data[at : at + 100_000]
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await peer.send(b"0\r\n\r\n")

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client()
        if chunked:
            await client.send(get(b"/", b"transfer-encoding: chunked\r\n", b"POST"))
            for at in range(0, len(data), 70_000):
                piece = data[at : at + 70_000]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await client.send(b"0\r\n\r\n")
        else:
            await client.send(post(data))
        response = await client.response()
        assert response.body == data
        exchange = await site.exchange()
        assert (exchange.bytes_in, exchange.bytes_out, exchange.reason) == (_LARGE, _LARGE, "")


@live
async def test_a_client_that_does_not_read_stops_the_origin() -> None:
    sent = 0
    stuck = asyncio.Event()

    async def handler(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 << 20))
        piece = bytes(1 << 16)
        for _ in range((64 << 20) // len(piece)):
            peer.writer.write(piece)
            try:
                async with asyncio.timeout(0.5):
                    await peer.writer.drain()
            except TimeoutError:
                stuck.set()
                await peer.writer.drain()
            sent += len(piece)

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get(), receive_buffer=1 << 16, limit=1 << 10)
        await stuck.wait()
        # What the kernel holds in its sockets, and a bounded rest in between.
        assert sent < 32 << 20
        before = sent
        while sent == before:  # it goes on as soon as the client does
            assert await client.reader.read(1 << 16)
        client.reset()
        assert (await site.exchange()).reason == "client_gone"


@live
async def test_an_origin_that_does_not_read_stops_the_client() -> None:
    release = asyncio.Event()
    total = 64 << 20

    async def handler(peer: Peer) -> None:
        await peer.head()
        await release.wait()
        left = total
        while left:
            left -= len(await peer.reader.read(1 << 20))
        await peer.send(ok())

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get(b"/", b"content-length: %d\r\n" % total, b"POST"))
        sent = 0
        piece = bytes(1 << 16)
        while sent < total:
            client.writer.write(piece)
            sent += len(piece)
            try:
                async with asyncio.timeout(None if release.is_set() else 0.5):
                    await client.writer.drain()
            except TimeoutError:
                assert sent < total // 2
                release.set()
                await client.writer.drain()
        assert release.is_set()
        assert (await client.response()).status == 200


@live
async def test_a_response_passes_while_the_request_is_still_coming() -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        assert await peer.reader.readexactly(3) == b"abc"
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nAB")
        assert await peer.reader.readexactly(3) == b"def"
        await peer.send(b"CDEF")

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(post(b"abcdef")[:-3])
        head = await client.head()
        assert head.status == 200 and head[b"content-length"] == b"6"
        assert await client.reader.readexactly(2) == b"AB"
        await client.send(b"def")
        assert await client.reader.readexactly(4) == b"CDEF"
        exchange = await site.exchange()
        assert (exchange.bytes_in, exchange.bytes_out, exchange.reason) == (6, 6, "")


@live
async def test_a_chunked_response_passes_while_the_request_is_still_coming() -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(10):
            piece = await peer.reader.readexactly(4)
            await peer.send(b"4\r\n%b\r\n" % piece.upper())
        await peer.send(b"0\r\n\r\n")

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get(b"/", b"content-length: 40\r\n", b"POST"))
        head = await client.head()
        assert head[b"transfer-encoding"] == b"chunked"
        for _ in range(10):
            await client.send(b"ping")
            assert await client.reader.readexactly(9) == b"4\r\nPING\r\n"
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"


@live
async def test_an_early_refusal_reaches_a_client_that_goes_on_sending() -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        await peer.ends()

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get(b"/", b"content-length: 10000000\r\n", b"POST") + bytes(1000))
        response = await client.response()
        assert (response.status, response.body) == (403, b"no")
        assert response[b"connection"] == b"close"  # the rest of the body must not be read as a request
        await client.send(bytes(100_000))
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (403, "")
        await until(lambda: origin.peers[0].reader.at_eof())  # a half-sent request: that connection is over


@live
async def test_each_part_of_a_response_passes_at_once() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while word := await peer.reader.read(100):
            await peer.send(b"%x\r\n%b\r\n" % (len(word), word))

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get())
        assert (await client.head()).status == 200  # before any byte of the body is there
        for word in (b"one", b"two", b"three"):
            await origin.peers[0].send(b"%x\r\n%b\r\n" % (len(word), word))
            assert (await client.reader.readuntil(word + b"\r\n")).endswith(word + b"\r\n")


@pytest.mark.parametrize("by_reset", [False, True])
@live
async def test_a_client_that_goes_while_it_waits_ends_the_exchange_at_the_origin(by_reset: bool) -> None:
    """Also by an orderly close, which looks like a half-close until something is written."""
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        assert await peer.ends() == b""
        gone.set()

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get())
        await until(lambda: origin.accepted)
        client.reset() if by_reset else client.writer.close()
        async with asyncio.timeout(5):
            await gone.wait()
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (499, "client_gone")
        assert site.well


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"GET / HTTP/1.0"])
@live
async def test_a_client_that_has_finished_sending_is_answered(line: bytes) -> None:
    finished = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await finished.wait()
        await asyncio.sleep(0.2)  # long enough for each look at the client
        await peer.send(ok(b"late"))

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(line + b"\r\nhost: a\r\n\r\n")
        await until(lambda: origin.accepted)
        client.writer.write_eof()
        finished.set()
        response = await client.response()
        while response.status == 100:  # what it was asked by whether it is there
            response = await client.response()
        assert (response.status, response.body, response[b"connection"]) == (200, b"late", b"close")
        assert await client.ends() == b""
        assert (await site.exchange()).reason == ""


@live
async def test_requests_before_a_half_close_are_all_answered() -> None:
    async with Origin(answering(lambda request: ok(request.start))) as origin, Site(origin) as site:
        client = await site.client(get(b"/1") + get(b"/2") + get(b"/3") + b"GET /half")
        client.writer.write_eof()
        bodies: list[bytes] = []
        while len(bodies) < 3:
            response = await client.response()
            if response.status != 100:
                bodies.append(response.body.split()[1])
        assert bodies == [b"/1", b"/2", b"/3"]
        assert await client.ends() == b""


@live
async def test_a_half_close_between_two_chunks_leaves_the_stream_going() -> None:
    """It is asked by a zero before the next chunk's size."""
    finished = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await finished.wait()
        await asyncio.sleep(0.2)
        await peer.send(b"3\r\ntwo\r\n0\r\n\r\n")

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get())
        head = await client.head()
        assert await client.reader.readexactly(8) == b"3\r\none\r\n"
        client.writer.write_eof()
        finished.set()
        assert head.status == 200 and await client.chunks() == b"two"
        assert (await site.exchange()).reason == ""


@live
async def test_a_client_that_leaves_between_two_chunks_is_noticed() -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await peer.ends()
        gone.set()

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get())
        await client.reader.readuntil(b"one\r\n")
        client.close()
        async with asyncio.timeout(5):
            await gone.wait()
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (200, "client_gone")
        assert site.well


@live
async def test_a_half_close_on_a_stream_that_stands_still_counts_as_gone() -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\ndata: 1\n\n")
        await peer.ends()
        gone.set()

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get())
        await client.reader.readuntil(b"data: 1\n\n")
        client.writer.write_eof()
        async with asyncio.timeout(5):
            await gone.wait()
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (200, "client_gone")


@pytest.mark.parametrize("by_reset", [False, True])
@live
async def test_a_client_that_goes_in_the_middle_of_its_answer(by_reset: bool) -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        await peer.ends()
        gone.set()

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get())
        await client.reader.readuntil(b"half")
        client.reset() if by_reset else client.close()
        await gone.wait()
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (200, "client_gone")
        assert site.well


@live
async def test_a_client_that_goes_in_the_middle_of_its_body() -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.ends()
        gone.set()

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(post(bytes(1000))[:-500])
        await until(lambda: origin.accepted)
        client.reset()
        await gone.wait()
        assert (await site.exchange()).reason == "client_gone"


@live
async def test_a_client_that_goes_while_it_queues_leaves_the_queue() -> None:
    release = asyncio.Event()

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await release.wait()
            await peer.send(ok())

    async with Origin(handler) as origin, Site(origin, upstream={"pool": {"max_connections": 1}}) as site:
        first = await site.client(get())
        await until(lambda: origin.accepted)
        second = await site.client(get())
        await until(lambda: len(site.state.tasks) == 2)
        third = await site.client(get())
        await until(lambda: len(site.state.tasks) == 3)
        second.reset()
        assert (await site.exchange()).status == 499
        release.set()
        assert (await first.response()).status == 200
        assert (await third.response()).status == 200
        assert origin.accepted == 1


@live
async def test_many_at_once() -> None:
    async with Origin(answering(lambda request: ok(request.body * 10))) as origin, Site(origin) as site:

        async def one(number: int) -> None:
            client = await site.client()
            for turn in range(5):
                body = b"%d-%d;" % (number, turn) * (number * 7 + 1)
                await client.send(post(body))
                assert (await client.response()).body == body * 10

        await asyncio.gather(*(one(number) for number in range(60)))
        assert origin.accepted <= 60


@live
async def test_nobody_gets_the_answer_of_another_however_clients_leave() -> None:
    chance = random.Random(7)

    def answer(request: Message) -> bytes:
        target = request.start.split(b" ")[1]
        return ok(target * (1 if chance.random() < 0.5 else 5000))

    async with Origin(answering(answer)) as origin, Site(origin, upstream={"pool": {"max_connections": 8}}) as site:

        async def stays(number: int) -> None:
            client = await site.client()
            for turn in range(4):
                target = b"/%d-%d," % (number, turn)
                await client.send(get(target))
                body = (await client.response()).body
                assert body and body == target * (len(body) // len(target))

        async def leaves(number: int) -> None:
            client = await site.client(get(b"/leaves-%d," % number))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                await client.reader.read(1000)
            client.reset()

        for start in range(0, 300, 30):
            numbers = range(start, start + 30)
            await asyncio.gather(*(leaves(n) if n % 3 else stays(n) for n in numbers))
        await until(lambda: not site.state.tasks)
        assert (await site.ask(get(b"/after,"))).status == 200
