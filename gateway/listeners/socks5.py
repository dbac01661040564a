"""A SOCKS 5 listener (RFC 1928): who the client is, where it wants to go, whether it may, then a tunnel.

A connection is one task from its first byte on, which reads message by message; each has a deadline of its own. What
comes behind a request, before there is an answer, is kept for the tunnel. Each failure has its reply code, and then the
client gets time to read it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol, TypeVar

from gateway import socks
from gateway.client_hello import overhearing
from gateway.config.values import TcpAddress
from gateway.errors import ConnectFailed, ConnectTimeout, EgressDenied, NameUnknown, Refused, UpstreamError
from gateway.listeners.association import Association
from gateway.listeners.egress import Egress, Ticket
from gateway.listeners.outward import reach
from gateway.listeners.stream import GONE, StreamConnection, StreamEntry
from gateway.proxy_protocol import Header
from gateway.ranges import Ranges
from gateway.relay import Relay
from gateway.scoreboard import Fact
from gateway.socks import Malformed, Request, read_credentials, read_greeting, read_request, reply

log = logging.getLogger("gateway")

# After a reply that ends the connection: how long what still comes is thrown away, so that the reply is not lost to a
# reset. The RFC wants the end within 10 s (section 6).
_LINGER = 2.0
_UPSTREAM_OPEN = int(Fact.UPSTREAM_OPEN)
# What the kernel says, by reply; anything else is a general failure.
_REPLIES = {
    errno.ECONNREFUSED: socks.REFUSED,
    errno.ENETUNREACH: socks.NETWORK_UNREACHABLE,
    errno.ENETDOWN: socks.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: socks.HOST_UNREACHABLE,
    errno.EHOSTDOWN: socks.HOST_UNREACHABLE,
    errno.ETIMEDOUT: socks.EXPIRED,
}

_Message = TypeVar("_Message")


class Users(Protocol):
    """Who may use a listener."""

    async def verify(self, user: str, password: bytes) -> bool:
        """Raises Refused when that can't be said now."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Socks5Entry(StreamEntry):
    """One SOCKS listener. Times in seconds. clients: whose addresses may use it, None for anybody's; users: None for
    anybody; bandwidth: bytes a second, None for any."""

    clients: Ranges | None
    users: Users | None
    egress: Egress
    takes_datagrams: bool
    udp_address: str | None  # where clients are told to send them, None for where they have connected to
    handshake_timeout: float
    connect_timeout: float
    bandwidth: float | None


