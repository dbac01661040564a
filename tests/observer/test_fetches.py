"""What the observer fetches, when, and how the master hears of it: servers are real, times are short."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.child import hear
from gateway.documents import Documents, Look, Wanted
from gateway.documents import heard as read
from gateway.observer.fetches import Fetches, again
from gateway.scoreboard import Scoreboard
from gateway.upstream.clients import Clients
from gateway.worker.assembly import running_wheel
from tests.listeners.site import until
from tests.upstream.names import Names
from tests.upstream.peer import Message, Origin, Peer, always, live, noting, ok


class Observer:
    """Fetches and the master's end of the channel."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (self.ours, self.theirs):
            sock.setblocking(False)

    async def run(
        self, work: Callable[[Fetches, Documents], Awaitable[None]], *wanted: Wanted, known: Documents | None = None
    ) -> None:
        documents = known or Documents({one.url: one for one in wanted})
        clients = Clients(running_wheel(), Scoreboard.create().take(1, []))
        one = Fetches(documents, clients, self.theirs)
        try:
            await work(one, documents)
        finally:
            one.stop()
            clients.close()

    def heard(self) -> list[tuple[str, Look, bytes | None]]:
        """What the master has been told and not read yet."""
        found: list[tuple[str, Look, bytes | None]] = []
        while True:
            try:
                message, fds = hear(self.ours)
            except BlockingIOError:
                return found
            assert message is not None and message["say"] == "document"
            found.append(read(message, fds))

    async def told(self) -> tuple[str, Look, bytes | None]:
        """The next that the master hears."""
        while True:
            try:
                message, fds = hear(self.ours)
            except BlockingIOError:
                await asyncio.sleep(0.001)
                continue
            assert message is not None
            return read(message, fds)


@pytest.fixture
def observer() -> Iterator[Observer]:
    one = Observer()
    yield one
    one.ours.close()
    one.theirs.close()


def url(origin: Origin) -> str:
    return f"http://{origin.address}/keys"


def test_it_is_fetched_before_we_are_ready(observer: Observer) -> None:
    @live
    async def test() -> None:
        async with Origin(always(ok(b"keys"))) as origin:

            async def work(one: Fetches, documents: Documents) -> None:
                await one.start(10)
                [(where, look, body)] = observer.heard()
                assert (where, body, look.trouble) == (url(origin), b"keys", "")
                assert look.looked and look.fetched and not look.asked
                found = documents.get(where)
                assert found is not None and found.body == b"keys", "for the metrics"

            await observer.run(work, Wanted(url(origin)))

    test()


def test_who_takes_too_long_is_not_waited_for(observer: Observer) -> None:
    async def mute(peer: Peer) -> None:
        await peer.ends()

    @live
    async def test() -> None:
        async with Origin(mute) as origin, Origin(always(ok(b"keys"))) as other:

            async def work(one: Fetches, documents: Documents) -> None:
                await one.start(0.1)
                assert [where for where, _, _ in observer.heard()] == [url(other)]

            await observer.run(work, Wanted(url(origin)), Wanted(url(other)))

    test()


def test_what_is_known_is_not_fetched_again_at_once(observer: Observer) -> None:
    seen: list[Message] = []

    @live
    async def test() -> None:
        async with Origin(noting(seen, lambda request: ok(b"keys"))) as origin:
            one = Wanted(url(origin), refresh=60)

            async def first(fetches: Fetches, documents: Documents) -> None:
                await fetches.start(10)

            async def second(fetches: Fetches, documents: Documents) -> None:
                await fetches.start(10)
                await asyncio.sleep(0.05)
                fetches.asked(one.url)
                await until(lambda: len(seen) == 2)

            documents = Documents({one.url: one})
            await observer.run(first, known=documents)
            await observer.run(second, known=documents)
            assert len(seen) == 2

    test()


def test_it_is_confirmed_by_its_etag(observer: Observer) -> None:
    seen: list[Message] = []
    body = b"keys"

    def answer(request: Message) -> bytes:
        tag = b'"%b"' % body
        if request.all(b"if-none-match") == [tag]:
            return b"HTTP/1.1 304 Not Modified\r\netag: %b\r\n\r\n" % tag
        return ok(body, b"ETag: %b\r\n" % tag)

    @live
    async def test() -> None:
        nonlocal body
        async with Origin(noting(seen, answer)) as origin:

            async def work(one: Fetches, documents: Documents) -> None:
                nonlocal body
                await one.start(10)
                assert (await observer.told())[2] == b"keys"
                others = [await observer.told() for _ in range(3)]
                assert {(look.version, body) for _, look, body in others} == {(1, None)}
                assert [(b"if-none-match" in request) for request in seen[:3]] == [False, True, True]
                body = b"others"
                while (told := await observer.told())[2] is None:
                    pass
                assert (told[1].version, told[2]) == (2, b"others")
                assert origin.accepted == 1

            await observer.run(work, Wanted(url(origin), refresh=0.02))

    test()


@pytest.mark.parametrize(
    "says, lifetime",
    [
        (b"", 50.0),
        (b"Cache-Control: max-age=20\r\n", 20.0),
        (b"Cache-Control: public, MAX-AGE = 20, must-revalidate\r\n", 20.0),
        (b"Cache-Control: max-age=86400\r\n", 50.0),
        (b"Cache-Control: max-age=0\r\n", 5.0),
        (b"Cache-Control: s-maxage=1\r\n", 50.0),
        (b"Cache-Control: no-cache\r\n", 50.0),
    ],
)
def test_for_how_long_it_needs_no_look(observer: Observer, says: bytes, lifetime: float) -> None:
    @live
    async def test() -> None:
        async with Origin(always(ok(b"keys", says))) as origin:

            async def work(one: Fetches, documents: Documents) -> None:
                await one.start(10)
                [(_, look, _)] = observer.heard()
                assert look.lifetime == lifetime

            await observer.run(work, Wanted(url(origin), refresh=50))

    test()


