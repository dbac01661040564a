"""Looking after a client whose socket is not being read: the event loop can't tell when it goes away.

That is so while its upload must wait for a slow endpoint, and after it has finished sending (a half-close), which on
TCP looks the same as being gone until something is written: then a client that is gone answers with a reset. A request
that has no answer yet gets an interim 100 for that purpose, which every HTTP/1.1 client must be able to overlook
(RFC 9110, section 15.2); a response under way is its own question.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from gateway.peek import is_dead

if TYPE_CHECKING:
    from gateway.listeners.http1 import Http1Connection

# Seconds between looks: at first soon, for most who seem gone are, and never so rarely that an endpoint works on for a
# tenth of a second.
_FIRST, _STEP = 0.005, 0.04
# A response that stands still asks nothing. After this the client counts as gone, as with nginx and Go at once.
_SILENCE = 0.05


class Vigil:
    __slots__ = ("_connection", "_sent", "_silent_at", "_transport")

    def __init__(self, connection: Http1Connection, transport: Any) -> None:
        self._connection = connection
        self._transport = transport
        self._sent = -1
        self._silent_at = 0.0
        self._later(_FIRST)

    def ask(self) -> None:
        """The client has finished sending: find out whether it is still there."""
        exchange = self._connection.exchange
        if exchange is None or self._knows():
            return
        if not exchange.answered:
            if exchange.head.minor:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # An HTTP/1.0 client can't be asked: it is answered, and is gone if it doesn't take it.
        elif not exchange.complete:
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
        elif is_dead(self._transport) or self._is_silent():
            connection.abort()
        else:
            self._later(_STEP)

    def _is_silent(self) -> bool:
        exchange = self._connection.exchange
        if exchange is None or exchange.bytes_out != self._sent:
            self._sent = -1
            return False
        return self._connection.entry.loop.time() >= self._silent_at
