"""What ends at each hop, and what each hop adds (RFC 9110, section 7.6; Go's ReverseProxy)."""

from __future__ import annotations

from typing import Any

from tests.conformance.case import (
    OK,
    Answer,
    Case,
    Got,
    Outcome,
    Receive,
    Remember,
    Reply,
    Say,
    Seen,
    Send,
    Statuses,
    Unasked,
    chunked,
    exchange,
    forwarded,
    get,
    lines,
    post,
    response,
    scene,
)

OPTIONS = "RFC 9110 7.6.1"


def request(name: str, *fields: bytes, clause: str = OPTIONS, ours: bool = False, **seen: Any) -> Case:
    """Fields of a request and what arrives of them, and that the connection goes on unless it was to be closed."""
    outcome = forwarded(Seen(**seen))
    if any(b"close" in field.lower() for field in fields):
        outcome = Outcome(answers=(Answer(),), ends=True, requests=outcome.requests)
    return exchange(name, clause, get("/", *fields), outcome, ours=ours)


def answered(name: str, *fields: bytes, clause: str = OPTIONS, ours: bool = False, **seen: Any) -> Case:
    """Fields of a response and what arrives of them."""
    answer = Answer(body=b"ok", **seen)
    replies = (Reply(response(b"Content-Length: 2", *fields, body=b"ok")),)
    return exchange(name, clause, get(), Outcome(answers=(answer,), goes_on=True), replies=replies, ours=ours)


KEPT = {"x-keep": "2"}

REQUESTS = (
    request("a field that Connection names", b"Connection: X-Drop", b"X-Drop: 1", b"X-Keep: 2", has=KEPT,
            absent=("x-drop",)),
    request("fields that Connection names, in a list", b"Connection: x-a,X-B ,\tx-c", b"X-A: 1", b"X-B: 1", b"X-C: 1",
            b"X-Keep: 2", has=KEPT, absent=("x-a", "x-b", "x-c")),
    request("fields that Connection names on several lines", b"Connection: x-a", b"X-A: 1", b"Connection: x-b",
            b"X-B: 1",
            b"X-Keep: 2", has=KEPT, absent=("x-a", "x-b")),
    request("a repeated field that Connection names", b"X-Drop: 1", b"X-Keep: 2", b"x-drop: 3", b"Connection: X-DROP",
            has=KEPT, absent=("x-drop",)),
    request("a field named beside close", b"Connection: close, X-Drop", b"X-Drop: 1", b"X-Keep: 2", has=KEPT,
            absent=("x-drop",)),
    request("a field named beside keep-alive", b"Connection: keep-alive, X-Drop", b"X-Drop: 1", b"X-Keep: 2", has=KEPT,
            absent=("x-drop", "keep-alive")),
    request("empty members of Connection", b"Connection: ,, X-Drop,,", b"X-Drop: 1", b"X-Keep: 2", has=KEPT,
            absent=("x-drop",)),
    request("an empty Connection", b"Connection:", b"X-Keep: 2", has=KEPT),
    request("Connection names what is not there", b"Connection: x-none", b"X-Keep: 2", has=KEPT),
    request("Connection names a field of meaning", b"Connection: Authorization, Cookie", b"Authorization: a",
            b"Cookie: b=c", b"X-Keep: 2", has=KEPT, absent=("authorization", "cookie")),
    request("the client's options of Connection end here", b"Connection: keep-alive, x-a", b"X-Keep: 2", has=KEPT,
            absent=("connection: x-a",)),
    request("a name that begins like one that is named", b"Connection: X-Drop", b"X-Drop: 1", b"X-Dropped: 2",
            has={"x-dropped": "2"}, absent=("x-drop",)),
    request("Keep-Alive", b"Keep-Alive: timeout=5", b"X-Keep: 2", has=KEPT, absent=("keep-alive",)),
    request("Proxy-Connection", b"Proxy-Connection: keep-alive", b"X-Keep: 2", has=KEPT, absent=("proxy-connection",)),
    request("TE without Connection", b"TE: gzip", b"X-Keep: 2", has=KEPT, absent=("te: gzip",)),
    request("TE with codings", b"TE: trailers, deflate;q=0.5", b"Connection: TE", b"X-Keep: 2", has=KEPT,
            absent=("te: deflate;q=0.5",)),
    request("Upgrade without Connection", b"Upgrade: websocket", b"X-Keep: 2", has=KEPT, absent=("upgrade",)),
    request("Trailer named by Connection", b"Connection: Trailer", b"Trailer: x", b"X-Keep: 2", has=KEPT,
            absent=("trailer",)),
    request("Proxy-Authorization ends here", b"Proxy-Authorization: Basic eDp5", b"X-Keep: 2", has=KEPT,
            absent=("proxy-authorization",), clause="Go reverseproxy 5", ours=True),
    request("Proxy-Authenticate ends here", b"Proxy-Authenticate: Basic", absent=("proxy-authenticate",),
            clause="Go reverseproxy 5", ours=True),
    request("TE: trailers is asked for again", b"TE: trailers", b"Connection: TE", has={"te": "trailers"},
            member={"connection": "te"}, clause="RFC 9110 10.1.4, Go reverseproxy 5", ours=True),
    request("TE: trailers among codings", b"TE: deflate, trailers;q=0.5", b"Connection: te",
            absent=("te: deflate",), clause="RFC 9110 10.1.4", ours=True),
    exchange("TE that goes on is named by Connection", "RFC 9110 10.1.4", get("/", b"TE: trailers", b"Connection: TE"),
             forwarded(Seen(absent=("te",))), forwarded(Seen(has={"te": "trailers"}, member={"connection": "te"}))),
    request("Connection does not name away who the client is", b"Connection: X-Forwarded-For, X-Forwarded-Proto",
            has={"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http"}, clause="ours", ours=True),
    request("Connection does not name away Via", b"Connection: Via", like={"via": r"(.*, )?1\.1 \S+.*"}, clause="ours",
            ours=True),
    request("a hundred options of Connection", b"Connection: " + b", ".join(b"x-%d" % n for n in range(100)),
            b"X-7: 1", b"X-99: 1", b"X-100: 1", has={"x-100": "1"}, absent=("x-7", "x-99")),
    request("end-to-end fields that sound like others", b"Cache-Control: no-transform", b"Pragma: no-cache",
            b"Warning: 199 - x", has={"cache-control": "no-transform", "pragma": "no-cache"}, clause="RFC 9110 7.6"),
)  # fmt: skip

