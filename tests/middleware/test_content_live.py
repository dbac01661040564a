"""What layers do to content, between real sockets."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import psutil
import pytest

from tests.listeners.site import Site, chunked, get, post, until
from tests.middleware.test_codings import TEXT, coded
from tests.upstream.peer import Message, Origin, Peer, always, closed_port, live, noting, ok

GZIP = b"accept-encoding: gzip\r\n"
COMPRESS: dict[str, Any] = {"kind": "compress"}
DECOMPRESS: dict[str, Any] = {"kind": "decompress"}
CORS: dict[str, Any] = {"kind": "cors", "origins": ["https://app.example.com"]}
FROM_APP = b"origin: https://app.example.com\r\n"
OPEN = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n%b\r\n"


async def chunk(peer: Peer) -> bytes:
    size = int((await peer.reader.readuntil(b"\r\n"))[:-2], 16)
    data = await peer.reader.readexactly(size + 2)
    return data[:size]


def origin_of(kind: bytes, parts: asyncio.Queue[bytes], fields: bytes = b"") -> Any:
    """A handler that sends what is put into a queue, b"" for the end."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(OPEN % (kind, fields))
        while part := await parts.get():
            await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
        await peer.send(b"0\r\n\r\n")
        await peer.ends()

    return handler


@live
async def test_events_arrive_when_they_are_sent() -> None:
    parts: asyncio.Queue[bytes] = asyncio.Queue()
    async with Origin(origin_of(b"text/event-stream", parts)) as origin, Site(origin, middleware=[COMPRESS]) as site:
        client = await site.client(get(fields=GZIP))
        head = await client.head()  # before any event is
        assert head[b"content-encoding"] == b"gzip" and head[b"transfer-encoding"] == b"chunked"
        plain = zlib.decompressobj(31)
        for number in range(20):
            event = b"data: %d\n\n" % number
            parts.put_nowait(event)
            heard = b""
            while heard != event:  # the next event is sent only when this one is here
                heard += plain.decompress(await chunk(client))
        parts.put_nowait(b"")
        while not plain.eof:
            plain.decompress(await chunk(client))
        assert await chunk(client) == b""


