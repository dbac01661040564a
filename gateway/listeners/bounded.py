"""A request through a forward proxy within the bounds that its egress sets for tunnels: size, time, rate and quotas.

Counted are bodies. What ends one is answered while there is no answer yet; an answer that has begun is cut visibly.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Any

from gateway.errors import Refused
from gateway.reasons import status_of
from gateway.relay import TOO_LARGE, TOO_LONG, USED_UP
from gateway.wheel import Wheel
from gateway.wire import ResponseHead, WireError

# As in a tunnel: seconds between two questions whether there is quota left, and the seconds whose bandwidth may pass at
# once.
_CHARGE = 1.0
_BURST = 0.1

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Bounded:
    """One request under `exchange.bounds`. Its `receive` and `send` are those to be used; `end` tells it that all is
    over. The wheel looks after it in between, so that an origin that is silent is bounded as well."""

    __slots__ = (
        "_bounds", "_charged", "_exchange", "_held", "_inward", "_outward", "_receive", "_send", "_until", "_wheel",
        "deadline", "look",
    )  # fmt: skip

    def __init__(self, exchange: Any, receive: Receive, send: Send, wheel: Wheel) -> None:
        self._exchange = exchange
        self._receive = receive
        self._send = send
        self._wheel = wheel
        bounds = self._bounds = exchange.bounds
        is_paced = bounds.bandwidth < inf
        self._inward = _Pace(bounds.bandwidth) if is_paced else None
        self._outward = _Pace(bounds.bandwidth) if is_paced else None
        self._held: dict[str, Any] | None = None  # of the request body, until it may pass
        now = monotonic()
        self._charged = 0, now  # bytes that the quota knows of, and when it was told
        self._until = now + bounds.duration
        self.deadline = 0.0
        self.look = 0
        self._rearm(now)

    # Bodies.

    async def receive(self) -> dict[str, Any]:
        """ASGI's receive. Raises Refused for more than may pass."""
        message = self._held or await self._receive()
        if message["type"] != "http.request":
            return message
        if not self._fits(0):
            raise _too_large()
        pace = self._inward
        if pace is None:
            return message
        self._held = message  # should this be cancelled and asked again
        body = message["body"]
        now, then = body[: pace.piece], body[pace.piece :]
        await pace.room(len(now))
        self._held = {**message, "body": then} if then else None
        return {**message, "body": now, "more_body": True} if then else message

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        """ASGI's send. Raises Refused for more than may pass."""
        kind = message["type"]
        if kind == "http.response.body":
            if self._outward is not None:
                return self._send_paced(self._outward, message)
            if not self._fits(len(message["body"])):
                raise _too_large()
        elif kind == "http.response.start":
            headers = message["headers"]
            if type(headers) is ResponseHead and not self._fits(headers.length):
                self._exchange.begun = False  # nothing of it was sent: the client can still be told why
                raise _too_large()
        return self._send(message)

    async def _send_paced(self, pace: _Pace, message: dict[str, Any]) -> None:
        body = message["body"]
        at, size = 0, len(body)
        while size - at > pace.piece:
            await self._pass(pace, {**message, "body": body[at : at + pace.piece], "more_body": True})
            at += pace.piece
        await self._pass(pace, {**message, "body": body[at:]} if at else message)

    async def _pass(self, pace: _Pace, message: dict[str, Any]) -> None:
        size = len(message["body"])
        await pace.room(size)
        if not self._fits(size):
            raise _too_large()
        await self._send(message)

    def _fits(self, size: int) -> bool:
        """Whether so many bytes may follow what has passed, both ways. size: of a response's head: negative where it
        doesn't say."""
        exchange = self._exchange
        fits: bool = exchange.bytes_in + exchange.bytes_out + size <= self._bounds.most
        return fits

    # Time and quotas.

    def _rearm(self, now: float) -> None:
        due = self._until if self._bounds.charge is None else min(self._until, now + _CHARGE)
        if due < inf:
            self._wheel.arm(self, due)

    def overdue(self) -> None:
        now = monotonic()
        if self._exchange.tunnelled:  # that has bounds of its own
            return
        if now >= self._until:
            self._cut(TOO_LONG)
        elif not self._pay(now):
            self._cut(USED_UP)
        else:
            self._rearm(now)

    def _cut(self, reason: str) -> None:
        exchange = self._exchange
        if not exchange.answered:
            exchange.refused = exchange.refused or WireError(status_of(reason), reason)
            exchange.stop()
        elif not exchange.complete:
            exchange.cut(reason)

    def end(self) -> None:
        """Charge what was not charged yet."""
        self.deadline = 0.0
        if not self._exchange.tunnelled:  # that has paid for itself
            self._pay(monotonic())

    def _pay(self, now: float) -> bool:
        """Charge what was not charged yet. False: the quota is used up."""
        charge = self._bounds.charge
        if charge is None:
            return True
        count, since = self._charged
        total = self._exchange.bytes_in + self._exchange.bytes_out
        self._charged = total, now
        left: bool = charge(total - count, now - since)
        return left


def _too_large() -> Refused:
    return Refused(TOO_LARGE, "the egress lets no more of it pass")


class _Pace:
    """How fast one direction is. piece: bytes that pass in one go."""

    __slots__ = ("_depth", "_due", "_rate", "piece")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._depth = max(_BURST, 1 / rate)
        self._due = 0.0  # when all that was passed on would have taken its time
        self.piece = max(1, int(rate * _BURST))

    async def room(self, size: int) -> None:
        """Returns when so many bytes may pass, a piece at the most."""
        now = monotonic()
        self._due = max(self._due, now - self._depth) + size / self._rate
        if self._due > now:
            await sleep(self._due - now)
