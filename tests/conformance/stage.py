"""Where a case is played: a client's connections on one side of a proxy, a recording origin on the other.

Both ends live in one event loop, so what happens on one side can wait for the other without a clock. Whether something
did *not* happen is asked by a barrier: a request of its own that goes through the same worker to the same origin; once
it is answered, the worker has dealt with everything that came before.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast

from tests.conformance.delivery import Delivery, Unread
from tests.conformance.messages import Message, Reader, RequestReader, ResponseReader

# Requests to these are answered by the origin itself, at once and with their own target, and are no part of a case.
PROBE = b"/-probe/"
AGAIN = b"/-again"
# Seconds until a connection whose case is over is closed by the other side as well.
_PARTING = 0.5


class Failed(Exception):
    """What a case demands did not come."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an origin does about a request. then: "keep" the connection, "end" it in good order, end only its own half
    ("half"), or "reset" it. early: when the head is there, without waiting for the body. at_once: never in pieces; for
    what must not come when the proxy has gone on already."""

    data: bytes
    then: str = "keep"
    early: bool = False
    at_once: bool = False


class Line(asyncio.Protocol):
    """One end of a connection, ours. received: every byte that came. sock: a client's own."""

    def __init__(self, reader: Reader, news: Callable[[Line], None], sock: socket.socket | None = None) -> None:
        self.reader = reader
        self.received = bytearray()
        self.ended = False  # the other side sends nothing more
        self.lost = False  # the connection is gone
        self.was_reset = False
        self.finished = False  # we send nothing more
        self.transport: asyncio.Transport
        self._news = news
        self._sock = sock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._news(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.reader.feed(data)
        self._news(self)

    def eof_received(self) -> bool:
        self.ended = True
        self.reader.end(clean=True)
        self._news(self)
        return True  # our half stays open

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended:
            self.reader.end(clean=False)
        self.lost = True
        self.was_reset = error is not None
        self._news(self)

    @property
    def over(self) -> bool:
        return self.ended or self.lost

    def write(self, data: bytes) -> None:
        """A client whom the proxy resets because it goes on sending has still what was said to it before, so its socket
        is written to directly: an event loop's transport would throw that away."""
        if self.lost or self.finished or self.transport.is_closing():
            return
        if self._sock is not None and not self.transport.get_write_buffer_size():
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                self.finished = True
                return
        if data:
            self.transport.write(data)

    def finish(self, then: str) -> None:
        """As in `Reply`."""
        if self.lost or then == "keep":
            return
        self.finished = True
        if then == "half":
            if not self.transport.is_closing():
                with suppress(OSError):  # the other side may have reset it already
                    self.transport.write_eof()
        elif then == "reset":
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()


class Origin:
    """Records all that it is sent, and answers as it is told. One for all the cases of a run."""

    def __init__(self) -> None:
        self.port = 0
        self.lines: list[Line] = []  # of the case that is played
        self.stage: Stage | None = None
        self._server: asyncio.Server

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.close()
        for line in self.lines:
            if not line.lost:
                line.transport.abort()

    def _accept(self) -> Line:
        line = Line(RequestReader(), self._news)
        self.lines.append(line)
        return line

    def _news(self, line: Line) -> None:
        if self.stage is not None:
            self.stage.heard(line)
            return
        if line.over:
            return
        for message in line.reader.messages:  # between two cases: only somebody who asks whether the proxy is up
            if is_ours(message) and message.complete:
                line.transport.write(plain(message.target))
        line.reader.messages.clear()

    async def part(self) -> None:
        """End every connection and wait until the proxy has ended it too, so that none is left for the next case."""
        for line in self.lines:
            if not line.lost:
                line.finish("half")
        until = monotonic() + _PARTING
        while any(not line.over for line in self.lines) and monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for line in self.lines:
            if not line.lost:
                line.transport.abort()
        self.lines.clear()


def is_ours(message: Message) -> bool:
    return message.target.startswith((PROBE, AGAIN))


def plain(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


_probes = itertools.count()


class Stage:
    """One case while it is played."""

    def __init__(
        self,
        name: str,
        ports: Mapping[str, int],
        origin: Origin,
        delivery: Delivery,
        unread: Unread,
        patience: float,
        strict: bool,
    ) -> None:
        """ports: of the proxy's listeners; patience: seconds to wait for what must come; strict: as in `Playground`."""
        self.name = name
        self.strict = strict
        self.origin = origin
        self.port = ports["web"]
        self.patience = patience
        self.replies: deque[Reply] = deque()
        self.automatic = False  # whether the origin answers by itself
        self.requests: list[tuple[Line, Message]] = []  # those of the case, in the order in which their heads came
        self.current: Line | None = None  # the connection of the request that was looked at last
        self.clients: list[Line] = []
        self.remembered: dict[bytes, bytes] = {}
        self.cursors: dict[tuple[str, int], int] = {}  # how much the steps have looked at
        self._ports = ports
        self._delivery = delivery
        self._unread = unread
        self._seeds = itertools.count()
        self._event = asyncio.Event()
        self._known: dict[Line, int] = {}  # messages that were looked at
        self._answered: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # What is heard.

    def heard(self, line: Line) -> None:
        """Something has come on a connection, of whichever side."""
        self._event.set()
        if not isinstance(line.reader, RequestReader):
            return
        messages = line.reader.messages
        for message in messages[self._known.get(line, 0) :]:
            if not is_ours(message):
                self.requests.append((line, message))
        self._known[line] = len(messages)
        for message in messages:
            if id(message) not in self._answered and self._answer(line, message):
                self._answered.add(id(message))

    def _answer(self, line: Line, message: Message) -> bool:
        """Answer by itself what is to be answered so; False for what is not, or not yet."""
        if is_ours(message):
            if message.complete:
                self._spawn(self.say(line, plain(message.target)))
            return message.complete
        if not self.automatic:
            return True
        reply = self.replies[0] if self.replies else Reply(plain(b"ok"))
        if not (message.complete or reply.early):
            return False
        if self.replies:
            self.replies.popleft()
        self._spawn(self._reply(line, reply))
        return True

    async def _reply(self, line: Line, reply: Reply) -> None:
        if reply.at_once:
            line.write(reply.data)
        else:
            await self.say(line, reply.data)
        line.finish(reply.then)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What is done.

    async def connect(self, listener: str = "web") -> Line:
        """Another client; from here on it is *the* client."""
        self.port = self._ports[listener]
        line = await self._dial(self.port)
        self.clients.append(line)
        return line

    async def _dial(self, port: int) -> Line:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            _, line = await loop.create_connection(lambda: Line(ResponseReader(), self.heard, sock), sock=sock)
        except BaseException:
            sock.close()
            raise
        return line

    @property
    def client(self) -> Line:
        return self.clients[-1]

    @property
    def answers(self) -> ResponseReader:
        return cast(ResponseReader, self.client.reader)

    async def send(self, data: bytes) -> None:
        """What the client says."""
        for placeholder, value in self.remembered.items():
            data = data.replace(placeholder, value)
        await self._deliver(self.client, data)

    async def say(self, line: Line, data: bytes) -> None:
        """What the origin says."""
        line.reader.release(raw=b"HTTP/1.1 101 " in data)
        await self._deliver(line, data)

    async def _deliver(self, line: Line, data: bytes) -> None:
        waits = True
        pieces = self._delivery.pieces(data, f"{self.name} {next(self._seeds)}")
        if not line.lost:
            ours, theirs = (line.transport.get_extra_info(name) for name in ("sockname", "peername"))
        for piece in pieces:
            line.write(piece)
            if line.lost or line.finished:
                return
            if waits and len(pieces) > 1:
                # When nobody reads, the pieces that follow are one to the proxy anyway.
                waits = await self._unread.read(theirs, ours)

    async def read(self, line: Line) -> None:
        """Returns once the proxy has read all that was sent to it on this connection."""
        ours, theirs = (line.transport.get_extra_info(name) for name in ("sockname", "peername"))
        deadline = monotonic() + self.patience
        while not line.lost and not await self._unread.read(theirs, ours):
            if monotonic() > deadline:
                raise Failed("what was sent is not read")

    # What is waited for.

    async def until(self, look: Callable[[], object], what: str | Callable[[], str]) -> None:
        """Raises Failed when it isn't true within the stage's patience."""
        deadline = monotonic() + self.patience
        while not look():
            left = deadline - monotonic()
            if left <= 0:
                raise Failed(f"waited in vain for {what if isinstance(what, str) else what()}")
            self._event.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._event.wait()

    async def probe(self) -> Line:
        """The barrier: another client's request and its right answer. The origin's connection on which it came."""
        target = PROBE + b"%d" % next(_probes)
        line = await self._dial(self._ports["web"])
        try:
            line.write(b"GET %b HTTP/1.1\r\nHost: probe\r\n\r\n" % target)
            reader = cast(ResponseReader, line.reader)
            await self.until(lambda: (reader.finals and reader.finals[0].complete) or line.over, "a probe's answer")
            if not reader.finals or reader.finals[0].body != target or reader.problem or reader.rest:
                raise Failed(f"another client's request was answered by {bytes(line.received)!r}")
        finally:
            line.transport.abort()
        for one in self.origin.lines:
            if any(message.target == target for message in one.reader.messages):
                return one
        raise Failed("a probe was answered, but not by the origin")

    def used(self, line: Line) -> bool:
        """Whether this connection of the origin carried a request of the case."""
        return any(line is known for known, _ in self.requests)

    # The end.

    def invariants(self) -> Iterator[str]:
        """What holds in every case: whoever is sent something can read it in exactly one way."""
        for line in self.origin.lines:
            if line.reader.problem:
                yield f"the origin was sent {line.reader.problem}"
        for client in self.clients:
            if client.reader.problem:
                yield f"the client was sent {client.reader.problem}"

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self.clients:
            if not client.lost:
                client.transport.abort()
        await self.origin.part()

    def story(self) -> str:
        """All that was heard, for people."""
        told = []
        for client in self.clients:
            end = " then a reset" if client.was_reset else " then the end" if client.over else ""
            told.append(f"client heard: {_short(client.received)}{end}")
        told += [
            f"origin heard: {_short(line.received)}{' then the end' if line.over else ''}"
            for line in self.origin.lines
            if self.used(line) or line.reader.problem or (line.received and not line.reader.messages)
        ]
        return "\n".join(told)


def _short(data: bytearray) -> str:
    text = bytes(data)
    return repr(text) if len(text) < 1500 else f"{text[:1000]!r} ... {len(text)} bytes ... {text[-200:]!r}"


@contextmanager
def on_stage(stage: Stage) -> Iterator[Stage]:
    """The origin belongs to this stage."""
    stage.origin.stage = stage
    try:
        yield stage
    finally:
        stage.origin.stage = None
