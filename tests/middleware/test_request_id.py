from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.middleware.request_id import Options
from tests.listeners.site import Site, get
from tests.upstream.peer import Message, Origin, Peer, live, noting, ok

TRACE, PARENT = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
NEW = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def layer(**more: Any) -> list[dict[str, Any]]:
    return [{"kind": "request_id", **more}]


async def asked(fields: bytes = b"", trusted: bool = False, **options: Any) -> tuple[Message, Message, Any]:
    """What an endpoint got, what the client got, and the exchange."""
    seen: list[Message] = []
    async with (
        Origin(noting(seen, lambda request: ok(fields=b"X-Request-Id: of-the-origin\r\n"))) as origin,
        Site(origin, middleware=layer(**options), trusted_proxies=["127.0.0.1"] if trusted else []) as site,
    ):
        answer = await site.ask(get(fields=fields))
        return seen[0], answer, await site.exchange()


@live
async def test_a_request_gets_an_id_that_everybody_is_told() -> None:
    request, answer, exchange = await asked()
    assert re.fullmatch(rb"[0-9a-f]{32}", request[b"x-request-id"])
    assert answer[b"x-request-id"] == request[b"x-request-id"] == exchange.request_id.encode()
    other = await asked()
    assert other[2].request_id != exchange.request_id


@live
async def test_an_id_is_taken_from_a_trusted_proxy_only() -> None:
    fields = b"X-Request-ID: from-a-proxy_1\r\n"
    request, answer, exchange = await asked(fields, trusted=True)
    assert request[b"x-request-id"] == answer[b"x-request-id"] == b"from-a-proxy_1"
    assert exchange.request_id == "from-a-proxy_1"
    request, _, exchange = await asked(fields)
    assert request[b"x-request-id"] == exchange.request_id.encode() != b"from-a-proxy_1"


@pytest.mark.parametrize("given", [b"short", b"a" * 129, b"with space", b"", b'quote"12345', b"12345678\xff"])
def test_a_malformed_id_is_replaced(given: bytes) -> None:
    @live
    async def test() -> None:
        request, _, _ = await asked(b"X-Request-ID: " + given + b"\r\n", trusted=True)
        assert re.fullmatch(rb"[0-9a-f]{32}", request[b"x-request-id"])

    test()


@live
async def test_the_field_may_have_another_name_and_the_client_need_not_know() -> None:
    request, answer, _ = await asked(b"X-Request-ID: mine-mine\r\n", header="X-Correlation-Id", response=False)
    assert b"x-correlation-id" in request and request[b"x-request-id"] == b"mine-mine"
    assert b"x-correlation-id" not in answer and answer[b"x-request-id"] == b"of-the-origin"


@live
async def test_a_trace_is_continued() -> None:
    fields = b"traceparent: 00-%b-%b-01\r\ntracestate: a=1,b=2\r\n" % (TRACE, PARENT)
    request, _, exchange = await asked(fields)
    found = NEW.fullmatch(request[b"traceparent"])
    assert found is not None and found[1] == TRACE and found[2] != PARENT and found[3] == b"01"
    assert request[b"tracestate"] == b"a=1,b=2" and exchange.trace == TRACE.decode()


@live
async def test_a_later_version_is_continued_as_ours() -> None:
    request, _, _ = await asked(b"traceparent: cc-%b-%b-03-what-comes\r\n" % (TRACE, PARENT))
    found = NEW.fullmatch(request[b"traceparent"])
    assert found is not None and found[1] == TRACE and found[3] == b"01"


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"nonsense",
        b"00-%b-%b" % (TRACE, PARENT),
        b"00-%b-%b-01-more" % (TRACE, PARENT),
        b"ff-%b-%b-01" % (TRACE, PARENT),
        b"00-%b-%b-01" % (b"0" * 32, PARENT),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-01" % (TRACE.upper(), PARENT),
        b"00-%b-%b-0x" % (TRACE, PARENT),
        b"cc-%b-%b-01-%b" % (TRACE, PARENT, b"a" * 1000),
    ],
)
def test_a_malformed_trace_begins_anew_without_its_state(given: bytes) -> None:
    @live
    async def test() -> None:
        request, _, exchange = await asked(b"traceparent: " + given + b"\r\ntracestate: a=1\r\n")
        found = NEW.fullmatch(request[b"traceparent"])
        assert found is not None and found[1] != TRACE and found[3] == b"01"
        assert b"tracestate" not in request and exchange.trace.encode() == found[1]

    test()


@live
async def test_a_trace_may_be_begun_here_in_any_case_and_left_unrecorded() -> None:
    fields = b"traceparent: 00-%b-%b-01\r\n" % (TRACE, PARENT)
    request, _, _ = await asked(fields, trace="restart", sampled=0)
    found = NEW.fullmatch(request[b"traceparent"])
    assert found is not None and found[1] != TRACE and found[3] == b"00"
    request, _, exchange = await asked(fields, trace="off")
    assert request[b"traceparent"] == b"00-%b-%b-01" % (TRACE, PARENT) and exchange.trace == ""


@live
async def test_a_trace_is_not_taken_up_twice_from_one_request() -> None:
    other = b"traceparent: 00-%b-%b-01\r\n" % (TRACE[::-1], PARENT)
    for second in (other, b"Traceparent: 00-%b-%b-01\r\n" % (TRACE, PARENT), b"traceparent: x\r\n"):
        two = b"traceparent: 00-%b-%b-01\r\n" % (TRACE, PARENT) + second + b"tracestate: a=1\r\n"
        request, _, exchange = await asked(two)
        [parent] = request.all(b"traceparent")
        assert TRACE not in parent and TRACE[::-1] not in parent and exchange.trace.encode() in parent
        assert b"tracestate" not in request


@live
async def test_the_state_of_a_trace_may_come_in_several_fields() -> None:
    parent = b"traceparent: 00-%b-%b-01\r\n" % (TRACE, PARENT)
    request, _, _ = await asked(parent + b"tracestate: a=1\r\ntracestate: b=2\r\n")
    assert request.all(b"tracestate") == [b"a=1, b=2"]


@pytest.mark.parametrize("trace", ["continue", "off"])
@pytest.mark.parametrize("fields", [b"", b"traceparent: 00-%b-%b-01\r\ntracestate: a=1\r\n" % (TRACE, PARENT)])
def test_trailers_name_nothing(trace: str, fields: bytes) -> None:
    """Whether the head does or not: they come behind the body, and some servers put them among the fields."""
    raw = bytearray()

    async def handler(peer: Peer) -> None:
        raw.extend(await peer.reader.readuntil(b"x-sum: 1\r\n\r\n"))
        await peer.send(ok())

    @live
    async def test() -> None:
        async with Origin(handler) as origin, Site(origin, middleware=layer(trace=trace)) as site:
            more = b"transfer-encoding: chunked\r\ntrailer: x-request-id, x-sum, traceparent\r\n"
            body = b"0\r\nX-Request-Id: evil-evil\r\nTraceparent: evil\r\nTracestate: evil\r\nx-sum: 1\r\n\r\n"
            assert (await site.ask(get(b"/", fields + more, b"POST") + body)).status == 200
            _, _, trailers = bytes(raw).lower().partition(b"\r\n\r\n0\r\n")
            assert b"x-request-id" not in trailers and raw.count(b"x-request-id: ") == 1
            assert trace == "off" or b"trace" not in trailers

    test()


def test_what_may_be_said() -> None:
    assert Options().sampled == 100
