"""The PROXY header before what a listener speaks: read it, then hand the connection on to who speaks that.

The address in it takes the place of the peer's from then on: in logs, for limits and layers, and also where a listener
asks whom it believes (`trusted_proxies`), as with HAProxy's accept-proxy and nginx's real_ip_header proxy_protocol. So
a client that comes by a proxy of `from` may not set X-Forwarded-For unless it is trusted itself. Who else connects is
handed on at once, with the address it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from gateway.listeners.identity import Trust, plain
from gateway.peek import waiting
from gateway.proxy_protocol import Header, Malformed, NoHeader, begun, read
from gateway.ranges import UNIX
from gateway.relay import reset

if TYPE_CHECKING:
    from gateway.listeners.listener import Entry

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a listener expects. trust: whose header is believed. is_required: nobody is served without one. timeout:
    seconds. refused: told once of each connection that is cut: the entry, the peer's address and port, when it came,
    and the reason."""

    trust: Trust
    is_required: bool
    timeout: float
    refused: Callable[[Any, str, int, float, str], None]


class Preface(asyncio.Protocol):
    """The protocol of a connection until its header is read. For as long it is one of the entry's connections; then
    the protocol that it makes is, and counts it as accepted."""

    __slots__ = (
        "_client", "_data", "_drained", "_expected", "_inner", "_make", "_port", "_server_state", "_started",
        "_transport", "closed", "deadline", "entry", "idle_since", "look",
    )  # fmt: skip

    def __init__(
        self, entry: Entry, expected: Expected, server_state: Any, make: Callable[..., asyncio.BaseProtocol]
    ) -> None:
        """make: what is spoken behind the header; called with `told`, the header, where one came."""
        self.entry = entry
        self.closed = True  # until it waits
        self.deadline = 0.0
        self.look = 0
        self.idle_since = 0.0
        self._expected = expected
        self._server_state = server_state
        self._make = make
        self._inner: Any = None  # what it was handed to
        self._data = b""
        self._drained = False  # the worker leaves

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._client: str = plain(peer[0]) if isinstance(peer, tuple) else UNIX
        self._port: int = peer[1] if isinstance(peer, tuple) else 0
        self._started = monotonic()
        if self._expected.trust.covers(self._client):
            self._wait()
        elif self._expected.is_required:
            self.cut("proxy_peer_not_trusted")
        else:
            self._hand_on(None)

    def _wait(self) -> None:
        self.closed = False
        self.idle_since = self._started
        entry = self.entry
        self._server_state.connections.add(self)
        entry.connections.add(self)
        entry.prefaces += 1
        entry.cells[entry.open_cell] += 1
        if entry.admission.admits(self, self._server_state.connections):
            entry.wheel.arm(self, self._started + self._expected.timeout)
        else:
            self._hand_on(None)  # who will find as well that there is no room, and knows how to say it

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data if self._data else data
        try:
            found = read(data)
        except NoHeader:
            if self._expected.is_required:
                self.cut("proxy_header_missing")
            else:
                self._hand_on(None, data)
        except Malformed as error:
            log.debug("listener %s: the PROXY header from %s: %s", self.entry.name, self._client, error)
            self.cut("proxy_header_malformed")
        else:
            if found is not None:
                header, end = found
                self._hand_on(header, data[end:])

    def eof_received(self) -> bool:
        """The peer sends nothing more. One that never sent anything wanted to know whether we are there."""
        if not self._may_have_none():
            if self._data:
                self.cut("proxy_header_malformed")
            return False
        self._hand_on(None, self._data)
        if self._transport.is_closing():
            return False
        return bool(self._inner.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self._leave()
            self.entry.cells[self.entry.accepted_cell] += 1

    def overdue(self) -> None:
        """The header took too long, or none was ever meant to come."""
        if self.closed or self._transport.is_closing():
            return
        if self._may_have_none():
            self._hand_on(None, self._data)
        else:
            self.cut("proxy_header_timeout")

    # Ends.

    def _may_have_none(self) -> bool:
        return not (self._expected.is_required or begun(self._data))

    def _hand_on(self, told: Header | None, rest: bytes = b"") -> None:
        """Let who speaks what follows have the connection. told: by the header; rest: what came behind it."""
        self._leave()
        self._data = b""
        transport = self._transport
        inner: Any = self._make() if told is None else self._make(told=told)
        self._inner = inner
        transport.set_protocol(inner)
        inner.connection_made(transport)
        if self._drained:
            inner.drain()
        if rest and not transport.is_closing():
            inner.data_received(rest)

    def cut(self, reason: str) -> None:
        """End it by a reset, so that whoever runs the proxy notices."""
        self._leave()
        entry = self.entry
        entry.cells[entry.accepted_cell] += 1
        self._expected.refused(entry, self._client, self._port, self._started, reason)
        reset(self._transport)

    def _leave(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.deadline = 0.0
        self.idle_since = -1.0  # who remembers it by that finds another
        entry = self.entry
        self._server_state.connections.discard(self)
        entry.connections.discard(self)
        entry.cells[entry.open_cell] -= 1

    # What the door and the admission ask.

    @property
    def idle(self) -> bool:
        """Whether nothing came yet."""
        return not (self.closed or self._data)

    def close_if_idle(self) -> bool:
        """End it unless something came, or is about to be read. What it was handed to answers for itself."""
        if self._inner is not None:
            return bool(self._inner.close_if_idle())
        if self.closed or self._data or waiting(self._transport):
            return False
        self._transport.close()
        return True

    def drain(self) -> None:
        """It was accepted, and is handed on when its header is there, to who knows what to do then."""
        self._drained = True

    def abort(self) -> None:
        """The time to drain is over."""
        self._transport.abort()
