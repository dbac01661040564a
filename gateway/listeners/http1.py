"""One client connection speaking HTTP/1.1: cuts bytes into requests, enforces limits and deadlines, ends in good order.

Plugged into uvicorn by `Config(http=...)`, with its own class because a proxy's protocol differs from uvicorn's in
nearly every method: fields stay in blocks (see `wire.py`), trailers never become headers, a refused Upgrade has its
body read as a body, every wait has a deadline, and a client that goes away cancels the work at once.

Two lifetimes, two classes, two files: this is the connection, `http1_exchange.py` one request and its answer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from time import monotonic
from typing import Any

from gateway.exchange import Exchange
from gateway.listeners.http1_exchange import Http1Exchange, phrase
from gateway.listeners.listener import Entry
from gateway.peek import waiting
from gateway.wire import Fields, WireError, read_request, refusal

# Pipelined bytes kept while a request is being answered.
_PIPELINE_HIGH = 64 * 1024
# After an answer that ends the connection while the client still sends: how long what it sends is thrown away, so that
# the answer is not lost to a reset (RFC 9112, section 9.6).
_LINGER = 2.0
# Empty lines before a request line that are overlooked: old clients sent one after a body.
_FORGIVEN = 4

_ASGI = {"version": "3.0", "spec_version": "2.5"}


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
        text = b"%d %b: %b\n" % (status, phrase(status), reason.encode())
        retry = b"retry-after: 1\r\n" if status == 503 else b""
        self._transport.write(
            b"HTTP/1.1 %d %b\r\ndate: %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
            b"proxy-status: gateway; error=http_request_error; details=%b\r\n%bconnection: close\r\n\r\n%b"
            % (status, phrase(status), self.entry.clock.date, len(text), reason.encode(), retry, text)
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
