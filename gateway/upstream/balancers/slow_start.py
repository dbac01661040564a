"""Slow start for policies that go by turns: who has a share below one passes on the rest of its turns.

That is exact, weight * share turns to the weight of every other, and the share is read at each pick: one that grows
needs no rebuild.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.upstream.balancers.turns import spread
from gateway.upstream.endpoint import Endpoint

# After so many turns passed on the next is taken: the shares of all are tiny then.
_PATIENCE = 1000


class SlowStart:
    def __init__(self, offset: float) -> None:
        """offset: the part of a turn that the first has saved at first; not the same in every worker."""
        self._next = offset
        self._saved: dict[Endpoint, float] = {}

    def keep(self, members: Sequence[Endpoint]) -> None:
        """Forget who is none of them, or has started."""
        self._saved = {one: self._saved[one] for one in members if one in self._saved and one.share < 1.0}

    def taker(self, endpoint: Endpoint, turn: Callable[[], Endpoint]) -> Endpoint:
        """Who takes the turn that is this endpoint's: itself, or the next by `turn` that does."""
        for _ in range(_PATIENCE):
            share = endpoint.share
            if share >= 1.0:
                break
            saved = self._saved.get(endpoint)
            if saved is None:
                saved = self._next = spread(self._next, 1)
            saved += share
            self._saved[endpoint] = saved % 1.0
            if saved >= 1.0:
                break
            endpoint = turn()
        return endpoint
