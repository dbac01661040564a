"""One process of the load generator.

``python -m bench.load PORT SCENARIO CONNECTIONS`` opens the connections (one request on each, so that all are
known to work), then does one closed-loop run for each line ``run SECONDS`` on stdin. The opening and every run
are answered with one line of JSON: a ``Tally``. The end of stdin ends the process.

A run is over when every request sent in it has been answered: a proxy's CPU time before and after
a run then belongs to exactly the requests that the run counted.
"""

import asyncio
import gc
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable
from typing import cast

import msgspec
import uvloop

from bench.histogram import Histogram
from bench.scenarios import SCENARIOS, Scenario

HEAD_END = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)\s*(?:\r\n|$)", re.IGNORECASE)
OPEN_AT_ONCE = 50  # fewer than any listen backlog
GRACE = 15.0  # seconds for the last answers after a run; what then is missing counts as an error
KNOWN_HEADS = 1024
PAUSE_AFTER_REFUSAL = 0.05


class Tally(msgspec.Struct):
    """What one run saw."""

    requests: int  # answered, and answered right
    seconds: float
    latencies: dict[int, int]  # microseconds, as a Histogram keeps them
    errors: dict[str, int]  # by what went wrong


class Client(asyncio.Protocol):
    """One connection of the crew: checks each answer and asks again."""

    __slots__ = ("asked_at", "crew", "held", "missing", "transport", "waiting")
    transport: asyncio.Transport

    def __init__(self, crew: "Crew") -> None:
        self.crew = crew
        self.held = b""  # a head that has not ended yet
        self.missing = 0  # bytes of the body still to come
        self.waiting = False  # for an answer
        self.asked_at = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def ask(self, now: int) -> None:
        self.asked_at = now
        self.waiting = True
        self.transport.write(self.crew.request)

    def data_received(self, data: bytes) -> None:
        if self.missing:
            self.missing -= len(data)
        else:
            data = self.held + data
            end = data.find(HEAD_END)
            if end < 0:
                self.held = data
                return
            self.held = b""
            fault = self.crew.fault_of(data[:end])
            if fault:
                self.fail(fault)
                return
            self.missing = self.crew.answer_length - (len(data) - end - len(HEAD_END))
        if self.missing > 0:
            return
        if self.missing < 0 or not self.waiting:
            self.fail("more bytes than announced")
            return
        self.waiting = False
        self.crew.answered(self)

    def fail(self, why: str) -> None:
        self.lost(why)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost("disconnect")

    def lost(self, why: str) -> None:
        """Leave the crew; an answer that was still owed counts as an error, once."""
        self.crew.clients.discard(self)
        if self.waiting:
            self.waiting = False
            self.crew.failed(why)


class Crew:
    """All connections of this process, and the count of what they see."""

    def __init__(self, port: int, scenario: Scenario, connections: int) -> None:
        self.port = port
        self.request = scenario.request
        self.answer_length = scenario.answer_length
        self.connections = connections
        self.clients: set[Client] = set()
        self.good_heads: set[bytes] = set()
        self.replacements: set[asyncio.Task[None]] = set()
        self.running = False
        self.in_flight = 0
        self.all_answered = asyncio.Event()
        self.histogram = Histogram()
        self.errors: Counter[str] = Counter()

    # what a client calls

    def fault_of(self, head: bytes) -> str:
        """What is wrong with this response head; empty for nothing."""
        if head in self.good_heads:
            return ""
        if not head.startswith(b"HTTP/1.1 200 "):
            return "status " + head[9:12].decode("latin-1")
        announced = CONTENT_LENGTH.search(head)
        if announced is None or int(announced[1]) != self.answer_length:
            return "content-length"
        # Heads differ by their date alone, once a second: looking one up is far cheaper than reading it.
        if len(self.good_heads) >= KNOWN_HEADS:
            self.good_heads.clear()
        self.good_heads.add(head)
        return ""

    def answered(self, client: Client) -> None:
        now = time.perf_counter_ns()
        self.histogram.add((now - client.asked_at) // 1000)
        if self.running:
            client.ask(now)
        else:
            self.landed()

    def failed(self, why: str) -> None:
        self.errors[why] += 1
        self.landed()
        if self.running:
            self.begin_replacing()

    def landed(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self.all_answered.set()

    # opening and running

    def ask(self, client: Client) -> None:
        self.in_flight += 1
        client.ask(time.perf_counter_ns())

    async def connect(self) -> Client | None:
        try:
            loop = asyncio.get_running_loop()
            _, client = await loop.create_connection(lambda: Client(self), "127.0.0.1", self.port)
        except OSError:
            self.errors["connect"] += 1
            return None
        self.clients.add(client)
        return client

    def begin_replacing(self) -> None:
        task = asyncio.ensure_future(self.replace())
        self.replacements.add(task)
        task.add_done_callback(self.replacements.discard)

    async def replace(self) -> None:
        """A new connection for a lost one: a run keeps its pressure whatever the proxy does."""
        while self.running:
            if client := await self.connect():
                if self.running:
                    self.ask(client)
                return
            await asyncio.sleep(PAUSE_AFTER_REFUSAL)

    async def fill(self) -> None:
        """Open all, a few at a time, with one request on each."""
        for begin in range(0, self.connections, OPEN_AT_ONCE):
            wanted = min(self.connections - begin, OPEN_AT_ONCE)
            for client in await asyncio.gather(*(self.connect() for _ in range(wanted))):
                if client is not None:
                    self.ask(client)
            await self.last_answers()

    async def last_answers(self) -> None:
        self.all_answered.clear()
        if not self.in_flight:
            return
        try:
            await asyncio.wait_for(self.all_answered.wait(), GRACE)
        except TimeoutError:
            for client in [client for client in self.clients if client.waiting]:
                client.fail("no answer")

    async def run(self, seconds: float) -> None:
        self.running = True
        for client in list(self.clients):
            self.ask(client)
        for _ in range(self.connections - len(self.clients)):
            self.begin_replacing()  # for those that the proxy closed while they were idle, as it may
        await asyncio.sleep(seconds)
        self.running = False
        await self.last_answers()

    async def tally(self, work: Awaitable[None]) -> Tally:
        """Do this work and say what was seen meanwhile."""
        self.histogram, self.errors = Histogram(), Counter()
        begun = time.perf_counter()
        await work
        elapsed = time.perf_counter() - begun
        return Tally(self.histogram.total, elapsed, self.histogram.counts, dict(self.errors))


async def obey(port: int, scenario: Scenario, connections: int) -> None:
    loop = asyncio.get_running_loop()
    crew = Crew(port, scenario, connections)
    say(await crew.tally(crew.fill()))
    gc.freeze()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        say(await crew.tally(crew.run(float(line.removeprefix("run ")))))


def say(tally: Tally) -> None:
    print(msgspec.json.encode(tally).decode(), flush=True)


if __name__ == "__main__":
    gc.disable()  # no pauses of our own in a proxy's p99
    port, scenario, connections = sys.argv[1:]
    uvloop.run(obey(int(port), SCENARIOS[scenario], int(connections)))
