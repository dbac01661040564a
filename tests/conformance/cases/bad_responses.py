"""Responses that are broken: no client takes one for whole, and no connection with a rest in it is used again."""

from __future__ import annotations

from typing import Any

from tests.conformance.case import (
    OK,
    Again,
    Answer,
    Case,
    Got,
    NotReused,
    Outcome,
    ReadAll,
    Receive,
    Reply,
    Say,
    Seen,
    Send,
    chunked,
    exchange,
    get,
    post,
    response,
    scene,
)

CHUNKED = b"Transfer-Encoding: chunked"
BAD_GATEWAY = Outcome(answers=(Answer(status=502),), reused=False)
# When the mistake comes behind the head, the head may have gone on already.
CUT = Outcome(answers=(Answer(cut=True),), ends=True, reused=False)
NO_ANSWER = Outcome(ends=True, reused=False)
# What comes in place of a response may make a proxy ask once more; the second answer is no better.
PARSE = "RFC 9110 15.6.3"


def bad(name: str, data: bytes, clause: str = PARSE, *others: Outcome, then: str = "keep", ours: bool = False) -> Case:
    """502, and the connection is done for."""
    return exchange(name, clause, get(), BAD_GATEWAY, *others, replies=(Reply(data, then),) * 4, ours=ours)


def cut(
    name: str, data: bytes, clause: str, then: str = "keep", send: bytes = b"", *others: Outcome, ours: bool = False
) -> Case:
    """Cut visibly, or replaced by a 502, or by no answer at all."""
    return exchange(
        name, clause, send or get(), BAD_GATEWAY, CUT, NO_ANSWER, *others, replies=(Reply(data, then),) * 4, ours=ours
    )


def passed_or_bad(name: str, data: bytes, clause: str, **answer: Any) -> Case:
    """What may be mended, or be refused."""
    mended = Outcome(answers=(Answer(**answer),))
    return exchange(name, clause, get(), BAD_GATEWAY, mended, replies=(Reply(data),) * 4)


