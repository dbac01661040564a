"""The request line and the forms of a request target (RFC 9112, sections 2.2 to 3)."""

from __future__ import annotations

from tests.conformance.case import Answer, Case, Outcome, Seen, exchange, forwarded, get, lines, refused

HOST = b"Host: example.com"


def raw(line: bytes, *fields: bytes) -> bytes:
    """A request with just this request line."""
    return line + b"\r\n" + lines(*(fields or (HOST,)))


# A method that nobody knows may be passed on or be refused as unknown (RFC 9110, sections 9.1 and 15.6.2).
UNKNOWN = Outcome(answers=(Answer(status=(405, 501)),), requests=0)
PASSED = forwarded(Seen(line=b"GET / HTTP/1.1"))
BAD = refused(400)
# Also a redirect to the encoded target is an answer to a line that is none (RFC 9112, section 3).
BAD_TARGET = Outcome(answers=(Answer(status=(400, 301)),), requests=0)


def bad(name: str, line: bytes, reason: str = "request_line_malformed") -> list[Case]:
    return [
        exchange(name, "RFC 9112 3", raw(line), BAD),
        exchange(f"{name}, told why", "ours", raw(line), refused(400, reason=reason), ours=True),
    ]


def target(name: str, sent: bytes, clause: str = "RFC 9110 7.7") -> Case:
    """A legal target, which must arrive byte for byte."""
    return exchange(name, clause, raw(b"GET %b HTTP/1.1" % sent), forwarded(Seen(line=b"GET %b HTTP/1.1" % sent)))


def odd_target(name: str, sent: bytes) -> list[Case]:
    """One with bytes that no URI has: refused, or handed on as it is. Ours hands on what can't be misread."""
    exact = forwarded(Seen(line=b"GET %b HTTP/1.1" % sent))
    line = raw(b"GET %b HTTP/1.1" % sent)
    return [
        exchange(name, "RFC 9112 3.2", line, exact, BAD_TARGET),
        exchange(f"{name}, handed on", "ours: target byte-exactness", line, exact, ours=True),
    ]


def absolute(name: str, sent: bytes, line: bytes, host: str, *fields: bytes, clause: str = "RFC 9112 3.2.2") -> Case:
    """The next hop may be a proxy for all we know, and get it in absolute form; its Host must be the right one."""
    return exchange(name, clause, raw(sent, *(fields or (HOST,))), forwarded(Seen(line=(line, sent), host=host)))


METHODS = (
    exchange("GET", "RFC 9112 3", get(), forwarded(Seen(line=b"GET / HTTP/1.1", framing=("none", "length")))),
    *(
        exchange(
            f"method {method.decode()}",
            "RFC 9110 9.1",
            get(method=method),
            forwarded(Seen(line=method + b" / HTTP/1.1")),
            UNKNOWN,
        )
        for method in (b"PROPFIND", b"M-SEARCH", b"get", b"QUERY", b"A", b"X" * 60, b"!#$%&'*+-.^_`|~09azAZ")
    ),
    exchange(
        "any method is handed on",
        "ours: unknown methods passed",
        get(method=b"!#$%&'*+-.^_`|~09azAZ"),
        forwarded(Seen(line=b"!#$%&'*+-.^_`|~09azAZ / HTTP/1.1")),
        ours=True,
    ),
    *(
        exchange(
            f"method {method.decode()}",
            "RFC 9110 9.3",
            get(method=method),
            forwarded(Seen(line=method + b" / HTTP/1.1")),
        )
        for method in (b"DELETE", b"PUT", b"PATCH", b"OPTIONS")
    ),
    *bad("a method with a parenthesis", b"GE(T / HTTP/1.1"),
    *bad("no method", b" / HTTP/1.1"),
    *bad("a method with a byte above ASCII", b"G\xc3\x89T / HTTP/1.1"),
)

