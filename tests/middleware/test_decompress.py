"""Request bodies that are expanded."""

from __future__ import annotations

import asyncio
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import brotli
import pytest

from gateway.errors import Refused
from gateway.middleware.decompress import Decompress
from gateway.middleware.middleware import Message
from tests.listeners.site import get
from tests.middleware.rig import Asking, Inner, ask, asking, layer, scope_of
from tests.middleware.surroundings import place, refused
from tests.middleware.test_codings import coded
from tests.upstream.peer import live


def post(coding: str, more: bytes = b"", length: str = "transfer-encoding: chunked") -> bytes:
    fields = b"content-encoding: %b\r\n%b\r\n%b" % (coding.encode(), length.encode(), more)
    return get(b"/x", fields, b"POST")


@live
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate", "br", "zstd"])
async def test_a_body_goes_on_as_it_was(coding: str) -> None:
    body = coded(coding.lower().encode(), b"hello " * 1000)
    inner = Inner(b"ok")
    request = post(coding, b"x-a: 1\r\ncontent-digest: sha-256=:x:\r\n", f"content-length: {len(body)}")
    answer = await ask(layer(Decompress, inner), request, [body[:10], b"", body[10:]])
    [asked] = inner.asked
    assert answer.status == 200 and asked.body == b"hello " * 1000
    assert asked.head.length == -1 and asked.all(b"x-a") == [b"1"]
    for name in (b"content-encoding", b"content-length", b"content-digest"):
        assert not asked.all(name)


@live
async def test_two_codings_are_undone_from_the_last() -> None:
    body = coded(b"br", coded(b"gzip", b"hello"))
    inner = Inner(b"ok")
    await ask(layer(Decompress, inner), post("gzip, br"), [body])
    assert inner.asked[0].body == b"hello"
    await ask(layer(Decompress, inner), post("gzip\r\ncontent-encoding: br"), [body[:5], body[5:]])
    assert inner.asked[1].body == b"hello"


@live
async def test_what_is_not_coded_is_left_alone() -> None:
    inner = Inner(b"ok")
    one = layer(Decompress, inner)
    await ask(one, get(b"/", b"content-length: 5\r\n", b"POST"), [b"hello"])
    await ask(one, get(b"/", b"content-encoding: gzip\r\n"))
    await ask(one, post("identity", length="content-length: 5"), [b"hello"])
    plain, bodyless, identity = inner.asked
    assert plain.body == identity.body == b"hello"
    assert plain.head.length == identity.head.length == 5
    assert not bodyless.body and not identity.all(b"content-encoding")


@live
async def test_an_empty_body_has_no_coding_however_its_length_is_told() -> None:
    for length, told in (("transfer-encoding: chunked", -1), ("content-length: 0", 0), ("x-a: b", 0)):
        inner = Inner(b"ok")
        await ask(layer(Decompress, inner), post("gzip", length=length), [b""])
        [asked] = inner.asked
        assert asked.body == b"" and not asked.all(b"content-encoding") and asked.head.length == told
    inner = Inner(b"ok")
    assert (await ask(layer(Decompress, inner), post("snappy", length="content-length: 0"), [b""])).status == 200
    assert inner.asked[0].all(b"content-encoding") == [b"snappy"]


@live
@pytest.mark.parametrize("coding", ["snappy", "gzip, snappy", "gzip, gzip, gzip"])
async def test_an_unknown_coding(coding: str) -> None:
    inner, there = Inner(b"ok"), place()
    answer = await ask(layer(Decompress, inner, there), post(coding), [b"x"])
    assert (answer.status, answer.reason, refused(there)) == (415, "content_coding_unknown", 1)
    assert answer[b"accept-encoding"] == b"gzip, deflate, br, zstd" and not inner.was_asked
    await ask(layer(Decompress, inner, unknown="pass"), post(coding), [b"x"])
    assert inner.asked[0].body == b"x" and inner.asked[0].all(b"content-encoding") == [coding.encode()]


@live
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_what_is_no_such_body(coding: str) -> None:
    body = coded(coding.encode(), b"hello " * 100)
    for wrong in (body[:-1], body + b"x", b"hello", body[:5] + b"\xff" + body[6:] + b"\xff"):
        with pytest.raises(Refused) as caught:
            await ask(layer(Decompress, Inner()), post(coding), [wrong[:3], wrong[3:]])
        assert caught.value.reason == "content_coding_broken"


