"""Header fields of requests: their syntax (RFC 9112, section 5; RFC 9110, section 5) and what arrives of them."""

from __future__ import annotations

from typing import Any

from tests.conformance.case import Answer, Case, Outcome, Seen, exchange, forwarded, get, refused

BAD = refused(400)
TOO_LARGE = Outcome(answers=(Answer(status=range(400, 500)),), ends=True, requests=0)


def passed(name: str, *fields: bytes, clause: str = "RFC 9110 5.1", ours: bool = False, **seen: Any) -> Case:
    return exchange(name, clause, get("/", *fields), forwarded(Seen(**seen)), ours=ours)


def raw(field: bytes) -> bytes:
    """A request with this between two fields, as it is."""
    return b"GET / HTTP/1.1\r\nHost: example.com\r\n" + field + b"\r\nX-Last: 1\r\n\r\n"


def bad(name: str, field: bytes, clause: str = "RFC 9112 2.2") -> Case:
    return exchange(name, clause, raw(field), BAD)


def control(byte: int) -> list[Case]:
    """Control characters in values are invalid but may be kept where they do no harm; ours never keeps one."""
    sent = raw(b"X-A: a%cb" % byte)
    return [
        exchange(f"control character {byte:#04x} in a value", "RFC 9110 5.5", sent,
                 Outcome(answers=(Answer(),), goes_on=True, requests=1), BAD),
        exchange(f"control character {byte:#04x} in a value is refused", "ours", sent, BAD, ours=True),
    ]  # fmt: skip


def space_or_refusal(name: str, field: bytes, value: str, clause: str = "RFC 9110 5.5") -> Case:
    """What must be refused or become a space. value: an expression."""
    return exchange(name, clause, raw(field), BAD, forwarded(Seen(like={"x-a": value})))


SYNTAX = (
    exchange("a space before the colon", "RFC 9112 5.1", raw(b"X-A : 1"), BAD),
    exchange("a tab before the colon", "RFC 9112 5.1", raw(b"X-A\t: 1"), BAD),
    exchange("a space before the colon, told why", "ours", raw(b"X-A : 1"), refused(400,
             reason="header_field_malformed"),
             ours=True),
    exchange("a space before the colon of Content-Length", "RFC 9112 5.1", raw(b"Content-Length : 5") + b"hello", BAD),
    exchange("a space before the colon of Transfer-Encoding", "RFC 9112 5.1",
             raw(b"Transfer-Encoding : chunked") + b"0\r\n\r\n", BAD),
    bad("a line without a colon", b"X-A"),
    bad("a line that is a colon", b":"),
    bad("a field without a name", b": 1"),
    bad("a name with a space", b"X A: 1"),
    bad("a name with a tab", b"X\tA: 1"),
    bad("a name with a parenthesis", b"X(A: 1"),
    bad("a name with a slash", b"X/A: 1"),
    bad("a name with quotes", b'"X-A": 1'),
    bad("a name with an at sign", b"X@A: 1"),
    bad("a name with a byte above ASCII", b"X-\xe9: 1"),
    bad("a name with NUL", b"X-\0A: 1"),
    bad("a name with a control character", b"X-\x01A: 1"),
    bad("a name with DEL", b"X-\x7fA: 1"),
    space_or_refusal("a folded value", b"X-A: 1\r\n 2", "1 +2", "RFC 9112 5.2"),
    space_or_refusal("a value folded with a tab", b"X-A: 1\r\n\t2", "1[ \\t]+2", "RFC 9112 5.2"),
    space_or_refusal("a value that is all fold", b"X-A:\r\n 2", "2", "RFC 9112 5.2"),
    exchange("folding is refused", "ours", raw(b"X-A: 1\r\n 2"), BAD, ours=True),
    exchange("the first field is folded", "RFC 9112 2.2", b"GET / HTTP/1.1\r\n Host: evil\r\nHost: example.com\r\n\r\n",
             BAD, forwarded(Seen(host="example.com"))),
    space_or_refusal("NUL in a value", b"X-A: 1\x002", "1 2"),
    space_or_refusal("a bare CR in a value", b"X-A: 1\r2", "1 2"),
    space_or_refusal("a bare CR at the end of a value", b"X-A: 1\r", "1"),
    space_or_refusal("a bare CR at the beginning of a value", b"X-A: \r1", "1"),
    exchange("a bare CR before a field", "RFC 9112 2.2", raw(b"X-A: 1\r\n\rX-B: 2"), BAD),
    exchange("LF ends a field", "RFC 9112 2.2", raw(b"X-A: 1\nX-B: 2"), BAD, forwarded(Seen(has={"x-a": "1",
             "x-b": "2"}))),
    exchange("LF that ends a field is refused", "ours", raw(b"X-A: 1\nX-B: 2"), BAD, ours=True),
    exchange("LF CR ends a field", "RFC 9112 2.2", raw(b"X-A: 1\n\rX-B: 2"), BAD),
    exchange("LF ends the head", "RFC 9112 2.2", b"GET / HTTP/1.1\r\nHost: example.com\r\n\n", BAD,
             forwarded(Seen(line=b"GET / HTTP/1.1"))),
    exchange("LF that ends the head is refused", "ours",
             b"GET / HTTP/1.1\r\nHost: example.com\r\n\n" + get("/smuggled"),
             refused(400, reason="bare_line_ending|header_field_malformed", without=b"smuggled"), ours=True),
    *(one for byte in (0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F) for one in control(byte)),
)  # fmt: skip

