"""A forward proxy, as the ASGI application of its listener: who may use it, where to, and tunnels for CONNECT.

A request in absolute-form is handed on once its destination is admitted, to the very addresses that were. CONNECT opens
a tunnel to one of them. What is refused here closes no connection but for a CONNECT: its client may have sent on what
is meant for the other side, and that must not be read as its next request.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Any, Protocol

from gateway.answer import answer
from gateway.client_hello import overhearing
from gateway.config.values import TcpAddress
from gateway.errors import EgressDenied, UpstreamError
from gateway.listeners.bounded import Bounded
from gateway.listeners.egress import Egress
from gateway.listeners.outward import admitted, reach
from gateway.ranges import Ranges
from gateway.relay import UNBOUNDED, Relay
from gateway.scoreboard import Cells
from gateway.wheel import Wheel
from gateway.wire import Pair, ProxyHead, ResponseHead, went_round

_LONGEST = 1024  # characters of credentials; what people type has less than 100

Send = Callable[[dict[str, Any]], Awaitable[None]]
# Carries a request to the first of some addresses that can be reached: scope, receive, send, the host and port, these.
Onward = Callable[[Any, Any, Send, bytes, Sequence[TcpAddress]], Awaitable[None]]


class Users(Protocol):
    """Who knows passwords."""

    async def verify(self, user: str, password: bytes) -> bool:
        """Whether that is the user's. Raises Refused when too many wait for the answer."""
        ...


@dataclass(slots=True, kw_only=True)
class ForwardProxy:
    """clients: whose addresses may use it, None for anybody's. via: our name. challenge: the field that asks for a
    password. Times in seconds, bandwidth in bytes a second and direction, None for any. cells: the worker's, where the
    listener's gauge of tunnels is."""

    egress: Egress
    onward: Onward
    clients: Ranges | None
    users: Users | None
    challenge: list[Pair]
    via: bytes
    wheel: Wheel
    cells: Cells
    connect_timeout: float
    idle_timeout: float
    bandwidth: float | None

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Raises UpstreamError and Refused, for whoever knows what is answered to these."""
        exchange = scope["gateway"]
        head: ProxyHead = scope["headers"]
        if head.is_connect:
            exchange.keep_alive = False
        if self.clients is not None and not self.clients.covers(exchange.client):
            await answer(exchange, send, "client_not_allowed")
            return
        if self.users is not None:
            reason = await self._stranger(self.users, exchange, head)
            if reason:
                await answer(exchange, send, reason, self.challenge)
                return
        if went_round(head, self.via):
            await answer(exchange, send, "loop_detected")
            return
        # Whatever becomes of an upgrade is a tunnel, too.
        is_tunnel = head.is_connect or b"upgrade" in head.special
        try:
            with self.egress.enter(exchange.client, exchange.user, is_tunnel) as ticket:
                exchange.bounds = ticket.bounds(self.bandwidth)
                if head.is_connect:
                    await self._tunnel(exchange, *head.destination, send)
                else:
                    await self._hand_on(scope, receive, send)
        except EgressDenied as denied:
            exchange.rule = denied.rule
            await answer(exchange, send, denied.reason)
        except UpstreamError as error:
            exchange.endpoint = exchange.endpoint or error.endpoint
            raise

    async def _stranger(self, users: Users, exchange: Any, head: ProxyHead) -> str:
        """Why a client is nobody we know; "" when it is somebody."""
        given = head.special.get(b"proxy-authorization")
        if given is None:
            return "proxy_auth_required"
        credentials = _read(given)
        if credentials is None or not await users.verify(*credentials):
            return "proxy_credentials_invalid"
        exchange.user = credentials[0]
        return ""

    async def _tunnel(self, exchange: Any, host: str, port: int, send: Send) -> None:
        listener = exchange.listener
        if listener.draining and listener.closes_tunnels:
            await answer(exchange, send, "drain_timeout")
            return
        began = monotonic()
        far, address = await reach(self.egress, exchange.client, host, port, self.connect_timeout, listener.admission)
        exchange.endpoint = str(address)
        exchange.connect_time = monotonic() - began
        relay = Relay(self.wheel, self.idle_timeout, exchange.bounds, overhearing(exchange))
        self.cells[listener.tunnels_cell] += 1
        try:
            await send({"type": "http.response.established"})
            await relay.run(exchange.detach(relay.end), far.detach())
        finally:
            self.cells[listener.tunnels_cell] -= 1
            far.transport.abort()  # where there was nobody left to answer
            exchange.bytes_in, exchange.bytes_out = relay.sent
            exchange.reason = exchange.reason or relay.reason

    async def _hand_on(self, scope: Any, receive: Any, send: Send) -> None:
        exchange = scope["gateway"]
        host, port = scope["headers"].destination
        addresses = await admitted(self.egress, exchange.client, host, port, self.connect_timeout)
        authority = _authority(host, port)
        if exchange.bounds == UNBOUNDED:
            await self.onward(scope, receive, _Back(self.via, send).send, authority, addresses)
            return
        bounded = Bounded(exchange, receive, send, self.wheel)
        try:
            await self.onward(scope, bounded.receive, _Back(self.via, bounded.send).send, authority, addresses)
        finally:
            bounded.end()


class _Back:
    """The way of a response back to the client: our name goes into its Via (RFC 9110, section 7.6.3)."""

    __slots__ = ("_send", "_via")

    def __init__(self, via: bytes, send: Send) -> None:
        self._via = via
        self._send = send

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        headers = message.get("headers")
        if type(headers) is ResponseHead:
            hop = b"1.%d %b" % (headers.minor, self._via)
            before = headers.special.get(b"via")
            if message["type"] == "http.response.interim":  # of which only lines are passed on
                headers.add(b"\r\nvia: " + (before + b", " + hop if before else hop))
            else:
                headers.special = {**headers.special, b"via": before + b", " + hop if before else hop}
        return self._send(message)


@lru_cache(maxsize=4096)
def _authority(host: str, port: int) -> bytes:
    """Always written in the same way."""
    return str(TcpAddress(host.lower(), port)).encode()


def _read(given: bytes) -> tuple[str, bytes] | None:
    """Name and password (RFC 7617, section 2); None for what can't be such."""
    scheme, _, coded = given.partition(b" ")
    if scheme.lower() != b"basic" or len(coded) > _LONGEST:
        return None
    try:
        user, colon, password = b64decode(coded.strip(b" "), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except ValueError:
        return None
