"""The frame: in which order layers stand, what each of them sees, and what becomes of their mistakes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pytest

from gateway import middleware
from gateway.errors import Refused
from gateway.metrics.plan import EVERY_ROUTE, LAYER_FAILED, LAYER_REFUSED, LAYER_REQUESTS, LAYER_TIME
from gateway.middleware.middleware import Message, Middleware, Options, Receive, Scope, Send
from gateway.wire import edited
from tests.listeners.site import Site, get, post, until
from tests.upstream.peer import Origin, Peer, always, closed_port, live, ok
from tests.upstream.peer import noting as noted


class NotingOptions(Options):
    kind: Literal["noting"] = "noting"
    word: str
    refuse: str = ""


class Noting(Middleware):
    """Leaves its word in requests and responses, in the order in which they come by."""

    OPTIONS = NotingOptions
    EXAMPLE = '{ kind = "noting", word = "a" }'

    def __init__(self, app: Any, options: NotingOptions, place: Any) -> None:
        super().__init__(app, options, place)
        self._word, self._refuse, self._place = options.word.encode(), options.refuse, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"].add(b"\r\nx-in: " + self._word)

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": edited(message["headers"], frozenset(), b"\r\nx-out: " + self._word)}
            await send(message)

        if self._refuse:
            await self._place.refuse(scope["gateway"], note, self._refuse)
        else:
            await self._app(scope, receive, note)


class WrongOptions(Options):
    kind: Literal["wrong"] = "wrong"
    how: str


class Wrong(Middleware):
    """Makes every mistake that there is."""

    OPTIONS = WrongOptions
    EXAMPLE = '{ kind = "wrong", how = "raises" }'
    closed: ClassVar[list[str]] = []
    started: ClassVar[list[str]] = []

    def __init__(self, app: Any, options: WrongOptions, place: Any) -> None:
        super().__init__(app, options, place)
        self._how = options.how

    def start(self) -> None:
        asyncio.get_running_loop()
        self.started.append(self._how)

    async def close(self) -> None:
        self.closed.append(self._how)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match self._how:
            case "raises":
                raise ValueError("a mistake")
            case "raises_afterwards":
                await self._app(scope, receive, send)
                raise ValueError("a mistake, but too late")
            case "raises_in_send":

                async def fail(message: Message) -> None:
                    raise ValueError(f"a mistake on the way out: {self._how}")

                await self._app(scope, receive, fail)
            case "raises_in_the_body":

                async def fail_later(message: Message) -> None:
                    if message["type"] == "http.response.body":
                        raise ValueError("a mistake in the middle")
                    await send(message)

                await self._app(scope, receive, fail_later)
            case "raises_in_its_responder":
                await self._app(scope, receive, Responder(self))
            case "says_nothing":
                pass
            case "makes_none":
                await self._app(scope, receive, send)
            case "raises_a_group":
                raise ExceptionGroup("several", [ExceptionGroup("inner", [Refused("body_too_large", "too large")])])
            case "refuses_the_body":

                async def refuse() -> Message:
                    message = await receive()
                    if b"bad" in message.get("body", b""):
                        raise Refused("body_too_large", "too large")
                    return message

                await self._app(scope, refuse, send)
            case "breaks_the_body":

                async def broken() -> Message:
                    await receive()
                    raise ValueError("a mistake in the body")

                await self._app(scope, broken, send)
            case "cancels_the_body":

                async def cancelled() -> Message:
                    await receive()
                    raise asyncio.CancelledError

                await self._app(scope, cancelled, send)


class Responder:
    """The send of a layer, as a class of its own."""

    def __init__(self, layer: Wrong) -> None:
        self._layer = layer

    async def __call__(self, message: Message) -> None:
        _fail()


def _fail() -> None:
    raise ValueError("a mistake on the way out")


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind, made in (("noting", Noting), ("wrong", Wrong)):
        monkeypatch.setitem(middleware.MIDDLEWARE, kind, made)
        monkeypatch.setitem(middleware.KINDS, kind, made.OPTIONS)
    Wrong.started.clear()
    Wrong.closed.clear()
    yield


def noting(*words: str, **more: str) -> list[dict[str, Any]]:
    return [{"kind": "noting", "word": word, **more} for word in words]


def route(*layers: Any, **more: Any) -> dict[str, Any]:
    return {"name": "app", "upstream": "app", "middleware": list(layers), **more}


def seeing(seen: list[Any]) -> Any:
    return noted(seen, lambda request: ok())


@live
async def test_the_outermost_comes_first_on_the_way_in_and_last_on_the_way_out() -> None:
    seen: list[Any] = []
    async with (
        Origin(seeing(seen)) as origin,
        Site(origin, middleware=noting("a", "b"), routes=[route(*noting("c", "d"))]) as site,
    ):
        answer = await site.ask(get())
        assert answer.all(b"x-out") == [b"d", b"c", b"b", b"a"]
        assert seen[0].all(b"x-in") == [b"a", b"b", b"c", b"d"]


@live
async def test_a_set_stands_where_it_is_named() -> None:
    seen: list[Any] = []
    async with (
        Origin(seeing(seen)) as origin,
        Site(
            origin,
            sets={"two": {"middleware": noting("b", "c")}},
            routes=[route(*noting("a"), "two", *noting("d"))],
        ) as site,
    ):
        assert (await site.ask(get())).all(b"x-out") == [b"d", b"c", b"b", b"a"]
        names = [one.identity for one in site.config.onion(site.config.routes[0])]
        assert names == ["route app/noting#1", "set two/noting#1", "set two/noting#2", "route app/noting#2"]


@live
async def test_a_refusal_passes_the_layers_outside_and_no_others() -> None:
    seen: list[Any] = []
    layers = [*noting("b"), *noting("c", refuse="rate_limited"), *noting("d")]
    async with Origin(seeing(seen)) as origin, Site(origin, middleware=noting("a"), routes=[route(*layers)]) as site:
        answer = await site.ask(get())
        assert answer.status == 429 and answer.all(b"x-out") == [b"c", b"b", b"a"]
        assert not seen
        assert (await site.exchange()).reason == "rate_limited"
        at = site.plan.block("layer", "app", "noting")
        assert site.cells[at + LAYER_REFUSED] == 1 and site.cells[at + LAYER_REQUESTS] == 2  # b and c share a name


@live
async def test_errors_of_the_endpoint_are_answers_inside_all_layers() -> None:
    async with Site(f"127.0.0.1:{closed_port()}", middleware=noting("a"), routes=[route(*noting("b"))]) as site:
        answer = await site.ask(get())
        assert answer.status == 502 and answer.all(b"x-out") == [b"b", b"a"]
        assert b"connection_refused" in answer[b"proxy-status"]


@live
async def test_what_no_route_takes_passes_the_layers_around_all_routes() -> None:
    async with (
        Origin(always(ok())) as origin,
        Site(origin, middleware=noting("a"), routes=[route(path="/x", methods=["GET"])]) as site,
    ):
        for request, status in ((get(b"/y"), 404), (post(b"", b"/x"), 405), (get(b"/x//y"), 400)):
            answer = await site.ask(request)
            assert answer.status == status and answer.all(b"x-out") == [b"a"]
        assert (await site.ask(get(b"/x"))).all(b"x-out") == [b"a"]
        assert site.cells[site.plan.block("layer", EVERY_ROUTE, "noting") + LAYER_REQUESTS] == 4


@pytest.mark.parametrize("how", ["raises", "raises_in_send", "says_nothing"])
def test_a_mistake_is_a_500_that_passes_the_layers_outside(how: str, caplog: pytest.LogCaptureFixture) -> None:
    @live
    async def test() -> None:
        layers = [*noting("a"), {"kind": "wrong", "how": how, "name": "mine"}]
        async with Origin(always(ok())) as origin, Site(origin, routes=[route(*layers)]) as site:
            peer = await site.client(get())
            if how == "raises_in_send":  # its answer had begun: it is cut, and nobody takes it for whole
                assert await peer.ends() == b""
            else:
                answer = await peer.response()
                assert answer.status == 500 and answer.all(b"x-out") == [b"a"]
                assert b"middleware_failed" in answer[b"proxy-status"]
                await peer.send(get())  # and the connection goes on
                assert (await peer.response()).status == 500
            assert (await site.exchange()).reason == "middleware_failed"
            at = site.plan.block("layer", "app", "mine")
            assert site.cells[at + LAYER_FAILED] >= 1

    test()
    assert "route app, layer mine" in caplog.text


class Plain(Middleware):
    """Is no coroutine, and gives nothing back to be waited for."""

    OPTIONS = WrongOptions
    EXAMPLE = '{ kind = "plain", how = "" }'

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        return None


@pytest.mark.parametrize("around", [0, 1])
def test_what_gives_nothing_back_is_a_mistake_of_its_own(
    around: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(middleware.MIDDLEWARE, "wrong", Plain)

    @live
    async def test() -> None:
        layers = [*noting("a") * around, {"kind": "wrong", "how": "", "name": "mine"}]
        async with Origin(always(ok())) as origin, Site(origin, routes=[route(*layers)]) as site:
            assert (await site.ask(get())).status == 500
            assert (await site.exchange()).reason == "middleware_failed"

    test()
    assert "route app, layer mine" in caplog.text


@pytest.mark.parametrize("how", ["raises_in_send", "raises_in_its_responder"])
@pytest.mark.parametrize("around", [0, 1, 2])
def test_a_mistake_is_not_that_of_a_twin(how: str, around: int, caplog: pytest.LogCaptureFixture) -> None:
    @live
    async def test() -> None:
        layers = [{"kind": "wrong", "how": "makes_none", "name": name} for name in ("outer", "mine", "inner")]
        layers[1]["how"] = how
        async with (
            Origin(always(ok())) as origin,
            Site(origin, middleware=layers[:around], routes=[route(*layers[around:])]) as site,
        ):
            assert await (await site.client(get())).ends() == b""

    test()
    assert "layer mine: it failed on" in caplog.text
    assert "layer outer" not in caplog.text and "layer inner" not in caplog.text


@pytest.mark.parametrize("how", ["raises_afterwards", "raises_in_the_body"])
def test_a_mistake_after_the_beginning_cuts_and_answers_no_second_time(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    @live
    async def test() -> None:
        layers = [*noting("a"), {"kind": "wrong", "how": how}]
        async with Origin(always(ok(b"hello"))) as origin, Site(origin, routes=[route(*layers)]) as site:
            peer = await site.client(get())
            if how == "raises_afterwards":
                assert (await peer.response()).body == b"hello"
                await peer.send(get())
                assert (await peer.response()).body == b"hello"
            else:
                assert (await peer.ends()).count(b"HTTP/1.1") <= 1
            assert site.cells[site.plan.block("layer", "app", "wrong") + LAYER_FAILED] >= 1

    test()
    assert "route app, layer wrong" in caplog.text


@live
async def test_a_reason_is_found_in_a_group_of_errors() -> None:
    async with (
        Origin(always(ok())) as origin,
        Site(origin, routes=[route({"kind": "wrong", "how": "raises_a_group"})]) as site,
    ):
        assert (await site.ask(get())).status == 413
        assert site.cells[site.plan.block("layer", "app", "wrong") + LAYER_FAILED] == 0


@pytest.mark.parametrize(
    "how, status", [("refuses_the_body", 413), ("breaks_the_body", 500), ("cancels_the_body", 500)]
)
def test_a_body_that_turns_out_to_be_unfit_ends_the_exchange(how: str, status: int) -> None:
    ended: list[bytes] = []

    async def reads(peer: Peer) -> None:
        await peer.head()
        ended.append(await peer.ends())

    @live
    async def test() -> None:
        layers = [*noting("a"), {"kind": "wrong", "how": how}]
        async with Origin(reads) as origin, Site(origin, routes=[route(*layers)]) as site:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            peer = await site.client(head + b"4\r\ngood\r\n")
            if how == "refuses_the_body":  # the other breaks with the first byte
                await until(lambda: site.upstream.endpoints[0].in_flight == 1)
                await peer.send(b"3\r\nbad\r\n")
            answer = await peer.response()
            assert answer.status == status and answer.all(b"x-out") == [b"a"]
            assert site.well  # the endpoint has no part in it
            if how == "refuses_the_body":
                await until(lambda: bool(ended))
                assert b"bad" not in ended[0]

    test()


@live
async def test_a_small_body_that_is_unfit_is_never_sent() -> None:
    seen: list[Any] = []
    async with (
        Origin(seeing(seen)) as origin,
        Site(origin, routes=[route({"kind": "wrong", "how": "refuses_the_body"})]) as site,
    ):
        assert (await site.ask(post(b"a bad one"))).status == 413
        assert (await site.ask(post(b"a good one"))).status == 200
        assert [one.body for one in seen] == [b"a good one"]


@live
async def test_time_is_counted_for_the_layer_that_takes_it() -> None:
    async with (
        Origin(always(ok())) as origin,
        Site(origin, middleware=noting("a"), routes=[route({"kind": "noting", "word": "b", "name": "b"})]) as site,
    ):
        await site.ask(get())
        for place in ((EVERY_ROUTE, "noting"), ("app", "b")):
            assert 0 < site.cells[site.plan.block("layer", *place) + LAYER_TIME] < 10**9


@live
async def test_layers_are_told_when_they_begin_and_end() -> None:
    x, y = {"kind": "wrong", "how": "x"}, {"kind": "wrong", "how": "y"}
    async with Origin(always(ok())) as origin, Site(origin, middleware=[x], routes=[route(y)]):
        assert sorted(Wrong.started) == ["x", "y"] and not Wrong.closed
    assert sorted(Wrong.closed) == ["x", "y"]


@live
async def test_a_client_that_leaves_ends_all_layers() -> None:
    async def silent(peer: Peer) -> None:
        await peer.head()
        await peer.ends()

    async with Origin(silent) as origin, Site(origin, middleware=noting("a"), routes=[route(*noting("b"))]) as site:
        peer = await site.client(get())
        await until(lambda: site.upstream.endpoints[0].in_flight == 1)
        peer.reset()
        assert (await site.exchange()).reason == "client_gone"
