"""A forward proxy between real sockets: who may use it and where to, requests that are handed on, and tunnels."""

from __future__ import annotations

from typing import Any

from tests.listeners.site import Site
from tests.upstream.peer import Origin, Peer, answering, live

LAN = {"allow": ["127.0.0.0/8"], "ports": ["1-65535"]}


def proxy(egress: dict[str, Any] | None = None, **listener: Any) -> Site:
    return Site(listener={"kind": "forward", "egress": "lan", **listener}, egress=LAN | (egress or {}))


def get(origin: Origin, path: bytes = b"/", fields: bytes = b"", host: bytes = b"127.0.0.1") -> bytes:
    return b"GET http://%b:%d%b HTTP/1.1\r\nhost: x.example\r\n%b\r\n" % (host, origin.port, path, fields)


def connect(origin: Origin, fields: bytes = b"") -> bytes:
    return b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nhost: x\r\n%b\r\n" % (origin.port, fields)


async def echo(peer: Peer) -> None:
    while data := await peer.reader.read(1 << 16):
        await peer.send(data)


hello = answering(lambda request: b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")


@live
async def test_a_request_goes_where_its_target_says() -> None:
    async with Origin(hello) as origin, proxy() as site:
        client = await site.client(get(origin, b"/a?b"))
        answer = await client.response()
        print(answer)
        assert answer.body == b"hello"
        await client.send(get(origin, b"/a?b"))
        answer = await client.response()
        assert origin.accepted == 1


@live
async def test_a_tunnel() -> None:
    async with Origin(echo) as origin, proxy() as site:
        client = await site.client(connect(origin) + b"early")
        print(await client.head())
        assert await client.reader.readexactly(5) == b"early"
        client.writer.write_eof()
        assert await client.ends() == b""
        exchange = await site.exchange()
        print({name: getattr(exchange, name) for name in ("status", "reason", "endpoint", "bytes_in", "host", "target")})
