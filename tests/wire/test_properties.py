"""What holds for any bytes: how they arrive changes nothing, nothing unexpected is raised, and no head costs much."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import product
from string import ascii_lowercase
from typing import Any

import pytest
from httptools import HttpRequestParser, HttpResponseParser
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.wire import ChunkedBody, WireError, is_field, read_request, read_response, refusal
from tests.wire.test_heads import MAX_HEAD, MAX_LINE, REFUSED, fields, refused, request, response

TOKEN = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=8).map(str.encode)
VALUE = st.binary(max_size=20).map(lambda raw: bytes(byte for byte in raw if byte == 9 or (byte >= 32 and byte != 127)))
COMMON = st.sampled_from(
    [b"Accept", b"Via", b"X-Forwarded-For", b"TE", b"Upgrade", b"Keep-Alive", b"Te-x", b"Date", b"Cookie"]
)
# Names of which more than one is refused, or which say how to read the rest.
SPECIAL = {b"host", b"content-length", b"transfer-encoding", b"connection", b"authorization", b"content-type"}
NAMES = st.one_of(COMMON, TOKEN).filter(lambda name: name.lower() not in SPECIAL and b"_" not in name)
FIELDS = st.lists(st.tuples(NAMES, st.sampled_from([b"", b" ", b"\t "]), VALUE), max_size=8)
FRAMING = st.sampled_from([b"", b"Content-Length: 12\r\n", b"Transfer-Encoding: chunked\r\n"])
TARGET = st.text("/abc%2F?&=.~", max_size=12).map(lambda text: b"/" + text.encode())


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    line = b"%b %b HTTP/1.1\r\n" % (draw(st.sampled_from([b"GET", b"POST", b"PUT"])), draw(TARGET))
    lines = [b"%b:%b%b\r\n" % field for field in draw(FIELDS)]
    lines.insert(draw(st.integers(0, len(lines))), b"Host: example.com\r\n")
    lines.insert(draw(st.integers(0, len(lines))), draw(FRAMING))
    return line + b"".join(lines) + b"\r\n"


def outcome(read: Callable[[], Any]) -> object:
    try:
        found = read()
    except WireError as error:
        return (error.status, error.reason)
    if found is None:
        return None
    head, end = found
    return (head.lines, head.special, head.pairs(), head.length, head.keep_alive, end)


def arriving(data: bytes, cuts: list[int]) -> object:
    """What comes of data that arrives in pieces, at each of which somebody looks."""
    for end in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        found = outcome(lambda: read_request(data[:end]))  # noqa: B023
        if found is None:
            error = refusal(data[:end], MAX_LINE, MAX_HEAD)
            found = None if error is None else (error.status, error.reason)
        if found is not None:
            return found
    return None


@given(requests(), st.lists(st.integers(0, 300), max_size=6), st.binary(max_size=10))
def test_a_head_is_the_same_however_it_arrives(data: bytes, cuts: list[int], rest: bytes) -> None:
    whole = outcome(lambda: read_request(data))
    assert whole is not None
    assert arriving(data, cuts) == whole
    assert outcome(lambda: read_request(data + rest)) == whole


@given(st.sampled_from(sorted(REFUSED)), st.lists(st.integers(0, 200), max_size=6))
def test_what_is_refused_is_refused_however_it_arrives(name: str, cuts: list[int]) -> None:
    found = arriving(REFUSED[name][1], cuts)
    assert isinstance(found, tuple) and len(found) == 2  # status and reason
    assert 400 <= found[0] < 600


@given(
    st.one_of(
        st.binary(max_size=200), st.builds(lambda head, tail: head[:-4] + tail, requests(), st.binary(max_size=60))
    )
)
@example(b"\r\n\r\n")
@example(b"\r\n\r\n\r\n")
@example(b"HTTP/1.1 200\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost\r\n\r\n")
@example(b": \r\n\r\n")
def test_nothing_but_a_wire_error_is_ever_raised(data: bytes) -> None:
    for end in (b"", b"\r\n\r\n"):
        outcome(lambda: read_request(data + end))  # noqa: B023
        outcome(lambda: read_response(b"HTTP/1.1 200 OK\r\n" + data + end, False))  # noqa: B023
        outcome(lambda: read_response(data + end, True))  # noqa: B023
    refusal(data, MAX_LINE, MAX_HEAD)
    for beginning in (b"", b"0\r\n", b"1;"):
        try:
            ChunkedBody().feed(beginning + data)
        except WireError:
            pass


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_a_field_that_passes_can_not_become_two(name: bytes, value: bytes) -> None:
    if is_field(name, value):
        head = response(b"HTTP/1.1 200 OK\r\nx-%b: %b\r\n\r\n" % (name, value))
        assert head.pairs() == [(b"x-" + name.lower(), value.strip(b" \t"))]


# Against httptools: what both take they must read alike.


class Heard:
    """What httptools tells."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.whole = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.whole = True


