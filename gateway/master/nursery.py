"""Where children are made: a seat on the scoreboard, a channel, a fork."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable

from gateway.child import Birth
from gateway.errors import StartError
from gateway.ledger import Ledger
from gateway.master.children import Child
from gateway.master.events import SIGNALS
from gateway.master.generation import Generation
from gateway.master.limits import pin
from gateway.master.sockets import Listening
from gateway.metrics.plan import Plan
from gateway.scoreboard import SEATS, Fact, Role, Scoreboard, State

Run = Callable[[Birth], None]


class Nursery:
    """run: by role, what a child does with its life. close_foreign: run in the child, closes what is the master's."""

    def __init__(
        self,
        board: Scoreboard,
        plan: Plan,
        run: dict[Role, Run],
        close_foreign: Callable[[], None],
        taken: set[int],
        ledger: Ledger,
    ) -> None:
        self._board = board
        self._ledger = ledger
        self._plan = plan
        self._run = run
        self._close_foreign = close_foreign
        self._taken = taken

    def spawn(
        self, role: Role, slot: int, generation: Generation, everything: Iterable[Listening], siblings: Iterable[Child]
    ) -> Child:
        """Fork a child. everything: all sockets the master has open; it keeps those of its slot and role only."""
        seat = self._free_seat()
        try:
            return self._fork(seat, role, slot, generation, everything, siblings)
        except BaseException:
            self._free(seat)
            raise

    def _fork(
        self,
        seat: int,
        role: Role,
        slot: int,
        generation: Generation,
        everything: Iterable[Listening],
        siblings: Iterable[Child],
    ) -> Child:
        cells = self._board.take(seat, self._plan.gauges())
        cells[Fact.ROLE] = role
        cells[Fact.SLOT] = slot
        cells[Fact.GENERATION] = generation.number
        cells[Fact.STATE] = State.BOOTING
        cells[Fact.STARTED] = int(time.time() * 1000)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if role is Role.OBSERVER:
            mine = {"admin": generation.admin} if generation.admin is not None else {}
        else:
            mine = dict(generation.listening)
        channels = [sibling.channel for sibling in siblings]
        others = list(everything)

        def close_foreign() -> None:
            self._close_foreign()
            ours.close()
            for channel in channels:
                channel.close()
            kept = set(map(id, mine.values()))
            for listening in others:
                listening.keep_only(slot if id(listening) in kept else None)
            if role is Role.WORKER and generation.config.process.cpu_affinity == "auto":
                pin(slot)

        birth = Birth(
            role=role,
            slot=slot,
            generation=generation.number,
            workers=generation.wanted,
            config=generation.config,
            board=self._board,
            ledger=self._ledger,
            plan=self._plan,
            seat=seat,
            sockets={name: listening.socket(slot) for name, listening in mine.items()},
            channel=theirs,
            files=generation.files,
            master=os.getpid(),
            close_foreign=close_foreign,
            findings=generation.findings,
            documents=generation.documents,
            own=tuple(listening.bound for listening in others),
        )
        # What lives now is shared with every child: the collector must not write into it and so make it private.
        gc.collect()
        gc.freeze()
        # Until the child has let go of the master's handlers a signal to the whole group must not reach it: it would
        # write into the master's queue a second time. `child.begin` unblocks them there.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._run[role](birth)
                os._exit(1)
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        ours.setblocking(False)
        cells[Fact.PID] = pid
        names = {listening.key: name for name, listening in mine.items()}
        return Child(role, slot, generation.number, seat, cells, pid, ours, names, set(names), generation.files)

    def _free_seat(self) -> int:
        """The lowest seat nobody sits on: low numbers keep the scoreboard small. Seat 0 is the master's."""
        for seat in range(1, SEATS):
            if seat not in self._taken:
                self._taken.add(seat)
                return seat
        raise StartError(f"{SEATS - 1} processes are still there; wait until old generations have drained")

    def buried(self, child: Child) -> None:
        """A child is gone: nothing of it is open any more, and its seat is free."""
        self._free(child.seat)

    def _free(self, seat: int) -> None:
        self._board.leave(seat, self._plan.gauges())
        self._taken.discard(seat)
