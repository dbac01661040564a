"""HTTP/1.0, from clients and from origins (RFC 9112, sections 6.3 and 9.3 and appendix C)."""

from __future__ import annotations

from typing import Any

from tests.conformance.case import (
    OK,
    Answer,
    Case,
    Outcome,
    Reply,
    Seen,
    chunked,
    exchange,
    forwarded,
    get,
    post,
    response,
)

OLD = b"HTTP/1.0"
CHUNKED = b"Transfer-Encoding: chunked"


def closed(*requests: Seen, **answer: Any) -> Outcome:
    return Outcome(answers=(Answer(absent=("transfer-encoding",), **answer),), ends=True, requests=requests or None)


def kept(**answer: Any) -> tuple[Outcome, Outcome]:
    """A client that asks to go on may be let go on, and is told so, or be closed."""
    return (
        Outcome(
            answers=(Answer(member={"connection": "keep-alive"}, framing=("length", "none"), **answer),), goes_on=True
        ),
        closed(**answer),
    )


def client(name: str, data: bytes, reply: bytes = OK, then: str = "keep", ours: bool = False, **answer: Any) -> Case:
    return exchange(name, "RFC 9112 6.3, 9.3", data, closed(**answer), replies=(Reply(reply, then),), ours=ours)


def origin(
    name: str, reply: bytes, outcome: Outcome, then: str = "keep", clause: str = "RFC 9112 6.3, 9.3", **more: Any
) -> Case:
    return exchange(name, clause, get("/-old/x"), outcome, replies=(Reply(reply, then),), **more)


KEEP = b"Connection: keep-alive"

CLIENTS = (
    client("a client of HTTP/1.0", get(version=OLD), body=b"ok"),
    client("chunks for a client of HTTP/1.0", get(version=OLD), response(CHUNKED, body=chunked(b"he", b"llo")),
           body=b"hello"),
    client("an endless body for a client of HTTP/1.0", get(version=OLD), response(body=b"hello"), "end", body=b"hello"),
    client("no body for a client of HTTP/1.0", get(version=OLD), response(b"Content-Length: 0"), body=b""),
    client("204 for a client of HTTP/1.0", get(version=OLD), response(status=b"204 No Content"), status=204),
    client("HEAD in HTTP/1.0", get(version=OLD, method=b"HEAD"), response(b"Content-Length: 5"), framing=("none",)),
    client("300,000 bytes in chunks for a client of HTTP/1.0", get(version=OLD),
           response(CHUNKED, body=chunked(b"0123456789" * 30_000)), body=b"0123456789" * 30_000),
    exchange("the origin is asked in the proxy's own version", "RFC 9112 2.3", get("/a", version=OLD),
             closed(Seen(line=b"GET /a HTTP/1.1"))),
    exchange("the answer is in the proxy's own version", "RFC 9112 2.3", get(version=OLD), closed(version=b"HTTP/1.1")),
    exchange("a client without any field", "RFC 9112 3.2", b"GET /a HTTP/1.0\r\n\r\n",
             closed(Seen(line=(b"GET /a HTTP/1.1", b"GET /a HTTP/1.0")))),
    exchange("POST in HTTP/1.0", "RFC 9112 6.3", get("/", b"Content-Length: 5", method=b"POST", version=OLD) + b"hello",
             closed(Seen(body=b"hello"))),
    exchange("POST in HTTP/1.0 without a length", "RFC 9112 6.3", get("/", method=b"POST", version=OLD),
             closed(Seen(body=b"")), Outcome(answers=(Answer(status=(400, 411)),), ends=True)),
    exchange("HTTP/1.0 that asks to go on", "RFC 9112 9.3", get("/", KEEP, version=OLD), *kept(body=b"ok")),
    exchange("HTTP/1.0 that asks to go on, in capitals", "RFC 9112 9.3", get("/", b"Connection: Keep-Alive",
             version=OLD),
             *kept(body=b"ok")),
    exchange("HTTP/1.0 that asks to go on is let go on", "ours", get("/", KEEP, version=OLD), kept()[0], ours=True),
    exchange("HTTP/1.0 that asks to go on, with chunks", "RFC 9112 9.3", get("/", KEEP, version=OLD),
             *kept(body=b"hello"),
             replies=(Reply(response(CHUNKED, body=chunked(b"hello"))),)),
    exchange("HTTP/1.0 that asks to go on, with an endless body", "RFC 9112 9.3", get("/", KEEP, version=OLD),
             *kept(body=b"hello"),
             replies=(Reply(response(body=b"hello"), "end"),)),
    exchange("HTTP/1.0 that asks to go on and to close", "RFC 9112 9.3", get("/", b"Connection: keep-alive, close",
             version=OLD),
             closed(body=b"ok")),
    exchange("HTTP/1.0 with Keep-Alive alone", "RFC 9112 9.3", get("/", b"Keep-Alive: 300", version=OLD),
             closed(body=b"ok")),
    exchange("what follows an HTTP/1.0 request is not read", "RFC 9112 9.3", get("/1", version=OLD) + get("/2"),
             Outcome(answers=(Answer(body=b"ok"),), ends=True, requests=1)),
    exchange("two HTTP/1.0 requests on a kept connection", "RFC 9112 9.3", get("/1", KEEP, version=OLD) + get("/2",
             KEEP, version=OLD),
             Outcome(answers=(Answer(), Answer()), requests=2), Outcome(answers=(Answer(),), ends=True, requests=1)),
    exchange("Upgrade in HTTP/1.0", "RFC 9110 7.8", get("/", b"Connection: Upgrade", b"Upgrade: websocket",
             version=OLD),
             closed(Seen(absent=("upgrade",)))),
    exchange("HTTP/1.0 and HTTP/1.1 on one connection", "RFC 9112 9.3", get("/1") + get("/2", version=OLD),
             Outcome(answers=(Answer(), Answer()), ends=True, requests=2)),
)  # fmt: skip

