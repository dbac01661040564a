"""What the connections of a listener that reads no HTTP have in common: how they come, are counted, and go."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gateway.listeners.identity import plain
from gateway.listeners.listener import Entry
from gateway.peek import waiting
from gateway.proxy_protocol import Header
from gateway.ranges import UNIX
from gateway.relay import End, Relay, reset
from gateway.session import Session

GONE = "client_gone"
DRAINED = "drain_timeout"


@dataclass(slots=True, eq=False, kw_only=True)
class StreamEntry(Entry):
    """One such listener. idle_timeout: seconds."""

    ended: Callable[[Session], None]  # told once of each connection
    idle_timeout: float


class StreamConnection(asyncio.Protocol, ABC):
    """A client's connection, from accept to close."""

    __slots__ = (
        "_ended", "_held", "_paused", "_relay", "_rest", "_server_state", "_task", "_told", "_transport", "closed",
        "deadline", "entry", "look", "session",
    )  # fmt: skip

    entry: Any  # a StreamEntry, of the kind that the protocol is of

    def __init__(self, entry: StreamEntry, server_state: Any, told: Header | None) -> None:
        """told: by a proxy in front: whose connection it is, and where that was meant to go."""
        self.entry = entry
        self.closed = False
        self.deadline = 0.0
        self.look = 0
        self._server_state = server_state
        self._told = told
        self._rest = b""  # what came and was not read yet
        self._ended = False  # the client has finished sending
        self._paused = False
        self._held: bytes | None = None  # its place among those of the same client
        self._relay: Relay | None = None
        self._task: asyncio.Task[None] | None = None

    # Comes and goes.

    def _enter(self, transport: Any) -> None:
        """It is one of the listener's connections, until `_leave`."""
        entry = self.entry
        self._transport = transport
        peer = (self._told and self._told.source) or transport.get_extra_info("peername")
        address, port = (plain(peer[0]), peer[1]) if isinstance(peer, tuple) else (UNIX, 0)
        self.session = Session(entry, address, port, monotonic())
        entry.enter(self, self._server_state)

    def _is_admitted(self) -> bool:
        entry = self.entry
        if not entry.admission.admits(self, self._server_state.connections):
            return False
        if entry.crowd is None:
            return True
        self._held = entry.crowd.enter(self.session.client)
        return self._held is not None

    def _leave(self) -> None:
        self.closed = True
        self.deadline = 0.0
        self.entry.leave(self, self._server_state, self._held)

    def _detached(self) -> End:
        """The transport, given away to a relay."""
        rest, self._rest = self._rest, b""
        return End(self._transport, rest, self._ended, self.closed)

    # Ends.

    @abstractmethod
    def _refuse(self, reason: str) -> None:
        """It goes nowhere."""

    def _end(self, reason: str) -> None:
        """Close it, unless it is closed; by a reset where something it has sent is lost."""
        self.deadline = 0.0
        self.session.reason = self.session.reason or reason
        if self.closed:
            return
        if self._rest:
            reset(self._transport)
        else:
            self._transport.close()

    # What the door and the admission ask.

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether it could be closed and nothing would be lost."""

    @property
    def idle_since(self) -> float:
        return self.session.started

    def close_if_idle(self) -> bool:
        if self.closed or not self.idle or waiting(self._transport):
            return False
        self._refuse(DRAINED if self.entry.draining else "connection_limit_reached")
        return True

    def drain(self) -> None:
        if self.entry.closes_tunnels:
            self.abort()

    def abort(self) -> None:
        """The time to drain is over."""
        if self.closed:
            return
        self.session.reason = self.session.reason or DRAINED
        if self._relay is not None:
            self._relay.end(DRAINED)
        else:
            reset(self._transport)
