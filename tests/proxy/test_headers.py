"""The head that goes on to the endpoint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.headers import outbound
from gateway.wire import HOP_BY_HOP, IDENTITY, read_request
from tests.upstream.peer import Message

FORWARDED = b"\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: "


def sent(*lines: bytes, line: bytes = b"GET /a HTTP/1.1", host: bytes = b"Host: example.com") -> Message:
    """What the endpoint gets for a request of these lines."""
    found = read_request(b"\r\n".join((line, *((host,) if host else ()), *lines, b"", b"")))
    assert found is not None
    data = outbound(found[0], FORWARDED, b"gw", b"10.0.0.1:80")
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
    assert head[b"host"] == head[b"x-forwarded-host"] == b"other.example"
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


def test_an_expectation_is_ours_to_meet() -> None:
    assert b"expect" not in sent(b"Expect: 100-continue", b"Content-Length: 5", line=b"POST /a HTTP/1.1")


@given(st.binary(min_size=1, max_size=40).map(lambda raw: bytes(byte for byte in raw if 0x20 < byte != 0x7F)))
def test_the_target_goes_on_byte_for_byte(tail: bytes) -> None:
    assert sent(line=b"GET /%b HTTP/1.1" % tail).start == b"GET /%b HTTP/1.1" % tail


@pytest.mark.parametrize("target", [b"/a%2Fb", b"/a/../b", b"//a", b"/%zz", b"/a?b?c=%20+", b"/\xff", b"/a;b,c'd\"e"])
def test_targets_that_others_repair(target: bytes) -> None:
    assert sent(line=b"GET %b HTTP/1.1" % target).start == b"GET %b HTTP/1.1" % target
