"""How connections go on and end: close, pipelining, half-closing, giving up, trying again (RFC 9112, section 9)."""

from __future__ import annotations

from tests.conformance.case import (
    OK,
    Answer,
    Connect,
    Ends,
    Finish,
    Got,
    GotBody,
    Incomplete,
    NotReused,
    OriginEnds,
    OriginFinish,
    Outcome,
    Receive,
    Reply,
    Say,
    Seen,
    Send,
    Silence,
    Unasked,
    chunked,
    exchange,
    forwarded,
    get,
    post,
    post_chunked,
    refused,
    response,
    scene,
)

CLOSE = "RFC 9112 9.6"
ORDER = "RFC 9112 9.3.2"
NO_TWO = Outcome(answers=(Answer(),), ends=True, requests=1)


def pages(count: int, first: int = 0) -> bytes:
    return b"".join(get(f"/{number}") for number in range(first, first + count))


def numbered(count: int) -> tuple[Reply, ...]:
    return tuple(Reply(response(b"Content-Length: 1", body=b"%d" % number)) for number in range(count))


CLOSING = (
    exchange("close", CLOSE, get("/", b"Connection: close"), NO_TWO),
    exchange("close is told", CLOSE + " (SHOULD)", get("/", b"Connection: close"),
             Outcome(answers=(Answer(member={"connection": "close"}),), ends=True)),
    exchange("Close in capitals", CLOSE, get("/", b"CONNECTION: CLOSE"), NO_TWO),
    exchange("close among other options", CLOSE, get("/", b"Connection: x-a , close"), NO_TWO),
    exchange("close on a second line", CLOSE, get("/", b"Connection: x-a", b"Connection: close"), NO_TWO),
    exchange("keep-alive and close", CLOSE, get("/", b"Connection: keep-alive, close"), NO_TWO),
    exchange("what follows a close is not read", CLOSE, get("/1", b"Connection: close") + get("/2"), NO_TWO),
    exchange("what follows a close with a body is not read", CLOSE, post(b"x", b"Connection: close") + get("/2"),
             Outcome(answers=(Answer(),), ends=True, requests=(Seen(body=b"x"),))),
    exchange("an option that ends in close", CLOSE, get("/", b"Connection: x-close"), forwarded(Seen())),
    exchange("close for a HEAD", CLOSE, get("/", b"Connection: close", method=b"HEAD"),
             Outcome(answers=(Answer(),), ends=True), replies=(Reply(response(b"Content-Length: 5")),)),
    exchange("close from the origin is not the client's", "RFC 9110 7.6.1", get(),
             Outcome(answers=(Answer(body=b"ok"),), goes_on=True),
             Outcome(answers=(Answer(body=b"ok"),), ends=True),
             replies=(Reply(response(b"Connection: close", b"Content-Length: 2", body=b"ok"), "end"),)),
    exchange("a connection outlives its origin's", "ours", get(), Outcome(answers=(Answer(body=b"ok"),), goes_on=True),
             replies=(Reply(response(b"Connection: close", b"Content-Length: 2", body=b"ok"), "end"),), ours=True),
    exchange("requests per connection", "ours: limits", pages(4),
             Outcome(answers=(Answer(), Answer(), Answer(has={"connection": "close"})), ends=True, requests=3),
                     ours=True,
             listener="tight"),
)  # fmt: skip

PIPELINES = (
    exchange("five requests at once", ORDER, pages(5),
             Outcome(answers=tuple(Answer(body=b"%d" % n) for n in range(5)), goes_on=True,
                     requests=tuple(Seen(line=b"GET /%d HTTP/1.1" % n) for n in range(5))), replies=numbered(5)),
    exchange("requests with bodies at once", ORDER,
             post(b"one") + post_chunked(chunked(b"two")) + get("/3") + post(b""),
             forwarded(Seen(body=b"one"), Seen(body=b"two"), Seen(line=b"GET /3 HTTP/1.1"), Seen(body=b""), answers=4)),
    exchange("HEAD between others", ORDER, get("/1") + get("/2", method=b"HEAD") + get("/3"),
             Outcome(answers=(Answer(body=b"ok"), Answer(framing=("none",)), Answer(body=b"ok")), goes_on=True),
             methods=(b"GET", b"HEAD", b"GET"), replies=(Reply(OK), Reply(response(b"Content-Length: 9")), Reply(OK))),
    exchange("a refusal between others", ORDER, get("/1") + b"GET /2 HTTP/1.1\r\n\r\n" + get("/3"),
             Outcome(answers=(Answer(body=b"ok"), Answer(status=400)), ends=True, requests=1, without=b"/3")),
    exchange("nonsense behind a request", "RFC 9112 2.2", get("/1") + b"\x01\x02\x03\r\n\r\n" + get("/3"),
             Outcome(answers=(Answer(body=b"ok"), Answer(status=400)), ends=True, requests=1)),
    exchange("an error of the origin between others", ORDER, pages(3),
             Outcome(answers=(Answer(), Answer(status=500, body=b"oh"), Answer()), goes_on=True),
             replies=(Reply(OK), Reply(response(b"Content-Length: 2", body=b"oh", status=b"500 Oh")), Reply(OK))),
    exchange("an answer that breaks off ends the queue", "RFC 9112 9.3.2", pages(3),
             Outcome(answers=(Answer(), Answer(cut=True)), ends=True),
             Outcome(answers=(Answer(), Answer(status=502)), ends=True),
             Outcome(answers=(Answer(), Answer(status=502), Answer())),
             replies=(Reply(OK), Reply(response(b"Content-Length: 50", body=b"hello"), "end"))),
    scene("the order is that of the requests", ORDER, Send(get("/1") + get("/2")), Got(Seen(line=b"GET /1 HTTP/1.1")),
          Silence(), Say(response(b"Content-Length: 3", body=b"one")), Receive(Answer(body=b"one")),
          Got(Seen(line=b"GET /2 HTTP/1.1")), Say(response(b"Content-Length: 3", body=b"two")),
              Receive(Answer(body=b"two"))),
    exchange("fifty requests at once", ORDER, pages(50), Outcome(answers=(Answer(body=b"ok"),) * 50, goes_on=True,
             requests=50)),
    scene("one after the other", "RFC 9112 9.3", Send(get("/1")), Got(), Say(OK), Receive(), Send(post(b"x")),
          Got(Seen(body=b"x")), Say(OK), Receive(), Send(get("/3", b"X-A: 1")), Got(Seen(has={"x-a": "1"})), Say(OK),
              Receive(),
          Send(get("/4")), Got(Seen(absent=("x-a",))), Say(OK), Receive()),
)  # fmt: skip

