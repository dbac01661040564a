"""The fewest requests in flight by weight, over all workers (nginx's least_conn; weighted least connections).

Loads come from everywhere at any time, so everybody is asked at each pick, unless whose turn it is by weight is idle:
nobody is better. That keeps picks cheap in quiet times, and lets idle endpoints share by weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from gateway.upstream.balancers.balancer import Balancer, Chance, Clock
from gateway.upstream.balancers.round_robin import RoundRobin
from gateway.upstream.endpoint import Endpoint


class LeastRequests(Balancer):
    def __init__(self, offset: float = 0.0, chance: Chance | None = None, now: Clock | None = None) -> None:
        super().__init__(offset, chance, now)
        self._turns = RoundRobin(offset)
        self._ready: list[Endpoint] = []
        self._current: dict[Endpoint, float] = {}  # smooth round robin among those with equal cost

    def rebuild(self, ready: Sequence[Endpoint], members: Sequence[Endpoint] | None = None) -> None:
        self._turns.rebuild(ready, members)
        self._ready = list(ready)
        self._current = dict.fromkeys(ready, 0.0)

    def order(self, key: bytes) -> Iterator[Endpoint]:
        ready = self._ready  # a later rebuild makes a new list
        if not ready:
            return
        first = self._turns.next()
        if first.load():
            first = self._least()
        yield first
        yield from sorted((endpoint for endpoint in ready if endpoint is not first), key=_cost)

    def _least(self) -> Endpoint:
        least = inf
        equal: list[Endpoint] = []
        for endpoint in self._ready:
            cost = endpoint.load() / (endpoint.weight * endpoint.share)
            if cost < least:
                least = cost
                equal = [endpoint]
            elif cost == least:
                equal.append(endpoint)
        return equal[0] if len(equal) == 1 else self._by_turns(equal)

    def _by_turns(self, equal: list[Endpoint]) -> Endpoint:
        """As nginx settles a tie: a step of smooth round robin among those concerned."""
        current = self._current
        best = equal[0]
        most = -inf
        total = 0.0
        for endpoint in equal:
            weight = endpoint.weight * endpoint.share
            total += weight
            now = current[endpoint] = current[endpoint] + weight
            if now > most:
                most = now
                best = endpoint
        current[best] -= total
        return best

    def observe(self, endpoint: Endpoint, seconds: float, failed: bool) -> None:
        self._turns.observe(endpoint, seconds, failed)


def _cost(endpoint: Endpoint) -> float:
    return endpoint.load() / (endpoint.weight * endpoint.share)
