"""What a layer costs: us per request of each kind of middleware, when it lets a request pass and has little to do.

A request is driven through the skin, the layer and back in this process, without sockets; what the same costs without
any layer is taken off. Each figure is the best of many short runs, for those are the ones in which the machine did
nothing else. Credentials are those of a client that comes again: verified, and remembered.
"""

import asyncio
import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.report import aligned
from bench.scenarios import BROWSER_FIELDS
from gateway.ledger import Ledger
from gateway.middleware import KINDS, MIDDLEWARE
from gateway.middleware.middleware import App, Message, Receive, Scope, Send
from gateway.middleware.onion import Core, Culprits, Onion
from gateway.scoreboard import Scoreboard
from gateway.wire import Fields, ResponseHead, read_request, read_response
from gateway.worker.assembly import running_wheel
from gateway.worker.plugins import Plugins
from tests.middleware.passing import PASSING
from tests.middleware.rig import Asking, asking, scope_of
from tests.middleware.surroundings import Surroundings
from tests.upstream.peer import Origin, always, ok

_REQUESTS = 500  # in a run
_RUNS = 40


class Case(NamedTuple):
    """A layer and a request. options: beside those with which the kind merely lets a request pass. browser: the fields
    of a browser's request that are not there."""

    kind: str
    options: Mapping[str, Any] = MappingProxyType({})
    without: tuple[str, ...] = ()


# Beside one of each kind, whose request passes: what makes a difference.
CASES = {
    "compress, nothing to do": Case("compress", without=("Accept-Encoding",)),
    "headers, one set in each direction": Case(
        "headers",
        {"request": {"set": {"x-a": "1"}}, "response": {"set": {"x-frame-options": "DENY"}, "remove": ["server"]}},
    ),
    "headers, made of the request": Case("headers", {"request": {"set": {"x-who": "{client_ip} {request_id}"}}}),
    "rate_limit, without its fields": Case("rate_limit", {"headers": False}),
    "forward_auth, remembered": Case("forward_auth", {"cache": "60s"}),
    "static, another prefix": Case("static", {"prefix": "/assets"}),
    "request_id, only the id": Case("request_id", {"trace": "off", "response": False}),
}
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"
    b'Content-Length: 1024\r\nCache-Control: private, max-age=0\r\nETag: "33a64df5"\r\nVary: Accept-Encoding\r\n'
    b"X-Request-Cost: 3\r\nLast-Modified: Sat, 21 Nov 2026 11:00:00 GMT\r\nSet-Cookie: a=b\r\n\r\n"
)
BODY = b"x" * 1024


@dataclass(frozen=True)
class Row:
    layer: str
    us: float


def middleware(quick: bool = False) -> list[Row]:
    return asyncio.run(_rows(1 if quick else _RUNS))


async def _rows(runs: int) -> list[Row]:
    gc.collect()
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as scratch:
        folder = Path(scratch)
        async with Origin(always(ok())) as yes:
            try:
                return await _measured(folder, yes.address, runs)
            finally:
                gc.enable()


async def _measured(folder: Path, yes: str, runs: int) -> list[Row]:
    cases = {**{kind: Case(kind) for kind in MIDDLEWARE}, **CASES}
    rows = []
    for title, case in sorted(cases.items()):
        passing = PASSING[case.kind]
        made = _Made(folder)
        app = made.onion([{"kind": case.kind, **passing.options(folder, yes), **case.options}])
        lines = [line for line in BROWSER_FIELDS.splitlines() if line.partition(":")[0] not in case.without]
        fields = "\r\n".join((*lines, "")).encode() + passing.fields
        rows.append(Row(title, await _difference(app, made.bare(), fields, runs)))
    return rows


class _Made:
    """Onions with all that they need."""

    def __init__(self, folder: Path) -> None:
        ledger = Ledger.create()
        ledger.sit(Scoreboard.create(), 1)
        self._around = Surroundings(ledger, wheel=running_wheel(), plugin=Plugins((str(folder),)))

    def onion(self, layers: Sequence[dict[str, Any]]) -> App:
        standing = []
        for number, options in enumerate(layers):
            kind = options["kind"]
            standing.append((MIDDLEWARE[kind], KINDS[kind].model_validate(options), self._around.place(kind, number)))
        made: list[Any] = []
        app = Onion(standing).around(_app, made)
        for layer in made:
            layer.start()
        return app

    def bare(self) -> App:
        """The same without a layer: what is inside of all."""
        return Core(_app, self._around.place("bare"), Culprits([], None))


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    scope["gateway"].begun = True
    await send({"type": "http.response.start", "status": 200, "headers": _response()})
    await send({"type": "http.response.body", "body": BODY})


_last: Fields | None = None


def _response() -> ResponseHead:
    """A head whose fields are those of the response before it, as mostly on a kept connection."""
    global _last
    found = read_response(RESPONSE, False, _last)
    assert found is not None
    _last = found[0].fields
    return found[0]


async def _difference(app: App, bare: App, fields: bytes, runs: int) -> float:
    """us per request, beyond those without the layer."""
    exchange = _requests(fields)
    best = {app: 1e9, bare: 1e9}
    for _ in range(runs):
        for one in (app, bare):
            best[one] = min(best[one], await _run(one, exchange))
    return best[app] - best[bare]


def _requests(fields: bytes) -> Callable[[], list[tuple[Asking, Scope]]]:
    data = b"GET /items/42?sort=price HTTP/1.1\r\n" + fields + b"\r\n"
    found = read_request(data)
    assert found is not None
    shared = found[0].fields

    def make() -> list[tuple[Asking, Scope]]:
        made = []
        for _ in range(_REQUESTS):
            exchange = asking(data, client="127.0.0.1", scheme="https")
            again = read_request(data, shared)
            assert again is not None
            exchange.head = again[0]
            made.append((exchange, scope_of(exchange)))
        return made

    return make


async def _run(app: App, requests: Callable[[], list[tuple[Asking, Scope]]]) -> float:
    ready = requests()
    began = perf_counter()
    for _, scope in ready:
        await app(scope, _receive, _send)
    took = (perf_counter() - began) * 1e6 / len(ready)
    for exchange, _ in ready:
        if exchange.reason:
            raise RuntimeError(f"the layer refused the request: {exchange.reason}")
    return took


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


def as_text(rows: Sequence[Row]) -> str:
    return aligned([("layer", "us per request"), *((row.layer, f"{row.us:.2f}") for row in rows)])


def as_markdown(rows: Sequence[Row], where: str) -> str:
    lines = [f"{where}\n", "| layer | us per request |", "|---|---|"]
    return "\n".join((*lines, *(f"| {row.layer} | {row.us:.2f} |" for row in rows))) + "\n"