HALF = "RFC 9112 9.6 (half-close)"
ANSWER_OR_END = (Outcome(answers=(Answer(body=b"ok"),), ends=True, requests=1),)

HALVES = (
    scene("a client that has finished sending is answered", HALF, Send(get()), Finish("half"), Got(), Say(OK),
          Receive(Answer(body=b"ok")), Ends(1), ours=True),
    scene("a client that has finished sending waits", HALF, Connect(), Send(get()), Finish("half"), Got(), Unasked(),
          Unasked(),
          Say(response(b"Content-Length: 5") + b"he"), Unasked(), Say(b"llo"), Receive(Answer(body=b"hello")), Ends(1),
              ours=True),
    scene("a client that has finished sending gets chunks", HALF, Send(get()), Finish("half"), Got(),
          Say(response(b"Transfer-Encoding: chunked") + b"2\r\nhe\r\n"), Unasked(), Say(b"3\r\nllo\r\n0\r\n\r\n"),
          Receive(Answer(body=b"hello")), Ends(1), ours=True),
    exchange("a body and the end of sending", HALF, post(b"hello"),
             Outcome(answers=(Answer(),), ends=True, requests=(Seen(body=b"hello"),)), then="half", ours=True),
    exchange("chunks and the end of sending", HALF, post_chunked(chunked(b"hello")),
             Outcome(answers=(Answer(),), ends=True, requests=(Seen(body=b"hello"),)), then="half", ours=True),
    exchange("several requests and the end of sending", HALF, pages(3),
             Outcome(answers=(Answer(), Answer(), Answer()), ends=True, requests=3), then="half", ours=True),
    exchange("HTTP/1.0 and the end of sending", HALF, get(version=b"HTTP/1.0"),
             Outcome(answers=(Answer(),), ends=True, requests=1), then="half", ours=True),
    exchange("half a head and the end of sending", "RFC 9112 8", b"GET / HTTP/1.1\r\nHost: a\r\n",
             Outcome(ends=True, requests=0), refused(400, 408), then="half"),
    exchange("a request, half a head and the end of sending", "RFC 9112 8", get("/1") + b"GET /2 HTTP/1.1\r\nHost:",
             Outcome(answers=(Answer(),), ends=True, requests=1),
             Outcome(answers=(Answer(), Answer(status=(400, 408))), ends=True, requests=1), then="half", ours=True),
    exchange("a request, half a body and the end of sending", "RFC 9112 8",
             get("/1") + get("/2", b"Content-Length: 5", method=b"POST") + b"he",
             Outcome(answers=(Answer(),), ends=True, requests=1),
             Outcome(answers=(Answer(), Answer(status=(400, 408))), ends=True, requests=1), then="half", ours=True),
    exchange("nothing but the end of sending", "RFC 9112 9", b"", Outcome(ends=True, requests=0), refused(400, 408),
             then="half"),
)  # fmt: skip

