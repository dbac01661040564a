"""Random, by weight. It keeps no turns, so that workers and gateways can't fall into step."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.upstream.balancers.draw import Drawing
from gateway.upstream.endpoint import Endpoint


class WeightedRandom(Drawing):
    def order(self, key: bytes) -> Iterator[Endpoint]:
        draw = self._draw
        if not draw.ready:
            return
        number = draw.one()
        yield draw.ready[number]
        yield from draw.shuffled(draw.ready[:number] + draw.ready[number + 1 :])
