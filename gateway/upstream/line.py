"""Who waits for room in an upstream: a line in each worker, bounded over all of them, and in turn over all of them.

Who joins takes the next ticket, and each worker shows the ticket of its first. Only the lowest of these tries, when a
request ends and every now and then, since what makes room may tell nobody. So a worker that is killed takes no turn
with it: its ticket is wiped out when it is buried, and until then it is passed over as one that stands still.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic, monotonic_ns

from gateway.config.upstreams import Queue
from gateway.errors import QueueFull, WaitedTooLong
from gateway.metrics.plan import LINE_FIRST, LINE_LANDED
from gateway.scoreboard import Cells, Fact
from gateway.truth import Truth
from gateway.wheel import Wheel

# Seconds between two looks whether another worker has made room, or has nobody left who comes first; and between two
# tries without that.
_LOOK = 0.002
_AGAIN = 0.01
# Seconds after which a worker that neither beats nor has another first is passed over.
_STILL = 1.0


class Place:
    """Someone in line. `turn` is what is awaited."""

    __slots__ = ("deadline", "is_late", "look", "ticket", "turn")

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
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
    def __init__(
        self, upstream: str, config: Queue, truth: Truth, wheel: Wheel, cells: Cells, waiting: int, line: int
    ) -> None:
        """cells: this worker's. waiting: the one in which it counts who waits. line: where its "line" begins."""
        self._upstream = upstream
        self._config = config
        self._truth = truth
        self._wheel = wheel
        self._cells = cells
        self._waiting = waiting
        self._first = line + LINE_FIRST
        self._landed = line + LINE_LANDED
        self._tickets = truth.record(line)[LINE_FIRST : LINE_FIRST + 1]
        self._others: dict[int, tuple[int, float]] = {}  # by seat: whose turn it is there, and since when
        self._seen = 0  # of the room that was made, how much was tried for
        self._next_try = 0.0
        self._places: deque[Place] = deque()
        self._looking = False

    def __bool__(self) -> bool:
        return bool(self._places)

    def is_first(self, place: Place | None) -> bool:
        """Whether nobody is before it. place: None for who has just come."""
        if self._places and self._places[0] is not place:
            return False
        # Other generations may have other limits: who is first there is no measure.
        generation = self._cells[Fact.GENERATION]
        for number, seat in enumerate(self._truth.workers()):
            ticket = seat[self._first]
            is_before = ticket and (place is None or ticket < place.ticket) and seat[Fact.GENERATION] == generation
            if is_before and not self._stands_still(number, seat, ticket):
                return False
        return True

    def _stands_still(self, number: int, seat: Cells, ticket: int) -> bool:
        now = monotonic()
        known, since = self._others.get(number, (0, 0.0))
        if ticket != known:
            self._others[number] = (ticket, now)
            return False
        return now - since > _STILL and monotonic_ns() - seat[Fact.BEAT] > _STILL * 1e9

    def join(self, within: float | None) -> Place:
        """A place at the end. within: seconds, if there are fewer left than may be waited. Raises QueueFull."""
        with self._truth.changing():
            if self._truth.over_all_workers(self._waiting) >= self._config.size:
                raise QueueFull("", f"{self._config.size} requests wait for room in {self._upstream} already")
            self._cells[self._waiting] += 1
            self._tickets[0] += 1
            place = Place(self._tickets[0])
            self._places.append(place)
            self._show()
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
        self._show()
        self.next()  # what made room for this one may have made more

    def _show(self) -> None:
        """Let the others know who is first here."""
        self._cells[self._first] = self._places[0].ticket if self._places else 0

    def next(self) -> None:
        """There may be room: who is first may try, here or in another worker."""
        self._cells[self._landed] += 1
        if self._places and self.is_first(self._places[0]):
            self._places[0].call()

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        if not self._places:
            return
        self._look_later()
        if self.is_first(self._places[0]):
            landed = self._truth.over_all_workers(self._landed)
            now = monotonic()
            if landed != self._seen or now >= self._next_try:
                self._seen = landed
                self._next_try = now + _AGAIN
                self._places[0].call()
