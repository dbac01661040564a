"""Request bodies that are expanded for an origin server that can't do so itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Literal

from gateway.config.quantities import Count, Size
from gateway.config.values import parse_size
from gateway.errors import Refused
from gateway.middleware.content.codings import EXPANDERS, Broken, Expander, need
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.wire import listed, tokens

# More than one coding has hardly ever been seen, and each multiplies what a few bytes may become.
_MOST_CODINGS = 2
# Up to this the ratio says nothing: it is what a form full of blanks may well have.
_GRACE = 1024 * 1024
# How many members a body may have whatever its size, and of how many bytes that came there may be one more. Each takes
# up to 30 us (zstd), whatever it holds; a request of 64 bytes costs more. Who puts files behind one another needs less.
_FREE_MEMBERS = 32
_BYTES_FOR_MEMBER = 64
# After so much work others have their turn: it takes half a millisecond. A member counts as so many bytes.
_BREATH = 128 * 1024
_MEMBER = 8 * 1024


class Options(Base):
    kind: Literal["decompress"] = "decompress"
    """Expands the bodies of requests."""
    max_ratio: Count = 100
    """The most that a body may grow, from its second MiB on; beyond it 413 is answered. JSON and logs seldom grow more
    than thirtyfold."""
    max_size: Size = parse_size("1GiB")
    """The largest body once it is expanded; beyond it 413 is answered."""
    unknown: Literal["refuse", "pass"] = "refuse"
    """What becomes of a request whose coding is not known here: it is refused with 415, or passed on as it is."""


class Decompress(Middleware):
    """Undoes the Content-Encoding of requests: gzip, deflate (zlib), br and zstd, two of them at the most. The request
    goes on in chunks, without Content-Encoding, Content-Length and digests of the coded bytes; an empty one
    loses its coding too.

    A body is expanded as the application takes it, 128 KiB at a time, and never held as a whole. One that isn't what it
    says, is cut short or goes on behind its end is answered 400 (`content_coding_broken`); one that grows beyond
    `max_ratio` or `max_size`, or is made of countless members that hold nothing, 413 (`body_too_large`); an unknown
    coding 415 (`content_coding_unknown`) with the known
    ones in Accept-Encoding (RFC 9110, section 15.5.16). When the application has begun its answer by then, that is
    cut.

    Order: inside of whatever must see the body as the client sent it, such as a check of its signature, and outside of
    what reads it. After authentication, so that strangers don't make work."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "decompress", max_ratio = 100, max_size = "100MiB" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._most_ratio = options.max_ratio
        self._most_size = options.max_size
        self._passes = options.unknown == "pass"
        for coding in ("br", "zstd"):
            need(coding)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        head = scope["headers"]
        coded = listed(head, b"content-encoding")
        if coded is None:
            return self._app(scope, receive, send)
        codings = [coding for coding in tokens(coded) if coding not in (b"", b"identity")]
        if len(codings) > _MOST_CODINGS or not EXPANDERS.keys() >= {*codings}:
            if self._passes or not head.length:
                return self._app(scope, receive, send)
            return self._place.refuse(scope["gateway"], send, "content_coding_unknown", _KNOWN)
        head.drop(_OF_THE_CODED)
        if not codings or not head.length:
            return self._app(scope, receive, send)
        head.reframe()
        # The last one named was put on last (RFC 9110, section 8.4).
        expanders = [EXPANDERS[coding]() for coding in reversed(codings)]
        return self._app(scope, _Body(expanders, receive, self._most_ratio, self._most_size).receive, send)


class _Body:
    """One request body on its way in."""

    __slots__ = (
        "_came", "_expanders", "_is_over", "_made", "_members", "_most_ratio", "_most_size", "_pieces", "_receive",
        "_work",
    )  # fmt: skip

    def __init__(self, expanders: list[Expander], receive: Receive, most_ratio: int, most_size: int) -> None:
        self._expanders = expanders
        self._receive = receive
        self._most_ratio = most_ratio
        self._most_size = most_size
        self._pieces: Iterator[bytes] = iter(())  # what the last message holds, as far as it wasn't taken yet
        self._came = 0
        self._made = [0] * len(expanders)  # by each of them
        self._members = 0  # of all of them
        self._work = 0  # since others had their turn, in bytes made
        self._is_over = False  # no more comes; its end is told once the rest was taken

    async def receive(self) -> Message:
        """ASGI's receive. Raises Refused."""
        while True:
            for piece in self._pieces:
                if piece:
                    return {"type": "http.request", "body": piece, "more_body": True}
                await asyncio.sleep(0)
            if self._is_over:
                return await self._end()
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            body = message.get("body", b"")
            self._came += len(body)
            self._is_over = not message.get("more_body", False)
            self._pieces = self._expanded(body, 0)

    def _expanded(self, data: bytes, at: int) -> Iterator[bytes]:
        """What data becomes in the expander at this place and in all behind it; an empty piece now and then, for
        others to go on. The bounds hold for each: what the first makes may be work for the next, and come to
        nothing."""
        made = self._made
        is_last = at == len(made) - 1
        try:
            for piece in self._expanders[at].pieces(data) if data else ():
                if piece:
                    made[at] += len(piece)
                    self._work += len(piece)
                    if made[at] > self._most_size or made[at] > max(_GRACE, self._came * self._most_ratio):
                        raise Refused("body_too_large", f"{self._came} bytes of body became {made[at]} and more")
                    if is_last:
                        yield piece
                    else:
                        yield from self._expanded(piece, at + 1)
                else:
                    self._members += 1
                    self._work += _MEMBER
                    if self._members > _FREE_MEMBERS + self._came // _BYTES_FOR_MEMBER:
                        raise Refused("body_too_large", f"{self._came} bytes of body have {self._members} members")
                if self._work > _BREATH:
                    self._work = 0
                    yield b""
        except Broken:
            raise _broken() from None

    async def _end(self) -> Message:
        if not self._expanders:
            return await self._receive()  # what else there is to hear: that the client left
        if self._came and not all(expander.is_whole for expander in self._expanders):
            raise _broken()
        self._expanders = []
        return {"type": "http.request", "body": b"", "more_body": False}


def _broken() -> Refused:
    return Refused("content_coding_broken", "the body is not what its Content-Encoding says")


_KNOWN: tuple[tuple[bytes, bytes], ...] = ((b"accept-encoding", b"gzip, deflate, br, zstd"),)
_OF_THE_CODED = frozenset((b"content-encoding", b"content-md5", b"digest", b"content-digest", b"repr-digest"))