VALUES = (
    passed("a field nobody knows", b"X-Unknown: value", has={"x-unknown": "value"}),
    passed("a name of all token characters", b"!#$%&'*+-.^`|~09azAZ: 1", has={"!#$%&'*+-.^`|~09azAZ": "1"}),
    passed("no space behind the colon", b"X-A:1", has={"x-a": "1"}, clause="RFC 9112 5.1"),
    passed("space around a value", b"X-A: \t a \t ", has={"x-a": "a"}, clause="RFC 9112 5.1"),
    passed("space within a value", b"X-A: a  b\tc", has={"x-a": "a  b\tc"}, clause="RFC 9110 5.5"),
    passed("an empty value", b"X-A:", has={"x-a": ""}, clause="RFC 9110 5.5"),
    passed("a value of spaces", b"X-A:   ", has={"x-a": ""}, clause="RFC 9110 5.5"),
    passed("colons, commas and quotes in a value", b'X-A: a:b,c;d="e, f"', has={"x-a": 'a:b,c;d="e, f"'},
           clause="RFC 9110 5.5"),
    passed("every visible character in a value", b"X-A: " + bytes(range(0x21, 0x7F)),
           has={"x-a": bytes(range(0x21, 0x7F)).decode()}, clause="RFC 9110 5.5"),
    passed("bytes above ASCII in a value", b"X-A: a\x80\xe9\xffb", has={"x-a": "a\x80\xe9\xffb"},
           clause="RFC 9110 5.5"),
    passed("bytes above ASCII around a value", b"X-A: \xa0a\x85", has={"x-a": "\xa0a\x85"}, clause="RFC 9110 5.5"),
    passed("a field that comes three times", b"X-A: 1", b"X-B: x", b"X-A: 2", b"x-a: 3",
           has={"x-a": "1, 2, 3", "x-b": "x"}, clause="RFC 9110 5.3"),
    passed("the lines of a field stay lines", b"X-A: 1", b"X-B: x", b"X-A: 2", lines={"x-a": ("1", "2")}, clause="ours",
           ours=True),
    passed("the order of all fields", b"X-C: 1", b"X-A: 2", b"Accept: */*", b"X-B: 3", b"User-Agent: x",
           order=("x-c", "x-a", "accept", "x-b", "user-agent"), clause="ours: nothing is moved", ours=True),
    passed("cookies", b"Cookie: a=1; b=2", b"Cookie: c=3", like={"cookie": "a=1; b=2[,;] c=3"}, clause="RFC 9110 5.3"),
    passed("credentials", b"Authorization: Basic YWxhZGRpbjpvcGVuc2VzYW1l",
           has={"authorization": "Basic YWxhZGRpbjpvcGVuc2VzYW1l"}, clause="RFC 9110 11.6.2"),
    passed("conditions and ranges", b'If-None-Match: W/"a", "b"', b"If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT",
           b"Range: bytes=0-1", has={"if-none-match": 'W/"a", "b"', "range": "bytes=0-1",
                                     "if-modified-since": "Sat, 29 Oct 1994 19:43:31 GMT"}, clause="RFC 9110 7.6"),
    passed("negotiation", b"Accept: a/b;q=0.5", b"Accept-Encoding: gzip, br", b"Accept-Language: de",
           has={"accept": "a/b;q=0.5", "accept-encoding": "gzip, br", "accept-language": "de"}, clause="RFC 9110 7.6"),
    passed("nothing is invented", absent=("user-agent", "accept", "accept-encoding"), clause="Go reverseproxy 6"),
    passed("a value of 7000 bytes", b"X-A: " + b"a" * 7000, has={"x-a": "a" * 7000}, clause="ours: headers = 32KiB",
           ours=True),
    passed("sixty fields", *(b"X-%d: %d" % (n, n) for n in range(60)), has={"x-0": "0", "x-59": "59"},
           clause="RFC 9110 5.1"),
    passed("names that begin alike", b"Hosts: a", b"Content-Lengthy: b", b"Connections: c", b"Te-St: d", b"Via-X: e",
           has={"hosts": "a", "content-lengthy": "b", "connections": "c", "te-st": "d", "via-x": "e"}),
    passed("a method override is no matter of ours", b"X-HTTP-Method-Override: DELETE",
           has={"x-http-method-override": "DELETE"}, line=b"GET / HTTP/1.1"),
)  # fmt: skip

