"""RFC 9112 read strictly: what is a message, what is refused, and that neither depends on how the bytes arrive."""

from __future__ import annotations

import pytest

from gateway.wire import RequestHead, ResponseHead, WireError, read_request, read_response, refusal, tokens

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
    "version 1.12": (400, fields(line=b"GET / HTTP/1.12")),
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
    lines = b"Host: Example.COM:8080\r\nX-A:b\r\nX-a: \t c d \t\r\nContent-Length: 5\r\n"
    data = b"POST /a%2Fb?c=d HTTP/1.1\r\n" + lines + b"\r\nhello"
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
        (b"M-SEARCH /\xe4%zz HTTP/1.1", b"M-SEARCH", b"/\xe4%zz", b"example.com", b"M-SEARCH /\xe4%zz HTTP/1.1"),
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
    lines = (b"X-Hop: secret", b"x-hop: again", b"X-Hopper: stays", b"Via: 1.0 a", b"Connection: X-Hop, close, Via")
    head = request(fields(*lines))
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


def test_tokens() -> None:
    assert tokens(b"Keep-Alive , X-A,\tclose") == [b"keep-alive", b"x-a", b"close"]
