"""Who waits for room in an upstream: a line in each worker, bounded over all of them.

Whoever is first in a worker's line tries again when a request of the same worker ends, and every now and then, since
room may come from another worker, which doesn't know who waits here. So a worker that is killed takes no turn with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

from gateway.config.model import Queue
from gateway.errors import QueueFull, WaitedTooLong
from gateway.scoreboard import Cells
from gateway.truth import Truth
from gateway.wheel import Wheel

# Seconds between two tries while room may come from elsewhere.
_AGAIN = 0.01


class Place:
    """Someone in line. `turn` is what is awaited."""

    __slots__ = ("deadline", "is_late", "look", "turn")

    def __init__(self) -> None:
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_late = False  # also when it is called at the very moment
        self.deadline = 0.0
        self.look = 0

    def call(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)

    def overdue(self) -> None:
        self.is_late = True
        self.call()


class Line:
    def __init__(self, upstream: str, config: Queue, truth: Truth, wheel: Wheel, cells: Cells, waiting: int) -> None:
        """waiting: the cell in which this worker counts who waits."""
        self._upstream = upstream
        self._config = config
        self._truth = truth
        self._wheel = wheel
        self._cells = cells
        self._waiting = waiting
        self._places: deque[Place] = deque()
        self._looking = False

    def __bool__(self) -> bool:
        return bool(self._places)

    def is_first(self, place: Place | None) -> bool:
        """Whether nobody of this worker is before it."""
        return not self._places or self._places[0] is place

    def join(self, within: float | None) -> Place:
        """A place at the end. within: seconds, if there are fewer left than may be waited. Raises QueueFull."""
        with self._truth.changing():
            if self._truth.over_all_workers(self._waiting) >= self._config.size:
                raise QueueFull("", f"{self._config.size} requests wait for room in {self._upstream} already")
            self._cells[self._waiting] += 1
        place = Place()
        self._places.append(place)
        longest = self._config.timeout if within is None else min(within, self._config.timeout)
        self._wheel.arm(place, monotonic() + longest)
        self._look_later()
        return place

    async def turn(self, place: Place) -> None:
        """Returns when it is worth another try. Raises WaitedTooLong."""
        await place.turn
        if place.is_late:
            raise WaitedTooLong("", f"no room in {self._upstream} within {self._config.timeout:g} s")
        place.turn = asyncio.get_running_loop().create_future()

    def leave(self, place: Place) -> None:
        place.deadline = 0.0
        self._places.remove(place)
        self._cells[self._waiting] -= 1
        self.next()  # what made room for this one may have made more

    def next(self) -> None:
        """There may be room: who is first may try."""
        if self._places:
            self._places[0].call()

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_AGAIN, self._look)

    def _look(self) -> None:
        self._looking = False
        if self._places:
            self._places[0].call()
            self._look_later()
