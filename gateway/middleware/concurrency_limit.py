"""How many requests of a client may be under way at once, counted exactly over all workers."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Any, Literal, Self

from pydantic import model_validator

from gateway.config.addresses import PrefixLength
from gateway.config.quantities import Count, CountOrZero, Duration
from gateway.ledger import waiting_since
from gateway.middleware.limits.charges import refunds
from gateway.middleware.limits.keys import LimitKey, Missing, key_of
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base

# Seconds between two looks whether another worker has made room, while somebody waits: for as long at the most there is
# room that nobody has, when the turn is another worker's. 2 % of a processor for ten keys that are waited for.
_LOOK = 0.003
_QUEUE = 100


class Options(Base):
    kind: Literal["concurrency_limit"] = "concurrency_limit"
    max: Count
    """How many requests with the same key may be under way at once."""
    key: LimitKey = "client_ip"
    """For whom is counted, as in rate_limit."""
    missing: Missing = "client_ip"
    """What becomes of a request without a key, as in rate_limit."""
    ipv6_prefix: PrefixLength = 64
    """The bits of an IPv6 address by which clients are told apart."""
    wait: Duration | None = None
    """How long one more request may wait for room; when absent it is refused at once."""
    queue: CountOrZero = _QUEUE
    """How many may wait for the same key, in each worker."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.wait is None and self.queue != _QUEUE:
            raise ValueError("queue says nothing without wait: nobody waits")
        return self


class Waiter:
    """Someone in line. `turn` becomes true when it holds the key, false when it has waited too long."""

    __slots__ = ("deadline", "look", "since", "turn")

    def __init__(self) -> None:
        self.since = waiting_since()
        self.turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.deadline = 0.0
        self.look = 0

    def overdue(self) -> None:
        if not self.turn.done():
            self.turn.set_result(False)


class ConcurrencyLimit(Middleware):
    """Lets `max` requests with the same `key` be under way at once, over all workers and also while a reload drains old
    ones. One more waits for `wait`, in turn over all workers, or is refused with 429 and Retry-After. A request is
    under way until the last byte of its answer is passed on, a WebSocket until it ends. What a killed worker had under
    way counts no more. Exact for some 40,000 keys at a time in each worker; of more, single ones are counted by each
    worker alone. Holds back nothing of any body.

    Order: inside of rate_limit and of what proves who somebody is; outside of cache and of whatever costs much."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "concurrency_limit", key = "header:x-tenant", max = 10 }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._key = key_of(options.key, options.ipv6_prefix, options.missing)
        self._account = place.identity.encode() + b"\0held\0"
        self._max = options.max
        self._wait = options.wait
        self._queue = options.queue if options.wait is not None else 0
        self._holds = place.ledger.holds
        self._lines: dict[bytes, deque[Waiter]] = {}  # by key: who waits, the first one first
        self._looking = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._key(scope["gateway"], scope["headers"])
        if not key:
            if key is None:
                await self._app(scope, receive, send)
            else:
                await self._refuse(scope["gateway"], send, "limit_key_missing")
            return
        key = self._account + key
        # Who has just come does not overtake those who wait here.
        if (key in self._lines or not self._holds.take(key, self._max)) and not await self._turn(key):
            await self._refuse(scope["gateway"], send, "concurrency_limited")
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._release(key)

    async def _refuse(self, exchange: Any, send: Send, reason: str) -> None:
        for waits in refunds(exchange):
            await waits
        await self._place.refuse(exchange, send, reason)

    def _release(self, key: bytes) -> None:
        self._holds.release(key)
        if key in self._lines:
            self._next(key)

    # The line.

    async def _turn(self, key: bytes) -> bool:
        """Wait in line. True: the key is held."""
        line = self._lines.get(key)
        if self._wait is None or (len(line) if line is not None else 0) >= self._queue:
            return False
        if line is None:
            line = self._lines[key] = deque()
        waiter = Waiter()
        line.append(waiter)
        if len(line) == 1:
            self._holds.wait(key, waiter.since)
        self._place.wheel.arm(waiter, monotonic() + self._wait)
        self._look_later()
        turn = waiter.turn
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():  # it left at the moment at which it was let in
                self._release(key)
            raise
        finally:
            waiter.deadline = 0.0
            if waiter in line:
                line.remove(waiter)
                self._show(key, line)

    def _next(self, key: bytes) -> None:
        """Let in whoever is first, while there is room."""
        line = self._lines[key]
        while line:
            if line[0].turn.done():  # it leaves
                line.popleft()
            elif self._holds.take(key, self._max, line[0].since):
                line.popleft().turn.set_result(True)
            else:
                break
        self._show(key, line)

    def _show(self, key: bytes, line: deque[Waiter]) -> None:
        """Let the other workers know who is first here."""
        self._holds.wait(key, line[0].since if line else 0)
        if not line:
            del self._lines[key]

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _look(self) -> None:
        """Another worker tells nobody that it has made room."""
        self._looking = False
        for key in list(self._lines):
            self._next(key)
        if self._lines:
            self._look_later()
