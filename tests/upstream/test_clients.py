"""Servers that are asked beside the data path: over real sockets, in the clear and over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from gateway.config.values import parse_http_url
from gateway.errors import (
    AnswerTooLong,
    BadResponse,
    ConnectFailed,
    ConnectionCut,
    OutOfTime,
    ResponseTimeout,
    StartError,
)
from gateway.metrics.plan import UPSTREAM_OPENED, UPSTREAM_REUSED
from gateway.scoreboard import Fact, Scoreboard
from gateway.upstream.clients import Clients, Server, lines_of
from gateway.upstream.reply import Patience
from gateway.worker.assembly import running_wheel
from tests.listeners.site import chunked, until
from tests.upstream.names import Names
from tests.upstream.peer import Handler, Message, Origin, Peer, always, answering, closed_port, live, noting, ok


class Desk:
    """Clients on a scoreboard of their own. An async context manager: on leaving it nothing is open any more."""

    def __init__(self, most_pools: int = 64) -> None:
        self.cells = Scoreboard.create().take(1, [])
        self._most = most_pools

    async def __aenter__(self) -> Desk:
        self.clients = Clients(running_wheel(), self.cells, self._most)
        return self

    def server(self, origin: Origin, path: str = "/", **more: Any) -> Server:
        return self.clients.server(f"http://{origin.address}{path}", **more)

    @property
    def opened(self) -> int:
        return int(self.clients._series[UPSTREAM_OPENED])

    @property
    def reused(self) -> int:
        return int(self.clients._series[UPSTREAM_REUSED])

    @property
    def open(self) -> int:
        return int(self.cells[Fact.UPSTREAM_OPEN])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.clients.close()
        await until(lambda: not self.open)


def scripted(*acts: Handler) -> Handler:
    """A handler for each connection in turn."""
    left = list(acts)

    async def handler(peer: Peer) -> None:
        await left.pop(0)(peer)

    return handler


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.ends()


# Asking.


@live
async def test_a_connection_is_kept_and_nothing_is_added() -> None:
    seen: list[Message] = []
    async with Origin(noting(seen, lambda request: ok(b"keys", b"ETag: x\r\n"))) as origin, Desk() as desk:
        server = desk.server(origin, "/keys?a=%2F")
        for _ in range(3):
            answer = await server.ask(lines=lines_of([(b"Accept", b"application/json")]))
            assert (answer.status, answer.body, answer.value(b"etag")) == (200, b"keys", b"x")
        assert (origin.accepted, desk.opened, desk.reused, desk.open) == (1, 1, 2, 1)
        host = origin.address.encode()
        assert seen[0].head == b"GET /keys?a=%%2F HTTP/1.1\r\nhost: %b\r\nAccept: application/json\r\n\r\n" % host
        assert (await desk.clients.ask(b"GET", f"http://{origin.address}/other")).status == 200
        assert origin.accepted == 1, "the pool is the server's, whoever asks"


@live
async def test_targets_and_hosts_go_as_they_are() -> None:
    seen: list[Message] = []
    async with Origin(noting(seen, lambda request: ok())) as origin, Desk() as desk:
        await desk.server(origin).ask(target=b"//a/../b%zz?\xff", host=b"app.test")
        assert seen[0].start == b"GET //a/../b%zz?\xff HTTP/1.1" and seen[0][b"host"] == b"app.test"


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"GET"])
def test_a_body(method: bytes) -> None:
    @live
    async def test() -> None:
        seen: list[Message] = []
        async with Origin(noting(seen, lambda request: ok(request.body))) as origin, Desk() as desk:
            assert (await desk.server(origin).ask(method, body=b"token=x")).body == b"token=x"
            assert (await desk.server(origin).ask(method)).body == b""
            assert (b"content-length" in seen[1]) == (method != b"GET")
            assert origin.accepted == 1

    test()


@live
async def test_how_answers_end() -> None:
    answers = {
        b"/length": ok(b"x" * 1000),
        b"/chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"a", b"bc"),
        b"/none": b"HTTP/1.1 204 No Content\r\n\r\n",
        b"/interim": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok(b"final"),
        b"/redirect": b"HTTP/1.1 302 Found\r\nlocation: /length\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n",
    }

    def answer(request: Message) -> bytes:
        return answers[request.start.split(b" ")[1]]

    async with Origin(answering(answer)) as origin, Desk() as desk:
        server = desk.server(origin)
        assert (await server.ask(target=b"/length")).body == b"x" * 1000
        assert (await server.ask(target=b"/chunked")).body == b"abc"
        assert (await server.ask(target=b"/none")).status == 204
        assert (await server.ask(target=b"/interim")).body == b"final"
        redirect = await server.ask(target=b"/redirect")
        assert (redirect.status, redirect.value(b"location")) == (302, b"/length"), "nobody goes there"
        assert origin.accepted == 1


@live
async def test_head_has_no_body() -> None:
    async with Origin(always(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")) as origin, Desk() as desk:
        for _ in range(2):
            assert (await desk.server(origin).ask(b"HEAD")).body == b""
        assert origin.accepted == 1


@live
async def test_a_body_that_ends_with_the_connection() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of ")
        await peer.send(b"it")

    async with Origin(handler) as origin, Desk() as desk:
        assert (await desk.server(origin).ask()).body == b"all of it"
        assert (await desk.server(origin).ask()).body == b"all of it"
        assert origin.accepted == 2


# What goes wrong.


@live
async def test_nobody_is_there() -> None:
    async with Desk() as desk:
        with pytest.raises(ConnectFailed, match="Connection refused") as raised:
            await desk.clients.ask(b"GET", f"http://127.0.0.1:{closed_port()}/")
        assert not raised.value.sent and raised.value.reason == "connection_refused"


@live
async def test_a_kept_connection_that_is_closed_meanwhile() -> None:
    """One that breaks as it is used is no failure of a request that may be made twice; of another one it is."""

    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await peer.request()  # and no answer: it closes

    async with Origin(scripted(once, always(ok(b"second")))) as origin, Desk() as desk:
        assert (await desk.server(origin).ask()).body == b"first"
        assert (await desk.server(origin).ask()).body == b"second"
        assert origin.accepted == 2
    async with Origin(scripted(once, always(ok()))) as origin, Desk() as desk:
        await desk.server(origin).ask()
        with pytest.raises(ConnectionCut):
            await desk.server(origin).ask(b"POST", body=b"charge")
        assert origin.accepted == 1


@pytest.mark.parametrize(
    "answer, error",
    [
        (b"", ConnectionCut),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", ConnectionCut),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", ConnectionCut),
        (b"SSH-2.0-OpenSSH\r\n", BadResponse),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", BadResponse),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", BadResponse),
    ],
)
def test_answers_that_break(answer: bytes, error: type[Exception]) -> None:
    @live
    async def test() -> None:
        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(answer)

        async with Origin(handler) as origin, Desk() as desk:
            with pytest.raises(error):
                await desk.server(origin).ask()

    test()


@live
async def test_a_server_that_says_nothing() -> None:
    async with Origin(silent) as origin, Desk() as desk:
        server = desk.server(origin)
        with pytest.raises(OutOfTime):
            await server.ask(within=0.05)
        with pytest.raises(ResponseTimeout, match=r"no response within 0\.05 s"):
            await server.open(patience=Patience(response=0.05))
        await until(lambda: not desk.open)


@live
async def test_the_time_is_for_all_of_the_answer() -> None:
    """However little by little it comes."""

    async def drips(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.01)

    async with Origin(drips) as origin, Desk() as desk:
        with pytest.raises(OutOfTime, match="in the middle of the answer"):
            await desk.server(origin).ask(within=0.2, most=1 << 20)
        await until(lambda: not desk.open)


@live
async def test_an_answer_has_its_bounds() -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"400\r\n" + b"x" * 1024 + b"\r\n")

    async with Origin(endless) as origin, Desk() as desk:
        with pytest.raises(AnswerTooLong, match="more than 5000 bytes"):
            await desk.server(origin).ask(most=5000)
        await until(lambda: not desk.open)
    async with Origin(always(ok(b"x" * 5001))) as origin, Desk() as desk:
        with pytest.raises(AnswerTooLong):
            await desk.server(origin).ask(most=5000)
        assert len((await desk.server(origin).ask(most=5001)).body) == 5001


@live
async def test_who_leaves_in_the_middle_leaves_nothing_for_the_next() -> None:
    """The answer to a request that was given up must not be taken for that to another."""
    gate = asyncio.Event()

    async def slow(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await gate.wait()
            await peer.send(ok(request.start.split(b" ")[1]))

    async with Origin(slow) as origin, Desk() as desk:
        server = desk.server(origin)
        tasks = [asyncio.ensure_future(server.ask(target=b"/%d" % number)) for number in range(20)]
        await until(lambda: origin.accepted == 20)
        for task in tasks[::2]:
            task.cancel()
        gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 2:
                assert not isinstance(answer, BaseException) and answer.body == b"/%d" % number
            else:
                assert isinstance(answer, asyncio.CancelledError)
        for number in range(30):
            assert (await server.ask(target=b"/again%d" % number)).body == b"/again%d" % number
        await until(lambda: desk.open <= 10)


@live
async def test_cancelled_while_it_connects_or_waits() -> None:
    async with Origin(silent) as origin, Desk() as desk:
        server = desk.server(origin)
        for pauses in range(12):
            task = asyncio.ensure_future(server.ask())
            for _ in range(pauses):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: not desk.open)


# Streams.


@live
async def test_an_answer_is_read_no_faster_than_it_is_taken() -> None:
    sent = 0

    async def pours(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 << 20))
        for _ in range(64):
            await peer.send(b"x" * (1 << 20))
            sent += 1

    async with Origin(pours) as origin, Desk() as desk:
        reply = await desk.server(origin).open(patience=Patience())
        assert reply.head.status == 200
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert sent < 32
        size = 0
        async for part in reply.parts():
            size += len(part)
        assert size == 64 << 20
        reply.close()
        reply.close()
        assert desk.open == 1


@live
async def test_an_answer_that_is_given_up_costs_its_connection() -> None:
    async with Origin(always(ok(b"x" * 300_000))) as origin, Desk() as desk:
        server = desk.server(origin)
        reply = await server.open()
        async for _ in reply.parts():
            break
        reply.close()
        await until(lambda: not desk.open)
        async for _ in reply.parts():
            raise AssertionError("it is closed")
        assert len((await server.ask(most=1 << 20)).body) == 300_000


async def parts(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


@live
async def test_bodies_in_parts() -> None:
    seen: list[Message] = []
    async with Origin(noting(seen, lambda request: ok(request.body))) as origin, Desk() as desk:
        server = desk.server(origin)
        for length in (-1, 5):
            reply = await server.open(b"POST", body=parts(b"ab", b"", b"cde"), length=length)
            assert await reply.whole() == b"abcde"
            reply.close()
        assert b"transfer-encoding" in seen[0] and seen[1][b"content-length"] == b"5"
        assert origin.accepted == 1


@pytest.mark.parametrize("length", [2, 100])
def test_a_body_that_is_not_what_it_says(length: int) -> None:
    @live
    async def test() -> None:
        async with Origin(always(ok())) as origin, Desk() as desk:
            with pytest.raises(ValueError, match=r"bytes that were announced"):
                await desk.server(origin).open(b"POST", body=parts(b"abc", b"def"), length=length)
            await until(lambda: not desk.open)

    test()


@live
async def test_a_body_that_breaks_ends_the_exchange() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise LookupError("no more")

    async with Origin(always(ok())) as origin, Desk() as desk:
        with pytest.raises(LookupError, match="no more"):
            await desk.server(origin).open(b"POST", body=broken())
        await until(lambda: not desk.open)


@live
async def test_an_answer_may_come_before_the_body_is_sent() -> None:
    async def hasty(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
        await peer.ends()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.001)
            yield b"x"

    async with Origin(hasty) as origin, Desk() as desk:
        reply = await desk.server(origin).open(b"POST", body=endless())
        assert (reply.head.status, await reply.whole()) == (413, b"no")
        reply.close()
        await until(lambda: not desk.open)


# Pools.


@live
async def test_pools_are_bounded() -> None:
    async with (
        Origin(always(ok())) as one,
        Origin(always(ok())) as two,
        Origin(always(ok())) as three,
        Desk(most_pools=2) as desk,
    ):
        first = desk.server(one)
        await first.ask()
        await desk.server(two).ask()
        await first.ask()
        await desk.server(three).ask()
        await until(lambda: desk.open == 2)
        await first.ask()
        assert one.accepted == 1, "it was the other that made room"
        await desk.server(two).ask()
        assert two.accepted == 2


# TLS.


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path)


def test_over_tls(names: Names) -> None:
    asked: list[str | None] = []
    context = names.context("localhost")
    context.sni_callback = lambda sock, name, context: asked.append(name)

    @live
    async def test() -> None:
        async with Origin(always(ok(b"x" * 500_000)), context) as origin, Desk() as desk:
            server = desk.clients.server(f"https://localhost:{origin.port}/", ca=names.file)
            for _ in range(3):
                assert len((await server.ask(most=1 << 20)).body) == 500_000
            assert (origin.accepted, desk.reused, asked) == (1, 2, ["localhost"])
            reply = await server.open(b"POST", body=parts(*[b"x" * 100_000] * 20))
            assert len(await reply.whole(1 << 20)) == 500_000
            reply.close()
            assert origin.accepted == 1

    test()


def test_over_tls_to_a_certificate_that_is_not_good(names: Names, tmp_path: Path) -> None:
    @live
    async def test() -> None:
        async with Origin(always(ok()), names.context("other.test")) as origin, Desk() as desk:
            url = f"https://localhost:{origin.port}/"
            with pytest.raises(ConnectFailed, match=r"certificate verify failed: .*(signed|issuer)"):
                await desk.clients.server(url).ask()
            with pytest.raises(ConnectFailed, match="certificate verify failed: Hostname mismatch"):
                await desk.clients.server(url, ca=names.file).ask()
            named = desk.clients.server(url, ca=names.file, server_name="other.test")
            assert (await named.ask()).status == 200
            assert (await desk.clients.server(url, verify=False).ask()).status == 200
            await until(lambda: desk.open == 2)
            assert origin.accepted >= 2

    test()


def test_over_tls_to_somebody_who_does_not_speak_it(names: Names) -> None:
    async def plain(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    @live
    async def test() -> None:
        async with Origin(plain) as origin, Desk() as desk:
            with pytest.raises(ConnectFailed):
                await desk.clients.server(f"https://localhost:{origin.port}/", ca=names.file).ask()

    test()


@pytest.mark.parametrize("orderly", [True, False])
def test_a_body_that_ends_with_the_connection_over_tls(names: Names, orderly: bool) -> None:
    """Whoever can cut a connection must not be able to cut a body short unseen (RFC 9112, section 9.8)."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nallow: all\ndeny")
        await asyncio.sleep(0.05)
        if not orderly:
            peer.writer.transport.abort()

    @live
    async def test() -> None:
        async with Origin(handler, names.context("localhost")) as origin, Desk() as desk:
            asked = desk.clients.server(f"https://localhost:{origin.port}/", ca=names.file).ask()
            if orderly:
                assert (await asked).body == b"allow: all\ndeny"
            else:
                with pytest.raises(ConnectionCut):
                    await asked

    test()


