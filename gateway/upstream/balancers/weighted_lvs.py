"""Weighted round robin as the Linux Virtual Server does it: by greatest weight and greatest common divisor.

A threshold goes down from the greatest weight in steps of the divisor, and at each height everybody who reaches it has
a turn: weights 4, 3, 2 give a a b a b c a b c. It comes in bursts where `round_robin` interleaves; for compatibility.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd

from gateway.upstream.balancers.balancer import Balancer, Chance, Clock
from gateway.upstream.balancers.slow_start import SlowStart
from gateway.upstream.endpoint import Endpoint


class WeightedLVS(Balancer):
    def __init__(self, offset: float = 0.0, chance: Chance | None = None, now: Clock | None = None) -> None:
        super().__init__(offset, chance, now)
        self._slow_start = SlowStart(offset)
        self._ready: list[Endpoint] = []
        self._step = 1
        self._threshold = 0
        self._lowest = 0  # the threshold down to which the same endpoints reach it
        self._round: list[Endpoint] = []  # who reaches the threshold
        self._at = 0

    def rebuild(self, ready: Sequence[Endpoint], members: Sequence[Endpoint] | None = None) -> None:
        self._slow_start.keep(ready if members is None else members)
        start = self._start()
        self._ready = list(ready)
        if not ready:
            return
        self._step = gcd(*(endpoint.weight for endpoint in ready))
        rounds = max(endpoint.weight for endpoint in ready) // self._step
        self._to((rounds - int(start * rounds)) * self._step)
        self._at = int(start * len(self._round))

    def _to(self, threshold: int) -> None:
        self._threshold = threshold
        self._round = [endpoint for endpoint in self._ready if endpoint.weight >= threshold]
        self._lowest = max((one.weight for one in self._ready if one.weight < threshold), default=0) + self._step
        self._at = 0

    def order(self, key: bytes) -> Iterator[Endpoint]:
        ready = self._ready  # a later rebuild makes a new list
        if not ready:
            return
        first = self._turn()
        if first.share < 1.0:
            first = self._slow_start.taker(first, self._turn)
        yield first
        at = ready.index(first)
        yield from ready[at + 1 :]
        yield from ready[:at]

    def _turn(self) -> Endpoint:
        if self._at == len(self._round):
            self._at = 0
            if self._threshold > self._lowest:
                self._threshold -= self._step
            else:
                lower = self._threshold - self._step
                self._to(lower if lower > 0 else max(endpoint.weight for endpoint in self._ready))
        endpoint = self._round[self._at]
        self._at += 1
        return endpoint
