"""A worker's life: boot, say ready, wait for go, serve, drain, leave with exit code 0."""

from __future__ import annotations

import asyncio
import logging
import signal
from email.utils import formatdate
from time import monotonic_ns, time
from typing import NoReturn

import uvloop

from gateway import child
from gateway.child import Birth
from gateway.listeners.http import Door
from gateway.log import AccessLog
from gateway.metrics.recorder import recorder, session_recorder
from gateway.scoreboard import Fact, State
from gateway.worker.assembly import Assembled, Common, assemble, running_wheel
from gateway.worker.memory import settle
from gateway.worker.plugins import Plugins

log = logging.getLogger("gateway")

BEAT = 0.5  # seconds; a tenth of the shortest heartbeat_timeout that makes sense


def run_worker(birth: Birth) -> NoReturn:
    """The child's whole life."""

    def live() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Worker(birth).live())

    child.spend(birth, live)


class _Worker:
    def __init__(self, birth: Birth) -> None:
        self._birth = birth
        self._cells = birth.cells
        self._access: AccessLog | None = None
        self._door: Door
        self._made: Assembled
        self._last_beat = 0

    async def live(self) -> None:
        birth = self._birth
        loop = asyncio.get_running_loop()
        config = birth.config
        if birth.files.access >= 0:
            self._access = AccessLog(birth.files.access, config.log.access_format, birth.slot, loop.call_later)
        finished = recorder(
            self._cells,
            birth.plan,
            [listener.name for listener in config.listeners if listener.IS_HTTP],
            self._access.write if self._access is not None else None,
        )
        birth.documents.ask = lambda url: child.tell(birth.channel, {"say": "refresh", "url": url})
        offset = birth.slot / max(1, birth.workers)
        birth.ledger.sit(birth.board, birth.seat)
        self._made = assemble(
            config,
            birth.plan,
            birth.board,
            self._cells,
            running_wheel(),
            finished,
            offset,
            Common(birth.findings, birth.documents, birth.ledger, Plugins(config.process.python_path), own=birth.own),
            session_recorder(
                self._cells, birth.plan, self._access.write_session if self._access is not None else None
            ),
        )
        made = self._made
        self._door = Door(made.app, made.entries, made.datagrams, birth.sockets, self._ready, self._left)
        for number in (signal.SIGTERM, signal.SIGQUIT):
            loop.add_signal_handler(number, self._told_to_stop)
        birth.channel.setblocking(False)
        loop.add_reader(birth.channel, self._listen_to_master)
        self._beat(loop)
        settle()
        await self._door.run_until_left()
        self._count()
        if self._access is not None:
            self._access.flush()

    def _ready(self) -> None:
        child.tell(self._birth.channel, {"say": "ready"})

    def _left(self, listeners: list[str]) -> None:
        child.tell(self._birth.channel, {"say": "left", "listeners": listeners})

    def _listen_to_master(self) -> None:
        while True:
            try:
                message, fds = child.hear(self._birth.channel)
            except BlockingIOError:
                return
            if message is None:  # the master is gone; nobody will ever say more
                asyncio.get_running_loop().remove_reader(self._birth.channel)
                self._told_to_stop()
                return
            match message["do"]:
                case "go":
                    child.show(self._birth, State.READY)
                    self._door.go()
                case "drain":
                    child.show(self._birth, State.DRAINING)
                    self._door.drain(message["timeout"], message["leaving"], message["stopping"])
                case "endpoints":
                    for name in child.learn(self._birth, message):
                        self._made.renew(name, self._birth.findings.found[name])
                case "document":
                    self._birth.documents.told(message, fds)
                case "reopen":
                    if self._access is not None:
                        self._access.flush()
                    self._birth.files.replace(fds)

    def _told_to_stop(self) -> None:
        """TERM or QUIT sent to this worker itself, or the master is gone: the same as a graceful stop."""
        child.show(self._birth, State.DRAINING)
        made = self._made
        names = [*(entry.name for entry in made.entries), *(one.name for one in made.datagrams)]
        self._door.drain(self._birth.config.process.drain_timeout, names, stopping=True)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Prove that the event loop turns, renew the clock, count what is open."""
        cells = self._cells
        now = monotonic_ns()
        if self._last_beat:
            cells[Fact.LAG] = max(0, (now - self._last_beat) // 1000 - int(BEAT * 1e6))
        self._last_beat = now
        cells[Fact.BEAT] = now
        self._made.clock.date = formatdate(time(), usegmt=True).encode()
        self._count()
        loop.call_later(BEAT, self._beat, loop)

    def _count(self) -> None:
        cells = self._cells
        connections = 0
        for entry in self._made.entries:
            connections += len(entry.connections)
            cells[entry.idle_cell] = sum(connection.idle for connection in entry.connections)
        cells[Fact.OPEN] = connections
        for one in self._made.datagrams:
            one.count()
        if self._access is not None and self._access.dropped:
            cells[Fact.LOG_DROPPED] += self._access.dropped
            self._access.dropped = 0
        cells[Fact.BUSY] = len(self._door.server_state.tasks)
