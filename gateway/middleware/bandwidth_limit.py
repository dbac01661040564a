"""How fast bodies may be sent, each way, by each request or by all with the same key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic_ns
from typing import Literal, Self

from pydantic import model_validator

from gateway.config.addresses import PrefixLength
from gateway.config.quantities import ByteRate, Size
from gateway.ledger import Ledger
from gateway.middleware.limits.keys import LimitKey, Missing, key_of
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base

_SECOND = 1_000_000_000
_LONGEST = 24 * 3600 * _SECOND
# How long one sleeps who shares a rate until he looks whether others have left.
_LOOK = _SECOND // 10


class Options(Base):
    kind: Literal["bandwidth_limit"] = "bandwidth_limit"
    request: ByteRate | None = None
    """Bytes of request bodies in a time: "1MiB/s"."""
    response: ByteRate | None = None
    """Bytes of response bodies in a time."""
    burst: Size | None = None
    """How much passes at once, each way, when nothing has passed for long; as much as comes in one second when absent.
    Larger pieces are cut."""
    key: LimitKey | None = None
    """With whom a request shares the rates, as in rate_limit; when absent each request has them for itself."""
    missing: Missing = "client_ip"
    """What becomes of a request without a key, as in rate_limit."""
    ipv6_prefix: PrefixLength = 64
    """The bits of an IPv6 address by which clients are told apart."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        rates = [rate for rate in (self.request, self.response) if rate is not None]
        if not rates:
            raise ValueError("expected request, response or both")
        for rate in rates:
            if rate <= 0 or (self.burst or 1) / rate * _SECOND > _LONGEST:
                raise ValueError("a burst that takes more than a day to pass would never end")
        return self


class Pace:
    """One direction. cost: nanoseconds for a byte; depth: for a whole burst; piece: bytes that pass in one go."""

    __slots__ = ("_cost", "depth", "name", "piece")

    def __init__(self, name: str, rate: float, burst: int | None) -> None:
        self.piece = burst or max(1, int(rate))
        self._cost = _SECOND / rate
        self.depth = self.cost(self.piece)
        # Another rate or burst is another account: what is owed at one rate says nothing at another.
        self.name = f"{name}\0{rate}\0{self.piece}\0".encode()

    def cost(self, size: int) -> int:
        return max(1, int(size * self._cost))


class Own:
    """The account of one request alone."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due = 0

    def owe(self, cost: int, depth: int) -> int:
        now = monotonic_ns()
        self._due = max(self._due, now) + cost
        return max(self._due - now - depth, 0)

    def refund(self, cost: int) -> None:
        self._due -= cost


class Meter:
    """What passes in one direction for one request."""

    __slots__ = ("_account", "pace")

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._account = Own()

    async def room(self, size: int) -> None:
        """Returns when so many bytes may pass, a piece at the most."""
        cost = self.pace.cost(size)
        wait = self._account.owe(cost, self.pace.depth)
        if wait:
            try:
                await asyncio.sleep(wait / _SECOND)
            except asyncio.CancelledError:
                self._account.refund(cost)  # they never pass
                raise


class Line:
    """Those who wait in this worker for the same account. turn: had by the first of them; many: how many there are."""

    __slots__ = ("many", "turn")

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.many = 0


class SharedMeter:
    """The same for all requests with a key. Of those that wait in a worker only the first has charged its piece. So no
    more is owed than a piece for each worker, whoever leaves or is killed, and where nobody waits all is soon over.
    lines: the layer's, by key."""

    __slots__ = ("_key", "_ledger", "_lines", "pace")

    def __init__(self, pace: Pace, ledger: Ledger, key: bytes, lines: dict[bytes, Line]) -> None:
        self.pace = pace
        self._ledger = ledger
        self._key = key
        self._lines = lines

    async def room(self, size: int) -> None:
        cost, wait = self.pace.cost(size), -1
        line = self._lines.get(self._key)
        if line is None:
            wait = self._ledger.owe(self._key, cost, self.pace.depth)
            if not wait:
                return
            line = self._lines[self._key] = Line()
        line.many += 1
        try:
            async with line.turn:  # a new one is free: it is had without a pause
                if wait < 0:
                    wait = self._ledger.owe(self._key, cost, self.pace.depth)
                await self._paid(cost, wait)
        finally:
            line.many -= 1
            if not line.many:
                del self._lines[self._key]

    async def _paid(self, cost: int, wait: int) -> None:
        """Wait until what is charged is there."""
        try:
            while wait > 0:
                nap = min(wait, _LOOK)
                await asyncio.sleep(nap / _SECOND)
                # Who leaves in another worker gives back his piece: nobody need wait longer than for all that is owed.
                wait = min(wait - nap, self._ledger.owed(self._key) - self.pace.depth)
        except asyncio.CancelledError:
            self._ledger.refund(self._key, cost)
            raise


