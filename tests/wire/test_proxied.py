"""Requests as a forward proxy reads them: where they go is said in one way, or they are refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import ProxyHead, WireError, read_proxied, refusal, without_userinfo
from tests.wire.test_heads import MAX_HEAD, MAX_LINE

HOST = b"Host: other.example"


def asked(line: bytes, *lines: bytes, host: bytes = HOST) -> bytes:
    return b"\r\n".join((line, *([host] if host else []), *lines, b"", b""))


def connect(authority: bytes, *lines: bytes, minor: bytes = b"1") -> bytes:
    return asked(b"CONNECT " + authority + b" HTTP/1." + minor, *lines)


def get(target: bytes, *lines: bytes) -> bytes:
    return asked(b"GET " + target + b" HTTP/1.1", *lines)


def read(data: bytes) -> ProxyHead:
    found = read_proxied(data)
    assert found is not None and found[1] == len(data)
    assert isinstance(found[0], ProxyHead)
    return found[0]


def refused(data: bytes) -> tuple[int, str] | None:
    """As a listener asks: why these bytes are no request. None when they are, or may become, one."""
    try:
        found = read_proxied(data)
    except WireError as error:
        return error.status, error.reason
    hopeless = refusal(data, MAX_LINE, MAX_HEAD) if found is None else None
    return None if hopeless is None else (hopeless.status, hopeless.reason)


FORM = (400, "target_form_not_served")
NOWHERE = (400, "destination_invalid")
FRAMED = (400, "connect_with_body")
SCHEME = (501, "scheme_not_served")
MALFORMED = (400, "target_malformed")

REFUSED = {
    # CONNECT: a host and a port, and nothing else.
    "connect without a port": (NOWHERE, connect(b"a.example")),
    "connect with an empty port": (NOWHERE, connect(b"a.example:")),
    "connect to port 0": (NOWHERE, connect(b"a.example:0")),
    "connect to port 00": (NOWHERE, connect(b"a.example:00")),
    "connect to port 65536": (NOWHERE, connect(b"a.example:65536")),
    "connect to a port of six digits": (NOWHERE, connect(b"a.example:000443")),
    "connect to a named port": (NOWHERE, connect(b"a.example:https")),
    "connect to a signed port": (NOWHERE, connect(b"a.example:+443")),
    "connect to two ports": (NOWHERE, connect(b"a.example:443:443")),
    "connect to no host": (NOWHERE, connect(b":443")),
    "connect with a user": (FORM, connect(b"user@a.example:443")),
    "connect with a password": (FORM, connect(b"user:secret@a.example:443")),
    "connect with a path": (NOWHERE, connect(b"a.example:443/")),
    "connect with a query": (NOWHERE, connect(b"a.example:443?x")),
    "connect in absolute-form": (NOWHERE, connect(b"http://a.example:443/")),
    "connect in origin-form": (FORM, connect(b"/")),
    "connect to everything": (NOWHERE, connect(b"*")),
    "connect to IPv6 without brackets": (NOWHERE, connect(b"::1:443")),
    "connect to brackets of nothing": (NOWHERE, connect(b"[]:443")),
    "connect to brackets of a name": (NOWHERE, connect(b"[a.example]:443")),
    "connect to brackets of IPv4": (NOWHERE, connect(b"[192.0.2.1]:443")),
    "connect to one bracket": (NOWHERE, connect(b"[::1:443")),
    "connect to IPv6 with a zone": (NOWHERE, connect(b"[fe80::1%25eth0]:443")),
    "connect to IPv6 of ten groups": (NOWHERE, connect(b"[1:2:3:4:5:6:7:8:9:a]:443")),
    "connect to IPv6 without a port": (NOWHERE, connect(b"[::1]")),
    "connect to an escaped host": (NOWHERE, connect(b"a%2eexample:443")),
    "connect to a host in UTF-8": (NOWHERE, connect("bücher.example:443".encode())),
    "connect to two hosts": (NOWHERE, connect(b"a.example,b.example:443")),
    "connect to a host and a fragment": (MALFORMED, connect(b"a.example:443#x")),
    "connect to a host behind a backslash": (NOWHERE, connect(b"a.example\\:443")),
    "connect to a host of 300 bytes": (NOWHERE, connect(b"a" * 300 + b":443")),
    "connect with a length": (FRAMED, connect(b"a.example:443", b"Content-Length: 5")),
    "connect with a length that is none": (
        (400, "content_length_invalid"), connect(b"a.example:443", b"Content-Length: +0")
    ),
    "connect with two framings": (
        (400, "two_framings"), connect(b"a.example:443", b"Content-Length: 0", b"Transfer-Encoding: chunked")
    ),
    "connect with chunks": (FRAMED, connect(b"a.example:443", b"Transfer-Encoding: chunked")),
    "connect without a target": (MALFORMED, asked(b"CONNECT  HTTP/1.1")),
    "connect with two spaces": ((400, "request_line_malformed"), asked(b"CONNECT  a.example:443 HTTP/1.1")),
    "connect in HTTP/2": ((505, "version_not_supported"), asked(b"CONNECT a.example:443 HTTP/2.0")),
    "connect in 0.9": ((400, "request_line_malformed"), asked(b"CONNECT a.example:443")),
    "connect in 1.1 without Host": ((400, "host_missing"), asked(b"CONNECT a.example:443 HTTP/1.1", host=b"")),
    "connect with two Hosts": ((400, "repeated_host"), connect(b"a.example:443", HOST)),
    "connect with a Host of two": ((400, "host_invalid"), asked(b"CONNECT a.example:443 HTTP/1.1", host=b"Host: a b")),
    "connect in lower case": (FORM, asked(b"connect a.example:443 HTTP/1.1")),
    "connect that ends in LF": ((400, "bare_line_ending"), b"CONNECT a.example:443 HTTP/1.1\nHost: a\n\n"),
    # Everything else: absolute-form.
    "origin-form": (FORM, get(b"/")),
    "origin-form in 1.0": (FORM, asked(b"GET / HTTP/1.0")),
    "two slashes": (FORM, get(b"//a.example/")),
    "everything": (FORM, asked(b"OPTIONS * HTTP/1.1")),
    "everything of another method": (FORM, get(b"*")),
    "authority-form": (FORM, get(b"a.example:80")),
    "a scheme without slashes": (FORM, get(b"http:a.example/")),
    "one slash": (FORM, get(b"http:/a.example/")),
    "https": (SCHEME, get(b"https://a.example/")),
    "HTTPS": (SCHEME, get(b"HTTPS://a.example/")),
    "ftp": (SCHEME, get(b"ftp://a.example/file")),
    "ws": (SCHEME, get(b"ws://a.example/")),
    "no host": (NOWHERE, get(b"http:///path")),
    "no host but a port": (NOWHERE, get(b"http://:80/")),
    "nothing behind the slashes": (NOWHERE, get(b"http://")),
    "a user": (FORM, get(b"http://user@a.example/")),
    "a password": (FORM, get(b"http://user:secret@a.example/")),
    "an empty user": (FORM, get(b"http://@a.example/")),
    "two ats": (FORM, get(b"http://a@b@c.example/")),
    "port 0": (NOWHERE, get(b"http://a.example:0/")),
    "port 65536": (NOWHERE, get(b"http://a.example:65536/")),
    "port 100000": (NOWHERE, get(b"http://a.example:100000/")),
    "a named port": (NOWHERE, get(b"http://a.example:http/")),
    "IPv6 without brackets": (NOWHERE, get(b"http://::1/")),
    "IPv6 with a zone": (NOWHERE, get(b"http://[fe80::1%25lo]/")),
    "brackets of a name": (NOWHERE, get(b"http://[a.example]/")),
    "an escaped host": (NOWHERE, get(b"http://%61.example/")),
    "a host behind a backslash": (NOWHERE, get(b"http://a.example\\b.example/")),
    "a fragment": (MALFORMED, get(b"http://a.example/#x")),
    "two framings": ((400, "two_framings"), get(b"http://a/", b"Content-Length: 1", b"Transfer-Encoding: chunked")),
    "two credentials": (
        (400, "repeated_field"), get(b"http://a/", b"Proxy-Authorization: Basic YTpi", b"proxy-Authorization: x")
    ),
    "two equal credentials": (
        (400, "repeated_field"), connect(b"a:1", b"Proxy-Authorization: Basic YTpi", b"Proxy-Authorization: Basic YTpi")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    expected, data = REFUSED[name]
    assert refused(data) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_never_passes_on_its_way(name: str) -> None:
    expected, data = REFUSED[name]
    found = [refused(data[:end]) for end in range(1, len(data) + 1)]
    first = next(number for number, one in enumerate(found) if one is not None)
    assert found[first] in (expected, (400, "request_line_malformed"), (400, "bare_line_ending"), MALFORMED)
    assert all(one is None for one in found[:first])


@pytest.mark.parametrize(
    ("authority", "destination"),
    [
        (b"a.example:443", ("a.example", 443)),
        (b"A.Example.:1", ("A.Example.", 1)),
        (b"localhost:65535", ("localhost", 65535)),
        (b"192.0.2.1:00080", ("192.0.2.1", 80)),
        (b"[2001:DB8::1]:8443", ("2001:db8::1", 8443)),
        (b"[::ffff:192.0.2.1]:443", ("::ffff:c000:201", 443)),
        (b"xn--bcher-kva.example:443", ("xn--bcher-kva.example", 443)),
        (b"_service.example:443", ("_service.example", 443)),
        (b"0x7f.1:443", ("0x7f.1", 443)),  # the egress knows what that is
    ],
)
@pytest.mark.parametrize("minor", [b"0", b"1"])
def test_where_a_tunnel_goes(authority: bytes, destination: tuple[str, int], minor: bytes) -> None:
    head = read(connect(authority, minor=minor))
    assert head.is_connect and head.destination == destination
    assert head.target == authority and head.special[b"host"] == authority


@pytest.mark.parametrize("length", [b"0", b"000"])
def test_a_tunnel_asked_for_with_no_body(length: bytes) -> None:
    head = read(connect(b"a.example:443", b"Content-Length: " + length))
    assert head.is_connect and not head.length


@pytest.mark.parametrize(
    ("target", "destination", "host", "onward"),
    [
        (b"http://a.example", ("a.example", 80), b"a.example", b"/"),
        (b"http://a.example/", ("a.example", 80), b"a.example", b"/"),
        (b"HTTP://a.example:8080/b?c=d", ("a.example", 8080), b"a.example:8080", b"/b?c=d"),
        (b"http://a.example?q", ("a.example", 80), b"a.example", b"/?q"),
        (b"http://a.example:/", ("a.example", 80), b"a.example", b"/"),
        (b"http://a.example//b/../c%2F;d", ("a.example", 80), b"a.example", b"//b/../c%2F;d"),
        (b"http://[::1]:81/", ("::1", 81), b"[::1]:81", b"/"),
        (b"http://a.example/http://b@c/", ("a.example", 80), b"a.example", b"/http://b@c/"),
        (b"http://a.example/?u=http://b:1/", ("a.example", 80), b"a.example", b"/?u=http://b:1/"),
    ],
)
def test_where_a_request_goes(target: bytes, destination: tuple[str, int], host: bytes, onward: bytes) -> None:
    head = read(get(target, b"X-A: b"))
    assert not head.is_connect and head.destination == destination
    assert (head.target, head.special[b"host"]) == (onward, host)
    assert head.lines == b"GET " + onward + b" HTTP/1.1\r\nX-A: b"
    assert (b"host", host) in head.pairs() and (b"host", b"other.example") not in head.pairs()


def test_what_is_asked_of_a_whole_server() -> None:
    assert read(asked(b"OPTIONS http://a.example HTTP/1.1")).target == b"*"
    assert read(asked(b"OPTIONS http://a.example/ HTTP/1.1")).target == b"/"


@pytest.mark.parametrize(
    ("minor", "lines", "keeps"),
    [
        (b"1", [], True),
        (b"0", [], False),
        (b"1", [b"Proxy-Connection: close"], False),
        (b"1", [b"Proxy-Connection: Keep-Alive"], True),
        (b"0", [b"Proxy-Connection: keep-alive"], True),
        (b"0", [b"Proxy-Connection: x"], False),
        (b"1", [b"Connection: close", b"Proxy-Connection: keep-alive"], False),
        (b"1", [b"Connection: keep-alive", b"Proxy-Connection: close"], False),
        (b"0", [b"Connection: x", b"Proxy-Connection: keep-alive"], True),
    ],
)
def test_proxy_connection_is_connection_for_old_clients(minor: bytes, lines: list[bytes], keeps: bool) -> None:
    assert read(asked(b"GET http://a/ HTTP/1." + minor, *lines)).keep_alive is keeps


def test_one_credential_may_have_a_comma() -> None:
    head = read(get(b"http://a/", b"Proxy-Authorization: Digest a=b, c=d"))
    assert head.special[b"proxy-authorization"] == b"Digest a=b, c=d"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"http://user:secret@a/b", b"http://a/b"),
        (b"user:secret@a:443", b"a:443"),
        (b"http://a@b@c/", b"http://c/"),
        (b"http://ann:pa/ss@host/", b"http://host/"),
        (b"http://ann:pa?ss@host/x", b"http://host/x"),
        (b"/path/@x", b"/path/@x"),
        (b"/?a@b", b"/?a@b"),
        (b"*", b"*"),
    ],
)
def test_no_password_is_shown(target: bytes, shown: bytes) -> None:
    assert without_userinfo(target) == shown


PIECES = st.lists(
    st.sampled_from(
        [b"http://", b"https://", b"CONNECT", b"GET", b" ", b"a.example", b"[::1]", b":", b"443", b"/", b"@", b"?",
         b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: a\r\n", b"Proxy-Authorization: Basic YTpi\r\n", b"\r\n", b"[",
         b"Content-Length: 3\r\n", b"Proxy-Connection: close\r\n", b"\x00", b"\n", b"%", b".", b"0x7f.1", b"-", b"*",
         b"]"]
    ),
    max_size=14,
)  # fmt: skip
TARGETS = st.text("ahtp:/@[]?.0189-*%_", max_size=24).map(str.encode)
WHERE = re.compile(r"[0-9A-Za-z._-]+|[0-9a-f:.]*:[0-9a-f:.]*")


@given(data=st.one_of(st.binary(max_size=60), PIECES.map(b"".join), TARGETS.map(connect), TARGETS.map(get)))
def test_whatever_comes_goes_to_one_place_or_is_refused(data: bytes) -> None:
    try:
        found = read_proxied(data)
    except WireError:
        return
    if found is None:
        return
    head = found[0]
    assert isinstance(head, ProxyHead)
    host, port = head.destination
    assert 0 < port < 65536 and WHERE.fullmatch(host)
    if head.is_connect:
        assert not head.length
    else:
        assert head.target.startswith(b"/") or head.target == b"*"
    written = b"[%b]" % host.encode() if ":" in host else host.encode()
    again = read_proxied(connect(b"%b:%d" % (written, port)))
    assert again is not None and again[0].destination == (host, port)  # type: ignore[attr-defined]
