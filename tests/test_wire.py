"""RFC 9112 read strictly: what is a message, what is refused, and that neither depends on how the bytes arrive."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import product
from string import ascii_lowercase
from typing import Any

import pytest
from httptools import HttpRequestParser, HttpResponseParser
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.wire import (
    ChunkedBody,
    RequestHead,
    ResponseHead,
    WireError,
    is_field,
    read_request,
    read_response,
    refusal,
    tokens,
)

MAX_LINE, MAX_HEAD = 8192, 32768


def request(data: bytes) -> RequestHead:
    found = read_request(data)
    assert found is not None
    head, end = found
    assert data[:end].endswith(b"\r\n\r\n")
    return head


def response(data: bytes, bodyless: bool = False) -> ResponseHead:
    found = read_response(data, bodyless)
    assert found is not None
    return found[0]


def refused(data: bytes) -> WireError | None:
    """As a listener asks: why these bytes are no request. None when they are one."""
    try:
        found = read_request(data)
    except WireError as error:
        return error
    return refusal(data, MAX_LINE, MAX_HEAD) if found is None else None


def fields(*lines: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: example.com", *lines, b"", b""))


# What is refused.

REFUSED = {
    # Two framings, or one that can be read in two ways.
    "length and coding": (400, fields(b"Content-Length: 5", b"Transfer-Encoding: chunked")),
    "coding and length": (400, fields(b"Transfer-Encoding: chunked", b"Content-Length: 5")),
    "length zero and coding": (400, fields(b"Content-Length: 0", b"Transfer-Encoding: chunked")),
    "two lengths": (400, fields(b"Content-Length: 5", b"Content-Length: 6")),
    "two equal lengths": (400, fields(b"Content-Length: 5", b"Content-Length: 5")),
    "two lengths apart": (400, fields(b"Content-Length: 5", b"X: y", b"CONTENT-LENGTH: 5")),
    "list of lengths": (400, fields(b"Content-Length: 5, 5")),
    "length with a plus": (400, fields(b"Content-Length: +5")),
    "length with a minus": (400, fields(b"Content-Length: -5")),
    "length with a space in it": (400, fields(b"Content-Length: 5 5")),
    "length in hexadecimal": (400, fields(b"Content-Length: 0x5")),
    "length in words": (400, fields(b"Content-Length: five")),
    "length with a point": (400, fields(b"Content-Length: 5.0")),
    "length with an underscore": (400, fields(b"Content-Length: 1_0")),
    "length in another script": (400, fields(b"Content-Length: \xd9\xa5")),
    "length of nothing": (400, fields(b"Content-Length:")),
    "length of spaces": (400, fields(b"Content-Length:   ")),
    "length of 2^63": (400, fields(b"Content-Length: 9223372036854775808")),
    "length of 2^64": (400, fields(b"Content-Length: 18446744073709551616")),
    "length with quotes": (400, fields(b'Content-Length: "5"')),
    "coding after chunked": (400, fields(b"Transfer-Encoding: chunked, gzip")),
    "coding identity": (400, fields(b"Transfer-Encoding: identity")),
    "coding unknown": (400, fields(b"Transfer-Encoding: xchunked")),
    "coding of nothing": (400, fields(b"Transfer-Encoding:")),
    "coding with a tab in it": (400, fields(b"Transfer-Encoding: chun\tked")),
    "coding with parameters": (400, fields(b"Transfer-Encoding: chunked;q=1")),
    "coding with quotes": (400, fields(b'Transfer-Encoding: "chunked"')),
    "coding before chunked": (501, fields(b"Transfer-Encoding: gzip, chunked")),
    "chunked twice": (501, fields(b"Transfer-Encoding: chunked, chunked")),
    "two codings": (400, fields(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")),
    "two equal codings": (400, fields(b"Transfer-Encoding: chunked", b"transfer-encoding: chunked")),
    "coding in 1.0": (400, fields(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")),
    # Field lines.
    "space before the colon": (400, fields(b"X-A : b")),
    "tab before the colon": (400, fields(b"X-A\t: b")),
    "space before the colon of a coding": (400, fields(b"Transfer-Encoding : chunked")),
    "space before a name": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "folded by a space": (400, fields(b"X-A: b", b" c")),
    "folded by a tab": (400, fields(b"X-A: b", b"\tc")),
    "folded coding": (400, fields(b"Transfer-Encoding:", b" chunked")),
    "no colon": (400, fields(b"X-A")),
    "no name": (400, fields(b": b")),
    "name with a space": (400, fields(b"X A: b")),
    "name with a bracket": (400, fields(b"X(A): b")),
    "name with a slash": (400, fields(b"X/A: b")),
    "name that is not ASCII": (400, fields(b"X-\xc3\xa4: b")),
    "name with NUL": (400, fields(b"X\0A: b")),
    "value with NUL": (400, fields(b"X-A: b\0c")),
    "value with CR": (400, fields(b"X-A: b\rc")),
    "value with LF": (400, fields(b"X-A: b\nTransfer-Encoding: chunked")),
    "value with DEL": (400, fields(b"X-A: b\x7fc")),
    "value with BEL": (400, fields(b"X-A: b\x07c")),
    "value with VT": (400, fields(b"Content-Length: 5\x0b")),
    "value with FF": (400, fields(b"Content-Length: \x0c5")),
    # Line ends.
    "LF only": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "LF after the request line": (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    "LF after a field": (400, b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    "LF at the end": (400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    "CR only": (400, b"GET / HTTP/1.1\rHost: a\r\r"),
    "CR after a field": (400, b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"),
    "CR twice": (400, b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    # Host.
    "no Host": (400, b"GET / HTTP/1.1\r\nX: y\r\n\r\n"),
    "no field at all": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, fields(b"Host: other.example")),
    "two equal Hosts": (400, fields(b"host: example.com")),
    "two Hosts in 1.0": (400, fields(b"Host: other.example", line=b"GET / HTTP/1.0")),
    "Host with a space": (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "Host with a path": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "Host with a user": (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    "Host with a scheme": (400, b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n"),
    "Host with a query": (400, b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"),
    "Host with a fragment": (400, b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"),
    "Host with quotes": (400, b'GET / HTTP/1.1\r\nHost: a"b\r\n\r\n'),
    "Host with a backslash": (400, b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n"),
    "Host with two ports": (400, b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n"),
    "Host with a port in letters": (400, b"GET / HTTP/1.1\r\nHost: a:http\r\n\r\n"),
    "Host with a long port": (400, b"GET / HTTP/1.1\r\nHost: a:800000\r\n\r\n"),
    "Host with an open bracket": (400, b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    "Host as bare IPv6": (400, b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"),
    "Host that is not ASCII": (400, b"GET / HTTP/1.1\r\nHost: \xc3\xa4.example\r\n\r\n"),
    "invalid Host in 1.0": (400, b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n"),
    # Targets.
    "authority-form for GET": (400, fields(line=b"GET example.com:443 HTTP/1.1")),
    "CONNECT": (405, fields(line=b"CONNECT example.com:443 HTTP/1.1")),
    "CONNECT with a body": (405, fields(b"Content-Length: 5", line=b"CONNECT example.com:443 HTTP/1.1")),
    "asterisk for GET": (400, fields(line=b"GET * HTTP/1.1")),
    "relative path": (400, fields(line=b"GET index.html HTTP/1.1")),
    "absolute with a user": (400, fields(line=b"GET http://user@example.com/ HTTP/1.1")),
    "absolute without host": (400, fields(line=b"GET http:///path HTTP/1.1")),
    "absolute with quotes": (400, fields(line=b'GET http://x","status":200,"y":"/ HTTP/1.1')),
    "absolute with a backslash": (400, fields(line=b"GET http://a\\b/ HTTP/1.1")),
    "absolute with a bad port": (400, fields(line=b"GET http://a:b/ HTTP/1.1")),
    "absolute that is not ASCII": (400, fields(line=b"GET http://\xff/ HTTP/1.1")),
    "absolute with an open bracket": (400, fields(line=b"GET http://[::1/ HTTP/1.1")),
    "another scheme": (400, fields(line=b"GET ftp://example.com/ HTTP/1.1")),
    "target with a space": (400, fields(line=b"GET /a b HTTP/1.1")),
    "target with a tab": (400, fields(line=b"GET /a\tb HTTP/1.1")),
    "target with NUL": (400, fields(line=b"GET /a\0b HTTP/1.1")),
    "target with DEL": (400, fields(line=b"GET /a\x7f HTTP/1.1")),
    # Request lines.
    "no version": (400, b"GET /\r\nHost: a\r\n\r\n"),
    "no target": (400, b"GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    "two spaces": (400, fields(line=b"GET  / HTTP/1.1")),
    "space at the front": (400, fields(line=b" GET / HTTP/1.1")),
    "space at the end": (400, fields(line=b"GET / HTTP/1.1 ")),
    "tab between": (400, fields(line=b"GET\t/ HTTP/1.1")),
    "method that is no token": (400, fields(line=b"GE(T / HTTP/1.1")),
    "version in lower case": (400, fields(line=b"GET / http/1.1")),
    "version with two digits": (400, fields(line=b"GET / HTTP/1.10")),
    "version with another name": (400, fields(line=b"GET / HTTQ/1.1")),
    "version without minor": (400, fields(line=b"GET / HTTP/1")),
    "version 2": (505, fields(line=b"GET / HTTP/2.0")),
    "version 0.9": (505, fields(line=b"GET / HTTP/0.9")),
    "version 1.2": (505, fields(line=b"GET / HTTP/1.2")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    status, data = REFUSED[name]
    for _ in range(2):  # what was seen once is judged no milder the second time
        error = refused(data)
        assert error is not None
        assert error.status == status
        assert error.reason and str(error) == error.reason


@pytest.mark.parametrize("name", REFUSED)
def test_refused_also_after_a_good_request_was_seen(name: str) -> None:
    """Lines of good requests may be remembered; what is bad must not profit."""
    assert refused(fields(b"Content-Length: 5", b"X-A: b")) is None
    assert refused(fields(b"Transfer-Encoding: chunked", b"X: y")) is None
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") is None
    error = refused(REFUSED[name][1])
    assert error is not None and error.status == REFUSED[name][0]


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (414, b"GET /" + b"a" * MAX_LINE),
        (414, b"GET /" + b"a" * MAX_LINE + b" HTTP/1.1\r\nHost: a\r\n"),
        (400, b"A" * (MAX_LINE + 1)),
        (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * MAX_HEAD),
        (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (MAX_HEAD // 6)),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),  # a TLS client
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[:16] + b"\n"),
    ],
)
def test_a_beginning_that_can_only_end_badly_is_refused_before_its_end(status: int, data: bytes) -> None:
    assert read_request(data) is None
    error = refusal(data, MAX_LINE, MAX_HEAD)
    assert error is not None and error.status == status


def test_a_field_name_with_an_underscore_does_not_pass_for_another() -> None:
    """Behind CGI and WSGI both become X_FORWARDED_FOR; nginx drops them unless told otherwise."""
    head = request(fields(b"X_Forwarded_For: 1.2.3.4", b"Content_Length: 5"))
    assert b"_" not in head.lines
    assert not any(b"_" in name for name, _ in head.pairs())


@pytest.mark.parametrize("name", [b"Authorization", b"Content-Type"])
def test_a_repeated_field_that_may_occur_once_is_refused(name: bytes) -> None:
    error = refused(fields(name + b": a", name.lower() + b": b"))
    assert error is not None and error.status == 400


# What is read.


def test_a_request() -> None:
    data = b"POST /a%2Fb?c=d HTTP/1.1\r\nHost: Example.COM:8080\r\nX-A:b\r\nX-a: \t c d \t\r\nContent-Length: 5\r\n\r\nhello"
    found = read_request(data)
    assert found is not None
    head, end = found
    assert data[end:] == b"hello"
    assert (head.method, head.target, head.minor, head.length, head.keep_alive) == (b"POST", b"/a%2Fb?c=d", 1, 5, True)
    assert head.special[b"host"] == b"Example.COM:8080"
    pairs = [(b"host", b"Example.COM:8080"), (b"x-a", b"b"), (b"x-a", b"c d"), (b"content-length", b"5")]
    assert head.pairs() == list(head) == pairs
    assert len(head) == 4 and head[1] == (b"x-a", b"b") and (b"x-a", b"c d") in head
    assert head.lines.startswith(b"POST /a%2Fb?c=d HTTP/1.1\r\nX-A:b\r\n")
    assert b"Host" not in head.lines and b"Content-Length" not in head.lines


@pytest.mark.parametrize(
    ("line", "method", "target", "host", "start"),
    [
        (b"GET http://other.example/p?q HTTP/1.1", b"GET", b"/p?q", b"other.example", b"GET /p?q HTTP/1.1"),
        (b"GET HTTP://other.example:81 HTTP/1.1", b"GET", b"/", b"other.example:81", b"GET / HTTP/1.1"),
        (b"GET https://[::1]:8443/ HTTP/1.1", b"GET", b"/", b"[::1]:8443", b"GET / HTTP/1.1"),
        (b"GET http://other.example?q HTTP/1.1", b"GET", b"/?q", b"other.example", b"GET /?q HTTP/1.1"),
        (b"OPTIONS http://other.example HTTP/1.1", b"OPTIONS", b"*", b"other.example", b"OPTIONS * HTTP/1.1"),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS", b"*", b"example.com", b"OPTIONS * HTTP/1.1"),
        (b"GET /p HTTP/1.0", b"GET", b"/p", b"example.com", b"GET /p HTTP/1.1"),
        (b"GET //double//slash HTTP/1.1", b"GET", b"//double//slash", b"example.com", b"GET //double//slash HTTP/1.1"),
        (b"M-SEARCH /\xc3\xa4%zz HTTP/1.1", b"M-SEARCH", b"/\xc3\xa4%zz", b"example.com", b"M-SEARCH /\xc3\xa4%zz HTTP/1.1"),
    ],
)
def test_forms_of_the_target(line: bytes, method: bytes, target: bytes, host: bytes, start: bytes) -> None:
    head = request(fields(b"X: y", line=line))
    assert (head.method, head.target, head.special[b"host"]) == (method, target, host)
    assert head.lines == start + b"\r\nX: y"
    assert head.pairs() == [(b"host", host), (b"x", b"y")]  # for whoever reads the fields there is no other Host


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ((), 0),
        ((b"Content-Length: 0",), 0),
        ((b"Content-Length:\t 5 \t",), 5),
        ((b"content-length: 007",), 7),
        ((b"Content-Length: 999999999999999999",), 999999999999999999),
        ((b"Transfer-Encoding: chunked",), -1),
        ((b"TRANSFER-ENCODING:  Chunked ",), -1),
    ],
)
def test_framing_of_requests(lines: tuple[bytes, ...], length: int) -> None:
    assert request(fields(*lines, line=b"POST / HTTP/1.1")).length == length


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive"),
    [
        (b"1", (), True),
        (b"1", (b"Connection: close",), False),
        (b"1", (b"Connection: Close",), False),
        (b"1", (b"Connection: keep-alive",), True),
        (b"1", (b"Connection: upgrade, CLOSE",), False),
        (b"1", (b"Connection: upgrade", b"Connection: close"), False),
        (b"1", (b"Connection: x-close",), True),
        (b"0", (), False),
        (b"0", (b"Connection: Keep-Alive",), True),
        (b"0", (b"Connection: upgrade, Keep-Alive",), True),
        (b"0", (b"Connection: close",), False),
    ],
)
def test_who_means_to_go_on(version: bytes, lines: tuple[bytes, ...], keep_alive: bool) -> None:
    assert request(fields(*lines, line=b"GET / HTTP/1." + version)).keep_alive is keep_alive
    data = b"\r\n".join((b"HTTP/1." + version + b" 200 OK", b"Content-Length: 0", *lines, b"", b""))
    assert response(data).keep_alive is keep_alive


def test_a_request_of_http_1_0_needs_no_host() -> None:
    head = request(b"GET / HTTP/1.0\r\n\r\n")
    assert head.pairs() == [] and head.lines == b"GET / HTTP/1.1"


def test_named_by_connection_means_of_this_hop() -> None:
    head = request(fields(b"X-Hop: secret", b"x-hop: again", b"X-Hopper: stays", b"Via: 1.0 a", b"Connection: X-Hop, close, Via"))
    assert b"x-hop:" not in head.lines.lower()
    assert b"X-Hopper: stays" in head.lines
    assert b"via" not in head.special
    assert (b"x-hop", b"secret") not in head.pairs() and (b"x-hopper", b"stays") in head.pairs()


def test_connection_can_not_name_what_framing_and_routing_stand_on() -> None:
    head = request(fields(b"Connection: host, content-length", b"Content-Length: 5", line=b"POST / HTTP/1.1"))
    assert head.special[b"host"] == b"example.com" and head.length == 5


@pytest.mark.parametrize("name", [b"Date", b"From", b"Accept", b"Cookie", b"X-Anything"])
def test_end_to_end_fields_are_ordinary_in_requests(name: bytes) -> None:
    assert name + b": v" in request(fields(name + b": v")).lines


@pytest.mark.parametrize("name", [b"Expect", b"X-Forwarded-For", b"X-Real-IP", b"Forwarded", b"Age", b"Set-Cookie"])
def test_end_to_end_fields_are_ordinary_in_responses(name: bytes) -> None:
    assert name + b": v" in response(b"HTTP/1.1 200 OK\r\n" + name + b": v\r\n\r\n").lines


# Responses.


@pytest.mark.parametrize(
    ("data", "bodyless", "status", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", False, 200, 5),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", True, 200, 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", False, 200, -1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True, 200, 0),
        (b"HTTP/1.1 200 OK\r\n\r\n", False, 200, -2),
        (b"HTTP/1.1 200 OK\r\n\r\n", True, 200, 0),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, 204, 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", False, 304, 0),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", False, 304, 0),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", False, 103, 0),
        (b"HTTP/1.1 599\r\nContent-Length: 0\r\n\r\n", False, 599, 0),
        (b"HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n", False, 999, 0),
        (b"HTTP/1.0 200 caf\xe9\r\nContent-Length: 1\r\n\r\n", False, 200, 1),
    ],
)
def test_framing_of_responses(data: bytes, bodyless: bool, status: int, length: int) -> None:
    head = response(data, bodyless)
    assert (head.status, head.length) == (status, length)
    assert head.lines.startswith(b"HTTP/1.1 %d" % status)
    if length == -2:
        assert not head.keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 304 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rY: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_responses_that_must_not_be_passed_on(data: bytes) -> None:
    for _ in range(2):
        try:
            found = read_response(data, False)
        except WireError:
            continue
        assert found is None  # whoever reads it sees that a whole head was no head


def test_a_response_is_told_without_what_ends_at_this_hop() -> None:
    head = response(
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nServer: s\r\nUpgrade: h2c\r\n"
        b"Proxy-Authenticate: Basic\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 0\r\n\r\n"
    )
    assert head.pairs() == [(b"server", b"s"), (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"content-length", b"0")]
    assert head.lines == b"HTTP/1.1 200 OK\r\nServer: s\r\nSet-Cookie: a\r\nset-cookie: b"


# The chunked coding.


def decode(*pieces: bytes) -> tuple[bytes, ChunkedBody]:
    body = ChunkedBody()
    taken = b""
    for index, piece in enumerate(pieces):
        if body.done:
            body.rest += b"".join(pieces[index:])
            break
        taken += b"".join(body.feed(piece))
    return taken, body


@pytest.mark.parametrize(
    ("data", "expected", "rest", "trailers"),
    [
        (b"0\r\n\r\n", b"", b"", []),
        (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET", []),
        (b"00005\r\nhello\r\n000\r\n\r\n", b"hello", b"", []),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789", b"", []),
        (b"2;a\r\nok\r\n0;b\r\n\r\n", b"ok", b"", []),
        (b'2 ; a = b ; c="d;\\"e"\r\nok\r\n0\r\n\r\n', b"ok", b"", []),
        (b"2\r\nok\r\n0\r\nX-T: a \r\nx-u:b\r\n\r\nrest", b"ok", b"rest", [(b"x-t", b"a"), (b"x-u", b"b")]),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b"", []),
    ],
)
def test_chunks(data: bytes, expected: bytes, rest: bytes, trailers: list[tuple[bytes, bytes]]) -> None:
    for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
        taken, body = decode(*pieces)
        assert body.done
        assert (taken, body.rest, body.trailers) == (expected, rest, trailers)


BAD_CHUNKS = [
    b"5\nhello\r\n",
    b"5\rhello\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhelloo\r\n0\r\n\r\n",
    b"5\r\nhello\r\r\n",
    b"\r\n",
    b"x\r\n",
    b" 5\r\nhello\r\n",
    b"+5\r\nhello\r\n",
    b"-5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"5 5\r\nhello\r\n",
    b"5_0\r\n",
    b"5,5\r\n",
    b"10000000000000000\r\n",
    b"fffffffffffffffff\r\n",
    b"5;\r\nhello\r\n",
    b"5;=x\r\nhello\r\n",
    b"5;a=\r\nhello\r\n",
    b'5;a="b\r\nhello\r\n',
    b"5;a=b c\r\nhello\r\n",
    b"5;a\0\r\nhello\r\n",
    b"5;a\nb\r\nhello\r\n",
    b"5;" + b"a" * 600 + b"\r\nhello\r\n",
    b"0" * 16 + b"\r\n\r\n",
    b"0\r\nX : a\r\n\r\n",
    b"0\r\n folded\r\n\r\n",
    b"0\r\nX: a\n\r\n\r\n",
    b"0\r\nX: \0\r\n\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\n" + b"X: y\r\n" * 4000 + b"\r\n",
]


@pytest.mark.parametrize("data", BAD_CHUNKS, ids=lambda data: repr(data[:24]))
def test_bad_chunks(data: bytes) -> None:
    for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
        with pytest.raises(WireError) as raised:
            decode(*pieces, b"5\r\nhello\r\n0\r\n\r\n" * 2)
        assert raised.value.status == 400


@pytest.mark.parametrize("cut", range(1, len(b"2\r\nok\r\n0\r\n\r\n")))
def test_a_body_without_its_last_bytes_is_not_whole(cut: int) -> None:
    _, body = decode(b"2\r\nok\r\n0\r\n\r\n"[:-cut])
    assert not body.done


@pytest.mark.parametrize("data", [b"5;" + b"a" * 511, b"1" * 16, b"0\r\n" + b"X: y\r\n" * 4000])
def test_what_an_unfinished_line_makes_us_hold_is_bounded(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


# Properties.

TOKEN = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=8).map(str.encode)
VALUE = st.binary(max_size=20).map(lambda raw: bytes(byte for byte in raw if byte in b"\t" or byte >= 32 and byte != 127))
COMMON = st.sampled_from([b"Accept", b"Via", b"X-Forwarded-For", b"TE", b"Upgrade", b"Keep-Alive", b"Te-x", b"Date", b"Cookie"])
NAMES = st.one_of(COMMON, TOKEN).filter(
    lambda name: name.lower() not in (b"host", b"content-length", b"transfer-encoding", b"connection", b"authorization")
    and b"_" not in name
    and name.lower() != b"content-type"
)
FIELDS = st.lists(st.tuples(NAMES, st.sampled_from([b"", b" ", b"\t "]), VALUE), max_size=8)
FRAMING = st.sampled_from([b"", b"Content-Length: 12\r\n", b"Transfer-Encoding: chunked\r\n"])
TARGET = st.text("/abc%2F?&=.~", max_size=12).map(lambda text: b"/" + text.encode())


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    line = b"%b %b HTTP/1.1\r\n" % (draw(st.sampled_from([b"GET", b"POST", b"PUT"])), draw(TARGET))
    lines = [b"%b:%b%b\r\n" % field for field in draw(FIELDS)]
    lines.insert(draw(st.integers(0, len(lines))), b"Host: example.com\r\n")
    lines.insert(draw(st.integers(0, len(lines))), draw(FRAMING))
    return line + b"".join(lines) + b"\r\n"


def outcome(read: Callable[[], Any]) -> object:
    try:
        found = read()
    except WireError as error:
        return (error.status, error.reason)
    if found is None:
        return None
    head, end = found
    return (head.lines, head.special, head.pairs(), head.length, head.keep_alive, end)


def arriving(data: bytes, cuts: list[int]) -> object:
    """What comes of data that arrives in pieces, at each of which somebody looks."""
    for end in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        found = outcome(lambda: read_request(data[:end]))  # noqa: B023
        if found is None:
            error = refusal(data[:end], MAX_LINE, MAX_HEAD)
            found = None if error is None else (error.status, error.reason)
        if found is not None:
            return found
    return None


@given(requests(), st.lists(st.integers(0, 300), max_size=6), st.binary(max_size=10))
def test_a_head_is_the_same_however_it_arrives(data: bytes, cuts: list[int], rest: bytes) -> None:
    whole = outcome(lambda: read_request(data))
    assert whole is not None
    assert arriving(data, cuts) == whole
    assert outcome(lambda: read_request(data + rest)) == whole


@given(st.sampled_from(sorted(REFUSED)), st.lists(st.integers(0, 200), max_size=6))
def test_what_is_refused_is_refused_however_it_arrives(name: str, cuts: list[int]) -> None:
    found = arriving(REFUSED[name][1], cuts)
    assert isinstance(found, tuple) and len(found) == 2  # status and reason
    assert 400 <= found[0] < 600


@given(st.one_of(st.binary(max_size=200), st.builds(lambda head, tail: head[:-4] + tail, requests(), st.binary(max_size=60))))
@example(b"\r\n\r\n")
@example(b"\r\n\r\n\r\n")
@example(b"HTTP/1.1 200\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost\r\n\r\n")
@example(b": \r\n\r\n")
def test_nothing_but_a_wire_error_is_ever_raised(data: bytes) -> None:
    for end in (b"", b"\r\n\r\n"):
        outcome(lambda: read_request(data + end))  # noqa: B023
        outcome(lambda: read_response(b"HTTP/1.1 200 OK\r\n" + data + end, False))  # noqa: B023
        outcome(lambda: read_response(data + end, True))  # noqa: B023
    refusal(data, MAX_LINE, MAX_HEAD)
    try:
        decode(data)
        decode(b"0\r\n" + data)
        decode(b"1;" + data)
    except WireError:
        pass


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 400), max_size=8), st.binary(max_size=8))
def test_chunks_survive_any_split(pieces: list[bytes], cuts: list[int], rest: bytes) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n" + rest
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    taken, body = decode(*(data[start:end] for start, end in zip(edges, edges[1:], strict=False) if start < end))
    assert body.done
    assert (taken, body.rest) == (b"".join(pieces), rest)


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_a_field_that_passes_can_not_become_two(name: bytes, value: bytes) -> None:
    if is_field(name, value):
        head = response(b"HTTP/1.1 200 OK\r\nx-%b: %b\r\n\r\n" % (name, value))
        assert head.pairs() == [(b"x-" + name.lower(), value.strip(b" \t"))]
    else:
        with pytest.raises(WireError):
            response(b"HTTP/1.1 200 OK\r\n%b: %b\r\n\r\n" % (name, value))


def test_tokens() -> None:
    assert tokens(b"Keep-Alive , X-A,\tclose") == [b"keep-alive", b"x-a", b"close"]


# Against httptools: what both take they must read alike.


class Heard:
    """What httptools tells."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.whole = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.whole = True


