"""Datagrams, handed on to an upstream: sessions by the client's address and port.

A session has a socket of its own, connected to its endpoint. So answers find their session, and the kernel tells when
nobody listens there (ICMP). A worker has its sessions for itself; which endpoint a client has is known to all, in the
ledger: the client may come to another worker when their number changes, when one dies and after a reload.

All sockets are in one epoll that the event loop watches as a whole: one that comes and goes costs two system calls and
no handle of the loop, and one turn of the loop takes what has come on many.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2s
from math import inf
from time import monotonic
from typing import Any

from gateway import proxy_protocol
from gateway.config.listeners import UdpListener
from gateway.errors import ConnectFailed, DescriptorsExhausted, GatewayError, PortsExhausted, UpstreamError
from gateway.ledger import TAG, Ledger
from gateway.listeners.admission import Admission
from gateway.listeners.crowd import Crowd
from gateway.listeners.identity import plain
from gateway.listeners.overflow import Overflow
from gateway.listeners.pktinfo import ROOM, Control, way_back
from gateway.listeners.whereabouts import Whereabouts
from gateway.metrics.plan import (
    DATAGRAMS_IN,
    DATAGRAMS_OUT,
    DATAGRAMS_REFUSED,
    DATAGRAMS_TOO_LONG,
    DATAGRAMS_UNSENT,
    UPSTREAM_OPEN,
    UPSTREAM_OPENED,
)
from gateway.ranges import read
from gateway.scoreboard import Cells, Fact
from gateway.session import Session
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.lease import Lease
from gateway.upstream.upstream import Upstream
from gateway.wheel import Wheel

log = logging.getLogger("gateway")

# How a session ends, besides by an error of its endpoint.
IDLE = "tunnel_idle_timeout"
DISPLACED = "session_displaced"
CUT = "drain_timeout"

_LARGEST = 65535  # bytes; nothing in a datagram of UDP is longer, so none is ever cut
_BATCH = 64  # datagrams from one socket before the others have their turn
_EVENTS = 256
# Seconds for which whoever has asked is waited for when the whole gateway stops: a resolver asks again after less.
_LAST_WAIT = 2.0
_QUIET = 10.0  # seconds between two lines in the log about datagrams that were dropped
# A choice is remembered for this many idle times, and anew when the session goes on after a third of that: so it is
# known for as long as any worker may have the session.
_REMEMBERED = 1.5
_RENEWED = 0.5
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
_NO_PORT = (errno.EADDRINUSE, errno.EAGAIN, errno.EADDRNOTAVAIL)
_NOROOM = (errno.ENOSPC, errno.ENOMEM, errno.ENOBUFS)  # ENOSPC: fs.epoll.max_user_watches
# The kernel has no room at the moment. Nobody is to blame, and who lost a datagram sends it again.
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)


class _Silent(GatewayError):
    """A session ended while its endpoint owed an answer, or sends none at all: it says nothing about the endpoint."""


_SILENT = _Silent("no answer")


class Flow(Session):
    """A session, and what it takes to carry it on."""

    __slots__ = (
        "active", "address", "answers", "asked", "control", "counted", "fd", "header", "key", "lease", "recv",
        "renew", "send", "sock", "waits", "who",
    )  # fmt: skip

    def __init__(self, listener: Sessions, who: Any, address: Any, client: str, now: float) -> None:
        """who: what it is known by; address: the client's."""
        super().__init__(listener, client, address[1], now)
        self.who = who
        self.address = address
        self.active = now
        self.asked = 0  # datagrams of the client
        self.answers = 0
        self.waits = False  # for an answer to its last one
        self.renew = inf  # when its choice is to be remembered anew
        self.key = b""  # by which it is
        self.header = b""  # before each datagram
        self.control: Control = []  # with each answer
        self.counted = b""  # among the sessions of its client
        self.lease: Lease
        self.sock: socket.socket
        self.fd = -1
        self.send: Callable[[bytes], int]
        self.recv: Callable[[int], bytes]


