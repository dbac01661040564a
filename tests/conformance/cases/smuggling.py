"""One request that somebody could take for two (RFC 9112, sections 6.1 and 11.2): whatever is answered, the hidden one
never reaches the origin as a request of its own."""

from __future__ import annotations

from tests.conformance.case import (
    Answer,
    Case,
    Outcome,
    Seen,
    chunked,
    exchange,
    get,
    lines,
    post,
    refused,
)

CLAUSE = "RFC 9112 11.2"
HIDDEN = get("/smuggled")
TE = b"Transfer-Encoding: chunked"
# Refused, or carried out as one request after which nothing is read any more.
REFUSED = Outcome(answers=(Answer(status=range(400, 600)),), ends=True, without=b"smuggled")
ONE = Outcome(answers=(Answer(),), ends=True, requests=1, without=b"smuggled")
ONE_AND_ON = Outcome(answers=(Answer(),), goes_on=True, requests=1, without=b"smuggled")
ONE_AND_BAD = Outcome(answers=(Answer(), Answer(status=400)), ends=True, requests=1, without=b"smuggled")


def request(*fields: bytes, body: bytes, method: bytes = b"POST") -> bytes:
    return get("/", *fields, method=method) + body


def hidden(name: str, data: bytes, *others: Outcome, clause: str = CLAUSE) -> Case:
    return exchange(name, clause, data, REFUSED, *others)


def length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


EMPTY = b"0\r\n\r\n"
# By its chunks the body is empty and a request follows; by its length the request is part of the body.
CL_TE = EMPTY + HIDDEN
# By its length the body is the first line of chunks; by its chunks there is one big one.
TE_CL = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)

# Ways of writing Transfer-Encoding that some take for it and some don't. Each comes with a length.
DISGUISES = {
    "a space before the colon": b"Transfer-Encoding : chunked",
    "a tab before the colon": b"Transfer-Encoding\t: chunked",
    "a tab before the value": b"Transfer-Encoding:\tchunked",
    "a vertical tab before the value": b"Transfer-Encoding:\x0bchunked",
    "a form feed before the value": b"Transfer-Encoding: \x0cchunked",
    "a no-break space before the value": b"Transfer-Encoding:\xa0chunked",
    "NUL behind the value": b"Transfer-Encoding: chunked\0",
    "NUL in the name": b"Transfer\0-Encoding: chunked",
    "CR before the value": b"Transfer-Encoding: \rchunked",
    "CR behind the value": b"Transfer-Encoding: chunked\r",
    "LF before the field": b"X: y\nTransfer-Encoding: chunked",
    "CR before the field": b"X: y\rTransfer-Encoding: chunked",
    "folding": b"Transfer-Encoding:\r\n chunked",
    "folding with a tab": b"Transfer-Encoding:\r\n\tchunked",
    "a folded line before": b"X: y\r\n Transfer-Encoding: chunked",
    "a space before the name": b" Transfer-Encoding: chunked",
    "xchunked": b"Transfer-Encoding: xchunked",
    "chunked in quotes": b'Transfer-Encoding: "chunked"',
    "chunked in apostrophes": b"Transfer-Encoding: 'chunked'",
    "identity and chunked": b"Transfer-Encoding: identity, chunked",
    "chunked and identity": b"Transfer-Encoding: chunked, identity",
    "identity on another line": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "a coding nobody knows on another line": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
    "an empty member": b"Transfer-Encoding: ,chunked",
    "a parameter": b"Transfer-Encoding: chunked;a=b",
    "capitals": b"TRANSFER-ENCODING: CHUNKED",
    "mixed letters": b"tRaNsFeR-eNcOdInG: cHuNkEd",
    "a second name": b"Content-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "a colon too many": b"Transfer-Encoding: : chunked",
    "a byte above ASCII in the value": b"Transfer-Encoding: chunked\xff",
    "a backslash": b"Transfer-Encoding: chunked\\",
}

