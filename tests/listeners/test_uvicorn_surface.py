"""The private surface of uvicorn that `listeners/http.py` stands on. When this fails, read that file first."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
from typing import Any

import pytest
import uvicorn
from uvicorn.server import Server, ServerState

import gateway.listeners.http as door
from gateway.listeners.http1 import Http1Connection


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def config(**more: Any) -> uvicorn.Config:
    settings: dict[str, Any] = {
        "http": Http1Connection,
        "ws": "none",
        "lifespan": "on",
        "loop": "none",
        "interface": "asgi3",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
    }
    return uvicorn.Config(_app, **(settings | more))


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Notes the lifespan's messages, and answers them."""
    while True:
        message = await receive()
        scope["state"].setdefault("heard", []).append(message["type"])
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def test_the_three_acts_have_their_names_and_arguments() -> None:
    assert parameters(Server._serve) == ["self", "sockets"]
    assert parameters(Server.startup) == ["self", "sockets"]
    assert parameters(Server.main_loop) == ["self"]
    assert parameters(Server.shutdown) == ["self", "sockets"]
    for act in (Server._serve, Server.startup, Server.main_loop, Server.shutdown):
        assert inspect.iscoroutinefunction(act)


def test_our_acts_replace_just_these() -> None:
    for name in ("startup", "main_loop", "shutdown"):
        assert parameters(getattr(door.Door, name)) == parameters(getattr(Server, name))
    assert "_serve" not in vars(door.Door)


def test_serve_plays_the_acts_in_order_and_touches_no_signal() -> None:
    played: list[str] = []
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]

    class Played(Server):
        async def startup(self, sockets: Any = None) -> None:
            played.append("startup")
            assert [signal.getsignal(number) for number in numbers] == before
            await self.lifespan.startup()
            self.servers: list[asyncio.Server] = []
            self.started = True

        async def main_loop(self) -> None:
            played.append("main_loop")

        async def shutdown(self, sockets: Any = None) -> None:
            played.append("shutdown")
            await self.lifespan.shutdown()

    server = Played(config())
    asyncio.run(server._serve())
    assert played == ["startup", "main_loop", "shutdown"]
    assert [signal.getsignal(number) for number in numbers] == before
    assert server.lifespan.state["heard"] == ["lifespan.startup", "lifespan.shutdown"]
    assert not server.lifespan.should_exit


def test_a_failing_start_is_seen() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("cannot start")

    class Seen(Server):
        async def startup(self, sockets: Any = None) -> None:
            await self.lifespan.startup()
            assert self.lifespan.should_exit
            raise SystemExit(3)

    settings = config()
    settings.app = broken
    with pytest.raises(SystemExit):
        asyncio.run(Seen(settings)._serve())


def test_the_state_that_connections_share() -> None:
    state = Server(config()).server_state
    assert type(state) is ServerState
    assert state.connections == set() and state.tasks == set() and state.total_requests == 0


def test_our_protocol_class_is_taken_as_it_is() -> None:
    settings = config()
    settings.load()
    assert settings.http_protocol_class is Http1Connection
    assert settings.ws_protocol_class is None
    assert parameters(Http1Connection.__init__)[1:4] == ["config", "server_state", "app_state"]
    for name in ("shutdown", "connection_made", "data_received", "eof_received", "connection_lost"):
        assert callable(getattr(Http1Connection, name))


def test_making_a_configuration_puts_nothing_into_logging() -> None:
    before = [*logging.getLogger("uvicorn").handlers]
    config()
    assert logging.getLogger("uvicorn").handlers == before
    assert logging.getLogger("uvicorn.error").handlers == []
    assert logging.getLogger("uvicorn.access").handlers == []
