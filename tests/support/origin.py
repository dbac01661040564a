"""An application to stand behind the gateway: a thread with an event loop of its own on a free loopback port.

/hello          a line of text
/echo           the request's body
/size/N         N bytes
/stream/N       N bytes, made as they are taken
/slow?ms=N      a line of text after N milliseconds
/held           a line of text after `release`
/chunked        a body in three chunks
/close          a body that ends with the connection
/status/N       an answer with this status
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from types import TracebackType

import uvloop

_LONGEST_HEAD = 64 * 1024
_PART = b"x" * 64 * 1024
HELLO = b"hello\n"
CHUNKS = (b"one\n", b"two and a half\n" * 40, b"three\n")


class Origin:
    """Counts what it is asked. `stop` and `start` again take place on the same port. A context manager.

    most: requests under way at once. seen: how often each `x-request-id` came: more than once means that a request was
    sent twice. bodies: a digest of what each of them carried.
    """

    def __init__(self, name: str = "origin") -> None:
        self.name = name
        self.port = 0
        self.requests = 0
        self.under_way = self.most = 0
        self.seen: Counter[str] = Counter()
        self.bodies: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._leave: asyncio.Event
        self._released: asyncio.Event

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def twice(self) -> list[str]:
        return [name for name, count in self.seen.items() if count > 1]

    def start(self) -> Origin:
        up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(up,), name=self.name, daemon=True)
        self._thread.start()
        assert up.wait(10), "the origin did not come up"
        return self

    def release(self) -> None:
        """Answer what is held, and hold nothing from here on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def stop(self) -> None:
        """Close the port and every connection."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.call_soon_threadsafe(self._leave.set)
            thread.join(10)

    def __enter__(self) -> Origin:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _run(self, up: threading.Event) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(up))

    async def _serve(self, up: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._leave, self._released = asyncio.Event(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connection(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", self.port, limit=_LONGEST_HEAD, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        up.set()
        await self._leave.wait()
        server.close()
        for _ in range(2):  # what was accepted a moment ago has a task in the next turn of the loop
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head[:-4].decode("latin-1").split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                self.requests += 1
                if "x-request-id" in fields:
                    self.seen[fields["x-request-id"]] += 1
                self.under_way += 1
                self.most = max(self.most, self.under_way)
                try:
                    body = await _body(reader, fields)
                    if body and "x-request-id" in fields:
                        self.bodies[fields["x-request-id"]] = blake2b(body, digest_size=16).hexdigest()
                    target = first.split(" ")[1]
                    if not await self._answer(writer, target, body):
                        return
                finally:
                    self.under_way -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, target: str, body: bytes) -> bool:
        """False when the connection is to end."""
        path, _, query = target.partition("?")
        kind, _, argument = path.lstrip("/").partition("/")
        write: Callable[[bytes], None] = writer.write
        drain: Callable[[], Awaitable[None]] = writer.drain
        status, answer = 200, HELLO
        if kind == "chunked":
            write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for chunk in CHUNKS:
                write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await asyncio.sleep(0)
            write(b"0\r\n\r\n")
            await drain()
            return True
        if kind == "stream":
            write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % int(argument))
            for at in range(0, int(argument), len(_PART)):
                write(_PART[: int(argument) - at])
                await drain()
            return True
        if kind == "close":
            write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + HELLO)
            await drain()
            return False
        if kind == "echo":
            answer = body
        elif kind == "size":
            answer = b"x" * int(argument)
        elif kind == "slow":
            await asyncio.sleep(int(query.removeprefix("ms=")) / 1000)
        elif kind == "held":
            await self._released.wait()
        elif kind == "status":
            status = int(argument)
        fields = b"x-origin: %b\r\ncontent-length: %d" % (self.name.encode(), len(answer))
        write(b"HTTP/1.1 %d Some\r\n%b\r\n\r\n" % (status, fields))
        write(answer)
        await drain()
        return True


async def _body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    if "transfer-encoding" not in fields:
        return await reader.readexactly(int(fields.get("content-length", "0")))
    body = bytearray()
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return bytes(body)
