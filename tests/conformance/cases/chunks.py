"""The chunked coding in requests (RFC 9112, section 7.1)."""

from __future__ import annotations

from tests.conformance.case import Case, Outcome, Seen, chunked, exchange, forwarded, get, post_chunked, refused

BODY = b"hello"
HELLO = forwarded(Seen(body=BODY, framing=("length", "chunked")))
CLAUSE = "RFC 9112 7.1"
# The head may have been passed on before the mistake in the body was there to be seen.
BAD = refused(400, without=b"smuggled")
CUT = Outcome(ends=True, requests=0)


def good(name: str, data: bytes, clause: str = CLAUSE) -> Case:
    return exchange(name, clause, post_chunked(data), HELLO)


def bad(name: str, data: bytes, clause: str = CLAUSE) -> Case:
    """Followed by what would be a request if the body were read in another way."""
    return exchange(name, clause, post_chunked(data + get("/smuggled")), BAD)


GOOD = (
    good("one chunk for each byte", chunked(*(bytes([byte]) for byte in BODY))),
    good("sizes in capitals", b"00A\r\nhello hell\r\n0\r\n\r\n".replace(b"00A\r\nhello hell", b"5\r\nhello")),
    exchange("a size in capital hexadecimal", CLAUSE, post_chunked(b"A\r\n0123456789\r\n0\r\n\r\n"),
             forwarded(Seen(body=b"0123456789"))),
    exchange("a size in small hexadecimal", CLAUSE, post_chunked(b"a\r\n0123456789\r\n0\r\n\r\n"),
             forwarded(Seen(body=b"0123456789"))),
    good("leading zeros of a size", b"00000005\r\nhello\r\n0\r\n\r\n"),
    good("a last chunk of many zeros", b"5\r\nhello\r\n00000\r\n\r\n"),
    good("an extension", b"5;name=value\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1.1"),
    good("an extension without a value", b"5;name\r\nhello\r\n0;last\r\n\r\n", "RFC 9112 7.1.1"),
    good("extensions with quotes", b'5;a="b;c\\"d, e";f="\r\n'.replace(b'f="', b"f=g") + b"hello\r\n0\r\n\r\n",
         "RFC 9112 7.1.1"),
    good("extensions with space around", b"5 ; a = b ;c\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1.1"),
    exchange("chunks that look like requests", CLAUSE, post_chunked(chunked(get("/smuggled"), b"0\r\n\r\n")),
             forwarded(Seen(body=get("/smuggled") + b"0\r\n\r\n"))),
    exchange("chunks of 300,000 bytes", CLAUSE, post_chunked(chunked(b"0123456789" * 20_000, b"x" * 100_000)),
             forwarded(Seen(body=b"0123456789" * 20_000 + b"x" * 100_000))),
    exchange("chunks and another request behind", CLAUSE, post_chunked(chunked(BODY)) + get("/next"),
             forwarded(Seen(body=BODY), Seen(line=b"GET /next HTTP/1.1"), answers=2)),
    exchange("extensions are not handed on as payload", "RFC 9112 7.1.1", post_chunked(b"5;x=1\r\nhello\r\n0\r\n\r\n"),
             forwarded(Seen(body=BODY, absent=("x",)))),
)  # fmt: skip

