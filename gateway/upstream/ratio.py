"""Which part of the latest exchanges failed, over all workers. Pure over cells: each worker counts on its own seat, and
only who saw a failure adds up.

Time is cut into halves of the window; two of them are kept, so what counts is between half a window and a whole one old
(as in nginx's and HAProxy's sliding counters). A half that began before the last change of condition is left out: what
led to an ejection must not lead to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.scoreboard import Cells

# Two halves of three cells: when it began, in halves since the clock's beginning, its exchanges, the failed ones.
_HALF = 3
SIZE = 2 * _HALF


class Ratio:
    __slots__ = ("_at", "_everybody", "_half", "_least", "_most", "_own")

    def __init__(
        self,
        own: Cells,
        at: int,
        everybody: Callable[[], Iterable[Cells]],
        *,
        most: float,
        least: int,
        window: float,
    ) -> None:
        """own: this worker's seat; at: where its cells are on each seat. most: the part that may fail; least: exchanges
        below which it says nothing; window: seconds."""
        self._own = own
        self._at = at
        self._everybody = everybody
        self._most = most
        self._least = least
        self._half = max(1, int(window * 500))

    def count(self, now: int, failed: bool) -> None:
        """An exchange is over. now: milliseconds."""
        own = self._own
        half = now // self._half
        at = self._at + _HALF * (half & 1)
        if own[at] != half:
            own[at] = half
            own[at + 1] = own[at + 2] = 0
        own[at + 1] += 1
        if failed:
            own[at + 2] += 1

    def sums(self, now: int, since: int) -> tuple[int, int]:
        """Exchanges of the window, and the failed ones among them; none of before `since`."""
        half = now // self._half
        total = failed = 0
        for seat in self._everybody():
            for at in (self._at, self._at + _HALF):
                began = seat[at]
                if half - 1 <= began <= half and began * self._half >= since:
                    total += seat[at + 1]
                    failed += seat[at + 2]
        return total, failed

    def is_exceeded(self, now: int, since: int) -> bool:
        total, failed = self.sums(now, since)
        return total >= self._least and failed >= self._most * total
