"""A worker's listeners of streams in the test's own event loop, in front of real endpoints, between real sockets."""

from __future__ import annotations

import asyncio
from functools import partial
from types import TracebackType
from typing import Any

from gateway.config.model import Config
from gateway.middleware import KINDS
from gateway.proxy_protocol import Header
from gateway.scoreboard import Condition, Fact
from gateway.session import Session
from gateway.upstream.upstream import Upstream
from gateway.worker.assembly import Common
from tests.listeners.site import Served
from tests.upstream.peer import Origin


class Streams(Served):
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
        """origins: the endpoints of the upstream "app". others: upstreams beside it. routes: `tcp_routes`. told: a
        PROXY header. egress: that of the listener. own: where the gateway is said to listen."""
        endpoints = [origin if isinstance(origin, str) else origin.address for origin in origins]
        config = Config.model_validate(
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
        super().__init__(config, send_buffer)
        self._told = told
        self._own = own
        self._host = host
        self.told: asyncio.Queue[Session] = asyncio.Queue()

    async def __aenter__(self) -> Streams:
        made = self._assembled(Common(own=self._own), lambda exchange: None, self.told.put_nowait)
        [self.entry] = made.entries
        self.entry.begin(asyncio.get_running_loop())
        more: dict[str, Any] = {} if self._told is None else {"told": self._told}
        make = partial(
            self.entry.protocol, config=None, server_state=self.state, app_state={}, entry=self.entry, **more
        )
        await self._listen(make, self._host)
        return self

    def upstream(self, name: str = "app") -> Upstream:
        return self._upstreams[name]

    def condition(self, origin: Origin | str, upstream: str = "app") -> Condition:
        """How an endpoint fares."""
        address = origin if isinstance(origin, str) else origin.address
        [one] = [one for one in self._upstreams[upstream].endpoints if one.name == address]
        return one.health.condition

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
        await self._close(kind is not None)
        for upstream in self._upstreams.values():
            upstream.close()
        self._common.ledger.close()
        self._board.close()

    def _has_nothing_left(self) -> None:
        super()._has_nothing_left()
        assert self.told.empty(), "a connection of which the test has not asked how it ended"
        assert self.cells[Fact.UPSTREAM_OPEN] == 0
