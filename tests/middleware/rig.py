"""Layers, an application inside that answers as told, and all that leaves: no socket, no process.

One layer, to which requests go as they are written:

inner = Inner(b"hello", fields=b"etag: \"1\"")
answer = await ask(layer(Kind, inner, allow=["10.0.0.0/8"]), get(b"/x"), client="10.0.0.1")
assert answer.status == 200 and inner.asked[0].head.target == b"/x"

Several layers, or one that is asked time and again, and what they count:

layers = Layers(hello, {"kind": "rate_limit", "rate": "1/h"}, {"kind": "body_limit"})
answer = await layers.ask(b"x-tenant: a")
assert answer.passed and layers.refused() == 0
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

from gateway.documents import Documents
from gateway.exchange import Exchange
from gateway.ledger import Ledger
from gateway.metrics.plan import LAYER_REFUSED
from gateway.middleware import MIDDLEWARE
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.refusals import PLAIN
from gateway.wire import RequestHead, read_request, read_response
from tests.listeners.site import get
from tests.middleware.surroundings import Surroundings

Pairs = Sequence[tuple[bytes, bytes]]


class Asked:
    """What the application inside was asked. scope, head: as it got them, so also what it did to them later."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.head: RequestHead = scope["headers"]
        self.pieces: list[bytes] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def all(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.head.pairs() if known == name]


class Inner:
    """An application that reads the whole request and answers as told."""

    def __init__(
        self,
        *pieces: bytes,
        status: int = 200,
        fields: bytes | Pairs = b"",
        length: bool = False,
        trailers: Pairs | None = None,
        interim: int = 0,
        before: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """pieces: the body, a message for each. fields: lines, CRLF between them, as an endpoint has sent them; or
        pairs, as an application has. length: whether content-length is said. interim: a 1xx that goes first. before:
        awaited before each piece, with its number."""
        self.asked: list[Asked] = []
        self._pieces = pieces
        self._status = status
        self._fields = fields
        self._length = length
        self._trailers = trailers
        self._interim = interim
        self._before = before

    @property
    def was_asked(self) -> bool:
        return bool(self.asked)

    def _headers(self, method: str) -> Any:
        size = sum(map(len, self._pieces))
        if not isinstance(self._fields, bytes):
            own = [(b"content-length", b"%d" % size)] if self._length else []
            return [*self._fields, *own]
        framing = b"content-length: %d" % size if self._length else b"transfer-encoding: chunked"
        lines = [line for line in (self._fields, framing) if line]
        data = b"HTTP/1.1 %d Fine\r\n%b\r\n\r\n" % (self._status, b"\r\n".join(lines))
        found = read_response(data, method == "HEAD")
        assert found is not None
        return found[0]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Asked(scope)
        self.asked.append(asked)
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            asked.pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        scope["gateway"].begun = True
        if self._interim:
            await send({"type": "http.response.interim", "status": self._interim, "headers": []})
        start = {"type": "http.response.start", "status": self._status, "headers": self._headers(scope["method"])}
        if self._trailers is not None:
            start["trailers"] = True
        await send(start)
        if self._status == 101:
            return
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        last = len(self._pieces) - 1
        for number, piece in enumerate(self._pieces):
            if self._before is not None:
                await self._before(number)
            await send({"type": "http.response.body", "body": piece, "more_body": number < last})
        if last < 0:
            await send({"type": "http.response.body", "body": b""})
        if self._trailers is not None:
            await send({"type": "http.response.trailers", "headers": list(self._trailers), "more_trailers": False})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """The shortest application."""
    scope["gateway"].begun = True
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Asking(Exchange):
    """An exchange as a listener makes it. passed: `Layers` let it through to the application."""

    head: RequestHead
    scheme = "http"
    answered = complete = gone = passed = vouched = False
    cut_by = ""

    def cut(self, reason: str) -> None:
        self.reason = self.cut_by = reason


class Answer:
    """What left. messages: as they were sent."""

    def __init__(self, exchange: Asking) -> None:
        self.exchange = exchange
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == f"http.response.{kind}"]

    @property
    def start(self) -> Message:
        [start] = self.of("start")
        return start

    @property
    def status(self) -> int:
        return int(self.start["status"])

    @property
    def reason(self) -> str:
        return self.exchange.reason

    @property
    def passed(self) -> bool:
        return self.exchange.passed

    @property
    def head(self) -> RequestHead:
        """The request's, as the application got it if it came that far."""
        return self.exchange.head

    def told(self, name: bytes) -> list[bytes]:
        """What the application is told in fields of this name."""
        return [value for known, value in self.head.pairs() if known == name]

    @property
    def claims(self) -> dict[str, Any]:
        """Of the request's token."""
        found = self.exchange.claims
        assert found is not None
        return found

    @property
    def challenge(self) -> str:
        return b"".join(self.all(b"www-authenticate")).decode()

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        return list(self.start["headers"])

    def all(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known.lower() == name]

    def __getitem__(self, name: bytes) -> bytes:
        """The one value of a field."""
        values = self.all(name)
        assert len(values) == 1, f"{name!r} occurs {len(values)} times in {self.fields!r}"
        return values[0]

    def __contains__(self, name: bytes) -> bool:
        return bool(self.all(name))

    @property
    def pieces(self) -> list[bytes]:
        """The body as it came; its end was told exactly once, by the last message."""
        bodies = self.of("body")
        assert [body.get("more_body", False) for body in bodies] == [True] * (len(bodies) - 1) + [False]
        return [body.get("body", b"") for body in bodies]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        [message] = self.of("trailers")
        return list(message["headers"])


