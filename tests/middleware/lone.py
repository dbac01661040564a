"""A single layer around a scripted application, without a listener: one request at a time, and what becomes of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gateway.config.layers import LayerOptions
from gateway.middleware.middleware import Middleware, Place
from gateway.refusals import PLAIN
from gateway.wire import RequestHead, read_request


class Asked:
    """A request that went through. status: 200 when the application got it. target, fields: as it got them."""

    def __init__(self, exchange: Any, head: RequestHead, sent: list[dict[str, Any]], passed: bool) -> None:
        self.exchange = exchange
        self.passed = passed
        self.target = head.target
        self.lines = head.lines
        self.fields = head.pairs()
        self.status = sent[0]["status"]
        self.reason = exchange.reason
        self.answer = dict(sent[0]["headers"])

    @property
    def challenge(self) -> str:
        return str(self.answer.get(b"www-authenticate", b"").decode())

    def values(self, name: bytes) -> list[bytes]:
        """What the application is told in fields of this name."""
        return [value for known, value in self.fields if known == name]


class Lone:
    """A layer that stands alone. documents: of `gateway.documents`, or what plays them."""

    def __init__(self, kind: type[Middleware], documents: Any = None, **options: Any) -> None:
        made: LayerOptions = kind.OPTIONS.model_validate(options)
        self.cells = [0] * 8
        place: Any = Place(
            identity="all/x",
            route="*",
            layer="x",
            cells=self.cells,  # type: ignore[arg-type]
            at=0,
            truth=None,  # type: ignore[arg-type]
            ledger=None,  # type: ignore[arg-type]
            wheel=None,  # type: ignore[arg-type]
            clients=None,  # type: ignore[arg-type]
            documents=documents,
            plugin=lambda name: None,
        )
        self._passed = False
        self.layer = kind(self._app, made, place)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self._passed = True
        scope["gateway"].begun = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(self, *lines: bytes, target: bytes = b"/") -> Asked:
        """lines: fields, as they stand in a request."""
        head = head_of(*lines, target=target)
        exchange = exchange_of(head)
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        self._passed = False
        scope = {"type": "http", "gateway": exchange, "headers": head}
        await self.layer(scope, receive, send)
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        return Asked(exchange, head, sent, sent[0]["status"] == 200)


def head_of(*lines: bytes, target: bytes = b"/") -> RequestHead:
    fields = b"".join(b"%b\r\n" % line for line in lines)
    found = read_request(b"GET %b HTTP/1.1\r\nhost: a\r\n%b\r\n" % (target, fields))
    assert found is not None
    return found[0]


def exchange_of(head: RequestHead) -> Any:
    return SimpleNamespace(
        head=head,
        target=head.target,
        user="",
        claims=None,
        begun=False,
        reason="",
        request_id="",
        route=None,
        listener=SimpleNamespace(style=PLAIN),
    )
