"""Taking an endpoint and giving it back: one object, and the outcome is said once.

Entering counts the endpoint in flight; leaving lowers it, gives the connection back and reports to health exactly once:
a failure of the endpoint, a success, or nothing when neither can be told (the client went away, a kept connection
turned out to be closed already).
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from gateway.errors import ConnectionCut, DescriptorsExhausted, QueueTimeout, UpstreamError
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.health import Condition
from gateway.upstream.http1 import Connection

_UP = Condition.UP

if TYPE_CHECKING:
    from gateway.upstream.upstream import Upstream


class Lease:
    __slots__ = ("_upstream", "connection", "endpoint")

    def __init__(self, upstream: Upstream, endpoint: Endpoint) -> None:
        self._upstream = upstream
        self.endpoint = endpoint
        self.connection: Connection | None = None

    def __enter__(self) -> Lease:
        self.endpoint.in_flight += 1
        return self

    def take(self) -> Connection | None:
        """A kept connection, at once; None when there is none."""
        self.connection = self.endpoint.pool.take()
        return self.connection

    async def connect(self) -> Connection:
        """A new connection, or the next that comes free. Raises UpstreamError."""
        self.connection = await self.endpoint.pool.acquire()
        return self.connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        endpoint = self.endpoint
        endpoint.in_flight -= 1
        if self.connection is not None:
            endpoint.pool.release(self.connection)
        if error is None:
            if endpoint.health.condition is not _UP:
                self._upstream.succeeded(endpoint)
        elif isinstance(error, UpstreamError) and _is_its_fault(error):
            self._upstream.failed(endpoint, error)


def _is_its_fault(error: UpstreamError) -> bool:
    """Whether an error says something about the endpoint: not that we ran out of connections, nor that a kept one had
    been closed by the time we used it."""
    if isinstance(error, QueueTimeout | DescriptorsExhausted):
        return False
    return not (isinstance(error, ConnectionCut) and error.reused)
