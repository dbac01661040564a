"""The example of HTTP as an intermediary speaks it, taken as it is: each line of it does what it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support import access_log
from tests.support.gateway_process import Gateway, Start
from tests.upstream.peer import Message, Origin, Peer, answering, dial, live

EXAMPLE = Path(__file__).parents[3] / "shared/examples/http.toml"


def told(request: Message) -> bytes:
    """What the endpoint got, as JSON; it redirects and sets a cookie for its own root."""
    fields = {name.decode().lower(): value.decode() for name, value in request.fields}
    body = json.dumps({"start": request.start.decode(), **fields}).encode()
    return (
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nlocation: /base/login\r\nset-cookie: a=b; Path=/base/\r\n\r\n%b"
        % (len(body), body)
    )


async def chat(peer: Peer) -> None:
    await peer.head()
    await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    while data := await peer.reader.read(1000):
        await peer.send(data)


class Example:
    """The example between a client and its two upstreams."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._port = int(gateway.address().rpartition(":")[2])

    async def client(self, head: bytes) -> Peer:
        client = await dial(self._port)
        await client.send(head.replace(b"\n", b"\r\n") + b"\r\n\r\n")
        return client

    async def ask(self, head: bytes) -> Message:
        client = await self.client(head)
        try:
            return await client.response(head.partition(b" ")[0])
        finally:
            client.close()

    async def seen(self, head: bytes) -> dict[str, str]:
        response = await self.ask(head)
        assert response.status == 200, response
        answer: dict[str, str] = json.loads(response.body)
        return answer

    def logged(self) -> list[dict[str, object]]:
        return access_log.lines(self.gateway.folder / "stdout.txt")


Check = Callable[[Example], Awaitable[None]]


async def base_path(example: Example) -> None:
    seen = await example.seen(b"GET /a%20b?c=d HTTP/1.1\nHost: shop.example")
    assert (seen["start"], seen["host"]) == ("GET /base/a%20b?c=d HTTP/1.1", "shop.example")
    response = await example.ask(b"GET / HTTP/1.1\nHost: shop.example")
    assert (response[b"location"], response[b"set-cookie"]) == (b"/login", b"a=b; Path=/")


async def identity(example: Example) -> None:
    head = b"GET /who HTTP/1.1\nHost: a\nX-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.1.1.1\nX-Forwarded-Proto: https"
    seen = await example.seen(head)
    assert seen["x-forwarded-for"] == "6.6.6.6, 192.0.2.1, 10.1.1.1, 127.0.0.1"
    assert (seen["x-forwarded-proto"], seen["x-forwarded-host"]) == ("https", "a")
    assert "forwarded" not in seen
    assert await logs(example, "/who", "client") == "192.0.2.1"


async def logs(example: Example, target: str, key: str) -> object:
    """A fact of the one line of the access log about this target, once it is written."""
    while True:
        found = [line for line in example.logged() if line["target"] == target]
        if found:
            [line] = found
            return line[key]
        await asyncio.sleep(0.05)


async def paths(example: Example) -> None:
    for path in (b"/a%2Fb", b"/a/../b", b"/a/%2e%2E/b", b"//a", b"/a%00", b"/a;b"):
        response = await example.ask(b"GET %b HTTP/1.1\nHost: a" % path)
        assert response.status == 400 and b"ambiguous_path" in response[b"proxy-status"]


async def redirect(example: Example) -> None:
    for target, location in ((b"/old", b"/new"), (b"/old/x?a=b", b"/new?a=b")):
        response = await example.ask(b"GET %b HTTP/1.1\nHost: a" % target)
        assert (response.status, response[b"location"]) == (308, location)


async def rewrite(example: Example) -> None:
    seen = await example.seen(b"GET /shop/cart?x HTTP/1.1\nHost: a\nX-Tenant: blue")
    assert (seen["start"], seen["x-forwarded-prefix"]) == ("GET /base/cart?x HTTP/1.1", "/shop")
    response = await example.ask(b"GET /shop/ HTTP/1.1\nHost: a\nX-Tenant: blue")
    assert (response[b"location"], response[b"set-cookie"]) == (b"/shop/login", b"a=b; Path=/shop/")
    seen = await example.seen(b"GET /shop/cart HTTP/1.1\nHost: a\nX-Tenant: red")
    assert seen["start"] == "GET /base/shop/cart HTTP/1.1"


async def tunnel(example: Example) -> None:
    client = await example.client(b"GET /chat HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: websocket")
    assert (await client.head()).status == 101
    await client.send(b"hello")
    assert await client.reader.readexactly(5) == b"hello"
    client.writer.write_eof()
    assert await client.ends() == b""
    client.close()
    assert await logs(example, "/chat", "bytes_out") == 5
    seen = await example.seen(b"POST /chat HTTP/1.1\nHost: a\ncontent-length: 0")
    assert seen["start"] == "POST /base/chat HTTP/1.1"


async def limits(example: Example) -> None:
    for head, status in (
        (b"GET /%b HTTP/1.1\nHost: a" % (b"x" * 9000), 414),
        (b"GET / HTTP/1.1\nHost: a\nX: %b" % (b"x" * 40_000), 431),
        (b"GET / HTTP/1.1\nHost: a\n" + b"\n".join([b"X: y"] * 100), 431),
        (b"POST / HTTP/1.1\nHost: a\ncontent-length: %d" % (2 << 30), 413),
    ):
        assert (await example.ask(head)).status == status


@pytest.mark.parametrize("check", [base_path, identity, paths, redirect, rewrite, tunnel, limits])
def test_the_example(gateway: Start, tmp_path: Path, check: Check) -> None:
    @live
    async def run() -> None:
        async with AsyncExitStack() as stack:
            app = await stack.enter_async_context(Origin(answering(told)))
            talk = await stack.enter_async_context(Origin(chat))
            env = {"RUN_DIR": str(tmp_path / "g0"), "WEB": "127.0.0.1:0", "APP_1": app.address, "CHAT_1": talk.address}
            started = gateway(EXAMPLE.read_text(), tmp_path / "g0", env=env)
            await check(Example(started))

    run()
