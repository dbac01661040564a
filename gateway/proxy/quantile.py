"""How long answers take, most of the time: a quantile of the latest durations. Pure.

Durations fall into buckets each of which is a tenth longer than the one before, so that an estimate is at most that
much too high. Every now and then all counts are halved: what was long ago counts less and less.
"""

from __future__ import annotations

from itertools import accumulate
from math import log

_SHORTEST = 0.0001  # seconds: what is below is in the first bucket
_GROWTH = log(1.1)
_BUCKETS = 160  # up to some seven minutes
_HALVED_AFTER = 1000
# Below this many nothing is said: the 95th percentile of fewer is no more than their longest.
_ENOUGH = 100
_LOOKED_UP_AFTER = 50


class Quantile:
    __slots__ = ("_counts", "_due", "_part", "_seen", "_total", "value")

    def __init__(self, part: float) -> None:
        """part: 0.95 for the 95th percentile."""
        self._part = part
        self._counts = [0] * _BUCKETS
        self._total = 0
        self._seen = 0
        self._due = _ENOUGH
        self.value: float | None = None  # seconds; None while too few are known

    def add(self, seconds: float) -> None:
        at = int(log(seconds / _SHORTEST) / _GROWTH) + 1 if seconds > _SHORTEST else 0
        self._counts[min(at, _BUCKETS - 1)] += 1
        self._total += 1
        self._seen += 1
        if self._seen >= self._due:
            self._due = self._seen + _LOOKED_UP_AFTER
            self._look()

    def _look(self) -> None:
        wanted = self._part * self._total
        for at, count in enumerate(accumulate(self._counts)):
            if count >= wanted:
                self.value = _SHORTEST * 1.1**at
                break
        if self._total >= _HALVED_AFTER:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)
