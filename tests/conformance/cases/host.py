"""Host: exactly one, and one that can be a host (RFC 9112, section 3.2)."""

from __future__ import annotations

from tests.conformance.case import Answer, Case, Outcome, Seen, exchange, forwarded, lines, refused

CLAUSE = "RFC 9112 3.2"


def sent(*fields: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET / " + version + b"\r\n" + lines(*fields)


def bad(name: str, value: bytes) -> Case:
    return exchange(name, CLAUSE, sent(b"Host: " + value), refused(400))


def good(name: str, value: bytes) -> Case:
    return exchange(name, CLAUSE, sent(b"Host: " + value), forwarded(Seen(host=value.decode())))


CASES = (
    exchange("no Host", CLAUSE, sent(b"X-A: 1"), refused(400)),
    exchange("no Host, told why", "ours", sent(b"X-A: 1"), refused(400, reason="host_missing"), ours=True),
    exchange("no field at all", CLAUSE, b"GET / HTTP/1.1\r\n\r\n", refused(400)),
    exchange("two different Hosts", CLAUSE, sent(b"Host: a.example", b"Host: b.example"), refused(400)),
    exchange("two equal Hosts", CLAUSE, sent(b"Host: a.example", b"Host: a.example"), refused(400)),
    exchange("two Hosts far apart", CLAUSE, sent(b"Host: a.example", b"X-A: 1", b"HOST: b.example"), refused(400)),
    exchange("two Hosts, told why", "ours", sent(b"Host: a.example", b"host: b.example"),
             refused(400, reason="repeated_host"), ours=True),
    exchange("an empty Host and another", CLAUSE, sent(b"Host:", b"Host: a.example"), refused(400)),
    exchange("two Hosts in HTTP/1.0", CLAUSE, sent(b"Host: a.example", b"Host: b.example", version=b"HTTP/1.0"),
             refused(400)),
    exchange("an empty Host", CLAUSE, sent(b"Host:"), forwarded(Seen()), refused(400)),
    bad("Host with a space", b"a.example b.example"),
    bad("Host with a tab", b"a.example\tb"),
    bad("Host with a path", b"a.example/b"),
    bad("Host that is a URL", b"http://a.example"),
    bad("Host with userinfo", b"user@a.example"),
    bad("Host with a query", b"a.example?b"),
    bad("Host with a fragment", b"a.example#b"),
    bad("Host with a backslash", b"a.example\\b"),
    bad("Host with angle brackets", b"<a.example>"),
    bad("Host in quotes", b'"a.example"'),
    bad("Host with a byte above ASCII", b"caf\xc3\xa9.example"),
    bad("Host with two ports", b"a.example:80:80"),
    bad("Host with a port that is no number", b"a.example:8o"),
    bad("Host with a negative port", b"a.example:-1"),
    bad("Host with an open bracket", b"[::1"),
    bad("Host with a closing bracket alone", b"::1]"),
    bad("Host with a bare IPv6 address", b"2001:db8::1"),
    bad("Host with something behind the bracket", b"[::1]x"),
    bad("Host that is a list", b"a.example, b.example"),
    bad("Host with a caret", b"a^b"),
    exchange("Host with NUL", CLAUSE, sent(b"Host: a\0b"), refused(400)),
    exchange("Host told why", "ours", sent(b"Host: a/b"), refused(400, reason="host_invalid"), ours=True),
    exchange("Host folded", "RFC 9112 5.2", sent(b"Host: a.example", b" b.example"), refused(400)),
    good("Host with a port", b"a.example:8080"),
    good("Host that is an IPv4 address", b"192.0.2.1:80"),
    good("Host that is an IPv6 address", b"[2001:db8::1]:8080"),
    good("Host with dashes and digits", b"a-1.2-b.example."),
    good("Host with an underscore", b"a_b.example"),
    good("Host that is one label", b"localhost"),
    exchange("Host with an empty port", CLAUSE, sent(b"Host: a.example:"), forwarded(Seen(host="a.example:")),
             forwarded(Seen(host="a.example")), refused(400)),
    exchange("Host in capitals goes on as it is, or in lower case", CLAUSE, sent(b"HOST: A.Example"),
             forwarded(Seen(host="a.example"))),
    exchange("Host with space around", CLAUSE, sent(b"Host:  \t a.example \t"), forwarded(Seen(host="a.example"))),
    exchange("Host comes last", CLAUSE, sent(b"X-A: 1", b"X-B: 2", b"Host: a.example"),
             forwarded(Seen(host="a.example", has={"x-a": "1", "x-b": "2"}))),
    exchange("no Host in HTTP/1.0", CLAUSE, sent(version=b"HTTP/1.0"),
             Outcome(answers=(Answer(),), ends=True, requests=1)),
    exchange("Host in HTTP/1.0", CLAUSE, sent(b"Host: a.example", version=b"HTTP/1.0"),
             Outcome(answers=(Answer(),), ends=True, requests=(Seen(host="a.example"),))),
    exchange("Host named by Connection", "RFC 9112 3.2", sent(b"Host: a.example", b"Connection: Host"),
             forwarded(Seen()), refused(400)),
    exchange("Host named by Connection stays", "ours", sent(b"Host: a.example", b"Connection: Host"),
             forwarded(Seen(host="a.example")), ours=True),
)  # fmt: skip
