"""The connections to one endpoint, of one worker.

The one used last is lent first (LIFO): the rest can grow old and be closed, before the endpoint does it if it is known
when that is (`lifetime.py`). Busy and idle together never exceed `max_connections`; who comes then waits in line for
`queue_timeout`. A cancelled request gives its place back at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from gateway.config.upstreams import Pool as PoolConfig
from gateway.config.upstreams import UpstreamTimeouts
from gateway.errors import ConnectFailed, QueueTimeout
from gateway.metrics.plan import UPSTREAM_OPEN, UPSTREAM_OPENED, UPSTREAM_REUSED
from gateway.scoreboard import Cells, Fact
from gateway.tls import Tls
from gateway.upstream.dial import Sources, dial, dial_with
from gateway.upstream.http1 import Connection
from gateway.upstream.idle import Idle
from gateway.upstream.lifetime import MARGIN, NEVER, UNKNOWN, Lifetime
from gateway.upstream.remote import Remote
from gateway.wheel import Wheel

log = logging.getLogger("gateway.upstream")

Aside = TypeVar("Aside", bound=asyncio.BaseProtocol)


class _Place:
    """Someone in line. Its future gets a connection, or None for leave to dial one."""

    __slots__ = ("deadline", "future", "look")

    def __init__(self, future: asyncio.Future[Connection | None]) -> None:
        self.future = future
        self.deadline = 0.0
        self.look = 0

    def overdue(self) -> None:
        if not self.future.done():
            self.future.set_exception(TimeoutError())


class Pool:
    def __init__(
        self,
        endpoint: Remote,
        config: PoolConfig,
        timeouts: UpstreamTimeouts,
        wheel: Wheel,
        cells: Cells,
        source_addresses: Sequence[str] = (),
        tls: Tls | None = None,
        series: Cells | None = None,
        common: Idle | None = None,
    ) -> None:
        """cells: the seat of this process. source_addresses: those of this machine from which it dials; the kernel's
        choice when empty. series: the cells that the endpoint's own series are among; the seat when absent. common: a
        bound that it shares with other pools."""
        self._endpoint = endpoint
        self._wheel = wheel
        self._cells = cells
        self._series = cells if series is None else series
        self._tls = tls
        self._common = common
        self._max = config.max_connections
        self._max_idle = config.max_idle
        self._idle_timeout = config.idle_timeout
        self._max_age = config.max_age or NEVER
        self._lifetime = Lifetime()
        self._sources = Sources(source_addresses)
        self._queue_timeout = config.queue_timeout
        self._timeouts = (timeouts.connect, timeouts.response, timeouts.idle)
        self._idle: list[Connection] = []
        self._line: deque[_Place] = deque()
        self._total = 0  # connections that exist or are being dialled
        self._closing = False

    def take(self, repeatable: bool) -> Connection | None:
        """An idle connection that is fit for use; None when there is none and `acquire` must be awaited. repeatable:
        whether the request may be made twice. One that may not rides only a connection that the endpoint has no reason
        to end soon."""
        idle = self._idle
        now = monotonic()
        while idle:
            connection = idle[-1]
            if not repeatable and now >= connection.safe:
                return None  # and the others are older still
            idle.pop()
            if self._common is not None:
                self._common.discard(connection)
            if now < connection.retire:
                if connection.is_usable(now, repeatable):
                    connection.busy = True
                    connection.deadline = 0.0
                    self._series[self._endpoint.cells + UPSTREAM_REUSED] += 1
                    return connection
                if not connection.closed:
                    self.ended(connection)  # the event loop has yet to say so
            connection.close()
        return None

    async def acquire(self, within: float | None = None) -> Connection:
        """A connection when `take` had none: a new one, or the next that comes free. within: seconds for it when they
        are fewer than what the configuration grants. Raises UpstreamError."""
        if self._idle:
            # None of these was fit for the request. The oldest makes room, or requests that dial would make the pool
            # grow while others leave it as it is.
            self._idle.pop(0).close()
        connect, response, idle = self._timeouts
        if self._total >= self._max:
            began = monotonic()
            wait = self._queue_timeout if within is None else min(self._queue_timeout, within)
            connection = await self._queue(wait)
            if connection is not None:
                return connection
            if within is not None:
                within = max(0.0, within - (monotonic() - began))
        else:
            self._total += 1
        try:
            if within is not None:
                connect = min(connect, within)
            connection = await dial(self._endpoint, self._wheel, connect, response, idle, self._tls, self._sources)
            if connection.closed:
                raise ConnectFailed(self._endpoint.name, "closed the connection at once")
        except BaseException:
            self._total -= 1
            self._next_in_line()
            raise
        series = self._series
        series[self._endpoint.cells + UPSTREAM_OPENED] += 1
        series[self._endpoint.cells + UPSTREAM_OPEN] += 1
        self._cells[Fact.UPSTREAM_OPEN] += 1
        connection.busy = connection.counted = True
        return connection

    @property
    def patience(self) -> float:
        """Seconds that dialling may take."""
        return self._timeouts[0]

    async def aside(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Aside]) -> Aside:
        """A connection of another protocol than HTTP: it is none of those that are kept and counted here, but dialled
        as they are, and its end is told to `aside_over`. The caller gives up after `patience`. Raises UpstreamError."""
        made = await dial_with(loop, make, self._endpoint, self._tls, self._sources)
        series = self._series
        series[self._endpoint.cells + UPSTREAM_OPENED] += 1
        series[self._endpoint.cells + UPSTREAM_OPEN] += 1
        self._cells[Fact.UPSTREAM_OPEN] += 1
        return made

    def aside_over(self) -> None:
        self._series[self._endpoint.cells + UPSTREAM_OPEN] -= 1
        self._cells[Fact.UPSTREAM_OPEN] -= 1

    async def _queue(self, seconds: float) -> Connection | None:
        place = _Place(asyncio.get_running_loop().create_future())
        self._line.append(place)
        self._wheel.arm(place, monotonic() + seconds)
        try:
            connection = await place.future
        except TimeoutError:
            self._forget(place)
            message = f"all {self._max} connections were busy for {round(seconds, 3):g} s"
            raise QueueTimeout(self._endpoint.name, message) from None
        except asyncio.CancelledError:
            self._forget(place)
            if place.future.done() and not place.future.cancelled() and place.future.exception() is None:
                given = place.future.result()  # it was called up in the same moment: pass the turn on
                if given is None:
                    self._total -= 1
                    self._next_in_line()
                else:
                    self._put_back(given, monotonic())
            raise
        finally:
            place.deadline = 0.0
        return connection

    def _forget(self, place: _Place) -> None:
        try:
            self._line.remove(place)
        except ValueError:
            pass

    def release(self, connection: Connection) -> None:
        """Take a lent connection back: for the next request when it is fit for one, else to close it."""
        if connection.closed:
            return
        now = monotonic()
        if connection.is_reusable() and not self._closing and now - connection.made < self._max_age:
            self._put_back(connection, now)
        else:
            connection.busy = False
            connection.close()

    def _put_back(self, connection: Connection, now: float) -> None:
        if connection.closed:
            return
        self._date(connection, now)
        if now >= connection.retire or (self._line and (now >= connection.safe or connection.is_ending())):
            connection.busy = False
            connection.close()  # who waits may dial
            return
        while self._line:
            place = self._line.popleft()
            if not place.future.done():
                self._series[self._endpoint.cells + UPSTREAM_REUSED] += 1
                place.future.set_result(connection)
                return
        connection.busy = False
        if len(self._idle) >= self._max_idle:
            connection.close()
            return
        self._idle.append(connection)
        self._wheel.arm(connection, connection.retire)
        if self._common is not None:
            self._common.add(connection)

    def _date(self, connection: Connection, now: float) -> None:
        """How long it may be kept, and for how long it is safe."""
        known = self._lifetime.known(now)
        if connection.announced < known:
            known = connection.announced
        since = connection.since
        connection.retire = since + self._idle_timeout
        if known == NEVER:
            connection.safe = since + UNKNOWN
        else:
            connection.safe = since + known * MARGIN
            connection.retire = min(connection.retire, connection.safe)
        if self._max_age != NEVER:
            connection.retire = min(connection.retire, connection.made + self._max_age)

    def ended(self, connection: Connection) -> None:
        """The endpoint has ended a connection that was idle: that may tell how long it keeps them."""
        now = monotonic()
        oldest = next((one.since for one in self._idle if one is not connection), now)
        if self._lifetime.ended(now - connection.since, now, now - oldest):
            seconds = self._lifetime.known(now)
            message = "%s: endpoint %s ends idle connections after %.2g s; they are not kept for that long"
            log.info(message, self._endpoint.upstream, self._endpoint.name, seconds)
            for one in self._idle:
                self._date(one, now)
                self._wheel.arm(one, one.retire)

    def lost(self, connection: Connection) -> None:
        """A connection of ours has ended, however it came about."""
        self._total -= 1
        self._series[self._endpoint.cells + UPSTREAM_OPEN] -= 1
        self._cells[Fact.UPSTREAM_OPEN] -= 1
        if not connection.busy:
            try:
                self._idle.remove(connection)
            except ValueError:
                pass
            if self._common is not None:
                self._common.discard(connection)
        self._next_in_line()

    def _next_in_line(self) -> None:
        """A place came free: whoever waits longest may dial."""
        while self._line and self._total < self._max:
            place = self._line.popleft()
            if not place.future.done():
                self._total += 1
                place.future.set_result(None)

    def close(self) -> None:
        """Keep nothing any more: idle connections are closed now, busy ones when they come back."""
        self._closing = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __repr__(self) -> str:
        return f"<Pool {self._endpoint.name} {len(self._idle)} idle, {self._total} in all, {len(self._line)} waiting>"
