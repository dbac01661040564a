"""How many requests a client may send in a time, counted exactly over all workers, or over several machines."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable
from time import monotonic
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from gateway.config.addresses import PrefixLength
from gateway.config.fields import FilePath, Flag
from gateway.config.quantities import Count, Duration, Rate
from gateway.metrics.plan import LAYER_SHADOWED
from gateway.middleware.limits.charges import charged, refunds
from gateway.middleware.limits.keys import LimitKey, Missing, key_of
from gateway.middleware.limits.redis_store import RedisStore, RedisUrl
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.wire import RequestHead, amended

log = logging.getLogger("gateway.middleware")

_SECOND = 1_000_000_000
_STORE_TIMEOUT = 0.05  # seconds
# An account must fill up again while somebody remembers it; and times of the ledger fit their words.
_LONGEST = 365 * 24 * 3600 * _SECOND
_NOTHING: frozenset[bytes] = frozenset()
# Seconds between two lines of the log about what would have been refused.
_QUIET = 10.0


class Options(Base):
    FILES: ClassVar[tuple[str, ...]] = ("store_ca",)

    kind: Literal["rate_limit"] = "rate_limit"
    rate: Rate
    """How many requests an account gets in a second, a minute or an hour: "50/s", "1000/h". They come evenly: of
    "60/m" one each second."""
    burst: Count | None = None
    """How many it may have saved up, and so send at once; what comes in one second when absent, and at least one
    request."""
    key: LimitKey = "client_ip"
    """For whom is counted: "client_ip", "header:NAME", "cookie:NAME", "query:NAME", "jwt:CLAIM", "route" (all requests
    together), or a text such as "{client_ip}/{header:x-tenant}". What clients may invent is no limit to them: count by
    a header only where somebody checks it."""
    missing: Missing = "client_ip"
    """What becomes of a request that has no such header, cookie, parameter or claim, or not all that a text is made of:
    "client_ip" counts it by its client's address, "refuse" answers 400, "pass" lets it through uncounted, which is a
    way around the limit."""
    ipv6_prefix: PrefixLength = 64
    """The bits of an IPv6 address by which clients are told apart."""
    cost: Count = 1
    """How many requests one request counts as here."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """ "shadow" counts and logs what it would refuse, and refuses nothing and tells clients nothing."""
    headers: Flag = True
    """Whether answers carry the fields RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-11), but
    for mode = "shadow"."""
    store: RedisUrl | None = None
    """Where several gateways keep their accounts together: "redis://[user:password@]host:port/db", "rediss://" with
    TLS, "unix:///path?db=0" for a socket. Needs gateway[redis]."""
    store_ca: FilePath | None = None
    """A PEM file with the authorities that the certificate of a "rediss://" store may come from; those that this
    machine trusts when absent."""
    store_timeout: Duration = _STORE_TIMEOUT
    """How long one answer of the store may take. While none comes, this machine counts alone."""

    @property
    def interval(self) -> int:
        """Nanoseconds in which one request comes back."""
        return max(1, round(_SECOND / self.rate))

    @property
    def most(self) -> int:
        return self.burst or max(1, int(self.rate), self.cost)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.cost > self.most:
            raise ValueError(f"a cost of {self.cost} never fits into a burst of {self.most}")
        if self.most * self.interval > _LONGEST:
            raise ValueError("a burst that takes more than a year to come back is no limit of a rate")
        if self.store is None and self.store_timeout != _STORE_TIMEOUT:
            raise ValueError("store_timeout says nothing without store")
        if self.store_ca is not None and not (self.store or "").startswith("rediss:"):
            raise ValueError('store_ca is for a store with TLS: "rediss://..."')
        return self


class RateLimit(Middleware):
    """Lets an account (`key`) have `burst` requests at once and `rate` in the long run, and refuses the others with
    429, Retry-After, and fields that say what is left. Exact over all workers; what was used up stays so across
    reloads, crashes and upgrades, also when rate or burst change. Holds back nothing of any body.

    Several limits charge a request only if all of them let it pass. What other layers refuse further in stays charged.

    Order: outside of whatever costs much (checking passwords, asking others), and inside of what proves who somebody
    is when the key is a claim or a header that says so. Between the two, put one by client_ip outside."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "rate_limit", key = "client_ip", rate = "50/s", burst = 50 }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._key = key_of(options.key, options.ipv6_prefix, options.missing)
        self._account = place.identity.encode() + b"\0"
        self._interval = interval = options.interval
        self._cost = options.cost * interval
        self._depth = depth = options.most * interval
        self._is_shadow = options.mode == "shadow"
        self._headers = options.headers and not self._is_shadow  # what is only tried is told to nobody outside
        self._policy = b'\r\nratelimit-policy: "%b";q=%d;w=%d\r\nratelimit: "%b";r=%%d;t=%%d' % (
            place.layer.encode(),
            options.most,
            _seconds(depth),
            place.layer.encode(),
        )
        self._spend = place.ledger.spend
        self._refund = place.ledger.refund
        self._store = None
        if options.store is not None:
            where = f"route {place.route}, layer {place.layer}"
            self._store = RedisStore(options.store, options.store_timeout, place.identity, where, options.store_ca)
        self._shadowed = 0
        self._next_line = 0.0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = scope["gateway"]
        head: RequestHead = scope["headers"]
        key = self._key(exchange, head)
        if not key:
            return self._app(scope, receive, send) if key is None else self._nameless(scope, receive, send)
        if self._store is not None:
            return self._ask(self._store, key, scope, receive, send)
        key = self._account + key
        left = self._spend(key, self._cost, self._depth)
        if left < 0:
            return self._over(left, scope, receive, send)
        charged(exchange, self._refund, key, self._cost)
        return self._app(scope, receive, self._telling(exchange, send, left) if self._headers else send)

    async def _ask(self, store: RedisStore, key: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """The same where several machines count together."""
        left = await store.spend(key, self._cost, self._depth)
        give_back: Any = store.refund
        if left is None:  # it is away
            give_back, key = self._refund, self._account + key
            left = self._spend(key, self._cost, self._depth)
        if left < 0:
            await self._over(left, scope, receive, send)
            return
        exchange = scope["gateway"]
        charged(exchange, give_back, key, self._cost)
        await self._app(scope, receive, self._telling(exchange, send, left) if self._headers else send)

    def _telling(self, exchange: Any, send: Send, left: int) -> Send:
        """A `send` that says in the answer how much is left."""

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                # No charges any more: a limit further in has refused, and they were given back.
                now = left if exchange.refunds is not None else min(left + self._cost, self._depth)
                lines = self._policy % (now // self._interval, _seconds(self._depth - now))
                message = amended(message, _NOTHING, lines)
            return send(message)

        return sending

    def _over(self, left: int, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """There is not enough left. left: the time until there is, as a negative number."""
        wait = _seconds(-left)
        fields = [(b"retry-after", b"%d" % wait)]
        if self._headers:
            # How long the window is that is spoken of must not be longer than the time after which to come again.
            lines = (self._policy % (0, wait)).split(b"\r\n")[1:]
            fields += [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        return self._refuse(scope, receive, send, "rate_limited", fields)

    def _nameless(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Nobody is named whom the request could be counted for."""
        return self._refuse(scope, receive, send, "limit_key_missing")

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, reason: str, fields: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        exchange = scope["gateway"]
        if self._is_shadow:
            self._would_refuse(exchange)
            await self._app(scope, receive, send)
            return
        for waits in refunds(exchange):
            await waits
        await self._place.refuse(exchange, send, reason, fields)

    def _would_refuse(self, exchange: Any) -> None:
        """Count it, and now and then say so in the log."""
        place = self._place
        place.cells[place.at + LAYER_SHADOWED] += 1
        self._shadowed += 1
        now = monotonic()
        if now >= self._next_line:
            self._next_line = now + _QUIET
            log.warning(
                "route %s, layer %s: would have refused %d requests, the last one of %s",
                place.route,
                place.layer,
                self._shadowed,
                exchange.client,
            )
            self._shadowed = 0

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()


def _seconds(nanoseconds: int) -> int:
    """Rounded up: whoever comes back then is not too early."""
    return -(-nanoseconds // _SECOND)
