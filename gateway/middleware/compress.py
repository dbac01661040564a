"""Responses that get smaller on their way out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, WithJsonSchema

from gateway.config.fields import AT_LEAST_ONE
from gateway.config.quantities import Count, Size
from gateway.config.values import parse_size, shown
from gateway.middleware.content.codings import COMPRESSORS, LEVELS, MOST_LEVEL, Compressor, chosen, need, quick
from gateway.middleware.content.lists import vary_line, varying
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.wire import ResponseHead, edited, listed, reframed, tokens, value_of, with_headers

# A message with more than this is passed on in parts, so that no more than that lies about compressed.
_PART = 256 * 1024
_MOST_KNOWN = 1024  # values of Content-Type whose verdict is remembered

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:\*|[a-z0-9!#$&^_.+-]+)|\*/\*|\*\+[a-z0-9]+")


def _media_range(value: str) -> str:
    lowered = value.lower()
    if not _MEDIA_TYPE.fullmatch(lowered):
        raise ValueError(f'expected a type such as "application/json", "text/*" or "*+json", got {shown(value)}')
    return lowered


MediaRange = Annotated[
    str,
    AfterValidator(_media_range),
    WithJsonSchema({"type": "string", "examples": ["application/json", "text/*", "*+json"]}),
]


def _level(coding: str) -> AfterValidator:
    most = MOST_LEVEL[coding]

    def check(value: int) -> int:
        if value > most:
            raise ValueError(f"expected a whole number from 1 to {most}, got {value}")
        return value

    return AfterValidator(check)


# What a compressor makes smaller. Images, audio, video, archives and WOFF fonts are compressed in themselves.
TYPES = (
    "text/*",
    "*+json",
    "*+xml",
    "*+text",
    "application/json",
    "application/xml",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/wasm",
    "application/graphql",
    "application/x-ndjson",
    "application/yaml",
    "application/x-yaml",
    "application/toml",
    "application/rtf",
    "application/sql",
    "application/vnd.ms-fontobject",
    "application/x-font-ttf",
    "font/otf",
    "font/ttf",
    "font/collection",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
)


class Options(Base):
    kind: Literal["compress"] = "compress"
    """Compresses responses."""
    algorithms: Annotated[tuple[Literal["zstd", "br", "gzip"], ...], *AT_LEAST_ONE] = ("zstd", "br", "gzip")
    """What is offered. Of those that a client likes equally well the first is taken."""
    min_size: Size = parse_size("1KiB")
    """Bodies below this are left alone, where their size is known before they are under way."""
    types: Annotated[tuple[MediaRange, ...], *AT_LEAST_ONE] = TYPES
    """What is compressed, by Content-Type: "application/json", "text/*" or "*+json"."""
    gzip_level: Annotated[Count, _level("gzip")] = LEVELS["gzip"]
    """From 1, fast, to 9, small."""
    br_level: Annotated[Count, _level("br")] = LEVELS["br"]
    """From 1, fast, to 11, small. Above 5 it is for files that are compressed once, not for responses: the state of
    each grows to 3 MiB, at the levels 8 and 9 to 24."""
    zstd_level: Annotated[Count, _level("zstd")] = LEVELS["zstd"]
    """From 1, fast, to 19, small. Above 5 the state of each response grows to 4 MiB."""


class Compress(Middleware):
    """Compresses responses with zstd, br or gzip, as the client's Accept-Encoding asks (RFC 9110, section 12.5.3). Each
    part that arrives is compressed and sent at once, so an event stream is not delayed, and a worker holds at most
    256 KiB of a body and, at the usual levels, 1 MiB of state for each. What takes longer than a millisecond or two, by
    its size and level, is done in a thread.

    Left alone are: bodies that are small, of other types, or compressed already; 204, 206 and 304; responses to
    upgrades; whatever says `Cache-Control: no-transform`, response or request; and responses with Content-Digest,
    Repr-Digest, Digest or Content-MD5, for whoever sends one wants the bytes to arrive as they are. Trailers pass, but
    for these. A strong ETag becomes a weak one, Content-Length and Accept-Ranges go, `Vary: Accept-Encoding` is told
    whenever another client would get another body. HEAD is answered as GET would be; where nobody tells the size of the
    body, as GET of a large one.

    A page that shows what an attacker put into its URL next to a secret, such as a token against forged requests, gives
    the secret away by its compressed size (BREACH): don't compress such pages.

    Order: outside of everything that reads or changes bodies, and of a cache, so that one copy serves every client."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "compress", algorithms = ["zstd", "br", "gzip"], min_size = "1KiB" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        levels = {"gzip": options.gzip_level, "br": options.br_level, "zstd": options.zstd_level}
        for coding in options.algorithms:
            need(coding)
        self.offered = tuple([coding.encode() for coding in options.algorithms])
        self.min_size = options.min_size
        self.compressors = {
            coding.encode(): partial(COMPRESSORS[coding], levels[coding]) for coding in options.algorithms
        }
        # More than this is done in a thread, else every other request of the worker waits for it.
        self.quick = {coding.encode(): quick(coding, levels[coding]) for coding in options.algorithms}
        self._types = frozenset(options.types)
        self._known: dict[bytes, bool] = {}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        head = scope["headers"]
        accept = head.listed(b"accept-encoding")
        coding = chosen(accept, self.offered) if accept is not None else b""
        if coding and not _forbids(head):
            return self._app(scope, receive, _Response(self, coding, head, send).send)

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = self.left(message, head)
            return send(message)

        return self._app(scope, receive, sending)

    def left(self, start: Message, head: Any) -> Message:
        """The start of a response whose body goes out as it is. head: of the request."""
        headers = start["headers"]
        if start["status"] == 304:
            return with_headers(start, _not_modified(headers, head))
        if self.compresses(start["status"], headers) == _TO_TELL:
            return with_headers(start, varying(headers, b"Accept-Encoding"))
        return start

    def compresses(self, status: int, headers: Any) -> int:
        """Whether a client that likes it gets a response compressed: _NO, or _TOLD when Vary says so already, or
        _TO_TELL. Remembered for fields as they came from an endpoint, for its next response mostly has the same."""
        if status < 200 or status in _LEFT_ALONE:
            return _NO
        if type(headers) is not ResponseHead or headers.added or headers.special is not headers.fields.special:
            return self._judged(headers)
        fields = headers.fields
        notes = fields.notes
        if notes is None:
            notes = fields.notes = {}
        known = notes.get(self)
        if known is None:
            known = notes[self] = self._judged(headers)
        return known

    def _judged(self, headers: Any) -> int:
        if not self.is_compressible(value_of(headers, b"content-type")):
            return _NO
        length = value_of(headers, b"content-length")
        if length is not None and length.isdigit() and int(length) < self.min_size:
            return _NO
        if not _may_change(headers):
            return _NO
        return _TO_TELL if vary_line(headers, b"Accept-Encoding") else _TOLD

    def is_compressible(self, kind: bytes | None) -> bool:
        """Whether bodies of a type are compressed. kind: as Content-Type has it, None where there is none."""
        if kind is None:
            return False
        known = self._known.get(kind)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            essence = kind.partition(b";")[0].strip(b" \t").lower().decode("latin-1")
            ways = {essence, essence.partition("/")[0] + "/*", "*+" + essence.rpartition("+")[2], "*/*"}
            known = self._known[kind] = "/" in essence and not ways.isdisjoint(self._types)
        return known


