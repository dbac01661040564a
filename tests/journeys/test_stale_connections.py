"""An origin that ends connections as requests come: no POST is lost on one, and none is made twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest
import uvloop

from tests.support.gateway_process import Start
from tests.support.http import split
from tests.support.settings import Settings

KEPT = 1.0  # seconds for which the origin keeps an idle connection
CLIENTS = 800  # at once, so that as many connections are kept
# Rounds: 20,000 requests where the end comes unannounced; an announced one needs no chance.
ROUNDS = {"unannounced": 25, "announced": 10}
# Seconds between an answer and the next request: around the moment at which the connection ends.
SOONEST, LATEST = 0.9, 1.1
_APART = 0.05  # seconds over which the requests of a round are spread
_WAY = 0.005  # seconds that the news of an end take: what arrives at the origin meanwhile is lost
_TAKES = 0.1  # seconds for an answer: so those of a round are under way together, each on a connection of its own


class Kept(asyncio.Protocol):
    """The origin's end of a connection. It is closed when nothing came for a time, as servers do it."""

    def __init__(self, seen: Counter[bytes], announces: bool) -> None:
        self._seen = seen
        self._fields = b"keep-alive: timeout=%d\r\n" % KEPT if announces else b""
        self._loop = asyncio.get_running_loop()
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if end and len(body) == int(head.lower().partition(b"content-length:")[2].split()[0]):
            self._data = b""
            self._seen[body] += 1
            self._loop.call_later(_TAKES, self._answer)

    def _answer(self) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\n%bcontent-length: 2\r\n\r\nok" % self._fields)
        self._timer = self._loop.call_later(KEPT, self._end)

    def _end(self) -> None:
        self._transport.pause_reading()
        self._timer = self._loop.call_later(_WAY, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()


def serve(pipe: Connection, announces: bool) -> None:
    """A process of its own, so that nobody else's work delays it. Says its port; told to end, what it has seen."""

    async def run() -> None:
        seen: Counter[bytes] = Counter()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Kept(seen, announces), "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        over = asyncio.Event()
        loop.add_reader(pipe.fileno(), over.set)
        await over.wait()
        pipe.send(seen)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


class Keeper:
    """An origin with a keep-alive time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.port: int = pipe.recv()

    def seen(self) -> Counter[bytes]:
        """Each body that came, and how often. The last that can be asked."""
        self._pipe.send("tell")
        seen: Counter[bytes] = self._pipe.recv()
        return seen


@contextmanager
def keeper(announces: bool) -> Iterator[Keeper]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, announces), daemon=True)
    process.start()
    try:
        yield Keeper(ours)
    finally:
        process.kill()
        process.join()


class Caller:
    """A client that keeps its connection to the gateway."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> int:
        """The status, 0 when the connection was cut."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._where)
        reader, writer = self._streams
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            return 0
        if b"connection: close" in head.lower():
            self.close()
        return int(head[9:12])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def play(host: str, port: int, rounds: int) -> Counter[int]:
    """Every client posts in every round. What was answered, and how often."""
    chance = random.Random(1)
    callers = [Caller(host, port) for _ in range(CLIENTS)]
    answered: Counter[int] = Counter()

    async def one(caller: Caller, number: int) -> None:
        await asyncio.sleep(chance.uniform(0, _APART))
        answered[await caller.post(b"%d" % number)] += 1

    for turn in range(rounds):
        async with asyncio.TaskGroup() as group:
            for place, caller in enumerate(callers):
                group.create_task(one(caller, turn * CLIENTS + place))
        # What is spread over a time is answered over that time: the connections have been idle for about so long.
        await asyncio.sleep(SOONEST + (LATEST - SOONEST) * turn / (rounds - 1) - _APART / 2)
    for caller in callers:
        caller.close()
    return answered


@pytest.mark.parametrize(("how", "rounds"), ROUNDS.items())
def test_no_post_is_lost_on_a_connection_that_ends(how: str, rounds: int, gateway: Start) -> None:
    with keeper(how == "announced") as origin:
        one = gateway(Settings(f"127.0.0.1:{origin.port}", workers=2))
        host, port = split(one.address())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            answered = runner.run(play(host, port, rounds))
        seen = origin.seen()
    assert answered == {200: CLIENTS * rounds}
    assert len(seen) == CLIENTS * rounds
    assert not [body for body, count in seen.items() if count > 1]
