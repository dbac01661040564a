"""How long a request body is (RFC 9112, section 6), and how it is framed again."""

from __future__ import annotations

from tests.conformance.case import (
    Answer,
    Case,
    Outcome,
    Seen,
    chunked,
    exchange,
    forwarded,
    get,
    lines,
    post,
    post_chunked,
    refused,
)

BAD = refused(400)
BODY = b"hello"
FRAMED = ("length", "chunked")
HELLO = forwarded(Seen(body=BODY, framing=FRAMED))
# Nothing was answered, nothing was passed on whole: the proxy waits for the rest, or has ended the connection.
NOTHING = Outcome(requests=0)
NOTHING_AND_END = Outcome(ends=True, requests=0)


def framed(*fields: bytes, body: bytes = BODY, method: bytes = b"POST", version: bytes = b"HTTP/1.1") -> bytes:
    return get("/", *fields, method=method, version=version) + body


def bad_length(name: str, value: bytes) -> Case:
    return exchange(f"Content-Length {name}", "RFC 9112 6.3 (5)", framed(b"Content-Length: " + value), BAD)


def bad_coding(name: str, *fields: bytes) -> Case:
    """A coding that nobody knows, or that does not end in chunked: refused, and the end."""
    return exchange(f"Transfer-Encoding {name}", "RFC 9112 6.1, 6.3 (4)", framed(*fields, body=chunked(BODY)),
                    refused(400, 422, 501))  # fmt: skip


LENGTHS = (
    exchange("POST with a length", "RFC 9112 6.2", post(BODY), HELLO),
    exchange("POST of nothing", "RFC 9112 6.2", post(b""), forwarded(Seen(body=b""))),
    exchange("POST without a length", "RFC 9112 6.3 (7)", get(method=b"POST"), forwarded(Seen(body=b"")), refused(411)),
    exchange("POST of every byte", "RFC 9112 6.2", post(bytes(range(256)) * 2),
             forwarded(Seen(body=bytes(range(256)) * 2))),
    exchange("POST of 300,000 bytes", "RFC 9112 6.2", post(b"0123456789" * 30_000),
             forwarded(Seen(body=b"0123456789" * 30_000))),
    exchange("leading zeros", "RFC 9112 6.2", framed(b"Content-Length: 005"), HELLO),
    exchange("space around a length", "RFC 9112 5.1", framed(b"Content-Length: \t 5 \t"), HELLO),
    exchange("the length is written anew", "ours", framed(b"content-LENGTH:005"),
             forwarded(Seen(body=BODY, lines={"content-length": ("5",)})), ours=True),
    *(
        exchange(f"{method.decode()} with a body", "RFC 9110 9.3", post(BODY, method=method),
                 forwarded(Seen(body=BODY, framing=FRAMED)), Outcome(answers=(Answer(status=range(400, 600)),),
                           requests=0))
        for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH")
    ),
    exchange("GET with a body is handed on", "ours", post(BODY, method=b"GET"), HELLO, ours=True),
    exchange("two different lengths", "RFC 9112 6.3 (5)", framed(b"Content-Length: 5", b"Content-Length: 6"), BAD),
    exchange("two different lengths, the longer first", "RFC 9112 6.3 (5)",
             framed(b"Content-Length: 6", b"X-A: 1", b"Content-Length: 5"), BAD),
    exchange("two equal lengths", "RFC 9112 6.3 (5)", framed(b"Content-Length: 5", b"content-length: 5"), HELLO, BAD),
    exchange("two lengths are refused", "ours", framed(b"Content-Length: 5", b"content-length: 5"),
             refused(400, reason="repeated_content_length"), ours=True),
    exchange("a list of equal lengths", "RFC 9112 6.3 (5)", framed(b"Content-Length: 5, 5"), HELLO, BAD),
    exchange("a list of lengths is refused", "ours", framed(b"Content-Length: 5, 5"),
             refused(400, reason="content_length_invalid"), ours=True),
    bad_length("in a list with another", b"5, 6"),
    bad_length("in a list with a word", b"5, five"),
    bad_length("with a plus", b"+5"),
    bad_length("with a minus", b"-5"),
    bad_length("minus zero", b"-0"),
    bad_length("in hexadecimal", b"0x5"),
    bad_length("with a letter", b"5a"),
    bad_length("as a fraction", b"5.0"),
    bad_length("with an exponent", b"5e0"),
    bad_length("with a space", b"5 5"),
    bad_length("with an underscore", b"0_5"),
    bad_length("in quotes", b'"5"'),
    bad_length("as a word", b"five"),
    bad_length("with a semicolon", b"5;"),
    bad_length("in other digits", "\u0665".encode()),
    bad_length("in superscript", b"\xb2"),
    bad_length("that is empty", b""),
    bad_length("with a form feed", b"\x0c5"),
    bad_length("with a vertical tab", b"5\x0b"),
    exchange("Content-Length with NUL", "RFC 9112 6.3 (5)", framed(b"Content-Length: 5\0"), BAD),
    exchange("Content-Length of 2^64 and 5", "RFC 9112 6.3", framed(b"Content-Length: 18446744073709551621"),
             refused(400, 413), NOTHING),
    exchange("Content-Length of 2^63", "RFC 9112 6.3", framed(b"Content-Length: 9223372036854775808"),
             refused(400, 413), NOTHING),
    exchange("Content-Length of 2^32 and 5", "RFC 9112 6.3", framed(b"Content-Length: 4294967301"),
             refused(400, 413), NOTHING),
    exchange("Content-Length of forty digits", "RFC 9112 6.3", framed(b"Content-Length: " + b"9" * 39 + b"5"),
             refused(400, 413), NOTHING),
    exchange("Content-Length above the limit", "ours: body = 1GiB", framed(b"Content-Length: 4294967301"),
             refused(413, reason="body_too_large"), ours=True),
    exchange("a length above a tight limit", "ours: limits", post(b"a" * 1025), refused(413, reason="body_too_large"),
             ours=True,
             listener="tight"),
    exchange("a length within a tight limit", "ours: limits", post(b"a" * 1024), forwarded(Seen(body=b"a" * 1024)),
             ours=True, listener="tight"),
    exchange("chunks above a tight limit", "ours: limits", post_chunked(chunked(b"a" * 600, b"b" * 600)),
             refused(413, reason="body_too_large"), ours=True, listener="tight"),
    exchange("a body that breaks off", "RFC 9112 8", framed(b"Content-Length: 50"), refused(400, 408), NOTHING_AND_END,
             then="half"),
    exchange("a body that breaks off with the connection", "RFC 9112 8", framed(b"Content-Length: 50"), NOTHING,
             then="end"),
)  # fmt: skip

