"""Deadlines without a timer each: one wheel for a whole worker.

Arming an asyncio timer costs 1.5 us and most deadlines are moved before they fall due. Here an object carries its own
`deadline`; the wheel only remembers in which tick to look at it again. Moving a deadline later is one assignment, and
disarming is setting it to 0. Resolution: `TICK`, always late, never early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

TICK = 0.05  # seconds
# No object is kept longer than this without a look, so that a closed connection does not outlive its keep-alive time.
_HORIZON = 2.0


class Timed(Protocol):
    """What the wheel keeps. `deadline`: monotonic seconds, 0 for none; `look`: the tick of its entry, the wheel's
    own."""

    deadline: float
    look: int

    def overdue(self) -> None:
        """The deadline has passed. It was set to 0 before this call."""


class Wheel:
    """Buckets by tick. `later(seconds, callback)` and `now` come from the event loop, or from a test."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object], now: Callable[[], float]) -> None:
        self._later = later
        self._now = now
        self._buckets: dict[int, list[Timed]] = {}
        self._turned: int = 0
        self._ticking = False

    def arm(self, timed: Timed, deadline: float) -> None:
        """Call `timed.overdue()` once `deadline` has passed, unless it is moved or set to 0 before."""
        timed.deadline = deadline
        if timed.look and timed.look * TICK <= deadline:
            return  # its entry comes up before that anyhow, and is put further on then
        self._put(timed, deadline)

    def _put(self, timed: Timed, deadline: float) -> None:
        now = self._now()
        if not self._ticking:
            self._ticking = True
            self._turned = int(now / TICK)
            self._later(TICK, self._turn)
        timed.look = max(int(min(deadline, now + _HORIZON) / TICK), self._turned) + 1
        bucket = self._buckets.get(timed.look)
        if bucket is None:
            self._buckets[timed.look] = [timed]
        else:
            bucket.append(timed)

    def _turn(self) -> None:
        now = self._now()
        self._turned = int(now / TICK)
        overdue: list[Timed] = []
        for tick in sorted(tick for tick in self._buckets if tick <= self._turned):
            for timed in self._buckets.pop(tick):
                if timed.look != tick:
                    continue  # it was armed for an earlier time since, and has a newer entry
                timed.look = 0
                if not timed.deadline:
                    continue
                if timed.deadline > now:
                    self._put(timed, timed.deadline)
                else:
                    timed.deadline = 0.0
                    overdue.append(timed)
        if self._buckets:
            self._later(TICK, self._turn)
        else:
            self._ticking = False
        self._ring(overdue)

    def _ring(self, overdue: list[Timed]) -> None:
        """Tell each of them. One that breaks must not keep it from the others; the event loop reports it."""
        while overdue:
            timed = overdue.pop(0)
            try:
                timed.overdue()
            except Exception:
                self._ring(overdue)
                raise
