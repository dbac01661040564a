"""A worker's listeners of streams in the test's own event loop, in front of real endpoints, between real sockets."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from types import TracebackType
from typing import Any

from uvicorn.server import ServerState

from gateway.config.model import Config
from gateway.listeners.listener import Entry
from gateway.metrics.plan import Plan
from gateway.middleware import KINDS
from gateway.proxy_protocol import Header
from gateway.scoreboard import Condition, Fact, Scoreboard
from gateway.session import Session
from gateway.upstream.upstream import Upstream
from gateway.worker.assembly import Common, assemble, running_wheel
from tests.listeners.site import until
from tests.upstream.peer import Origin, Peer, dial


class Streams:
    """One listener of kind "tcp", unless it is told otherwise. An async context manager: on leaving it must have
    nothing left over."""

    def __init__(
        self,
        *origins: Origin | str,
        upstream: dict[str, Any] | None = None,
        others: dict[str, dict[str, Any]] | None = None,
        routes: list[dict[str, Any]] | None = None,
        send_buffer: int = 0,
        told: Header | None = None,
        host: str = "127.0.0.1",
        egress: dict[str, Any] | None = None,
        own: tuple[str, ...] = (),
        **listener: Any,
    ) -> None:
        """origins: the endpoints of the upstream "app". others: upstreams beside it. routes: `tcp_routes`. send_buffer:
        bytes the kernel holds for each client, 0 for its own choice. told: a PROXY header. egress: that
        of the listener. own: where the gateway is said to listen."""
        endpoints = [origin if isinstance(origin, str) else origin.address for origin in origins]
        self.config = Config.model_validate(
            {
                "listeners": [
                    {
                        "name": "streams",
                        "kind": "tcp",
                        "listen": "127.0.0.1:0",
                        **({"upstream": "app"} if endpoints else {}),
                        **({"egress": "lan"} if egress is not None else {}),
                        **listener,
                    }
                ],
                "upstreams": {
                    **({"app": {"endpoints": endpoints, **(upstream or {})}} if endpoints else {}),
                    **(others or {}),
                },
                "tcp_routes": routes or [],
                "egress": {"lan": egress} if egress is not None else {},
            },
            context=KINDS,
        )
        self._send_buffer = send_buffer
        self._told = told
        self._own = own
        self._host = host
        self.told: asyncio.Queue[Session] = asyncio.Queue()
        self.state = ServerState()
        self._board = Scoreboard.create()
        self.cells = self._board.take(1, [])
        self.entry: Entry
        self._clients: list[Peer] = []

    async def __aenter__(self) -> Streams:
        self.plan = plan = Plan()
        plan.cover(self.config)
        self._common = common = Common(own=self._own)
        made = assemble(
            self.config,
            plan,
            self._board,
            self.cells,
            running_wheel(),
            lambda exchange: None,
            common=common,
            ended=self.told.put_nowait,
        )
        self._upstreams = made.upstreams
        [self.entry] = made.entries
        self.entry.begin(asyncio.get_running_loop())
        more: dict[str, Any] = {} if self._told is None else {"told": self._told}
        make = partial(
            self.entry.protocol, config=None, server_state=self.state, app_state={}, entry=self.entry, **more
        )
        sock = socket.create_server((self._host, 0), family=socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        if self._send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        self.port = sock.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(make, sock=sock)
        return self

    def upstream(self, name: str = "app") -> Upstream:
        return self._upstreams[name]

    def condition(self, origin: Origin | str, upstream: str = "app") -> Condition:
        """How an endpoint fares."""
        address = origin if isinstance(origin, str) else origin.address
        [one] = [one for one in self._upstreams[upstream].endpoints if one.name == address]
        return one.health.condition

    async def client(self, data: bytes = b"", **more: int) -> Peer:
        """A connection that has sent this."""
        peer = await dial(self.port, **more)
        self._clients.append(peer)
        if data:
            await peer.send(data)
        return peer

    async def session(self) -> Session:
        """The next connection that is over, as the access log hears of it."""
        return await self.told.get()

    def drain(self) -> None:
        """As the door does when the worker leaves."""
        self.entry.draining = True
        for connection in list(self.entry.connections):
            connection.drain()

    def abort(self) -> None:
        """As the door does at the end of the drain."""
        for connection in list(self.state.connections):
            connection.abort()  # type: ignore[union-attr]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        for client in self._clients:
            client.writer.transport.abort()
        if kind is None:
            await until(lambda: not self.state.connections and not self.state.tasks)
            self._has_nothing_left()
        for upstream in self._upstreams.values():
            upstream.close()
        self._common.ledger.close()
        self._board.close()

    def _has_nothing_left(self) -> None:
        assert not self.entry.connections
        assert self.told.empty(), "a connection of which the test has not asked how it ended"
        assert self.cells[Fact.UPSTREAM_OPEN] == 0
        for upstream in self._upstreams.values():
            for endpoint in upstream.endpoints:
                assert endpoint.in_flight == 0
        for gauge in self.plan.gauges():
            assert self.cells[gauge] == 0
