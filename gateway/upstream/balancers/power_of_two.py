"""The power of two choices: of two endpoints drawn by weight the one with less to do (SEMANTICS 4).

Nearly as even as asking everybody, at the cost of two; and many workers that decide at the same moment from the same
figures don't all choose the same (nginx's `random two least_conn`, HAProxy's `random(2)`).
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.upstream.balancers.draw import Drawing
from gateway.upstream.endpoint import Endpoint


class PowerOfTwo(Drawing):
    def order(self, key: bytes) -> Iterator[Endpoint]:
        """The winner, the loser, then the others as drawn."""
        draw = self._draw
        ready = draw.ready
        if not ready:
            return
        number = draw.one()
        other = None
        cost = self.cost(ready[number])
        if cost:  # nothing is less than nothing
            other = draw.another(number)
            if other is not None and self.cost(ready[other]) < cost:
                number, other = other, number
        yield ready[number]
        if other is not None:
            yield ready[other]
        yield from draw.shuffled(one for at, one in enumerate(ready) if at not in (number, other))

    def cost(self, endpoint: Endpoint) -> float:
        """Of two the lesser is chosen; among equals the first drawn, so that idle endpoints share by weight."""
        return endpoint.load() / (endpoint.weight * endpoint.share)
