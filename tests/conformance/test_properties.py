"""What must hold for any message, on the real gateway: nothing of a target is changed, no field is lost or moved,
payload is payload however it is chunked, and no way of cutting the bytes makes two requests of one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conformance.case import chunked, get, lines, post_chunked
from tests.conformance.delivery import WHOLE, Delivery, at_cuts
from tests.conformance.messages import Message, Pair, RequestReader
from tests.conformance.playground import Playground
from tests.conformance.stage import Reply, on_stage, plain

# The playground is one for all examples: each has connections of its own.
settings.register_profile(
    "shared", settings.get_profile("patient"), suppress_health_check=[HealthCheck.function_scoped_fixture, *HealthCheck]
)
shared = settings(settings.get_profile("shared"), max_examples=100)
_numbers = itertools.count()

Heard = tuple[list[Message], list[Message]]  # the final responses at the client, the requests at the origin


class Cuts(Delivery):
    """Cut in given places, as far as they lie within."""

    def __init__(self, places: Sequence[int]) -> None:
        super().__init__("cuts")
        self._places = sorted(set(places))

    def pieces(self, data: bytes, seed: str) -> list[bytes]:
        return at_cuts(data, [place for place in self._places if 0 < place < len(data)])


def carried(
    ground: Playground, data: bytes, reply: bytes = b"", delivery: Delivery = WHOLE, listener: str = "open"
) -> Heard:
    """What comes of these bytes, after which the client sends nothing more."""

    async def exchange() -> Heard:
        with on_stage(ground.stage(f"property {next(_numbers)}", delivery)) as stage:
            try:
                stage.automatic = True
                if reply:
                    stage.replies.append(Reply(reply))
                client = await stage.connect(listener)
                stage.answers.methods = [message.start.partition(b" ")[0] for message in found_in(data)]
                await stage.send(data)
                client.finish("half")
                await stage.until(lambda: client.over, "the end of the connection")
                await stage.probe()
                assert not list(stage.invariants()), stage.story()
                return stage.answers.finals, [message for _, message in stage.requests if message.complete]
            finally:
                await stage.close()

    return ground.run(exchange())


def found_in(data: bytes) -> list[Message]:
    """The requests that a strict reader finds."""
    reader = RequestReader()
    reader.feed(data)
    while reader.held:
        reader.release(raw=False)
    return reader.messages


def one(heard: Heard) -> tuple[Message, Message]:
    answers, requests = heard
    assert [answer.status for answer in answers] == [200], [answer.start for answer in answers]
    assert len(requests) == 1
    return answers[0], requests[0]


cuts = st.lists(st.integers(1, 400), max_size=6).map(Cuts)

# Targets.

_PATH = bytes(byte for byte in range(0x21, 0x100) if byte not in b"\x7f#")
targets = st.lists(st.sampled_from(_PATH), max_size=120).map(lambda rest: b"/" + bytes(rest))


@shared
@given(target=targets, delivery=cuts)
@example(target=b"/%2F%2e%2E//..;a=b/%00%zz\\?%?#".rstrip(b"#"), delivery=WHOLE)
@example(target=b"/" + bytes(range(0x80, 0x100)), delivery=WHOLE)
def test_a_target_arrives_byte_for_byte(playground: Playground, target: bytes, delivery: Delivery) -> None:
    _, request = one(carried(playground, get(target), delivery=delivery))
    assert request.start == b"GET %b HTTP/1.1" % target


@shared
@given(target=targets)
def test_a_target_arrives_byte_for_byte_or_not_at_all(playground: Playground, target: bytes) -> None:
    answers, requests = carried(playground, get(target), listener="web")
    assert [answer.status for answer in answers] in ([200], [400])
    assert [request.start for request in requests] == [b"GET %b HTTP/1.1" % target] * (answers[0].status == 200)


# Fields.

_TOKEN = b"!#$%&'*+-.^`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# What an intermediary has something to do with, or that may be there once.
_OURS = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"forwarded", b"x-real-ip", b"true-client-ip",
        b"cf-connecting-ip", b"host", b"content-length", b"content-type", b"authorization", b"via", b"expect",
        b"max-forwards", b"date",
    )
)  # fmt: skip
_OURS_BEGIN = (b"x-forwarded-", b"x-original-")
names = (
    st.lists(st.sampled_from(_TOKEN), min_size=1, max_size=20)
    .map(bytes)
    .filter(lambda name: name.lower() not in _OURS and not name.lower().startswith(_OURS_BEGIN))
)
few_names = st.sampled_from((b"X-A", b"x-a", b"X-B", b"Accept", b"Cookie", b"Set-Cookie", b"Cache-Control", b"Link"))
_VALUE = b"\t " + bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100))
values = st.lists(st.sampled_from(_VALUE), max_size=40).map(bytes)
fields = st.lists(st.tuples(few_names | names, values), max_size=12)


def told(pairs: list[Pair]) -> list[Pair]:
    return [(name.lower(), value.strip(b" \t")) for name, value in pairs]


def end_to_end(message: Message) -> list[Pair]:
    pairs = told(list(message.fields))
    return [pair for pair in pairs if pair[0] not in _OURS and not pair[0].startswith(_OURS_BEGIN)]


@shared
@given(pairs=fields, delivery=cuts)
def test_request_fields_arrive_in_their_order(playground: Playground, pairs: list[Pair], delivery: Delivery) -> None:
    data = get("/", *(b"%b:%b" % pair for pair in pairs))
    _, request = one(carried(playground, data, delivery=delivery))
    assert end_to_end(request) == told(pairs)


@shared
@given(pairs=fields, delivery=cuts)
def test_response_fields_arrive_in_their_order(playground: Playground, pairs: list[Pair], delivery: Delivery) -> None:
    reply = b"HTTP/1.1 200 OK\r\n" + lines(*(b"%b:%b" % pair for pair in pairs), b"Content-Length: 2") + b"ok"
    answer, _ = one(carried(playground, get(), reply, delivery))
    assert end_to_end(answer) == told(pairs)
    assert answer.body == b"ok"


# Chunks.

_extension = st.sampled_from((b"", b";a", b";a=b", b';a="b;\\"c"', b" ; a = b", b";a;b=c"))


@st.composite
def chunkings(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Payload, and one of the ways to write it in chunks."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
    written = bytearray()
    for piece in [*pieces, b""]:
        size = draw(st.sampled_from(("%x", "%X", "%04x", "%08X"))) % len(piece)
        written += size.encode() + draw(_extension) + b"\r\n"
        if piece:
            written += piece + b"\r\n"
    for number in range(draw(st.integers(0, 2))):
        written += b"X-Trailer-%d: %b\r\n" % (number, draw(values).strip(b" \t"))
    return b"".join(pieces), bytes(written) + b"\r\n"


@shared
@given(chunking=chunkings(), delivery=cuts)
def test_request_payload_is_the_same_in_other_chunks(
    playground: Playground, chunking: tuple[bytes, bytes], delivery: Delivery
) -> None:
    payload, written = chunking
    data = get("/", b"Transfer-Encoding: chunked", method=b"POST") + written
    _, request = one(carried(playground, data, delivery=delivery))
    assert request.body == payload
    assert b"x-trailer-0" not in dict(told(list(request.fields)))


@shared
@given(chunking=chunkings(), delivery=cuts)
def test_response_payload_is_the_same_in_other_chunks(
    playground: Playground, chunking: tuple[bytes, bytes], delivery: Delivery
) -> None:
    payload, written = chunking
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + written
    answer, _ = one(carried(playground, get(), reply, delivery))
    assert answer.body == payload
    assert b"x-trailer-0" not in dict(told(list(answer.fields)))


@shared
@given(payload=st.binary(max_size=2000), delivery=cuts)
def test_payload_with_a_length_is_the_same(playground: Playground, payload: bytes, delivery: Delivery) -> None:
    data = get("/", b"Content-Length: %d" % len(payload), method=b"POST") + payload
    answer, request = one(carried(playground, data, plain(payload), delivery))
    assert request.body == payload == answer.body


# Smuggling.

_HIDDEN = get("/smuggled")
_framings = st.sampled_from(
    (
        b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: %d" % len(_HIDDEN), b"Content-Length: +5",
        b"Content-Length : 5", b"Content-Length: 5, 5", b"Content-Length:", b"content-length:\t5",
        b"Content-Length: 0x5", b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: identity",
        b"transfer-encoding:chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding:\x0bchunked", b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
        b"Transfer-Encoding:\r\n chunked", b"Transfer_Encoding: chunked", b"Expect: 100-continue", b"Connection: close",
        b"Connection: Content-Length", b"Connection: keep-alive, Transfer-Encoding", b"X-A: \0", b"Host: b",
        b"Upgrade: websocket", b"Connection: upgrade",
    )
)  # fmt: skip
_bodies = st.sampled_from(
    (
        b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"5;\nhello\r\n0\r\n\r\n", b"0\n\r\n",
        b"0x0\r\n\r\n", b"10000000000000000\r\n\r\n", b"-0\r\n\r\n", b"\r\n", b"%x\r\n" % len(_HIDDEN), _HIDDEN,
        b"0\r\nX-A: 1\r\n\r\n", b"0\r\n",
    )
)  # fmt: skip


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """One request or two, with whatever may be said of where they end."""
    data = b""
    for number in range(draw(st.integers(1, 2))):
        method = draw(st.sampled_from((b"POST", b"GET", b"HEAD", b"OPTIONS")))
        version = draw(st.sampled_from((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0")))
        said = draw(st.lists(_framings, max_size=3))
        body = b"".join(draw(st.lists(_bodies, max_size=4)))
        data += get(f"/{number}", *said, method=method, version=version) + body
    return data


@shared
@given(data=conversations(), delivery=cuts)
@example(data=post_chunked(chunked(b"hello")) + _HIDDEN, delivery=WHOLE)
@example(data=get("/0") + get("/1", b"Content-Length: 5", method=b"POST") + b"he", delivery=WHOLE)
def test_the_origin_gets_no_request_that_a_strict_reader_does_not_find(
    playground: Playground, data: bytes, delivery: Delivery
) -> None:
    arrived = gist(carried(playground, data)[1])
    assert arrived == gist(found_in(data))[: len(arrived)]
    assert gist(carried(playground, data, delivery=delivery)[1]) == arrived


def gist(messages: list[Message]) -> list[tuple[bytes, bytes]]:
    """Method and target, and the body, of those that are whole."""
    return [(message.start.rpartition(b" ")[0], bytes(message.body)) for message in messages if message.complete]


@pytest.mark.parametrize("mistake", ["too large", "a bad trailer"])
def test_a_body_that_is_refused_never_becomes_whole_wherever_it_is_cut(playground: Playground, mistake: str) -> None:
    """The end of a body comes with what is wrong about it: the client is refused, and the origin sees no end."""
    body = b"a" * 1200
    if mistake == "too large":
        data = post_chunked(chunked(body[:600], body[600:]))
        listener, status = "tight", 413
    else:
        data = post_chunked(b"%x\r\n%b\r\n0\r\nX-A : 1\r\n\r\n" % (len(body), body))
        listener, status = "web", 400
    for place in range(60, len(data) - 2, 5):
        answers, requests = carried(playground, data, delivery=Cuts([place, place + 1]), listener=listener)
        assert [answer.status for answer in answers] == [status], place
        assert not requests, place
