"""A worker's UDP listener in the test's own event loop, between real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from gateway.config.model import Config
from gateway.ledger import Ledger
from gateway.listeners.udp import Sessions
from gateway.master.sockets import Listening
from gateway.metrics.plan import (
    DATAGRAMS_REFUSED,
    DATAGRAMS_TOO_LONG,
    DATAGRAMS_UNSENT,
    LISTENER_OPEN,
    TUNNELS_OPEN,
    UPSTREAM_OPEN,
    Plan,
)
from gateway.middleware import KINDS
from gateway.scoreboard import Fact, Scoreboard
from gateway.session import Session
from gateway.upstream.upstream import Upstream
from gateway.worker.assembly import Common, assemble, running_wheel

HOST = "127.0.0.1"


class Client:
    """A socket of a client, on a port of its own. A context manager."""

    def __init__(self, family: int = socket.AF_INET, host: str = HOST) -> None:
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((host, 0))

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

    def send(self, data: bytes, to: Any) -> None:
        self.sock.sendto(data, to)

    async def read(self) -> tuple[bytes, Any]:
        """The next datagram, and from where."""
        while True:
            try:
                return self.sock.recvfrom(65535)
            except BlockingIOError:
                await asyncio.sleep(0.001)

    async def ask(self, data: bytes, to: Any) -> bytes:
        """Send this and wait for an answer from there."""
        self.send(data, to)
        answer, source = await self.read()
        assert source[:2] == to[:2]
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, at: object) -> None:
        self.sock.close()


class Endpoint(Client):
    """A server that answers only when it is told to."""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    async def answer(self, data: bytes | None = None, times: int = 1) -> bytes:
        """Answer the next datagram with itself, or with these; the datagram."""
        asked, client = await self.read()
        for _ in range(times):
            self.send(asked if data is None else data, client)
        return asked


class Board:
    """What the workers of a gateway share."""

    def __init__(self) -> None:
        self.board = Scoreboard.create()
        self.ledger = Ledger.create()
        self.seats = 0

    def close(self) -> None:
        self.ledger.close()
        self.board.close()


class DatagramSite:
    """One worker. An async context manager: on leaving it must have nothing left over. board, sock: of another site,
    whose sibling or successor this one is."""

    def __init__(
        self,
        *endpoints: Endpoint | str,
        listener: Mapping[str, Any] | None = None,
        upstream: Mapping[str, Any] | None = None,
        listen: str = f"{HOST}:0",
        board: Board | None = None,
        sock: socket.socket | None = None,
    ) -> None:
        self.config = Config.model_validate(
            {
                "listeners": [{"name": "udp", "kind": "udp", "listen": listen, "upstream": "app", **(listener or {})}],
                "upstreams": {
                    "app": {
                        "endpoints": [one if isinstance(one, str) else one.address for one in endpoints],
                        **(upstream or {}),
                    }
                },
            },
            context=KINDS,
        )
        self._own = board is None
        self.shared = board or Board()
        self.sock = sock
        self.ended: asyncio.Queue[Session] = asyncio.Queue()

    async def __aenter__(self) -> DatagramSite:
        self.plan = Plan()
        self.plan.cover(self.config)
        self.shared.seats += 1
        self.cells = self.shared.board.take(self.shared.seats, [])
        made = assemble(
            self.config,
            self.plan,
            self.shared.board,
            self.cells,
            running_wheel(),
            lambda exchange: None,
            common=Common(ledger=self.shared.ledger),
            ended=self.ended.put_nowait,
        )
        self.upstream: Upstream = made.upstreams["app"]
        [one] = made.datagrams
        assert isinstance(one, Sessions)
        self.sessions = one
        if self.sock is None:
            listening = Listening.open(self.config.listeners[0].listen, 0, datagrams=True)
            self.sock = listening.socket(0)
            self._listening = listening
        await self.sessions.start(self.sock)
        return self

    @property
    def address(self) -> tuple[str, int]:
        assert self.sock is not None
        return HOST, int(self.sock.getsockname()[1])

    def counted(self, offset: int) -> int:
        return int(self.cells[self.plan.block("datagrams", "udp") + offset])

    @property
    def refused(self) -> int:
        return self.counted(DATAGRAMS_REFUSED)

    @property
    def unsent(self) -> int:
        return self.counted(DATAGRAMS_UNSENT)

    @property
    def too_long(self) -> int:
        return self.counted(DATAGRAMS_TOO_LONG)

    @property
    def overflowed(self) -> int:
        self.sessions.count()
        return int(self.cells[self.plan.block("overflow", "udp")])

    @property
    def open(self) -> int:
        return int(self.cells[self.plan.block("tunnels", "udp") + TUNNELS_OPEN])

    async def over(self) -> Session:
        """The next session that is over."""
        return await self.ended.get()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.sessions.abort()
        if hasattr(self, "_listening"):
            self._listening.close()
        if kind is None:
            assert self.open == self.cells[Fact.UPSTREAM_OPEN] == 0
            assert self.cells[self.plan.block("listener", "udp") + LISTENER_OPEN] == 0
            for endpoint in self.upstream.endpoints:
                assert endpoint.in_flight == self.cells[endpoint.cells + UPSTREAM_OPEN] == 0
        self.upstream.close()
        if self._own:
            self.shared.close()
