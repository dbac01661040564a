"""Constant load from raw connections, which counts every request that failed or was cut, exactly.

A request has failed when its connection can't be made, when the connection ends before the whole answer, when the
status is not 200 or when the body is not the one expected. A server that announces the end (`Connection: close`) or
closes before anything of the next request was written has failed nobody. One that closes an idle connection at the very
moment at which we write has: a client can't know what became of that request.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import uvloop

from tests.support.http import Answer, AnswerReader, Cut, request, split
from tests.support.origin import CHUNKS, HELLO
from tests.support.waiting import eventually

_PATIENCE = 20.0  # seconds for one answer
_RETRY = 0.05  # seconds before a new connection after one was refused
_random = random.Random(1)
_BODIES = [_random.randbytes(size) for size in (1, 200, 3_000, 40_000)]

Page = tuple[str, bytes]  # the path of a GET, the body of the answer
# What an origin writes at once and the kernel takes at once: when the origin is killed there is no half of an answer,
# which nobody could make whole.
WHOLE: tuple[Page, ...] = (("/hello", HELLO), ("/size/3000", b"x" * 3000))
SLOW: tuple[Page, ...] = (("/slow?ms=10", HELLO),)
_PAGES: tuple[Page, ...] = (("/hello", HELLO), ("/size/20000", b"x" * 20_000), ("/chunked", b"".join(CHUNKS)))

Request = tuple[str, bytes, bytes]  # method, what is written, the body of the answer


@dataclass(frozen=True, slots=True)
class Failure:
    when: float  # seconds since the load began
    what: str
    reason: str
    port: int  # our end of the connection; 0 when there was none

    def __str__(self) -> str:
        return f"at {self.when:.3f} s {self.what}: {self.reason}"


@dataclass(slots=True)
class Report:
    """What a load has seen."""

    requests: int = 0
    connections: int = 0
    slowest: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    def __str__(self) -> str:
        told = "".join(f"\n  {failure}" for failure in self.failures[:20])
        return f"{len(self.failures)} of {self.requests} requests failed, on {self.connections} connections{told}"


class Load:
    """gets, posts: kept connections of each method. fresh: callers that make a connection for each request. pages: what
    is got, in turns.

    pause: seconds between two requests of a caller, more or less: ten callers ask some 700 times a second, and leave
    the machine to those who reload. A context manager; `stop` returns the report.
    """

    def __init__(
        self,
        address: str,
        *,
        gets: int = 4,
        posts: int = 4,
        fresh: int = 2,
        pause: float = 0.01,
        pages: Sequence[Page] = _PAGES,
    ) -> None:
        self.address = address
        self.report = Report()
        get = partial(_gets, pages)
        self._callers: list[tuple[Callable[[int, bool], Request], bool]] = [
            *[(get, False)] * gets,
            *[(_posts, False)] * posts,
            *[(get, True)] * fresh,
        ]
        self._pause = pause
        self._ending = False
        self._began = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> Load:
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()
        self.goes_on()
        return self

    def goes_on(self, more: int = 100) -> None:
        """Wait until that many more requests have been answered."""
        wanted = self.report.requests + more
        eventually(lambda: self.report.requests >= wanted, f"{more} more requests; {self.report}")

    def stop(self) -> Report:
        """Finish the requests under way and say how it went."""
        self._ending = True
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_PATIENCE + 10)
            assert not thread.is_alive()
        return self.report

    def clean(self) -> None:
        """Stop, and raise AssertionError when anything was lost."""
        report = self.stop()
        assert not report.failures, str(report)

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._all())

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, (make, fresh) in enumerate(self._callers):
                group.create_task(self._call(number, make, fresh))

    async def _call(self, number: int, make: Callable[[int, bool], Request], fresh: bool) -> None:
        line: _Line | None = None
        for count in itertools.count(number):
            if self._ending:
                break
            method, data, expected = make(count, fresh)
            what = f"{method} number {count} of caller {number}" + (", a connection each" if fresh else "")
            began = time.monotonic()
            try:
                if line is None or line.closed:
                    line = None
                    line = await self._connect()
                answer = await line.ask(method, data)
            except (OSError, Cut, TimeoutError) as error:
                self._failed(what, f"{type(error).__name__} {error}", line)
                if line is not None:
                    line.close()
                    line = None
                await asyncio.sleep(_RETRY)
                continue
            self.report.slowest = max(self.report.slowest, time.monotonic() - began)
            if answer.status != 200:
                self._failed(what, f"status {answer.status} {answer.body[:80]!r}", line)
            elif answer.body != expected:
                self._failed(what, f"a body of {len(answer.body)} bytes, not the expected one of {len(expected)}", line)
            else:
                self.report.requests += 1
            if answer.closes:
                line.close()
                line = None
            await asyncio.sleep(self._pause * _random.uniform(0.5, 1.5))
        if line is not None:
            line.close()

    async def _connect(self) -> _Line:
        loop = asyncio.get_running_loop()
        made: tuple[Any, _Line]
        async with asyncio.timeout(_PATIENCE):
            if self.address.startswith("unix:"):
                made = await loop.create_unix_connection(_Line, self.address.removeprefix("unix:"))
            else:
                made = await loop.create_connection(_Line, *split(self.address))
        self.report.connections += 1
        return made[1]

    def _failed(self, what: str, reason: str, line: _Line | None) -> None:
        self.report.requests += 1
        port = line.port if line is not None else 0
        self.report.failures.append(Failure(time.monotonic() - self._began, what, reason, port))


class _Line(asyncio.Protocol):
    """A connection that carries one request after the other."""

    def __init__(self) -> None:
        self.closed = False
        self.port = 0
        self._reader = AnswerReader()
        self._waiter: asyncio.Future[Answer] | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        name = transport.get_extra_info("sockname")
        self.port = name[1] if isinstance(name, tuple) else 0

    async def ask(self, method: str, data: bytes) -> Answer:
        self._reader.expect(method)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._waiter
        finally:
            self._waiter = None

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.close()  # nobody asked for this
            return
        try:
            answer = self._reader.feed(data)
        except Cut as error:
            waiter.set_exception(error)
            return
        if answer is not None:
            waiter.set_result(answer)

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        self.closed = True
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if error is not None:
            waiter.set_exception(error)
            return
        try:
            waiter.set_result(self._reader.end())
        except Cut as cut:
            waiter.set_exception(cut)

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()


def _fields(fresh: bool) -> dict[str, str]:
    return {"x-request-id": uuid.uuid4().hex} | ({"connection": "close"} if fresh else {})


def _gets(pages: Sequence[Page], count: int, fresh: bool) -> Request:
    path, expected = pages[count % len(pages)]
    return "GET", request("GET", path, fields=_fields(fresh)), expected


def _posts(count: int, fresh: bool) -> Request:
    body = _BODIES[count % len(_BODIES)]
    return "POST", request("POST", "/echo", body, _fields(fresh)), body
