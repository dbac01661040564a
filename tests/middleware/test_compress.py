"""Responses that get smaller on their way out."""

from __future__ import annotations

import asyncio
import tracemalloc
import zlib
from typing import Any

import brotli
import pytest
from pydantic import ValidationError

from gateway.middleware.compress import Compress
from gateway.middleware.middleware import Message
from gateway.wire import Fields, read_response
from tests.listeners.site import get
from tests.middleware.rig import Answer, Inner, ask, asking, layer, scope_of
from tests.middleware.test_codings import plain
from tests.upstream.peer import live

TEXT = b'{"id": 1, "name": "a name that comes again"}\n' * 200
JSON = b"content-type: application/json"
GZIP = get(fields=b"accept-encoding: gzip\r\n")


async def got(inner: Inner, request: bytes = GZIP, **options: Any) -> Answer:
    return await ask(layer(Compress, inner, **options), request)


def text(answer: Answer) -> bytes:
    coding = answer.all(b"content-encoding")
    return plain(coding[0].decode(), answer.body) if coding else answer.body


def is_compressed(answer: Answer) -> bool:
    return b"content-encoding" in answer


@live
@pytest.mark.parametrize("coding", ["zstd", "br", "gzip"])
@pytest.mark.parametrize("length", [False, True])
@pytest.mark.parametrize("fields", [JSON, [(b"Content-Type", b"application/json")]])
async def test_a_body_is_compressed(coding: str, length: bool, fields: Any) -> None:
    request = get(fields=b"accept-encoding: %b\r\n" % coding.encode())
    answer = await got(Inner(TEXT[:4000], TEXT[4000:], fields=fields, length=length), request)
    assert answer[b"content-encoding"] == coding.encode() and text(answer) == TEXT
    assert answer[b"vary"] == b"Accept-Encoding" and b"content-length" not in answer
    assert len(answer.body) < len(TEXT) / 10 and answer[b"content-type"] == b"application/json"


@live
async def test_the_client_chooses_and_the_server_breaks_the_tie() -> None:
    async def coding(accept: bytes, **options: Any) -> bytes:
        fields = b"".join([b"accept-encoding: %b\r\n" % one for one in accept.split(b"|")])
        answer = await got(Inner(TEXT, fields=JSON), get(fields=fields), **options)
        return b"".join(answer.all(b"content-encoding"))

    assert await coding(b"gzip, br, zstd") == b"zstd"
    assert await coding(b"gzip, br, zstd", algorithms=["gzip", "br"]) == b"gzip"
    assert await coding(b"gzip;q=0.5|br;q=0.8") == b"br"
    assert await coding(b"br;q=0|*;q=0") == b""


@live
@pytest.mark.parametrize(
    "fields",
    [
        b"content-type: image/png",
        b"content-type: nonsense",
        b"server: x",
        JSON + b"\r\ncontent-encoding: br",
        JSON + b"\r\ncache-control: private, No-Transform",
        JSON + b"\r\ncache-control: private\r\ncache-control: no-transform",
        JSON + b"\r\ncontent-range: bytes 0-10/20",
        JSON + b"\r\nrepr-digest: sha-256=:x:",
        JSON + b"\r\nContent-MD5: x",
    ],
)
async def test_what_is_left_alone_for_everybody(fields: bytes) -> None:
    answer = await got(Inner(TEXT, fields=fields + b'\r\netag: "1"'))
    assert answer.body == TEXT and answer[b"etag"] == b'"1"' and b"vary" not in answer
    assert answer.all(b"content-encoding") in ([], [b"br"])
    pairs = [(name, value) for name, _, value in (line.partition(b": ") for line in fields.split(b"\r\n"))]
    assert (await got(Inner(TEXT, fields=pairs))).body == TEXT


@live
async def test_statuses() -> None:
    for status in (200, 203, 404, 500, 502):
        assert is_compressed(await got(Inner(TEXT, status=status, fields=JSON)))
    for status in (204, 205, 206, 304):
        assert not is_compressed(await got(Inner(status=status, fields=JSON)))
    assert [message["status"] for message in (await got(Inner(status=101, fields=JSON))).messages] == [101]