class Sessions:
    """One listener of datagrams in a worker: `Datagrams` of the contract. Itself on the wheel, for whoever was idle for
    longest."""

    def __init__(
        self,
        config: UdpListener,
        upstream: Upstream,
        *,
        by_client: bool,
        sources: Sequence[str],
        crowd: Crowd | None,
        admission: Admission,
        ledger: Ledger,
        wheel: Wheel,
        cells: Cells,
        accepted_cell: int,
        open_cell: int,
        tunnels_cell: int,
        datagrams: int,
        overflow_cell: int,
        ended: Callable[[Session], None],
    ) -> None:
        """by_client: whether the upstream's policy goes by the client's address. sources: the addresses of this machine
        from which endpoints are sent to, in turns. datagrams: where their cells are. ended: told of each session."""
        self.name = config.name
        self.admission = admission
        admission.share()
        self._upstream = upstream
        self._by_client = by_client
        self._sources = deque(sources)
        self._crowd = crowd
        self._ledger = ledger
        self._wheel = wheel
        self._cells = cells
        self._accepted, self._open_now, self._tunnels = accepted_cell, open_cell, tunnels_cell
        self._in, self._out = datagrams + DATAGRAMS_IN, datagrams + DATAGRAMS_OUT
        self._refused, self._unsent = datagrams + DATAGRAMS_REFUSED, datagrams + DATAGRAMS_UNSENT
        self._too_long = datagrams + DATAGRAMS_TOO_LONG
        self._overflowed = overflow_cell
        self._ended = ended
        self._idle = config.idle_timeout
        self._most = config.max_sessions
        self._responses = config.max_responses or 0
        self._tells = config.proxy_protocol.send == "v2"
        self._closes = config.on_reload == "close"
        self._hurries = False
        self._flows: OrderedDict[Any, Flow] = OrderedDict()  # the one that is idle for longest first
        self._by_fd: dict[int, Flow] = {}
        self._refusing: dict[Any, Endpoint] = {}  # by whom: the endpoint that has just turned out not to listen
        self._tags: dict[int, Endpoint] = {}
        self._tagged: Sequence[Endpoint] = ()
        self._whereabouts = Whereabouts()
        self._dropped = 0
        self._told_at = -inf
        self._displaced = 0  # for want of descriptors
        self._told_of_them_at = -inf
        self._epoll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop
        self._sock: socket.socket
        self._fd = -1  # of it, while it is read
        self._overflow: Overflow
        self._here: tuple[str, int] = ("", 0)
        self.deadline = 0.0
        self.look = 0

    # The contract.

    async def start(self, sock: socket.socket) -> None:
        await self._whereabouts.begin([endpoint.address for endpoint in self._upstream.endpoints])
        self._loop = asyncio.get_running_loop()
        self._sock, self._fd = sock, sock.fileno()
        self._overflow = Overflow(sock, self._ledger)
        host, port = sock.getsockname()[:2]
        self._here = plain(host), port
        self._is_everywhere = read(plain(host)).is_unspecified
        self._epoll = select.epoll()
        self._epoll.register(self._fd, select.EPOLLIN)
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    @property
    def received(self) -> int:
        return int(self._cells[self._in])

    def count(self) -> None:
        if self._fd >= 0:  # who reads it next counts what it drops from then on
            self._cells[self._overflowed] += self._overflow.count()

    def drain(self, reads_on: bool, stopping: bool) -> None:
        if not reads_on:
            self.stop_reading()
        if self._closes:
            self._end_all(CUT)
        if self._crowd is not None:
            for flow in self._flows.values():  # clients that go on are counted by a successor
                self._crowd.leave(flow.counted)
                flow.counted = b""
        if stopping:
            self.hurry()

    def hurry(self) -> None:
        if self._hurries:
            return
        self._hurries = True
        self._idle = min(self._idle, _LAST_WAIT)
        for flow in list(self._flows.values()):
            if not flow.waits:
                self._end(flow, "")
        self.overdue()

    def stop_reading(self) -> None:
        if self._fd >= 0 and self._epoll is not None:
            self._epoll.unregister(self._fd)
        self._fd = -1

    @property
    def busy(self) -> bool:
        return bool(self._flows)

    def abort(self) -> None:
        self._end_all(CUT)
        self._whereabouts.close()
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
            self._fd = -1

    # What comes.

    def _ready(self) -> None:
        epoll, flows = self._epoll, self._by_fd
        if epoll is None:
            return
        for fd, _ in epoll.poll(0, _EVENTS):
            flow = flows.get(fd)
            if flow is not None:
                self._answered(flow)
            elif fd == self._fd:
                if self._is_everywhere:
                    self._take_from_anywhere()
                else:
                    self._take()

    def _take(self) -> None:
        """What clients have sent."""
        now = monotonic()
        receive, pass_on = self._sock.recvfrom, self._pass_on
        count = 0
        while count < _BATCH:
            try:
                data, address = receive(_LARGEST)
            except OSError:  # there is no more
                break
            count += 1
            pass_on(address, address, b"", data, now)
        self._cells[self._in] += count

    def _take_from_anywhere(self) -> None:
        """The same where each says which address of ours it was sent to, which is part of who its client is: the answer
        comes from there."""
        now = monotonic()
        receive, pass_on = self._sock.recvmsg, self._pass_on
        count = 0
        while count < _BATCH:
            try:
                data, told, _, address = receive(_LARGEST, ROOM)
            except OSError:
                break
            count += 1
            asked = told[0][2] if told else b""
            pass_on((address, asked), address, asked, data, now)
        self._cells[self._in] += count

    def _pass_on(self, who: Any, address: Any, asked: bytes, data: bytes, now: float) -> None:
        """One datagram of a client."""
        flow = self._flows.get(who)
        if flow is None:
            flow = self._open(who, address, asked, now)
            if flow is None:
                return
        else:
            self._flows.move_to_end(who)
        flow.active = now
        flow.asked += 1
        flow.waits = True
        flow.bytes_in += len(data)
        try:
            flow.send(flow.header + data if self._tells else data)
        except OSError as error:
            self._not_sent(flow, data, error, now)
            return
        if now > flow.renew:
            self._remember(flow, now)

    def _not_sent(self, flow: Flow, data: bytes, error: OSError, now: float) -> None:
        """Nothing of this datagram went out. What the kernel says is mostly about an earlier one: nobody listens there.
        So another endpoint gets it, as long as there is one."""
        tried: list[Endpoint] = []
        for _ in range(len(self._upstream.endpoints)):
            if error.errno in _FULL:
                self._cells[self._unsent] += 1
                return
            if error.errno == errno.EMSGSIZE:
                self._cells[self._too_long] += 1
                return
            tried.append(flow.lease.endpoint)
            self._fail(flow, error)
            again = self._open(flow.who, flow.address, _asked(flow), now, tried)
            if again is None:
                return
            flow = again
            flow.asked, flow.waits, flow.bytes_in = 1, True, len(data)
            try:
                flow.send(flow.header + data)
            except OSError as next_error:
                error = next_error
            else:
                return
        self._cells[self._unsent] += 1

    def _answered(self, flow: Flow) -> None:
        """What an endpoint has sent."""
        count = 0
        while count < _BATCH:
            try:
                data = flow.recv(_LARGEST)
            except BlockingIOError:
                break
            except OSError as error:
                self._fail(flow, error)
                break
            count += 1
            if not flow.answers:
                flow.lease.answered(200)
            flow.answers += 1
            flow.waits = False
            try:
                if flow.control:
                    self._sock.sendmsg((data,), flow.control, 0, flow.address)
                else:
                    self._sock.sendto(data, flow.address)
                flow.bytes_out += len(data)
            except OSError:
                self._cells[self._unsent] += 1
            if self._responses and flow.answers >= flow.asked * self._responses:
                self._end(flow, "")
                break
        if not count:
            return
        self._cells[self._out] += count
        if flow.fd >= 0:
            flow.active = monotonic()
            self._flows.move_to_end(flow.who)
            if flow.active > flow.renew:
                self._remember(flow, flow.active)
            if self._hurries:
                self._end(flow, "")

    # The beginning of a session.

    def _open(
        self, who: Any, address: Any, asked: bytes, now: float, tried: Collection[Endpoint] = ()
    ) -> Flow | None:
        """None: it can't be had, and the datagram is dropped. asked: the address of ours that it came to, as the kernel
        tells it; tried: endpoints that did not take it."""
        flow = Flow(self, who, address, plain(address[0]), now)
        if self._crowd is not None:
            counted = self._crowd.enter(flow.client)
            if counted is None:
                self._drop(f"{flow.client} has as many sessions as it may have", now)
                return None
            flow.counted = counted
        try:
            self._connect(flow, tried, now)
        except UpstreamError as error:
            if self._crowd is not None:
                self._crowd.leave(flow.counted)
            self._drop(str(error), now)
            return None
        endpoint = flow.lease.endpoint
        flow.upstream, flow.endpoint = self._upstream.name, endpoint.name
        flow.control, local = way_back(asked)
        if self._tells:
            here = (local, self._here[1]) if local else self._here
            flow.header = proxy_protocol.v2((flow.client, flow.port), here, is_udp=True)
        flows = self._flows
        if len(flows) >= self._most:
            self._end(next(iter(flows.values())), DISPLACED)
        flows[who] = flow
        cells = self._cells
        cells[self._accepted] += 1
        cells[self._open_now] += 1
        cells[self._tunnels] += 1
        cells[Fact.UPSTREAM_OPEN] += 1
        cells[endpoint.cells + UPSTREAM_OPENED] += 1
        cells[endpoint.cells + UPSTREAM_OPEN] += 1
        self.admission.session(1)
        if not self.deadline:
            self._wheel.arm(self, now + self._idle)
        return flow

    def _connect(self, flow: Flow, tried: Collection[Endpoint], now: float) -> None:
        """Give a session its endpoint: the one it had, or that which the balancer wants. Raises UpstreamError."""
        upstream = self._upstream
        refusing = self._refusing.pop(flow.who, None)
        avoided = [*tried, refusing] if refusing is not None else list(tried)
        bound = None
        if len(upstream.endpoints) > 1:
            flow.key = b"udp\0%b\0%b\0%d" % (self.name.encode(), flow.client.encode(), flow.port)
            bound = self._known().get(self._ledger.chosen(flow.key))
        key = flow.client.encode() if self._by_client else b""
        while True:
            try:
                lease = upstream.lease(key, avoided, bound, even_ejected=True)
            except UpstreamError:
                if refusing is None or refusing in tried:
                    raise
                avoided, refusing = list(tried), None  # there is nobody else
                continue
            lease.__enter__()
            endpoint = lease.endpoint
            try:
                flow.sock = self._socket(endpoint)
            except UpstreamError as error:
                lease.__exit__(type(error), error, None)
                if isinstance(error, DescriptorsExhausted | PortsExhausted):
                    raise
                flow.retries += 1
                avoided.append(endpoint)
                if len(avoided) >= len(upstream.endpoints):
                    raise
                continue
            break
        flow.lease = lease
        flow.fd = flow.sock.fileno()
        flow.send, flow.recv = flow.sock.send, flow.sock.recv
        self._by_fd[flow.fd] = flow
        if flow.key:
            self._remember(flow, now)

    def _socket(self, endpoint: Endpoint) -> socket.socket:
        """A socket that is connected to it, in the epoll. Raises UpstreamError."""
        place = self._whereabouts.of(endpoint.address)
        if place is None:
            raise ConnectFailed(endpoint.name, "its name is not known")
        family, where = place
        if not (self.admission.has_room(len(self._flows)) or self._displace()):
            raise DescriptorsExhausted(endpoint.name, "no descriptor left")
        sock = None
        for _ in range(2):
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                source = self._source(family)
                if source:
                    sock.bind((source, 0))
                sock.connect(where)
                if self._epoll is not None:
                    self._epoll.register(sock.fileno(), select.EPOLLIN)
            except OSError as error:
                why = f"cannot send to it ({error.strerror or error})"
                if sock is not None:
                    sock.close()
                    if error.errno in _NO_PORT:
                        raise PortsExhausted(endpoint.name, why) from None
                    if error.errno in _NOROOM:
                        raise DescriptorsExhausted(endpoint.name, why) from None
                    raise ConnectFailed(endpoint.name, why) from None
                if error.errno not in _NO_DESCRIPTOR or not self._displace():
                    raise DescriptorsExhausted(endpoint.name, why) from None
            else:
                return sock
        raise DescriptorsExhausted(endpoint.name, "no descriptor left")

    def _displace(self) -> bool:
        """End the session that was idle for longest, for its descriptor. False: there is none. Told of now and then."""
        if not self._flows:
            return False
        count, now = len(self._flows), monotonic()
        self._end(next(iter(self._flows.values())), DISPLACED)
        self._displaced += 1
        if now >= self._told_of_them_at + _QUIET:
            log.warning(
                "listener %s: no descriptors for more than %d sessions; ended %d that were idle for longest",
                self.name,
                count,
                self._displaced,
            )
            self._told_of_them_at, self._displaced = now, 0
        return True

    def _source(self, family: socket.AddressFamily) -> str:
        """The next address to send from; "" for the kernel's choice."""
        self._sources.rotate(-1)
        is_ipv6 = family == socket.AF_INET6
        return next((one for one in self._sources if (":" in one) is is_ipv6), "")

    # What all workers know.

    def _known(self) -> dict[int, Endpoint]:
        """The endpoints by what stands for them in the ledger."""
        endpoints = self._upstream.endpoints
        if self._tagged is not endpoints:
            self._tagged = endpoints
            self._tags = {_tag(endpoint): endpoint for endpoint in endpoints}
        return self._tags

    def _remember(self, flow: Flow, now: float) -> None:
        self._ledger.choose(flow.key, _tag(flow.lease.endpoint), int(_REMEMBERED * self._idle * 1e9))
        flow.renew = now + _RENEWED * self._idle

    # The end of a session.

    def overdue(self) -> None:
        """Look after those who were idle for longest."""
        now = monotonic()
        while self._flows:
            flow = next(iter(self._flows.values()))
            if flow.active + self._idle > now:
                self._wheel.arm(self, flow.active + self._idle)
                return
            self._end(flow, IDLE if flow.waits or self._responses else "")  # cut off, where an answer is owed

    def _fail(self, flow: Flow, error: OSError) -> None:
        """The kernel says that the endpoint can't be reached."""
        endpoint = flow.lease.endpoint
        failure = ConnectFailed(endpoint.name, f"cannot send to it ({error.strerror or error})")
        if flow.key:
            self._ledger.choose(flow.key, 0, 0)
            if len(self._refusing) >= self._most:
                self._refusing.clear()
            self._refusing[flow.who] = endpoint
        self._end(flow, failure.reason, failure)

    def _end_all(self, reason: str) -> None:
        for flow in list(self._flows.values()):
            self._end(flow, reason)

    def _end(self, flow: Flow, reason: str, failure: UpstreamError | None = None) -> None:
        del self._flows[flow.who]
        del self._by_fd[flow.fd]
        flow.sock.close()  # and it is out of the epoll
        flow.fd = -1
        lease = flow.lease
        if failure is not None:
            lease.__exit__(type(failure), failure, None)
        elif flow.waits and not lease.is_trial:
            lease.__exit__(_Silent, _SILENT, None)
        else:
            # Also a trial without an answer: where nobody listens the kernel would have said so, and there are
            # protocols that know no answers.
            lease.__exit__(None, None, None)
        if self._crowd is not None:
            self._crowd.leave(flow.counted)
        cells = self._cells
        cells[self._open_now] -= 1
        cells[self._tunnels] -= 1
        cells[Fact.UPSTREAM_OPEN] -= 1
        cells[lease.endpoint.cells + UPSTREAM_OPEN] -= 1
        self.admission.session(-1)
        flow.reason = reason
        self._ended(flow)

    def _drop(self, why: str, now: float) -> None:
        """Nobody can have this datagram. It is counted, and told of now and then."""
        self._cells[self._refused] += 1
        self._dropped += 1
        if now >= self._told_at + _QUIET:
            log.warning("listener %s: dropped %d datagrams: %s", self.name, self._dropped, why)
            self._told_at, self._dropped = now, 0


def _tag(endpoint: Endpoint) -> int:
    """What stands for an endpoint in the ledger: the same in every worker and after an upgrade."""
    digest = blake2s(f"{endpoint.upstream}\0{endpoint.name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") & (1 << TAG) - 1) or 1


def _asked(flow: Flow) -> bytes:
    """The address of ours, as the kernel told it."""
    who = flow.who
    return who[1] if isinstance(who[1], bytes) else b""