# Of these httptools tells nothing itself, or it acts on them and then refuses more than the RFC does.
_ITS_OWN = (b"upgrade", b"proxy-connection")


@given(requests())
def test_pairs_are_what_httptools_tells(data: bytes) -> None:
    heard = Heard()
    parser = HttpRequestParser(heard)
    parser.feed_data(data)
    assert heard.whole
    head = request(data)
    assert head.pairs() == heard.fields
    assert (head.method, head.target) == (parser.get_method(), heard.url)
    assert head.keep_alive == parser.should_keep_alive()


@given(FIELDS, FRAMING, st.sampled_from([b"200 OK", b"404 Not Found", b"304 Not Modified", b"204 No Content"]))
def test_responses_are_what_httptools_tells(fields: list[tuple[bytes, bytes, bytes]], framing: bytes, status: bytes) -> None:
    fields = [field for field in fields if field[0].lower() != b"upgrade"]  # it takes the rest for another protocol's
    data = b"HTTP/1.1 %b\r\n%b%b\r\n" % (status, b"".join(b"%b:%b%b\r\n" % field for field in fields), framing)
    heard = Heard()
    parser = HttpResponseParser(heard)
    parser.feed_data(data)
    head = response(data)
    assert heard.whole
    dropped = (b"te", b"keep-alive", b"upgrade", b"transfer-encoding")
    assert head.pairs() == [pair for pair in heard.fields if pair[0] not in dropped]
    assert head.status == parser.get_status_code()


