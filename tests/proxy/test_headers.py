"""The head that goes on to the endpoint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy import headers
from gateway.proxy.headers import asking_lines, outbound, upgrade_asked
from gateway.wire import HOP_BY_HOP, IDENTITY, RequestHead, read_request, went_round
from tests.upstream.peer import Message

INTRODUCED = b"\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: example.com"


def request(*lines: bytes, line: bytes = b"GET /a HTTP/1.1") -> RequestHead:
    found = read_request(b"\r\n".join((line, b"Host: example.com", *lines, b"", b"")))
    assert found is not None
    return found[0]


def sent(*lines: bytes, line: bytes = b"GET /a HTTP/1.1", host: bytes = b"Host: example.com") -> Message:
    """What the endpoint gets for a request of these lines."""
    found = read_request(b"\r\n".join((line, *((host,) if host else ()), *lines, b"", b"")))
    assert found is not None
    head = found[0]
    head.introduced = INTRODUCED
    asking = asking_lines(head, b"", False) if head.fields.asking else b""
    data = outbound(head, head.start, head.special.get(b"host") or b"10.0.0.1:80", b"gw", asking)
    assert data.endswith(b"\r\n\r\n") and data.count(b"\r\n\r\n") == 1
    start, *rest = data[:-4].split(b"\r\n")
    pairs = (one.partition(b":") for one in rest)
    return Message(data, start, tuple((name, value.strip(b" ")) for name, _, value in pairs))


def test_ordinary_fields_go_on_as_they_came_and_in_order() -> None:
    lines = (b"Accept:*/*", b"Cookie: a=1", b"X-Twice: 1", b"x-twice:  2 ", b"X-twice: 1", b"Date: today", b"From: me")
    head = sent(*lines)
    assert head.head.startswith(b"GET /a HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n")


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP - {b"transfer-encoding", b"connection"}))
def test_what_ends_at_this_hop_stays_here(name: bytes) -> None:
    for spelt in (name, name.upper(), name.title()):
        assert name not in sent(b"X-A: 1", spelt + b": something", b"X-B: 2")


def test_what_connection_names_stays_here() -> None:
    head = sent(b"Connection: X-One, keep-alive", b"X-One: 1", b"X-Oneself: 2", b"connection: x-two", b"X-TWO: 3")
    assert not any(name in head for name in (b"connection", b"x-one", b"x-two"))
    assert head[b"x-oneself"] == b"2"


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"via", b"host"])
def test_connection_can_not_remove_what_we_say(name: bytes) -> None:
    assert name in sent(b"Connection: " + name)


@pytest.mark.parametrize("name", sorted(IDENTITY))
def test_a_client_can_not_introduce_itself(name: bytes) -> None:
    head = sent(name.title() + b": spoofed", name + b": again", b"X-Ordinary: 1")
    assert b"spoofed" not in head.head and b"again" not in head.head
    assert head[b"x-forwarded-for"] == b"192.0.2.7"
    assert head[b"x-forwarded-proto"] == b"http"
    assert head[b"x-forwarded-host"] == b"example.com"


def test_the_host_is_preserved() -> None:
    assert sent(host=b"HOST:  Example.COM:8080 ")[b"host"] == b"Example.COM:8080"
    head = sent(line=b"GET http://other.example/a HTTP/1.1")
    assert head[b"host"] == b"other.example"
    assert head.start == b"GET /a HTTP/1.1"


@pytest.mark.parametrize("host", [b"", b"Host:"])
def test_without_a_host_the_endpoint_s_own_is_said(host: bytes) -> None:
    assert sent(line=b"GET /a HTTP/1.0", host=host)[b"host"] == b"10.0.0.1:80"


@pytest.mark.parametrize(
    ("line", "lines", "expected"),
    [
        (b"GET /a HTTP/1.1", (), b"1.1 gw"),
        (b"GET /a HTTP/1.0", (), b"1.0 gw"),
        (b"GET /a HTTP/1.1", (b"Via: 1.0 fred",), b"1.0 fred, 1.1 gw"),
        (b"GET /a HTTP/1.1", (b"Via: 1.0 fred", b"X: y", b"via: 1.1 bob"), b"1.0 fred, 1.1 bob, 1.1 gw"),
    ],
)
def test_via(line: bytes, lines: tuple[bytes, ...], expected: bytes) -> None:
    assert sent(*lines, line=line)[b"via"] == expected


@pytest.mark.parametrize(
    ("lines", "length", "coding"),
    [
        ((), [], []),
        ((b"Content-Length: 0",), [b"0"], []),
        ((b"CONTENT-LENGTH:  007",), [b"7"], []),
        ((b"Transfer-Encoding: Chunked",), [], [b"chunked"]),
    ],
)
def test_framing_is_written_anew(lines: tuple[bytes, ...], length: list[bytes], coding: list[bytes]) -> None:
    head = sent(*lines, line=b"POST /a HTTP/1.1")
    assert (head.all(b"content-length"), head.all(b"transfer-encoding")) == (length, coding)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((b"TE: trailers", b"Connection: TE"), {b"te": b"trailers", b"connection": b"te"}),
        ((b"TE: gzip;q=0.5, Trailers",), {b"te": b"trailers", b"connection": b"te"}),
        ((b"TE: gzip",), {}),
        ((b"Trailer: X-A, content-length, X-B", b"Transfer-Encoding: chunked"), {b"trailer": b"x-a, x-b"}),
        ((b"Trailer: X-A", b"Content-Length: 2"), {}),
        ((b"Max-Forwards: 5",), {b"max-forwards": b"5"}),  # counts for OPTIONS and TRACE alone
        ((b"Expect: 100-continue", b"Content-Length: 2"), {}),  # whether it is asked on is the caller's to say
    ],
)
def test_what_asks_something_of_the_next_hop(lines: tuple[bytes, ...], expected: dict[bytes, bytes]) -> None:
    head = sent(*lines, line=b"POST /a HTTP/1.1")
    names = (b"te", b"trailer", b"max-forwards", b"expect", b"connection", b"upgrade")
    assert {name: head[name] for name in names if name in head} == expected


def test_an_expectation_and_an_upgrade_go_on_when_asked_for() -> None:
    lines = asking_lines(request(b"TE: trailers"), b"websocket", True)
    assert lines.split(b"\r\n")[1:] == [
        b"te: trailers", b"upgrade: websocket", b"expect: 100-continue", b"connection: te, upgrade"
    ]  # fmt: skip


@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE"])
def test_max_forwards_counts_down(method: bytes) -> None:
    line = method + b" /a HTTP/1.1"
    assert sent(b"Max-Forwards: 5", line=line)[b"max-forwards"] == b"4"
    assert not headers.last_hop(request(b"Max-Forwards: 1", line=line))
    assert headers.last_hop(request(b"Max-Forwards: 0", line=line))
    assert not headers.last_hop(request(b"Max-Forwards: 0"))
    for wrong in (b"", b"x", b"-1", b"1, 2", b"9999999999"):
        assert headers.hops_malformed(request(b"Max-Forwards: " + wrong, line=line))
        assert not headers.hops_malformed(request(b"Max-Forwards: " + wrong))


@pytest.mark.parametrize(
    ("via", "expected"),
    [
        (b"1.1 gw", True), (b"1.0 a, 1.1 GW (comment), 1.1 b", True), (b"HTTP/1.1 gw", True),
        (b"1.1 gw2", False), (b"1.1 a (gw)", False), (b"gw", False), (b"", False), (b",", False),
    ],
)  # fmt: skip
def test_our_own_name_in_via_is_a_loop(via: bytes, expected: bool) -> None:
    assert went_round(request(b"Via: " + via), b"gw") is expected


@pytest.mark.parametrize(
    ("lines", "allowed", "expected"),
    [
        ((b"Upgrade: WebSocket", b"Connection: keep-alive, Upgrade"), {b"websocket"}, b"WebSocket"),
        ((b"Upgrade: foo/2, websocket", b"Connection: upgrade"), {b"websocket"}, b"websocket"),
        ((b"Upgrade: foo/2, websocket", b"Connection: upgrade"), None, b"foo/2, websocket"),
        ((b"Upgrade: foo/2", b"Connection: upgrade"), {b"websocket"}, b""),
        ((b"Upgrade: websocket", b"Connection: upgrade"), set(), b""),
        ((b"Upgrade: websocket",), None, b""),  # not named by Connection: not meant for us
        ((b"Upgrade: websocket", b"Connection: upgrade", b"Content-Length: 1"), None, b""),
        ((b"Connection: upgrade",), None, b""),
    ],
)
def test_which_upgrades_are_passed_on(lines: tuple[bytes, ...], allowed: set[bytes] | None, expected: bytes) -> None:
    assert upgrade_asked(request(*lines), allowed) == expected


def test_an_old_client_can_not_upgrade() -> None:
    lines = (b"Upgrade: websocket", b"Connection: upgrade")
    assert upgrade_asked(request(*lines, line=b"GET / HTTP/1.0"), None) == b""


def test_a_trace_shows_no_secret() -> None:
    echo = headers.traced(request(b"Cookie: a=1", b"Authorization: Basic x", b"X-A: b", line=b"TRACE /a HTTP/1.1"))
    assert echo == b"TRACE /a HTTP/1.1\r\nhost: example.com\r\nx-a: b\r\n\r\n"


IN_TARGETS = sorted(set(range(0x21, 256)) - {0x7F, ord("#")})
TARGETS = st.lists(st.sampled_from(IN_TARGETS), min_size=1, max_size=40).map(bytes)


@given(TARGETS)
def test_the_target_goes_on_byte_for_byte(tail: bytes) -> None:
    assert sent(line=b"GET /%b HTTP/1.1" % tail).start == b"GET /%b HTTP/1.1" % tail


@pytest.mark.parametrize("target", [b"/a%2Fb", b"/a/../b", b"//a", b"/%zz", b"/a?b?c=%20+", b"/\xff", b"/a;b,c'd\"e"])
def test_targets_that_others_repair(target: bytes) -> None:
    assert sent(line=b"GET %b HTTP/1.1" % target).start == b"GET %b HTTP/1.1" % target
