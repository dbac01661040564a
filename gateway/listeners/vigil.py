"""Looking after a client whose socket is not being read: the event loop can't tell when it goes away.

That is so while its upload must wait for a slow endpoint, and after it has finished sending (a half-close), which on
TCP looks the same as being gone until something is written: then a client that is gone answers with a reset. So it is
asked once, by bytes that mean nothing (`Http1Exchange.probe`). Where there are none (HTTP/1.0 before its answer, a body
with a length) the answer itself asks; one that has begun and stands still counts as unwanted, as with nginx and Go.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from gateway.peek import has_finished, is_dead

if TYPE_CHECKING:
    from gateway.listeners.http1 import Http1Connection
    from gateway.listeners.http1_exchange import Http1Exchange

# Seconds between looks: at first soon, for most who seem gone are; then seldom, for who stays so long stays on.
_FIRST, _STEP, _SLOWER, _LONGEST = 0.005, 0.02, 1.5, 0.5
# Seconds for which an answer may stand still after a half-close.
_SILENCE = 0.05


class Vigil:
    __slots__ = ("_asked", "_connection", "_sent", "_silent_at", "_step", "_transport")

    def __init__(self, connection: Http1Connection, transport: Any) -> None:
        self._connection = connection
        self._transport = transport
        self._asked: Http1Exchange | None = None
        self._sent = -1
        self._silent_at = 0.0
        self._step = _STEP
        self._later(_FIRST)

    def ask(self) -> None:
        """The client has finished sending: find out whether it is still there."""
        exchange = self._connection.exchange
        if exchange is None or exchange is self._asked or self._knows():
            return
        self._asked = exchange
        self._sent = -1
        if not exchange.probe() and exchange.answered and not exchange.complete:
            self._sent = exchange.bytes_out
            self._silent_at = self._connection.entry.loop.time() + _SILENCE

    def _knows(self) -> bool:
        """Whether the kernel tells of a close without being asked: between processes of one machine."""
        sock = self._transport.get_extra_info("socket")
        return sock is not None and sock.family == socket.AF_UNIX

    def _later(self, seconds: float) -> None:
        self._connection.entry.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        connection = self._connection
        if connection.closed or not connection.unread:
            connection.vigil = None
            return
        if has_finished(self._transport):
            self.ask()
        if is_dead(self._transport) or self._is_silent():
            connection.gone()
            return
        self._later(self._step)
        self._step = min(_LONGEST, self._step * _SLOWER)

    def _is_silent(self) -> bool:
        exchange = self._connection.exchange
        if exchange is not self._asked or exchange is None or exchange.bytes_out != self._sent:
            self._sent = -1
            return False
        return self._connection.entry.loop.time() >= self._silent_at
