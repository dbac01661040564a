"""Two connections joined into one pipe: what arrives on the one leaves on the other, and so does its end.

Nothing is changed and nothing is copied: the event loop's bytes are written as they came. Back-pressure is the
transports' own (a full one stops the reading of its partner); half-closing passes through; a reset stays a reset. What
is cut in the middle by a bound ends as a reset too, so that it doesn't look whole.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, NamedTuple

from gateway.peek import is_dead, is_reset
from gateway.wheel import Wheel

IDLE = "tunnel_idle_timeout"
RESET = "tunnel_reset"
TOO_LONG = "tunnel_too_long"
TOO_LARGE = "tunnel_too_large"
USED_UP = "quota_exhausted"
# When nothing was sent for a minute the kernel asks whether the other machine is still there, each 15 s and four times
# (tcp(7)): who vanished is noticed within two, however long a tunnel may be idle. Unless it is told so it asks after
# two hours, or never. To tell it costs 8 us a side, a tenth of what a short connection does: those don't get it.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
_SHORT = 10.0  # seconds
_WATCH = 0.1  # seconds between looks at a side that isn't read
_CHARGE = 1.0  # seconds between two questions whether there is quota left
# The seconds whose bandwidth may be sent at once by who has sent less before: twice what a tick of the wheel takes, so
# that its lateness costs nothing of the rate.
_BURST = 0.1


class Bounds(NamedTuple):
    """What a tunnel may be."""

    duration: float = inf  # seconds
    bandwidth: float = inf  # bytes a second, in each direction
    most: float = inf  # bytes of both directions together
    # Asked about once a second and at the end: bytes and seconds since it was asked last. False: the quota is used up.
    charge: Callable[[int, float], bool] | None = None


UNBOUNDED = Bounds()


class End(NamedTuple):
    """A connection to be joined: its transport, whether that is read or not, what was read of it before, whether its
    peer has finished sending, and whether it is closed already. The protocol it had is told of its end; bytes are the
    relay's from the moment at which `run` is called."""

    transport: Any
    rest: bytes
    ended: bool = False
    lost: bool = False


class Relay:
    """The pipe. Both transports are its own from `run` on; `sent` counts the bytes from the first to the second and
    back."""

    __slots__ = (
        "_charge_at", "_charged", "_idle", "_long_at", "_moved", "_over", "_sent", "_sides", "_until", "_watching",
        "bounds", "deadline", "listen", "look", "reason", "wheel",
    )  # fmt: skip

    def __init__(
        self,
        wheel: Wheel,
        idle: float,
        bounds: Bounds = UNBOUNDED,
        listen: Callable[[bytes], bool] | None = None,
    ) -> None:
        """idle: seconds without a byte in either direction after which it ends. listen: told what comes from the first,
        until it returns False."""
        self.wheel = wheel
        self._idle = idle
        self.bounds = bounds
        self.listen = listen
        self._sides: tuple[_Side, _Side] | None = None
        self._over: asyncio.Future[None]
        self._sent = (0, 0)
        self._watching = False
        self._moved = 0.0  # when the last byte came
        self._until = inf
        self._long_at = inf  # when it is no short one any more
        self._charge_at = inf
        self._charged = (0, 0.0)  # bytes that the quota knows of, and when it was told
        self.deadline = 0.0
        self.look = 0
        self.reason = ""  # why it ended; "" for an orderly end on both sides

    @property
    def sent(self) -> tuple[int, int]:
        """Bytes taken from the first and from the second."""
        return self._sent if self._sides is None else (self._sides[0].count, self._sides[1].count)

    async def run(self, first: End, second: End) -> None:
        """Returns when both are closed."""
        self._over = asyncio.get_running_loop().create_future()
        bounds = self.bounds
        is_bounded = bounds.bandwidth < inf or bounds.most < inf
        make = _BoundedSide if is_bounded else _Side
        make_first = make if self.listen is None else _HeardBoundedSide if is_bounded else _HeardSide
        one, two = make_first(self, first.transport), make(self, second.transport)
        one.other, two.other = two, one
        self._sides = (one, two)
        self._begin()
        try:
            if first.lost or second.lost:  # while the other was waited for
                self.reason = self.reason or RESET
            if self.reason:
                return
            for side in self._sides:
                side.take_over()
            one.begin(first)
            two.begin(second)
            await self._over
        finally:
            self.deadline = 0.0
            self.listen = None  # it may know of who knows of us
            if bounds.charge is not None:
                self._pay(monotonic())
            for side in self._sides:
                side.stop()
                if self.reason in ("", IDLE):
                    side.transport.abort()
                else:
                    reset(side.transport)
            if one.lost and two.lost:
                # Nothing refers to itself any more: 2,000 connections a second are no work for the collector.
                self._sent, self._sides = self.sent, None
                del one.other, two.other

    def end(self, reason: str) -> None:
        """End it at once, and visibly: both sides are reset. reason: a code of the table in `reasons.py`."""
        self.reason = self.reason or reason
        for side in self._sides or ():
            reset(side.transport)

    # Deadlines.

    def _begin(self) -> None:
        now = self._moved = monotonic()
        self._until = now + self.bounds.duration
        self._long_at = now + _SHORT
        if self.bounds.charge is not None:
            self._charged = 0, now
            self._charge_at = now + _CHARGE
        self._rearm()

    def _rearm(self) -> None:
        self.wheel.arm(self, min(self._moved + self._idle, self._until, self._long_at, self._charge_at))

    def moved(self) -> None:
        self._moved = monotonic()  # the wheel is told when it rings

    def overdue(self) -> None:
        now = monotonic()
        if now >= self._long_at:
            self._long_at = inf
            for side in self._sides or ():
                _notice_loss(side.transport)
        if now >= self._until:
            self.end(TOO_LONG)
        elif now >= self._moved + self._idle:
            self._end_idle()
        elif now >= self._charge_at and not self._pay(now):
            self.end(USED_UP)
        else:
            self._rearm()

    def _end_idle(self) -> None:
        """An orderly end, unless somebody has not taken what was sent to him."""
        sides = self._sides or ()
        if any(side.unread or (not side.lost and side.transport.get_write_buffer_size()) for side in sides):
            self.end(IDLE)
            return
        self.reason = self.reason or IDLE
        for side in sides:
            side.transport.abort()

    def _pay(self, now: float) -> bool:
        """Tell the quota what was used since it was told last; whether there is any left."""
        count, since = self._charged
        total = sum(self.sent)
        self._charged = total, now
        self._charge_at = now + _CHARGE
        charge = self.bounds.charge
        return charge is None or charge(total - count, now - since)

    # What its sides tell.

    def watch(self) -> None:
        """A side isn't read because the other is full: nobody would see a reset of it."""
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(_WATCH, self._look)

    def _look(self) -> None:
        self._watching = False
        for side in self._sides or ():
            if side.unread and not (side.lost or side.other.lost):
                if (is_reset if side.other.ended else is_dead)(side.transport):
                    self.end(RESET)
                else:
                    self.watch()

    def lost(self) -> None:
        """A side is closed for good."""
        assert self._sides is not None
        one, two = self._sides
        if one.lost and two.lost and not self._over.done():
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

    @property
    def unread(self) -> bool:
        """Whether the event loop doesn't read it for the moment."""
        return self.other.full

    def stop(self) -> None:
        """The tunnel is over."""

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
        elif self.unread:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()  # nothing to do, if it is read

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
        self._relay.moved()  # it has taken something
        if not self.other.lost:
            self.other.go_on()

    def go_on(self) -> None:
        """The other side takes more."""
        if not self.ended:
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        other = self.other
        if not other.lost:
            if error is not None and not (self.ended and other.ended):
                self._relay.reason = self._relay.reason or RESET
                reset(other.transport)
            else:
                other.transport.close()  # it gets what was still on the way to it
        self._before.connection_lost(error)
        self._relay.lost()