@live
async def test_what_another_client_would_get_compressed_varies() -> None:
    for fields in (b"", b"accept-encoding: deflate\r\n", b"accept-encoding: gzip\r\ncache-control: no-transform\r\n"):
        answer = await got(Inner(TEXT, fields=JSON + b"\r\nvary: Origin"), get(fields=fields))
        assert answer.body == TEXT and answer[b"vary"] == b"Origin, Accept-Encoding"


@live
async def test_small_bodies() -> None:
    small = TEXT[:1023]
    for length in (False, True):
        answer = await got(Inner(small, fields=JSON, length=length))
        assert answer.body == small and b"vary" not in answer
        assert is_compressed(await got(Inner(small + b"x", fields=JSON, length=length)))
        assert not is_compressed(await got(Inner(TEXT, fields=JSON, length=length), min_size="1MiB"))
        assert not is_compressed(await got(Inner(b"", fields=JSON), min_size="1B"))
    # Nobody knows how much is yet to come.
    answer = await got(Inner(b"", b"x", fields=JSON))
    assert is_compressed(answer) and text(answer) == b"x"


@live
async def test_each_part_leaves_when_it_comes() -> None:
    """Of an event stream, and of anything else."""
    for kind in (b"text/event-stream", b"text/plain; charset=utf-8"):
        for coding in ("gzip", "br", "zstd"):
            parts = [b"", *[b"data: %d\n\n" % number for number in range(5)]]
            answer = Answer(asking(get(fields=b"accept-encoding: %b\r\n" % coding.encode())))
            heard: list[bytes] = []

            async def look(number: int, answer: Answer = answer, coding: str = coding, heard: Any = heard) -> None:
                heard.append(plain(coding, b"".join([one["body"] for one in answer.of("body")])))

            inner = Inner(*parts, b"", fields=b"content-type: " + kind, before=look)

            async def receive() -> Message:
                return {"type": "http.request", "body": b"", "more_body": False}

            await layer(Compress, inner)(scope_of(answer.exchange), receive, answer.send)
            assert heard == [b"".join(parts[:number]) for number in range(7)]
            assert answer.of("body")[0]["body"] == b""  # the head doesn't wait for the first event


@live
async def test_tags_become_weak() -> None:
    for tag, after in [(b'"abc"', b'W/"abc"'), (b'W/"abc"', b'W/"abc"')]:
        answer = await got(Inner(TEXT, fields=JSON + b"\r\naccept-ranges: bytes\r\netag: " + tag))
        assert answer[b"etag"] == after and b"accept-ranges" not in answer


@live
async def test_not_modified() -> None:
    for given, after in [(b'W/"abc"', b'W/"abc"'), (b'"abc"', b'"abc"'), (b'"x", W/"abc"', b'W/"abc"')]:
        request = get(fields=b"accept-encoding: gzip\r\nif-none-match: %b\r\n" % given)
        answer = await got(Inner(status=304, fields=b'etag: "abc"'), request)
        assert answer[b"etag"] == after and answer[b"vary"] == b"Accept-Encoding"


@live
async def test_head_is_answered_as_get_would_be() -> None:
    head = GZIP.replace(b"GET", b"HEAD")
    for length in (False, True):
        inner = Inner(TEXT, fields=JSON + b'\r\netag: "1"', length=length)
        asked, got_ = await got(inner, head), await got(inner)
        assert asked.fields == got_.fields and asked.body == b""
    small = await got(Inner(b"x", fields=JSON, length=True), head)
    assert small[b"content-length"] == b"1" and not is_compressed(small)


@live
async def test_trailers_pass_unless_they_speak_of_the_bytes() -> None:
    trailers = [(b"x-took", b"1"), (b"Repr-Digest", b"sha-256=:x:")]
    answer = await got(Inner(TEXT, fields=JSON, trailers=trailers))
    assert answer.start["trailers"] is True and answer.trailers == trailers[:1] and text(answer) == TEXT
    answer = await got(Inner(TEXT, fields=b"content-type: image/png", trailers=trailers))
    assert answer.trailers == trailers


@live
async def test_interim_answers_pass_at_once() -> None:
    answer = await got(Inner(TEXT, fields=JSON, interim=103))
    assert [message["type"] for message in answer.messages][:2] == ["http.response.interim", "http.response.start"]