@pytest.mark.parametrize(
    "answer, trouble",
    [
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "answered 304"),
        (
            b"HTTP/1.1 302 Found\r\nlocation: http://a/\r\ncontent-length: 0\r\n\r\n",
            "answered 302, to http://a/, where nobody goes",
        ),
        (ok(b"<html>"), "what came is not JSON"),
        (ok(b'["keys"]'), 'what came is not a JSON object with "keys"'),
        (ok(b'{"key": 1}'), 'what came is not a JSON object with "keys"'),
        (ok(b"x" * (256 * 1024 + 1)), "the answer has more than 262144 bytes"),
        (b"hello\r\n\r\n", "sent a malformed response (status_line_malformed)"),
    ],
)
def test_what_is_not_taken(observer: Observer, answer: bytes, trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    @live
    async def test() -> None:
        async with Origin(always(answer)) as origin:

            async def work(one: Fetches, documents: Documents) -> None:
                await one.start(10)
                [(_, look, body)] = observer.heard()
                assert (look.trouble, body, documents.get(url(origin))) == (trouble, None, None)
                assert documents.trouble(url(origin)) == trouble

            await observer.run(work, Wanted(url(origin), member="keys"))

    test()
    assert f"fetching fails: {trouble}; there is none to use" in caplog.text


def test_no_credential_of_an_address_is_told(observer: Observer, caplog: pytest.LogCaptureFixture) -> None:
    @live
    async def test() -> None:
        async with Origin(always(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")) as origin:

            async def work(one: Fetches, documents: Documents) -> None:
                await one.start(10)
                assert documents.trouble(url(origin) + "?token=hunter2")

            await observer.run(work, Wanted(url(origin) + "?token=hunter2"))

    test()
    assert "?token=(secret): fetching fails" in caplog.text and "hunter2" not in caplog.text


def test_over_tls(observer: Observer, tmp_path: Path) -> None:
    names = Names(tmp_path)

    @live
    async def test() -> None:
        async with Origin(always(ok(b"keys")), names.context("localhost")) as origin:
            good, bad = f"https://localhost:{origin.port}/a", f"https://localhost:{origin.port}/b"

            async def work(one: Fetches, documents: Documents) -> None:
                await one.start(10)
                assert documents.trouble(good) == ""
                assert documents.trouble(bad).startswith("certificate verify failed")

            await observer.run(work, Wanted(good, ca=names.file), Wanted(bad))

    test()


def test_trouble_is_told_when_it_begins_and_when_it_is_over(
    observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway")
    answers = [ok(b"a"), *[b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"] * 3, ok(b"a")]

    @live
    async def test() -> None:
        async with Origin(noting([], lambda request: answers.pop(0) if len(answers) > 1 else answers[0])) as origin:

            async def work(one: Fetches, documents: Documents) -> None:
                await one.start(10)
                assert (await observer.told())[2] == b"a"
                while len(answers) > 1 or documents.trouble(url(origin)):
                    assert (await observer.told())[2] is None

            await observer.run(work, Wanted(url(origin), refresh=0.02))

    test()
    assert caplog.text.count("fetching fails: answered 503; the last one stays in use") == 1
    assert caplog.text.count("fetching works again") == 1
    assert caplog.text.count("fetched, 1 bytes") == 1


def test_a_server_that_fails_is_asked_ever_more_seldom() -> None:
    assert [again(failures, True, 300) for failures in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert [again(failures, False, 300) for failures in range(6)] == [0, 1, 2, 4, 5, 5], "nobody is served meanwhile"
    assert again(5000, True, 3) == 3


def test_who_asks_for_it(observer: Observer) -> None:
    seen: list[Message] = []
    gate = asyncio.Event()

    @live
    async def test() -> None:
        async def slow(peer: Peer) -> None:
            while True:
                seen.append(await peer.request())
                if len(seen) > 1:
                    await gate.wait()
                await peer.send(ok(b"keys"))

        async with Origin(slow) as origin:

            async def work(one: Fetches, documents: Documents) -> None:
                await one.start(10)
                observer.heard()
                for _ in range(5):
                    one.asked(url(origin))
                await until(lambda: len(seen) == 2)
                for _ in range(5):
                    one.asked(url(origin))
                gate.set()
                _, look, body = await observer.told()
                assert look.asked == look.looked and body is None, "told though nothing changed: somebody waits"
                one.asked(url(origin))
                one.asked("http://nobody.test/")
                await asyncio.sleep(0.05)
                assert len(seen) == 2, "one look in 30 s"

            await observer.run(work, Wanted(url(origin)))

    test()


def test_a_master_that_does_not_read_hears_it_later(observer: Observer) -> None:
    @live
    async def test() -> None:
        async with Origin(always(ok(b"x" * 200_000))) as one, Origin(always(ok(b"y"))) as two:

            async def work(fetches: Fetches, documents: Documents) -> None:
                await fetches.start(0.2)
                await until(lambda: all(row["bytes"] for row in documents.rows()))
                first = await observer.told()
                second = await observer.told()
                assert {len(first[2] or b""), len(second[2] or b"")} == {200_000, 1}

            await observer.run(work, Wanted(url(one)), Wanted(url(two)))

    test()
