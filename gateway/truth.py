"""What all processes believe of the endpoints: records on the scoreboard, changed under a lock, read without one.

Each change raises one number in the header. A worker compares that number on each request and looks at the records
again only when it has risen, so everybody acts on a change with the next request, and nobody pays while there is none.
The lock is the kernel's (a POSIX record lock): it is dropped when its holder dies.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic_ns

from gateway.scoreboard import Cells, Mark, Scoreboard, Word


def now_ms() -> int:
    return monotonic_ns() // 1_000_000


class Truth:
    def __init__(self, board: Scoreboard) -> None:
        self._board = board
        self._header = board.header
        self._records = board.seat(0)  # the master's: of all seats the one whose series nobody counts
        self._seats: list[Cells] = []

    @property
    def version(self) -> int:
        return int(self._header[Word.HEALTH])

    def record(self, at: int) -> Cells:
        """The record of the endpoint whose block is there."""
        return self._records[at : at + Mark.SIZE]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Whoever is in here is the only one that changes records."""
        fd = self._board.fd
        fcntl.lockf(fd, fcntl.LOCK_EX, 1)
        try:
            yield
        finally:
            fcntl.lockf(fd, fcntl.LOCK_UN, 1)

    def changed(self) -> None:
        """Let everybody look again. To be called while `changing`."""
        self._header[Word.HEALTH] += 1

    def over_all_workers(self, cell: int) -> int:
        """The sum of a gauge."""
        return sum([seat[cell] for seat in self.workers()])

    def workers(self) -> list[Cells]:
        """The seats that workers count on. The observer's is among them, and of processes that are gone."""
        used = self._header[Word.SEATS_USED]
        if len(self._seats) != used - 1:
            self._seats = [self._board.seat(number) for number in range(1, used)]
        return self._seats