LINES = (
    exchange("one empty line before", "RFC 9112 2.2", b"\r\n" + get(), PASSED),
    exchange("two empty lines before", "RFC 9112 2.2", b"\r\n\r\n" + get(), PASSED, BAD),
    exchange("a hundred empty lines before", "RFC 9112 2.2", b"\r\n" * 100 + get(), PASSED, BAD),
    exchange("empty lines without end are refused", "ours", b"\r\n" * 100, refused(400, reason="request_line_missing"),
             ours=True),
    exchange("a bare LF before", "RFC 9112 2.2", b"\n" + get(), PASSED, BAD),
    exchange("a bare CR before", "RFC 9112 2.2", b"\r" + get(), PASSED, BAD),
    exchange("a space before", "RFC 9112 2.2", b" " + get(), PASSED, BAD),
    exchange("an empty line between two requests", "RFC 9112 2.2", get() + b"\r\n" + get(),
             forwarded(Seen(), Seen(), answers=2)),
    exchange("two spaces between method and target", "RFC 9112 3", raw(b"GET  / HTTP/1.1"), PASSED, BAD),
    exchange("two spaces before the version", "RFC 9112 3", raw(b"GET /  HTTP/1.1"), PASSED, BAD),
    exchange("a tab between method and target", "RFC 9112 3", raw(b"GET\t/ HTTP/1.1"), PASSED, BAD),
    exchange("a vertical tab between method and target", "RFC 9112 3", raw(b"GET\x0b/ HTTP/1.1"), PASSED, BAD),
    exchange("a space behind the version", "RFC 9112 3", raw(b"GET / HTTP/1.1 "), PASSED, BAD),
    exchange("a bare CR in the request line", "RFC 9112 2.2", raw(b"GET /\rx HTTP/1.1"), BAD),
    exchange("a bare CR behind the version", "RFC 9112 2.2", raw(b"GET / HTTP/1.1\r"), PASSED, BAD),
    exchange("LF ends the request line", "RFC 9112 2.2", b"GET / HTTP/1.1\nHost: example.com\r\n\r\n", PASSED, BAD),
    exchange("every line ends with LF", "RFC 9112 2.2", b"GET / HTTP/1.1\nHost: example.com\n\n", PASSED, BAD),
    exchange("LF alone is refused", "ours: no bare LF", b"GET / HTTP/1.1\nHost: example.com\r\n\r\n",
             refused(400, reason="bare_line_ending|request_line_malformed"), ours=True),
    exchange("NUL in the request line", "RFC 9112 3", raw(b"GET /\0 HTTP/1.1"), BAD),
    exchange("NUL in the method", "RFC 9112 3", raw(b"GE\0T / HTTP/1.1"), BAD),
    *bad("only a method", b"GET"),
    *bad("four words", b"GET / x HTTP/1.1"),
    *bad("a space in the target", b"GET /smug gled HTTP/1.1"),
    *bad("a comma for a space", b"GET,/,HTTP/1.1"),
    exchange("a TLS hello", "RFC 9112 2.2", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", BAD,
             Outcome(ends=True, requests=0)),
    exchange("a response for a request", "RFC 9112 2.2", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", BAD,
             refused(505)),
)  # fmt: skip

OTHER_VERSION = refused(400, 505)
VERSIONS = (
    exchange("HTTP/2.0", "RFC 9110 15.6.6", raw(b"GET / HTTP/2.0"), PASSED, OTHER_VERSION),
    exchange("HTTP/2.0 is 505", "ours", raw(b"GET / HTTP/2.0"), refused(505, reason="version_not_supported"),
             ours=True),
    exchange("HTTP/0.9 in the line is 505", "ours", raw(b"GET / HTTP/0.9"), refused(505,
             reason="version_not_supported"),
             ours=True),
    exchange("HTTP/3.0", "RFC 9110 15.6.6", raw(b"GET / HTTP/3.0"), PASSED, OTHER_VERSION),
    exchange("HTTP/0.9 in the line", "RFC 9110 15.6.6", raw(b"GET / HTTP/0.9"), PASSED, OTHER_VERSION),
    exchange("HTTP/1.2 is read as 1.1", "RFC 9110 2.5", raw(b"GET / HTTP/1.2"), PASSED, OTHER_VERSION),
    exchange("http/1.1", "RFC 9112 2.3", raw(b"GET / http/1.1"), OTHER_VERSION),
    *(
        exchange(f"version {version!r}", "RFC 9112 2.3", raw(b"GET / " + version.encode("latin-1")), OTHER_VERSION)
        for version in ("HTTP/1.10", "HTTP/01.1", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/1,1", "HTTP/1.1x", "HTTP 1.1",
                        "HTTP/+1.1", "XTTP/1.1", "HTTP/1.\xb9")
    ),
    exchange("no version", "ours: no HTTP/0.9", b"GET /\r\n\r\n", refused(400), ours=True),
    exchange("the preface of HTTP/2", "ours: no HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
             refused(400, 505), ours=True),
)  # fmt: skip

