"""Which of a route's upstreams gets a request: the canary's for those that say so, else a share of them. Pure.

Shares are dealt by rendezvous hashing with weights: each upstream draws a number for the key from a hash of both, and
the best one for its weight wins. What an upstream draws depends on nothing but its own name and the key, so a weight
that grows takes keys from the others, and moves none between them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from itertools import accumulate
from math import log
from typing import Any

from gateway.config.model import Route as RouteConfig
from gateway.proxy.hash_key import hash_key
from gateway.proxy.routes import Route
from gateway.wire import RequestHead


class Choice:
    """What a route's configuration says of its upstreams."""

    def __init__(self, config: RouteConfig) -> None:
        shares = [(share.name, share.weight) for share in config.upstream or () if share.weight]
        self._names = [name for name, _ in shares]
        self._bounds = [*accumulate(weight for _, weight in shares)]
        self._draws = [(name, -weight, blake2b(digest_size=8, key=name.encode())) for name, weight in shares]
        self._key = hash_key(config.split_key) if config.split_key is not None else None
        canary = config.canary
        self._canary = canary.upstream if canary is not None else ""
        self._asks = hash_key(canary.by) if canary is not None else None
        self._wanted = canary.value.encode() if canary is not None else b""

    def is_canary(self, exchange: Any, head: RequestHead) -> bool:
        """Whether a request says that it is the canary's."""
        return self._asks is not None and self._asks(exchange, head) == self._wanted

    def decided(self, exchange: Any, head: RequestHead) -> str:
        """The upstream of a request; "" when chance decides."""
        if self.is_canary(exchange, head):
            return self._canary
        if len(self._names) == 1:
            return self._names[0]
        key = self._key(exchange, head) if self._key is not None else b""
        return self.by_key(key) if key else ""

    def by_key(self, key: bytes) -> str:
        """The same for the same key; by weight over all keys."""
        chosen, best = "", 0.0
        for name, negative, fresh in self._draws:
            drawn = fresh.copy()
            drawn.update(key)
            # 52 bits and a half: a float has them all, and is neither 0 nor 1.
            score = negative / log(((int.from_bytes(drawn.digest(), "big") >> 12) + 0.5) / (1 << 52))
            if score > best:
                chosen, best = name, score
        return chosen

    def by_chance(self, chance: float) -> str:
        """By weight. chance: 0 <= chance < 1, at random."""
        drawn = chance * self._bounds[-1]
        return next(name for name, bound in zip(self._names, self._bounds, strict=True) if drawn < bound)


class Side:
    """An ASGI application: one of several upstreams of a route, with a record of the route of its own, so that metrics
    and logs tell them apart."""

    __slots__ = ("_route",)

    def __init__(self, route: Route) -> None:
        """route: its application is the way to the upstream."""
        self._route = route

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Not a coroutine: noting the side awaits nothing."""
        scope["gateway"].route = self._route
        return self._route.app(scope, receive, send)  # type: ignore[no-any-return]


class Split:
    """An ASGI application: that of the side that is chosen."""

    def __init__(self, choice: Choice, sides: Mapping[str, Side], chance: Callable[[], float]) -> None:
        """sides: by upstream. chance: a number from 0 to below 1, another one each time."""
        self._choice = choice
        self._sides = sides
        self._chance = chance

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Not a coroutine: choosing awaits nothing."""
        decided = self._choice.decided(scope["gateway"], scope["headers"])
        return self._sides[decided or self._choice.by_chance(self._chance())](scope, receive, send)