class _Refusal(Exception):
    """The client is told so, and that is all. reason: a code of the table in `reasons.py`; answer: b"" for none."""

    def __init__(self, reason: str, answer: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


class Socks5Connection(StreamConnection):
    """A client's connection, from accept to close."""

    __slots__ = ("_association", "_greeted", "_is_told", "_leaving", "_more")

    entry: Socks5Entry

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        entry: Socks5Entry,
        told: Header | None = None,
        _loop: Any = None,
    ) -> None:
        StreamConnection.__init__(self, entry, server_state, told)
        self._more: asyncio.Future[None] | None = None  # who reads waits for this
        self._greeted = False
        self._leaving = False  # nothing more is read
        self._is_told = False  # its story
        self._association: Association | None = None

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        self._enter(transport)
        entry = self.entry
        if entry.clients is not None and not entry.clients.covers(self.session.client):
            self._refuse("client_not_allowed")
            return
        if not self._is_admitted():
            self._refuse("connection_limit_reached")
            return
        task = self._task = entry.loop.create_task(self._serve(), name="socks")
        self._server_state.tasks.add(task)
        task.add_done_callback(self._served)

    def data_received(self, data: bytes) -> None:
        if self._leaving or self._association is not None:
            return
        self._rest = self._rest + data if self._rest else data
        if not self._wake():
            self._pause()

    def eof_received(self) -> bool:
        self._ended = True
        if self._leaving or self._association is not None:
            return False
        # Half-closed behind its request it is served all the same; in the middle of a message it is gone.
        return self._wake() or self._greeted

    def connection_lost(self, error: Exception | None) -> None:
        """Also from the relay, which has the transport by then."""
        self._leave()
        if self._association is not None:
            self._association.end("")
        elif self._task is not None and self._relay is None:
            self._task.cancel()
        self._tell()

    def overdue(self) -> None:
        """A step of the handshake took too long, or the time to read the last answer is over."""
        if self._leaving:
            self._transport.close()
        else:
            self._end("handshake_timeout")

    # The handshake.

    async def _serve(self) -> None:
        try:
            reason = await self._converse()
        except _Refusal as refusal:
            self._refuse(refusal.reason, refusal.answer)
        except Malformed as error:
            log.debug("listener %s: from %s: %s", self.entry.name, self.session.client, error)
            self._end(error.reason)
        else:
            self._end(reason)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._server_state.tasks.discard(task)
        self._task = None
        if task.cancelled():
            self._end(GONE)
        elif (error := task.exception()) is not None:
            log.error("listener %s: a connection failed", self.entry.name, exc_info=error)
            self._end("proxy_internal_error")
        self._tell()

    async def _converse(self) -> str:
        """From the greeting to the end of the tunnel. Returns how it ended, and raises _Refusal and Malformed."""
        await self._greet()
        session = self.session
        try:
            request = await self._next(read_request)
            if request.command != socks.UDP_ASSOCIATE:  # there it is where the client sends from
                session.destination = str(TcpAddress(request.host, request.port))
            return await self._carry(request)
        except Malformed as error:
            raise _Refusal(error.reason, reply(error.reply)) from None
        except EgressDenied as denied:
            session.rule = denied.rule
            raise _Refusal(denied.reason, reply(socks.NOT_ALLOWED)) from None
        except UpstreamError as error:
            raise _Refusal(error.reason, reply(_code(error))) from None

    async def _greet(self) -> None:
        """Until it is known who the client is, where that matters."""
        users = self.entry.users
        wanted = socks.NO_AUTH if users is None else socks.PASSWORD
        methods = (await self._next(read_greeting)).methods
        self._greeted = True
        if wanted not in methods:
            raise _Refusal("socks_method", socks.method(socks.NONE_FITS))
        self._transport.write(socks.method(wanted))
        if users is None:
            return
        given = await self._next(read_credentials)
        try:
            user = given.user.decode()
            is_right = await users.verify(user, given.password)
        except UnicodeDecodeError:
            is_right = False
        except Refused as busy:
            raise _Refusal(busy.reason, socks.verdict(False)) from None
        if not is_right:
            raise _Refusal("credentials_wrong", socks.verdict(False))
        self.session.user = user
        self._transport.write(socks.verdict(True))

    async def _next(self, read: Callable[[bytes], tuple[_Message, int] | None]) -> _Message:
        """The next message. Raises Malformed."""
        entry = self.entry
        entry.wheel.arm(self, monotonic() + entry.handshake_timeout)
        while True:
            found = read(self._rest)
            if found is not None:
                self.deadline = 0.0
                message, end = found
                self._rest = self._rest[end:]
                return message
            if self._ended:
                raise _Refusal(GONE)
            self._resume()
            self._more = entry.loop.create_future()
            await self._more

    def _wake(self) -> bool:
        """Let who waits for more go on. Whether anybody does."""
        more, self._more = self._more, None
        if more is None or more.done():
            return False
        more.set_result(None)
        return True

    # Where it goes.

    async def _carry(self, request: Request) -> str:
        """Do what it asks for, until that is over. Raises EgressDenied and UpstreamError when it can't be begun."""
        entry, session = self.entry, self.session
        is_tunnel = request.command == socks.CONNECT
        if not (is_tunnel or (request.command == socks.UDP_ASSOCIATE and self._may_associate())):
            raise _Refusal("socks_command", reply(socks.COMMAND_UNKNOWN))
        with entry.egress.enter(session.client, session.user) as ticket:
            cells = entry.cells
            cells[_UPSTREAM_OPEN] += 1
            cells[entry.tunnels_cell] += 1
            try:
                return await (self._connect(request, ticket) if is_tunnel else self._associate(request, ticket))
            finally:
                cells[_UPSTREAM_OPEN] -= 1
                cells[entry.tunnels_cell] -= 1

    async def _connect(self, request: Request, ticket: Ticket) -> str:
        entry, session = self.entry, self.session
        began = monotonic()
        far, address = await reach(
            entry.egress, session.client, request.host, request.port, entry.connect_timeout, entry.admission
        )
        transport = far.transport
        session.endpoint = str(address)
        session.connect_time = monotonic() - began
        here = transport.get_extra_info("sockname") or ("0.0.0.0", 0)  # where it is closed again
        self._transport.write(reply(socks.SUCCEEDED, *here[:2]))
        bounds = ticket.bounds(entry.bandwidth)
        relay = self._relay = Relay(entry.wheel, entry.idle_timeout, bounds, overhearing(session))
        try:
            self._pause()
            await relay.run(self._detached(), far.detach())
        finally:
            session.bytes_in, session.bytes_out = relay.sent
            transport.abort()
        return relay.reason

    def _may_associate(self) -> bool:
        """Who comes by a unix socket sends no datagrams."""
        return self.entry.takes_datagrams and isinstance(self._transport.get_extra_info("sockname"), tuple)

    async def _associate(self, request: Request, ticket: Ticket) -> str:
        """Relay datagrams for as long as this connection is open (section 7)."""
        entry, session = self.entry, self.session
        here = self._transport.get_extra_info("sockname")
        association = Association(
            entry.loop,
            entry.wheel,
            entry.admission,
            entry.egress,
            session,
            entry.idle_timeout,
            ticket.bounds(entry.bandwidth),
        )
        try:
            host, port = await association.open(here, request.host, request.port)
            self._association = association
            self._rest = b""
            self._resume()
            self._transport.write(reply(socks.SUCCEEDED, entry.udp_address or host, port))
            if self.closed or self._ended:
                return ""
            return await association.over
        finally:
            association.close()

    # Ends.

    def _refuse(self, reason: str, answer: bytes = b"") -> None:
        """It goes nowhere, and is told so where there is an answer."""
        self.session.reason = self.session.reason or reason
        if not answer or self.closed or self._transport.is_closing():
            self._end(reason)
            return
        self._leaving = True
        self._rest = b""
        entry = self.entry
        entry.connections.discard(self)  # what is over takes no place
        self._transport.write(answer)
        if self._ended:
            self._transport.close()
            return
        self._transport.write_eof()
        self._resume()
        entry.wheel.arm(self, monotonic() + _LINGER)

    def _tell(self) -> None:
        """Its story, once it is over: the connection, and what was done for it."""
        if self.closed and self._task is None and not self._is_told:
            self._is_told = True
            self.entry.ended(self.session)

    def _pause(self) -> None:
        if not (self._paused or self._ended or self.closed):
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()

    # What the door and the admission ask.

    @property
    def idle(self) -> bool:
        """Whether nothing came of it yet."""
        return not (self._greeted or self._rest or self.closed)


def _code(error: UpstreamError) -> int:
    match error:
        case NameUnknown():
            return socks.HOST_UNREACHABLE
        case ConnectTimeout():
            return socks.EXPIRED
        case ConnectFailed(errno=number) if number is not None:
            return _REPLIES.get(number, socks.FAILURE)
        case _:
            return socks.FAILURE