def pouring(exchange: Asking, body: Iterator[bytes]) -> tuple[Any, Any]:
    """A layer's receive for a body that never ends by itself."""

    async def receive() -> Message:
        piece = next(body, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    return scope_of(exchange), receive


class Counting:
    """An application that takes a body and keeps nothing of it."""

    def __init__(self) -> None:
        self.size = 0
        self.largest = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            self.size += len(message["body"])
            self.largest = max(self.largest, len(message["body"]))
            more = message["more_body"]
        scope["gateway"].begun = True


def zeros(coding: bytes, size: int) -> Iterator[bytes]:
    """A body of so many zeros, in messages of 16 KiB at the most."""
    body = brotli.compress(bytes(size), quality=5) if coding == b"br" else coded(coding, bytes(size))
    yield from (body[at : at + 16384] for at in range(0, len(body), 16384))


async def unused(message: Message) -> None:
    raise AssertionError


@live
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_a_bomb(coding: str) -> None:
    bomb = [*zeros(coding.encode(), 128 << 20)]
    app = Counting()
    one = layer(Decompress, app)
    scope, receive = pouring(asking(post(coding)), iter(bomb))
    tracemalloc.start()
    with pytest.raises(Refused) as caught:
        await one(scope, receive, unused)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.reason == "body_too_large"
    assert app.size <= (1 << 20) + 100 * sum(map(len, bomb)) and app.largest <= 128 * 1024
    assert peak < 2 << 20


@live
async def test_a_large_body_takes_little_memory() -> None:
    """64 MiB that shrink to a thousandth, which is allowed here."""
    app = Counting()
    one = layer(Decompress, app, max_ratio=2000)
    scope, receive = pouring(asking(post("gzip")), iter([*zeros(b"gzip", 64 << 20)]))
    tracemalloc.start()
    await one(scope, receive, unused)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert app.size == 64 << 20 and peak < 2 << 20
    body = b"x" * 3000
    small = layer(Decompress, Inner(), max_size="2KiB")
    with pytest.raises(Refused, match="3000 and more"):
        await ask(small, post("gzip"), [gzip.compress(body)])


@live
async def test_a_bomb_that_comes_to_nothing() -> None:
    """Empty blocks of deflate within another coding: endless work for the inner one, and not a byte of it comes out."""
    head = zlib.compressobj(6, wbits=31).compress(b"")
    empty = b"\x00\x00\x00\xff\xff" * ((64 << 20) // 5)
    app = Counting()
    one = layer(Decompress, app)
    body = coded(b"gzip", head + empty)
    scope, receive = pouring(asking(post("gzip, gzip")), iter([body]))
    with pytest.raises(Refused) as caught:
        await one(scope, receive, unused)
    assert caught.value.reason == "body_too_large" and not app.size


@live
@pytest.mark.parametrize("coding", ["zstd", "gzip"])
async def test_members_that_hold_nothing(coding: str) -> None:
    """A few bytes that become thousands of members, each of which costs work."""
    body = coded(b"zstd", coded(coding.encode(), b"") * 9999)
    assert len(body) < 60
    with pytest.raises(Refused, match="33 members") as caught:
        await ask(layer(Decompress, Inner()), post(f"{coding}, zstd"), [body])
    assert caught.value.reason == "body_too_large"
    with pytest.raises(Refused, match=r"\d\d members"):
        await ask(layer(Decompress, Inner()), post(coding), [coded(coding.encode(), b"") * 60])


@live
@pytest.mark.parametrize("coding", ["zstd", "gzip"])
async def test_many_small_files_behind_one_another(coding: str) -> None:
    inner = Inner(b"ok")
    small = [coded(coding.encode(), bytes(random.randbytes(60))) for _ in range(1000)]
    await ask(layer(Decompress, inner), post(coding), [b"".join(small)])
    assert len(inner.asked[0].body) == 60_000


@live
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "gzip, gzip"])
async def test_others_have_their_turn_meanwhile(coding: str) -> None:
    """Nothing here waits for anything, and yet another task goes on before the body is done."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(other())
    body = coded(coding.encode().partition(b",")[0], bytes(8 << 20))
    if "," in coding:
        body = coded(b"gzip", body)
    scope, receive = pouring(asking(post(coding)), iter([body]))
    await layer(Decompress, Counting(), max_ratio=1_000_000)(scope, receive, unused)
    task.cancel()
    assert turns > 30


@live
async def test_a_client_that_leaves() -> None:
    heard: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not heard or heard[-1]["type"] == "http.request":
            heard.append(await receive())

    coming = iter([{"type": "http.request", "body": coded(b"gzip", b"hello")[:-8], "more_body": True}])

    async def receive() -> Message:
        return next(coming, {"type": "http.disconnect"})

    await layer(Decompress, app)(scope_of(asking(post("gzip"))), receive, unused)
    assert heard[-1] == {"type": "http.disconnect"} and heard[0]["body"] == b"hello"
