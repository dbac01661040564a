"""Both ends of an HTTP/1.1 connection, byte for byte: what a test sends goes out as it is, what it reads is
all that came.

`live` runs a test in an event loop like a worker's; `Origin` is a server of whose connections a test's coroutine is one
end.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec

import uvloop

P = ParamSpec("P")
_PATIENCE = 15.0  # seconds; nothing here takes longer unless it hangs
_LIMIT = 1 << 20  # bytes a reader holds back before its socket is no longer read


def live(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on uvloop, as workers do. Whatever the loop itself has to report is a failure."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        reports: list[dict[str, Any]] = []

        async def patiently() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, report: reports.append(report))
            async with asyncio.timeout(_PATIENCE):
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(patiently())
        assert not reports, reports

    return run


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a response as it came. head: its bytes up to and with the empty line."""

    head: bytes
    start: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]

    def __getitem__(self, name: bytes) -> bytes:
        """The one value of a field. Raises AssertionError when there is not just one."""
        values = self.all(name)
        assert len(values) == 1, f"{name!r} occurs {len(values)} times in {self.head!r}"
        return values[0]

    def __contains__(self, name: bytes) -> bool:
        return bool(self.all(name))


class Peer:
    """One end of a connection, a client's or an origin's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError when the connection has ended (uvloop's write says RuntimeError then)."""
        if self.writer.is_closing():
            raise ConnectionResetError("the connection has ended")
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Message:
        """The next head, also of an interim response. Raises IncompleteReadError when the other side ends."""
        data = await self.reader.readuntil(b"\r\n\r\n")
        start, *lines = data[:-4].split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        return Message(data, start, tuple((name, value.strip(b" \t")) for name, _, value in pairs))

    async def request(self) -> Message:
        """The next request with its body."""
        head = await self.head()
        if b"transfer-encoding" in head:
            return Message(head.head, head.start, head.fields, await self.chunks())
        length = int(head[b"content-length"]) if b"content-length" in head else 0
        return Message(head.head, head.start, head.fields, await self.reader.readexactly(length))

    async def response(self, method: bytes = b"GET") -> Message:
        """The next response with its body, delimited as its fields say and in no other way."""
        head = await self.head()
        if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
            return head
        if b"transfer-encoding" in head:
            assert head[b"transfer-encoding"] == b"chunked" and b"content-length" not in head
            body = await self.chunks()
        elif b"content-length" in head:
            body = await self.reader.readexactly(int(head[b"content-length"]))
        else:
            body = await self.reader.read()
        return Message(head.head, head.start, head.fields, body)

    async def chunks(self) -> bytes:
        """A chunked body with nothing in it but chunks. Raises IncompleteReadError when it is cut."""
        body = bytearray()
        while True:
            line = await self.reader.readuntil(b"\r\n")
            size = int(line[:-2], 16)
            piece = await self.reader.readexactly(size + 2)
            assert piece[size:] == b"\r\n"
            if not size:
                return bytes(body)
            body += piece[:size]

    async def ends(self) -> bytes:
        """Wait until the other side ends the connection, orderly or not; what it still said."""
        heard = bytearray()
        try:
            while data := await self.reader.read(1 << 16):
                heard += data
        except ConnectionError:
            pass
        return bytes(heard)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End the connection by a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def dial(port: int, receive_buffer: int = 0, limit: int = _LIMIT) -> Peer:
    """A client of 127.0.0.1. receive_buffer: bytes the kernel holds for it, 0 for its own choice."""
    sock = socket.socket()
    try:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return Peer(*await asyncio.open_connection(sock=sock, limit=limit))
    except BaseException:
        sock.close()
        raise


Handler = Callable[[Peer], Awaitable[None]]


class Origin:
    """A server on a free loopback port. An async context manager; what fails in a handler fails the test."""

    def __init__(
        self, handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """port: only where something else decides on it; then host must be one that nobody else has."""
        self._handler = handler
        self._host = host
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self.accepted = 0
        self.peers: list[Peer] = []
        self.port = port
        self._server: asyncio.Server

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    async def __aenter__(self) -> Origin:
        self._server = await asyncio.start_server(self._connected, self._host, self.port, limit=_LIMIT, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_over:
            writer.transport.abort()
            return
        self.accepted += 1
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._tasks.add(asyncio.ensure_future(self._hold(peer)))

    async def _hold(self, peer: Peer) -> None:
        try:
            await self._handler(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side ended the connection
        finally:
            peer.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        self._is_over = True
        await asyncio.sleep(0)  # what was accepted just now is heard of
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception) and error is None:
                raise result


def answering(answer: Callable[[Message], bytes]) -> Handler:
    """A handler that answers every request by a function."""

    async def handler(peer: Peer) -> None:
        while True:
            await peer.send(answer(await peer.request()))

    return handler


def noting(seen: list[Message], answer: Callable[[Message], bytes]) -> Handler:
    """The same, and every request is put on a list."""

    def note(request: Message) -> bytes:
        seen.append(request)
        return answer(request)

    return answering(note)


def always(response: bytes) -> Handler:
    return answering(lambda request: response)


def ok(body: bytes = b"ok", fields: bytes = b"") -> bytes:
    """A plain 200."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), fields, body)


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