TARGETS = (
    target("an empty query", b"/?"),
    target("two question marks", b"/a??b?c"),
    target("only slashes and marks", b"/?/?"),
    target("escapes", b"/%41%7e%C3%a9?%41=%7E"),
    target("plus and escapes in the query", b"/?a=+&b=%2B&c=%20&&=&d"),
    target("sub-delimiters", b"/a!$&'()*+,=:@-._~b?!$&'()*+,;=:@-._~/?"),
    target("an encoded line end", b"/?x=%0d%0aX-Evil:%20y"),
    target("an encoded space at the end", b"/a%20"),
    target("dots that are no dot segments", b"/...?a/../b"),
    target("names that begin with dots", b"/.well-known/..x/x../.y"),
    target("slashes, dots and escapes in the query", b"/?x=//../.%2e/%2F;%00"),
    target("a URL in the query", b"/?next=http://a@b:80/c?d"),
    target("a long query", b"/?" + b"q=0123456789&" * 540, "RFC 9112 3 (8000 octets)"),
    target("a request line of 8000 octets", b"/" + b"a" * (8000 - len(b"GET / HTTP/1.1")), "RFC 9112 3 (8000 octets)"),
    *odd_target("quotes in the query", b'/?a="b"'),
    *odd_target("brackets in the query", b"/?a[b]={c|d}^`<e>"),
    *odd_target("UTF-8 in the path", "/caf\xe9/\u65e5".encode()),
    *odd_target("Latin-1 in the query", b"/?caf\xe9\xff"),
    *odd_target("a broken escape in the query", b"/?a=%zz&b=%4&c=%"),
    *(
        exchange(f"a control character ({byte:#04x}) in the target", "RFC 9112 3.2", raw(b"GET /a%cb HTTP/1.1" % byte),
                 BAD_TARGET)
        for byte in (0x01, 0x08, 0x1B, 0x7F)
    ),
    exchange("a fragment in the target", "RFC 9112 3.2", raw(b"GET /a#b HTTP/1.1"), BAD_TARGET),
    exchange("a fragment in the query", "RFC 9112 3.2", raw(b"GET /a?b#c HTTP/1.1"), BAD_TARGET),
    exchange("a target without a slash", "RFC 9112 3.2.1", raw(b"GET index.html HTTP/1.1"), BAD_TARGET),
    exchange("a target that is a query", "RFC 9112 3.2.1", raw(b"GET ?a=b HTTP/1.1"), BAD_TARGET),
    exchange("a target that is a fragment", "RFC 9112 3.2.1", raw(b"GET #a HTTP/1.1"), BAD_TARGET),
    exchange("an asterisk with GET", "RFC 9112 3.2.4", raw(b"GET * HTTP/1.1"), forwarded(Seen(line=b"GET * HTTP/1.1")),
             BAD_TARGET),
    exchange("an asterisk with GET is refused", "ours", raw(b"GET * HTTP/1.1"), refused(400,
             reason="target_form_not_served"),
             ours=True),
    exchange("an authority with GET", "RFC 9112 3.2.3", raw(b"GET example.com:80 HTTP/1.1"), BAD_TARGET),
    exchange("an asterisk and more", "RFC 9112 3.2.4", raw(b"OPTIONS *x HTTP/1.1"), BAD_TARGET),
    exchange("OPTIONS *", "RFC 9112 3.2.4", raw(b"OPTIONS * HTTP/1.1"), forwarded(Seen(line=b"OPTIONS * HTTP/1.1"))),
    exchange("a target too long", "RFC 9112 3", raw(b"GET /" + b"a" * 100_000 + b" HTTP/1.1"), refused(414)),
    exchange("a target too long, told why", "ours", raw(b"GET /" + b"a" * 100_000 + b" HTTP/1.1"),
             refused(414, reason="request_line_too_long"), ours=True),
    exchange("a request line without end", "RFC 9112 3", b"GET /" + b"a" * 100_000, refused(414)),
    exchange("a method without end", "RFC 9112 3", b"A" * 100_000, refused(400, 414, 501)),
)  # fmt: skip

