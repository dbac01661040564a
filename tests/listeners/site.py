"""A worker's whole data path in the test's own event loop: listener, router, proxy and pools, between real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import partial
from types import TracebackType
from typing import Any

from uvicorn.server import ServerState

from gateway.config.model import Config
from gateway.exchange import Exchange
from gateway.listeners.http1 import Http1Connection
from gateway.listeners.listener import Entry, HttpEntry
from gateway.listeners.preface import Preface
from gateway.metrics.endpoints import drain
from gateway.metrics.plan import UPSTREAM_OPEN, Plan
from gateway.middleware import KINDS
from gateway.scoreboard import Condition, Fact, Scoreboard
from gateway.session import Session
from gateway.truth import Truth
from gateway.upstream.upstream import Upstream
from gateway.worker.assembly import Assembled, Common, assemble, pseudonym, running_wheel
from gateway.worker.plugins import Plugins
from tests.upstream.peer import Message, Origin, Peer, dial

# Long where a test does not say otherwise, so that a busy machine changes nothing.
_LONG = {"head": "60s", "body_idle": "60s", "keep_alive": "60s", "write_idle": "60s"}


class Served:
    """One listener of a configuration, on a socket of its own, and its clients. send_buffer: bytes the kernel holds for
    each of them, 0 for its own choice."""

    entry: Entry

    def __init__(self, config: Config, send_buffer: int) -> None:
        self.config = config
        self.plan = Plan()
        self.plan.cover(config)
        self.state = ServerState()
        self._board = Scoreboard.create()
        self.cells = self._board.take(1, [])
        self._send_buffer = send_buffer
        self._clients: list[Peer] = []

    def _assembled(
        self,
        common: Common,
        finished: Callable[[Exchange], None],
        ended: Callable[[Session], None] = lambda session: None,
    ) -> Assembled:
        self._common = common
        made = assemble(
            self.config, self.plan, self._board, self.cells, running_wheel(), finished, common=common, ended=ended
        )
        self._upstreams = made.upstreams
        return made

    async def _listen(self, make: Callable[..., asyncio.BaseProtocol], host: str = "127.0.0.1") -> None:
        sock = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        if self._send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        self.port = sock.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(make, sock=sock)

    async def client(self, data: bytes = b"", **more: int) -> Peer:
        """A connection that has sent this."""
        peer = await dial(self.port, **more)
        self._clients.append(peer)
        if data:
            await peer.send(data)
        return peer

    async def _close(self, has_failed: bool) -> None:
        """Nobody is served any more. has_failed: the test; otherwise nothing may be left over."""
        self._server.close()
        for client in self._clients:
            client.writer.transport.abort()
        if not has_failed:
            await until(lambda: not self.state.connections and not self.state.tasks)
            self._has_nothing_left()

    def _has_nothing_left(self) -> None:
        assert not self.entry.connections
        assert self.cells[self.entry.open_cell] == 0
        for upstream in self._upstreams.values():
            for endpoint in upstream.endpoints:
                assert endpoint.in_flight == 0
        kept = self._kept()
        for gauge in self.plan.gauges():
            assert self.cells[gauge] == 0 or gauge in kept

    def _kept(self) -> set[int]:
        """Gauges that need not be 0."""
        return set()


class Site(Served):
    """A gateway in front of origins. An async context manager: on leaving it must have nothing left over."""

    entry: HttpEntry

    def __init__(
        self,
        *origins: Origin | str,
        limits: dict[str, Any] | None = None,
        timeouts: dict[str, str] | None = None,
        upstream: dict[str, Any] | None = None,
        others: dict[str, dict[str, Any]] | None = None,
        routes: list[dict[str, Any]] | None = None,
        middleware: list[dict[str, Any]] | None = None,
        sets: dict[str, Any] | None = None,
        trusted_proxies: list[str] | None = None,
        proxy_protocol: dict[str, Any] | None = None,
        python_path: Sequence[str] = (),
        listener: dict[str, Any] | None = None,
        egress: dict[str, Any] | None = None,
        send_buffer: int = 0,
    ) -> None:
        """others: upstreams beside that of the origins, which is "app". middleware: around all routes. sets: of
        layers. python_path: where plug-ins are. listener: further keys of it, perhaps of another kind. egress: that
        which is called "lan"."""
        endpoints = [origin if isinstance(origin, str) else origin.address for origin in origins]
        config = Config.model_validate(
            {
                "listeners": [
                    {
                        "name": "web",
                        "listen": "127.0.0.1:0",
                        "limits": limits or {},
                        "timeouts": _LONG | (timeouts or {}),
                        **({"trusted_proxies": trusted_proxies} if trusted_proxies is not None else {}),
                        "proxy_protocol": proxy_protocol or {},
                        **(listener or {}),
                    }
                ],
                "egress": {"lan": egress} if egress is not None else {},
                "upstreams": {
                    **({"app": {"endpoints": endpoints, **(upstream or {})}} if endpoints else {}),
                    **(others or {}),
                },
                "middleware": middleware or [],
                "middleware_sets": sets or {},
                "routes": routes if routes is not None else [{"name": "app", "upstream": "app"}] if endpoints else [],
            },
            context=KINDS,
        )
        super().__init__(config, send_buffer)
        self._python_path = python_path
        self.told: asyncio.Queue[Exchange] = asyncio.Queue()

    async def __aenter__(self) -> Site:
        made = self._assembled(Common(plugin=Plugins(self._python_path)), self.told.put_nowait)
        made.clock.date = formatdate(usegmt=True).encode()
        self._lifespan = made.app.router.lifespan_context(made.app)
        await self._lifespan.__aenter__()
        [self.entry] = made.http_entries
        self.entry.begin(asyncio.get_running_loop())
        make: Callable[..., asyncio.BaseProtocol] = partial(
            Http1Connection, config=None, server_state=self.state, app_state={}, entry=self.entry
        )
        if self.entry.preface is not None:
            make = partial(Preface, self.entry, self.entry.preface, self.state, make)
        self.make = make
        await self._listen(make)
        return self

    @property
    def upstream(self) -> Upstream:
        return self._upstreams["app"]

    def drain(self, endpoint: str, upstream: str = "app") -> None:
        assert drain(Truth(self._board), self.plan, upstream, endpoint, True)

    def other(self, name: str) -> Upstream:
        return self._upstreams[name]

    @property
    def via(self) -> bytes:
        """The gateway's name in Via."""
        return pseudonym(self.config.process.control)

    @property
    def well(self) -> bool:
        """Whether no endpoint was blamed for anything."""
        return all(endpoint.health.condition is Condition.UP for endpoint in self.upstream.endpoints)

    async def ask(self, data: bytes) -> Message:
        """One request on a connection of its own, and its response."""
        peer = await self.client(data)
        return await peer.response(data.partition(b" ")[0])

    async def exchange(self) -> Exchange:
        """The next exchange that is over, as the access log hears of it."""
        return await self.told.get()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._close(kind is not None)
        await self._lifespan.__aexit__(None, None, None)
        await until(lambda: not self.cells[Fact.UPSTREAM_OPEN])
        self._common.ledger.close()
        self._board.close()

    def group(self, cell: int, upstream: str = "app") -> int:
        """What an upstream as a whole has counted."""
        return int(self.cells[self.plan.block("group", upstream) + cell])

    def _kept(self) -> set[int]:
        """Connections that are kept stay open for a while."""
        return {at + UPSTREAM_OPEN for at in self.plan.blocks["upstream"].values()}


async def until(look: Callable[[], object]) -> None:
    """Let the loop turn until this is true; the test's own patience is the limit."""
    while not look():  # noqa: ASYNC110 (what is looked at tells nobody when it changes)
        await asyncio.sleep(0.001)


def get(target: bytes = b"/", fields: bytes = b"", method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nhost: example.com\r\n%b\r\n" % (method, target, fields)


def post(body: bytes, target: bytes = b"/", fields: bytes = b"") -> bytes:
    return get(target, b"content-length: %d\r\n%b" % (len(body), fields), b"POST") + body


def chunked(*pieces: bytes) -> bytes:
    """A whole chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