HEADS = (
    bad("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    bad("nonsense", b"\x00\x01\x02\x03\r\n\r\n"),
    bad("ICY", b"ICY 200 OK\r\n\r\n"),
    passed_or_bad("HTTP/2.0", response(b"Content-Length: 0", version=b"HTTP/2.0"), PARSE),
    bad("HTTP/2.0 is refused", response(b"Content-Length: 0", version=b"HTTP/2.0"), "ours", ours=True),
    bad("http/1.1 in small letters", response(b"Content-Length: 0", version=b"http/1.1")),
    bad("a status of two digits", response(b"Content-Length: 0", status=b"20 OK")),
    bad("a status of four digits", response(b"Content-Length: 0", status=b"2000 OK")),
    bad("a status in letters", response(b"Content-Length: 0", status=b"abc OK")),
    bad("a status with a sign", response(b"Content-Length: 0", status=b"+20 OK")),
    bad("a status below 100", response(b"Content-Length: 0", status=b"099 OK")),
    bad("no status", response(b"Content-Length: 0", status=b"")),
    passed_or_bad("two spaces before the status", response(b"Content-Length: 0", status=b" 200 OK"), "RFC 9112 4"),
    passed_or_bad("an empty line before the status line", b"\r\n" + OK, "RFC 9112 2.2", body=b"ok"),
    bad("a head that breaks off", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", then="end"),
    bad("a status line that breaks off", b"HTTP/1.1 2", then="end"),
    bad("nothing at all", b"", then="end"),
    bad("a reset", b"", then="reset"),
    exchange("POST answered by nothing is not repeated", "RFC 9110 9.2.2", post(b"hello"),
             Outcome(answers=(Answer(status=502),), requests=1), replies=(Reply(b"", "end"),)),
    exchange("POST answered by a reset is not repeated", "RFC 9110 9.2.2", post(b"hello"),
             Outcome(answers=(Answer(status=502),), requests=1), replies=(Reply(b"", "reset"),)),
    bad("a head without end", b"HTTP/1.1 200 OK\r\n" + b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 12_000,
        "ours: 128 KiB",
        ours=True),
    bad("a response told why", response(b"Content-Length: x"), "ours", ours=True),
)  # fmt: skip

SYNTAX = (
    passed_or_bad("a folded response value", response(b"X-A: 1\r\n 2", b"Content-Length: 2", body=b"ok"),
                  "RFC 9112 5.2",
                  like={"x-a": "1 +2"}, body=b"ok"),
    passed_or_bad("NUL in a response value", response(b"X-A: 1\x002", b"Content-Length: 2", body=b"ok"), "RFC 9110 5.5",
                  has={"x-a": "1 2"}, body=b"ok"),
    passed_or_bad("a bare CR in a response value", response(b"X-A: 1\r2", b"Content-Length: 2", body=b"ok"),
                  "RFC 9110 5.5",
                  has={"x-a": "1 2"}, body=b"ok"),
    passed_or_bad("LF ends a response field", b"HTTP/1.1 200 OK\r\nX-A: 1\nContent-Length: 2\r\n\r\nok", "RFC 9112 2.2",
                  has={"x-a": "1"}, body=b"ok"),
    passed_or_bad("LF ends every response line", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "RFC 9112 2.2",
                  body=b"ok"),
    passed_or_bad("a response line without a colon", response(b"X-A", b"Content-Length: 2", body=b"ok"), "RFC 9112 5"),
    passed_or_bad("a response field without a name", response(b": 1", b"Content-Length: 2", body=b"ok"), "RFC 9112 5"),
    passed_or_bad("a response name with a space", response(b"X A: 1", b"Content-Length: 2", body=b"ok"), "RFC 9112 5"),
    passed_or_bad("a control character in a response value", response(b"X-A: 1\x012", b"Content-Length: 2", body=b"ok"),
                  "RFC 9110 5.5"),
    bad("a folded response value is refused", response(b"X-A: 1\r\n 2", b"Content-Length: 2", body=b"ok"), "ours",
        ours=True),
    bad("LF in a response is refused", b"HTTP/1.1 200 OK\r\nX-A: 1\nContent-Length: 2\r\n\r\nok", "ours", ours=True),
    bad("a response line without a colon is refused", response(b"X-A", b"Content-Length: 2", body=b"ok"), "ours",
        ours=True),
)  # fmt: skip

INVALID = "RFC 9112 6.3 (5)"
FRAMING = (
    *(
        bad(f"response length {value!r}", response(b"Content-Length: " + value.encode("latin-1"), body=b"hello"),
            INVALID)
        for value in ("x", "", "-5", "+5", "0x5", "5 5", "5, 6", "5;", "5.0", "18446744073709551621")
    ),
    bad("two different response lengths", response(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"), INVALID),
    exchange("two equal response lengths", INVALID, get(), BAD_GATEWAY, Outcome(answers=(Answer(body=b"hello"),)),
             replies=(Reply(response(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),)),
    exchange("a list of equal response lengths", INVALID, get(), BAD_GATEWAY, Outcome(answers=(Answer(body=b"hello"),)),
             replies=(Reply(response(b"Content-Length: 5, 5", body=b"hello")),)),
    exchange("both framings in a response", "RFC 9112 6.3 (3)", get(), BAD_GATEWAY,
             Outcome(answers=(Answer(body=b"hello"),)),
             replies=(Reply(response(b"Content-Length: 3", CHUNKED, body=chunked(b"hello"))),)),
    bad("both framings in a response are refused", response(b"Content-Length: 15", CHUNKED, body=chunked(b"hello")),
        "ours",
        ours=True),
    exchange("chunks from HTTP/1.0", "RFC 9112 6.1", get("/-old/x"), BAD_GATEWAY,
             Outcome(answers=(Answer(),), reused=False),
             replies=(Reply(response(CHUNKED, body=chunked(b"hello"), version=b"HTTP/1.0"), "end"),)),
    exchange("chunks from HTTP/1.0 are refused", "ours", get("/-old/x"), BAD_GATEWAY, ours=True,
             replies=(Reply(response(CHUNKED, body=chunked(b"hello"), version=b"HTTP/1.0")),)),
    bad("a response coding nobody knows", response(b"Transfer-Encoding: x-strange, chunked", body=chunked(b"hello")),
        "ours",
        ours=True),
    bad("chunked twice in a response", response(b"Transfer-Encoding: chunked, chunked", body=chunked(b"hello")), "ours",
        ours=True),
    bad("a response of gzip alone", response(b"Transfer-Encoding: gzip", body=b"hello"), "ours", ours=True, then="end"),
    *(
        cut(f"response chunks: {name}", response(CHUNKED, body=data), "RFC 9112 7.1")
        for name, data in {
            "a size with a letter": b"5g\r\nhello\r\n0\r\n\r\n",
            "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
            "a size with a minus": b"-5\r\nhello\r\n0\r\n\r\n",
            "a size of 2^64 and 5": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            "no size": b"\r\nhello\r\n0\r\n\r\n",
            "more data than the size": b"4\r\nhello\r\n0\r\n\r\n",
            "less data than the size": b"7\r\nhello\r\n0\r\n\r\n",
            "no line end behind a chunk": b"5\r\nhello0\r\n\r\n",
            "no chunks": b"hello, world\r\n\r\n",
            "LF behind a size": b"5\nhello\r\n0\r\n\r\n",
            "NUL in a size": b"5\0\r\nhello\r\n0\r\n\r\n",
        }.items()
    ),
    cut("a bad chunk after a good one", response(CHUNKED, body=b"5\r\nhello\r\nx\r\n"), "RFC 9112 7.1"),
)  # fmt: skip

TRUNCATED = "RFC 9112 8, Go reverseproxy 11"
BREAKS = (
    cut("a body shorter than its length", response(b"Content-Length: 50", body=b"hello"), TRUNCATED, "end"),
    cut("a body shorter than its length, by a reset", response(b"Content-Length: 50", body=b"hello"), TRUNCATED,
        "reset"),
    cut("a length and no body", response(b"Content-Length: 50"), TRUNCATED, "end"),
    cut("chunks that break off in one", response(CHUNKED, body=b"a\r\nhello"), TRUNCATED, "end"),
    cut("chunks that break off between two", response(CHUNKED, body=b"5\r\nhello\r\n"), TRUNCATED, "end"),
    cut("chunks that break off in a size", response(CHUNKED, body=b"5\r\nhello\r\n1"), TRUNCATED, "end"),
    cut("chunks that break off after the last one", response(CHUNKED, body=b"5\r\nhello\r\n0\r\n"), TRUNCATED, "end"),
    cut("chunks that break off by a reset", response(CHUNKED, body=b"5\r\nhello\r\n"), TRUNCATED, "reset"),
    cut("a body that ends with a reset", response(body=b"hello"), TRUNCATED, "reset"),
    cut("chunks that break off for an HTTP/1.0 client", response(CHUNKED, body=b"5\r\nhello\r\n"), TRUNCATED, "end",
        get(version=b"HTTP/1.0"), ours=True),
    cut("a body that breaks off for an HTTP/1.0 client", response(b"Content-Length: 50", body=b"hello"), TRUNCATED,
        "end",
        get(version=b"HTTP/1.0"), ours=True),
    cut("300,000 bytes and then the end", response(b"Content-Length: 400000", body=b"0123456789" * 30_000), TRUNCATED,
        "end"),
    cut("a body far shorter than its length", response(b"Content-Length: 9223372036854775807", body=b"hello"),
        TRUNCATED, "end"),
)  # fmt: skip

EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Evil: 1\r\n\r\nevil"
SURPLUS = "RFC 9112 6.3"


def surplus(name: str, first: bytes, answer: Answer, method: bytes = b"GET") -> Case:
    """A response too many: it is nobody's."""
    return exchange(name, SURPLUS, get("/1", method=method) + get("/2"),
                    Outcome(answers=(answer, Answer(body=b"ok", absent=("x-evil",))), reused=True),
                    Outcome(answers=(answer,), ends=True), Outcome(answers=(Answer(status=502),), ends=True),
                    Outcome(answers=(Answer(status=502), Answer(body=b"ok", absent=("x-evil",)))),
                    methods=(method, b"GET"), replies=(Reply(first + EVIL, at_once=True), Reply(OK)))  # fmt: skip


REST = (
    surplus("a second response behind a body with a length", OK, Answer(body=b"ok")),
    surplus("a second response behind chunks", response(CHUNKED, body=chunked(b"ok")), Answer(body=b"ok")),
    surplus("a second response behind an empty body", response(b"Content-Length: 0"), Answer(body=b"")),
    surplus("a second response behind a 204", response(status=b"204 No Content"), Answer(status=204)),
    surplus("a second response behind a 304", response(status=b"304 Not Modified"), Answer(status=304)),
    surplus("a second response behind the one to HEAD", response(b"Content-Length: 2"), Answer(), b"HEAD"),
    exchange("bytes behind a body", SURPLUS, get(), Outcome(answers=(Answer(body=b"ok"),), reused=False), BAD_GATEWAY,
             replies=(Reply(OK + b"x", at_once=True),)),
    exchange("a line end behind a body", SURPLUS, get(), Outcome(answers=(Answer(body=b"ok"),)), BAD_GATEWAY,
             replies=(Reply(OK + b"\r\n", at_once=True),)),
    exchange("bytes behind chunks", SURPLUS, get(), Outcome(answers=(Answer(body=b"ok"),), reused=False), BAD_GATEWAY,
             replies=(Reply(response(CHUNKED, body=chunked(b"ok")) + b"x", at_once=True),)),
    scene("a response to nobody on an idle connection", SURPLUS, Send(get("/1")), Got(), Say(OK),
          Receive(Answer(body=b"ok")),
          Say(EVIL), ReadAll(), Again(), NotReused()),
    scene("a timeout's farewell on an idle connection", SURPLUS, Send(get("/1")), Got(), Say(OK),
          Receive(Answer(body=b"ok")),
          Say(response(b"Content-Length: 0", b"Connection: close", status=b"408 Request Timeout"), "end"), ReadAll(),
              Again(),
          NotReused()),
    exchange("close from the origin", "RFC 9112 9.6", get(), Outcome(answers=(Answer(body=b"ok"),), reused=False),
             replies=(Reply(response(b"Content-Length: 2", b"Connection: close", body=b"ok")),)),
    exchange("Close from the origin among others", "RFC 9112 9.6", get(), Outcome(answers=(Answer(body=b"ok"),),
             reused=False),
             replies=(Reply(response(b"Content-Length: 2", b"Connection: x-a, CLOSE", body=b"ok")),)),
    exchange("an answer to half a request", "RFC 9112 9.3", get("/", b"Content-Length: 50", method=b"POST") + b"hello",
             Outcome(answers=(Answer(body=b"ok"),), reused=False, requests=0),
             replies=(Reply(OK, early=True),)),
    exchange("a good answer leaves a good connection", "RFC 9112 9.3", post(b"x") + get("/2"),
             Outcome(answers=(Answer(), Answer()), goes_on=True, requests=(Seen(body=b"x"), Seen()))),
)  # fmt: skip

CASES = (*HEADS, *SYNTAX, *FRAMING, *BREAKS, *REST)