ABSOLUTE = (
    absolute("absolute form", b"GET http://example.com/a?b HTTP/1.1", b"GET /a?b HTTP/1.1", "example.com"),
    exchange("absolute form becomes origin form", "ours", raw(b"GET http://example.com/a?b HTTP/1.1"),
             forwarded(Seen(line=b"GET /a?b HTTP/1.1", host="example.com")), ours=True),
    absolute("absolute form replaces Host", b"GET http://other.example/a HTTP/1.1", b"GET /a HTTP/1.1",
             "other.example"),
    absolute("absolute form with a port", b"GET http://other.example:8080/a HTTP/1.1", b"GET /a HTTP/1.1",
             "other.example:8080"),
    absolute("absolute form with an address", b"GET http://[2001:db8::1]:8080/a HTTP/1.1", b"GET /a HTTP/1.1",
             "[2001:db8::1]:8080"),
    absolute("absolute form without a path", b"GET http://example.com HTTP/1.1", b"GET / HTTP/1.1", "example.com",
             clause="RFC 9110 7.7"),
    absolute("absolute form with a query alone", b"GET http://example.com?a=b HTTP/1.1", b"GET /?a=b HTTP/1.1",
             "example.com", clause="RFC 9110 7.7"),
    absolute("absolute form in capitals", b"GET HTTP://EXAMPLE.com/a HTTP/1.1", b"GET /a HTTP/1.1", "example.com"),
    absolute("absolute form, escapes untouched", b"GET http://example.com/%41?%7e HTTP/1.1", b"GET /%41?%7e HTTP/1.1",
             "example.com"),
    absolute("absolute form, Host in capitals", b"GET http://a.example/ HTTP/1.1", b"GET / HTTP/1.1", "a.example",
             b"HOST: b.example"),
    absolute("absolute form with OPTIONS and no path", b"OPTIONS http://example.com HTTP/1.1", b"OPTIONS * HTTP/1.1",
             "example.com", clause="RFC 9112 3.2.4"),
    absolute("absolute form with OPTIONS and a path", b"OPTIONS http://example.com/ HTTP/1.1", b"OPTIONS / HTTP/1.1",
             "example.com", clause="RFC 9112 3.2.4"),
    exchange("absolute form in HTTP/1.0 without Host", "RFC 9112 3.2.2", b"GET http://example.com/a HTTP/1.0\r\n\r\n",
             Outcome(answers=(Answer(),), ends=True, requests=(Seen(host="example.com"),))),
    exchange("absolute form without Host", "RFC 9112 3.2", b"GET http://example.com/a HTTP/1.1\r\n\r\n", BAD),
    exchange("absolute form with two Hosts", "RFC 9112 3.2",
             raw(b"GET http://example.com/a HTTP/1.1", HOST, HOST), BAD),
    exchange("absolute form with a bad Host", "RFC 9112 3.2", raw(b"GET http://example.com/a HTTP/1.1", b"Host: a b"),
             BAD),
    exchange("absolute form without a host", "RFC 9110 4.2.1", raw(b"GET http:///a HTTP/1.1"), BAD_TARGET),
    exchange("absolute form with only a port", "RFC 9110 4.2.1", raw(b"GET http://:80/a HTTP/1.1"), BAD_TARGET),
    exchange("userinfo in the authority", "RFC 9110 4.2.4", raw(b"GET http://user:secret@example.com/a HTTP/1.1"),
             BAD_TARGET),
    exchange("absolute form with a fragment", "RFC 9112 3.2", raw(b"GET http://example.com/a#b HTTP/1.1"), BAD_TARGET),
    exchange("absolute form with a bad host", "RFC 9112 3.2.2", raw(b"GET http://exam<ple>/a HTTP/1.1"), BAD_TARGET),
    exchange("absolute form with a bad port", "RFC 9112 3.2.2", raw(b"GET http://example.com:8x/a HTTP/1.1"),
             BAD_TARGET),
    exchange("absolute form with another scheme", "ours", raw(b"GET ftp://example.com/a HTTP/1.1"), refused(400),
             ours=True),
    exchange("absolute form without slashes", "ours", raw(b"GET http:example.com HTTP/1.1"), refused(400), ours=True),
    exchange("absolute form of https", "RFC 9112 3.2.2", raw(b"GET https://example.com/a HTTP/1.1"),
             forwarded(Seen(line=(b"GET /a HTTP/1.1", b"GET https://example.com/a HTTP/1.1"), host="example.com")),
             Outcome(answers=(Answer(status=range(300, 500)),), requests=0)),
)  # fmt: skip

CONNECT = (
    exchange("CONNECT is not served", "ours", raw(b"CONNECT example.com:443 HTTP/1.1", b"Host: example.com:443"),
             refused(400, 405), ours=True),
    exchange("CONNECT with a body", "ours", raw(b"CONNECT example.com:443 HTTP/1.1", HOST,
             b"Content-Length: 5") + b"hello",
             refused(400, 405), ours=True),
    exchange("CONNECT hides no request", "ours",
             raw(b"CONNECT example.com:443 HTTP/1.1", HOST) + get("/smuggled"), refused(400, 405, without=b"smuggled"),
             ours=True),
    exchange("CONNECT without a port", "RFC 9110 9.3.6", raw(b"CONNECT example.com HTTP/1.1"),
             refused(*range(400, 600))),
    exchange("CONNECT to an empty port", "RFC 9110 9.3.6", raw(b"CONNECT example.com: HTTP/1.1"),
             refused(*range(400, 600))),
    exchange("CONNECT to an invalid port", "RFC 9110 9.3.6", raw(b"CONNECT example.com:99999x HTTP/1.1"),
             refused(*range(400, 600))),
)  # fmt: skip

CASES = (*METHODS, *LINES, *VERSIONS, *TARGETS, *ABSOLUTE, *CONNECT)
