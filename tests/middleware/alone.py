"""One layer without a gateway around it: requests go in as bytes, answers come out as they were sent."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from gateway.documents import Documents
from gateway.exchange import Exchange
from gateway.ledger import Ledger
from gateway.metrics.plan import LAYER_REFUSED
from gateway.middleware import MIDDLEWARE
from gateway.middleware.middleware import App, Place
from gateway.refusals import PLAIN
from gateway.scoreboard import Scoreboard
from gateway.truth import Truth
from gateway.upstream.clients import Clients
from gateway.wheel import Wheel
from gateway.wire import RequestHead, read_request
from tests.listeners.site import get

_AT = 8  # where the cells of a layer begin


@dataclass(slots=True)
class Told:
    """What was sent in answer to a request."""

    exchange: Exchange
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def fields(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join([message.get("body", b"") for message in self.messages[1:]])


class Alone:
    """layers: outermost first, as a configuration has them."""

    def __init__(self, app: App, *layers: dict[str, Any], ledger: Ledger | None = None, identity: str = "app") -> None:
        self.ledger = ledger or Ledger.create()
        self.cells = memoryview(array("Q", bytes(8 * 64 * len(layers)))).cast("B").cast("Q")
        self.layers: list[Any] = []
        self.app = app
        for number, layer in reversed([*enumerate(layers)]):
            kind = MIDDLEWARE[layer["kind"]]
            place = self._place(f"{identity}/{number}", layer.get("name") or layer["kind"], 64 * number + _AT)
            self.app = kind(self.app, kind.OPTIONS.model_validate(layer), place)
            self.layers.insert(0, self.app)

    def _place(self, identity: str, name: str, at: int) -> Place:
        def later(seconds: float, callback: Callable[[], None]) -> object:
            return asyncio.get_running_loop().call_later(seconds, callback)

        wheel = Wheel(later, lambda: asyncio.get_running_loop().time())
        return Place(
            identity=identity,
            route="app",
            layer=name,
            cells=self.cells,
            at=at,
            truth=Truth(_board()),
            ledger=self.ledger,
            wheel=wheel,
            clients=Clients(wheel, self.cells),
            documents=Documents(),
            plugin=lambda name: None,
        )

    def refused(self, layer: int = 0) -> int:
        """How many requests a layer has counted as refused."""
        return self.counted(LAYER_REFUSED, layer)

    def counted(self, cell: int, layer: int = 0) -> int:
        return int(self.cells[64 * layer + _AT + cell])

    async def ask(self, data: bytes = b"", client: str = "192.0.2.1", body: Iterable[bytes] = (), **facts: Any) -> Told:
        """data: a request, or the fields of a GET. facts: what outer layers have found out."""
        if not data.endswith(b"\r\n\r\n"):
            data = get(fields=data)
        found = read_request(data)
        assert found is not None
        head: RequestHead = found[0]
        exchange: Any = _Exchange(SimpleNamespace(style=PLAIN), client, 0.0)
        exchange.head, exchange.method, exchange.target = head, head.method, head.target
        exchange.host = head.special[b"host"]
        exchange.route = SimpleNamespace(name="app", style=None)
        for name, value in facts.items():
            setattr(exchange, name, value)
        told = Told(exchange)
        pieces = [*body] or [b""]

        async def receive() -> dict[str, Any]:
            if not pieces:
                await asyncio.get_running_loop().create_future()
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: dict[str, Any]) -> None:
            exchange.begun = True
            told.messages.append(message)

        await self.app({"type": "http", "gateway": exchange, "headers": head}, receive, send)
        return told


class _Exchange(Exchange):
    __slots__ = ("head",)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


_boards: list[Scoreboard] = []


def _board() -> Scoreboard:
    if not _boards:
        _boards.append(Scoreboard.create())
    return _boards[0]
