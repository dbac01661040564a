"""What a worker writes in one turn of its event loop leaves together, once the last step of the turn has run.

To send something wakes whoever sleeps at the other end, and that costs more than to send, most of all where processors
are virtual ones. An endpoint that gets its requests one by one, with the work for a request between any two, is asleep
again each time; one that gets several in a row wakes once, and so does a client with many connections. Where a turn has
but one step, as on a worker that has little to do, nothing is held. What is held waits for the steps that are before it
in the turn, and so for one that blocks.
"""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop
from typing import Protocol

log = logging.getLogger("gateway")

# Messages that are held at most: more would not save much more, and the first of them waits for the work for all.
_MOST = 16


class Held(Protocol):
    """Who has something that is to leave with the others."""

    def leave(self) -> None:
        """Write it, if there still is something."""
        ...


class Outgoing:
    """Of one event loop.

    steps: those that the loop has yet to run, of the ones that are likely to write something. Whoever puts one into the
    loop's queue counts it, and takes it off when it runs. It is but a guess: if it is too high, what is held leaves in
    the next turn; if it is too low, it leaves at once.
    """

    __slots__ = ("_held", "loop", "steps")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.steps = 0
        self._held: list[Held] = []
        self.loop = loop

    def hold(self, one: Held) -> None:
        """Have it leave with the others of this turn. To be called only while there are steps to come."""
        held = self._held
        if not held:
            self.loop.call_soon(self._late)
        held.append(one)
        if len(held) >= _MOST:
            self.flush()

    def _late(self) -> None:
        """The steps that were to come did not come, or wrote nothing."""
        if self._held:
            self.steps = 0
            self.flush()

    def flush(self) -> None:
        """Send what is held."""
        held = self._held
        if not held:
            return
        self._held = []
        for one in held:
            try:
                one.leave()
            except Exception:  # in the middle of another one's step, which has nothing to do with it
                log.exception("what was held could not leave")


_latest: Outgoing | None = None


def outgoing_of(loop: AbstractEventLoop) -> Outgoing:
    """That of a loop. A process has one loop, or one after the other."""
    global _latest
    found = _latest
    if found is None or found.loop is not loop:
        found = _latest = Outgoing(loop)
    return found
