"""A server that is asked about each request: over real sockets, with servers that answer, don't, and shouldn't."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from pydantic import ValidationError

from gateway.errors import DescriptorsExhausted, PortsExhausted, QueueTimeout, UpstreamError
from gateway.middleware.forward_auth import Options
from gateway.middleware.identity.decisions import Decision, Decisions
from gateway.scoreboard import Fact
from gateway.upstream.clients import Server
from tests.listeners.site import Site, chunked, get, post, until
from tests.upstream.peer import Handler, Message, Origin, Peer, closed_port, live, noting, ok

DENIED = b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 6\r\n\r\nlog in"


class Case:
    """An origin, a server that is asked about requests for it, and a gateway. Notes what both see."""

    def __init__(
        self, answer: Handler | Callable[[Message], bytes] | bytes = b"", origin: bytes = b"", **options: Any
    ) -> None:
        """answer: how the server answers; a 200 when absent. trusted, url: of the listener, and instead of its own."""
        self.seen: list[Message] = []
        self.asked: list[Message] = []
        self._answer = answer or ok(b"")
        self._origin = origin or ok()
        self._trusted = options.pop("trusted", False)
        self._outer = options.pop("outer", [])
        self._options = options
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Case:
        answer = self._answer
        handler: Handler
        if isinstance(answer, bytes):
            fixed = answer
            handler = noting(self.asked, lambda request: fixed)
        elif asyncio.iscoroutinefunction(answer):
            handler = cast(Handler, answer)
        else:
            handler = noting(self.asked, answer)  # type: ignore[arg-type]
        self.origin = await self._stack.enter_async_context(Origin(noting(self.seen, lambda request: self._origin)))
        self.server = await self._stack.enter_async_context(Origin(handler))
        layer = {"kind": "forward_auth", "url": f"http://{self.server.address}/check", **self._options}
        trusted = ["127.0.0.1"] if self._trusted else []
        route = {"name": "app", "upstream": "app", "middleware": [*self._outer, layer]}
        self.site = await self._stack.enter_async_context(Site(self.origin, routes=[route], trusted_proxies=trusted))
        return self

    async def ask(self, fields: bytes = b"", target: bytes = b"/", method: bytes = b"GET") -> Message:
        return await self.site.ask(get(target, fields, method))

    async def __aexit__(self, *raised: Any) -> None:
        await self._stack.__aexit__(*raised)


# What is asked.


@live
async def test_the_server_sees_the_head_and_what_is_asked_for() -> None:
    async with Case() as case:
        body = b"x" * 1000
        fields = (
            b"Cookie: a=b\r\nAuthorization: Bearer t\r\nX-Own: 1\r\nContent-Type: text/plain\r\n"
            b'If-None-Match: "x"\r\nRange: bytes=0-1\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n'
        )
        answer = await case.site.ask(post(body, b"/a%2fb/../c?d=%20e", fields))
        assert answer.status == 400, "the listener's own rules come first"
        answer = await case.site.ask(post(body, b"/a/c?d=%20e", fields))
        assert (answer.status, case.seen[0].body) == (200, body)
        [asked] = case.asked
        assert asked.start == b"GET /check HTTP/1.1" and asked.body == b""
        assert asked[b"host"] == case.server.address.encode()
        assert (asked[b"cookie"], asked[b"authorization"], asked[b"x-own"]) == (b"a=b", b"Bearer t", b"1")
        assert (asked[b"x-forwarded-method"], asked[b"x-forwarded-uri"]) == (b"POST", b"/a/c?d=%20e")
        assert (asked[b"x-forwarded-proto"], asked[b"x-forwarded-host"]) == (b"http", b"example.com")
        assert asked[b"x-forwarded-for"] == b"127.0.0.1"
        for name in (b"content-type", b"content-length", b"transfer-encoding", b"if-none-match", b"range", b"te"):
            assert name not in asked
        assert b"x-hop" not in asked and b"connection" not in asked


@pytest.mark.parametrize("shown", [None, ["x-forwarded-uri", "x-forwarded-for", "cookie", "x-original-uri"]])
def test_a_client_can_not_say_who_it_is(shown: list[str] | None) -> None:
    spoofed = b"".join(
        b"%b: spoofed\r\n" % name
        for name in (
            b"X-Forwarded-Method",
            b"X-Forwarded-Uri",
            b"x-forwarded-URI",
            b"X_Forwarded_Uri",
            b"X-Forwarded-Proto",
            b"X-Forwarded-Host",
            b"X-Forwarded-For",
            b"X-Forwarded-User",
            b"X-Original-Uri",
            b"Forwarded",
            b"X-Real-Ip",
        )
    )

    @live
    async def test() -> None:
        more: dict[str, Any] = {} if shown is None else {"request_headers": shown}
        async with Case(**more) as case:
            assert (await case.ask(spoofed)).status == 200
            assert b"spoofed" not in case.asked[0].head and b"spoofed" not in case.seen[0].head
            assert len(case.asked[0].all(b"x-forwarded-uri")) == 1

    test()


@live
async def test_a_trusted_proxy_speaks_for_its_client() -> None:
    async with Case(trusted=True) as case:
        fields = (
            b"X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.test\r\n"
            b"X-Forwarded-Uri: /admin\r\nX-Forwarded-Method: GET\r\n"
        )
        await case.ask(fields, b"/mine", b"DELETE")
        [asked] = case.asked
        assert (asked[b"x-forwarded-proto"], asked[b"x-forwarded-host"]) == (b"https", b"a.test")
        assert asked[b"x-forwarded-for"] == b"203.0.113.7", "not what the client wrote before it"
        assert (asked[b"x-forwarded-uri"], asked[b"x-forwarded-method"]) == (b"/mine", b"DELETE")


@live
async def test_only_some_fields_are_shown() -> None:
    async with Case(request_headers=["authorization", "host", "content-length"], method="HEAD") as case:
        await case.ask(b"Authorization: x\r\nCookie: a=b\r\n")
        [asked] = case.asked
        names = {name.lower() for name, _ in asked.fields}
        assert names == {
            b"host",
            b"authorization",
            b"via",
            *(b"x-forwarded-" + name for name in (b"method", b"uri", b"proto", b"host", b"for")),
        }
        assert asked.start == b"HEAD /check HTTP/1.1" and asked[b"host"] == case.server.address.encode()


@live
async def test_what_outer_layers_write_is_shown_too() -> None:
    async with Case(outer=[{"kind": "request_id"}]) as case:
        await case.ask()
        assert case.asked[0][b"x-request-id"] == case.seen[0][b"x-request-id"]


@live
async def test_a_connection_is_kept() -> None:
    for answer in (ok(b"allowed"), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"ok"), DENIED):
        async with Case(answer) as case:
            for _ in range(5):
                await case.ask()
            assert len(case.asked) == 5 and case.server.accepted == 1


@live
async def test_a_body_that_comes_late_is_not_waited_for() -> None:
    gate = asyncio.Event()

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            await gate.wait()
            await peer.send(b"ok")

    async with Case(slow) as case:
        assert (await case.ask()).status == 200
        gate.set()
        await asyncio.sleep(0.02)
        assert (await case.ask()).status == 200
        assert case.server.accepted == 1


# What the application is told.


@live
async def test_fields_of_the_answer_go_on() -> None:
    answer = ok(b"", b"X-User: alice\r\nX-Groups: a\r\nX-Groups: b\r\nX-Other: no\r\nX-Forwarded-User: alice\r\n")
    async with Case(answer, copy_headers=["x-user", "X-Groups", "x-forwarded-user"], user_header="x-user") as case:
        await case.ask(b"X-User: root\r\nx-user: admin\r\nX-Groups: wheel\r\n")
        [seen] = case.seen
        assert (seen.all(b"x-user"), seen.all(b"x-groups")) == ([b"alice"], [b"a", b"b"])
        assert seen[b"x-forwarded-user"] == b"alice" and b"x-other" not in seen
        assert b"x-user" not in case.asked[0] and b"x-groups" not in case.asked[0]
        assert (await case.site.exchange()).user == "alice"


@live
async def test_fields_that_the_server_does_not_give_are_not_the_clients() -> None:
    async with Case(copy_headers=["x-user", "x-forwarded-user", "authorization"]) as case:
        spoofed = b"X-User: root\r\nX-Forwarded-User: root\r\nX_User: root\r\nAuthorization: Bearer t\r\n"
        await case.ask(spoofed, method=b"PUT")
        assert b"root" not in case.seen[0].head and b"authorization" not in case.seen[0]
        assert case.asked[0][b"authorization"] == b"Bearer t", "by this it decides"


@live
async def test_cookies_of_the_answer() -> None:
    answer = ok(b"", b"Set-Cookie: s=1; HttpOnly\r\nSet-Cookie: t=2\r\n")
    origin = ok(b"ok", b"Set-Cookie: o=3\r\n")
    async with Case(answer, origin) as case:
        assert (await case.ask()).all(b"set-cookie") == [b"o=3"]
    async with Case(answer, origin, copy_cookies=True, cache="1h") as case:
        for _ in range(2):
            assert (await case.ask()).all(b"set-cookie") == [b"o=3", b"s=1; HttpOnly", b"t=2"]
        assert len(case.asked) == 2, "one client's cookies are not another's"


@live
async def test_a_request_with_a_body_goes_on_whole() -> None:
    async with Case(copy_headers=["x-user"]) as case:
        body = b"x" * 300_000
        assert (await case.site.ask(post(body, fields=b"Expect: 100-continue\r\n"))).status in (100, 200)
        head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        assert (await case.site.ask(head + chunked(body, body))).status == 200
        assert case.seen[-1].body == body + body


# Refusals.


@live
async def test_any_other_answer_is_the_clients() -> None:
    answers = {
        b"/401": DENIED,
        b"/403": b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
        b"/302": b"HTTP/1.1 302 Found\r\nLocation: https://id.test/?rd=/\r\nSet-Cookie: state=1\r\nSet-Cookie: b=2\r\n"
        b"content-length: 2\r\n\r\nto",
        b"/429": b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ntransfer-encoding: chunked\r\n\r\n"
        + chunked(b"slow", b"down"),
        b"/hop": b"HTTP/1.1 401 No\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n"
        b"proxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n",
    }
    async with Case(lambda request: answers[request[b"x-forwarded-uri"]]) as case:
        denied = await case.ask(target=b"/401")
        assert (denied.status, denied[b"www-authenticate"], denied.body) == (401, b"Bearer", b"log in")
        exchange = await case.site.exchange()
        assert (exchange.reason, exchange.status) == ("auth_denied", 401)
        assert (await case.ask(target=b"/403")).status == 403
        redirect = await case.ask(target=b"/302")
        assert (redirect.status, redirect[b"location"], redirect.body) == (302, b"https://id.test/?rd=/", b"to")
        assert redirect.all(b"set-cookie") == [b"state=1", b"b=2"]
        slow = await case.ask(target=b"/429")
        assert (slow.status, slow[b"retry-after"], slow.body) == (429, b"7", b"slowdown")
        hop = await case.ask(target=b"/hop")
        assert not {b"x-hop", b"proxy-authenticate"} & {name.lower() for name, _ in hop.fields}
        head = await case.ask(target=b"/401", method=b"HEAD")
        assert (head.status, head[b"content-length"]) == (401, b"6")
        assert not case.seen


@live
async def test_an_answer_to_head_refuses_too() -> None:
    """What it says of its body is of one that doesn't come."""

    async def heads(peer: Peer) -> None:
        while True:
            asked.append(await peer.request())
            await peer.send(DENIED.removesuffix(b"log in").replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"))

    asked: list[Message] = []
    for cache in (None, "1h"):
        async with Case(heads, method="HEAD", cache=cache) as case:
            for method in (b"GET", b"HEAD", b"GET"):
                denied = await case.ask(method=method)
                assert (denied.status, denied[b"www-authenticate"], denied.body) == (401, b"Bearer", b"")
                assert denied.all(b"content-length") == [b"0"] and b"content-encoding" not in denied
            assert not case.seen
    assert {one.start.split()[0] for one in asked} == {b"HEAD"} and len(asked) == 5


@live
async def test_a_large_answer_is_passed_on_as_it_comes() -> None:
    async def pours(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 401 No\r\ncontent-length: 900000\r\n\r\n")
            for _ in range(9):
                await peer.send(b"x" * 100_000)

    async with Case(pours) as case:
        assert len((await case.ask()).body) == 900_000
        assert len((await case.ask()).body) == 900_000
        assert case.server.accepted == 1


@live
async def test_an_answer_that_is_too_long() -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 401 No\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    async with Case(b"HTTP/1.1 401 No\r\ncontent-length: 2000000\r\n\r\n") as case:
        assert (await case.ask()).status == 503
    async with Case(endless) as case:
        client = await case.site.client(get())
        heard = await client.ends()
        assert heard.startswith(b"HTTP/1.1 401") and not heard.endswith(b"0\r\n\r\n") and len(heard) < 1_200_000
    # Of one that lets the request pass nobody reads the body.
    async with Case(ok(b"x" * 2_000_000)) as case:
        assert (await case.ask()).status == 200


@live
async def test_an_answer_that_is_cut_is_cut_for_the_client_too() -> None:
    async def cuts(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 403 No\r\ncontent-length: 100\r\n\r\nhalf of ")

    async with Case(cuts) as case:
        client = await case.site.client(get())
        heard = await client.ends()
        assert heard.endswith(b"half of ")


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize("cache", [None, "1h"])
@pytest.mark.parametrize("status", [401, 403, 302, 404])
@pytest.mark.parametrize("ends", ["too long", "cut", "stalled"])
def test_a_refusal_is_one_whatever_becomes_of_its_body(
    status: int, ends: str, cache: str | None, fail_open: bool
) -> None:
    async def refuses(peer: Peer) -> None:
        length = 2_000_000 if ends == "too long" else 100
        await peer.request()
        await peer.send(b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\nhalf of" % (status, length))
        if ends == "stalled":
            await peer.ends()

    @live
    async def test() -> None:
        async with Case(refuses, cache=cache, fail_open=fail_open, timeout="100ms") as case:
            for _ in range(2):
                client = await case.site.client(get())
                line = await client.reader.readline()
                assert line.startswith((b"HTTP/1.1 503", b"HTTP/1.1 %d" % status)), line
                client.close()
            assert not case.seen

    test()


# When it can't be asked.


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.ends()


async def garbage(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"220 smtp.test\r\n\r\n")


async def injects(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nx-user: a\nx-admin: yes\r\ncontent-length: 0\r\n\r\n")


async def switches(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n")


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        silent,
        garbage,
        injects,
        switches,
        b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\nx-user: a\r\n\r\noh",
        b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
        None,
    ],
)
def test_it_fails_closed_unless_it_is_told_not_to(
    answer: Any, fail_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.middleware")

    @live
    async def test() -> None:
        more: dict[str, Any] = {"url": f"http://127.0.0.1:{closed_port()}/"} if answer is None else {}
        async with Case(
            answer or b"", timeout="100ms", copy_headers=["x-user"], fail_open=fail_open, cache="1h", **more
        ) as case:
            for _ in range(2):
                got = await case.ask(b"X-User: root\r\n")
                exchange = await case.site.exchange()
                if fail_open:
                    assert (got.status, exchange.reason) == (200, "")
                    assert b"x-user" not in case.seen[0] and b"x-admin" not in case.seen[0]
                else:
                    assert (got.status, exchange.reason) == (503, "auth_unavailable")
                    assert not case.seen
            assert case.site.well, "no endpoint is blamed"

    test()
    assert caplog.text.count("can't be asked") == 1, "once, not with each request"


@pytest.mark.parametrize("error", [QueueTimeout, DescriptorsExhausted, PortsExhausted])
def test_who_takes_all_our_room_does_not_get_in_by_that(
    error: type[UpstreamError], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*anything: Any, **more: Any) -> Any:
        raise error("auth", "no room")

    @live
    async def test() -> None:
        async with Case(fail_open=True) as case:
            assert (await case.ask()).status == 200
            with monkeypatch.context() as patch:
                patch.setattr(Server, "open", full)
                assert (await case.ask()).status == 503
            assert len(case.seen) == 1

    test()


@live
async def test_when_it_can_be_asked_again_that_is_told() -> None:
    answers = [b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", ok(b"")]
    async with Case(lambda request: answers.pop(0)) as case:
        assert [(await case.ask()).status for _ in range(2)] == [503, 200]


@live
async def test_a_client_that_leaves_meanwhile() -> None:
    left = asyncio.Event()

    async def waits(peer: Peer) -> None:
        await peer.request()
        await peer.ends()
        left.set()

    async with Case(waits, timeout="1h") as case:
        client = await case.site.client(get())
        await until(lambda: case.server.accepted)
        client.close()
        await left.wait()
        assert (await case.site.exchange()).status == 499
        await until(lambda: not case.site.cells[Fact.UPSTREAM_OPEN])
        assert not case.seen


@live
async def test_a_server_that_asks_us_again() -> None:
    """A URL that leads back to the gateway: the question must not become another one without end."""
    seen: list[Message] = []
    async with Origin(noting(seen, lambda request: ok())) as origin:

        async def relays(peer: Peer) -> None:
            request = await peer.request()
            other = await site.client(get(b"/", b"via: %b\r\n" % request[b"via"]))
            inner = await other.response()
            asked.append(inner.status)
            await peer.send(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % inner.status)

        asked: list[int] = []
        async with Origin(relays) as server:
            layer = {"kind": "forward_auth", "url": f"http://{server.address}/"}
            route = {"name": "app", "upstream": "app", "middleware": [layer]}
            async with Site(origin, routes=[route]) as site:
                assert (await site.ask(get(fields=b"Via: 1.1 somebody\r\n"))).status == 503
                assert asked == [508] and not seen


# Decisions that hold for a while.


@live
async def test_decisions_are_remembered_for_requests_that_are_alike() -> None:
    answer = ok(b"", b"X-User: alice\r\n")
    async with Case(answer, cache="1h", copy_headers=["x-user"], user_header="x-user") as case:
        for _ in range(3):
            assert (await case.ask(b"Cookie: a=1\r\nX-User: root\r\n")).status == 200
            assert (await case.site.exchange()).user == "alice"
        assert len(case.asked) == 1
        assert [seen.all(b"x-user") for seen in case.seen] == [[b"alice"]] * 3
        others = [
            (b"Cookie: a=2\r\n", b"/", b"GET"),
            (b"Cookie: a=1\r\nCookie: b=2\r\n", b"/", b"GET"),
            (b"Cookie: a=1\r\nAuthorization: x\r\n", b"/", b"GET"),
            (b"Cookie: a=1\r\n", b"/other", b"GET"),
            (b"Cookie: a=1\r\n", b"/?a", b"GET"),
            (b"Cookie: a=1\r\n", b"/", b"DELETE"),
            (b"", b"/", b"GET"),
        ]
        for count, (fields, target, method) in enumerate(others, 2):
            for _ in range(2):
                await case.ask(fields, target, method)
            assert len(case.asked) == count


@live
async def test_refusals_are_remembered_too() -> None:
    async with Case(DENIED, cache="1h") as case:
        for _ in range(3):
            denied = await case.ask()
            assert (denied.status, denied[b"www-authenticate"], denied.body) == (401, b"Bearer", b"log in")
            assert (await case.site.exchange()).reason == "auth_denied"
        head = await case.ask(method=b"HEAD")
        assert head.status == 401
        assert len(case.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 401 No\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 403 No\r\ncontent-length: 20000\r\n\r\n" + b"x" * 20_000,
        ok(b"", b"Cache-Control: private, No-Store\r\n"),
        ok(b"", b"Cache-Control: max-age=0\r\n"),
        ok(b"", b"Set-Cookie: a=b\r\n"),
        ok(b"", b"X-User: " + b"x" * 20_000 + b"\r\n"),
    ],
)
def test_decisions_that_are_not_remembered(answer: bytes) -> None:
    @live
    async def test() -> None:
        async with Case(answer, cache="1h", copy_headers=["x-user"]) as case:
            for _ in range(2):
                await case.ask()
            assert len(case.asked) == 2

    test()


@live
async def test_what_makes_requests_alike_is_a_choice() -> None:
    async with Case(cache="1h", cache_key=["X-Tenant", ":authority"]) as case:
        for target in (b"/a", b"/b"):
            await case.ask(b"X-Tenant: 1\r\n", target)
        assert len(case.asked) == 1
        await case.ask(b"X-Tenant: 2\r\n")
        assert len(case.asked) == 2
    async with Case(cache="1h", cache_key=["x-forwarded-for"], trusted=True) as case:
        for client in (b"203.0.113.7", b"203.0.113.7", b"203.0.113.8"):
            await case.ask(b"X-Forwarded-For: %b\r\n" % client)
        assert len(case.asked) == 2


@live
async def test_requests_are_not_alike_when_the_server_is_told_differently() -> None:
    """By a proxy that the listener trusts: where a client came to, and how."""

    def decides(request: Message) -> bytes:
        good = request[b"x-forwarded-host"] == b"good.test" and request[b"x-forwarded-proto"] == b"https"
        return ok(b"") if good else DENIED

    for names in ([":scheme", ":authority"], ["x-forwarded-host", "x-forwarded-proto"], None):
        more: dict[str, Any] = {"cache_key": names} if names else {}
        async with Case(decides, cache="1h", trusted=True, **more) as case:
            for host, scheme, status in (
                (b"good.test", b"https", 200),
                (b"admin.test", b"https", 401),
                (b"good.test", b"http", 401),
                (b"good.test", b"https", 200),
            ):
                fields = b"X-Forwarded-Host: %b\r\nX-Forwarded-Proto: %b\r\n" % (host, scheme)
                assert (await case.ask(fields)).status == status
            assert len(case.asked) == 3


def test_decisions_are_bounded() -> None:
    decisions = Decisions(b"s" * 16, most=3, most_bytes=4000, largest=3000)
    keys = [decisions.key([b"%d" % number]) for number in range(5)]
    for key in keys:
        decisions.keep(key, Decision(True), 10.0)
    assert [decisions.get(key, 9.0) is not None for key in keys] == [False, False, True, True, True]
    assert decisions.get(keys[2], 10.0) is None and len(decisions) == 2
    decisions.keep(keys[0], Decision(True, b"x" * 3000), 10.0)
    assert decisions.get(keys[0], 0.0) is None
    decisions.keep(keys[0], Decision(False, body=b"x" * 2400), 10.0)
    assert len(decisions) == 3
    decisions.keep(keys[1], Decision(False, body=b"x" * 2400), 10.0)
    assert [decisions.get(key, 0.0) is not None for key in keys] == [False, True, False, False, False]
    assert decisions._held == 2912


def test_keys_are_told_apart() -> None:
    decisions = Decisions(b"s" * 16, 1, 1, 1)
    keys = {decisions.key(parts) for parts in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"abc", b""], [], [b""])}
    assert len(keys) == 6
    assert decisions.key([b"a"]) != Decisions(b"t" * 16, 1, 1, 1).key([b"a"])


# Options.


@pytest.mark.parametrize(
    "more, why",
    [
        ({"url": "ftp://a/"}, "expected a URL"),
        ({"copy_headers": ["content-length"]}, "belongs to the connection"),
        ({"copy_headers": ["Host"]}, "is written by the gateway"),
        ({"copy_headers": ["X-Forwarded-Uri"]}, "is always written by the gateway"),
        ({"copy_headers": ["content-type"]}, "tells of the body"),
        ({"copy_headers": ["x_user"]}, "such fields of a request are dropped"),
        ({"cache_key": [":protocol"]}, "expected the name of a field"),
        ({"cache_key": ["a b"]}, "expected the name of a field"),
        ({"strange": 1}, "Extra inputs"),
    ],
)
def test_options_that_make_no_sense(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Options.model_validate({"url": "http://127.0.0.1:9006/", **more})