SIZES = (
    bad("a size with a prefix", b"0x5\r\nhello\r\n0\r\n\r\n"),
    bad("a size with a plus", b"+5\r\nhello\r\n0\r\n\r\n"),
    bad("a size with a minus", b"-5\r\nhello\r\n0\r\n\r\n"),
    bad("a size with a letter", b"5g\r\nhello\r\n0\r\n\r\n"),
    bad("a size with an underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
    bad("a size with a dot", b"5.0\r\nhello\r\n0\r\n\r\n"),
    bad("a size after a space", b" 5\r\nhello\r\n0\r\n\r\n"),
    bad("a size after a tab", b"\t5\r\nhello\r\n0\r\n\r\n"),
    bad("no size", b"\r\nhello\r\n0\r\n\r\n"),
    bad("no size but an extension", b";a=b\r\nhello\r\n0\r\n\r\n"),
    bad("a size of other digits", "\u0665\r\nhello\r\n0\r\n\r\n".encode()),
    bad("a size with NUL", b"5\0\r\nhello\r\n0\r\n\r\n"),
    bad("a size of 2^64 and 5", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    bad("a size of 2^64 and 0", b"10000000000000000\r\n\r\n"),
    exchange("a size of 2^32 and 5", CLAUSE, post_chunked(b"100000005\r\nhello\r\n0\r\n\r\n"), refused(400, 413),
             Outcome(requests=0)),
    exchange("a size of 2^63", CLAUSE, post_chunked(b"8000000000000000\r\nhello\r\n0\r\n\r\n"), refused(400, 413),
             Outcome(requests=0)),
    exchange("a size of 2^64 less 1", CLAUSE, post_chunked(b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n"), refused(400,
             413),
             Outcome(requests=0)),
    bad("a size of forty digits", b"f" * 39 + b"5\r\nhello\r\n0\r\n\r\n"),
    exchange("a bad size, told why", "ours", post_chunked(b"5g\r\nhello\r\n0\r\n\r\n"),
             refused(400, reason="chunk_size_malformed"), ours=True),
    exchange("a space behind a size", CLAUSE, post_chunked(b"5 \r\nhello\r\n0\r\n\r\n"), HELLO, BAD),
)  # fmt: skip

ENDS = (
    bad("more data than the size", b"4\r\nhello\r\n0\r\n\r\n"),
    bad("less data than the size", b"6\r\nhello\r\n0\r\n\r\n"),
    bad("no line end behind a chunk", b"5\r\nhello0\r\n\r\n"),
    bad("two bytes for the line end", b"5\r\nhelloXX0\r\n\r\n"),
    bad("LF behind a size", b"5\nhello\r\n0\r\n\r\n"),
    bad("LF behind a chunk", b"5\r\nhello\n0\r\n\r\n"),
    bad("CR behind a size", b"5\rhello\r\n0\r\n\r\n"),
    bad("CR behind a chunk", b"5\r\nhello\r0\r\n\r\n"),
    bad("LF CR behind a size", b"5\n\rhello\r\n0\r\n\r\n"),
    bad("CR CR LF behind a size", b"5\r\r\nhello\r\n0\r\n\r\n"),
    bad("LF behind the last chunk", b"5\r\nhello\r\n0\n\r\n"),
    exchange("LF ends the body", CLAUSE, post_chunked(b"5\r\nhello\r\n0\r\n\n" + get("/smuggled")), BAD,
             forwarded(Seen(body=BODY), Seen(line=b"GET /smuggled HTTP/1.1"), answers=2)),
    bad("LF in an extension", b"5;a\nhello\r\n0\r\n\r\n", "RFC 9112 7.1.1"),
    bad("CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1.1"),
    bad("LF in a quoted extension", b'5;a="\n"\r\nhello\r\n0\r\n\r\n', "RFC 9112 7.1.1"),
    bad("NUL in an extension", b"5;a=\0\r\nhello\r\n0\r\n\r\n", "RFC 9112 7.1.1"),
    exchange("an extension with an open quote", "ours", post_chunked(b'5;a="b\r\nhello\r\n0\r\n\r\n'),
             refused(400, reason="chunk_size_malformed"), ours=True),
    exchange("an extension without a name", "ours", post_chunked(b"5;=b\r\nhello\r\n0\r\n\r\n"),
             refused(400, reason="chunk_size_malformed"), ours=True),
    exchange("an extension of 20,000 bytes", "RFC 9112 7.1.1",
             post_chunked(b"5;" + b"a" * 20_000 + b"\r\nhello\r\n0\r\n\r\n"),
             HELLO, refused(*range(400, 500))),
    exchange("an extension of 20,000 bytes is too long", "ours",
             post_chunked(b"5;" + b"a" * 20_000 + b"\r\nhello\r\n0\r\n\r\n"),
             refused(400, reason="chunk_size_malformed"), ours=True),
    exchange("extensions without end", "RFC 9112 7.1.1", post_chunked(b"5;" + b"a" * 200_000), refused(*range(400,
             500)),
             Outcome(requests=0)),
    exchange("chunks that break off", "RFC 9112 8", post_chunked(b"5\r\nhel"), refused(400, 408), CUT, then="half"),
    exchange("chunks without the last one", "RFC 9112 8", post_chunked(b"5\r\nhello\r\n"), refused(400, 408), CUT,
             then="half"),
    exchange("a last chunk without the empty line", "RFC 9112 8", post_chunked(b"5\r\nhello\r\n0\r\n"), refused(400,
             408),
             CUT, then="half"),
    exchange("a last chunk with half an empty line", "RFC 9112 8", post_chunked(b"5\r\nhello\r\n0\r\n\r"), refused(400,
             408),
             CUT, then="half"),
    exchange("a request where the empty line should be", CLAUSE,
             post_chunked(b"5\r\nhello\r\n0\r\n" + get("/smuggled")),
             BAD, forwarded(Seen(body=BODY, no_trailers=("get /smuggled http/1.1",)))),
    exchange("a request where the empty line should be is refused", "ours",
             post_chunked(b"5\r\nhello\r\n0\r\n" + get("/smuggled")),
             refused(400, reason="trailer_malformed", without=b"smuggled"), ours=True),
)  # fmt: skip

CASES = (*GOOD, *SIZES, *ENDS)
