"""The contract of a layer, over the table of all kinds: what has nothing to do with a request changes nothing of it."""

from __future__ import annotations

import asyncio
import hashlib
import tomllib
import tracemalloc
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load
from gateway.config.model import Config
from gateway.config.problems import ConfigErrors
from gateway.middleware import KINDS, MIDDLEWARE
from gateway.worker.assembly import check
from tests.listeners.site import Site, get, until
from tests.middleware.passing import PASSING
from tests.upstream.peer import Origin, Peer, always, live, ok

every = pytest.mark.parametrize("kind", MIDDLEWARE)
MANY = 12  # MiB of body in each direction
PIECE = 64 * 1024


def test_every_kind_is_tested() -> None:
    assert PASSING.keys() == MIDDLEWARE.keys()


class Rig:
    """A gateway with a layer of one kind that lets requests pass."""

    def __init__(self, kind: str, folder: Path, origin: Callable[[Peer], Any]) -> None:
        self._kind = kind
        self._folder = folder
        self._handler = origin
        self.fields = PASSING[kind].fields
        self.site: Site
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Rig:
        origin = await self._stack.enter_async_context(Origin(self._handler))
        yes = await self._stack.enter_async_context(Origin(always(ok())))
        layer = {"kind": self._kind, **PASSING[self._kind].options(self._folder, yes.address)}
        routes = [{"name": "app", "upstream": "app", "upgrade": "any", "middleware": [layer]}]
        site = Site(
            origin, routes=routes, trusted_proxies=["127.0.0.1"], python_path=[str(self._folder)], timeouts={}
        )
        self.site = await self._stack.enter_async_context(site)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)


@every
def test_the_example_of_its_documentation_is_accepted(kind: str, tmp_path: Path) -> None:
    example = MIDDLEWARE[kind].EXAMPLE
    assert tomllib.loads(f"layer = {example}")["layer"]["kind"] == kind
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[[listeners]]\nname = "web"\nlisten = ":0"\n[[routes]]\nname = "a"\nrespond = {}\n'
        f"middleware = [{example}]\n"
    )
    [layer] = load(file, {}, KINDS).routes[0].middleware
    assert not isinstance(layer, str) and layer.kind == kind