@given(requests())
def test_pairs_are_what_httptools_tells(data: bytes) -> None:
    heard = Heard()
    parser = HttpRequestParser(heard)
    parser.feed_data(data)
    assert heard.whole
    head = request(data)
    assert head.pairs() == heard.fields
    assert (head.method, head.target) == (parser.get_method(), heard.url)
    assert head.keep_alive == parser.should_keep_alive()


@given(FIELDS, FRAMING, st.sampled_from([b"200 OK", b"404 Not Found", b"304 Not Modified", b"204 No Content"]))
def test_responses_are_what_httptools_tells(
    lines: list[tuple[bytes, bytes, bytes]], framing: bytes, status: bytes
) -> None:
    lines = [line for line in lines if line[0].lower() != b"upgrade"]  # it takes the rest for another protocol's
    data = b"HTTP/1.1 %b\r\n%b%b\r\n" % (status, b"".join(b"%b:%b%b\r\n" % line for line in lines), framing)
    heard = Heard()
    parser = HttpResponseParser(heard)
    parser.feed_data(data)
    head = response(data)
    assert heard.whole
    dropped = (b"te", b"keep-alive", b"upgrade", b"transfer-encoding")
    assert head.pairs() == [pair for pair in heard.fields if pair[0] not in dropped]
    assert head.status == parser.get_status_code()


# Effort.


class Steps:
    """Counts the calls that Python code makes: the same on every machine, unlike seconds."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Steps:
        sys.setprofile(self._see)
        return self

    def _see(self, frame: object, event: str, arg: object) -> None:
        self.count += event in ("call", "c_call")

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def _names(count: int) -> list[bytes]:
    return ["".join(letters).encode() for letters in list(product(ascii_lowercase, repeat=4))[:count]]


A_FEW = 4
NASTY = {
    "names in Connection": fields(b"Connection: " + b",".join(_names(5000))),
    "Connection lines": fields(*(b"Connection: " + name for name in _names(2000))),
    "special lines": fields(*[b"Via: 1.1 a"] * 2500),
    "new lines": fields(*(b"x-%b: y" % name for name in _names(3000))),
    "new special lines": fields(*(b"Via: 1.1 %b" % name for name in _names(2000))),
    "spaces": fields(b"X: " + b" " * 30000),
    "commas": fields(b"Connection: " + b"," * 30000),
    "colons": fields(b"X" + b":" * 30000),
    "one target": fields(line=b"GET /" + b"a" * 30000 + b" HTTP/1.1"),
    "no space": b"A" * 30000 + b"\r\n\r\n",
    "many CRs": fields(b"X: " + b"\r" * 30000),
}


@pytest.mark.parametrize("name", NASTY)
def test_no_head_costs_more_than_a_few_steps_for_each_byte(name: str) -> None:
    data = NASTY[name]
    with Steps() as steps:
        refused(data)
    assert steps.count <= A_FEW * len(data)