TE = b"Transfer-Encoding: chunked"
CODINGS = (
    exchange("POST in chunks", "RFC 9112 7.1", post_chunked(chunked(b"he", b"llo")), HELLO),
    exchange("chunks of nothing", "RFC 9112 7.1", post_chunked(b"0\r\n\r\n"), forwarded(Seen(body=b""))),
    exchange("GET in chunks", "RFC 9112 6.3", get("/", TE) + chunked(BODY), HELLO,
             Outcome(answers=(Answer(status=range(400, 600)),), requests=0)),
    exchange("Chunked in capitals", "RFC 9112 7", framed(b"TRANSFER-ENCODING: CHUNKED", body=chunked(BODY)), HELLO),
    exchange("Chunked in mixed letters", "RFC 9112 7", framed(b"Transfer-Encoding: cHuNkEd", body=chunked(BODY)),
             HELLO),
    exchange("space around chunked", "RFC 9112 5.1", framed(b"Transfer-Encoding: \t chunked \t", body=chunked(BODY)),
             HELLO),
    exchange("no space before chunked", "RFC 9112 5.1", framed(b"Transfer-Encoding:chunked", body=chunked(BODY)),
             HELLO),
    exchange("both framings", "RFC 9112 6.1", framed(b"Content-Length: 15", TE, body=chunked(BODY)),
             BAD, Outcome(answers=(Answer(),), ends=True, requests=(Seen(body=BODY, framing=FRAMED),))),
    exchange("both framings, the other order", "RFC 9112 6.1", framed(TE, b"Content-Length: 15", body=chunked(BODY)),
             BAD, Outcome(answers=(Answer(),), ends=True, requests=(Seen(body=BODY, framing=FRAMED),))),
    exchange("both framings are refused", "ours", framed(b"Content-Length: 15", TE, body=chunked(BODY)),
             refused(400, reason="two_framings"), ours=True),
    exchange("both framings, a bad length", "RFC 9112 6.3", framed(b"Content-Length: x", TE, body=chunked(BODY)),
             BAD, Outcome(answers=(Answer(),), ends=True, requests=(Seen(body=BODY, framing=FRAMED),))),
    exchange("both framings, length zero", "RFC 9112 6.1", framed(b"Content-Length: 0", TE, body=chunked(BODY)),
             BAD, Outcome(answers=(Answer(),), ends=True, requests=(Seen(body=BODY, framing=FRAMED),))),
    exchange("Transfer-Encoding in HTTP/1.0", "RFC 9112 6.1", framed(TE, body=chunked(BODY), version=b"HTTP/1.0"),
             BAD, Outcome(answers=(Answer(),), ends=True, requests=(Seen(body=BODY),))),
    exchange("Transfer-Encoding in a kept HTTP/1.0 connection", "RFC 9112 6.1",
             framed(b"Connection: keep-alive", TE, body=chunked(BODY), version=b"HTTP/1.0") + get("/smuggled"),
             refused(400, requests=None, without=b"smuggled"),
             Outcome(answers=(Answer(),), ends=True, requests=None, without=b"smuggled")),
    exchange("Transfer-Encoding in HTTP/1.0 is refused", "ours", framed(TE, body=chunked(BODY), version=b"HTTP/1.0"),
             refused(400, reason="transfer_encoding_in_http10"), ours=True),
    exchange("gzip before chunked", "RFC 9112 6.1", framed(b"Transfer-Encoding: gzip, chunked", body=chunked(BODY)),
             refused(400, 422, 501), forwarded(Seen(body=BODY, has={"transfer-encoding": "gzip, chunked"}))),
    exchange("gzip before chunked is not understood", "ours", framed(b"Transfer-Encoding: gzip, chunked",
             body=chunked(BODY)),
             refused(501, reason="transfer_encoding_unknown"), ours=True),
    bad_coding("gzip", b"Transfer-Encoding: gzip"),
    bad_coding("identity", b"Transfer-Encoding: identity"),
    bad_coding("chunked before gzip", b"Transfer-Encoding: chunked, gzip"),
    bad_coding("chunked before identity", b"Transfer-Encoding: chunked, identity"),
    bad_coding("chunked twice", b"Transfer-Encoding: chunked, chunked"),
    bad_coding("identity before chunked", b"Transfer-Encoding: identity, chunked"),
    bad_coding("xchunked", b"Transfer-Encoding: xchunked"),
    bad_coding("chunkedx", b"Transfer-Encoding: chunkedx"),
    bad_coding("chunk", b"Transfer-Encoding: chunk"),
    bad_coding("in quotes", b'Transfer-Encoding: "chunked"'),
    bad_coding("with a parameter", b"Transfer-Encoding: chunked;q=1"),
    bad_coding("of two words", b"Transfer-Encoding: chunked foo"),
    bad_coding("that is empty", b"Transfer-Encoding:"),
    bad_coding("with a vertical tab", b"Transfer-Encoding: \x0bchunked"),
    bad_coding("with a form feed", b"Transfer-Encoding: chunked\x0c"),
    bad_coding("with a no-break space", b"Transfer-Encoding: \xa0chunked"),
    bad_coding("on two lines, gzip last", TE, b"Transfer-Encoding: gzip"),
    bad_coding("on two lines, identity last", TE, b"Transfer-Encoding: identity"),
    bad_coding("on two lines, both chunked", TE, TE),
    exchange("an empty member behind chunked", "RFC 9110 5.6.1", framed(b"Transfer-Encoding: chunked,",
             body=chunked(BODY)),
             HELLO, refused(400, 422, 501)),
    exchange("an empty member before chunked", "RFC 9110 5.6.1", framed(b"Transfer-Encoding: ,chunked",
             body=chunked(BODY)),
             HELLO, refused(400, 422, 501)),
    exchange("Transfer-Encoding folded", "RFC 9112 5.2", framed(b"Transfer-Encoding:", b" chunked", body=chunked(BODY)),
             HELLO, BAD),
    exchange("two lengths in HTTP/1.0", "RFC 9112 6.3 (5)",
             b"POST / HTTP/1.0\r\n" + lines(b"Content-Length: 5", b"Content-Length: 6") + BODY, BAD),
)  # fmt: skip

NAMED = (
    exchange("Content-Length named by Connection", "RFC 9112 6.3", framed(b"Connection: Content-Length",
             b"Content-Length: 5"),
             HELLO, BAD),
    exchange("Transfer-Encoding named by Connection", "RFC 9112 6.3",
             framed(b"Connection: Transfer-Encoding", TE, body=chunked(BODY)), HELLO, BAD),
    exchange("a body stays a body when its length is named by Connection", "ours: framing is never taken from fields",
             framed(b"Connection: close, Content-Length", b"Content-Length: 5"),
             Outcome(answers=(Answer(),), ends=True, requests=(Seen(body=BODY, framing=FRAMED),)), ours=True),
)  # fmt: skip

CASES = (*LENGTHS, *CODINGS, *NAMED)
