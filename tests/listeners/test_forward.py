"""A forward proxy between real sockets: who may use it and where to, requests that are handed on, and tunnels."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.exchange import Exchange
from gateway.scoreboard import Fact
from tests.listeners.site import Site, until
from tests.middleware.hashes import user_line
from tests.support.descriptors import descriptors
from tests.support.dns_server import DnsServer
from tests.support.hellos import hello, real, server_name
from tests.upstream.peer import Message, Origin, Peer, always, closed_port, live, noting, ok
from tests.wire.test_proxied import REFUSED

LAN = {"allow": ["127.0.0.0/8"], "ports": ["1-65535"]}
ASKED = b"connection: upgrade\r\nupgrade: websocket\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
PASSWORD = b"open sesame"


def proxy(egress: dict[str, Any] | None = None, **more: Any) -> Site:
    """more: of the listener, but for what `Site` takes by itself."""
    own = {key: more.pop(key) for key in ("limits", "timeouts", "proxy_protocol") if key in more}
    return Site(listener={"kind": "forward", "egress": "lan", **more}, egress=LAN | (egress or {}), **own)


def get(origin: Origin, path: bytes = b"/", fields: bytes = b"", host: bytes = b"127.0.0.1") -> bytes:
    return b"GET http://%b:%d%b HTTP/1.1\r\nhost: x.example\r\n%b\r\n" % (host, origin.port, path, fields)


def connect(origin: Origin, fields: bytes = b"", host: bytes = b"127.0.0.1") -> bytes:
    return b"CONNECT %b:%d HTTP/1.1\r\nhost: x.example\r\n%b\r\n" % (host, origin.port, fields)


def credentials(user: bytes = b"ann", password: bytes = PASSWORD, scheme: bytes = b"Basic") -> bytes:
    return b"proxy-authorization: %b %b\r\n" % (scheme, b64encode(user + b":" + password))


async def echo(peer: Peer) -> None:
    while data := await peer.reader.read(1 << 16):
        await peer.send(data)


async def opened(site: Site, origin: Origin, fields: bytes = b"", rest: bytes = b"") -> Peer:
    """A client with a tunnel."""
    client = await site.client(connect(origin, fields) + rest)
    assert (await client.head()).status == 200
    return client


def why(answer: Message) -> tuple[int, bytes]:
    """The status of a refusal, and its reason."""
    said = answer[b"proxy-status"]
    return answer.status, said.rpartition(b"=")[2].strip(b'"')


def told(exchange: Exchange) -> tuple[int, str]:
    return exchange.status, exchange.reason


# Requests that are handed on.


@live
async def test_a_request_as_the_origin_gets_it() -> None:
    seen: list[Message] = []
    fields = (
        b"X-A: b\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic YTpi\r\nX-Forwarded-For: 192.0.2.1\r\n"
        b"Via: 1.0 before\r\nConnection: X-Hop\r\nX-Hop: c\r\n"
    )
    async with Origin(noting(seen, lambda request: ok(fields=b"via: 1.0 there\r\n"))) as origin, proxy() as site:
        answer = await site.ask(get(origin, b"/a//b?c=%2f", fields))
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer[b"via"] == b"1.0 there, 1.1 " + site.via
        [request] = seen
        assert request.start == b"GET /a//b?c=%2f HTTP/1.1"
        assert request[b"host"] == b"127.0.0.1:%d" % origin.port
        assert request[b"via"] == b"1.0 before, 1.1 " + site.via
        assert request.all(b"x-a") == [b"b"]
        assert {name.lower() for name, _ in request.fields} == {b"x-a", b"host", b"via"}
        exchange = await site.exchange()
        assert (told(exchange), exchange.endpoint) == ((200, ""), origin.address)
        assert (exchange.host, exchange.target) == (b"127.0.0.1:%d" % origin.port, b"/a//b?c=%2f")


@pytest.mark.parametrize(("forwarded", "field"), [("x-forwarded", b"x-forwarded-for"), ("rfc7239", b"forwarded")])
@live
async def test_an_origin_is_told_of_the_client_where_that_is_wanted(forwarded: str, field: bytes) -> None:
    seen: list[Message] = []
    async with Origin(noting(seen, lambda request: ok())) as origin, proxy(forwarded=forwarded) as site:
        await site.ask(get(origin, fields=b"X-Forwarded-For: 192.0.2.1\r\n"))
        assert b"127.0.0.1" in seen[0][field] and b"192.0.2.1" not in seen[0][field]


@live
async def test_connections_to_an_origin_are_kept() -> None:
    async with Origin(always(ok())) as origin, proxy() as site:
        client = await site.client()
        for _ in range(3):
            await client.send(get(origin))
            assert (await client.response()).body == b"ok"
        await site.ask(get(origin))
        assert origin.accepted == 1
        assert [(await site.exchange()).reused for _ in range(4)] == [False, True, True, True]


@live
async def test_hosts_of_one_address_share_no_connection() -> None:
    seen: list[Message] = []
    with DnsServer() as names:
        for name in ("a.test", "b.test"):
            names.records[name, "A"] = ["127.0.0.1"]
        async with (
            Origin(noting(seen, lambda request: ok(request[b"host"]))) as origin,
            proxy({"resolver": names.address}) as site,
        ):
            client = await site.client()
            for host in (b"a.test", b"b.test", b"A.test", b"b.test"):
                await client.send(get(origin, host=host))
                assert (await client.response()).body == b"%b:%d" % (host, origin.port)
            assert origin.accepted == 2


@live
async def test_a_destination_that_has_moved_is_asked_where_it_is_now() -> None:
    with DnsServer() as names:
        names.ttl = 0
        async with (
            Origin(always(ok(b"old"))) as old,
            Origin(always(ok(b"new")), host="127.0.0.2", port=old.port),
            proxy({"resolver": names.address}) as site,
        ):
            names.records["a.test", "A"] = ["127.0.0.1"]
            client = await site.client(get(old, host=b"a.test"))
            assert (await client.response()).body == b"old"
            names.records["a.test", "A"] = ["127.0.0.2"]
            await client.send(get(old, host=b"a.test"))
            assert (await client.response()).body == b"new"


@live
async def test_the_next_address_is_asked_when_one_refuses() -> None:
    with DnsServer() as names:
        lan = {"allow": ["127.0.0.0/8", "::1/128"], "resolver": names.address}
        async with Origin(always(ok())) as origin, proxy(lan) as site:
            for _ in range(2):
                assert (await site.ask(get(origin, host=b"localhost"))).body == b"ok"
            first, second = await site.exchange(), await site.exchange()
            assert first.endpoint == second.endpoint == origin.address
            refused, came = (f"[::1]:{origin.port}", "connection_refused"), (origin.address, "")
            assert [attempt[:2] for attempt in first.attempts] == [refused, came]
            assert not second.attempts and second.reused


@live
async def test_the_least_used_destinations_are_forgotten() -> None:
    with DnsServer() as names:
        for number in range(4):
            names.records[f"{number}.test", "A"] = ["127.0.0.1"]
        async with Origin(always(ok())) as origin, proxy({"resolver": names.address}) as site:
            destinations = site.entry.app._app.onward
            destinations._most = 2
            for number in (0, 1, 0, 2, 0, 1):
                await site.ask(get(origin, host=b"%d.test" % number))
            assert origin.accepted == 4  # 0, 1, 2, and 1 again
            assert len(destinations._known) == 2


@live
async def test_so_many_connections_are_kept_to_all_origins() -> None:
    async with (
        Origin(always(ok())) as one,
        Origin(always(ok())) as two,
        Origin(always(ok())) as three,
        proxy(max_idle=2) as site,
    ):
        client = await site.client()

        async def visit(*origins: Origin) -> list[int]:
            for origin in origins:
                await client.send(get(origin))
                await client.response()
            return [each.accepted for each in (one, two, three)]

        assert await visit(one, two, one) == [1, 1, 0]
        assert await visit(three) == [1, 1, 1]  # and two's is closed, which was idle for longest
        await until(two.peers[0].writer.is_closing)
        assert await visit(one, three, one) == [1, 1, 1]
        assert await visit(two) == [1, 2, 1]  # in the place of three's
        await until(three.peers[0].writer.is_closing)
        one.peers[0].close()  # one that ends leaves its place
        idle = site.entry.app._app.onward._idle
        await until(lambda: len(idle) == 1)
        assert await visit(three, two, three) == [1, 2, 2]
        assert site.cells[Fact.UPSTREAM_OPEN] == len(idle) == 2


@live
async def test_no_connection_is_kept_where_that_is_wanted() -> None:
    async with Origin(always(ok())) as origin, proxy(max_idle=0) as site:
        for number in range(1, 4):
            assert (await site.ask(get(origin))).body == b"ok"
            await until(lambda: not site.cells[Fact.UPSTREAM_OPEN])
            assert origin.accepted == number


@live
async def test_bodies_and_trailers_both_ways() -> None:
    async def handler(peer: Peer) -> None:
        head = await peer.head()
        assert (head[b"transfer-encoding"], head[b"trailer"]) == (b"chunked", b"x-sum")
        seen.append(await peer.reader.readuntil(b"x-sum: 9\r\n\r\n"))
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n")
        await peer.send(b"3\r\nfoo\r\n3\r\nbar\r\n0\r\nx-t: u\r\n\r\n")

    seen: list[bytes] = []
    async with Origin(handler) as origin, proxy() as site:
        head = b"POST http://%b/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
        client = await site.client(head % origin.address.encode())
        await client.send(b"5\r\nhello\r\n")
        await client.send(b"1\r\n!\r\n0\r\nx-sum: 9\r\n\r\n")
        answer = await client.head()
        assert (answer[b"transfer-encoding"], answer[b"trailer"]) == (b"chunked", b"x-t")
        rest = await client.reader.readuntil(b"x-t: u\r\n\r\n")
        assert b"foo" in rest and b"bar" in rest
    assert b"hello" in seen[0] and b"!" in seen[0]


@live
async def test_the_origin_asks_for_the_body() -> None:
    async def handler(peer: Peer) -> None:
        assert (await peer.head())[b"expect"] == b"100-continue"
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.reader.readexactly(5) == b"hello"
        await peer.send(ok())

    async with Origin(handler) as origin, proxy() as site:
        head = b"PUT http://%b/ HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        client = await site.client(head % origin.address.encode())
        interim = await client.head()
        assert interim.status == 100 and interim[b"via"] == b"1.1 " + site.via
        await client.send(b"hello")
        assert (await client.response()).body == b"ok"


@live
async def test_an_upgrade_is_a_tunnel() -> None:
    async def handler(peer: Peer) -> None:
        assert (await peer.head())[b"upgrade"] == b"websocket"
        await peer.send(SWITCHED)
        await echo(peer)

    async with Origin(handler) as origin, proxy({"max_tunnels_per_client": 1}) as site:
        client = await site.client(get(origin, b"/chat", ASKED) + b"early")
        head = await client.head()
        assert (head.status, head[b"upgrade"], head[b"via"]) == (101, b"websocket", b"1.1 " + site.via)
        assert await client.reader.readexactly(5) == b"early"
        assert site.cells[site.entry.tunnels_cell] == 1
        assert why(await site.ask(connect(origin))) == (429, b"tunnel_limit")
        assert why(await site.ask(get(origin, fields=ASKED))) == (429, b"tunnel_limit")
        client.writer.write_eof()
        assert await client.ends() == b""
        assert [told(await site.exchange()) for _ in range(3)] == [(429, "tunnel_limit")] * 2 + [(101, "")]


@live
async def test_a_kept_connection_that_the_origin_has_closed() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        if origin.accepted == 1:
            await peer.head()  # the next one gets no answer

    async with Origin(handler) as origin, proxy() as site:
        client = await site.client(get(origin))
        await client.response()
        await client.send(get(origin))
        assert (await client.response()).body == b"ok"
        assert origin.accepted == 2


@live
async def test_what_went_round_goes_no_further() -> None:
    async with Origin(always(ok())) as origin, proxy() as site:
        via = b"via: 1.1 a, 1.1 %b\r\n" % site.via
        assert why(await site.ask(get(origin, fields=via))) == (508, b"loop_detected")
        assert why(await site.ask(connect(origin, via))) == (508, b"loop_detected")
        assert not origin.accepted


@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE"])
@live
async def test_max_forwards(method: bytes) -> None:
    seen: list[Message] = []
    secret = b"proxy-authorization: Basic YTpi\r\n"
    line = b"%b http://%%b/ HTTP/1.1\r\nhost: a\r\n%bmax-forwards: %%d\r\n\r\n" % (method, secret)
    async with Origin(noting(seen, lambda request: ok())) as origin, proxy() as site:
        answer = await site.ask(line % (origin.address.encode(), 0))
        assert answer.status == 200 and not origin.accepted and b"YTpi" not in answer.body
        assert (await site.ask(line % (origin.address.encode(), 1))).body == b"ok"
        assert seen[0][b"max-forwards"] == b"0"


@pytest.mark.parametrize(
    ("version", "said", "keeps"),
    [(b"0", b"keep-alive", True), (b"0", b"close", False), (b"1", b"keep-alive", True), (b"1", b"close", False)],
)
@live
async def test_proxy_connection_decides_about_the_clients_own(version: bytes, said: bytes, keeps: bool) -> None:
    async with Origin(always(ok())) as origin, proxy() as site:
        request = b"GET http://%b/ HTTP/1.%b\r\nhost: a\r\nproxy-connection: %b\r\n\r\n"
        client = await site.client(request % (origin.address.encode(), version, said))
        answer = await client.response()
        assert b"proxy-connection" not in answer
        expected = b"keep-alive" if keeps else b"close"
        assert answer.all(b"connection") == ([] if keeps and version == b"1" else [expected])
        if keeps:
            await client.send(get(origin))
            assert (await client.response()).body == b"ok"
        else:
            assert await client.ends() == b""
        assert origin.accepted == 1


@live
async def test_what_fails_on_the_way_has_its_reason() -> None:
    async def silent(peer: Peer) -> None:
        await peer.head()
        await peer.ends()

    async def garbage(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"garbage\r\n\r\n")

    with DnsServer() as names:
        names.says["slow.test"] = ""
        site = proxy({"resolver": names.address}, response_timeout="100ms", connect_timeout="200ms")
        async with Origin(silent) as mute, Origin(garbage) as mad, site:
            nobody = Origin(silent, port=closed_port())
            assert why(await site.ask(get(nobody))) == (502, b"connection_refused")
            assert why(await site.ask(connect(nobody))) == (502, b"connection_refused")
            assert why(await site.ask(get(mute, host=b"unknown.test"))) == (502, b"dns_error")
            assert why(await site.ask(connect(mute, host=b"unknown.test"))) == (502, b"dns_error")
            assert why(await site.ask(get(mute, host=b"slow.test"))) == (504, b"connection_timeout")
            assert why(await site.ask(connect(mute, host=b"slow.test"))) == (504, b"connection_timeout")
            assert why(await site.ask(get(mute))) == (504, b"http_response_timeout")
            assert why(await site.ask(get(mad))) == (502, b"http_protocol_error")
            assert (await site.exchange()).endpoint == nobody.address
            assert (await site.exchange()).endpoint == nobody.address


# What is no request here.


@pytest.mark.parametrize("step", [0, 1], ids=["at once", "byte by byte"])
@live
async def test_what_can_not_be_read_in_one_way(step: int) -> None:
    async with proxy(reason_header=True) as site:
        for name, ((status, reason), data) in REFUSED.items():
            client = await site.client()
            if step:
                for at in range(len(data)):
                    client.writer.write(data[at : at + 1])
                    await asyncio.sleep(0)
            else:
                client.writer.write(data)
            answer = await client.response()
            assert await client.ends() == b"", name
            said = answer[b"x-gateway-reason"].decode()
            assert (answer.status, said) == (status, reason) or step, name
            assert b"secret" not in answer.head + answer.body
            exchange = await site.exchange()
            assert exchange.reason == said and b"secret" not in exchange.target and not exchange.user


@live
async def test_a_reverse_proxy_is_none_of_this() -> None:
    async with Origin(always(ok())) as origin, Site(origin) as site:
        assert why(await site.ask(connect(origin)))[0] == 405
        assert (await site.ask(get(origin))).body == b"ok"


# Who may use it.


@pytest.fixture
def auth(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "htpasswd"
    path.write_bytes(user_line(b"ann", PASSWORD))
    return {"htpasswd": str(path), "realm": "the proxy"}


MISSING, INVALID = "proxy_auth_required", "proxy_credentials_invalid"


@pytest.mark.parametrize("ask", [get, connect])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (b"", MISSING),
        (b"authorization: Basic " + b64encode(b"ann:" + PASSWORD) + b"\r\n", MISSING),
        (credentials(password=b"wrong"), INVALID),
        (credentials(user=b"nobody"), INVALID),
        (credentials(user=b""), INVALID),
        (credentials(scheme=b"Bearer"), INVALID),
        (b"proxy-authorization: Basic\r\n", INVALID),
        (b"proxy-authorization: Basic YW5u\r\n", INVALID),
        (b"proxy-authorization: Basic !!!!\r\n", INVALID),
        (b"proxy-authorization: Basic %b\r\n" % b64encode(b"\xff:x"), INVALID),
        (b"proxy-authorization: Basic %b\r\n" % (b"A" * 2000), INVALID),
    ],
)
@live
async def test_a_stranger(ask: Callable[..., bytes], fields: bytes, reason: str, auth: dict[str, str]) -> None:
    async with Origin(always(ok())) as origin, proxy(auth=auth) as site:
        answer = await site.ask(ask(origin, fields=fields))
        assert why(answer) == (407, reason.encode())
        assert answer[b"proxy-authenticate"] == b'Basic realm="the proxy", charset="UTF-8"'
        exchange = await site.exchange()
        assert (told(exchange), exchange.user) == ((407, reason), "")
        assert not origin.accepted


@pytest.mark.parametrize("scheme", [b"Basic", b"basic", b"BASIC"])
@live
async def test_a_user(scheme: bytes, auth: dict[str, str]) -> None:
    seen: list[Message] = []
    async with Origin(noting(seen, lambda request: ok())) as origin, proxy(auth=auth) as site:
        client = await site.client(get(origin))
        assert (await client.response()).status == 407
        await client.send(get(origin, fields=credentials(scheme=scheme) + b"authorization: Basic eDp5\r\n"))
        assert (await client.response()).body == b"ok"  # on the same connection
        assert seen[0][b"authorization"] == b"Basic eDp5" and b"proxy-authorization" not in seen[0]
        assert [(await site.exchange()).user for _ in range(2)] == ["", "ann"]
        tunnel = await opened(site, origin, credentials(scheme=scheme))
        tunnel.reset()
        assert (await site.exchange()).user == "ann"


@live
async def test_a_tunnel_carries_nothing_of_who_asked_for_it(auth: dict[str, str]) -> None:
    async def handler(peer: Peer) -> None:
        heard.append(await peer.ends())

    heard: list[bytes] = []
    async with Origin(handler) as origin, proxy(auth=auth) as site:
        client = await opened(site, origin, credentials(), b"only this")
        client.writer.write_eof()
        await client.ends()
        await until(lambda: heard == [b"only this"])


@live
async def test_what_was_meant_for_a_tunnel_is_never_a_request(auth: dict[str, str]) -> None:
    async with Origin(always(ok())) as origin, proxy(auth=auth) as site:
        client = await site.client(connect(origin) + get(origin, b"/smuggled", credentials()))
        answer = await client.response()
        assert (answer.status, answer[b"connection"]) == (407, b"close")
        await client.send(get(origin, b"/later", credentials()))
        assert await client.ends() == b""
        assert told(await site.exchange()) == (407, MISSING)
        assert site.told.empty() and not origin.accepted


# Where they may go.


@pytest.mark.parametrize("ask", [get, connect])
@pytest.mark.parametrize(
    ("egress", "rule"),
    [
        ({"deny": ["127.0.0.1/32"]}, "deny 127.0.0.1/32"),
        ({"allow": ["192.0.2.0/24"]}, "not in allow"),
        ({"allow": []}, "loopback"),
        ({"ports": ["80", "443"]}, "port"),
    ],
)
@live
async def test_where_nobody_may_go(ask: Callable[..., bytes], egress: dict[str, Any], rule: str) -> None:
    async with Origin(always(ok())) as origin, proxy(egress) as site:
        answer = await site.ask(ask(origin))
        assert why(answer) == (403, b"egress_denied")
        assert rule.encode() not in answer.head + answer.body
        exchange = await site.exchange()
        assert told(exchange) == (403, "egress_denied") and exchange.rule.startswith(rule)
        assert not origin.accepted


@live
async def test_only_addresses_that_passed_are_connected_to() -> None:
    with DnsServer() as names:
        names.records["a.test", "A"] = ["127.0.0.9", "127.0.0.1"]
        site = proxy({"resolver": names.address, "deny": ["127.0.0.9/32"]})
        async with (
            Origin(always(ok(b"good"))) as origin,
            Origin(always(ok(b"bad")), host="127.0.0.9", port=origin.port) as other,
            site,
        ):
            for _ in range(4):
                assert (await site.ask(get(origin, host=b"a.test"))).body == b"good"
                client = await site.client(connect(origin, host=b"a.test"))
                assert (await client.head()).status == 200
                await client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                assert (await client.response()).body == b"good"
            assert not other.accepted


@live
async def test_a_quota_of_bytes_counts_requests() -> None:
    async with Origin(always(ok(b"x" * 2000))) as origin, proxy({"bytes_per_client": "1KiB"}) as site:
        client = await site.client(get(origin))
        assert len((await client.response()).body) == 2000
        await client.send(get(origin))
        assert why(await client.response()) == (403, b"quota_exhausted")
        assert why(await site.ask(connect(origin))) == (403, b"quota_exhausted")


@live
async def test_a_quota_that_is_used_up_cuts_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners.bounded._CHARGE", 0.0)

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            await peer.send(b"x" * 1000)

    async with Origin(handler) as origin, proxy({"bytes_per_client": "10KiB"}) as site:
        client = await site.client(get(origin))
        await client.head()
        with pytest.raises(ConnectionError):
            while True:
                await client.reader.readexactly(100)
        assert told(await site.exchange()) == (200, "quota_exhausted")


# A request is bounded as a tunnel is.


@pytest.mark.parametrize("length", [b"content-length: 300000\r\n", b"connection: close\r\n"])
@live
async def test_both_bodies_keep_to_the_bandwidth(length: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    now = began = 1000.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("gateway.listeners.bounded.monotonic", lambda: now)
    monkeypatch.setattr("gateway.listeners.bounded.sleep", sleep)
    seen: list[Message] = []
    whole, rate = bytes(range(250)) * 1200, 50 * 1024
    answer = b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (length, whole)

    async def handler(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(answer)
        peer.writer.write_eof()

    async with Origin(handler) as origin, proxy(bandwidth="50KiB/s") as site:
        post = b"POST" + get(origin, fields=b"content-length: 300000\r\n").removeprefix(b"GET")
        assert (await site.ask(post + whole)).body == whole
        assert seen[0].body == whole
        # What comes in a tenth of a second passes at once, in each direction.
        assert now - began == pytest.approx(2 * (len(whole) / rate - 0.1), abs=0.01)


@pytest.mark.parametrize(
    ("sent", "answer", "status"),
    [
        (b"x" * 11_000, ok(), 403),
        (b"", ok(b"x" * 11_000), 403),
        (b"x" * 6000, ok(b"x" * 6000), 403),
        (b"", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, 200),
        (b"", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"3e8\r\n%b\r\n" % (b"x" * 1000) * 20, 200),
    ],
    ids=["upload", "download", "both", "until the end", "chunks"],
)
@pytest.mark.parametrize("more", [{}, {"bandwidth": "10MiB/s"}], ids=["", "paced"])
@live
async def test_a_request_that_is_too_large(sent: bytes, answer: bytes, status: int, more: dict[str, str]) -> None:
    async with Origin(always(answer)) as origin, proxy({"max_bytes": "10KiB"}, **more) as site:
        post = b"POST" + get(origin, fields=b"content-length: %d\r\n" % len(sent)).removeprefix(b"GET") + sent
        if status == 403:
            assert why(await site.ask(post)) == (403, b"tunnel_too_large")
        else:
            client = await site.client(post)
            with pytest.raises(ConnectionError):
                while True:
                    await client.reader.readexactly(100)
        exchange = await site.exchange()
        assert told(exchange) == (status, "tunnel_too_large")
        assert status == 403 or exchange.bytes_out <= 10 * 1024


@live
async def test_a_request_that_is_not_too_large() -> None:
    async with Origin(always(ok(b"x" * 5000))) as origin, proxy({"max_bytes": "10KiB"}) as site:
        client = await site.client()
        for _ in range(3):  # each on its own
            await client.send(
                b"POST" + get(origin, fields=b"content-length: 5000\r\n").removeprefix(b"GET") + b"x" * 5000
            )
            assert len((await client.response()).body) == 5000
        head = b"HEAD" + get(origin).removeprefix(b"GET")
        assert (await site.ask(head))[b"content-length"] == b"5000"


@pytest.mark.parametrize(
    ("egress", "reason", "status"),
    [({"max_duration": "100ms"}, "tunnel_too_long", 504), ({"time_per_client": "100ms"}, "quota_exhausted", 403)],
)
@pytest.mark.parametrize("begun", [False, True])
@live
async def test_an_origin_that_is_silent_for_too_long(
    egress: dict[str, str], reason: str, status: int, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.listeners.bounded._CHARGE", 0.0)

    async def handler(peer: Peer) -> None:
        await peer.head()
        if begun:
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        await peer.ends()

    async with Origin(handler) as origin, proxy(egress) as site:
        client = await site.client(get(origin))
        if begun:
            assert (await client.head()).status == 200
            with pytest.raises(ConnectionError):
                await client.reader.readexactly(5)
        else:
            assert why(await client.response()) == (status, reason.encode())
        assert told(await site.exchange()) == (200 if begun else status, reason)
        if reason == "quota_exhausted":
            assert why(await site.ask(get(origin))) == (403, b"quota_exhausted")
            assert (await site.exchange()).rule == "time_per_client"


@live
async def test_an_upgrade_has_the_bounds_of_a_tunnel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners.bounded._CHARGE", 0.0)

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCHED)
        await echo(peer)

    bounds = {"max_bytes": "10KiB", "max_duration": "60s", "time_per_client": "60s"}
    async with Origin(handler) as origin, proxy(bounds, bandwidth="1MiB/s") as site:
        client = await site.client(get(origin, b"/chat", ASKED))
        assert (await client.head()).status == 101
        await client.send(b"x" * 5000)
        assert len(await client.reader.readexactly(5000)) == 5000
        await client.send(b"x" * 1000)
        with pytest.raises(ConnectionError):
            await client.reader.readexactly(1000)
        assert told(await site.exchange()) == (101, "tunnel_too_large")


# Tunnels.


@pytest.mark.parametrize("version", [b"0", b"1"])
@live
async def test_a_tunnel(version: bytes) -> None:
    async with Origin(echo) as origin, proxy() as site:
        asked = connect(origin, b"Proxy-Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1." + version)
        client = await site.client(asked + b"early ")
        head = await client.head()
        assert head.start == b"HTTP/1.1 200 Connection established"
        assert [name for name, _ in head.fields] == [b"date"]
        assert site.cells[site.entry.tunnels_cell] == 1
        await client.send(b"\x00\xff")
        assert await client.reader.readexactly(8) == b"early \x00\xff"
        client.writer.write_eof()
        assert await client.ends() == b""
        exchange = await site.exchange()
        assert told(exchange) == (200, "")
        assert (exchange.bytes_in, exchange.bytes_out, exchange.endpoint) == (8, 8, origin.address)
        assert exchange.method == b"CONNECT"
        assert exchange.host == exchange.target == origin.address.encode()
        assert exchange.connect_time > 0


@live
async def test_a_tunnel_asked_for_with_a_length_of_nothing() -> None:
    async with Origin(echo) as origin, proxy() as site:
        client = await opened(site, origin, b"Content-Length: 0\r\n", b"early")
        assert await client.reader.readexactly(5) == b"early"


@pytest.mark.parametrize("more", [{}, {"bandwidth": "10MiB/s"}], ids=["", "paced"])
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    ("data", "sni"),
    [
        (real("Secret.Example.com", ["h2"]), "secret.example.com"),
        (hello(server_name(b"b.example"), size=20), "b.example"),
        (real(None), ""),
        (b"SSH-2.0-x\r\n", ""),
        (b"\x16\x03\x01", ""),
    ],
    ids=["a name", "records", "no name", "no hello", "half of one"],
)
@live
async def test_the_name_that_a_client_asks_for_in_a_tunnel(
    data: bytes, sni: str, early: bool, more: dict[str, Any]
) -> None:
    async with Origin(echo) as origin, proxy(**more) as site:
        client = await opened(site, origin, rest=data if early else b"")
        if early:
            assert await client.reader.readexactly(len(data)) == data
        else:
            for at in range(len(data)):  # nothing waits for the rest of it
                await client.send(data[at : at + 1])
                assert await client.reader.readexactly(1) == data[at : at + 1]
        later = hello(server_name(b"later.example"))
        await client.send(later)
        client.writer.write_eof()
        assert await client.ends() == later
        assert (await site.exchange()).sni == sni


@live
async def test_a_proxy_in_front_says_whose_tunnel_it_is() -> None:
    said = b"PROXY TCP4 192.0.2.7 127.0.0.1 1234 80\r\n"
    front = {"accept": "require", "from": ["127.0.0.0/8"]}
    async with Origin(echo) as origin, proxy({"max_tunnels_per_client": 1}, proxy_protocol=front) as site:
        client = await site.client(said + connect(origin) + b"x")
        assert (await client.head()).status == 200
        assert await client.reader.readexactly(1) == b"x"
        other = await site.client(said.replace(b".7", b".8") + connect(origin))
        assert (await other.head()).status == 200
        assert why(await site.ask(said + connect(origin))) == (429, b"tunnel_limit")
        client.reset()
        other.reset()
        assert {(await site.exchange()).client for _ in range(3)} == {"192.0.2.7", "192.0.2.8"}


@pytest.mark.parametrize("ask", [get, connect])
@live
async def test_only_the_clients_that_are_listed(ask: Callable[..., bytes], auth: dict[str, str]) -> None:
    """Who is not isn't even asked for a password; where a header is believed, its address is judged."""
    refused = (403, b"client_not_allowed")
    async with Origin(always(ok())) as origin:
        async with proxy(clients=["192.0.2.0/24"], auth=auth) as site:
            assert why(await site.ask(ask(origin))) == refused
            exchange = await site.exchange()
            assert (told(exchange), exchange.client) == ((403, "client_not_allowed"), "127.0.0.1")
        front = {"accept": "require", "from": ["127.0.0.0/8"]}
        async with proxy(clients=["192.0.2.0/24", "2001:db8::/32"], proxy_protocol=front) as site:
            said = b"PROXY TCP4 %b 127.0.0.1 1234 80\r\n"
            assert why(await site.ask(said % b"198.51.100.7" + ask(origin))) == refused
            assert origin.accepted == 0
            client = await site.client(said % b"192.0.2.7" + ask(origin))
            assert (await client.head()).status == 200
            client.reset()