def test_a_kept_tls_connection_that_the_server_closes(names: Names) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())

    @live
    async def test() -> None:
        async with Origin(once, names.context("localhost")) as origin, Desk() as desk:
            server = desk.clients.server(f"https://localhost:{origin.port}/", ca=names.file)
            for number in range(1, 6):
                assert (await server.ask(b"POST")).status == 200, "nothing is sent on a connection that is closed"
                await until(lambda: not desk.open)
                assert origin.accepted == number

    test()


def test_cancelled_while_it_shakes_hands(names: Names) -> None:
    @live
    async def test() -> None:
        async def mute(peer: Peer) -> None:
            await peer.ends()

        async with Origin(mute) as origin, Desk() as desk:
            server = desk.clients.server(f"https://localhost:{origin.port}/", ca=names.file)
            task = asyncio.ensure_future(server.ask())
            await until(lambda: origin.accepted)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not desk.open
            with pytest.raises(OutOfTime, match="no connection before"):
                await server.ask(within=0.1)

    test()


def test_files_that_hold_no_certificates(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")

    @live
    async def test() -> None:
        async with Desk() as desk:
            with pytest.raises(StartError, match=r"jwks_ca: .* holds no certificates"):
                desk.clients.server("https://a.test/", ca=str(path), key="jwks_ca")

    test()


# What is taken.


@pytest.mark.parametrize(
    "url, origin, target",
    [
        ("http://a", "http://a", "/"),
        ("HTTP://A.test:80/x", "http://a.test", "/x"),
        ("https://a:443?b=%20", "https://a", "/?b=%20"),
        ("https://a:8443/B//c", "https://a:8443", "/B//c"),
        ("http://[::1]:8080/", "http://[::1]:8080", "/"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]", "/"),
    ],
)
def test_urls(url: str, origin: str, target: str) -> None:
    read = parse_http_url(url)
    assert (read.origin, read.target, str(read)) == (origin, target, origin + target)


@pytest.mark.parametrize(
    "url",
    [
        7,
        "",
        "a/b",
        "ftp://a/",
        "http://",
        "http:///x",
        "http://u:p@a/",
        "http://a/#x",
        "http://a/ b",
        "http://a/\r\nx: y",
        "http://a:0/",
        "http://a:99999/",
        "http://a:/",
        "http://10.0.0.256/",
        "http://ä/",
        "http://a/%zz",
    ],
)
def test_what_is_no_url(url: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a URL such as"):
        parse_http_url(url)


def test_fields_that_are_taken() -> None:
    pairs = [(b"a", b"b c"), (b"Host", b"x"), (b"Content-Length", b"5"), (b"TE", b"x"), (b"empty", b"")]
    assert lines_of(pairs) == b"\r\na: b c\r\nempty: "
    for bad in ((b"a b", b"c"), (b"", b"c"), (b"a", b"b\r\nc: d"), (b"a", b"b\nc"), (b"a\r\n", b"b"), (b"a", b"\0")):
        with pytest.raises(ValueError, match="not a header field"):
            lines_of([bad])