STRICTER = (
    passed("a name with an underscore is dropped", b"X_A: 1", b"X-B: 2", has={"x-b": "2"}, absent=("x_a",),
           clause="ours",
           ours=True),
    passed("Content_Length means nothing", b"Content_Length: 5", absent=("content_length",), framing=("none",),
           clause="ours", ours=True),
    exchange("two Content-Types", "ours", get("/", b"Content-Type: a/b", b"Content-Type: c/d"),
             refused(400, reason="repeated_field"), ours=True),
    exchange("two Authorizations", "ours", get("/", b"Authorization: a", b"X-A: 1", b"AUTHORIZATION: b"),
             refused(400, reason="repeated_field"), ours=True),
    exchange("a field too large", "RFC 9110 5.4", get("/", b"X-A: " + b"a" * 200_000), TOO_LARGE),
    exchange("fields too large together", "RFC 9110 5.4", get("/", *(b"X-%d: %b" % (n, b"a" * 900) for n in range(90))),
             TOO_LARGE, forwarded(Seen())),
    exchange("fields without end", "RFC 9110 5.4", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: a\r\n" * 20_000,
             TOO_LARGE),
    exchange("a name without end", "RFC 9110 5.4", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 200_000, TOO_LARGE),
    exchange("a field too large is 431", "ours", get("/", b"X-A: " + b"a" * 200_000),
             refused(431, reason="header_fields_too_large"), ours=True),
    exchange("101 fields", "ours: header_count = 100", get("/", *(b"X-%d: a" % n for n in range(100))),
             refused(431, reason="too_many_header_fields"), ours=True),
    exchange("100 fields", "ours: header_count = 100", get("/", *(b"X-%d: a" % n for n in range(99))),
             forwarded(Seen(has={"x-98": "a"})), ours=True),
    exchange("a tight request line", "ours: limits", get("/" + "a" * 200), refused(414, reason="request_line_too_long"),
             ours=True, listener="tight"),
    exchange("tight fields", "ours: limits", get("/", b"X-A: " + b"a" * 1024), refused(431), ours=True,
             listener="tight"),
    exchange("a tight number of fields", "ours: limits", get("/", *(b"X-%d: a" % n for n in range(20))),
             refused(431, reason="too_many_header_fields"), ours=True, listener="tight"),
)  # fmt: skip

CASES = (*SYNTAX, *VALUES, *STRICTER)