FRAMINGS = (
    hidden("CL.TE", request(length(CL_TE), TE, body=CL_TE), ONE),
    hidden("CL.TE, coding first", request(TE, length(CL_TE), body=CL_TE), ONE),
    hidden("TE.CL", request(b"Content-Length: 4", TE, body=TE_CL), ONE),
    hidden("TE.CL, coding first", request(TE, b"Content-Length: 4", body=TE_CL), ONE),
    hidden("CL.TE in HTTP/1.0", get("/", b"Connection: keep-alive", length(CL_TE), TE, method=b"POST",
           version=b"HTTP/1.0") + CL_TE,
           ONE),
    hidden("CL.TE with GET", request(length(CL_TE), TE, body=CL_TE, method=b"GET"), ONE),
    hidden("CL.CL, shorter first", request(b"Content-Length: 5", length(EMPTY + HIDDEN), body=EMPTY + HIDDEN)),
    hidden("CL.CL, longer first", request(length(EMPTY + HIDDEN), b"Content-Length: 5", body=EMPTY + HIDDEN)),
    hidden("CL.CL in a list", request(b"Content-Length: 5, %d" % (len(HIDDEN) + 5), body=EMPTY + HIDDEN)),
    hidden("CL.CL, one is zero", request(b"Content-Length: 0", length(HIDDEN), body=HIDDEN)),
    hidden("CL.0", post(HIDDEN), ONE_AND_ON, ONE),
    hidden("0.CL", request(length(HIDDEN), body=HIDDEN, method=b"GET"), ONE_AND_ON, ONE),
    hidden("HEAD with a body", request(length(HIDDEN), body=HIDDEN, method=b"HEAD"), ONE_AND_ON, ONE),
    hidden("DELETE with a body", request(length(HIDDEN), body=HIDDEN, method=b"DELETE"), ONE_AND_ON, ONE),
    hidden("OPTIONS with a body", request(length(HIDDEN), body=HIDDEN, method=b"OPTIONS"), ONE_AND_ON, ONE),
    hidden("an unknown method with a body", request(length(HIDDEN), body=HIDDEN, method=b"FOO"), ONE_AND_ON, ONE),
    hidden("a length named by Connection", request(b"Connection: Content-Length", length(HIDDEN), body=HIDDEN),
           ONE_AND_ON, ONE),
    hidden("a coding named by Connection",
           request(b"Connection: Transfer-Encoding", TE, body=chunked(HIDDEN)), ONE_AND_ON, ONE),
    hidden("an expectation with GET", request(b"Expect: 100-continue", length(HIDDEN), body=HIDDEN, method=b"GET"),
           ONE_AND_ON,
           ONE),
    hidden("a length with an underscore", request(b"Content_Length: 0", length(HIDDEN), body=HIDDEN), ONE_AND_ON, ONE),
    hidden("a coding with an underscore", request(b"Transfer_Encoding: chunked", length(CL_TE), body=CL_TE),
           ONE_AND_ON, ONE),
    hidden("a length disguised by a plus", request(b"Content-Length: +0", length(HIDDEN), body=HIDDEN)),
    hidden("a length disguised by a space", request(b"Content-Length : 0", length(HIDDEN), body=HIDDEN)),
    hidden("a length disguised by folding", request(b"Content-Length:", b" %d" % len(HIDDEN), body=HIDDEN), ONE_AND_ON,
           ONE),
    hidden("a length disguised by LF", request(b"X: y\nContent-Length: 0", length(HIDDEN), body=HIDDEN)),
    hidden("a length in hexadecimal", request(b"Content-Length: 0x%x" % len(HIDDEN), body=HIDDEN)),
    hidden("a length of 2^64 more", request(b"Content-Length: %d" % (2**64), body=HIDDEN),
           Outcome(requests=0, without=b"smuggled")),
    *(
        hidden(f"TE.TE by {name}", request(length(CL_TE), field, body=CL_TE), ONE, ONE_AND_ON)
        for name, field in DISGUISES.items()
    ),
)  # fmt: skip