@live
async def test_an_answer_that_was_never_seen_can_be_replaced() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.start", "status": 502, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    answer = await ask(layer(Compress, app), GZIP)
    assert (answer.status, answer.body) == (502, b"no")


@live
async def test_types_can_be_chosen() -> None:
    for kind, types, wanted in [
        (b"image/svg+xml", ["*+xml"], True),
        (b"IMAGE/SVG+XML; charset=utf-8", ["image/*"], True),
        (b"application/json", ["text/*"], False),
        (b"application/pdf", ["application/pdf"], True),
        (b"video/mp4", ["*/*"], True),
    ]:
        assert is_compressed(await got(Inner(TEXT, fields=b"content-type: " + kind), types=types)) is wanted


@live
async def test_a_body_of_64_mib_takes_little_memory() -> None:
    part = TEXT[:8000] * 8

    class Sink(Answer):
        size = largest = 0

        async def send(self, message: Message) -> None:
            if message["type"] == "http.response.body":
                self.size += len(message["body"])
                self.largest = max(self.largest, len(message["body"]))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range((64 << 20) // len(part)):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def receive() -> Message:
        raise AssertionError

    for coding in (b"zstd", b"gzip"):
        sink = Sink(asking(get(fields=b"accept-encoding: %b\r\n" % coding)))
        tracemalloc.start()
        await layer(Compress, app, gzip_level=1)(scope_of(sink.exchange), receive, sink.send)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0 < sink.size < 2 << 20 and peak < 1 << 20


@live
@pytest.mark.parametrize(
    ("level", "kind", "threads"), [(4, b"text/plain", 0), (11, b"text/plain", 1), (11, b"text/event-stream", 0)]
)
async def test_what_takes_long_is_done_in_a_thread(
    level: int, kind: bytes, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    async def in_thread(work: Any, *told: Any) -> Any:
        used.append(work)
        return work(*told)

    monkeypatch.setattr(asyncio, "to_thread", in_thread)
    one = layer(Compress, Inner(TEXT[:4096], fields=b"content-type: " + kind), br_level=level)
    answer = await ask(one, get(fields=b"accept-encoding: br\r\n"))
    assert brotli.decompress(answer.body) == TEXT[:4096] and len(used) == threads


@live
async def test_what_is_known_of_fields_holds_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses of one connection that say the same share their fields; layers inside may change one of them."""
    lines = b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\ncontent-length: %d\r\n\r\n" % len(TEXT)
    before: Fields | None = None
    change: Any = None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal before
        found = read_response(lines, False, before)
        assert found is not None
        before = found[0].fields
        if change is not None:
            change(found[0])
        await send({"type": "http.response.start", "status": 200, "headers": found[0]})
        await send({"type": "http.response.body", "body": TEXT})

    one = layer(Compress, app)
    judged = []
    judge = Compress._judged

    def judging(self: Compress, headers: Any) -> int:
        judged.append(headers)
        return judge(self, headers)

    monkeypatch.setattr(Compress, "_judged", judging)
    for _ in range(3):
        assert text(await ask(one, GZIP)) == TEXT
        assert (await ask(one, get()))[b"vary"] == b"Accept-Encoding"
    assert len(judged) == 1
    changes: list[Any] = [
        lambda head: head.add(b"\r\ncontent-encoding: br"),
        lambda head: head.add(b"\r\ncache-control: no-transform"),
        lambda head: head.drop(frozenset((b"content-type",))),
    ]
    for one_of_them in changes:
        change = one_of_them
        assert b"vary" not in await ask(one, GZIP)
    change = None
    assert is_compressed(await ask(one, GZIP))
    another = layer(Compress, app, types=["text/*"])
    assert not is_compressed(await ask(another, GZIP))


@live
async def test_a_huge_message_is_passed_on_in_parts() -> None:
    body = TEXT * 200
    answer = await got(Inner(body, fields=JSON, length=True))
    assert len(answer.pieces) > 2 and zlib.decompress(answer.body, 31) == body


@pytest.mark.parametrize(
    "options",
    [
        {"algorithms": []},
        {"algorithms": ["lzma"]},
        {"types": ["json"]},
        {"types": []},
        {"gzip_level": 10},
        {"br_level": 12},
        {"zstd_level": 22},
        {"zstd_level": 0},
    ],
)
def test_options_that_are_wrong(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        layer(Compress, Inner(), **options)
