"""How long an endpoint keeps idle connections: what it announces, and what it did. Pure.

A request on a connection that the endpoint ends at that moment is lost, and nobody can know whether it was acted upon.
So connections are given up before the endpoint does it, with a margin for the way there and back.
"""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache

# The part of a known time for which a connection is used. The rest is for a request under way, and for an endpoint that
# is too busy to read one in time: of the 5 s that Node, Apache and uvicorn keep connections it is one second.
MARGIN = 0.8
# Seconds for which an idle connection of an endpoint nobody knows is taken for open. Few servers end connections sooner
# than after 1 s; half of that leaves as much again for delays.
UNKNOWN = 0.5
NEVER = float("inf")

# So many ends at about the same age are no coincidence.
_ENOUGH = 3
_ABOUT = 1.25
# Ends within a second are one occasion: an endpoint that restarts ends all connections at once, at whatever age.
_OCCASION = 1.0
# What was seen holds for ten minutes: long enough to be of use, and a mistake doesn't hurt for longer. While it holds
# nothing can be seen, since connections are given up before.
_HOLDS = 600.0
_MOST_ENDS = 16

_TIMEOUT = re.compile(rb'(?:\A|[,; \t])timeout[ \t]*=[ \t]*"?([0-9]{1,9})', re.IGNORECASE)


@lru_cache(maxsize=256)
def announced(keep_alive: bytes) -> float:
    """Seconds that a Keep-Alive field speaks of, NEVER when of none. Remembered, for an endpoint says few."""
    found = _TIMEOUT.search(keep_alive)
    return float(found[1]) if found is not None else NEVER


class Lifetime:
    """What the ends of idle connections say. Times are seconds of one clock."""

    __slots__ = ("_ends", "_known", "_until")

    def __init__(self) -> None:
        self._ends: deque[tuple[float, float]] = deque(maxlen=_MOST_ENDS)  # when, and how long it had been idle
        self._known = NEVER
        self._until = NEVER

    def known(self, now: float) -> float:
        """After how long the endpoint ends idle connections, NEVER when that is not known."""
        if now >= self._until:
            self._known = self._until = NEVER
        return self._known

    def ended(self, age: float, now: float, oldest: float) -> bool:
        """The endpoint has ended an idle connection at this age. oldest: the age of the oldest that it has left open.
        True when more is known now."""
        if oldest > age * _ABOUT:
            return False  # it was not for its age
        ends = self._ends
        if ends and now - ends[-1][0] < _OCCASION:
            return False
        while ends and now - ends[0][0] >= _HOLDS:
            ends.popleft()
        ends.append((now, age))
        ages = sorted(age for _, age in ends)
        for shortest, last in zip(ages, ages[_ENOUGH - 1 :], strict=False):
            if last <= shortest * _ABOUT:
                self._until = now + _HOLDS
                changed = shortest != self._known
                self._known = shortest
                return changed
        return False

    def __repr__(self) -> str:
        return f"<Lifetime {self._known:g} s, {len(self._ends)} ends seen>"
