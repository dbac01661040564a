"""The observer's life: boot, say ready, wait for go, answer, leave. uvicorn as it is: nothing here is hot."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from time import monotonic_ns

import uvicorn
import uvloop

from gateway import child
from gateway.child import EXIT_BOOT, Birth
from gateway.errors import GatewayError
from gateway.observer.admin import admin_app
from gateway.scoreboard import Fact, State

log = logging.getLogger("gateway")

_BEAT = 0.5  # seconds, as the workers'
_LEAVE = 2  # seconds for an answer under way when it is told to go


def run_observer(birth: Birth) -> None:
    """The child's whole life. Never returns."""
    code = EXIT_BOOT
    try:
        child.begin(birth)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_live(birth))
        code = 0
    except GatewayError as error:
        child.tell(birth.channel, {"say": "failed", "why": str(error)})
    except BaseException as error:
        log.exception("the observer broke")
        child.tell(birth.channel, {"say": "failed", "why": f"{type(error).__name__}: {error}"})
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _live(birth: Birth) -> None:
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(
        admin_app(birth.board, birth.plan),
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_LEAVE,
    )
    server = uvicorn.Server(config)
    go = asyncio.Event()

    def leave() -> None:
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
    child.tell(birth.channel, {"say": "ready"})
    await go.wait()
    if not server.should_exit:
        await server._serve(list(birth.sockets.values()))
