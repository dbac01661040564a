"""Trailers: kept apart from headers, or dropped (RFC 9110, section 6.5; RFC 9112, section 7.1.2)."""

from __future__ import annotations

from tests.conformance.case import (
    Answer,
    Case,
    Outcome,
    Reply,
    Seen,
    chunked,
    exchange,
    forwarded,
    get,
    post_chunked,
    refused,
    response,
)

APART = "RFC 9110 6.5.1"
CHUNKED = b"Transfer-Encoding: chunked"


def sent(trailers: bytes, *fields: bytes) -> bytes:
    return post_chunked(chunked(b"hello", trailers=trailers), *fields)


def got(trailers: bytes, *fields: bytes) -> tuple[Reply, ...]:
    return (Reply(response(CHUNKED, *fields, body=chunked(b"hello", trailers=trailers))),)


def forbidden(name: str, trailer: bytes) -> list[Case]:
    """A field that frames, routes or authenticates is nothing for a trailer: neither header nor trailer comes of it."""
    field = trailer.partition(b":")[0].decode()
    apart = Seen(body=b"hello", has={"x-a": "1"}, like={"host": "example.com"})
    clean = Seen(body=b"hello", no_trailers=(field,), has={"x-a": "1"}, absent=() if field == "Host" else (field,))
    return [
        exchange(f"request trailer {name}", APART, sent(trailer + b"\r\n", b"X-A: 1"), forwarded(apart), refused(400)),
        exchange(f"request trailer {name} is dropped", "ours", sent(trailer + b"\r\n", b"X-A: 1"),
                 forwarded(clean if field not in ("Transfer-Encoding", "Content-Length") else
                           Seen(body=b"hello", no_trailers=(field,))), ours=True),
    ]  # fmt: skip