class _BoundedSide(_Side):
    """One of which no more is taken than its bandwidth, and the size of the tunnel, allow. What comes faster is held,
    and no more is read."""

    __slots__ = ("_due", "_ends", "_held", "deadline", "look")

    def __init__(self, relay: Relay, transport: Any) -> None:
        super().__init__(relay, transport)
        self._held: bytes | memoryview = b""
        self._ends = False  # its end has come, behind what is held
        self._due = 0.0  # when all that was passed on would have taken its time
        self.deadline = 0.0
        self.look = 0

    @property
    def unread(self) -> bool:
        return self.other.full or bool(self._held)

    def stop(self) -> None:
        self.deadline = 0.0

    def data_received(self, data: bytes) -> None:
        # More than one piece comes only when reading could not be stopped in time.
        self._held = bytes(self._held) + data if self._held else data
        self._let_go()

    def eof_received(self) -> bool:
        if self._held:
            self._ends = True
            return True
        return super().eof_received()

    def go_on(self) -> None:
        if self._held:
            self._let_go()
        else:
            super().go_on()

    def overdue(self) -> None:
        if not (self.lost or self.other.lost):
            self._let_go()

    def _let_go(self) -> None:
        """Pass on as much as may go now; the wheel comes back for the rest."""
        relay, bounds = self._relay, self._relay.bounds
        if self.other.full:
            return  # it says when it takes more
        held = self._held
        piece, wait = held, 0.0
        if bounds.bandwidth < inf:
            now, rate = monotonic(), bounds.bandwidth
            depth = max(_BURST, 1 / rate)
            self._due = max(self._due, now - depth)
            size = min(len(held), int((now - self._due) * rate))
            self._due += size / rate
            if size < len(held):
                piece = memoryview(held)[:size]
                wait = self._due + min(depth, (len(held) - size) / rate) - now
        if self.count + self.other.count + len(piece) > bounds.most:
            relay.end(TOO_LARGE)
            return
        self._held = memoryview(held)[len(piece) :] if wait else b""
        if piece:
            self.count += len(piece)
            relay.moved()
            self.other.transport.write(piece)
        if wait:
            self.transport.pause_reading()
            relay.wheel.arm(self, monotonic() + wait)
            relay.watch()
        elif self._ends:
            super().eof_received()
        elif not (self.other.full or self.ended):
            self.transport.resume_reading()


class _HeardSide(_Side):
    """One that is listened to."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        relay = self._relay
        if relay.listen is not None and not relay.listen(data):
            relay.listen = None
        super().data_received(data)


class _HeardBoundedSide(_HeardSide, _BoundedSide):
    """Both."""

    __slots__ = ()


def reset(transport: Any) -> None:
    """End a connection at once and visibly, by a reset: an orderly end may look like the end of a whole message."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0 and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _notice_loss(transport: Any) -> None:
    """Let the kernel ask whether the other machine is still there."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0 and sock.family != socket.AF_UNIX:
        for option in _KEEPALIVE:
            sock.setsockopt(*option)
