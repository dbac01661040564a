"""The door to uvicorn: its server, embedded, with our protocol class, several sockets and our own way to leave.

`Door` starts when the master says go, accepts on every socket of its slot, and leaves without losing anything: what
waits in a queue that nobody will inherit is accepted first, requests under way are finished, idle connections get their
next request answered with `Connection: close` and are only closed towards the end, one after the other.
"""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from gateway.child import EXIT_BOOT
from gateway.listeners.http1 import Http1Connection
from gateway.listeners.listener import Datagrams, Entry
from gateway.listeners.preface import Preface

# A queue counts as empty when nothing came out of it for this long: longer than a handshake that was under way when new
# connections were steered elsewhere, on anything but a satellite.
_QUIET = 0.3
_QUIET_STEP = 0.02
# A listener that is removed has nowhere to steer to: however busy it is, this long and no longer.
_QUIET_MOST = 2.0
# The part of the drain in which idle connections are closed: late, because each may still bring a request, and spread,
# because their clients will all come back at once.
_CLOSE_FROM, _CLOSE_TO = 0.6, 0.9
# What the kernel keeps unsent for a connection before it counts as full (tcp(7)). Without a bound it grows to megabytes
# for each client that reads slowly, and a thousand of those make everybody wait: the 99th percentile of an honest
# client was 500 ms and more beside such an attack, and 110 ms with this.
_TCP_NOTSENT_LOWAT = 25
_UNSENT = 256 * 1024
# Descriptors that are never given to connections: logs reopened, a file of a plug-in, a name being resolved.
_SPARE = 16
# Turns of the event loop between the end of the drain and that of the process: what is cut passes through a few.
_LAST_STEPS = 5
# When the whole gateway stops there is no successor to wait for: idle connections go within this.
_CLOSE_AT_STOP = 0.5