class _Response:
    """One response on its way out. As long as its size is unknown its start is held back for the first of its body."""

    __slots__ = ("_coding", "_compressor", "_head", "_held", "_layer", "_quick", "_send")

    def __init__(self, layer: Compress, coding: bytes, head: Any, send: Send) -> None:
        """coding: what the client gets. head: of the request."""
        self._layer = layer
        self._coding = coding
        self._head = head
        self._send = send
        self._held: Message | None = None
        self._compressor: Compressor | None = None
        self._quick = 0

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.start":
            return self._begin(message)
        if kind == "http.response.body":
            if self._held is not None:
                return self._decide(message)
            if self._compressor is not None:
                return self._pass(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.trailers" and self._compressor is not None:
            trailers = [pair for pair in message["headers"] if pair[0].lower() not in _OF_THE_BYTES]
            message = {**message, "headers": trailers}
        return self._send(message)

    def _begin(self, message: Message) -> Awaitable[None]:
        # A second start takes the place of one that nobody has seen: an attempt that failed before its first byte.
        self._held = self._compressor = None
        headers = message["headers"]
        if not self._layer.compresses(message["status"], headers):
            return self._send(self._layer.left(message, self._head))
        if value_of(headers, b"content-length") is None and self._head.method != b"HEAD":
            self._held = message
            return _nothing()
        return self._send(self._coded(message))

    async def _decide(self, message: Message) -> None:
        """The first of a body whose size nobody told."""
        start, self._held = self._held, None
        assert start is not None
        body, more = message.get("body", b""), message.get("more_body", False)
        if not more and len(body) < self._layer.min_size:
            await self._send(start)
            await self._send(message)
            return
        await self._send(self._coded(start))
        await self._pass(body, more)

    def _coded(self, start: Message) -> Message:
        """The start of a response whose body is compressed."""
        headers = start["headers"]
        lines = b"\r\ncontent-encoding: " + self._coding
        tag = value_of(headers, b"etag")
        if tag is not None:
            lines += b"\r\netag: " + (b"W/" + tag if tag.startswith(b'"') else tag)
        if self._head.method != b"HEAD":
            is_stream = (value_of(headers, b"content-type") or b"").startswith(b"text/event-stream")
            self._compressor = self._layer.compressors[self._coding](is_stream)
            # The events of a stream are compressed at a low level.
            self._quick = quick("gzip", 1) if is_stream else self._layer.quick[self._coding]
        headers = varying(edited(headers, _CHANGED, lines), b"Accept-Encoding")
        return with_headers(start, reframed(headers))

    async def _pass(self, body: Any, more: bool) -> None:
        compressor = self._compressor
        assert compressor is not None
        send = self._send
        while len(body) > _PART:
            part, body = memoryview(body)[:_PART], memoryview(body)[_PART:]
            data = await asyncio.to_thread(compressor.squeeze, part)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        work = compressor.squeeze if more else compressor.finish
        if len(body) > self._quick:
            data = await asyncio.to_thread(work, body)
        elif body or not more:
            data = work(body)
        else:
            data = b""
        await send({"type": "http.response.body", "body": data, "more_body": more})


async def _nothing() -> None:
    pass


def _not_modified(headers: Any, head: Any) -> Any:
    """A 304 speaks of the response that the client has: by a weak tag when that was compressed (RFC 9110, section
    15.4.5). head: of the request."""
    if value_of(headers, b"content-encoding") is not None or _forbids(headers):
        return headers
    tag = value_of(headers, b"etag")
    if tag is not None and tag.startswith(b'"'):
        has = listed(head, b"if-none-match")
        if has is not None and b"W/" + tag in has:
            headers = edited(headers, _TAG, b"\r\netag: W/" + tag)
    return varying(headers, b"Accept-Encoding")


def _forbids(headers: Any) -> bool:
    """Whether nobody on the way may change the body (RFC 9111, sections 5.2.1.6 and 5.2.2.6)."""
    said = listed(headers, b"cache-control")
    return said is not None and b"no-transform" in said.lower() and b"no-transform" in tokens(said)


def _may_change(headers: Any) -> bool:
    """Whether the body of a response may be sent in another coding."""
    coded = value_of(headers, b"content-encoding")
    if coded is not None and coded.lower() != b"identity":
        return False
    if isinstance(headers, ResponseHead):
        lower = headers.lines.lower()
        if any(needle in lower for needle in _NEEDLES):
            return False
    elif any(name.lower() in _BINDING for name, _ in headers):
        return False
    return not _forbids(headers)


_NO, _TOLD, _TO_TELL = range(3)
_LEFT_ALONE = (204, 205, 206, 304)
# RFC 9530, RFC 3230 and RFC 1864.
_OF_THE_BYTES = frozenset((b"content-digest", b"repr-digest", b"digest", b"content-md5"))
_BINDING = _OF_THE_BYTES | {b"content-range"}
_NEEDLES = tuple([b"\r\n" + name + b":" for name in _BINDING])
_CHANGED = frozenset((b"content-encoding", b"etag", b"accept-ranges"))
_TAG = frozenset((b"etag",))
