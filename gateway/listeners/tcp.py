"""A TCP listener: what a client sends goes to an endpoint of an upstream, and back, unread.

A connection is accepted, sent on its way (by the name in its TLS ClientHello, where there are routes), connected to the
first endpoint that can be reached, and relayed. Until then no more is read than a first message: who sends much before
there is an endpoint waits. For all of that it has one task and no timer of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gateway.client_hello import HelloReader, NoHello
from gateway.errors import Busy, DescriptorsExhausted, GatewayError, NoEndpoint, UpstreamError
from gateway.listeners.identity import plain
from gateway.listeners.sni import Names
from gateway.listeners.stream import GONE, StreamConnection, StreamEntry
from gateway.metrics.plan import UPSTREAM_RETRIES
from gateway.peek import is_dead
from gateway.proxy_protocol import Address, Header
from gateway.ranges import UNIX
from gateway.relay import Bounds, End, Relay
from gateway.upstream.dial import too_late
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.lease import Lease
from gateway.upstream.upstream import Upstream

log = logging.getLogger("gateway")

# Bytes kept of a client before there is an endpoint. Pausing sooner would cost most of them, who have sent their first
# message by then, some system calls.
_EARLY = 16 * 1024


@dataclass(frozen=True, slots=True)
class Way:
    """Where connections go. by_client: the upstream's balancer goes by the client's address. total: seconds for
    dialling its endpoints, all of them together; inf for any."""

    upstream: Upstream
    by_client: bool
    total: float


@dataclass(slots=True, eq=False, kw_only=True)
class TcpEntry(StreamEntry):
    """One TCP listener. Times in seconds.

    way: for what no name leads elsewhere; names: the routes of TLS connections. header: makes what tells an endpoint
    whose connection it gets, of the client's address and the one it came to.
    """

    way: Way | None
    names: Names[Way]
    hello_timeout: float
    bounds: Bounds
    header: Callable[[Address | None, Address | None], bytes] | None


class TcpConnection(StreamConnection):
    """A client's connection, from accept to close."""

    __slots__ = ("_is_dialling", "_is_under_way", "_reader")

    entry: TcpEntry

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        entry: TcpEntry,
        told: Header | None = None,
        _loop: Any = None,
    ) -> None:
        StreamConnection.__init__(self, entry, server_state, told)
        self._reader: HelloReader | None = None
        self._is_under_way = False  # its task has begun
        self._is_dialling = False

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        self._enter(transport)
        entry = self.entry
        if not self._is_admitted():
            self._refuse("connection_limit_reached")
        elif entry.names:
            self._reader = HelloReader()
            entry.wheel.arm(self, self.session.started + entry.hello_timeout)
        else:
            self._set_out(entry.way)

    def data_received(self, data: bytes) -> None:
        if self._reader is not None:
            self._read_hello(self._reader, data)
            return
        self._rest = self._rest + data if self._rest else data
        if len(self._rest) > _EARLY and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self._reader is None:
            return True  # it may still be answered
        if self.idle:
            return False
        self._set_out(self.entry.way)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Also from the relay, which has the transport by then."""
        self._leave()
        self._reader = None
        if self._task is None:
            self._end(GONE)
            self.entry.ended(self.session)
        elif self._relay is None and self._is_under_way:
            self._task.cancel()

    # Where it goes.

    def _read_hello(self, reader: HelloReader, data: bytes) -> None:
        way = self.entry.way
        try:
            hello = reader.feed(data)
            if hello is None:
                return
            self.session.sni = hello.sni
            way = self.entry.names.find(hello.sni) or way
        except NoHello:
            pass  # something else is spoken
        self._set_out(way)

    def overdue(self) -> None:
        """What was waited for has not come in time: an endpoint; the first message, or the whole of it. To say nothing
        is right where others speak first."""
        if self._is_dialling and self._task is not None:
            self._is_dialling = False
            self._task.cancel()
        elif self.entry.way is None or not self.idle:
            self._refuse("hello_timeout")
        else:
            self._set_out(self.entry.way)

    def _set_out(self, way: Way | None) -> None:
        self._have_read()
        self.deadline = 0.0
        if way is None:
            self._refuse("no_route")
            return
        self._task = self.entry.loop.create_task(self._carry(way), name="tunnel")
        self._server_state.tasks.add(self._task)

    def _have_read(self) -> None:
        """No more of a hello is waited for; what came of it is the client's first."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._rest = reader.raw

    async def _carry(self, way: Way) -> None:
        self._is_under_way = True
        session = self.session
        session.upstream = way.upstream.name
        reason = GONE
        try:
            if not self.closed:
                reason = await self._reach(way)
        except UpstreamError as error:
            reason = error.reason
        except (asyncio.CancelledError, _Gone):
            pass
        except Exception:
            log.exception("listener %s: a connection failed", self.entry.name)
            reason = "proxy_internal_error"
        finally:
            self._server_state.tasks.discard(self._task)
            self._end(reason)
            self.entry.ended(session)

    async def _reach(self, way: Way) -> str:
        """Connect to the first endpoint that can be reached, and relay until it is over. Returns how it ended, and
        raises UpstreamError when there is no connection."""
        upstream, session = way.upstream, self.session
        key = session.client.encode() if way.by_client else b""
        tried: tuple[Endpoint, ...] = ()
        failure: UpstreamError | None = None
        until = monotonic() + way.total
        while True:
            try:
                lease = await _leased(upstream, key, tried)
            except NoEndpoint:
                if failure is not None:
                    raise failure from None  # says more than that none is left
                raise
            endpoint = lease.endpoint
            session.endpoint = endpoint.name
            try:
                with lease:
                    if self._paused and is_dead(self._transport):  # the event loop doesn't look while it isn't read
                        raise _Gone("the client is not there any more")
                    far = await self._dial(endpoint, until)
                    try:
                        lease.connected()
                        session.connect_time = monotonic() - lease.began
                        return await self._join(far)
                    finally:
                        far.transport.abort()
                        endpoint.pool.aside_over()
            except DescriptorsExhausted:
                raise
            except UpstreamError as error:
                if monotonic() >= until:
                    raise
                failure = error
            tried = (*tried, endpoint)
            session.retries += 1
            self.entry.cells[endpoint.cells + UPSTREAM_RETRIES] += 1

    async def _dial(self, endpoint: Endpoint, until: float) -> _Far:
        """Not beyond that time. Raises UpstreamError. The wheel cancels it when it takes too long: a timer each would
        cost more than all the rest here."""
        entry, pool = self.entry, endpoint.pool
        self._is_dialling = True
        now = monotonic()
        within = min(pool.patience, max(0.0, until - now))
        entry.wheel.arm(self, now + within)
        try:
            return await pool.aside(entry.loop, _Far)
        except asyncio.CancelledError:
            if self._is_dialling or self.closed or self._task is None:
                raise
            self._task.uncancel()
            raise too_late(endpoint, within) from None
        finally:
            self._is_dialling = False
            self.deadline = 0.0

    async def _join(self, far: _Far) -> str:
        entry, session = self.entry, self.session
        if entry.header is not None:
            far.transport.write(entry.header(*self._ends()))
        entry.cells[entry.tunnels_cell] += 1
        relay = self._relay = Relay(entry.wheel, entry.idle_timeout, entry.bounds)
        try:
            await relay.run(self._detached(), far.detached())
        finally:
            entry.cells[entry.tunnels_cell] -= 1
            session.bytes_in, session.bytes_out = relay.sent
        return relay.reason

    def _ends(self) -> tuple[Address | None, Address | None]:
        """The client's address and the one it meant, None for what is no IP address."""
        session = self.session
        here = (self._told and self._told.destination) or self._transport.get_extra_info("sockname")
        return (
            (session.client, session.port) if session.client != UNIX else None,
            (plain(here[0]), here[1]) if isinstance(here, tuple) else None,
        )

    # Ends.

    def _refuse(self, reason: str) -> None:
        """It goes nowhere. It is told when it is lost."""
        self._have_read()
        self._end(reason)

    @property
    def idle(self) -> bool:
        """Whether it has yet to say where it wants to go."""
        return self._reader is not None and not self._reader.has_begun


class _Gone(GatewayError):
    """The client left while it had no endpoint: it says nothing about any."""


class _Far(asyncio.Protocol):
    """The endpoint's side until it is relayed: keeps what comes before."""

    __slots__ = ("_ended", "_lost", "_rest", "transport")

    def __init__(self) -> None:
        self._rest = b""
        self._ended = False
        self._lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data

    def eof_received(self) -> bool:
        self._ended = True
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True

    def detached(self) -> End:
        return End(self.transport, self._rest, self._ended, self._lost)


async def _leased(upstream: Upstream, key: bytes, tried: tuple[Endpoint, ...]) -> Lease:
    """Raises UpstreamError."""
    try:
        return upstream.lease(key, tried, even_ejected=True)
    except Busy as busy:
        return await upstream.wait(key, tried, None, busy, even_ejected=True)