GOES_ON = Outcome(answers=(Answer(body=b"ok"),), goes_on=True)
ORIGINS = (
    origin("an origin of HTTP/1.0", response(body=b"ok", version=OLD), GOES_ON, "end"),
    origin("an origin of HTTP/1.0 with a length", response(b"Content-Length: 2", body=b"ok", version=OLD), GOES_ON,
           "end"),
    origin("an origin of HTTP/1.0 that does not close", response(b"Content-Length: 2", body=b"ok", version=OLD),
           Outcome(answers=(Answer(body=b"ok"),), reused=False)),
    origin("an origin of HTTP/1.0 that goes on", response(b"Content-Length: 2", KEEP, body=b"ok", version=OLD),
           GOES_ON),
    origin("an origin of HTTP/1.0 without fields", b"HTTP/1.0 200 OK\r\n\r\nok", GOES_ON, "end"),
    origin("an origin of HTTP/1.0 with nothing to say", response(status=b"204 No Content", version=OLD),
           Outcome(answers=(Answer(status=204),), goes_on=True), "end"),
    origin("an origin of HTTP/1.0 that is cut", response(b"Content-Length: 50", body=b"ok", version=OLD),
           Outcome(answers=(Answer(cut=True),), ends=True), "end", "RFC 9112 8"),
    exchange("an origin of HTTP/1.0 that is reset", "RFC 9112 8", get("/-old/x"), Outcome(answers=(Answer(cut=True),),
             ends=True),
             Outcome(answers=(Answer(status=502),)), replies=(Reply(response(body=b"ok", version=OLD), "reset"),)),
    exchange("HTTP/1.0 on both sides", "RFC 9112 6.3", get("/-old/x", version=OLD), closed(body=b"ok"),
             replies=(Reply(response(body=b"ok", version=OLD), "end"),)),
    exchange("chunks for an origin of HTTP/1.0", "RFC 9112 6.3",
             get("/-old/x", CHUNKED, method=b"POST") + chunked(b"hello"), forwarded(Seen(body=b"hello")),
             replies=(Reply(response(b"Content-Length: 2", KEEP, body=b"ok", version=OLD)),)),
    exchange("a body for an origin of HTTP/1.0", "RFC 9112 6.3", post(b"hello", target=b"/-old/x"),
             forwarded(Seen(body=b"hello")), replies=(Reply(response(body=b"ok", version=OLD), "end"),)),
)  # fmt: skip

CASES = (*CLIENTS, *ORIGINS)
