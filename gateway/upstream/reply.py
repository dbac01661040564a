"""The answer to a request of ours, as it comes, and the body of the request, as it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from time import monotonic

from gateway.errors import AnswerTooLong, OutOfTime, UpstreamError
from gateway.upstream.http1 import Connection
from gateway.upstream.lifetime import NEVER
from gateway.upstream.pool import Pool
from gateway.wire import ResponseHead

MOST_BODY = 256 * 1024
TIMEOUT = 10.0
_DISCARDED = 64 * 1024  # of a body that nobody wants; a longer one costs its connection


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an exchange may take, in seconds; None for what the pool grants.

    connect: for a connection. response: for the response head. idle: between two parts of the body. total: for
    everything, up to the last byte.
    """

    connect: float | None = None
    response: float | None = None
    idle: float | None = None
    total: float | None = TIMEOUT


class Reply:
    """An answer that has begun. `close` it in any case; it may be closed at any time, and more than once."""

    __slots__ = ("_connection", "_patience", "_pool", "_pump", "_until", "head")

    def __init__(
        self,
        pool: Pool,
        connection: Connection,
        pump: asyncio.Task[None] | None,
        head: ResponseHead,
        patience: Patience,
        until: float,
    ) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self._pump = pump
        self._patience = patience
        self._until = until
        self.head = head

    async def parts(self, most: int | None = None) -> AsyncIterator[bytes]:
        """The body, part by part; the server is read from no faster than they are taken. most: bytes of it. Raises
        UpstreamError when it is longer, breaks off, or takes too long."""
        connection = self._connection
        if connection is None:
            return
        name = connection.endpoint.name
        size = max(0, self.head.length)
        while True:
            if most is not None and size > most:
                raise AnswerTooLong(name, f"the answer has more than {most} bytes", sent=True)
            part = connection.take()
            if part:
                size = size if self.head.length >= 0 else size + len(part)
                if most is None or size <= most:
                    yield part
            elif connection.over:
                return
            else:
                await self._arrival(connection)

    async def _arrival(self, connection: Connection) -> None:
        left = self._until - monotonic()
        idle = self._patience.idle
        within = left if idle is None else min(left, idle)
        if within == NEVER:
            await connection.arrival()
            return
        try:
            async with asyncio.timeout(max(0.0, within)):
                await connection.arrival()
        except TimeoutError:
            what = "the time for the request was over" if within == left else f"nothing came for {within:g} s"
            raise OutOfTime(connection.endpoint.name, f"{what} in the middle of the answer", sent=True) from None

    async def whole(self, most: int = MOST_BODY) -> bytes:
        """All of the body. Raises UpstreamError as `parts` does."""
        connection = self._connection
        if connection is None:
            return b""
        if self.head.length <= most:
            body = connection.take()
            if connection.over and len(body) <= most:  # it came with its head
                return body
        else:
            body = b""
        pieces = [body] if body else []
        size = len(body)
        async for part in self.parts(most):
            pieces.append(part)
            size += len(part)
            if size > most:
                raise AnswerTooLong(connection.endpoint.name, f"the answer has more than {most} bytes", sent=True)
        return b"".join(pieces)

    def close(self) -> None:
        """Done with it: a connection of which everything was taken is kept for others, any other is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            end(self._pool, connection, self._pump)

    def discard(self) -> None:
        """Done with it, but its body may be short and on its way: so much is waited for, by nobody, before it is
        closed, and the connection is kept."""
        connection = self._connection
        if connection is None:
            return
        connection.take()
        if connection.over or self.head.length > _DISCARDED:
            self.close()
            return
        task = asyncio.get_running_loop().create_task(self._discard(), name="sub-request")
        _discarding.add(task)
        task.add_done_callback(_discarding.discard)

    async def _discard(self) -> None:
        try:
            await self.whole(_DISCARDED)
        except UpstreamError:
            pass
        finally:
            self.close()


# The event loop itself remembers no tasks.
_discarding: set[asyncio.Task[None]] = set()


def end(pool: Pool, connection: Connection, pump: asyncio.Task[None] | None) -> None:
    if pump is not None and not pump.done():
        pump.cancel()
        connection.close()  # a part of the request is missing
    elif pump is not None and not pump.cancelled():
        pump.exception()  # it has ended the exchange, and that was all there is to it
    pool.release(connection)


async def send_parts(connection: Connection, body: AsyncIterable[bytes], length: int) -> None:
    """Send a body on, as its head frames it. What goes wrong with it ends the exchange."""
    sent = 0
    try:
        async for part in body:
            if connection.closed:
                return
            if part:
                sent += len(part)
                if 0 <= length < sent:
                    raise ValueError(f"the body has more than the {length} bytes that were announced")
                pieces = (part,) if length >= 0 else (b"%x\r\n" % len(part), part, b"\r\n")
                await connection.send_body(pieces, more=True)
        if 0 <= sent < length:
            raise ValueError(f"the body has {sent} of the {length} bytes that were announced")
        await connection.send_body(() if length >= 0 else (b"0\r\n\r\n",), more=False)
    except BaseException:
        connection.close()
        raise
