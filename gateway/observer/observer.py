"""The observer's life: boot, say ready, wait for go, answer, leave. uvicorn as it is: nothing here is hot."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from time import monotonic_ns
from typing import Any, NoReturn

import uvicorn
import uvloop

from gateway import child
from gateway.child import Birth
from gateway.observer.admin import admin_app
from gateway.observer.fetches import Fetches
from gateway.observer.lookups import Lookups
from gateway.observer.probe import Probes
from gateway.scoreboard import Fact, State
from gateway.truth import Truth
from gateway.upstream.clients import Clients
from gateway.wheel import Wheel

log = logging.getLogger("gateway")

_BEAT = 0.5  # seconds, as the workers'
_LEAVE = 2  # seconds for an answer under way when it is told to go
_ASK = 0.5  # and for whoever has connected to ask something
# Seconds that a new generation waits for endpoints to be looked up and documents to be fetched, and the part of its
# boot_timeout.
_LOOK_UP = 2.0
_OF_BOOT = 0.45


def run_observer(birth: Birth) -> NoReturn:
    """The child's whole life."""

    def live() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_live(birth))

    child.spend(birth, live)


async def _live(birth: Birth) -> None:
    loop = asyncio.get_running_loop()
    truth = Truth(birth.board)
    config = uvicorn.Config(
        admin_app(birth.board, birth.plan, truth, birth.config, birth.findings, birth.documents, birth.ledger),
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_LEAVE,
    )
    server = _Server(config)
    go = asyncio.Event()
    wheel = Wheel(loop.call_later, loop.time)
    leaving = asyncio.Event()
    probes = Probes(birth.config, birth.plan, truth, birth.cells, wheel, birth.findings)
    lookups = Lookups(birth.config, birth.findings, birth.channel)
    fetches = Fetches(birth.documents, Clients(wheel, birth.cells), birth.channel)

    def leave() -> None:
        leaving.set()
        probes.stop()
        lookups.stop()
        fetches.stop()
        child.show(birth, State.DRAINING)
        server.should_exit = True
        go.set()

    def listen_to_master() -> None:
        while True:
            try:
                message, fds = child.hear(birth.channel)
            except BlockingIOError:
                return
            if message is None:
                loop.remove_reader(birth.channel)
                leave()
                return
            match message["do"]:
                case "go":
                    child.show(birth, State.READY)
                    go.set()
                case "drain":
                    leave()
                case "endpoints":
                    for name in child.learn(birth, message):
                        probes.renew(name)
                case "refresh":
                    fetches.asked(message["url"])
                case "reopen":
                    birth.files.replace(fds)

    def beat() -> None:
        birth.cells[Fact.BEAT] = monotonic_ns()
        loop.call_later(_BEAT, beat)

    for number in (signal.SIGTERM, signal.SIGQUIT):
        loop.add_signal_handler(number, leave)
    birth.channel.setblocking(False)
    loop.add_reader(birth.channel, listen_to_master)
    beat()
    within = min(_LOOK_UP, _OF_BOOT * birth.config.process.boot_timeout)
    await asyncio.gather(lookups.start(within), fetches.start(within))
    child.tell(birth.channel, {"say": "ready"})
    await go.wait()
    if leaving.is_set():
        return
    probes.start()
    if birth.sockets:
        await server._serve(list(birth.sockets.values()))
    else:  # there is no admin listener
        await leaving.wait()


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn closes every connection on which nothing is under way, those too which have just come and on which
        the request is about to. A successor accepts from the same sockets by now, so they are the last."""
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + _ASK
        while loop.time() < end and any(map(_has_asked_nothing, self.server_state.connections)):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def _has_asked_nothing(connection: Any) -> bool:
    return connection.cycle is None
