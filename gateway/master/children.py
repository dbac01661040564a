"""One child of the master: its process, its life as a table, and its end of the conversation."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from dataclasses import dataclass, field

from gateway.child import tell
from gateway.log import Files
from gateway.scoreboard import Cells, Fact, Role, State

# What can happen in a child's life, and what it is afterwards. What is not listed changes nothing.
NEXT: dict[tuple[State, str], State] = {
    (State.BOOTING, "ready"): State.READY,
    (State.BOOTING, "drain"): State.DRAINING,
    (State.READY, "drain"): State.DRAINING,
    (State.BOOTING, "exit"): State.GONE,
    (State.READY, "exit"): State.GONE,
    (State.DRAINING, "exit"): State.GONE,
}


@dataclass(slots=True, eq=False)
class Child:
    role: Role
    slot: int
    generation: int
    seat: int
    cells: Cells
    pid: int
    channel: socket.socket
    names: dict[str, str]  # by key of a socket, what it calls the listener
    holds: set[str]  # the sockets (by key) whose queue it may still accept from
    files: Files | None = None  # the logs it writes to
    born: float = field(default_factory=time.monotonic)
    state: State = State.BOOTING
    serving: bool = False  # it was told to go
    retire: str = ""  # why a successor is to take its place
    doomed: str = ""  # why it was killed
    kill_at: float = 0.0  # when it is killed if it is still there
    why: str = ""  # what it said when it failed
    wear: float = field(default_factory=lambda: random.uniform(0.9, 1.1))  # so that siblings are not recycled at once

    def happened(self, event: str) -> None:
        self.state = NEXT.get((self.state, event), self.state)

    @property
    def name(self) -> str:
        who = "observer" if self.role is Role.OBSERVER else f"worker {self.slot}"
        return f"{who} [generation {self.generation}, pid {self.pid}]"

    @property
    def age(self) -> float:
        return time.monotonic() - self.born

    @property
    def requests(self) -> int:
        return int(self.cells[Fact.REQUESTS] - self.cells[Fact.BASE_REQUESTS])

    def silence(self) -> float:
        """Seconds since its event loop last beat."""
        beat = self.cells[Fact.BEAT]
        return (time.monotonic_ns() - beat) / 1e9 if beat else self.age

    def go(self) -> None:
        self.serving = True
        tell(self.channel, {"do": "go"})

    def drain(self, timeout: float, orphans: set[str], stopping: bool) -> None:
        """Tell it to leave. orphans: the sockets from whose queue nobody else will accept: it empties them first."""
        if self.state not in (State.BOOTING, State.READY):
            return
        self.happened("drain")
        self.holds &= orphans if self.serving else set()
        self.kill_at = time.monotonic() + timeout + 5.0  # it ends by itself at `timeout`; this is for one that can't
        leaving = [self.names[key] for key in self.holds]
        tell(self.channel, {"do": "drain", "timeout": timeout, "leaving": leaving, "stopping": stopping})

    def hurry(self) -> None:
        """The whole gateway stops: one that drains already has no reason any more to keep idle connections."""
        if self.state is State.DRAINING:
            tell(self.channel, {"do": "drain", "timeout": 0.0, "leaving": [], "stopping": True})

    def kill(self, number: signal.Signals) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def __repr__(self) -> str:
        return f"<Child {self.name} {self.state.name}>"