def _descriptors() -> int:
    """How many descriptors this process may still open, but for a few."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most - len(list(Path("/proc/self/fd").iterdir())) - _SPARE


class Door(uvicorn.Server):
    """Serves one worker's listeners. `run` returns when everything is answered or the drain's deadline has passed."""

    def __init__(
        self,
        app: Any,
        entries: Collection[Entry],
        datagrams: Collection[Datagrams],
        sockets: dict[str, socket.socket],
        ready: Callable[[], None],
        left: Callable[[list[str]], None],
    ) -> None:
        config = uvicorn.Config(
            app,
            http=Http1Connection,
            ws="none",
            lifespan="on",
            loop="none",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
        )
        super().__init__(config)
        self.entries = list(entries)
        self._datagrams = list(datagrams)
        self._sockets = sockets
        self._ready = ready
        self._left = left
        self._go = asyncio.Event()
        self._leave = asyncio.Event()
        self._leaving: frozenset[str] = frozenset()
        self._deadline = 0.0
        self._stopping = False
        self._listening: dict[str, asyncio.Server] = {}
        self._abort = asyncio.Event()
        self._resuming: asyncio.Task[None] | None = None

    async def run_until_left(self) -> None:
        """uvicorn's own order of things, without its signal handlers: they would end the process by the signal."""
        await self._serve()

    def go(self) -> None:
        """Start to accept."""
        self._go.set()

    def drain(self, timeout: float, leaving: Collection[str], stopping: bool) -> None:
        """Leave. leaving: the listeners whose queue nobody inherits; stopping: the whole gateway goes.

        Told again, it only learns that the whole gateway goes.
        """
        if self._leave.is_set():
            if stopping and not self._stopping:
                self._stopping = True
                self._close_idle()
                for one in self._datagrams:
                    one.hurry()
            return
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._leaving = frozenset(leaving)
        self._stopping = stopping
        self._stop_accepting()  # not a turn of the loop later: what it has ready by now is the successor's
        self._go.set()
        self._leave.set()

    def abort(self) -> None:
        """End at once."""
        self._leave.set()
        self._go.set()
        self._abort.set()

    # uvicorn's three acts.

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(EXIT_BOOT)
        self._ready()
        await self._go.wait()
        for entry in self.entries:
            entry.begin(asyncio.get_running_loop())
        goes = not self._leave.is_set()  # it may be told to leave before it is told to go
        if goes:
            await self._accept(self.entries)
        # Before datagrams come: their sessions would be taken for what there is no room for.
        for admission in {one.admission for one in self.entries} | {one.admission for one in self._datagrams}:
            admission.limit(_descriptors() - len(self._datagrams), self.server_state.connections)  # an epoll for each
            admission.pause, admission.resume = self._pause, self._resume
        if goes:
            for one in self._datagrams:
                await one.start(self._sockets[one.name])
        self.servers = list(self._listening.values())
        self.started = True

    async def _accept(self, entries: Collection[Entry]) -> None:
        loop = asyncio.get_running_loop()
        for entry in entries:
            listening = self._listening.get(entry.name)
            if listening is not None and listening.is_serving():
                continue
            make: Callable[[], asyncio.BaseProtocol] = partial(
                entry.protocol,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                entry=entry,
            )
            if entry.preface is not None:
                make = partial(Preface, entry, entry.preface, self.server_state, make)
            sock = self._sockets[entry.name]
            if sock.family != socket.AF_UNIX:  # accepted connections inherit it
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT)
            self._listening[entry.name] = await loop.create_server(make, sock=sock, backlog=entry.backlog)

    def _pause(self) -> None:
        """Accept nothing for a while: what comes waits in the queues, which the master keeps open too."""
        if self._leave.is_set():
            return
        for name, server in self._listening.items():
            try:
                spare = self._sockets[name].dup()  # the server closes the one it has
            except OSError:
                continue  # not even one descriptor is left: it goes on, for who can't be told from who can
            self._sockets[name] = spare
            server.close()

    def _resume(self) -> None:
        if not self._leave.is_set():
            self._resuming = asyncio.get_running_loop().create_task(self._accept(self.entries))

    async def main_loop(self) -> None:
        await self._leave.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        if any(entry.admission.paused for entry in self.entries):
            await self._accept([entry for entry in self.entries if entry.name in self._leaving])
        self._stop_accepting()
        for entry in self.entries:
            entry.draining = True
            for connection in list(entry.connections):
                connection.drain()
        for one in self._datagrams:
            one.drain(one.name in self._leaving, self._stopping)
        await self._unless_aborted(self._empty_queues())
        self._close_idle()
        while not self._abort.is_set() and self._is_busy():
            left = self._deadline - loop.time()
            if left <= 0:
                break
            await asyncio.sleep(min(left, 0.05))
        for connection in list(self.server_state.connections):
            connection.abort()  # type: ignore[union-attr]
        for one in self._datagrams:
            one.abort()
        for _ in range(_LAST_STEPS):  # tunnels and requests tell their story
            await asyncio.sleep(0)
        for task in list(self.server_state.tasks):
            task.cancel()
        await asyncio.sleep(0)
        await self.lifespan.shutdown()

    def _stop_accepting(self) -> None:
        """Where a successor listens on the same socket."""
        for name, server in self._listening.items():
            if name not in self._leaving:
                server.close()

    def _is_busy(self) -> bool:
        state = self.server_state
        return bool(state.connections or state.tasks) or any(one.busy for one in self._datagrams)

    async def _unless_aborted(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        aborted = asyncio.ensure_future(self._abort.wait())
        await asyncio.wait((task, aborted), return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        aborted.cancel()

    async def _empty_queues(self) -> None:
        """Accept on the sockets that nobody inherits until nothing comes any more, then say so."""
        leaving = [entry for entry in self.entries if entry.name in self._leaving and entry.name in self._listening]
        read = [one for one in self._datagrams if one.name in self._leaving]
        if not leaving and not read:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + _QUIET_MOST
        accepted = -1
        quiet_since = loop.time()
        while loop.time() < end and loop.time() - quiet_since < _QUIET:
            now_accepted = sum(entry.cells[entry.accepted_cell] + entry.prefaces for entry in leaving)
            now_accepted += sum(one.received for one in read)
            if now_accepted != accepted:
                accepted = now_accepted
                quiet_since = loop.time()
            await asyncio.sleep(_QUIET_STEP)
        for entry in leaving:
            self._listening[entry.name].close()
        for one in read:
            one.stop_reading()
        self._left([*(entry.name for entry in leaving), *(one.name for one in read)])

    def _close_idle(self) -> None:
        """Put every connection on the list of those that are closed if they are idle at their time."""
        loop = asyncio.get_running_loop()
        span = max(0.0, self._deadline - loop.time())
        for connection in self.server_state.connections:
            if self._stopping:
                wait = random.uniform(0, min(_CLOSE_AT_STOP, span))
            else:
                wait = random.uniform(_CLOSE_FROM, _CLOSE_TO) * span
            loop.call_later(wait, connection.close_if_idle)  # type: ignore[union-attr]
