"""A switched protocol: after the endpoint's 101, bytes go both ways unread until both sides have ended."""

from __future__ import annotations

from typing import Any

from gateway.errors import ConnectionCut, UpgradeFailed
from gateway.relay import UNBOUNDED, Relay
from gateway.scoreboard import Cells
from gateway.upstream.http1 import Connection
from gateway.wheel import Wheel
from gateway.wire import ResponseHead, tokens


def agreed(response: ResponseHead, asked: bytes) -> bool:
    """Whether a 101 names one of the protocols that were asked for, and nothing else (RFC 9110, section 7.8)."""
    chosen = tokens(response.special.get(b"upgrade", b""))
    return chosen != [b""] and set(chosen) <= set(tokens(asked))


class Tunnel:
    """How a route's tunnels are run. idle: seconds without a byte that end one; cells: the worker's, where the
    listener's gauge is."""

    def __init__(self, wheel: Wheel, idle: float, cells: Cells) -> None:
        self._wheel = wheel
        self._idle = idle
        self._cells = cells

    async def run(self, exchange: Any, connection: Connection, response: ResponseHead, asked: bytes, send: Any) -> None:
        """Pass the 101 on and relay until it is over. Raises UpstreamError while there is none yet."""
        name = connection.endpoint.name
        if not agreed(response, asked):
            raise UpgradeFailed(name, "switched to a protocol that was not asked for", sent=True)
        if connection.closed:
            raise ConnectionCut(name, "closed the connection after its 101", sent=True)
        await send({"type": "http.response.start", "status": 101, "headers": response})
        relay = Relay(self._wheel, self._idle, exchange.bounds or UNBOUNDED)
        gauge = exchange.listener.tunnels_cell
        self._cells[gauge] += 1
        try:
            await relay.run(exchange.detach(relay.end), connection.detach())
        finally:
            self._cells[gauge] -= 1
            exchange.bytes_in, exchange.bytes_out = relay.sent
            exchange.reason = exchange.reason or relay.reason