def bad(name: str, trailers: bytes) -> Case:
    data = post_chunked(b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n" + get("/smuggled"))
    dropped = Outcome(answers=(Answer(), Answer()), requests=2)  # whoever drops all trailers may not look at them
    return exchange(name, "RFC 9112 7.1.2", data, refused(400, without=b"smuggled"), dropped)


REQUESTS = (
    exchange("a request trailer is no header", APART, sent(b"X-Checksum: abc\r\n"),
             forwarded(Seen(body=b"hello", absent=("x-checksum",)))),
    exchange("a request trailer is handed on", "ours", sent(b"X-Checksum: abc\r\n", b"Trailer: X-Checksum"),
             forwarded(Seen(body=b"hello", trailers={"x-checksum": "abc"}, absent=("x-checksum",),
                            has={"trailer": "X-Checksum"})),
             forwarded(Seen(body=b"hello", trailers={"x-checksum": "abc"}, absent=("x-checksum",),
                            has={"trailer": "x-checksum"})), ours=True),
    exchange("request trailers nobody announced", "ours", sent(b"X-A: 1\r\nX-B: 2\r\n"),
             forwarded(Seen(body=b"hello", trailers={"x-a": "1", "x-b": "2"})), ours=True),
    exchange("a request trailer with bytes above ASCII", "ours", sent(b"X-A: \xe9\r\n"),
             forwarded(Seen(body=b"hello", trailers={"x-a": "\xe9"})), ours=True),
    exchange("a trailer of the name of a header", APART, sent(b"X-A: trailer\r\n", b"X-A: header"),
             forwarded(Seen(body=b"hello", has={"x-a": "header"}))),
    exchange("a trailer that Connection names", "RFC 9110 7.6.1", sent(b"X-Drop: 1\r\nX-Keep: 2\r\n",
             b"Connection: X-Drop"),
             forwarded(Seen(body=b"hello", no_trailers=("x-drop",), absent=("x-drop",)))),
    exchange("trailers are not those of the next request", APART, sent(b"X-A: 1\r\n") + get("/next"),
             forwarded(Seen(body=b"hello", absent=("x-a",)), Seen(line=b"GET /next HTTP/1.1", absent=("x-a",)),
                       answers=2)),
    exchange("a second Host in a trailer", APART, sent(b"Host: evil.example\r\n"),
             forwarded(Seen(host="example.com", body=b"hello")), refused(400)),
    *(
        one
        for name, trailer in {
            "Host": b"Host: evil",
            "Content-Length": b"Content-Length: 50",
            "Transfer-Encoding": b"Transfer-Encoding: chunked",
            "Authorization": b"Authorization: Basic eDp5",
            "Cookie": b"Cookie: a=b",
            "Content-Type": b"Content-Type: text/html",
            "Expect": b"Expect: 100-continue",
            "Range": b"Range: bytes=0-",
            "If-Match": b"If-Match: *",
            "X_Real_IP": b"X_Real_IP: 1.2.3.4",
        }.items()
        for one in forbidden(name, trailer)
    ),
    bad("a trailer with a space before the colon", b"X-A : 1\r\n"),
    bad("a trailer without a colon", b"X-A\r\n"),
    bad("a trailer with NUL", b"X-A: 1\x002\r\n"),
    bad("a folded trailer", b"X-A: 1\r\n 2\r\n"),
    bad("a trailer with a bare CR", b"X-A: 1\r2\r\n"),
    exchange("LF ends a trailer", "RFC 9112 2.2", post_chunked(b"5\r\nhello\r\n0\r\nX-A: 1\nX-B: 2\r\n\r\n"),
             refused(400),
             forwarded(Seen(body=b"hello"))),
    exchange("trailers without end", "RFC 9110 5.4", post_chunked(b"0\r\n" + b"X-A: aaaaaaaaaaaaaaaa\r\n" * 20_000),
             refused(*range(400, 500)), Outcome(requests=0)),
    exchange("a malformed trailer is refused", "ours", post_chunked(b"0\r\nX-A : 1\r\n\r\n"),
             refused(400, reason="trailer_malformed"), ours=True),
)  # fmt: skip

RESPONSES = (
    exchange("a response trailer is no header", APART, get(),
             Outcome(answers=(Answer(body=b"hello", absent=("x-checksum",)),), goes_on=True),
                     replies=got(b"X-Checksum: abc\r\n")),
    exchange("a response trailer is handed on", "Go reverseproxy 10", get("/", b"TE: trailers", b"Connection: TE"),
             Outcome(answers=(Answer(body=b"hello", trailers={"x-checksum": "abc"}, member={"trailer": "x-checksum"},
                                     absent=("x-checksum",)),), goes_on=True),
             replies=got(b"X-Checksum: abc\r\n", b"Trailer: X-Checksum"), ours=True),
    exchange("response trailers nobody announced", "Go reverseproxy 10", get("/", b"TE: trailers", b"Connection: TE"),
             Outcome(answers=(Answer(body=b"hello", trailers={"x-a": "1", "x-b": "2"}),), goes_on=True),
             replies=got(b"X-A: 1\r\nX-B: 2\r\n"), ours=True),
    exchange("trailers of an empty response", "Go reverseproxy 10", get("/", b"TE: trailers", b"Connection: TE"),
             Outcome(answers=(Answer(body=b"", trailers={"grpc-status": "0"}),), goes_on=True),
             replies=(Reply(response(CHUNKED, b"Trailer: grpc-status", body=chunked(trailers=b"grpc-status: 0\r\n"))),
             ), ours=True),
    exchange("response trailers for an HTTP/1.0 client", "RFC 9112 6.1", get(version=b"HTTP/1.0"),
             Outcome(answers=(Answer(body=b"hello", absent=("x-a", "trailer", "transfer-encoding")),), ends=True),
             Outcome(answers=(Answer(body=b"hello", absent=("x-a", "transfer-encoding")),), ends=True),
             replies=got(b"X-A: 1\r\n", b"Trailer: X-A")),
    exchange("a response trailer of the name of a header", APART, get(),
             Outcome(answers=(Answer(body=b"hello", has={"x-a": "header"}),), goes_on=True),
             replies=got(b"X-A: trailer\r\n", b"X-A: header")),
    exchange("a response trailer that Connection names", "RFC 9110 7.6.1", get(),
             Outcome(answers=(Answer(body=b"hello", no_trailers=("x-drop",), absent=("x-drop",)),), goes_on=True),
             replies=got(b"X-Drop: 1\r\n", b"Connection: X-Drop")),
    *(
        exchange(f"response trailer {trailer.partition(b':')[0].decode()} is dropped", "ours", get(),
                 Outcome(answers=(Answer(body=b"hello", no_trailers=(trailer.partition(b":")[0].decode(),)),),
                         goes_on=True),
                 replies=got(trailer + b"\r\n"), ours=True)
        for trailer in (b"Content-Length: 50", b"Transfer-Encoding: chunked", b"Set-Cookie: a=b", b"Content-Type: a/b",
                        b"Connection: close", b"Location: /")
    ),
    exchange("response trailers are not those of the next response", APART, get("/1") + get("/2"),
             Outcome(answers=(Answer(body=b"hello"), Answer(body=b"ok", absent=("x-a",))), goes_on=True),
             replies=got(b"X-A: 1\r\n")),
    exchange("a malformed response trailer", "RFC 9112 7.1.2", get(), Outcome(answers=(Answer(status=502),),
             reused=False),
             Outcome(answers=(Answer(cut=True),), ends=True, reused=False), Outcome(answers=(Answer(body=b"hello"),)),
             replies=got(b"X-A : 1\r\n")),
)  # fmt: skip

CASES = (*REQUESTS, *RESPONSES)