@live
async def test_who_speaks_first_is_heard() -> None:
    async def handler(peer: Peer) -> None:
        await peer.send(b"220 hello\r\n")
        peer.writer.write_eof()
        heard.append(await peer.ends())

    heard: list[bytes] = []
    async with Origin(handler) as origin, proxy() as site:
        client = await opened(site, origin)
        assert await client.ends() == b"220 hello\r\n"
        await client.send(b"still here")
        client.writer.write_eof()
        await until(lambda: heard == [b"still here"])


@live
async def test_an_end_that_came_before_the_tunnel_passes_through() -> None:
    async with Origin(echo) as origin, proxy() as site:
        client = await site.client(connect(origin) + b"all there is")
        client.writer.write_eof()
        data = await client.ends()
        assert data.startswith(b"HTTP/1.1 ") and b" 200 Connection established\r\n" in data
        assert data.endswith(b"\r\n\r\nall there is")


@pytest.mark.parametrize("who", ["client", "origin"])
@live
async def test_a_reset_stays_a_reset(who: str) -> None:
    async def handler(peer: Peer) -> None:
        if who == "origin":
            await peer.reader.readexactly(2)
            peer.reset()
        else:
            with pytest.raises(ConnectionError):
                await peer.reader.read()
            seen.set()

    seen = asyncio.Event()
    async with Origin(handler) as origin, proxy() as site:
        client = await opened(site, origin)
        if who == "client":
            client.reset()
            await seen.wait()
        else:
            await client.send(b"go")
            with pytest.raises(ConnectionError):
                await client.reader.read()
        assert told(await site.exchange()) == (200, "tunnel_reset")


