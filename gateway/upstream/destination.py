"""Where a client of a forward proxy asked to go: the addresses that it may be dialled at, and the connections kept to
each.

Nobody configured it, so nobody probes or judges it, and it has no series. The addresses are asked in their order, but
for one that could not be connected to: that is asked last from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from time import monotonic
from types import TracebackType
from typing import Any

from gateway.config.upstreams import Pool as PoolConfig
from gateway.config.upstreams import UpstreamTimeouts
from gateway.config.values import TcpAddress
from gateway.errors import NoEndpoint, UpstreamError
from gateway.metrics.plan import CELLS
from gateway.scoreboard import Cells
from gateway.upstream.http1 import Connection
from gateway.upstream.idle import Idle
from gateway.upstream.pool import Pool
from gateway.upstream.remote import Remote
from gateway.wheel import Wheel

# A reverse proxy has a handful of endpoints, this may have a thousand destinations: what is kept of each is what a few
# browsers ask for at once (six connections for a host), and not for longer than it takes to read a page.
_CONFIG = PoolConfig().model_copy(update={"max_idle": 32, "idle_timeout": 30.0})


def no_series() -> Cells:
    """Cells for what is counted of endpoints and nobody reads."""
    return memoryview(bytearray(8 * CELLS["upstream"])).cast("Q")


class Place(Remote):
    """One address. Of what an `Endpoint` is asked on a request's way it has what says: nothing is to be changed."""

    __slots__ = ("is_old",)

    base = b""
    host = b""
    is_elsewhere = False

    def __init__(self, listener: str, address: TcpAddress, authority: bytes) -> None:
        super().__init__(listener, str(address), address, authority, 0)
        self.is_old = False  # it has answered in HTTP/1.0


class Visit:
    """A place taken for one attempt."""

    __slots__ = ("_destination", "began", "connection", "endpoint")

    def __init__(self, destination: Destination, endpoint: Place) -> None:
        self._destination = destination
        self.began = monotonic()
        self.endpoint = endpoint
        self.connection: Connection | None = None

    def __enter__(self) -> Visit:
        return self

    def take(self, repeatable: bool) -> Connection | None:
        self.connection = self.endpoint.pool.take(repeatable)
        return self.connection

    async def connect(self, within: float | None = None) -> Connection:
        self.connection = await self.endpoint.pool.acquire(within)
        return self.connection

    def answered(self, status: int) -> None:
        """Nobody learns from it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.connection is not None:
            self.endpoint.pool.release(self.connection)
        elif isinstance(error, UpstreamError):
            self._destination.put_last(self.endpoint)


class Destination:
    """The addresses of one host and port."""

    sticky = None

    def __init__(
        self,
        listener: str,
        authority: bytes,
        addresses: Sequence[TcpAddress],
        timeouts: UpstreamTimeouts,
        wheel: Wheel,
        cells: Cells,
        series: Cells,
        idle: Idle,
    ) -> None:
        """authority: as in Host. timeouts: they share the time to connect. cells: the seat of this process, which
        counts the connections; series: what `no_series` made; idle: bounds what is kept of all destinations."""
        self._name = authority.decode()
        timeouts = timeouts.model_copy(update={"connect": timeouts.connect / len(addresses)})
        self._places = []
        for address in addresses:
            place = Place(listener, address, authority)
            place.pool = Pool(place, _CONFIG, timeouts, wheel, cells, series=series, common=idle)
            self._places.append(place)

    def lease(
        self,
        key: bytes,
        tried: Collection[Any],
        bound: object = None,
        place: object = None,
        even_ejected: bool = False,
    ) -> Visit:
        """The first place that was not tried. Raises NoEndpoint."""
        for one in self._places:
            if one not in tried:
                return Visit(self, one)
        raise NoEndpoint("", f"every address of {self._name} was tried")

    async def wait(
        self,
        key: bytes,
        tried: Collection[Any],
        bound: object,
        busy: UpstreamError,
        within: float | None = None,
        even_ejected: bool = False,
    ) -> Visit:
        """There is nothing to wait for."""
        raise busy

    def has_other(self, tried: Collection[Any]) -> bool:
        """Whether there is a place that was not tried."""
        return any(place not in tried for place in self._places)

    def put_last(self, place: Place) -> None:
        self._places.remove(place)
        self._places.append(place)

    def close(self) -> None:
        """Keep no connection any more: idle ones are closed now, busy ones when they are done."""
        for place in self._places:
            place.pool.close()

    def __repr__(self) -> str:
        return f"<Destination {self._name} {len(self._places)} addresses>"
