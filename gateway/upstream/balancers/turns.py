"""Whose turn it is, by weight: the algorithms behind `round_robin`. They speak of numbers, not of endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from heapq import heapify, heapreplace
from math import gcd
from operator import add

# A longer period is not worked out in advance, nor one that takes more additions: some 20 ms on the event loop.
_LONGEST = 8192
_MOST_ADDITIONS = 200_000


def spread(start: float, number: int) -> float:
    """0 <= place < 1, for number after number never near those before it: multiples of the golden ratio."""
    return (start + number * 0.6180339887498949) % 1.0


def step(current: Sequence[int], weights: Sequence[int]) -> tuple[int, list[int]]:
    """One turn of nginx's smooth weighted round robin (ngx_http_upstream_get_peer).

    Each weight is added to a current weight; the greatest is picked, the first among equals, and the total is taken
    from it. Returns whose turn it is, and the current weights after it.
    """
    after = list(map(add, current, weights))
    best = after.index(max(after))
    after[best] -= sum(weights)
    return best, after


def period(weights: Sequence[int]) -> list[int]:
    """The turns until they repeat, after sum(weights) / gcd(weights); [] when they are too many to be worked out. The
    same list for the same weights, so not to be changed."""
    if not weights:
        return []
    divisor = gcd(*weights)
    lowest = tuple(weight // divisor for weight in weights)
    total = sum(lowest)
    if total == len(lowest):
        return list(range(total))
    if total > _LONGEST or total * len(lowest) > _MOST_ADDITIONS:
        return []
    return _worked_out(lowest)


@lru_cache(maxsize=32)  # a group is set out again with each change of any record, mostly another's
def _worked_out(weights: tuple[int, ...]) -> list[int]:
    total = sum(weights)
    current = [0] * len(weights)
    turns = []
    for _ in range(total):
        turn, current = step(current, weights)
        turns.append(turn)
    return turns


class Smooth:
    """nginx's smooth weighted round robin with effective weights, turn for turn.

    While all weights are whole it repeats its period. After one has fallen it goes step by step, until the turns repeat
    again: these are the period then. A step costs some 50 ns for each weight.
    """

    __slots__ = (
        "_before", "_current", "_low", "_recent", "_since", "at", "effective", "is_settled", "period", "weights",
    )  # fmt: skip

    def __init__(self, weights: Sequence[int], start: float) -> None:
        """start: 0 <= start < 1, where in the period to begin."""
        self.weights = list(weights)
        self.effective = list(weights)
        self.period = period(weights)  # empty where it is too long
        self.at = int(start * len(self.period))
        self.is_settled = bool(self.period)
        self._before = self._current = [0] * len(self.weights)  # the current weights at the period's beginning, and now
        self._low: set[int] = set()  # whose effective weights have fallen
        self._recent: list[int] = []  # the turns since
        self._since: list[int] = []  # these were the current weights

    def turn(self) -> int:
        if self.is_settled:
            at = self.at
            self.at = at + 1 if at + 1 < len(self.period) else 0
            return self.period[at]
        turn, self._current = step(self._current, self.effective)
        if self._low:
            self._rise()
        elif self.period:
            self._settle(turn)
        return turn

    def fall(self, number: int, effective: int) -> None:
        """An effective weight is this from now on, and rises by one with each turn."""
        if self.is_settled:
            self.is_settled = False
            self._current = self._now()
        self.effective[number] = effective
        self._low.add(number)

    def fallen(self) -> list[tuple[int, int]]:
        """The numbers of those who have fallen, and what is left of their weights."""
        return [(number, self.effective[number]) for number in self._low]

    def _now(self) -> list[int]:
        """The current weights where the period stands."""
        current = [before + self.at * weight for before, weight in zip(self._before, self.weights, strict=True)]
        total = sum(self.weights)
        for number in self.period[: self.at]:
            current[number] -= total
        return current

    def _rise(self) -> None:
        for number in list(self._low):
            self.effective[number] += 1
            if self.effective[number] >= self.weights[number]:
                self.effective[number] = self.weights[number]
                self._low.discard(number)
        self._since = []

    def _settle(self, turn: int) -> None:
        self._recent.append(turn)
        if self._since and len(self._recent) < len(self.period):
            return
        if self._since == self._current:
            self.period, self.at, self._before = self._recent, 0, self._current
            self.is_settled = True
        self._recent, self._since = [], self._current


class Deadlines:
    """Earliest deadline first: whose turn it was is due again after 1/weight (Envoy's EDF scheduler).

    Shares are as exact as those of `Smooth`, the sequence is another. A turn costs log n.
    """

    __slots__ = ("_due", "_gaps")

    def __init__(self, weights: Sequence[int], start: float) -> None:
        """start: 0 <= start < 1. Everybody begins elsewhere in the first gap, or the heavy would all come first."""
        self._gaps = [1.0 / weight for weight in weights]
        self._due = [(spread(start, number) * gap, number) for number, gap in enumerate(self._gaps)]
        heapify(self._due)

    def turn(self) -> int:
        due, number = self._due[0]
        heapreplace(self._due, (due + self._gaps[number], number))
        return number
