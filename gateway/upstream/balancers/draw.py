"""Drawing lots by effective weight, for the policies that leave it to chance."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import log

from gateway.upstream.balancers.balancer import Balancer, Chance, Clock
from gateway.upstream.endpoint import Endpoint

# Draws until the next is taken, for when the shares of all are small. (1 - 0.1) ** 100 is 0.00003.
_PATIENCE = 100


class Draw:
    def __init__(self, chance: Chance, ready: Sequence[Endpoint] = ()) -> None:
        self._random = chance.random
        self.ready = list(ready)
        self._bounds = list(accumulate(endpoint.weight for endpoint in ready))  # where the lot of each ends
        self._total = self._bounds[-1] if ready else 0
        self._last = len(self.ready) - 1

    def one(self) -> int:
        """A number, by weight. Slow start: who was drawn is put back at 1 - share."""
        number = bisect(self._bounds, self._random() * self._total, 0, self._last)
        share = self.ready[number].share
        if share < 1.0:
            for _ in range(_PATIENCE):
                if self._random() < share:
                    break
                number = bisect(self._bounds, self._random() * self._total, 0, self._last)
                share = self.ready[number].share
        return number

    def another(self, but: int) -> int | None:
        """A number that is not this one, by weight; None when there is none, or it was put back."""
        if not self._last:
            return None
        bounds = self._bounds
        weight = self.ready[but].weight
        lot = self._random() * (self._total - weight)
        if lot >= bounds[but] - weight:
            lot += weight
        number = bisect(bounds, lot, 0, self._last)
        if number == but:  # rounding, at the very end of its lot
            return None
        share = self.ready[number].share
        return number if share >= 1.0 or self._random() < share else None

    def shuffled(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        """As if drawn by effective weight one after the other (Efraimidis and Spirakis, 2006)."""
        return sorted(endpoints, key=lambda one: -log(1.0 - self._random()) / (one.weight * one.share))


class Drawing(Balancer):
    """A policy that draws among the ready."""

    def __init__(self, offset: float, chance: Chance, now: Clock | None = None) -> None:
        super().__init__(offset, chance, now)
        self._chance = chance
        self._draw = Draw(chance)

    def rebuild(self, ready: Sequence[Endpoint], members: Sequence[Endpoint] | None = None) -> None:
        self._draw = Draw(self._chance, ready)
