"""One client connection speaking HTTP/1.1: cuts bytes into requests, enforces limits and deadlines, ends in good order.

Plugged into uvicorn by `Config(http=...)`, with its own class because a proxy's protocol differs from uvicorn's in
nearly every method: fields stay in blocks (see `wire/`), trailers never become headers, a refused Upgrade has its
body read as a body, every wait has a deadline, and a client that goes away cancels the work at once.

Two lifetimes, two classes, two files: this is the connection, `http1_exchange.py` one request and its answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic
from typing import Any

from gateway.exchange import Exchange
from gateway.listeners.http1_exchange import Http1Exchange, phrase
from gateway.listeners.listener import HttpEntry
from gateway.listeners.vigil import Vigil
from gateway.peek import untaken, waiting
from gateway.proxy_protocol import Header
from gateway.ranges import UNIX
from gateway.refusals import Style, accept_in, refuse
from gateway.relay import End, reset
from gateway.wire import Fields, WireError, refusal, without_userinfo

# Pipelined bytes kept while a request is being answered.
_PIPELINE_HIGH = 64 * 1024
# After an answer that ends the connection while the client still sends: how long what it sends is thrown away, so that
# the answer is not lost to a reset (RFC 9112, section 9.6).
_LINGER = 2.0
# How long layers may take for the answer to a request whose body was refused, and how long it may take until somebody
# asks for that body (an endpoint may have to be connected to first). Then it is answered past them.
_REFUSING, _UNHEARD = 10.0, 1.0
# Empty lines before a request line that are overlooked: old clients sent one after a body.
_FORGIVEN = 4

_ASGI = {"version": "3.0", "spec_version": "2.5"}
_EXTENSIONS: dict[str, dict[str, Any]] = {"http.response.trailers": {}, "http.response.interim": {}}


class Http1Connection(asyncio.Protocol):
    """A client's connection, from accept to close."""

    __slots__ = (
        "_body_due", "_buffer", "_empty_lines", "_end_tunnel", "_fields", "_half_closed", "_held", "_leaving",
        "_outgoing", "_paused", "_server_state", "_told", "_too_slow", "_transport", "_unsent", "choked", "closed",
        "deadline", "entry", "exchange", "look", "peer", "requests", "scope", "state", "vigil",
    )  # fmt: skip

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        entry: HttpEntry,
        _loop: Any = None,
        told: Header | None = None,
    ) -> None:
        """told: by a proxy in front: whose connection it is."""
        self.entry = entry
        self.state = app_state
        self.exchange: Http1Exchange | None = None
        self.closed = False
        self.choked: asyncio.Future[None] | None = None
        self.requests = 0
        self.deadline = 0.0
        self.look = 0
        self._told = told.source if told is not None else None
        self._server_state = server_state
        self._buffer = b""
        self._fields: Fields | None = None  # of the last request
        self._paused = False
        self._leaving = False  # no further request is read
        self._half_closed = False  # the client has finished sending
        self._outgoing = b""  # what leaves before this turn of the loop is over
        self._unsent = 0
        self._too_slow = False
        self._empty_lines = 0  # before the request to come
        self._body_due = 0.0  # when the body falls below the least rate, unless more of it comes
        self._end_tunnel: Callable[[str], None] | None = None  # once it is one
        self._held: bytes | None = None  # its place among those of the same client
        self.vigil: Vigil | None = None

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        entry = self.entry
        self._transport = transport
        peer = self._told or transport.get_extra_info("peername")
        local = transport.get_extra_info("sockname")
        self.peer = entry.introducer.meet(peer[0] if isinstance(peer, tuple) else UNIX)
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "extensions": _EXTENSIONS,
            "http_version": "1.1",
            "method": "",
            "scheme": entry.scheme,
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "root_path": "",
            "headers": (),
            "client": peer[:2] if isinstance(peer, tuple) else None,
            "server": local[:2] if isinstance(local, tuple) else (str(local), None),
            "state": None,
            "gateway": None,
        }
        entry.enter(self, self._server_state)
        entry.wheel.arm(self, monotonic() + entry.head_timeout)
        if not entry.admission.admits(self, self._server_state.connections):
            self._refuse(WireError(503, "connection_limit_reached"))
        elif entry.crowd is not None and not self.peer.trusted:  # who speaks for others is not one client
            self._held = entry.crowd.enter(self.peer.address)
            if self._held is None:
                self._refuse(WireError(503, "connection_limit_reached"))

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self._leaving:
                return
            if self._buffer:
                entry = self.entry
                before, whole = len(self._buffer), self._buffer + data
                # While no line ends nothing new can be said of it, but for its size. Looking at all of it for each
                # byte that comes would be work for the square of its length.
                if b"\n" not in data and (
                    len(whole) <= entry.unchecked or (before > entry.unchecked and len(whole) <= entry.max_head)
                ):
                    self._buffer = whole
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
        """The client sends nothing more. While its requests are whole it is answered all the same, if it is there."""
        self.leave()
        exchange = self.exchange
        if exchange is None or not self._transport.can_write_eof():
            return False
        if not exchange.received:
            self._half_closed = exchange.refused is not None  # it gets its answer
            return self._half_closed
        self._half_closed = True
        if not self._buffer:
            exchange.keep_alive = False
        self._watch_unread().ask()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.deadline = 0.0
        self.entry.leave(self, self._server_state, self._held)
        if self.choked is not None:
            if not self.choked.done():
                self.choked.set_result(None)
            self.choked = None
        self._buffer = b""
        exchange = self.exchange
        if exchange is not None:
            exchange.wake()
            if not exchange.complete:
                exchange.stop()

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
            entry = self.entry
            entry.wheel.arm(self, monotonic() + (entry.head_timeout if self._buffer else entry.keep_alive))
        else:
            self.forgive_body()
            self.watch_body()

    def _watch_writes(self) -> None:
        """Put the client under the deadline for taking what is written. `overdue` asks for progress."""
        self._unsent = untaken(self._transport)
        self.entry.wheel.arm(self, monotonic() + self.entry.write_idle)

    # From bytes to a request.

    def _start(self, data: bytes, begun: bool = False) -> None:
        """Begin the request at the start of data, or keep data until it is one. begun: a part of it was here before."""
        entry = self.entry
        now = monotonic()
        if data[0] in b"\r\n":
            data = self._without_empty_lines(data)
            if not data:
                return
        try:
            if len(data) > entry.unchecked:
                self._check_size(data)
            found = entry.read(data, self._fields)
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
            is_too_large = head.length > entry.max_body
            expect = head.special.get(b"expect")
            if expect is not None and not is_too_large and expect.lower() != b"100-continue":
                raise WireError(417, "expectation_unknown")
        except WireError as refused:
            self._refuse(refused, data)
            return
        if self.choked is None:  # else it still has to show that it takes the answers before this one
            self.deadline = 0.0
        self.requests += 1
        self._empty_lines = 0
        self._server_state.total_requests += 1
        exchange = self.exchange = Http1Exchange(self, head, now)
        # A name saves the making of one; what a done-callback would do for uvicorn's set of tasks, `turn_over` does.
        task = exchange.task = entry.loop.create_task(exchange.run(), name="request")
        self._server_state.tasks.add(task)
        entry.outgoing.steps += 1
        rest = data[end:]
        if is_too_large:
            exchange.refuse(WireError(413, "body_too_large"))
        elif exchange.has_body:
            self._body_due = now + entry.grace
            self._read_body(exchange, rest)
        else:
            self._buffer = rest
        if self._half_closed:
            if not exchange.received and exchange.refused is None:
                self.gone()  # what is missing will never come
            elif not self._buffer:
                exchange.keep_alive = False

    def _without_empty_lines(self, data: bytes) -> bytes:
        """Empty lines before a request are forgiven (RFC 9112, section 2.2), a few of them. b"": nothing is left."""
        while data.startswith(b"\r\n"):
            data = data[2:]
            self._empty_lines += 1
        if self._empty_lines > _FORGIVEN:
            self._refuse(WireError(400, "request_line_missing"))
            return b""
        return data

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
        if exchange.refused is not None:
            return
        if data:
            self._body_due = min(
                self._body_due + len(data) / self.entry.body_min_rate, monotonic() + 2 * self.entry.body_idle
            )
            try:
                self._buffer = exchange.feed(data)
            except WireError as refused:
                exchange.refuse(refused)
                return
            if exchange.choked:
                self._pause_reading()
        self.watch_body()

    def forgive_body(self) -> None:
        """It was not the client that stood still."""
        self._body_due = max(self._body_due, monotonic() + self.entry.grace)

    def watch_body(self) -> None:
        """Put the client under the body's deadlines while it is its turn to send."""
        exchange = self.exchange
        if exchange is None or self.choked is not None:
            return
        if exchange.refused is not None and not exchange.answered:
            self.watch_refused()
        # After an answer it may rightly stop sending (RFC 9112, section 9.5).
        elif exchange.received or self._paused or exchange.expecting or exchange.answered:
            self.deadline = 0.0
        else:
            idle = monotonic() + self.entry.body_idle
            self._too_slow = self._body_due < idle
            self.entry.wheel.arm(self, min(idle, self._body_due))

    def watch_refused(self, unheard: bool = False) -> None:
        """Put the application under the deadline for refusing what can't go on. unheard: it does not know yet."""
        if self.choked is None:  # else it is the client who is waited for
            self.entry.wheel.arm(self, monotonic() + (_UNHEARD if unheard else _REFUSING))

    # What an exchange asks of its connection.

    def write(self, data: bytes) -> None:
        if self._outgoing:
            self.leave()
        self._transport.write(data)

    def write_many(self, pieces: tuple[bytes, ...]) -> None:
        if self._outgoing:
            self.leave()
        self._transport.writelines(pieces)

    def write_last(self, data: bytes) -> None:
        """The end of an answer: it may wait for those of other connections."""
        outgoing = self.entry.outgoing
        if outgoing.steps and not self._outgoing:
            self._outgoing = data
            outgoing.hold(self)
        else:
            self.write(data)
            outgoing.flush()

    def leave(self) -> None:
        """Write what was held."""
        data, self._outgoing = self._outgoing, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _pause_reading(self) -> None:
        if not self._paused and not self.closed:
            self._paused = True
            self._transport.pause_reading()
            self._watch_unread()

    def resume_reading(self) -> None:
        if self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()
            self.forgive_body()
            self.watch_body()

    @property
    def unread(self) -> bool:
        """Whether the event loop doesn't read this connection, and so would not see its end."""
        return self._paused or self._half_closed

    def _watch_unread(self) -> Vigil:
        if self.vigil is None:
            self.vigil = Vigil(self, self._transport)
        return self.vigil

    def detach(self, end: Callable[[str], None]) -> End:
        """Give the transport away to another protocol. end: ends what becomes of it, for a reason."""
        self.leave()
        self._end_tunnel = end
        if self.entry.draining:  # it is told of that no more
            self.drain()
        self.deadline = 0.0
        rest, self._buffer = self._buffer, b""
        if not (self._paused or self._half_closed):
            self._transport.pause_reading()
        self._paused = False
        return End(self._transport, rest, self._half_closed, self.closed)

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
                if self.exchange is None and not self._leaving:
                    if self._half_closed:
                        self._close()  # what is left will never be a request
                    elif not self._buffer and self.choked is None:  # it was but an empty line
                        entry.wheel.arm(self, monotonic() + entry.keep_alive)
            else:
                if self._paused:
                    self.resume_reading()
                if self.choked is None:
                    entry.wheel.arm(self, monotonic() + entry.keep_alive)
        elif exchange.received and not exchange.head.keep_alive:
            self._close()
        else:
            self._linger()  # it may still send: the rest of its body, or further requests

    # Ends.

    def _refuse(self, refused: WireError, data: bytes = b"") -> None:
        """Answer what can't be a request, and close. It is logged and counted like any other exchange. data: what came
        of it."""
        exchange = Exchange(self.entry, self.peer.address, monotonic())
        exchange.status = refused.status
        exchange.reason = refused.reason
        words = data.partition(b"\r\n")[0].split(b" ")
        if len(words) == 3:  # for the log, and whether a body may follow
            exchange.method, exchange.target = words[0], without_userinfo(words[1])
        self.write_refusal(exchange, accept_in(data))
        self.entry.finished(exchange)
        self._linger()

    def write_refusal(self, exchange: Exchange, accept: bytes, style: Style | None = None) -> None:
        """Write the answer to an exchange that failed before, or outside of, its application. style: its route's."""
        exchange.request_id = exchange.request_id or os.urandom(8).hex()
        status, entry = exchange.status, self.entry
        made = refuse(status, exchange.reason, accept, exchange.request_id, entry.style, style)
        lines = b"".join([b"%b: %b\r\n" % pair for pair in made.fields])
        self.write(
            b"HTTP/1.1 %d %b\r\ndate: %b\r\n%bconnection: close\r\n\r\n%b"
            % (status, phrase(status), entry.clock.date, lines, b"" if exchange.method == b"HEAD" else made.body)
        )

    def _linger(self) -> None:
        """Say that we are done, and throw away what still comes, so that the answer is not lost to a reset (RFC 9112,
        section 9.6)."""
        self.leave()
        self._leaving = True
        self._buffer = b""
        self.entry.connections.discard(self)  # what is over takes no place
        self.resume_reading()
        if self._half_closed:
            self._close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._unsent = untaken(self._transport)
        self.entry.wheel.arm(self, monotonic() + (self.entry.write_idle if self._unsent else _LINGER))

    def _close(self) -> None:
        """End the connection once everything is written, or when the client takes nothing of it any more."""
        self.leave()
        self._leaving = True
        self._transport.close()
        if not self.closed:
            self._watch_writes()

    def overdue(self) -> None:
        """The deadline that was armed last has passed."""
        exchange = self.exchange
        if self.closed:
            return
        unsent = untaken(self._transport) if self.choked is not None or self._leaving else 0
        if unsent:
            if unsent <= max(0, self._unsent - self.entry.least_taken):
                self._watch_writes()  # slow, but it takes some
                return
            if exchange is not None:
                exchange.reason = "client_write_timeout"
            self.reset()
        elif self._leaving:
            self._transport.abort()
        elif exchange is None:
            if self._buffer:
                self._refuse(WireError(408, "request_head_timeout"), self._buffer)
            else:
                self._close()
        elif exchange.refused is not None:
            exchange.stop()
        elif not exchange.received:
            exchange.refuse(WireError(408, "body_too_slow" if self._too_slow else "request_body_timeout"))

    @property
    def idle(self) -> bool:
        """Whether no request is under way or half read."""
        return self.exchange is None and not self._buffer and not self._leaving

    @property
    def idle_since(self) -> float:
        """For an idle connection: when it became so, or was made. Monotonic seconds."""
        return self.deadline - (self.entry.keep_alive if self.requests else self.entry.head_timeout)

    def close_if_idle(self) -> bool:
        """End an idle keep-alive connection, unless a request is already waiting in its socket. Returns whether."""
        if self.closed or self._leaving or not self.idle or waiting(self._transport):
            return False
        self._close()
        return True

    def drain(self) -> None:
        """Requests ask `entry.draining` themselves."""
        if self.entry.closes_tunnels and self._end_tunnel is not None:
            self._end_tunnel("drain_timeout")

    def shutdown(self) -> None:
        """uvicorn's call at its own shutdown; the worker's drain has run before it."""
        if self.exchange is None:
            self._close()
        else:
            self.exchange.keep_alive = False

    def gone(self) -> None:
        """The client is not there any more, though the event loop could not see it."""
        if not self.closed:
            self.leave()
            self._transport.abort()

    def abort(self) -> None:
        """The time to drain is over. A request without an answer gets one; an answer is visibly cut."""
        exchange = self.exchange
        if self._end_tunnel is not None:
            self._end_tunnel("drain_timeout")
        elif exchange is None or exchange.answered:
            if exchange is not None:
                exchange.reason = "drain_timeout"
            self.reset()
        else:
            exchange.refused = WireError(503, "drain_timeout")
            exchange.stop()

    def reset(self) -> None:
        """End at once and visibly: by a reset, for an orderly end would make a cut body look whole where nothing but
        the end of the connection says how long it is."""
        if not self.closed:
            self.leave()
            reset(self._transport)
