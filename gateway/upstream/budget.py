"""How many requests may be tried again at the same time, over all workers.

When an upstream is in trouble, retries are what finishes it: a bound relative to the requests in flight lets them help
with single failures and keeps them from becoming most of the load (Envoy's retry budget).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from gateway.metrics.plan import GROUP_RETRIES_DENIED, GROUP_RETRYING
from gateway.scoreboard import Cells
from gateway.truth import Truth

# So many may always be tried again: of a handful of requests a part would be none.
_LEAST = 3


# Seconds for which the number of requests is believed: to add it up costs something for each endpoint and worker.
_BELIEVED = 0.02


class Budget:
    __slots__ = ("_cells", "_group", "_load", "_part", "_requests", "_truth", "_until")

    def __init__(self, part: float, load: Callable[[], int], truth: Truth, cells: Cells, group: int) -> None:
        """part: of the requests in flight, which load() says. group: where the upstream's cells are."""
        self._part = part
        self._load = load
        self._truth = truth
        self._cells = cells
        self._group = group
        self._requests = 0
        self._until = 0.0  # when they are to be added up again

    def claim(self) -> bool:
        """Whether one request more may be tried again; `release` when that one is over."""
        most = self._most()  # before anybody is kept waiting
        with self._truth.changing():
            if self._under_way() < most:
                self._cells[self._group + GROUP_RETRYING] += 1
                return True
        return False

    def _most(self) -> float:
        under_way = self._under_way()
        if under_way < _LEAST:
            return _LEAST
        now = monotonic()
        if now >= self._until:
            # Who asks is in flight nowhere at the moment, nor is who pauses before the next attempt: when all requests
            # fail at once they would be few. Of those tried again some are counted twice; that is the error made.
            self._requests = self._load() + under_way + 1
            self._until = now + _BELIEVED
        return max(_LEAST, self._part * self._requests)

    def _under_way(self) -> int:
        return self._truth.over_all_workers(self._group + GROUP_RETRYING)

    def denied(self) -> None:
        """A request is not tried again because there was no budget for as long as it asked."""
        self._cells[self._group + GROUP_RETRIES_DENIED] += 1

    def release(self) -> None:
        self._cells[self._group + GROUP_RETRYING] -= 1