RESPONSES = (
    answered("response field that Connection names", b"Connection: X-Drop", b"X-Drop: 1", b"X-Keep: 2", has=KEPT,
             absent=("x-drop",)),
    answered("response fields that Connection names", b"Connection: x-a , X-B", b"X-A: 1", b"x-b: 1", b"X-Keep: 2",
             has=KEPT,
             absent=("x-a", "x-b")),
    answered("response field named beside close", b"Connection: close, X-Drop", b"X-Drop: 1", b"X-Keep: 2", has=KEPT,
             absent=("x-drop",)),
    answered("response options of Connection end here", b"Connection: keep-alive, X-Drop",
             absent=("connection: x-drop",)),
    answered("response Keep-Alive", b"Keep-Alive: timeout=5", b"X-Keep: 2", has=KEPT, absent=("keep-alive",)),
    answered("response Proxy-Connection", b"Proxy-Connection: keep-alive", b"X-Keep: 2", has=KEPT,
             absent=("proxy-connection",)),
    answered("response Upgrade that switches nothing", b"Upgrade: h2c", b"Connection: Upgrade", b"X-Keep: 2", has=KEPT,
             absent=("upgrade",)),
    answered("response TE", b"TE: trailers", b"X-Keep: 2", has=KEPT, absent=("te",), ours=True),
    answered("response Proxy-Authenticate ends here", b"Proxy-Authenticate: Basic", absent=("proxy-authenticate",),
             clause="Go reverseproxy 5", ours=True),
    answered("Via in a response stays", b"Via: 1.1 origin-proxy", like={"via": "1.1 origin-proxy(, .*)?"},
             clause="RFC 9110 7.6.3"),
    answered("Server is the origin's", b"Server: origin/1", has={"server": "origin/1"}, clause="RFC 9110 7.6 (Server)"),
    answered("no Server is invented", absent=("server",), clause="ours: Server is left alone", ours=True),
)  # fmt: skip

