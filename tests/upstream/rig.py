"""One endpoint with its pool, in the test's own event loop."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from gateway.config.upstreams import Pool as PoolConfig
from gateway.config.upstreams import UpstreamTimeouts
from gateway.config.values import parse_origin
from gateway.scoreboard import Fact
from gateway.upstream.http1 import Connection
from gateway.upstream.pool import Pool
from gateway.wire import ResponseHead
from gateway.worker.assembly import running_wheel
from tests.upstream.parts import FIRST, Parts
from tests.upstream.peer import Origin

CELLS = FIRST  # where the endpoint's cells are
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


class Rig:
    """An async context manager. Timeouts and bounds are those of the configuration, written as there."""

    def __init__(
        self, origin: Origin | str, pool: dict[str, Any] | None = None, sources: Sequence[str] = (), **timeouts: str
    ) -> None:
        parts = Parts()
        self.cells = parts.cells
        address = origin if isinstance(origin, str) else origin.address
        self.endpoint = parts.endpoint(parse_origin(address))
        self._pool = PoolConfig.model_validate(pool or {})
        self._sources = sources
        self._timeouts = UpstreamTimeouts.model_validate(timeouts)

    async def __aenter__(self) -> Rig:
        self.pool = Pool(self.endpoint, self._pool, self._timeouts, running_wheel(), self.cells, self._sources)
        self.endpoint.pool = self.pool
        return self

    async def connection(self) -> Connection:
        """As a lease takes one."""
        return self.pool.take(True) or await self.pool.acquire()

    @property
    def open(self) -> int:
        return int(self.cells[Fact.UPSTREAM_OPEN])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.pool.close()


async def whole(connection: Connection) -> bytes:
    """The body up to its end. Raises UpstreamError."""
    body = connection.take()
    while not connection.over:
        await connection.arrival()
        body += connection.take()
    return body


async def exchange(connection: Connection, request: bytes = GET, bodyless: bool = False) -> tuple[ResponseHead, bytes]:
    """One request without body, and its response."""
    connection.send(request, bodyless, more=False)
    head = await connection.response()
    while head.status < 200:
        head = await connection.response()
    return head, await whole(connection)
