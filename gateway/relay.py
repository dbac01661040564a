"""Two connections joined into one pipe: what arrives on the one leaves on the other, and so does its end.

Nothing is looked at and nothing is copied: the event loop's bytes are written as they came. Back-pressure is the
transports' own (a full one stops the reading of its partner); half-closing passes through; a reset stays a reset.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from time import monotonic
from typing import Any, NamedTuple

from gateway.peek import is_dead
from gateway.wheel import Wheel

IDLE = "tunnel_idle_timeout"
RESET = "tunnel_reset"
_WATCH = 0.1  # seconds between looks at a side that isn't read


class End(NamedTuple):
    """A connection to be joined: its transport, which isn't being read, what was read of it before, whether its peer
    has finished sending, and whether it is closed already. The protocol it had is told of its end."""

    transport: Any
    rest: bytes
    ended: bool = False
    lost: bool = False


class Relay:
    """The pipe. Both transports are its own from `run` on; `sent` counts the bytes from the first to the second and
    back."""

    __slots__ = ("_idle", "_over", "_sides", "_watching", "_wheel", "deadline", "look", "reason")

    def __init__(self, wheel: Wheel, idle: float) -> None:
        """idle: seconds without a byte in either direction after which it ends."""
        self._wheel = wheel
        self._idle = idle
        self._sides: tuple[_Side, _Side] | None = None
        self._over: asyncio.Future[None]
        self._watching = False
        self.deadline = 0.0
        self.look = 0
        self.reason = ""  # why it ended; "" for an orderly end on both sides

    @property
    def sent(self) -> tuple[int, int]:
        """Bytes taken from the first and from the second."""
        return (self._sides[0].count, self._sides[1].count) if self._sides is not None else (0, 0)

    async def run(self, first: End, second: End) -> None:
        """Returns when both are closed."""
        self._over = asyncio.get_running_loop().create_future()
        one, two = _Side(self, first.transport), _Side(self, second.transport)
        one.other, two.other = two, one
        self._sides = (one, two)
        self._wheel.arm(self, monotonic() + self._idle)
        try:
            if first.lost or second.lost:  # while the other was waited for
                self.reason = RESET
                return
            for side in self._sides:
                side.take_over()
            one.begin(first)
            two.begin(second)
            await self._over
        finally:
            self.deadline = 0.0
            for side in self._sides:
                if self.reason == RESET:
                    reset(side.transport)
                else:
                    side.transport.abort()

    def moved(self) -> None:
        self.deadline = monotonic() + self._idle

    def overdue(self) -> None:
        self.reason = self.reason or IDLE
        for side in self._sides or ():
            side.transport.abort()

    def watch(self) -> None:
        """A side isn't read because the other is full: nobody would see a reset of it."""
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(_WATCH, self._look)

    def _look(self) -> None:
        self._watching = False
        for side in self._sides or ():
            if side.other.full and not (side.lost or side.other.lost):
                if is_dead(side.transport):
                    self.reason = self.reason or RESET
                    reset(side.transport)
                    reset(side.other.transport)
                else:
                    self.watch()

    def lost(self) -> None:
        """A side is closed for good."""
        if all(side.lost for side in self._sides or ()) and not self._over.done():
            self._over.set_result(None)


class _Side(asyncio.Protocol):
    """One of the two transports."""

    __slots__ = ("_before", "_relay", "count", "ended", "full", "lost", "other", "transport")

    other: _Side

    def __init__(self, relay: Relay, transport: Any) -> None:
        self._relay = relay
        self._before = transport.get_protocol()
        self.transport = transport
        self.count = 0
        self.ended = False  # nothing more will come from it
        self.full = False  # it takes nothing more for the moment
        self.lost = False

    def take_over(self) -> None:
        self.transport.set_protocol(self)

    def begin(self, end: End) -> None:
        """Pass on what came before, and read what comes now. The other side has been taken over as well."""
        if self.transport.is_closing():
            return
        if end.rest:
            self.data_received(end.rest)
        if end.ended:
            self.eof_received()
        elif not self.other.full:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        self._relay.moved()
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        other = self.other
        if other.ended:
            self.transport.close()
            other.transport.close()
        elif not other.lost and other.transport.can_write_eof():
            other.transport.write_eof()
        else:
            other.transport.close()
            return False
        return True

    def pause_writing(self) -> None:
        self.full = True
        if not self.other.lost:
            self.other.transport.pause_reading()
            self._relay.watch()

    def resume_writing(self) -> None:
        self.full = False
        if not (self.other.lost or self.other.ended):
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        other = self.other
        if not other.lost:
            if error is not None and not self.ended:
                self._relay.reason = self._relay.reason or RESET
                reset(other.transport)
            else:
                other.transport.close()  # it gets what was still on the way to it
        self._before.connection_lost(error)
        self._relay.lost()


def reset(transport: Any) -> None:
    """End a connection at once and visibly, by a reset: an orderly end may look like the end of a whole message."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0 and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
