"""The scoreboard: one shared memory map in which every process says how it is and what it counted.

The master makes it before the first fork (a memfd, so it can be handed on across an upgrade). It is cut into *seats*.
A process sits on one seat and is the only writer of its cells, so nothing is ever locked and a SIGKILL leaves no lock
behind; only the records of endpoints, which are everybody's, have a lock (`upstream/truth.py`). A seat outlives its
process: counters go on from where the last one left them, which keeps every sum monotonic; gauges are set to zero when
the seat is taken. Cells are aligned 64-bit words, so a reader never sees half a value.

Seats are not slots: while a reload drains, two processes serve one slot, and each needs cells of its own.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum

Cells = memoryview  # of format "Q": unsigned 64-bit words

SEATS = 512
SEAT_CELLS = 1 << 15  # 256 KiB: room for some 500 routes before series share a cell; untouched pages cost nothing
_HEADER_CELLS = 512
_MAGIC = 0x47_41_54_45_57_41_59_31  # "GATEWAY1"; the last digit changes with the layout


class Role(IntEnum):
    NONE = 0
    MASTER = 1
    OBSERVER = 2
    WORKER = 3


class State(IntEnum):
    """A child's life: BOOTING -> READY -> DRAINING -> GONE."""

    GONE = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3


class Word(IntEnum):
    """Cells of the header; the master writes them."""

    MAGIC = 0
    SEATS_USED = 1
    GENERATION = 2
    WANTED = 3  # workers of the current generation
    RELOAD_OK = 4  # 1: the last reload succeeded
    RELOAD_TIME = 5  # unix seconds of the last reload
    STARTED = 6  # unix seconds
    RELOADS = 7
    RELOADS_FAILED = 8
    HEALTH = 9  # rises with each change of a record of an endpoint; written by whoever holds their lock
    RESTARTS_CRASH = 16
    RESTARTS_HANG = 17
    RESTARTS_RECYCLED = 18
    RESTARTS_BOOT = 19


class Fact(IntEnum):
    """Cells of a seat that every process keeps. Those below COUNTERS are gauges, zeroed when the seat is taken."""

    PID = 0
    ROLE = 1
    SLOT = 2
    GENERATION = 3
    STATE = 4
    STARTED = 5  # unix milliseconds
    BEAT = 6  # monotonic nanoseconds, written by the event loop itself
    OPEN = 7  # client connections
    BUSY = 8  # requests under way
    UPSTREAM_OPEN = 9
    LAG = 10  # microseconds the last beat came late
    BASE_REQUESTS = 11  # REQUESTS when the seat was taken
    COUNTERS = 32
    REQUESTS = 32
    LOG_DROPPED = 33  # lines of the access log that nobody took
    SERIES = 64  # what metrics/plan.py gives out starts here


class Condition(IntEnum):
    """Of an endpoint; how one becomes another stands in upstream/health.py."""

    UP = 0
    EJECTED = 1  # by traffic; not asked until its time is over
    PROBATION = 2  # asked again, one exchange at a time; the outcome decides
    DOWN = 3  # by probes; not asked until they pass


# What these are called of the circuit of an upstream as a whole.
CIRCUIT = {
    Condition.UP: "closed",
    Condition.EJECTED: "open",
    Condition.PROBATION: "half open",
    Condition.DOWN: "open",
}


class Mark(IntEnum):
    """Cells of an endpoint's record, which all processes share (see upstream/truth.py). Times in monotonic
    milliseconds."""

    CONDITION = 0
    SINCE = 1  # when the condition changed; 0: never
    UNTIL = 2  # the end of an ejection
    FAILURES = 3  # in a row
    EJECTIONS = 4  # since it was last well for long
    EJECTED = 5  # ejections in all
    DRAINED = 6  # 1: somebody wants it to get nothing new
    TRIAL = 7  # on probation: until when the one exchange that tries it may take
    PROBES_PASSED = 8  # in a row
    PROBES_FAILED = 9
    TRIALS_PASSED = 10  # on probation: in a row
    LATENCY = 14  # of late, in seconds and a float, see upstream/latency.py; 0 for unknown
    LATENCY_AT = 15  # of its last sample: the same clock, in seconds and a float
    SIZE = 16


class Scoreboard:
    """The map as cells: `header`, and `seat(number)`. Made by `create` or, from an inherited descriptor, `adopt`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _size())
        self._cells = memoryview(self._map).cast("Q")
        self.header: Cells = self._cells[:_HEADER_CELLS]

    @classmethod
    def create(cls) -> Scoreboard:
        fd = os.memfd_create("gateway-scoreboard", os.MFD_CLOEXEC)
        os.ftruncate(fd, _size())
        board = cls(fd)
        board.header[Word.MAGIC] = _MAGIC
        return board

    @classmethod
    def adopt(cls, fd: int) -> Scoreboard | None:
        """The scoreboard another program left in fd; None when its layout is not ours."""
        if os.fstat(fd).st_size != _size():
            return None
        board = cls(fd)
        return board if board.header[Word.MAGIC] == _MAGIC else None

    def close(self) -> None:
        """Let go of a map that nobody else has. What was cut from it must not be used any more."""
        os.close(self.fd)

    def seat(self, number: int) -> Cells:
        start = _HEADER_CELLS + number * SEAT_CELLS
        return self._cells[start : start + SEAT_CELLS]

    def seats(self) -> list[Cells]:
        """Every seat that was ever taken."""
        return [self.seat(number) for number in range(self.header[Word.SEATS_USED])]

    def take(self, number: int, gauges: list[int]) -> Cells:
        """Make a seat ready for a new process; gauges: the series cells that don't go on from the last one."""
        if number >= self.header[Word.SEATS_USED]:
            self.header[Word.SEATS_USED] = number + 1
        seat = self.seat(number)
        for cell in range(Fact.COUNTERS):
            seat[cell] = 0
        for cell in gauges:
            seat[cell] = 0
        seat[Fact.BASE_REQUESTS] = seat[Fact.REQUESTS]
        return seat

    def leave(self, number: int, gauges: list[int]) -> None:
        """A process is gone: nothing of it is open any more."""
        seat = self.seat(number)
        for cell in gauges:
            seat[cell] = 0
        for fact in (Fact.PID, Fact.STATE, Fact.ROLE, Fact.OPEN, Fact.BUSY, Fact.UPSTREAM_OPEN):
            seat[fact] = 0


def _size() -> int:
    return 8 * (_HEADER_CELLS + SEATS * SEAT_CELLS)
