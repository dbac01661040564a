"""Bodies that a listener does not take: the answer passes the layers like any other, wherever the request has come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pytest

from gateway import middleware
from gateway.listeners import http1
from gateway.middleware.middleware import Middleware, Options, Receive, Scope, Send
from tests.listeners.site import Site, chunked, get, post, until
from tests.upstream.peer import Message, Origin, Peer, always, live, ok

LIMITS = {"body": "1KiB"}
CHUNKED = get(b"/", b"transfer-encoding: chunked\r\norigin: https://a.example\r\n", b"POST")
# Whoever sees this field knows that the layers have seen the answer.
LAYERS: list[dict[str, Any]] = [{"kind": "headers", "response": {"set": {"x-out": "1"}}}]


class OddOptions(Options):
    kind: Literal["odd"] = "odd"
    how: str


class Odd(Middleware):
    """Does with the body what it should not."""

    OPTIONS = OddOptions
    EXAMPLE = '{ kind = "odd", how = "swallows" }'
    busy: ClassVar[asyncio.Event]

    def __init__(self, app: Any, options: OddOptions, place: Any) -> None:
        super().__init__(app, options, place)
        self._how = options.how

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match self._how:
            case "swallows":
                try:
                    while (await receive())["more_body"]:
                        pass
                except Exception:
                    await asyncio.Event().wait()
            case "asks again and again":
                while True:
                    try:
                        await receive()
                    except Exception:
                        continue
            case "is busy":
                await receive()
                self.busy.set()
                await asyncio.Event().wait()
            case "asks later":
                self.busy.set()
                await asyncio.sleep(0.1)
                await self._app(scope, receive, send)
            case "goes on":
                try:
                    await receive()
                except Exception:
                    await self._app(scope, receive, send)


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(middleware.MIDDLEWARE, "odd", Odd)
    monkeypatch.setitem(middleware.KINDS, "odd", OddOptions)
    Odd.busy = asyncio.Event()
    yield


async def waited_for(site: Site) -> None:
    """Until somebody waits for more of a body."""
    await until(lambda: any(one.exchange and one.exchange._waiter for one in site.entry.connections))


def refusal(answer: Message, status: int, reason: bytes, *, layered: bool = True) -> None:
    assert answer.status == status and reason in answer[b"proxy-status"] and reason in answer.body
    assert answer[b"connection"] == b"close"
    assert (b"x-out" in answer) is layered


@pytest.mark.parametrize("where", ["around all", "on the route", "both"])
@pytest.mark.parametrize(
    "request_",
    [
        post(bytes(1025)),
        post(bytes(1025))[:-1000],
        get(b"/", b"content-length: 5000000\r\nexpect: 100-continue\r\n", b"POST"),
        CHUNKED + chunked(bytes(2000)),  # before the application was entered
    ],
)
def test_one_that_is_known_at_once_to_be_too_large(request_: bytes, where: str) -> None:
    @live
    async def test() -> None:
        routes = [{"name": "app", "upstream": "app", "middleware": LAYERS if where != "around all" else []}]
        around = LAYERS if where != "on the route" else []
        async with (
            Origin(always(ok())) as origin,
            Site(origin, limits=LIMITS, routes=routes, middleware=around) as site,
        ):
            client = await site.client(request_)
            refusal(await client.response(), 413, b"body_too_large")
            assert await client.ends() == b""
            exchange = await site.exchange()
            assert (exchange.status, exchange.reason, exchange.route.name) == (413, "body_too_large", "app")
            assert origin.accepted == 0 and site.told.empty()

    test()


@live
async def test_a_browser_may_read_the_refusal() -> None:
    layers = [{"kind": "cors", "origins": ["https://a.example"]}]
    async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=layers) as site:
        for request in (post(bytes(2000), fields=b"origin: https://a.example\r\n"), CHUNKED + chunked(bytes(2000))):
            answer = await site.ask(request)
            assert answer.status == 413 and answer[b"access-control-allow-origin"] == b"https://a.example"


@live
async def test_layers_may_answer_before() -> None:
    layers = [{"kind": "ip_allow", "allow": ["10.0.0.0/8"]}]
    async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=layers) as site:
        assert (await site.ask(post(bytes(2000)))).status == 403
        assert (await site.exchange()).reason == "address_denied"


@live
async def test_it_goes_before_what_no_route_takes() -> None:
    async with Origin(always(ok())) as origin:
        for layers in ([], LAYERS):
            async with Site(
                origin, limits=LIMITS, middleware=layers, routes=[{"name": "app", "upstream": "app", "path": "/x"}]
            ) as site:
                for target in (b"/", b"/x", b"/x//y"):
                    refusal(await site.ask(post(bytes(2000), target)), 413, b"body_too_large", layered=bool(layers))


@live
async def test_one_that_becomes_too_large() -> None:
    async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=LAYERS) as site:
        client = await site.client(CHUNKED + b"200\r\n%0512d\r\n" % 0)
        await waited_for(site)
        await client.send(b"201\r\n%0513d\r\n" % 0 + b"3\r\nabc\r\n0\r\n\r\n")
        refusal(await client.response(), 413, b"body_too_large")
        assert await client.ends() == b""
        assert (await site.exchange()).reason == "body_too_large"
        await until(lambda: origin.peers[0].reader.at_eof())
        assert site.well and site.told.empty()


@live
async def test_one_that_is_none() -> None:
    async with Origin(always(ok())) as origin, Site(origin, middleware=LAYERS) as site:
        client = await site.client(CHUNKED)
        await waited_for(site)
        await client.send(b"x\r\n")
        refusal(await client.response(), 400, b"chunk_size_malformed")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_one_that_stops(is_chunked: bool) -> None:
    @live
    async def test() -> None:
        timeouts = {"body_idle": "200ms"}
        async with Origin(always(ok())) as origin, Site(origin, timeouts=timeouts, middleware=LAYERS) as site:
            request = CHUNKED + b"3\r\nab" if is_chunked else post(b"0123456789")[:-5]
            client = await site.client(request)
            refusal(await client.response(), 408, b"request_body_timeout")
            assert await client.ends() == b""
            exchange = await site.exchange()
            assert (exchange.status, exchange.reason) == (408, "request_body_timeout")
            assert site.well

    test()


@live
async def test_one_that_is_too_slow() -> None:
    timeouts = {"body_idle": "400ms", "body_min_rate": "100B/s"}
    async with Origin(always(ok())) as origin, Site(origin, timeouts=timeouts, middleware=LAYERS) as site:
        client = await site.client(get(b"/", b"content-length: 2000\r\n", b"POST"))
        answer = asyncio.create_task(client.response())
        while not answer.done():
            await client.send(b"x")
            await asyncio.sleep(0.05)
        refusal(await answer, 408, b"body_too_slow")


@live
async def test_who_has_finished_sending_is_answered_all_the_same() -> None:
    async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=LAYERS) as site:
        for request in (post(bytes(2000)), post(bytes(2000))[:-5], CHUNKED + chunked(bytes(2000))):
            client = await site.client(request)
            client.writer.write_eof()
            refusal(await client.response(), 413, b"body_too_large")
            assert await client.ends() == b""


@live
async def test_the_one_behind_another_request() -> None:
    async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=LAYERS) as site:
        client = await site.client(get() + post(bytes(2000)) + get())
        assert (await client.response()).status == 200
        refusal(await client.response(), 413, b"body_too_large")
        assert await client.ends() == b""
        assert [(await site.exchange()).status for _ in range(2)] == [200, 413] and site.told.empty()


@pytest.mark.parametrize("how", ["swallows", "asks again and again"])
@pytest.mark.parametrize(
    "request_", [post(bytes(2000)), CHUNKED + chunked(bytes(2000))], ids=["by its length", "by its chunks"]
)
def test_a_layer_that_hears_nothing_of_it_is_ended(how: str, request_: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "_REFUSING", 0.2)

    @live
    async def test() -> None:
        layers = [*LAYERS, {"kind": "odd", "how": how}]
        async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=layers) as site:
            client = await site.client(request_)
            refusal(await client.response(), 413, b"body_too_large", layered=False)
            assert await client.ends() == b""
            exchange = await site.exchange()
            assert (exchange.status, exchange.reason) == (413, "body_too_large")
            assert origin.accepted == 0

    test()


@live
async def test_a_layer_that_goes_on_nevertheless_comes_no_further_than_the_others() -> None:
    layers = [*LAYERS, {"kind": "odd", "how": "goes on"}]
    async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=layers) as site:
        refusal(await site.ask(post(bytes(2000))), 413, b"body_too_large")
        client = await site.client(CHUNKED)
        await waited_for(site)
        await client.send(chunked(bytes(2000)))
        refusal(await client.response(), 413, b"body_too_large")
        assert origin.accepted == 0


@live
async def test_who_does_not_ask_for_the_body_is_ended() -> None:
    layers = [*LAYERS, {"kind": "odd", "how": "is busy"}]
    async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=layers) as site:
        client = await site.client(CHUNKED + b"3\r\nabc\r\n")
        await Odd.busy.wait()
        await client.send(chunked(bytes(2000)))
        refusal(await client.response(), 413, b"body_too_large", layered=False)


@live
async def test_who_asks_for_the_body_later_hears_of_it() -> None:
    layers = [*LAYERS, {"kind": "odd", "how": "asks later"}]
    async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=layers) as site:
        client = await site.client(CHUNKED + b"3\r\nabc\r\n")
        await Odd.busy.wait()
        await client.send(chunked(bytes(2000)))
        refusal(await client.response(), 413, b"body_too_large")


@live
async def test_an_answer_that_has_begun_is_cut() -> None:
    async def early(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
        await peer.ends()

    async with Origin(early) as origin, Site(origin, limits=LIMITS, middleware=LAYERS) as site:
        client = await site.client(CHUNKED + b"3\r\nabc\r\n")
        assert (await client.head()).status == 200
        await client.send(chunked(bytes(2000)))
        assert b"HTTP/1.1" not in await client.ends()
        assert (await site.exchange()).reason == "body_too_large"


@live
async def test_a_client_that_leaves_meanwhile_is_gone() -> None:
    layers = [*LAYERS, {"kind": "odd", "how": "swallows"}]
    async with Origin(always(ok())) as origin, Site(origin, limits=LIMITS, middleware=layers) as site:
        client = await site.client(post(bytes(2000)))
        await until(lambda: any(connection.exchange for connection in site.entry.connections))
        client.reset()
        exchange = await site.exchange()
        assert (exchange.status, exchange.reason) == (499, "client_gone")
