"""One client connection speaking HTTP/1.1: parses, enforces limits and deadlines, and speaks ASGI to the application.

Plugged into uvicorn by `Config(http=...)`, with its own class because a proxy's protocol differs from uvicorn's in
nearly every method: fields stay in blocks (see `wire.py`), trailers never become headers, a refused Upgrade has its
body read as a body, every wait has a deadline, and a client that goes away cancels the work at once.

Two lifetimes, two classes: `Http1Connection` is the connection, `Http1Exchange` one request and its answer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable
from time import monotonic
from typing import Any
from urllib.parse import unquote

from gateway.exchange import CLIENT_GONE, OK, Exchange
from gateway.listeners.listener import Entry
from gateway.parts import add, take
from gateway.peek import waiting
from gateway.wire import (
    HOP_BY_HOP,
    ChunkedBody,
    Fields,
    RequestHead,
    ResponseHead,
    WireError,
    is_field,
    read_request,
    refusal,
)

log = logging.getLogger("gateway.http")

# What a request body may hold back in this process before the client is no longer read from. One socket buffer's worth:
# enough to keep a fast link busy, little enough for thousands of uploads.
_BODY_HIGH = 256 * 1024
# Pipelined bytes kept while a request is being answered.
_PIPELINE_HIGH = 64 * 1024
# Below this a body is copied behind its head into one write; above, the copy costs more than a second buffer.
_JOIN = 16 * 1024
# After an answer that ends the connection while the client still sends: how long what it sends is thrown away, so that
# the answer is not lost to a reset (RFC 9112, section 9.6).
_LINGER = 2.0

# Empty lines before a request line that are overlooked: old clients sent one after a body.
_FORGIVEN = 4

_ASGI = {"version": "3.0", "spec_version": "2.5"}
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")}
_STATUS_TEXT = {
    200: b"OK", 201: b"Created", 202: b"Accepted", 204: b"No Content", 206: b"Partial Content",
    301: b"Moved Permanently", 302: b"Found", 303: b"See Other", 304: b"Not Modified", 307: b"Temporary Redirect",
    308: b"Permanent Redirect", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large", 414: b"URI Too Long",
    421: b"Misdirected Request", 425: b"Too Early", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip


class Http1Exchange(Exchange):
    """One request of a connection: the ASGI `receive` and `send`, and the framing of the answer."""

    __slots__ = (
        "_answered", "_chunked", "_chunks", "_complete", "_connection", "_continue", "_decoder", "_end_told",
        "_head_out", "_held", "_left", "_owed", "_received", "_waiter", "has_body", "head", "keep_alive", "refused",
        "task",
    )  # fmt: skip

    def __init__(self, connection: Http1Connection, head: RequestHead, now: float) -> None:
        Exchange.__init__(self, connection.entry, connection.client, now)
        self.head = head
        self.method = head.method
        self.host = head.special.get(b"host", b"")
        self.target = head.target
        self.forwarded = connection.forwarded
        self.keep_alive = head.keep_alive
        self.has_body = head.length != 0
        self.refused: WireError | None = None
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
        self._waiter: asyncio.Future[None] | None = None
        self._head_out = b""
        self._chunked = False
        self._decoder = ChunkedBody() if head.length < 0 else None
        self._continue = self.has_body and b"expect" in head.special and head.minor == 1

    async def run(self) -> None:
        """The request's task: the application, and what becomes of it if it fails."""
        try:
            await self.listener.app(self._scope(), self.receive, self.send)
        except asyncio.CancelledError:
            if self.refused is None:
                if self.ended == OK:
                    self.ended = CLIENT_GONE
                if not self.status:
                    self.status = 499
            else:
                self._fail(self.refused.status, self.refused.reason)
        except Exception:
            log.exception("the application failed on %r", self.target)
            self._fail(500, "proxy_internal_error")
        else:
            if not self._complete and self.ended == OK:
                if not self._connection.closed:
                    log.error("the application left %r without a whole answer", self.target)
                self._fail(500, "proxy_internal_error")
        self._connection.turn_over(self)

    def _fail(self, status: int, reason: str) -> None:
        """Answer with an error where that's still possible; else leave the answer visibly cut."""
        self.ended = reason
        self.keep_alive = False
        if not self._answered and not self._connection.closed:
            self.status = status
            self._connection.write_refusal(status, reason)
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
        if self._decoder is not None:
            for piece in self._decoder.feed(data):
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
        if self.bytes_in > self.listener.max_body:
            raise WireError(413, "body_too_large")
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return rest

    def _keep(self, piece: bytes) -> None:
        self.bytes_in += len(piece)
        if self._complete:
            return  # nobody will ask for it
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
            if self._continue and not self._answered:
                self._continue = False
                self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._waiter = self.listener.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

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
                self._send_start(message["status"], message.get("headers", ()))
            else:
                raise RuntimeError(f"this listener doesn't know the ASGI message {kind!r}")
        done: Awaitable[None] = self.listener.done
        return done

    async def _send_later(self, choked: asyncio.Future[None], message: dict[str, Any]) -> None:
        await asyncio.shield(choked)  # it is the connection's: who gives up waiting must not cancel it
        await self.send(message)

    def _send_start(self, status: int, headers: Any) -> None:
        """Make the response head. It leaves with the first body message, as ASGI has it."""
        if self._answered:
            raise RuntimeError("the response was started twice")
        self._answered = True
        self.status = status
        entry, request = self.listener, self.head
        if type(headers) is ResponseHead and headers.status == status:
            lines = headers.lines
            special = headers.special
            length = special.get(b"content-length")
            if b"via" in special:
                lines += b"\r\nvia: " + special[b"via"]
            date = special.get(b"date") or entry.clock.date
        else:
            lines, length, date = _lines(status, headers)
            date = date or entry.clock.date
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
        else:
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"\r\nconnection: close"
        elif not request.minor:
            framing += b"\r\nconnection: keep-alive"
        self._head_out = b"%b\r\ndate: %b%b\r\n\r\n" % (lines, date, framing)

    def _send_body(self, body: bytes, more: bool) -> None:
        if not self._answered or self._complete:
            raise RuntimeError("a response body must follow its start and end once")
        write = self._connection.write
        size = len(body)
        if self._chunked:
            self.bytes_out += size
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

    @property
    def complete(self) -> bool:
        return self._complete

    @property
    def answered(self) -> bool:
        """Whether a final response head was given to us: from here on there is no other answer."""
        return self._answered

    def cut(self, reason: str) -> None:
        """End the exchange in the middle of its answer, visibly: the client must not take what it has for the whole."""
        self.ended = reason
        self.keep_alive = False
        self._connection.reset()

    def wake(self) -> None:
        """The client is gone: whoever waits for its body learns so."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _lines(status: int, headers: Any) -> tuple[bytes, bytes | None, bytes]:
    """A status line and fields from ASGI pairs: (lines, content-length, date). Raises RuntimeError for unsendable
    ones."""
    lines = [b"HTTP/1.1 %d %b" % (status, _STATUS_TEXT.get(status, b""))]
    length = None
    date = b""
    for name, value in headers:
        name = name.lower()
        if name == b"content-length":
            length = bytes(value)
        elif name == b"date":
            date = value
        elif name not in HOP_BY_HOP:
            if not is_field(name, value):
                raise RuntimeError(f"not a header field: {name!r}: {value!r}")
            lines.append(name + b": " + value)
    return b"\r\n".join(lines), length, date


class Http1Connection(asyncio.Protocol):
    """A client's connection, from accept to close."""

    __slots__ = (
        "_buffer", "_fields", "_leaving", "_paused", "_server_state", "_transport", "_unsent", "choked", "client",
        "closed", "deadline", "entry", "exchange", "forwarded", "local", "look", "peer", "requests", "scope", "state",
    )  # fmt: skip

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], entry: Entry, _loop: Any = None
    ) -> None:
        self.entry = entry
        self.state = app_state
        self.exchange: Http1Exchange | None = None
        self.closed = False
        self.choked: asyncio.Future[None] | None = None
        self.requests = 0
        self.deadline = 0.0
        self.look = 0
        self._server_state = server_state
        self._buffer = b""
        self._fields: Fields | None = None  # of the last request
        self._paused = False
        self._leaving = False  # no further request is read
        self._unsent = 0

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        entry = self.entry
        self._transport = transport
        peer = transport.get_extra_info("peername")
        local = transport.get_extra_info("sockname")
        self.peer = peer[:2] if isinstance(peer, tuple) else None
        self.local = local[:2] if isinstance(local, tuple) else (str(local), None)
        self.client = _plain(self.peer[0]) if self.peer else "unix"
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "method": "",
            "scheme": entry.scheme,
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "root_path": "",
            "headers": (),
            "client": self.peer,
            "server": self.local,
            "state": None,
            "gateway": None,
        }
        self._server_state.connections.add(self)
        entry.connections.add(self)
        cells = entry.cells
        cells[entry.accepted_cell] += 1
        cells[entry.open_cell] += 1
        # What every request of this connection tells the endpoint about its client.
        self.forwarded = b"\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: " % (
            self.client.encode(),
            entry.scheme.encode(),
        )
        if len(entry.connections) > entry.max_connections:
            self._refuse(WireError(503, "connection_limit_reached"))
            return
        entry.wheel.arm(self, monotonic() + entry.head_timeout)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self._leaving:
                return
            if self._buffer:
                whole = self._buffer + data
                if b"\n" not in data and len(whole) <= self.entry.unchecked:
                    self._buffer = whole  # no line has ended: nothing new can be said of it
                    return
                self._buffer = b""
                self._start(whole, begun=True)
            else:
                self._start(data)
        elif not exchange.received:
            self._read_body(exchange, data)
        else:
            self._buffer += data
            if len(self._buffer) > _PIPELINE_HIGH:
                self._pause_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        entry = self.entry
        self.closed = True
        self.deadline = 0.0
        self._server_state.connections.discard(self)
        entry.connections.discard(self)
        entry.cells[entry.open_cell] -= 1
        if self.choked is not None:
            if not self.choked.done():
                self.choked.set_result(None)
            self.choked = None
        self._buffer = b""
        exchange = self.exchange
        if exchange is not None:
            exchange.wake()
            if exchange.task is not None and not exchange.complete:
                exchange.task.cancel()

    def pause_writing(self) -> None:
        self.choked = self.entry.loop.create_future()
        self._watch_writes()

    def resume_writing(self) -> None:
        if self.choked is not None:
            if not self.choked.done():
                self.choked.set_result(None)
            self.choked = None
        if self._leaving:
            return
        if self.exchange is None:
            self.entry.wheel.arm(self, monotonic() + self.entry.keep_alive)
        else:
            self._watch_body()

    def _watch_writes(self) -> None:
        """Put the client under the deadline for taking something of what is written. `overdue` asks for progress."""
        self._unsent = self._transport.get_write_buffer_size()
        self.entry.wheel.arm(self, monotonic() + self.entry.write_idle)

    # From bytes to a request.

    def _start(self, data: bytes, begun: bool = False) -> None:
        """Begin the request at the start of data, or keep data until it is one. begun: a part of it was here before."""
        entry = self.entry
        now = monotonic()
        if data[0] in b"\r\n":
            data = _without_empty_lines(data)
            if data.startswith(b"\r\n"):
                self._refuse(WireError(400, "request_line_missing"))
            if not data or self._leaving:
                return
        try:
            if len(data) > entry.unchecked:
                self._check_size(data)
            found = read_request(data, self._fields)
            if found is None:
                refused = refusal(data, entry.max_line, entry.max_head, entry.max_fields)
                if refused is not None:
                    raise refused
                if self.requests and not begun:  # the first request's deadline runs since the connection was made
                    entry.wheel.arm(self, now + entry.head_timeout)
                self._buffer = data
                return
            head, end = found
            fields = self._fields = head.fields
            if fields.count > entry.max_fields:
                raise WireError(431, "too_many_header_fields")
            if head.length > entry.max_body:
                raise WireError(413, "body_too_large")
            expect = head.special.get(b"expect")
            if expect is not None and expect.lower() != b"100-continue":
                raise WireError(417, "expectation_unknown")
        except WireError as refused:
            self._refuse(refused)
            return
        self.deadline = 0.0
        self.requests += 1
        self._server_state.total_requests += 1
        exchange = self.exchange = Http1Exchange(self, head, now)
        # A name saves the making of one; what a done-callback would do for uvicorn's set of tasks, `turn_over` does.
        task = exchange.task = entry.loop.create_task(exchange.run(), name="request")
        self._server_state.tasks.add(task)
        rest = data[end:]
        if exchange.has_body:
            self._read_body(exchange, rest)
        elif rest:
            self._buffer = rest

    def _check_size(self, data: bytes) -> None:
        """Judge a head by its size, before anything else: what is too large is not worth reading."""
        line, end = data.find(b"\r\n"), data.find(b"\r\n\r\n")
        if line > self.entry.max_line:
            raise WireError(414, "request_line_too_long")
        if end > self.entry.max_head:
            raise WireError(431, "header_fields_too_large")
        if end > 0 and data.count(b"\r\n", 0, end) > self.entry.max_fields:
            raise WireError(431, "too_many_header_fields")

    def _read_body(self, exchange: Http1Exchange, data: bytes) -> None:
        if data:
            try:
                self._buffer = exchange.feed(data)
            except WireError as refused:
                exchange.refused = refused
                exchange.keep_alive = False
                if exchange.task is not None:
                    exchange.task.cancel()
                return
            if exchange.choked:
                self._pause_reading()
        self._watch_body()

    def _watch_body(self) -> None:
        """Put the client under the body's deadline while it is its turn to send."""
        exchange = self.exchange
        if exchange is None or self.choked is not None:
            return
        if exchange.received or self._paused:
            self.deadline = 0.0
        else:
            self.entry.wheel.arm(self, monotonic() + self.entry.body_idle)

    # What an exchange asks of its connection.

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def write_many(self, pieces: tuple[bytes, ...]) -> None:
        self._transport.writelines(pieces)

    def _pause_reading(self) -> None:
        if not self._paused and not self.closed:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()
            self._watch_body()

    def turn_over(self, exchange: Http1Exchange) -> None:
        """The exchange is over: tell its story, then go on to the next request or to the end."""
        entry = self.entry
        self.exchange = None
        self._server_state.tasks.discard(exchange.task)
        entry.finished(exchange)
        if self.closed:
            return
        if not exchange.complete:
            self.reset()
        elif exchange.keep_alive and exchange.received:
            if self._buffer:
                data, self._buffer = self._buffer, b""
                self.resume_reading()
                self._start(data)
            else:
                if self._paused:
                    self.resume_reading()
                if self.choked is None:
                    entry.wheel.arm(self, monotonic() + entry.keep_alive)
        elif exchange.received:
            self._close()
        else:
            self._linger()

    # Ends.

    def _refuse(self, refused: WireError) -> None:
        """Answer what can't be a request, and close. It is logged and counted like any other exchange."""
        exchange = Exchange(self.entry, self.client, monotonic())
        exchange.status = refused.status
        exchange.ended = refused.reason
        self.write_refusal(refused.status, refused.reason)
        self.entry.finished(exchange)
        self._linger()

    def write_refusal(self, status: int, reason: str) -> None:
        phrase = _STATUS_TEXT.get(status, b"Refused")
        text = b"%d %b: %b\n" % (status, phrase, reason.encode())
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        self._transport.write(
            b"HTTP/1.1 %d %b\r\ndate: %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
            b"proxy-status: gateway; error=http_request_error; details=%b\r\n%bconnection: close\r\n\r\n%b"
            % (status, phrase, self.entry.clock.date, len(text), reason.encode(), retry, text)
        )

    def _linger(self) -> None:
        """Say that we are done, and throw away what still comes, so that the answer is not lost to a reset."""
        self._leaving = True
        self._buffer = b""
        self.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.entry.wheel.arm(self, monotonic() + _LINGER)

    def _close(self) -> None:
        """End the connection once everything is written, or when the client takes nothing of it any more."""
        self._leaving = True
        self._transport.close()
        if not self.closed:
            self._watch_writes()

    def overdue(self) -> None:
        """The deadline that was armed last has passed."""
        exchange = self.exchange
        if self.closed:
            return
        unsent = self._transport.get_write_buffer_size()
        if unsent and (self.choked is not None or self._leaving):
            if unsent < self._unsent:
                self._watch_writes()  # slow, but it takes some
                return
            if exchange is not None:
                exchange.ended = "client_write_timeout"
            self.reset()
        elif self._leaving:
            self._transport.abort()
        elif exchange is None:
            if self._buffer:
                self._refuse(WireError(408, "request_head_timeout"))
            else:
                self._close()
        elif not exchange.received and exchange.task is not None:
            exchange.refused = WireError(408, "request_body_timeout")
            exchange.task.cancel()

    @property
    def idle(self) -> bool:
        """Whether no request is under way or half read."""
        return self.exchange is None and not self._buffer

    def close_if_idle(self) -> None:
        """End an idle keep-alive connection, unless a request is already waiting in its socket."""
        if not (self.closed or self._leaving) and self.idle and not waiting(self._transport):
            self._close()

    def shutdown(self) -> None:
        """uvicorn's call at its own shutdown; the worker's drain has run before it."""
        if self.exchange is None:
            self._close()
        else:
            self.exchange.keep_alive = False

    def abort(self) -> None:
        if not self.closed:
            self._transport.abort()

    def reset(self) -> None:
        """End at once and visibly: by a reset, for an orderly end would make a cut body look whole where nothing but
        the end of the connection says how long it is."""
        if self.closed:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def _without_empty_lines(data: bytes) -> bytes:
    """Empty lines before a request are forgiven (RFC 9112, section 2.2), a few of them."""
    for _ in range(_FORGIVEN):
        if not data.startswith(b"\r\n"):
            break
        data = data[2:]
    return data


def _plain(address: str) -> str:
    """An IPv4 client of a dual-stack socket by its IPv4 address."""
    return address[7:] if address.startswith("::ffff:") else address
