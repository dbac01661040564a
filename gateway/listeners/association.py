"""Datagrams of a SOCKS client (RFC 1928, section 7): to whom it wants, and their answers back, for as long as its TCP
connection is open.

Each destination is judged once; a name is looked up once. Answers come from nobody but those who were asked. Datagrams
may be lost, so where there is no room, or no leave, they are.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from gateway.config.values import TcpAddress
from gateway.errors import DescriptorsExhausted, EgressDenied, UpstreamError
from gateway.listeners.admission import Admission
from gateway.listeners.egress import Egress
from gateway.listeners.identity import plain
from gateway.relay import IDLE, TOO_LARGE, TOO_LONG, USED_UP, Bounds
from gateway.session import Session
from gateway.socks import Malformed, datagram, read_datagram
from gateway.wheel import Wheel

log = logging.getLogger("gateway")

_MOST = 1024  # destinations; a further one takes the place of the one that was not asked for longest
_WAITING = 8  # datagrams that wait until their destination is judged
_JUDGED = 64  # destinations at a time; a datagram for a further one is dropped
_MOST_HELD = 64 * 1024  # bytes that wait for that, of all destinations together
_BATCH = 64  # datagrams from one socket before others have their turn
_LARGEST = 65535  # bytes; nothing in a datagram of UDP is longer
_PATIENCE = 10.0  # seconds for that
_CHARGE = 1.0  # seconds between two questions whether there is quota left
_BURST = 0.5  # seconds whose bandwidth may be sent at once
_OVERHEAD = 32  # bytes that a datagram of no bytes counts for, so that nobody sends any number of them

_Received = Callable[[bytes, tuple[Any, ...]], None]


class _Place:
    """Somewhere that the client has named. where: as a socket takes it; None: nowhere, or not known yet. waiting: what
    comes until it is judged."""

    __slots__ = ("key", "task", "waiting", "where")

    def __init__(self) -> None:
        self.where: tuple[Any, ...] | None = None
        self.key: tuple[bytes, int] | None = None
        self.waiting: list[bytes] | None = []
        self.task: asyncio.Task[None] | None = None


class Association:
    """One client's. `over` is done with a reason when it has ended by itself."""

    __slots__ = (
        "_admission", "_admitted", "_asked", "_back", "_bounds", "_charge_at", "_charged", "_client", "_denied",
        "_egress", "_far", "_held", "_idle", "_judging", "_loop", "_moved", "_near", "_places", "_port", "_session",
        "_spent", "_taken", "_until", "_wheel", "deadline", "look", "over",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wheel: Wheel,
        admission: Admission,
        egress: Egress,
        session: Session,
        idle: float,
        bounds: Bounds,
    ) -> None:
        """idle: seconds without a datagram either way after which it ends."""
        self._loop = loop
        self._wheel = wheel
        self._admission = admission
        self._egress = egress
        self._session = session
        self._idle = idle
        self._bounds = bounds
        self._client = session.client
        self._port = 0  # the client's; 0 while it isn't known
        self._back: tuple[Any, ...] | None = None  # where answers go
        self._near: _Socket | None = None
        self._far: dict[bool, _Socket] = {}  # by whether it is IPv6
        self._taken = 0  # descriptors, beside the one that any client of a proxy is granted for where it goes
        self._places: dict[bytes, _Place] = {}  # as the client writes them, the one that was asked last at the end
        self._asked: Counter[tuple[bytes, int]] = Counter()  # places by address
        self._spent = [0.0, 0.0]  # by direction: when what was sent would have been, at the bandwidth
        self._judging = 0  # places that are not judged yet
        self._held = 0  # bytes that wait for that
        self._admitted = 0  # destinations
        self._denied: EgressDenied | None = None  # the first
        self.deadline = 0.0
        self.look = 0
        self.over: asyncio.Future[str] = loop.create_future()

    async def open(self, here: tuple[Any, ...], host: str, port: int) -> tuple[str, int]:
        """Where the client is to send to: the address that it has connected to (`here`), and a port. host, port: where
        it says that it will send from, zeros when it doesn't. Raises DescriptorsExhausted."""
        # A port is worth something only together with the client's own address, or with none.
        if port and host in (self._client, "0.0.0.0", "::", "0"):
            self._port = port
        address = plain(here[0])
        self._take()
        self._near = self._opened((address, 0, *here[2:]) if ":" in address else (address, 0), self._from_client)
        now = self._moved = monotonic()
        self._charged = 0, now
        self._until = now + self._bounds.duration
        self._charge_at = now + _CHARGE if self._bounds.charge is not None else inf
        self._rearm()
        bound = self._near.sock.getsockname()
        return bound[0], bound[1]

    def _take(self) -> None:
        """One more descriptor. Raises DescriptorsExhausted."""
        if not self._admission.takes_more():
            raise DescriptorsExhausted("", "no descriptor left for datagrams")
        self._taken += 1

    def _opened(self, where: tuple[Any, ...], received: _Received) -> _Socket:
        """A socket that is bound there. Raises DescriptorsExhausted."""
        family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.bind(where)
        except OSError as error:
            if sock is not None:
                sock.close()
            raise DescriptorsExhausted("", f"no socket for datagrams ({error.strerror})") from None
        return _Socket(self._loop, sock, received)

    def end(self, reason: str) -> None:
        if not self.over.done():
            self.over.set_result(reason)

    def close(self) -> None:
        """Let go of everything, and say where it went."""
        session = self._session
        if self._admitted > 1:
            session.destination += f" and {self._admitted - 1} more"
        elif not self._admitted and self._denied is not None:
            session.rule = self._denied.rule
            session.reason = session.reason or self._denied.reason
        if self._near is not None:
            self._charge(monotonic())
        self.deadline = 0.0
        self.end("")
        for place in self._places.values():
            if place.task is not None:
                place.task.cancel()
        self._places = {}
        for one in (self._near, *self._far.values()):
            if one is not None:
                one.close()
        self._admission.give_back(self._taken)
        self._taken = 0

    # From the client.

    def _from_client(self, data: bytes, source: tuple[Any, ...]) -> None:
        if plain(source[0]) != self._client or self._port not in (0, source[1]):
            return
        try:
            fragment, host, port, start = read_datagram(data)
        except Malformed:
            return
        if fragment:  # nothing is put together here; that is left to us (section 7)
            return
        self._port = source[1]
        self._back = source
        written = data[3:start]
        place = self._places.pop(written, None)
        if place is None:
            if self._judging >= _JUDGED:
                return
            place = self._new(written, host, port)
        self._places[written] = place
        if place.waiting is not None:
            size = len(data) - start
            if len(place.waiting) < _WAITING and self._held + size <= _MOST_HELD:
                self._held += size
                place.waiting.append(data[start:])
        elif place.where is not None:
            self._send(place.where, data[start:])

    def _new(self, written: bytes, host: str, port: int) -> _Place:
        if len(self._places) >= _MOST:
            self._forget(next(iter(self._places)))
        place = _Place()
        self._judging += 1
        place.task = self._loop.create_task(self._judge(place, written, host, port), name="destination")
        place.task.add_done_callback(partial(self._judged, place))  # also of one that was given up before it began
        return place

    def _forget(self, written: bytes) -> None:
        place = self._places.pop(written)
        if place.task is not None:
            place.task.cancel()
        if place.key is not None:
            self._asked[place.key] -= 1
            if not self._asked[place.key]:
                del self._asked[place.key]

    async def _judge(self, place: _Place, written: bytes, host: str, port: int) -> None:
        """What is denied stays denied; what could not be found out is asked again."""
        session = self._session
        session.destination = session.destination or str(TcpAddress(host, port))
        try:
            async with asyncio.timeout(_PATIENCE):
                address = _reachable(await self._egress.admit(host, port, self._client))
            self._open_far(":" in address.host)
        except EgressDenied as denied:
            self._denied = self._denied or denied
        except (UpstreamError, TimeoutError) as error:
            log.debug("a datagram for %r, port %d: %s", host, port, error or "not looked up in time")
            self._places.pop(written, None)
        else:
            if not self._admitted:
                session.destination, session.endpoint = str(TcpAddress(host, port)), str(address)
            self._admitted += 1
            where = place.where = _where(address)
            place.key = _packed(where)
            self._asked[place.key] += 1

    def _judged(self, place: _Place, task: asyncio.Task[None]) -> None:
        waiting, place.waiting, place.task = place.waiting or (), None, None
        self._judging -= 1
        self._held -= sum(map(len, waiting))
        if place.where is not None:
            for data in waiting:
                self._send(place.where, data)

    def _open_far(self, is_six: bool) -> None:
        """Raises DescriptorsExhausted."""
        if is_six not in self._far:
            if self._far:
                self._take()  # for the second; `close` gives it back, also when it can't be opened
            self._far[is_six] = self._opened(("::" if is_six else "0.0.0.0", 0), self._from_outside)

    def _send(self, where: tuple[Any, ...], data: bytes) -> None:
        if self._passes(0, len(data)):
            self._session.bytes_in += len(data)
            self._far[len(where) > 2].send(data, where)

    # To the client.

    def _from_outside(self, data: bytes, source: tuple[Any, ...]) -> None:
        near, back = self._near, self._back
        if near is None or back is None or _packed(source) not in self._asked:
            return
        if self._passes(1, len(data)):
            self._session.bytes_out += len(data)
            near.send(datagram(source[0], source[1]) + data, back)

    # Bounds.

    def _passes(self, direction: int, size: int) -> bool:
        """Whether there is bandwidth for a datagram, and whether it may be at all."""
        now = self._moved = monotonic()
        session, bounds = self._session, self._bounds
        if session.bytes_in + session.bytes_out + size > bounds.most:
            self.end(TOO_LARGE)
            return False
        if bounds.bandwidth < inf:
            spent = max(self._spent[direction], now - _BURST)
            if spent > now:
                return False
            self._spent[direction] = spent + (size + _OVERHEAD) / bounds.bandwidth
        return True

    def _rearm(self) -> None:
        self._wheel.arm(self, min(self._moved + self._idle, self._until, self._charge_at))

    def overdue(self) -> None:
        now = monotonic()
        if now >= self._until:
            self.end(TOO_LONG)
        elif now >= self._moved + self._idle:
            self.end(IDLE)
        elif now >= self._charge_at and not self._charge(now):
            self.end(USED_UP)
        else:
            self._rearm()

    def _charge(self, now: float) -> bool:
        """Have what was used since the last time charged. False: the quota is used up."""
        charge = self._bounds.charge
        if charge is None:
            return True
        count = self._session.bytes_in + self._session.bytes_out
        before, since = self._charged
        self._charged = count, now
        self._charge_at = now + _CHARGE
        return charge(count - before, now - since)


