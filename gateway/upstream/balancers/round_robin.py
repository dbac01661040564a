"""Smooth weighted round robin (nginx's ngx_http_upstream_round_robin.c).

nginx adds each weight to a current weight, takes the greatest and subtracts the total. For fixed weights that sequence
repeats after sum(weights) / gcd(weights) picks, so it is worked out once, at `rebuild`, and a pick is one list look-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from math import gcd

from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.endpoint import Endpoint

# Longer cycles are approximated by scaling the weights down; beyond this length the share of each differs by < 0.1 %.
_MAX_CYCLE = 8192
# What working it out may take: it happens on the event loop whenever an endpoint fails or returns (some 20 ms).
_MAX_STEPS = 200_000


def cycle(weights: Sequence[int]) -> list[int]:
    """The indices nginx would pick, one whole period. Ties go to the first."""
    divisor = reduce(gcd, weights)
    weights = [weight // divisor for weight in weights]
    total = sum(weights)
    if total == len(weights):
        return list(range(total))
    longest = max(len(weights), min(_MAX_CYCLE, _MAX_STEPS // len(weights)))
    if total > longest:
        weights = [max(1, round(weight * longest / total)) for weight in weights]
        total = sum(weights)
    current = [0] * len(weights)
    picks = []
    for _ in range(total):
        for index, weight in enumerate(weights):
            current[index] += weight
        best = max(range(len(weights)), key=current.__getitem__)
        current[best] -= total
        picks.append(best)
    return picks


# Up to this many references the whole order for each pick is kept: 64 endpoints of equal weight, say.
_MAX_ORDERS = 4096


class RoundRobin(Balancer):
    def __init__(self, offset: float = 0.0) -> None:
        super().__init__(offset)
        self._cycle: list[Endpoint] = []
        self._orders: list[tuple[Endpoint, ...]] = []
        self._at = 0

    def rebuild(self, ready: Sequence[Endpoint]) -> None:
        self._cycle = [ready[index] for index in cycle([endpoint.weight for endpoint in ready])] if ready else []
        self._at = int(self.offset * len(self._cycle))
        small = len(self._cycle) * len(ready) <= _MAX_ORDERS
        self._orders = [self._order(at) for at in range(len(self._cycle))] if small else []

    def _order(self, at: int) -> tuple[Endpoint, ...]:
        return tuple(dict.fromkeys(self._cycle[at:] + self._cycle[:at]))

    def _order_lazily(self, at: int) -> Iterator[Endpoint]:
        yield self._cycle[at]
        yield from (endpoint for endpoint in self._order(at) if endpoint is not self._cycle[at])

    def order(self, key: bytes) -> Iterator[Endpoint]:
        size = len(self._cycle)
        if not size:
            return iter(())
        at = self._at
        self._at = at + 1 if at + 1 < size else 0
        return iter(self._orders[at]) if self._orders else self._order_lazily(at)