class BandwidthLimit(Middleware):
    """Lets bodies pass no faster than `request` and `response` say, each request for itself or, with a `key`, all with
    the same one together, over all workers; who shares a rate gets its pieces in turn within a worker, and the workers
    take turns. Who is too fast is made to wait: nothing is refused, and nothing held but the piece that is under way.
    Heads, and what passes in a tunnel, are not counted.

    Order: inside of compress it counts what the endpoint sends, outside of it what the client gets, which is mostly
    what is meant. Outside of cache, so that it slows stored answers too."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "bandwidth_limit", response = "1MiB/s" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._ledger = place.ledger
        self._key = None if options.key is None else key_of(options.key, options.ipv6_prefix, options.missing)
        self._account = place.identity.encode() + b"\0"
        self._lines: dict[bytes, Line] = {}
        self._request = Pace("request", options.request, options.burst) if options.request is not None else None
        self._response = Pace("response", options.response, options.burst) if options.response is not None else None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        key = b""
        if self._key is not None:
            found = self._key(scope["gateway"], scope["headers"])
            if found is None:
                return self._app(scope, receive, send)
            if not found:
                return self._place.refuse(scope["gateway"], send, "limit_key_missing")
            key = found
        if self._request is not None and scope["headers"].length:
            receive = _paced_request(receive, self._meter(self._request, key))
        if self._response is not None:
            send = _paced_response(send, self._meter(self._response, key))
        return self._app(scope, receive, send)

    def _meter(self, pace: Pace, key: bytes) -> Meter | SharedMeter:
        if self._key is None:
            return Meter(pace)
        return SharedMeter(pace, self._ledger, self._account + pace.name + key, self._lines)


def _paced_request(receive: Receive, meter: Meter | SharedMeter) -> Receive:
    rest, more_follows = b"", False
    piece = meter.pace.piece

    async def paced() -> Message:
        nonlocal rest, more_follows
        if rest:
            body, more = rest, more_follows
        else:
            message = await receive()
            if message["type"] != "http.request" or not message.get("body"):
                return message
            body, more = message["body"], message.get("more_body", False)
        now, then = body[:piece], body[piece:]
        rest, more_follows = body, more  # whole, should this be cancelled and asked again
        await meter.room(len(now))
        rest = then
        return {"type": "http.request", "body": now, "more_body": more or bool(then)}

    return paced


def _paced_response(send: Send, meter: Meter | SharedMeter) -> Send:
    piece = meter.pace.piece

    async def paced(message: Message) -> None:
        body = message.get("body", b"") if message["type"] == "http.response.body" else b""
        if not body:
            await send(message)
            return
        at, size = 0, len(body)
        while size - at > piece:
            await meter.room(piece)
            await send({"type": "http.response.body", "body": body[at : at + piece], "more_body": True})
            at += piece
        await meter.room(size - at)
        await send(message if not at else {**message, "body": body[at:]})

    return paced
