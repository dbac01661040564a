"""What all connections of one listener share in a worker, and what every kind of listener answers to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from gateway.config.listeners import Limits, ListenerTimeouts
from gateway.exchange import Exchange
from gateway.listeners.admission import Admission
from gateway.listeners.crowd import Crowd
from gateway.listeners.identity import Introducer
from gateway.outgoing import Outgoing, outgoing_of
from gateway.refusals import Style
from gateway.scoreboard import Cells
from gateway.wheel import Wheel
from gateway.wire import Fields, RequestHead, read_request

Read = Callable[[bytes, Fields | None], tuple[RequestHead, int] | None]

if TYPE_CHECKING:
    from gateway.listeners.preface import Expected

# Seconds a client may take to show that it sends a body at the least rate; `body_idle` if that is shorter.
_GRACE = 10.0


@dataclass(slots=True)
class Clock:
    """The time of day as the wire wants it, renewed once a second by the worker's beat."""

    date: bytes = b""  # IMF-fixdate (RFC 9110, section 5.6.7)


class Connection(Protocol):
    """A client's connection, as those see it who count, admit and drain connections. Each is in `entry.connections`,
    and in those of the server's state, from `connection_made` to `connection_lost`."""

    entry: Any  # an Entry
    closed: bool

    @property
    def idle_since(self) -> float:
        """For an idle connection: when it became so, or was made. Monotonic seconds."""
        ...

    @property
    def idle(self) -> bool:
        """Whether it could be closed and nothing would be lost."""
        ...

    def close_if_idle(self) -> bool: ...

    def drain(self) -> None:
        """The worker leaves: take nothing new."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Entry:
    """One listener of one worker. Frozen but for `draining`, `connections` and `prefaces`.

    protocol: makes the protocol of each connection; called with entry, server_state (uvicorn's), app_state and config,
    and with told, the PROXY header, where one came.
    """

    name: str
    protocol: Callable[..., asyncio.BaseProtocol]
    wheel: Wheel
    cells: Cells
    open_cell: int
    idle_cell: int
    accepted_cell: int
    tunnels_cell: int
    backlog: int
    admission: Admission
    max_connections: int
    preface: Expected | None = None  # whether a PROXY header comes first
    prefaces: int = 0  # connections that have begun with waiting for one
    crowd: Crowd | None = None  # how many connections of one client there may be
    closes_tunnels: bool = False  # when the worker leaves, at once
    draining: bool = False
    connections: set[Any] = field(default_factory=set)
    # Asking for the running one is a system call each time (a fork check).
    loop: asyncio.AbstractEventLoop = field(init=False)
    outgoing: Outgoing = field(init=False)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connections come from here on, in this loop. A configuration that is only tried never gets here."""
        self.loop = loop
        self.outgoing = outgoing_of(loop)

    def enter(self, connection: Connection, server_state: Any) -> None:
        """It is one of the connections, until `leave`. server_state: uvicorn's."""
        server_state.connections.add(connection)
        self.connections.add(connection)
        cells = self.cells
        cells[self.accepted_cell] += 1
        cells[self.open_cell] += 1

    def leave(self, connection: Connection, server_state: Any, held: bytes | None) -> None:
        """held: its place among those of the same client."""
        server_state.connections.discard(connection)
        self.connections.discard(connection)
        self.cells[self.open_cell] -= 1
        if held is not None and self.crowd is not None:
            self.crowd.leave(held)


@dataclass(slots=True, eq=False, kw_only=True)
class HttpEntry(Entry):
    """One listener that speaks HTTP."""

    app: Any  # an ASGI application
    limits: Limits
    timeouts: ListenerTimeouts
    clock: Clock
    finished: Callable[[Exchange], None]  # told once for each exchange, also for those that were refused
    introducer: Introducer  # who clients are
    style: Style  # how its refusals look
    strict_paths: bool  # a path that can be read in two ways is refused
    scheme: str = "http"
    read: Read = read_request  # which forms of a target are requests here
    done: Awaitable[None] = field(init=False)  # what is over already: awaiting it costs next to nothing
    # Copies of what each request reads: pydantic objects are slow to ask.
    max_line: int = 0
    max_head: int = 0
    max_fields: int = 0
    unchecked: int = 0  # what is no longer than this is within every limit of size
    max_body: int = 0
    max_requests: int = 0
    head_timeout: float = 0.0
    keep_alive: float = 0.0
    body_idle: float = 0.0
    body_min_rate: float = 0.0
    grace: float = 0.0
    write_idle: float = 0.0
    least_taken: int = 0

    def __post_init__(self) -> None:
        limits, timeouts = self.limits, self.timeouts
        self.max_line = limits.request_line
        self.max_head = limits.headers
        self.max_fields = limits.header_count
        self.unchecked = min(limits.request_line, limits.headers)
        self.max_body = limits.body
        self.max_requests = limits.requests_per_connection
        self.head_timeout = timeouts.head
        self.keep_alive = timeouts.keep_alive
        self.body_idle = timeouts.body_idle
        # Without a least rate any byte is enough until the next one is overdue.
        self.body_min_rate = timeouts.body_min_rate or 1e-9
        self.grace = min(_GRACE, timeouts.body_idle) if timeouts.body_min_rate else inf
        self.write_idle = timeouts.write_idle
        self.least_taken = max(1, int(timeouts.body_min_rate * timeouts.write_idle))

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        Entry.begin(self, loop)
        future = loop.create_future()
        future.set_result(None)
        self.done = future


class Datagrams(Protocol):
    """A listener of datagrams. It has no connections; what it has instead ends by itself."""

    name: str
    admission: Admission

    async def start(self, sock: Any) -> None:
        """Take datagrams from here on."""
        ...

    @property
    def received(self) -> int:
        """How many it has taken."""
        ...

    def count(self) -> None:
        """Count what nobody tells of by itself. Called twice a second."""
        ...

    def drain(self, reads_on: bool, stopping: bool) -> None:
        """The worker leaves. What is answered goes on, but nothing is read any more: a successor does, unless reads_on
        says that nobody will. stopping: the whole gateway goes."""
        ...

    def hurry(self) -> None:
        """The whole gateway goes: keep nothing for whose next datagram nobody would be there."""
        ...

    def stop_reading(self) -> None:
        """All that waited has been read."""
        ...

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        ...

    def abort(self) -> None:
        """End at once, and keep nothing open. Called whatever came before."""
        ...