LEAVING = (
    scene("a client that leaves before the answer", "Go reverseproxy 12", Send(get()), Got(), Finish("reset"),
          OriginEnds(), ours=True),
    scene("a client that leaves in the middle of the answer", "Go reverseproxy 12", Send(get()), Got(),
          Say(response(b"Content-Length: 50") + b"hello"), Finish("reset"), OriginEnds(), ours=True),
    scene("a client that leaves in the middle of its body", "RFC 9112 8", Send(get("/", b"Content-Length: 50",
          method=b"POST") + b"hello"),
          Got(whole=False), GotBody(b"hello"), Finish("reset"), Incomplete()),
    scene("a client that leaves in the middle of its chunks", "RFC 9112 8",
          Send(get("/", b"Transfer-Encoding: chunked", method=b"POST") + b"5\r\nhello\r\n"), Got(whole=False),
               GotBody(b"hello"),
          Finish("reset"), Incomplete()),
    scene("a client that ends in the middle of its chunks", "RFC 9112 8",
          Send(get("/", b"Transfer-Encoding: chunked", method=b"POST") + b"5\r\nhello\r\n"), Got(whole=False),
               GotBody(b"hello"),
          Finish("end"), Incomplete()),
    scene("the rest of an answer nobody took is nobody's", "RFC 9112 6.3", Send(get()), Got(),
          Say(response(b"Content-Length: 50") + b"hello"), Finish("reset"), NotReused()),
    scene("the answer for a client that left is nobody's", "RFC 9112 6.3", Send(get()), Got(), Finish("reset"),
          NotReused(), Say(OK),
          NotReused()),
)  # fmt: skip

AGAIN = (
    scene("the origin closes between two requests", "RFC 9112 9.3.1", Send(get("/1")), Got(), Say(OK), Receive(),
          OriginFinish("end"), Send(get("/2")), Got(), Say(OK), Receive(Answer(body=b"ok")), ours=True),
    scene("the origin resets between two requests", "RFC 9112 9.3.1", Send(get("/1")), Got(), Say(OK), Receive(),
          OriginFinish("reset"), Send(get("/2")), Got(), Say(OK), Receive(Answer(body=b"ok")), ours=True),
    scene("the origin closes between two requests, and a body comes", "RFC 9112 9.3.1", Send(get("/1")), Got(),
          Say(OK), Receive(),
          OriginFinish("end"), Unasked(), Send(post(b"hello")), Got(Seen(body=b"hello")), Say(OK),
                       Receive(Answer(body=b"ok")), ours=True),
    scene("a kept connection that ends under a GET", "RFC 9110 9.2.2", Send(get("/1")), Got(), Say(OK), Receive(),
          Send(get("/2")), Got(), OriginFinish("end"), Got(Seen(line=b"GET /2 HTTP/1.1")), Say(OK),
               Receive(Answer(body=b"ok")),
          ours=True),
    scene("a kept connection that ends under a POST", "RFC 9110 9.2.2", Send(get("/1")), Got(), Say(OK), Receive(),
          Send(get("/2", method=b"POST")), Got(), OriginFinish("end"), Receive(Answer(status=502)), Unasked(),
               ours=True),
    exchange("POST is never sent twice", "RFC 9110 9.2.2", get("/1") + post(b"x", target=b"/2"),
             Outcome(answers=(Answer(), Answer(status=range(500, 600))), requests=2),
             Outcome(answers=(Answer(),), ends=True, requests=2), replies=(Reply(OK), Reply(b"", "end"), Reply(OK))),
    exchange("GET after half an answer is not sent twice", "RFC 9112 9.3.1", get("/1"),
             Outcome(answers=(Answer(status=502),), requests=1), Outcome(answers=(Answer(cut=True),), ends=True,
                     requests=1),
             replies=(Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "end"),)),
)  # fmt: skip

DEADLINES = (
    exchange("an origin that says nothing", "RFC 9110 15.6.5", get("/-hasty/x"), Outcome(answers=(Answer(status=504),)),
             replies=(Reply(b""),), slow=True),
    exchange("an origin that says nothing, told why", "ours", get("/-hasty/x"),
             Outcome(answers=(Answer(status=504, reason="http_response_timeout"),)), replies=(Reply(b""),), ours=True,
             slow=True),
    exchange("an origin that stops in the middle", "RFC 9112 8", get("/-hasty/x"),
             Outcome(answers=(Answer(cut=True),), ends=True),
             replies=(Reply(response(b"Content-Length: 50", body=b"hello")),), slow=True),
    scene("a head that stops coming", "RFC 9110 15.5.9", Connect(listener="hasty"), Send(b"GET / HTTP/1.1\r\nHost:"),
          Receive(Answer(status=408, reason="request_head_timeout")), Ends(1), ours=True, slow=True),
    scene("a body that stops coming", "RFC 9110 15.5.9", Connect(listener="hasty"),
          Send(get("/", b"Content-Length: 50", method=b"POST") + b"hello"), Got(whole=False),
          Receive(Answer(status=408, reason="request_body_timeout")), Ends(1), Incomplete(), ours=True, slow=True),
    scene("an idle connection is closed in good order", "RFC 9112 9.5", Connect(listener="hasty"), Send(get()), Got(),
          Say(OK), Receive(Answer(absent=("connection: close",))), Ends(1, reset=False), ours=True, slow=True),
    scene("a connection on which nothing comes is closed", "RFC 9112 9.5", Connect(listener="hasty"),
          Ends(0, reset=False), ours=True, slow=True),
)  # fmt: skip

CASES = (*CLOSING, *PIPELINES, *HALVES, *LEAVING, *AGAIN, *DEADLINES)
