"""Copies of requests: as the primary's, and never its trouble."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest

from gateway.metrics.plan import MIRROR_DROPPED, MIRROR_FAILED, MIRROR_SENT
from gateway.proxy.mirror import Mirror
from gateway.scoreboard import Fact, Mark
from tests.listeners.site import Site, chunked, get, post, until
from tests.upstream.peer import Message, Origin, Peer, always, answering, closed_port, live, noting, ok

BODY = bytes(range(256)) * 200  # more than a read or a write of the smallest kind


def mirrored(
    *origins: Origin | str,
    mirror: str,
    more: dict[str, Any] | None = None,
    layers: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> Site:
    """A site whose route is copied. more: keys of the route; layers: around it; settings: those of its mirror."""
    upstream = settings.pop("upstream", {})
    route = {"name": "r", "upstream": "app", "mirror": {"upstream": "other", **settings}, **(more or {})}
    return Site(
        *origins,
        routes=[route],
        middleware=layers,
        others={"other": {"endpoints": [mirror], **upstream}},
    )


def outcomes(site: Site) -> dict[str, int]:
    at = site.plan.block("mirror", "r")
    cells = {"sent": MIRROR_SENT, "dropped": MIRROR_DROPPED, "failed": MIRROR_FAILED}
    return {name: site.cells[at + cell] for name, cell in cells.items() if site.cells[at + cell]}


async def came_to(site: Site, **counts: int) -> None:
    """Wait until all copies are over; then this has become of them, and nothing is left over."""
    await until(lambda: sum(outcomes(site).values()) >= sum(counts.values()))
    assert outcomes(site) == counts
    router = site.entry.app.__self__._front.__self__
    mirror = router._only.app.__self__._app.__self__
    assert isinstance(mirror, Mirror)
    copies: Any = mirror._copies
    await until(lambda: not copies._tasks)
    assert copies._held == 0


@live
async def test_a_copy_is_what_the_primary_gets() -> None:
    primary: list[Message] = []
    copies: list[Message] = []
    async with (
        Origin(noting(primary, always_ok)) as origin,
        Origin(noting(copies, always_ok)) as other,
        mirrored(origin, mirror=other.address) as site,
    ):
        fields = b"x-forwarded-for: 6.6.6.6\r\ncookie: a=b\r\nconnection: x-hop\r\nx-hop: 1\r\nte: trailers\r\n"
        response = await site.ask(get(b"/a%20b?c=d", fields))
        assert (response.status, response.body) == (200, b"ok")
        await came_to(site, sent=1)
        assert copies[0].head == primary[0].head
        assert b"via" in copies[0] and copies[0][b"x-forwarded-for"] == b"127.0.0.1"


def always_ok(request: Message) -> bytes:
    return ok()


@live
async def test_a_copy_goes_the_way_of_its_own_upstream() -> None:
    copies: list[Message] = []
    async with Origin(always(ok())) as origin, Origin(noting(copies, always_ok)) as other:
        more = {"path": "/shop", "rewrite": {"strip_prefix": True, "add_prefix": "/v1"}}
        upstream = {"host": "endpoint", "balance": "consistent_hash", "hash_key": "header:x-user"}
        mirror = f"http://{other.address}/base"
        async with mirrored(origin, mirror=mirror, more=more, upstream=upstream) as site:
            for _ in range(2):
                assert (await site.ask(get(b"/shop/x?y", b"x-user: 1\r\n"))).status == 200
            await until(lambda: outcomes(site) == {"sent": 2})
            assert [copy.start for copy in copies] == [b"GET /base/v1/x?y HTTP/1.1"] * 2
            assert copies[0][b"host"] == other.address.encode()
            assert [copy[b"x-forwarded-prefix"] for copy in copies] == [b"/shop"] * 2


@pytest.mark.parametrize(
    "request_",
    [
        post(b"x"),
        post(BODY),
        get(b"/", b"transfer-encoding: chunked\r\n", b"PUT") + chunked(b"a", b"", BODY[:1000], BODY[1000:]),
        get(b"/", b"transfer-encoding: chunked\r\n", b"PUT") + chunked(),
        get(b"/", b"transfer-encoding: chunked\r\ntrailer: x-sum\r\n", b"PUT") + b"1\r\na\r\n0\r\nx-sum: 7\r\n\r\n",
        get(b"/", b"content-length: 0\r\n", b"POST"),
        get(b"/", method=b"HEAD"),
        get(b"/", method=b"DELETE"),
    ],
    ids=lambda data: f"{data[:6]!r} {len(data)}",
)
@pytest.mark.parametrize("pieces", [1, 7])
def test_bodies_are_copied_whole(request_: bytes, pieces: int) -> None:
    primary: list[bytes] = []
    copies: list[bytes] = []

    def raw(heard: list[bytes]) -> Any:
        async def handler(peer: Peer) -> None:
            head = await peer.head()
            body = b""
            if b"transfer-encoding" in head:
                while not body.endswith((b"0\r\n\r\n", b"0\r\nx-sum: 7\r\n\r\n")):
                    body += await peer.reader.read(65536)
                body = unchunked(body)
            elif b"content-length" in head:
                body = await peer.reader.readexactly(int(head[b"content-length"]))
            heard.append(head.head + body)
            await peer.send(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")

        return handler

    @live
    async def run() -> None:
        async with (
            Origin(raw(primary)) as origin,
            Origin(raw(copies)) as other,
            mirrored(origin, mirror=other.address) as site,
        ):
            client = await site.client()
            step = len(request_) // pieces + 1
            for at in range(0, len(request_), step):
                await client.send(request_[at : at + step])
                await asyncio.sleep(0.005 if pieces > 1 else 0)
            assert (await client.response(b"HEAD")).status == 204
            await came_to(site, sent=1)
        assert copies == primary and len(copies) == 1

    run()


def unchunked(body: bytes) -> bytes:
    """The payload of a chunked body and the trailers behind it, however it was cut into chunks."""
    whole = b""
    while True:
        line, _, body = body.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            return whole + b"|" + body
        whole, body = whole + body[:size], body[size + 2 :]


@live
async def test_a_body_that_is_too_large_is_not_copied() -> None:
    async with (
        Origin(answering(lambda request: ok(request.body))) as origin,
        Origin(always(ok())) as other,
        mirrored(origin, mirror=other.address, body="1KiB") as site,
    ):
        assert (await site.ask(post(BODY))).body == BODY
        coded = get(b"/", b"transfer-encoding: chunked\r\n", b"PUT")
        assert (await site.ask(coded + chunked(BODY[:1000], BODY[1000:1025]))).body == BODY[:1025]
        assert (await site.ask(coded + chunked(BODY[:1000], BODY[1000:1024]))).body == BODY[:1024]
        await came_to(site, dropped=2, sent=1)
        assert other.accepted == 1


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.ends()


@live
async def test_a_mirror_that_hangs_fills_its_own_places_and_no_more() -> None:
    async with Origin(answering(lambda request: ok(request.body))) as origin, Origin(silent) as other:
        upstream = {"timeouts": {"response": "1s"}}
        async with mirrored(origin, mirror=other.address, max_requests=3, upstream=upstream) as site:
            for body in (b"", BODY) * 5:
                assert (await site.ask(post(body))).body == body
            assert outcomes(site) == {"dropped": 7}  # nobody has waited for the others
            await came_to(site, dropped=7, failed=3)
            assert (await site.ask(get())).status == 200
            await came_to(site, dropped=7, failed=4)


@live
async def test_the_bytes_that_are_held_have_a_limit_also_while_bodies_come() -> None:
    async with (
        Origin(answering(lambda request: ok(request.body))) as origin,
        Origin(always(ok())) as other,
        mirrored(origin, mirror=other.address, body="1KiB", max_requests=2) as site,
    ):
        slow = [await site.client(post(BODY[:1024])[:-1]) for _ in range(3)]
        await until(lambda: outcomes(site) == {"dropped": 1})
        for client in slow:
            await client.send(BODY[1023:1024])
            assert (await client.response()).body == BODY[:1024]
        await came_to(site, dropped=1, sent=2)


async def resetting(peer: Peer) -> None:
    await peer.request()
    peer.reset()


@pytest.mark.parametrize(
    ("handler", "sent"),
    [
        (resetting, 0),
        (always(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"), 0),
        (always(b"nonsense\r\n\r\n"), 0),
        (always(b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"), 0),
        (always(ok()), 1),
        (always(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"), 1),
        (always(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 None\r\n\r\n"), 1),
    ],
)
def test_what_becomes_of_a_copy(handler: Any, sent: int) -> None:
    @live
    async def run() -> None:
        async with Origin(answering(lambda request: ok(request.body))) as origin, Origin(handler) as other:
            upstream = {"timeouts": {"idle": "200ms"}}
            async with mirrored(origin, mirror=other.address, upstream=upstream) as site:
                for body in (b"", b"abc"):
                    assert (await site.ask(post(body))).body == body
                await came_to(site, **({"sent": 2} if sent else {"failed": 2}))
                assert [(await site.exchange()).reason for _ in range(2)] == ["", ""]
                assert site.well

    run()


@live
async def test_nobody_listens_at_the_mirror() -> None:
    async with (
        Origin(always(ok())) as origin,
        mirrored(origin, mirror=f"127.0.0.1:{closed_port()}") as site,
    ):
        assert (await site.ask(get())).status == (await site.ask(post(b"x"))).status == 200
        await came_to(site, failed=2)


@live
async def test_a_mirror_that_is_not_ready_gets_nothing() -> None:
    async with (
        Origin(always(ok())) as origin,
        Origin(always(ok())) as other,
        mirrored(origin, mirror=other.address) as site,
    ):
        [endpoint] = site.other("other").endpoints
        endpoint.health.record[Mark.DRAINED] = 1
        site.other("other").refresh()
        assert (await site.ask(get())).status == 200
        await came_to(site, dropped=1)
        assert other.accepted == 0


async def going_on(peer: Peer) -> None:
    """Always a little: no wait is ever long."""
    await peer.request()
    while True:
        await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(0.05)


@live
async def test_a_mirror_that_is_never_done_ends_all_the_same() -> None:
    async with Origin(always(ok())) as origin, Origin(going_on) as other:
        times = {"connect": "100ms", "response": "200ms", "idle": "100ms"}
        upstream = {"timeouts": times, "pool": {"queue_timeout": "100ms"}}
        async with mirrored(origin, mirror=other.address, upstream=upstream) as site:
            assert (await site.ask(get())).status == 200
            await came_to(site, failed=1)


@live
async def test_a_short_answer_leaves_the_connection_for_the_next_copy() -> None:
    async with (
        Origin(always(ok())) as origin,
        Origin(always(ok(b"x" * 60_000))) as other,
        mirrored(origin, mirror=other.address) as site,
    ):
        for count in range(1, 4):
            assert (await site.ask(get())).status == 200
            await came_to(site, sent=count)
        assert other.accepted == 1


@live
async def test_a_long_answer_is_not_read() -> None:
    sent = 0

    async def endless(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"x" * 65536)
            sent += 65536

    async with (
        Origin(always(ok())) as origin,
        Origin(endless) as other,
        mirrored(origin, mirror=other.address) as site,
    ):
        assert (await site.ask(get())).status == 200
        await came_to(site, sent=1)
        await until(lambda: site.cells[Fact.UPSTREAM_OPEN] == 1)  # the primary's is kept
        assert sent < 32 << 20


@live
async def test_a_kept_connection_that_is_closed_costs_no_copy() -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.request()
        peer.reset()

    async with (
        Origin(always(ok())) as origin,
        Origin(once) as other,
        mirrored(origin, mirror=other.address) as site,
    ):
        for count in range(1, 3):
            assert (await site.ask(get())).status == 200
            await came_to(site, sent=count)
        assert other.accepted == 2
        assert (await site.ask(post(b"x"))).status == 200  # what must not be made twice is not
        await came_to(site, sent=2, failed=1)


async def refusing(peer: Peer) -> None:
    """Answers without having read the body."""
    await peer.head()
    await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await peer.ends()


@live
async def test_an_early_answer_to_a_request_that_is_whole() -> None:
    """The primary fails before it has asked for the body."""
    copies: list[Message] = []
    async with (
        Origin(noting(copies, always_ok)) as other,
        mirrored(f"127.0.0.1:{closed_port()}", mirror=other.address) as site,
    ):
        assert (await site.ask(post(BODY))).status == 502
        await came_to(site, sent=1)
        assert copies[0].body == BODY


@live
async def test_an_early_answer_to_a_request_that_is_not_whole() -> None:
    async with (
        Origin(refusing) as origin,
        Origin(always(ok())) as other,
        mirrored(origin, mirror=other.address) as site,
    ):
        client = await site.client(post(BODY)[:-1])
        assert (await client.response()).status == 413
        await came_to(site, dropped=1)
        await client.send(BODY[-1:])
        assert (await site.exchange()).status == 413
        assert other.accepted == 0 and outcomes(site) == {"dropped": 1}


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_a_layer_changes_is_copied_as_the_primary_gets_it(is_chunked: bool) -> None:
    copies: list[Message] = []
    packed = gzip.compress(BODY)

    @live
    async def run() -> None:
        async with (
            Origin(always(ok())) as origin,
            Origin(noting(copies, always_ok)) as other,
            mirrored(origin, mirror=other.address, layers=[{"kind": "decompress"}]) as site,
        ):
            head = b"content-encoding: gzip\r\n"
            if is_chunked:
                request = get(b"/", head + b"transfer-encoding: chunked\r\n", b"POST") + chunked(
                    packed[:50], packed[50:]
                )
            else:
                request = post(packed, fields=head)
            assert (await site.ask(request)).status == 200
            await came_to(site, sent=1)
            assert copies[0].body == BODY

    run()


@live
async def test_a_body_that_a_layer_refuses_is_not_copied() -> None:
    async with (
        Origin(answering(lambda request: ok())) as origin,
        Origin(always(ok())) as other,
        mirrored(origin, mirror=other.address, layers=[{"kind": "body_limit", "max": "10B"}], body="1MiB") as site,
    ):
        client = await site.client(get(b"/", b"transfer-encoding: chunked\r\n", b"POST") + b"3\r\nabc\r\n")
        await until(lambda: origin.accepted)
        await client.send(chunked(BODY))
        assert (await client.response()).status == 413
        await came_to(site)
        assert (await site.exchange()).reason == "body_too_large"
        assert other.accepted == 0 and outcomes(site) == {}


@live
async def test_a_client_that_leaves_in_the_middle() -> None:
    async with (
        Origin(always(ok())) as origin,
        Origin(always(ok())) as other,
        mirrored(origin, mirror=other.address) as site,
    ):
        client = await site.client(post(BODY)[:-1])
        await until(lambda: origin.accepted)
        client.reset()
        assert (await site.exchange()).reason == "client_gone"
        await came_to(site)
        assert other.accepted == 0


@live
async def test_what_is_not_copied() -> None:
    async def switching(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")

    async with (
        Origin(switching) as origin,
        Origin(always(ok())) as other,
        mirrored(origin, mirror=other.address) as site,
    ):
        tunnel = await site.client(get(fields=b"connection: upgrade\r\nupgrade: websocket\r\n"))
        assert (await tunnel.head()).status == 101
        via = site.via
        for request, status in (
            (get(fields=b"via: 1.1 %b\r\n" % via), 508),
            (get(fields=b"max-forwards: 0\r\n", method=b"OPTIONS"), 200),
            (get(fields=b"max-forwards: x\r\n", method=b"TRACE"), 400),
        ):
            assert (await site.ask(request)).status == status
        await came_to(site)
        assert other.accepted == 0


@live
async def test_some_of_a_hundred() -> None:
    draws = [0.0, 0.124, 0.125, 0.126, 0.99]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gateway.worker.assembly.random", lambda: draws.pop(0))
        async with (
            Origin(always(ok())) as origin,
            Origin(always(ok())) as other,
            mirrored(origin, mirror=other.address, percent=12.5) as site,
        ):
            for count in range(5):
                assert (await site.ask((get(), post(b"x"))[count % 2])).status == 200
            await came_to(site, sent=2)
            assert not draws


@live
async def test_a_mirror_behind_a_split() -> None:
    copies: list[Message] = []
    async with Origin(always(ok(b"a"))) as origin, Origin(noting(copies, always_ok)) as other:
        more = {"upstream": [{"name": "app"}, {"name": "other"}], "split_key": "header:x-user"}
        async with mirrored(origin, mirror=other.address, more=more) as site:
            bodies = [(await site.ask(get(fields=b"x-user: %d\r\n" % user))).body for user in range(20)]
            await came_to(site, sent=20)
            assert len(copies) == 20 + bodies.count(b"ok") and 0 < bodies.count(b"ok") < 20
