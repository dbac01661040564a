"""One request of an HTTP/1.1 connection and its answer: ASGI's `receive` and `send`, and the framing of the answer.

Knows its connection only as something that writes, pauses and is told when all is over. Framing is always written anew
(RFC 9112, section 6): by length where it is known, chunked for HTTP/1.1, by the end of the connection for HTTP/1.0.

Beyond ASGI's own messages `send` takes "http.response.trailers" (ASGI's extension), "http.response.interim" with a
status from 100 to 199 and headers, a start with status 101, and "http.response.established" for CONNECT; after either
of these two `detach` gives the transport away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gateway.errors import Refused
from gateway.exchange import CLIENT_GONE, OK, Exchange
from gateway.parts import add, take
from gateway.reasons import status_of
from gateway.refusals import PHRASES, accept_in
from gateway.relay import End
from gateway.wire import (
    HOP_BY_HOP,
    ChunkedBody,
    Pair,
    RequestHead,
    ResponseHead,
    WireError,
    announced_trailers,
    is_field,
    trailer_section,
)

if TYPE_CHECKING:
    from gateway.listeners.http1 import Http1Connection

log = logging.getLogger("gateway.http")

# What a request body may hold back in this process before the client is no longer read from. One socket buffer's worth:
# enough to keep a fast link busy, little enough for thousands of uploads.
_BODY_HIGH = 256 * 1024
# Below this a body is copied behind its head into one write; above, the copy costs more than a second buffer.
_JOIN = 16 * 1024

_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")}
_PHRASES = {status: phrase.encode() for status, phrase in PHRASES.items()}


def phrase(status: int) -> bytes:
    """The reason phrase of a status line, empty for a status nobody has named."""
    return _PHRASES.get(status, b"")


class Http1Exchange(Exchange):
    """The request's own object from its head to its last byte; what everybody learns of it is in its base class."""

    __slots__ = (
        "_answered", "_begun", "_chunked", "_chunks", "_complete", "_connection", "_continue", "_decoder", "_end_told",
        "_head_out", "_held", "_left", "_owed", "_received", "_stopped", "_trailing", "_waiter", "expects", "has_body",
        "head", "keep_alive", "scheme", "skipped", "task",
    )  # fmt: skip

    def __init__(self, connection: Http1Connection, head: RequestHead, now: float) -> None:
        host = head.special.get(b"host", b"")
        self.client, self.scheme, head.introduced = connection.peer.introduce(head.special, host)
        Exchange.__init__(self, connection.entry, self.client, now)
        self.head = head
        self.method = head.method
        self.host = host
        self.target = head.target
        self.keep_alive = head.keep_alive
        self.has_body = head.length != 0
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._answered = False  # a final response head was given to us
        self._complete = False  # the response is wholly written
        self._received = not self.has_body  # the request body is wholly read
        self._end_told = False
        self._left = head.length  # bytes of request body to come
        self._owed = -1  # bytes of response body to come; -1: it does not say
        self._chunks: list[bytes] | None = None
        self._held = 0
        self.skipped = False  # of the request body something was thrown away unread
        self._waiter: asyncio.Future[None] | None = None
        self._head_out = b""
        self._begun = False
        self._stopped = False
        self._chunked = False
        self._trailing = False  # trailers will follow the body
        self._decoder = ChunkedBody() if head.length < 0 else None
        # Whether the client asked for a 100 before it sends its body (RFC 9110, section 10.1.1), and still waits.
        self.expects = self._continue = self.has_body and b"expect" in head.special and head.minor == 1

    async def run(self) -> None:
        """The request's task: the application, and what becomes of it if it fails."""
        self._begun = True
        outgoing = self.listener.outgoing
        if outgoing.steps:
            outgoing.steps -= 1
        try:
            if self._stopped:
                raise asyncio.CancelledError
            await self.listener.app(self._scope(), self.receive, self.send)
        except asyncio.CancelledError:
            if self.refused is None or self._connection.closed:
                if self.reason == OK:
                    self.reason = CLIENT_GONE
                if not self.status:
                    self.status = 499
            else:
                self._fail(self.refused.status, self.refused.reason)
        except Refused as error:  # by us, most likely; an application that knows of it has answered
            self._fail(status_of(error.reason), error.reason)
        except Exception:
            log.exception("the application failed on %r", self.target)
            self._fail(500, "proxy_internal_error")
        else:
            if not self._complete and self.reason == OK:
                if not self._connection.closed:
                    log.error("the application left %r without a whole answer", self.target)
                self._fail(500, "proxy_internal_error")
        self._connection.turn_over(self)

    def stop(self) -> None:
        """End the application where it is. A task that is cancelled before its first step would never take any, and
        nobody would hear of the end."""
        self._stopped = True
        if self._begun and self.task is not None:
            self.task.cancel()

    def refuse(self, refused: WireError) -> None:
        """No more of the body is taken: it is too large, too slow, or none. Who waits for it, or asks for it soon,
        hears so, and an application that was not entered yet finds it here: then its own answer passes its layers. One
        that answers already, or does neither, is ended."""
        self.refused = refused
        self.keep_alive = False
        if self.begun:
            self.stop()
        else:
            self.wake()
            self._connection.watch_refused(self._begun and self._waiter is None)

    def _fail(self, status: int, reason: str) -> None:
        """Answer with an error where that's still possible; else leave the answer visibly cut."""
        self.reason = reason
        self.keep_alive = False
        if not self._answered and not self._connection.closed:
            self.status = status
            self._connection.write_refusal(
                self, accept_in(self.head.lines), None if self.route is None else self.route.style
            )
            self._complete = True

    def _scope(self) -> dict[str, Any]:
        """What ASGI tells an application, on top of what is the same for the whole connection."""
        head = self.head
        path, _, query = head.target.partition(b"?")
        text = path.decode("latin-1")
        scope = self._connection.scope.copy()
        method = _METHODS.get(head.method)
        scope["method"] = method if method is not None else head.method.decode("ascii")
        if not head.minor:
            scope["http_version"] = "1.0"
        if self.client is not self._connection.peer.address:  # a trusted proxy speaks for it
            scope["client"] = (self.client, 0)
            scope["scheme"] = self.scheme
        scope["path"] = unquote(text) if "%" in text else text
        scope["raw_path"] = path
        scope["query_string"] = query
        scope["headers"] = head
        scope["state"] = self._connection.state.copy()
        scope["gateway"] = self
        return scope

    # The request body.

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to this body and return the rest. Raises WireError for bytes that can't be a body."""
        rest = b""
        self._continue = False  # it didn't wait
        if self._decoder is not None:
            pieces = self._decoder.feed(data)
            # Before any of it is kept: what is kept may be on its way to the endpoint before the refusal is heard of.
            if self.bytes_in + sum(map(len, pieces)) > self.listener.max_body:
                raise WireError(413, "body_too_large")
            for piece in pieces:
                self._keep(piece)
            if self._decoder.done:
                self._received = True
                rest = self._decoder.rest
        else:
            if len(data) > self._left:
                rest = data[self._left :]
                data = data[: self._left]
            self._keep(data)
            self._left -= len(data)
            self._received = not self._left
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return rest

    def _keep(self, piece: bytes) -> None:
        self.bytes_in += len(piece)
        if self._complete:
            self.skipped = True  # nobody will ask for it
            return
        if self._chunks is None:
            self._chunks = []
        add(self._chunks, piece)
        self._held += len(piece)

    @property
    def received(self) -> bool:
        """Whether the request is wholly read."""
        return self._received

    @property
    def choked(self) -> bool:
        """Whether the client must wait until the application has taken what is held."""
        return self._held > _BODY_HIGH

    async def receive(self) -> dict[str, Any]:
        while True:
            if self.refused is not None:
                if self._end_told:
                    await asyncio.sleep(0)  # who asks again and again must not keep the deadline from coming
                else:
                    self._end_told = True
                    self._connection.watch_refused()
                raise Refused(self.refused.reason, "the listener takes no more of the request body")
            if self._chunks:
                body = take(self._chunks)
                self._held -= len(body)
                more = not self._received or bool(self._chunks)
                self._end_told = not more
                if self._held < _BODY_HIGH:
                    self._connection.resume_reading()
                return {"type": "http.request", "body": body, "more_body": more}
            if self._received and not self._end_told:
                self._end_told = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self._connection.closed:
                return {"type": "http.disconnect"}
            if self.expecting:
                self._continue = False
                self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._connection.forgive_body()
                self._connection.watch_body()
            await self._news()

    async def prompted(self) -> None:
        """Returns once the body comes unasked: the client was told to go on, or it didn't wait."""
        while self.expecting and self.refused is None and not self._connection.closed:
            await self._news()

    async def _news(self) -> None:
        self._waiter = self.listener.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    @property
    def expecting(self) -> bool:
        """Whether the client waits for a 100 before it sends its body."""
        return self._continue and not self._answered

    @property
    def trailers(self) -> list[Pair]:
        """The trailer fields behind the request body, once it is wholly received."""
        return self._decoder.trailers if self._decoder is not None else []

    # The answer.

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        """ASGI's send. Not a coroutine: what it returns is awaited, and mostly over already."""
        connection = self._connection
        if connection.choked is not None:
            return self._send_later(connection.choked, message)
        if not connection.closed:
            kind = message["type"]
            if kind == "http.response.body":
                self._send_body(message.get("body", b""), message.get("more_body", False))
            elif kind == "http.response.start":
                self._send_start(message["status"], message.get("headers", ()), message.get("trailers", False))
            elif kind == "http.response.trailers":
                self._send_trailers(message["headers"])
            elif kind == "http.response.interim":
                self._send_interim(message["status"], message["headers"])
            elif kind == "http.response.established":
                self._send_established()
            else:
                raise RuntimeError(f"this listener doesn't know the ASGI message {kind!r}")
        done: Awaitable[None] = self.listener.done
        return done

    async def _send_later(self, choked: asyncio.Future[None], message: dict[str, Any]) -> None:
        await asyncio.shield(choked)  # it is the connection's: who gives up waiting must not cancel it
        await self.send(message)

    def _send_interim(self, status: int, headers: Any) -> None:
        """Pass on a 1xx (RFC 9110, section 15.2); an HTTP/1.0 client knows none."""
        if self._answered or not self.head.minor:
            return
        lines = headers.lines if type(headers) is ResponseHead else _lines(status, headers)[0]
        self._connection.write(lines + b"\r\n\r\n")
        if status == 100 and self._continue:
            self._continue = False
            self._connection.forgive_body()
            self._connection.watch_body()
            self.wake()

    def _send_established(self) -> None:
        """Answer CONNECT. What follows is no body, so nothing frames it (RFC 9110, section 9.3.6)."""
        self._answered = self._complete = self.begun = True
        self.status = 200
        date = self.listener.clock.date
        self._connection.write(b"HTTP/1.1 200 Connection established\r\ndate: %b\r\n\r\n" % date)

    def _send_start(self, status: int, headers: Any, trailing: bool) -> None:
        """Make the response head. It leaves with the first body message, as ASGI has it."""
        if self._answered:
            raise RuntimeError("the response was started twice")
        self._answered = self.begun = True
        self.status = status
        if not self._received:
            self._connection.watch_body()
        entry, request = self.listener, self.head
        if type(headers) is ResponseHead and headers.status == status:
            lines = headers.lines
            special = headers.special
            length = special.get(b"content-length")
            if b"via" in special:
                lines += b"\r\nvia: " + special[b"via"]
            if b"upgrade" in special and status in _TELLS_UPGRADE:
                lines += b"\r\nupgrade: " + special[b"upgrade"]
            date = special.get(b"date") or entry.clock.date
        else:
            lines, length, date = _lines(status, headers)
            date = date or entry.clock.date
        if status == 101:
            self._complete = True  # the answer; what follows is another protocol
            self._connection.write(b"%b\r\ndate: %b\r\nconnection: upgrade\r\n\r\n" % (lines, date))
            return
        if not self._received or entry.draining or self._connection.requests >= entry.max_requests:
            self.keep_alive = False
        framing = b""
        self._owed = -1
        if status == 204 or status < 200:
            self._owed = 0
        elif request.method == b"HEAD" or status == 304:
            self._owed = 0
            if length is not None:
                framing = b"\r\ncontent-length: " + length
        elif length is not None:
            self._owed = int(length)
            framing = b"\r\ncontent-length: " + length
        elif request.minor:
            self._chunked = True
            framing = b"\r\ntransfer-encoding: chunked"
            if trailing:
                self._trailing = True
                announced = announced_trailers(headers) if type(headers) is ResponseHead else b""
                if announced:
                    framing += b"\r\ntrailer: " + announced
        else:
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"\r\nconnection: close"
        elif status == 426:
            framing += b"\r\nconnection: upgrade"
        elif not request.minor:
            framing += b"\r\nconnection: keep-alive"
        self._head_out = b"%b\r\ndate: %b%b\r\n\r\n" % (lines, date, framing)

    def _send_body(self, body: bytes, more: bool) -> None:
        if not self._answered or self._complete:
            raise RuntimeError("a response body must follow its start and end once")
        write = self._connection.write if more else self._connection.write_last
        size = len(body)
        if self._chunked:
            self.bytes_out += size
            if not more and self._trailing:  # the end leaves with the trailers
                self._head_out += b"%x\r\n%b\r\n" % (size, body) if size else b""
                return
            ending = b"" if more else b"0\r\n\r\n"
            if size > _JOIN:
                self._connection.write_many((self._head_out + b"%x\r\n" % size, body, b"\r\n" + ending))
            elif size:
                write(b"%b%x\r\n%b\r\n%b" % (self._head_out, size, body, ending))
            elif self._head_out or ending:
                write(self._head_out + ending)
        else:
            if self._owed >= 0:
                if size > self._owed:
                    if self._owed or (self.head.method != b"HEAD" and self.status not in (204, 304)):
                        raise RuntimeError("the response body is longer than its content-length")
                    body, size = b"", 0
                self._owed -= size
            self.bytes_out += size
            if size > _JOIN:
                if self._head_out:
                    self._connection.write_many((self._head_out, body))
                else:
                    write(body)
            elif self._head_out or size:
                write(self._head_out + body)
        self._head_out = b""
        if not more:
            if self._owed > 0:
                raise RuntimeError("the response body is shorter than its content-length")
            self._complete = True

    def _send_trailers(self, trailers: list[Pair]) -> None:
        """End a chunked body with these fields; a body that isn't chunked has no place for any."""
        if self._trailing:
            self._trailing = False
            self._connection.write(self._head_out + trailer_section(trailers))
            self._head_out = b""
            self._complete = True

    def detach(self, end: Callable[[str], None]) -> End:
        """When another protocol is spoken from here on: give the client's transport away. The connection is over when
        the transport's new protocol passes `connection_lost` on. end: ends the tunnel, for a reason."""
        self.tunnelled = True
        return self._connection.detach(end)

    def probe(self) -> bool:
        """Write what changes nothing, so that a client that is gone says so: an interim 100 before the answer, a zero
        before the next chunk's size (RFC 9112, section 7.1: 1*HEXDIG). False where there is no such thing."""
        if not self._answered:
            if self.head.minor:
                self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return bool(self.head.minor)
        if self._chunked and not self._complete and not self._head_out:
            self._connection.write(b"0")
            return True
        return False

    @property
    def complete(self) -> bool:
        return self._complete

    @property
    def answered(self) -> bool:
        """Whether a final response head was given to us: from here on there is no other answer."""
        return self._answered

    @property
    def vouched(self) -> bool:
        """Whether the request came from a proxy that is believed."""
        return self._connection.peer.trusted

    @property
    def gone(self) -> bool:
        """Whether the client is not there any more: nobody needs an answer."""
        return self._connection.closed

    def cut(self, reason: str) -> None:
        """End the exchange in the middle of its answer, visibly: the client must not take what it has for the whole."""
        self.reason = reason
        self.keep_alive = False
        self._connection.reset()

    def wake(self) -> None:
        """The client is gone: whoever waits for its body learns so."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


_TELLS_UPGRADE = (101, 426)


def _lines(status: int, headers: Any) -> tuple[bytes, bytes | None, bytes]:
    """A status line and fields from ASGI pairs: (lines, content-length, date). Raises RuntimeError for unsendable
    ones."""
    lines = [b"HTTP/1.1 %d %b" % (status, phrase(status))]
    length = None
    date = b""
    for name, value in headers:
        name = name.lower()
        if name == b"content-length":
            length = bytes(value)
        elif name == b"date":
            date = value
        elif name not in HOP_BY_HOP or (name == b"proxy-authenticate" and status == 407):
            if not is_field(name, value):
                raise RuntimeError(f"not a header field: {name!r}: {value!r}")
            lines.append(name + b": " + value)
    return b"\r\n".join(lines), length, date
