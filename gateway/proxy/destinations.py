"""The heart for a forward proxy: requests go where their clients asked, by connections that are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from typing import Any

from gateway.config.upstreams import UpstreamTimeouts
from gateway.config.values import TcpAddress
from gateway.proxy.forward import Forward
from gateway.proxy.persistence import Persistence
from gateway.proxy.retry import Policy
from gateway.proxy.tape import Shelf
from gateway.proxy.tunnel import Tunnel
from gateway.scoreboard import Cells
from gateway.upstream.destination import Destination, no_series
from gateway.upstream.idle import Idle
from gateway.wheel import Wheel

# Destinations to which a worker keeps connections. A browser visits a dozen hosts for a page: enough for a hundred
# people; what is beyond this is dialled anew, as everything would be without.
_MOST = 1024
# Nothing is sent a second time for a client who can do so itself, and knows better; what was not sent, or met a kept
# connection as it was closed, goes on all the same.
_POLICY = Policy(attempts=0)


class Destinations:
    """Those of one listener, of one worker.

    Two hosts never share a connection, though they may share an address. A destination is its host, its port, and the
    addresses that the request may go to: connections to one that is not among them any more are not used again.
    """

    def __init__(
        self,
        listener: str,
        via: bytes,
        timeouts: UpstreamTimeouts,
        wheel: Wheel,
        cells: Cells,
        max_idle: int,
        most: int = _MOST,
    ) -> None:
        """via: our name; cells: the seat of this worker; max_idle: connections that are kept, to all of them."""
        self._listener = listener
        self._via = via
        self._timeouts = timeouts
        self._wheel = wheel
        self._cells = cells
        self._idle = Idle(max_idle)
        self._most = most
        self._series = no_series()
        self._tunnel = Tunnel(wheel, timeouts.tunnel_idle, cells)
        self._shelf = Shelf(0)
        self._known: OrderedDict[tuple[bytes, frozenset[TcpAddress]], tuple[Destination, Forward]] = OrderedDict()

    def __call__(
        self, scope: Any, receive: Any, send: Any, authority: bytes, addresses: Sequence[TcpAddress]
    ) -> Awaitable[None]:
        """Forward a request to the first of these addresses that can be connected to. authority: the host and port,
        always written in the same way."""
        key = (authority, frozenset(addresses))
        known = self._known
        found = known.get(key)
        if found is not None:
            known.move_to_end(key)
            return found[1](scope, receive, send)
        destination = Destination(
            self._listener, authority, addresses, self._timeouts, self._wheel, self._cells, self._series, self._idle
        )
        way = self._way(destination)
        known[key] = destination, way
        if len(known) > self._most:
            known.popitem(last=False)[1][0].close()
        return way(scope, receive, send)

    def _way(self, destination: Destination) -> Forward:
        persistence = Persistence(destination, _POLICY, None, self._shelf, self._series, 0)
        return Forward(destination, self._via, self._series, self._tunnel, None, None, None, persistence)

    def close(self) -> None:
        """Keep no connection any more."""
        known, self._known = self._known, OrderedDict()
        for destination, _ in known.values():
            destination.close()

    def __repr__(self) -> str:
        return f"<Destinations {self._listener} {len(self._known)} known>"
