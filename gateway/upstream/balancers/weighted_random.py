"""Random, by weight. It keeps no turns, so that workers and gateways can't fall into step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.upstream.balancers.balancer import Balancer, Chance, Clock
from gateway.upstream.balancers.draw import Draw
from gateway.upstream.endpoint import Endpoint


class WeightedRandom(Balancer):
    def __init__(self, offset: float, chance: Chance, now: Clock | None = None) -> None:
        super().__init__(offset, chance, now)
        self._chance = chance
        self._draw = Draw(chance)

    def rebuild(self, ready: Sequence[Endpoint], members: Sequence[Endpoint] | None = None) -> None:
        self._draw = Draw(self._chance, ready)

    def order(self, key: bytes) -> Iterator[Endpoint]:
        draw = self._draw
        if not draw.ready:
            return
        number = draw.one()
        yield draw.ready[number]
        yield from draw.shuffled(draw.ready[:number] + draw.ready[number + 1 :])