class _Socket:
    """received: told of each datagram and where it comes from. Not a transport: uvloop's is made by and by, and one
    whose making is broken off keeps its descriptor; it also drops what is empty, and keeps what the kernel has no room
    for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, received: _Received) -> None:
        self.sock = sock
        self._loop = loop
        self._received = received
        loop.add_reader(sock.fileno(), self._ready)

    def _ready(self) -> None:
        for _ in range(_BATCH):
            try:
                data, source = self.sock.recvfrom(_LARGEST)
            except OSError:  # there is no more, or it was closed by what came
                return
            self._received(data, source)

    def send(self, data: bytes, where: tuple[Any, ...]) -> None:
        """Now or never."""
        with suppress(OSError):
            self.sock.sendto(data, where)

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            self._loop.remove_reader(self.sock.fileno())
            self.sock.close()


def _where(address: TcpAddress) -> tuple[Any, ...]:
    """As a socket takes it."""
    if ":" not in address.host:
        return address.host, address.port
    host, _, zone = address.host.partition("%")
    return host, address.port, 0, int(zone) if zone.isdecimal() else 0


def _reachable(addresses: list[TcpAddress]) -> TcpAddress:
    """The first to which there is a route, or else the first."""
    return next(filter(_has_route, addresses), addresses[0]) if len(addresses) > 1 else addresses[0]


def _has_route(address: TcpAddress) -> bool:
    """Asks the kernel; nothing is sent."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_where(address))
    except OSError:
        return False
    return True


def _packed(where: tuple[Any, ...]) -> tuple[bytes, int]:
    """However it is written, the same."""
    host = where[0].partition("%")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host), where[1]