@every
def test_a_key_that_it_does_not_know_is_refused_with_its_place(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    text = f'[[listeners]]\nname = "web"\nlisten = ":0"\n[[middleware]]\nkind = "{kind}"\nnonsense = 1\n'
    file.write_text(text)
    with pytest.raises(ConfigErrors) as raised:
        load(file, {}, KINDS)
    places = [(error.line, error.key) for error in raised.value.errors]
    assert (6, "middleware[0].nonsense") in places


@every
def test_bodies_stream_both_ways_untouched_and_unkept(kind: str, tmp_path: Path) -> None:
    """The origin sends back what comes, piece by piece, while more is still coming."""

    async def echo(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            size = int(await peer.reader.readuntil(b"\r\n"), 16)
            piece = await peer.reader.readexactly(size + 2)
            await peer.send(b"%x\r\n%b" % (size, piece))
            if not size:
                return

    sent, came = hashlib.sha256(), hashlib.sha256()

    @live
    async def test() -> None:
        async with Rig(kind, tmp_path, echo) as rig:
            head = b"POST /x HTTP/1.1\r\nHost: a\r\n" + rig.fields + b"Transfer-Encoding: chunked\r\n\r\n"
            peer = await rig.site.client(head)

            async def upload() -> None:
                for number in range(MANY * 1024 * 1024 // PIECE):
                    piece = number.to_bytes(4, "big") * (PIECE // 4)
                    sent.update(piece)
                    await peer.send(b"%x\r\n%b\r\n" % (PIECE, piece))
                await peer.send(b"0\r\n\r\n")

            uploading = asyncio.ensure_future(upload())
            answer = await peer.head()
            assert answer.status == 200 and answer[b"x-a"] == b"b"
            tracemalloc.start()
            while size := int(await peer.reader.readuntil(b"\r\n"), 16):
                came.update((await peer.reader.readexactly(size + 2))[:-2])
            await uploading
            # Buffers of four sockets and both directions; the whole would be several times as much.
            assert tracemalloc.get_traced_memory()[1] < MANY * 1024 * 1024 / 3
        assert came.digest() == sent.digest()

    try:
        test()
    finally:
        tracemalloc.stop()


@every
def test_the_first_piece_arrives_before_the_second_is_sent(kind: str, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slowly(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none")
        await go_on.wait()
        await peer.send(b"two")

    @live
    async def test() -> None:
        async with Rig(kind, tmp_path, slowly) as rig:
            peer = await rig.site.client(get(fields=rig.fields))
            answer = await peer.head()
            assert await peer.reader.readexactly(3) == b"one"
            go_on.set()
            assert await peer.reader.readexactly(3) == b"two" and answer[b"content-length"] == b"6"

    test()


@every
def test_a_client_that_leaves_leaves_nothing(kind: str, tmp_path: Path) -> None:
    """In the request body, while nothing is answered, and in the response body. The site checks that nothing is
    left."""

    async def half(peer: Peer) -> None:
        head = await peer.head()
        if head.start.startswith(b"GET /half"):
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nsome")
        await peer.ends()

    @live
    async def test() -> None:
        async with Rig(kind, tmp_path, half) as rig:
            for request in (
                b"POST /body HTTP/1.1\r\nHost: a\r\n" + rig.fields + b"Content-Length: 9\r\n\r\nfour",
                get(b"/silent", rig.fields),
                get(b"/half", rig.fields),
            ):
                peer = await rig.site.client(request)
                if b"/half" in request:
                    await peer.reader.readuntil(b"some")
                else:
                    await until(lambda: rig.site.upstream.endpoints[0].in_flight == 1)
                peer.reset()
                assert (await rig.site.exchange()).reason == "client_gone"

    test()


@every
def test_trailers_interim_heads_and_other_protocols_pass(kind: str, tmp_path: Path) -> None:
    async def app(peer: Peer) -> None:
        while b"upgrade" not in await peer.head():
            await peer.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n")
            await peer.send(b"2\r\nok\r\n0\r\nx-t: 1\r\n\r\n")
        await peer.send(b"HTTP/1.1 101 -\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nhi")
        await peer.ends()

    @live
    async def test() -> None:
        async with Rig(kind, tmp_path, app) as rig:
            peer = await rig.site.client(get(fields=rig.fields + b"TE: trailers\r\nConnection: te\r\n"))
            assert (await peer.head()).status == 103
            assert (await peer.head()).status == 200
            assert await peer.reader.readuntil(b"x-t: 1\r\n\r\n") == b"2\r\nok\r\n0\r\nx-t: 1\r\n\r\n"
            peer = await rig.site.client(get(fields=rig.fields + b"Connection: upgrade\r\nUpgrade: foo\r\n"))
            assert (await peer.head()).status == 101 and await peer.reader.readexactly(2) == b"hi"
            peer.close()

    test()


@every
@pytest.mark.parametrize("how", ["at_once", "after_the_start", "in_the_body", "by_a_cut"])
def test_an_application_that_fails_is_answered_once(kind: str, how: str, tmp_path: Path) -> None:
    async def app(peer: Peer) -> None:
        await peer.head()
        if how == "after_the_start":
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
        elif how == "in_the_body":
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        elif how == "at_once":
            await peer.send(b"this is no HTTP at all\r\n\r\n")

    @live
    async def test() -> None:
        async with Rig(kind, tmp_path, app) as rig:
            peer = await rig.site.client(get(fields=rig.fields))
            heard = await peer.ends() if how in ("after_the_start", "in_the_body") else (await peer.response()).head
            assert heard.count(b"HTTP/1.1 ") <= 1
            if how in ("at_once", "by_a_cut"):
                assert heard.startswith(b"HTTP/1.1 502 ")
            assert (await rig.site.exchange()).reason in ("http_protocol_error", "connection_terminated")

    test()


@every
def test_it_is_built_where_no_event_loop_runs(kind: str, tmp_path: Path) -> None:
    """As in the master, which only tries a configuration: nothing may be begun there."""
    layer = {"kind": kind, **PASSING[kind].options(tmp_path, "127.0.0.1:1")}
    web = {"name": "web", "listen": ":0"}
    check(Config.model_validate({"listeners": [web], "middleware": [layer]}, context=KINDS))
