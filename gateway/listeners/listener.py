"""What all connections of one listener share in a worker, and the two calls every kind of listener answers to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

from gateway.config.model import Limits, ListenerTimeouts
from gateway.exchange import Exchange
from gateway.listeners.admission import Admission
from gateway.listeners.identity import Introducer
from gateway.refusals import Style
from gateway.scoreboard import Cells
from gateway.wheel import Wheel

# Seconds a client may take to show that it sends a body at the least rate; `body_idle` if that is shorter.
_GRACE = 10.0


@dataclass(slots=True)
class Clock:
    """The time of day as the wire wants it, renewed once a second by the worker's beat."""

    date: bytes = b""  # IMF-fixdate (RFC 9110, section 5.6.7)


@dataclass(slots=True, eq=False)
class Entry:
    """One listener of one worker. Frozen but for `draining` and `connections`."""

    name: str
    app: Any  # an ASGI application
    limits: Limits
    timeouts: ListenerTimeouts
    wheel: Wheel
    clock: Clock
    cells: Cells
    open_cell: int
    idle_cell: int
    accepted_cell: int
    tunnels_cell: int
    finished: Callable[[Exchange], None]  # told once for each exchange, also for those that were refused
    backlog: int
    loop: asyncio.AbstractEventLoop  # asking for the running one is a system call each time (a fork check)
    introducer: Introducer  # who clients are
    admission: Admission
    style: Style  # how its refusals look
    strict_paths: bool  # a path that can be read in two ways is refused
    done: Awaitable[None]  # what is over already: awaiting it costs next to nothing
    scheme: str = "http"
    draining: bool = False
    connections: set[Any] = field(default_factory=set)
    # Copies of what each request reads: pydantic objects are slow to ask.
    max_line: int = 0
    max_head: int = 0
    max_fields: int = 0
    unchecked: int = 0  # what is no longer than this is within every limit of size
    max_body: int = 0
    max_requests: int = 0
    max_connections: int = 0
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
        self.max_connections = limits.connections
        self.head_timeout = timeouts.head
        self.keep_alive = timeouts.keep_alive
        self.body_idle = timeouts.body_idle
        # Without a least rate any byte is enough until the next one is overdue.
        self.body_min_rate = timeouts.body_min_rate or 1e-9
        self.grace = min(_GRACE, timeouts.body_idle) if timeouts.body_min_rate else inf
        self.write_idle = timeouts.write_idle
        self.least_taken = max(1, int(timeouts.body_min_rate * timeouts.write_idle))


class Listener(Protocol):
    """The contract of a kind of listener."""

    async def start(self, sockets: dict[str, list[Any]]) -> None: ...

    async def drain(self, deadline: float) -> None: ...

    def abort(self) -> None: ...