VIA = (
    request("Via is added", like={"via": r"1\.1 [^ ,]+.*"}, clause="RFC 9110 7.6.3"),
    request("Via is added behind another", b"Via: 1.0 fred, 1.1 p.example.net", b"X-Keep: 2",
            like={"via": r"1\.0 fred, 1\.1 p\.example\.net, 1\.1 [^ ,]+.*"}, clause="RFC 9110 7.6.3"),
    request("Via is added behind others", b"Via: 1.0 fred", b"X-Keep: 2", b"Via: 1.1 ginger (a, b)",
            like={"via": r"1\.0 fred, 1\.1 ginger \(a, b\), 1\.1 [^ ,]+.*"}, clause="RFC 9110 7.6.3"),
    exchange("Via tells the version that was received", "RFC 9110 7.6.3", get(version=b"HTTP/1.0"),
             Outcome(answers=(Answer(),), ends=True, requests=(Seen(like={"via": r"1\.0 [^ ,]+.*"}),))),
    request("Via with a name like ours", b"Via: 1.1 gateway.example, 1.1 xgateway", like={"via": ".*, .*, .*"},
            clause="RFC 9110 7.6.3", ours=True),
    scene("a request that comes by twice", "RFC 9110 7.6.3, 508", Send(get("/first")), Got(), Remember("via", "via"),
          Say(OK), Receive(), Send(get("/again", b"Via: @via@")),
          Receive(Answer(status=508, reason="loop_detected")), Unasked(), ours=True),
    scene("a request that came by twice, with others between", "RFC 9110 7.6.3, 508", Send(get("/first")), Got(),
          Remember("via", "via"), Say(OK), Receive(), Send(get("/again", b"Via: @via@, 1.1 another",
                   b"Via: 1.0 third")),
          Receive(Answer(status=508, reason="loop_detected")), Unasked(), ours=True),
)  # fmt: skip

COUNT = "RFC 9110 7.6.2"
# The final recipient of a TRACE may decline it, and so may any server.
NO_TRACE = Outcome(answers=(Answer(status=(403, 405, 501)),), requests=0)


def hops(name: str, method: bytes, value: bytes, after: str, *others: Outcome) -> Case:
    return exchange(name, COUNT, get("/", b"Max-Forwards: " + value, method=method),
                    forwarded(Seen(has={"max-forwards": after})), *others)  # fmt: skip


def last(name: str, request: bytes, status: Statuses = range(200, 600), ours: bool = False) -> Case:
    """Answered here, and not at the origin."""
    return exchange(name, COUNT, request, Outcome(answers=(Answer(status=status),), requests=0), ours=ours)