# Effort.


class _Steps:
    """Counts the calls that Python code makes: the same on every machine, unlike seconds."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Steps:
        sys.setprofile(self._see)
        return self

    def _see(self, frame: object, event: str, arg: object) -> None:
        self.count += event in ("call", "c_call")

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def _names(count: int) -> list[bytes]:
    return ["".join(letters).encode() for letters in list(product(ascii_lowercase, repeat=4))[:count]]


_A_FEW = 4
NASTY = {
    "names in Connection": fields(b"Connection: " + b",".join(_names(5000))),
    "Connection lines": fields(*(b"Connection: " + name for name in _names(2000))),
    "special lines": fields(*[b"Via: 1.1 a"] * 2500),
    "new lines": fields(*(b"x-%b: y" % name for name in _names(3000))),
    "new special lines": fields(*(b"Via: 1.1 %b" % name for name in _names(2000))),
    "spaces": fields(b"X: " + b" " * 30000),
    "commas": fields(b"Connection: " + b"," * 30000),
    "colons": fields(b"X" + b":" * 30000),
    "one target": fields(line=b"GET /" + b"a" * 30000 + b" HTTP/1.1"),
    "no space": b"A" * 30000 + b"\r\n\r\n",
    "many CRs": fields(b"X: " + b"\r" * 30000),
}


@pytest.mark.parametrize("name", NASTY)
def test_no_head_costs_more_than_a_few_steps_for_each_byte(name: str) -> None:
    data = NASTY[name]
    with _Steps() as steps:
        refused(data)
    assert steps.count <= _A_FEW * len(data)


def test_no_body_costs_more_than_a_few_steps_for_each_byte() -> None:
    data = b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
    with _Steps() as steps:
        decode(data)
    assert steps.count <= _A_FEW * len(data)