@pytest.mark.parametrize("ask", [connect, get])
@live
async def test_one_client_has_so_many_names_looked_up(
    ask: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.listeners.resolver._OF_CLIENT", 1)
    with DnsServer() as names:
        names.says["slow.test"] = ""
        async with Origin(echo) as origin, proxy({"resolver": names.address}) as site:
            client = await site.client(ask(origin, host=b"slow.test"))
            await until(lambda: names.asked["slow.test", "A"])
            assert why(await site.ask(ask(origin, host=b"other.test"))) == (502, b"dns_error")
            client.reset()
            assert {told(await site.exchange()) for _ in range(2)} == {(502, "dns_error"), (499, "client_gone")}
            assert not names.asked["other.test", "A"]


@live
async def test_a_client_that_goes_while_its_destination_is_looked_up() -> None:
    with DnsServer() as names:
        names.says["slow.test"] = ""
        async with Origin(echo) as origin, proxy({"resolver": names.address}) as site:
            for ask in (connect, get):
                client = await site.client(ask(origin, host=b"slow.test"))
                await until(lambda: names.asked["slow.test", "A"])
                client.reset()
                assert told(await site.exchange()) == (499, "client_gone")
            assert not site.cells[site.entry.tunnels_cell]


@live
async def test_the_bounds_of_a_tunnel() -> None:
    async with Origin(echo) as origin:
        async with proxy({"max_bytes": "10KiB"}) as site:
            client = await opened(site, origin, rest=b"x" * 20_000)
            with pytest.raises(ConnectionError):
                while True:
                    await client.reader.readexactly(100)
            assert told(await site.exchange()) == (200, "tunnel_too_large")
        async with proxy(idle_timeout="100ms") as site:
            client = await opened(site, origin)
            assert await client.ends() == b""
            assert told(await site.exchange()) == (200, "tunnel_idle_timeout")


@live
async def test_a_place_is_given_back() -> None:
    async with Origin(echo) as origin, proxy({"max_tunnels_per_client": 1}) as site:
        nobody = Origin(echo, port=closed_port())
        for _ in range(2):
            assert why(await site.ask(connect(nobody))) == (502, b"connection_refused")
            client = await opened(site, origin)
            assert why(await site.ask(connect(origin))) == (429, b"tunnel_limit")
            client.reset()
            for _ in range(3):
                await site.exchange()


@pytest.mark.parametrize("on_reload", ["drain", "close"])
@live
async def test_a_worker_that_leaves(on_reload: str) -> None:
    async with Origin(echo) as origin, proxy(on_reload=on_reload) as site:
        client = await opened(site, origin)
        late = await site.client()
        site.entry.draining = True
        [*connections] = site.entry.connections
        for connection in connections:
            connection.drain()
        if on_reload == "close":
            with pytest.raises(ConnectionError):
                await client.reader.read()
            assert told(await site.exchange()) == (200, "drain_timeout")
            await late.send(connect(origin))
            assert why(await late.response())[0] == 503
            return
        await client.send(b"still")
        assert await client.reader.readexactly(5) == b"still"
        for connection in connections:
            connection.abort()
        with pytest.raises(ConnectionError):
            await client.reader.read()
        assert told(await site.exchange()) == (200, "drain_timeout")


PIECES = st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=8)


@settings(max_examples=25)
@given(out=PIECES, early=st.binary(max_size=100))
def test_a_tunnel_changes_nothing(out: list[bytes], early: bytes) -> None:
    @live
    async def play() -> None:
        async with Origin(echo) as origin, proxy() as site:
            client = await opened(site, origin, rest=early)
            for piece in out:
                await client.send(piece)
                await asyncio.sleep(0)
            client.writer.write_eof()
            assert await client.ends() == early + b"".join(out)

    play()


def test_nothing_is_left_open(auth: dict[str, str]) -> None:
    @live
    async def play() -> None:
        async with Origin(echo) as tunnelled, Origin(always(ok())) as origin, proxy(auth=auth) as site:
            for fields in (credentials(), b""):
                await site.ask(get(origin, fields=fields))
                client = await site.client(connect(tunnelled, fields) + b"x")
                await client.head()
                client.reset()
            for _ in range(4):
                await site.exchange()

    play()  # what is made once for the process is made by now
    before = descriptors()
    play()
    assert descriptors() == before