@live
async def test_64_mib_through_a_compressor() -> None:
    part = TEXT[:65536]
    parts = (64 << 20) // len(part)
    sent = 0

    async def pour(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(OPEN % (b"text/plain", b""))
        for _ in range(parts):
            await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
            sent += len(part)
        await peer.send(b"0\r\n\r\n")
        await peer.ends()

    options = {"kind": "compress", "gzip_level": 1}
    async with Origin(pour) as origin, Site(origin, middleware=[options], send_buffer=65536) as site:
        client = await site.client(get(fields=GZIP), receive_buffer=65536, limit=65536)
        await client.head()
        process = psutil.Process()
        await asyncio.sleep(0.5)  # nobody reads: all that can be under way is
        held, before = sent, process.memory_info().rss
        assert held < 16 << 20
        plain, size = zlib.decompressobj(31), 0
        while data := await chunk(client):
            size += len(plain.decompress(data))
        assert size == sent == parts * len(part)
        assert process.memory_info().rss - before < 16 << 20


@live
async def test_a_client_that_leaves_in_the_middle() -> None:
    parts: asyncio.Queue[bytes] = asyncio.Queue()
    async with Origin(origin_of(b"text/plain", parts)) as origin, Site(origin, middleware=[COMPRESS]) as site:
        client = await site.client(get(fields=GZIP))
        parts.put_nowait(TEXT)
        await client.head()
        client.reset()
        assert (await site.exchange()).reason == "client_gone"


@live
async def test_an_origin_that_leaves_in_the_middle() -> None:
    cut = OPEN % (b"text/plain", b"") + b"%x\r\n%b\r\n" % (len(TEXT), TEXT)

    async def leave(peer: Peer) -> None:
        await peer.request()
        await peer.send(cut)

    async with Origin(leave) as origin, Site(origin, middleware=[COMPRESS]) as site:
        client = await site.client(get(fields=GZIP))
        assert (await client.head()).status == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.chunks()
        assert (await site.exchange()).reason == "connection_terminated"


@live
async def test_an_origin_that_fails_before_its_first_byte() -> None:
    """The head was held back for the body; what the client gets is visibly no answer."""
    head = OPEN % (b"text/plain", b"content-type: text/plain\r\n")

    async def leave(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)

    async with Origin(leave) as origin, Site(origin, middleware=[COMPRESS]) as site:
        client = await site.client(get(fields=GZIP))
        heard = await client.ends()
        assert b"0\r\n\r\n" not in heard


@live
async def test_trailers_and_keep_alive() -> None:
    body = chunked(TEXT)[:-2] + b"x-took: 1\r\nrepr-digest: sha-256=:x:\r\n\r\n"
    async with (
        Origin(always(OPEN % (b"text/plain", b"trailer: x-took\r\n") + body)) as origin,
        Site(origin, middleware=[COMPRESS]) as site,
    ):
        client = await site.client(get(fields=GZIP + b"te: trailers\r\n"))
        head = await client.head()
        plain = zlib.decompressobj(31)
        assert head[b"trailer"] == b"x-took"
        while data := await chunk_or_end(client):
            assert plain.decompress(data) is not None
        assert await client.reader.readuntil(b"\r\n\r\n") == b"x-took: 1\r\n\r\n"
        await client.send(get(fields=GZIP, method=b"HEAD"))
        assert (await client.head())[b"content-encoding"] == b"gzip"
        await client.send(get())
        assert (await client.head())[b"vary"] == b"Accept-Encoding"


async def chunk_or_end(peer: Peer) -> bytes:
    """The next chunk; b"" for the last one, behind which trailers come."""
    size = int((await peer.reader.readuntil(b"\r\n"))[:-2], 16)
    return (await peer.reader.readexactly(size + 2))[:size] if size else b""


@live
async def test_the_gateways_own_answers_are_compressed_and_readable() -> None:
    layers = [{"kind": "security_headers"}, CORS, {**COMPRESS, "min_size": "1B"}]
    async with Site(f"127.0.0.1:{closed_port()}", middleware=layers) as site:
        answer = await site.ask(get(fields=GZIP + FROM_APP))
        assert answer.status == 502 and answer[b"content-encoding"] == b"gzip"
        assert b"connection_refused" in zlib.decompress(answer.body, 31)
        assert answer[b"access-control-allow-origin"] == b"https://app.example.com"
        assert answer[b"x-content-type-options"] == b"nosniff"
        assert answer[b"vary"] == b"Accept-Encoding, Origin"


@live
async def test_upgrades_pass_all_layers() -> None:
    switch = b"HTTP/1.1 101 -\r\nupgrade: chat\r\nconnection: upgrade\r\n\r\n"

    async def chat(peer: Peer) -> None:
        await peer.head()
        await peer.send(switch)
        await peer.send(await peer.reader.readexactly(4))

    layers = [{"kind": "security_headers"}, CORS, COMPRESS, DECOMPRESS, {"kind": "ip_allow", "allow": ["127.0.0.1"]}]
    async with (
        Origin(chat) as origin,
        Site(origin, middleware=layers, routes=[{"name": "a", "upstream": "app", "upgrade": "any"}]) as site,
    ):
        client = await site.client(get(fields=GZIP + FROM_APP + b"connection: upgrade\r\nupgrade: chat\r\n"))
        head = await client.head()
        assert head.status == 101 and b"vary" not in head and b"access-control-allow-origin" not in head
        await client.send(b"ping")
        assert await client.reader.readexactly(4) == b"ping"


# Requests.


@live
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_request_body_is_expanded_for_the_origin(is_chunked: bool) -> None:
    seen: list[Message] = []
    body = coded(b"gzip", TEXT)
    fields = b"content-encoding: gzip\r\n"
    async with Origin(noting(seen, lambda request: ok())) as origin, Site(origin, middleware=[DECOMPRESS]) as site:
        if is_chunked:
            request = get(b"/", fields + b"transfer-encoding: chunked\r\n", b"POST") + chunked(body[:99], body[99:])
        else:
            request = post(body, fields=fields)
        client = await site.client(request)
        assert (await client.response()).status == 200
        await client.send(post(b"plain"))  # and the connection goes on
        assert (await client.response()).status == 200
    assert seen[0].body == TEXT and b"content-encoding" not in seen[0] and b"content-length" not in seen[0]
    assert seen[1].body == b"plain" and seen[1][b"content-length"] == b"5"


@live
async def test_a_request_that_is_tried_again_is_expanded_once() -> None:
    seen: list[Message] = []
    fields = b"content-encoding: br\r\n"
    async with (
        Origin(always(b"HTTP/1.1 503 -\r\ncontent-length: 0\r\n\r\n")) as bad,
        Origin(noting(seen, lambda request: ok())) as good,
        Site(
            bad,
            good,
            middleware=[DECOMPRESS],
            upstream={"retry": {"on": ["503"], "backoff": "1ms", "methods": ["POST"]}},
        ) as site,
    ):
        for _ in range(2):
            assert (await site.ask(post(coded(b"br", b"hello"), fields=fields))).status == 200
    assert [request.body for request in seen] == [b"hello", b"hello"]


async def reads_all(peer: Peer) -> None:
    await peer.request()
    await peer.send(ok())


@live
@pytest.mark.parametrize(
    ("coding", "body", "status", "reason"),
    [
        (b"gzip", coded(b"gzip", TEXT)[:-5], 400, "content_coding_broken"),
        (b"gzip", b"no such thing", 400, "content_coding_broken"),
        (b"gzip", coded(b"gzip", bytes(32 << 20)), 413, "body_too_large"),
        (b"zstd", coded(b"zstd", bytes(32 << 20)), 413, "body_too_large"),
        (b"snappy", b"x", 415, "content_coding_unknown"),
    ],
)
async def test_request_bodies_that_are_refused(coding: bytes, body: bytes, status: int, reason: str) -> None:
    async with Origin(reads_all) as origin, Site(origin, middleware=[DECOMPRESS]) as site:
        client = await site.client(post(body, fields=b"content-encoding: %b\r\n" % coding))
        assert (await client.response()).status == status
        assert (await site.exchange()).reason == reason
        assert site.well


@live
async def test_a_preflight_needs_no_route_that_takes_it() -> None:
    async with Origin(always(ok())) as origin, Site(origin, middleware=[CORS]) as site:
        fields = FROM_APP + b"access-control-request-method: POST\r\n"
        answer = await site.ask(get(b"/x", fields, b"OPTIONS"))
        assert answer.status == 204 and answer[b"access-control-allow-origin"] == b"https://app.example.com"
        assert not origin.accepted


@live
async def test_files_and_a_client_that_leaves(tmp_path: Any) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(64 << 20))
    static = {"kind": "static", "root": str(tmp_path), "fallthrough": True}
    async with Origin(always(ok(b"app"))) as origin, Site(origin, middleware=[static], send_buffer=65536) as site:
        assert (await site.ask(get(b"/other"))).body == b"app"
        client = await site.client(get(b"/large.bin"), receive_buffer=65536)
        assert (await client.head())[b"content-length"] == b"%d" % (64 << 20)
        client.reset()
        await until(lambda: site.told.qsize() == 2)
        assert [(await site.exchange()).reason, (await site.exchange()).reason] == ["", "client_gone"]


@live
@pytest.mark.parametrize("mode", ["own", "passthrough"])
async def test_a_preflight_reaches_the_route_of_its_request(mode: str) -> None:
    asks = b"access-control-request-method: GET\r\n"
    route = {"name": "api", "path": "/api", "methods": ["GET"], "upstream": "app"}
    cors = {**CORS, "mode": mode}
    async with Origin(always(ok(b"theirs"))) as origin:
        for around, within in ([cors], []), ([], [cors]):
            async with Site(origin, middleware=around, routes=[{**route, "middleware": within}]) as site:
                client = await site.client(get(b"/api", FROM_APP + asks, b"OPTIONS"))
                assert (await client.head()).status == (204 if mode == "own" else 200)
                client = await site.client(get(b"/api", FROM_APP, b"OPTIONS"))
                assert (await client.head()).status == 405