def in_chunks(name: str, body: bytes, *others: Outcome) -> Case:
    return hidden(name, request(TE, body=body), *others, clause="RFC 9112 7.1, 11.2")


CHUNKS = (
    in_chunks("a hidden request in an extension after LF", b"2;\nxx\r\n4c\r\n0\r\n\r\n" + HIDDEN + b"\r\n0\r\n\r\n"),
    in_chunks("a hidden request behind a chunk that ends with LF", b"5\r\nhello\n0\r\n\r\n" + HIDDEN),
    in_chunks("a hidden request behind a chunk without an end", b"5\r\nhelloXX0\r\n\r\n" + HIDDEN),
    in_chunks("a hidden request behind a size of 2^64", b"10000000000000000\r\n\r\n" + HIDDEN),
    in_chunks("a hidden request behind a size with a minus", b"-0\r\n\r\n" + HIDDEN),
    in_chunks("a hidden request behind a size with a prefix", b"0x0\r\n\r\n" + HIDDEN),
    in_chunks("a hidden request behind a size of two numbers", b"0 5\r\n\r\n" + HIDDEN),
    in_chunks("a hidden request behind an empty size", b"\r\n\r\n" + HIDDEN),
    in_chunks("a hidden request behind a last chunk with LF", b"0\n\n" + HIDDEN),
    in_chunks("a hidden request behind a size and CR", b"0\r\r\n" + HIDDEN),
    in_chunks("a hidden request among trailers", b"0\r\n" + HIDDEN, ONE_AND_ON, ONE),
    in_chunks("a hidden request in a trailer after a fold", b"0\r\nX: y\r\n " + HIDDEN, ONE_AND_ON, ONE),
    in_chunks("a hidden request in a chunk", chunked(HIDDEN), ONE_AND_ON, ONE),
)  # fmt: skip

HEADS = (
    hidden("a hidden request behind LF LF", b"GET / HTTP/1.1\r\nHost: a\nX: y\n\n" + HIDDEN + b"\r\n",
           Outcome(answers=(Answer(), Answer()), requests=2)),
    hidden("a hidden request in a field after CR", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\r" + HIDDEN),
    hidden("a hidden request behind NUL", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\0\r\n" + HIDDEN),
    hidden("a hidden request in the request line", b"GET / HTTP/1.1 \r\rGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    hidden("a hidden request line in the target",
           b"GET / HTTP/1.1%0d%0aHost:%20a%0d%0a%0d%0aGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    hidden("a hidden field in an encoded target", get("/%0d%0aX-Evil:%20smug"), ONE_AND_ON),
    hidden("a hidden host", b"GET / HTTP/1.1\r\n" + lines(b"Host: a.example", b"Host : b.example")),
    hidden("a hidden host in front", b"GET / HTTP/1.1\r\n" + lines(b" Host: a.example", b"Host: b.example"),
           Outcome(answers=(Answer(),), requests=(Seen(host="b.example"),))),
    hidden("a hidden host in absolute form", b"GET http://a.example/ HTTP/1.1\r\n" + lines(b"Host: b.example"),
           Outcome(answers=(Answer(),), requests=(Seen(host="a.example"),))),
    hidden("a hidden host behind an at sign",
           b"GET http://a.example@b.example/ HTTP/1.1\r\n" + lines(b"Host: a.example")),
    exchange("a refused request ends the connection for all that follows", CLAUSE,
             request(b"Content-Length: x", body=b"hello") + HIDDEN, refused(400, without=b"smuggled")),
    exchange("a refused head ends the connection for all that follows", CLAUSE,
             b"GET / HTTP/1.1\r\nHost : a\r\n\r\n" + HIDDEN, refused(400, without=b"smuggled")),
    exchange("a refused chunk ends the connection for all that follows", CLAUSE,
             request(TE, body=b"5\r\nhelloX\r\n0\r\n\r\n") + HIDDEN, refused(400, without=b"smuggled")),
)  # fmt: skip

CASES = (*FRAMINGS, *CHUNKS, *HEADS)