def layer(kind: type[Middleware], app: App, there: Place | None = None, **options: Any) -> Middleware:
    """A layer of this kind, its options as they are written in a file."""
    made = kind.OPTIONS.model_validate({"kind": kind.OPTIONS.model_fields["kind"].default, **options})
    return kind(app, made, there or Surroundings().place("layer"))


class Layers:
    """Layers without a gateway around them. layers: outermost first, as a configuration has them."""

    def __init__(
        self,
        app: App,
        *layers: dict[str, Any],
        ledger: Ledger | None = None,
        documents: Documents | None = None,
        identity: str = "app",
    ) -> None:
        self._around = Surroundings(ledger, documents)
        self.ledger = self._around.ledger
        self.layers: list[Any] = []
        self.app: App = _Passed(app)
        for number, written in reversed([*enumerate(layers)]):
            options = dict(written)
            kind = options.pop("kind")
            there = self._around.place(options.get("name") or kind, number, identity)
            self.app = layer(MIDDLEWARE[kind], self.app, there, **options)
            self.layers.insert(0, self.app)

    @classmethod
    def of(cls, kind: type[Middleware], documents: Documents | None = None, **options: Any) -> Layers:
        """A single one."""
        return cls(hello, {"kind": kind.OPTIONS.model_fields["kind"].default, **options}, documents=documents)

    def refused(self, number: int = 0) -> int:
        """How many requests a layer has counted as refused."""
        return self.counted(LAYER_REFUSED, number)

    def counted(self, cell: int, number: int = 0) -> int:
        return int(self._around.cells[self._around.at(number) + cell])

    async def ask(
        self, *lines: bytes, target: bytes = b"/", method: bytes = b"GET", body: Iterable[bytes] = (), **facts: Any
    ) -> Answer:
        """lines: fields. body, facts: as `ask` has them."""
        request = get(target, b"".join(b"%b\r\n" % line for line in lines), method)
        answer = await ask(self.app, request, body, **facts)
        assert answer.start is answer.messages[0] and answer.pieces, "answered once, and completely"
        return answer

    def asked(self, *lines: bytes, target: bytes = b"/") -> Answer:
        """What `ask` says, for a test without an event loop."""
        return asyncio.run(self.ask(*lines, target=target))

    async def close(self) -> None:
        for one in self.layers:
            await one.close()


class _Passed:
    """Notes which requests came through to the application."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["gateway"].passed = True
        await self._app(scope, receive, send)


def scope_of(exchange: Asking) -> Scope:
    path, _, query = exchange.head.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 80),
        "client": (exchange.client, 40000),
        "scheme": exchange.scheme,
        "root_path": "",
        "method": exchange.method.decode(),
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "headers": exchange.head,
        "state": {},
        "extensions": {},
        "gateway": exchange,
    }


def asking(request: bytes, client: str = "192.0.2.1", scheme: str = "http", **facts: Any) -> Asking:
    """An exchange with this request. facts: what else is known of it."""
    found = read_request(request)
    assert found is not None and found[1] == len(request), "a head, and only a head"
    head = found[0]
    exchange = Asking(SimpleNamespace(name="web", style=PLAIN), client, 0.0)
    exchange.head = head
    exchange.method, exchange.target, exchange.host = head.method, head.target, head.special.get(b"host", b"")
    exchange.scheme = scheme
    exchange.route = SimpleNamespace(name="app", style=None)
    for name, value in facts.items():
        setattr(exchange, name, value)
    return exchange


async def ask(app: App, request: bytes, body: Iterable[bytes] = (), **facts: Any) -> Answer:
    """Ask a layer, and wait until it is done. body: a message for each piece; facts: as `asking` has them."""
    answer = Answer(asking(request, **facts))
    pieces = list(body) or [b""]
    last = len(pieces) - 1
    coming = iter([{"type": "http.request", "body": one, "more_body": at < last} for at, one in enumerate(pieces)])

    async def receive() -> Message:
        for message in coming:
            return message
        await asyncio.get_running_loop().create_future()  # the client stays
        raise AssertionError

    await app(scope_of(answer.exchange), receive, answer.send)
    return answer