MAX_FORWARDS = (
    hops("OPTIONS with hops left", b"OPTIONS", b"5", "4"),
    hops("OPTIONS with one hop left", b"OPTIONS", b"1", "0"),
    hops("OPTIONS with leading zeros", b"OPTIONS", b"010", "9"),
    hops("TRACE with hops left", b"TRACE", b"5", "4", NO_TRACE),
    last("OPTIONS with no hop left", get("/", b"Max-Forwards: 0", method=b"OPTIONS")),
    last("OPTIONS * with no hop left", get("*", b"Max-Forwards: 0", method=b"OPTIONS")),
    last("OPTIONS with zeros", get("/", b"Max-Forwards: 00", method=b"OPTIONS")),
    last("TRACE with no hop left", get("/", b"Max-Forwards: 0", method=b"TRACE")),
    last("OPTIONS is answered 200 here", get("/", b"Max-Forwards: 0", method=b"OPTIONS"), 200, ours=True),
    exchange("a TRACE answered here shows the request", "RFC 9110 9.3.8",
             get("/a?b", b"Max-Forwards: 0", b"X-A: 1", method=b"TRACE"),
             Outcome(answers=(Answer(has={"content-type": "message/http"}, within=(b"TRACE /a?b HTTP/1.1\r\n",
                     b": 1\r\n")),),
                     requests=0), ours=True),
    exchange("OPTIONS with an endless Max-Forwards", COUNT, get("/", b"Max-Forwards: " + b"9" * 30, method=b"OPTIONS"),
             forwarded(Seen(like={"max-forwards": "[0-9]+"}, absent=("max-forwards: " + "9" * 30,))),
             Outcome(answers=(Answer(status=400),), requests=0)),
    *(
        exchange(f"OPTIONS with Max-Forwards {value!r}", "ours", get("/", b"Max-Forwards: " + value.encode(),
                 method=b"OPTIONS"),
                 Outcome(answers=(Answer(status=400, reason="max_forwards_malformed"),), requests=0), ours=True)
        for value in ("x", "-1", "1.5", "", "1, 2", "+1")
    ),
    exchange("GET may ignore Max-Forwards", COUNT, get("/", b"Max-Forwards: 0"), forwarded(Seen()),
             Outcome(answers=(Answer(status=range(200, 600)),), requests=0)),
    exchange("GET ignores Max-Forwards here", "ours", get("/", b"Max-Forwards: 0"),
             forwarded(Seen(has={"max-forwards": "0"})),
             ours=True),
    exchange("TRACE is handed on", "ours: Go passes any method", get("/", method=b"TRACE"),
             forwarded(Seen(line=b"TRACE / HTTP/1.1")), ours=True),
    exchange("what is secret is not traced back", "RFC 9110 9.3.8",
             get("/", b"Max-Forwards: 0", b"Cookie: secret=1", b"Authorization: secret", b"X-A: shown",
                 method=b"TRACE"),
             Outcome(answers=(Answer(status=range(200, 600), not_within=(b"secret",)),), requests=0), ours=True),
)  # fmt: skip

DATE = "RFC 9110 6.6.1"
IMF = "[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT"
DATES = (
    exchange("Date is added", DATE, get(), Outcome(answers=(Answer(like={"date": IMF}),), goes_on=True)),
    exchange("Date of the origin stays", DATE, get(),
             Outcome(answers=(Answer(lines={"date": ("Tue, 15 Nov 1994 08:12:31 GMT",)}),), goes_on=True),
             replies=(Reply(response(b"Date: Tue, 15 Nov 1994 08:12:31 GMT", b"Content-Length: 0")),)),
    exchange("Date is added to a 304", DATE, get(), Outcome(answers=(Answer(status=304, like={"date": IMF}),),
             goes_on=True),
             replies=(Reply(response(status=b"304 Not Modified")),)),
    exchange("Date is added to a HEAD's response", DATE, get(method=b"HEAD"),
             Outcome(answers=(Answer(like={"date": IMF}),), goes_on=True),
             replies=(Reply(response(b"Content-Length: 5")),)),
    exchange("Date is added to a 404", DATE, get(), Outcome(answers=(Answer(status=404, like={"date": IMF}),),
             goes_on=True),
             replies=(Reply(response(b"Content-Length: 0", status=b"404 Not Found")),)),
    exchange("Date is added to chunks", DATE, get(), Outcome(answers=(Answer(like={"date": IMF}, body=b"ok"),),
             goes_on=True),
             replies=(Reply(response(b"Transfer-Encoding: chunked", body=chunked(b"ok"))),)),
    exchange("an answer of our own has a Date", DATE, b"GET / HTTP/1.1\r\n" + lines(b"X: 1"),
             Outcome(answers=(Answer(status=400, like={"date": IMF}),), ends=True)),
    exchange("POST's answer has a Date", DATE, post(b"x"), Outcome(answers=(Answer(like={"date": IMF}),),
             goes_on=True)),
)  # fmt: skip

CASES = (*REQUESTS, *RESPONSES, *VIA, *MAX_FORWARDS, *DATES)
