"""One connection to an endpoint speaking HTTP/1.1: sends a head, streams a body, reads one response at a time.

It judges what it reads by `wire/` and nothing else: a malformed response is `BadResponse` and the connection is done
for; bytes nobody asked for make it unusable. Everything that fails is an `UpstreamError` that says what was sent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from time import monotonic
from typing import Any

from gateway.errors import BadResponse, ConnectionCut, IdleTimeout, OutOfTime, ResponseTimeout, UpstreamError
from gateway.outgoing import outgoing_of
from gateway.parts import add, take
from gateway.peek import waiting
from gateway.relay import End
from gateway.upstream.lifetime import NEVER, announced
from gateway.upstream.remote import Remote
from gateway.wheel import Wheel
from gateway.wire import ChunkedBody, Fields, Pair, ResponseHead, WireError, is_hopeless, read_response

# The head of a response: four times what we accept from clients, as origins set large cookies (nginx: 4k-8k buffers by
# default and a well-known source of its 502s; Go: 1 MiB).
_MAX_HEAD = 128 * 1024
# What a response body may hold back here before the endpoint is no longer read from: the same as towards clients.
_BODY_HIGH = 256 * 1024
# Interim heads waiting to be taken: more than these at once is no progress report but a flood.
_MOST_INTERIM = 32
# An idle connection younger than this was looked at by the event loop a moment ago; an older one is asked by a system
# call whether the endpoint has closed it, since that is when keep-alive times run out.
_FRESH = 0.5

_CLOSED = "closed the connection"


class Connection(asyncio.Protocol):
    """A pooled connection. `send`, `response`, `arrival` and `take` in that order, then back to the pool."""

    __slots__ = (
        "_awaited", "_bodyless", "_buffer", "_chunks", "_decoder", "_done", "_due", "_eof", "_error", "_fields",
        "_head", "_held", "_idle_timeout", "_interim", "_is_counted", "_left", "_loop", "_outgoing", "_paused",
        "_response_timeout", "_transport", "_unsent", "_until", "_upgrade", "_waiter", "_wheel", "_within", "announced",
        "busy", "choked", "closed", "counted", "deadline", "endpoint", "look", "made", "request_sent", "retire", "safe",
        "served", "since",
    )  # fmt: skip

    def __init__(self, endpoint: Remote, wheel: Wheel, response_timeout: float, idle_timeout: float) -> None:
        self.endpoint = endpoint
        self.closed = False
        self.busy = False  # lent out
        self.counted = False  # whether the pool knows it
        self.served = 0  # responses read to their end
        self.made = self.since = monotonic()  # since: when the last response was over
        self.announced = NEVER  # for how long the endpoint says that it keeps it when idle
        # The pool's: when an idle one is too old for any request, and for one that must not be made twice.
        self.retire = self.safe = NEVER
        self.request_sent = True
        self.choked: asyncio.Future[None] | None = None
        self.deadline = 0.0
        self.look = 0
        self._loop = asyncio.get_running_loop()  # asking each time is a system call each time (a fork check)
        self._outgoing = outgoing_of(self._loop)
        self._is_counted = False  # there as a step to come
        self._unsent = b""  # a request that leaves before this turn of the loop is over
        self._wheel = wheel
        self._response_timeout = response_timeout
        self._idle_timeout = idle_timeout
        self._within: float | None = None  # a bound of this exchange for its response head
        self._due = NEVER  # the moment at which that is over
        self._until = NEVER  # the moment at which the whole exchange must have one
        self._awaited = False  # a head is due: the deadline is for it
        self._buffer = b""
        self._chunks: list[bytes] = []
        self._held = 0
        self._paused = False
        self._waiter: asyncio.Future[ResponseHead] | None = None
        self._interim: list[ResponseHead] = []  # 1xx heads that nobody has taken yet
        self._head: ResponseHead | None = None
        self._fields: Fields | None = None  # of the last response
        self._bodyless = False
        self._upgrade = False  # whether a 101 is welcome
        self._decoder: ChunkedBody | None = None
        self._left = 0
        self._done = True
        self._eof = False  # the endpoint has said that nothing more comes, over TLS by a close_notify
        self._error: Exception | None = None

    # What the pool asks.

    def is_usable(self, now: float, repeatable: bool) -> bool:
        """Whether it may carry another request: open, and nothing has arrived while nobody asked. repeatable: whether
        this one may be made twice; for one that may not the socket is looked at in any case."""
        if self.closed or self._buffer or self._transport.is_closing():
            return False
        return (repeatable and now - self.since < _FRESH) or not waiting(self._transport)

    def is_reusable(self) -> bool:
        """Whether the exchange it carried is over on both sides, with nothing left over.

        A response that arrived but was not taken, because its client left, is left over: the next one must not get it.
        """
        head = self._head
        return (
            self._done
            and self._error is None
            and not self.closed
            and self.request_sent
            and head is not None
            and head.keep_alive
            and not self._buffer
            and not self._chunks
            and not self._interim
            and not _is_somebodys(head)
        )

    def is_ending(self) -> bool:
        """Whether the endpoint has said something, its end most likely, since it was done."""
        return self.closed or waiting(self._transport)

    def close(self) -> None:
        """End it now. It counts as closed from here on, also before the event loop has said so."""
        self.deadline = 0.0
        self._unsent = b""
        if not self.closed:
            self.closed = True
            self._transport.abort()

    # One exchange.

    def send(
        self,
        head: bytes,
        bodyless: bool,
        more: bool,
        expecting: bool = False,
        upgrade: bool = False,
        within: float | None = None,
        until: float = NEVER,
        repeatable: bool = False,
    ) -> None:
        """Begin an exchange. bodyless: the response has no body whatever its fields say (HEAD). more: a body
        follows; expecting: but not before the endpoint has asked for it. upgrade: it may switch protocols. within:
        seconds for the response head when they are fewer than the upstream's, counted from the end of the request;
        interim heads don't lengthen them. until: the moment at which there must be one, however slow the client is.
        repeatable: it may be made twice, and so may leave a moment later: by then an endpoint that has just ended the
        connection may be found out only when it is too late to tell.

        Raises ConnectionCut with `sent` false when it turns out to be closed and not one byte has left: any request
        may be made again then. Of a repeatable one `response` may say so."""
        if self.closed or self._buffer:
            raise self._unfit()
        self._head = None
        self._error = None
        self._done = False
        self._bodyless = bodyless
        self._upgrade = upgrade
        self.request_sent = not more
        self._within = within
        self._until = until
        self._awaited = not more or expecting
        if self._awaited:
            self._await_head()
        elif until != NEVER:
            self._wheel.arm(self, until)
        outgoing = self._outgoing
        if repeatable and outgoing.steps and not more:
            self._unsent = head
            outgoing.hold(self)
        elif not self._write_first(head):
            raise self._unfit()
        else:
            outgoing.flush()

    def _write_first(self, head: bytes) -> bool:
        """Begin with the request. False when it is certain that nothing of it was sent: the transport writes at once
        unless something waits before it, and it ends when the first write fails. What is not certain counts as sent."""
        transport = self._transport
        is_first = not transport.get_write_buffer_size()
        transport.write(head)
        return not (is_first and transport.is_closing())

    def leave(self) -> None:
        """Send the request that was held."""
        head, self._unsent = self._unsent, b""
        if head and (self._transport.is_closing() or not self._write_first(head)):
            self._fail(self._unfit())

    def _unfit(self) -> ConnectionCut:
        """It has ended since its last response, and nothing of this request was sent."""
        self.close()
        return ConnectionCut(self.endpoint.name, _CLOSED, reused=self.served > 0)

    def _await_head(self) -> None:
        """From here on it is the endpoint that is waited for."""
        due = monotonic() + self._response_timeout
        if self._within is not None:
            self._due = due - self._response_timeout + self._within
            due = min(due, self._due)
        self._wheel.arm(self, min(due, self._until) if self._until != NEVER else due)

    def _await_client(self) -> None:
        """From here on it is the client that is waited for: only the whole exchange has a bound."""
        self._awaited = False
        if self._until == NEVER:
            self.deadline = 0.0
        else:
            self._wheel.arm(self, self._until)

    async def send_body(self, pieces: tuple[bytes, ...], more: bool) -> None:
        """Hand on a part of the request body; returns when the endpoint keeps up. A dead connection takes it silently:
        what became of the exchange is `response()`'s to say. Between two parts no deadline runs: it is the client that
        is waited for then, and the listener's to judge."""
        if self.closed:
            return
        if self._head is None:
            self._await_client()
        self._transport.writelines(pieces)
        if self.choked is not None:
            idle = monotonic() + self._idle_timeout
            self._wheel.arm(self, idle if self._head is not None else min(idle, self._until))
            await asyncio.shield(self.choked)
            if self._head is None:
                self._await_client()
        if not more:
            self.request_sent = True
            if self._head is None:
                self._awaited = True
                self._await_head()

    def response(self) -> Awaitable[ResponseHead]:
        """The next response head, to be awaited: the final one, or an interim one (1xx), and then it is asked again.
        Raises UpstreamError there."""
        waiter = self._waiter = self._loop.create_future()
        if self._interim or self._head is not None or self._error is not None:
            self._wake()
        return waiter

    @property
    def status(self) -> int:
        """Of the response that has come; 0 for none."""
        return self._head.status if self._head is not None else 0

    @property
    def trailers(self) -> list[Pair]:
        """The trailer fields behind a chunked body that is over."""
        return self._decoder.trailers if self._decoder is not None else []

    def detach(self) -> End:
        """After a 101: give the transport away to another protocol. The endpoint's place stays taken until that one
        passes `connection_lost` on."""
        rest, self._buffer = self._buffer, b""
        self._done = True
        self.deadline = 0.0
        return End(self._transport, rest, lost=self.closed)

    @property
    def over(self) -> bool:
        """Whether the response has wholly arrived and was wholly taken."""
        return self._done and not self._chunks

    def take(self) -> bytes:
        """The next part of what has arrived of the body, b"" for nothing yet."""
        if self._is_counted:
            self._is_counted = False
            if self._outgoing.steps:
                self._outgoing.steps -= 1
        data = take(self._chunks)
        self._held -= len(data)
        if self._paused and self._held < _BODY_HIGH and not self.closed:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def arrival(self) -> None:
        """Returns when more of the body is there to `take`, or all of it. Raises UpstreamError when it breaks off."""
        while not self._chunks and not self._done:
            if self._error is not None:
                raise self._error
            self._wheel.arm(self, monotonic() + self._idle_timeout)
            self._waiter = self._loop.create_future()
            await self._waiter
        self.deadline = 0.0

    def _wake(self) -> None:
        """There is news for who waits: a head, more of a body, the end, or an error."""
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if not self._is_counted:
            self._is_counted = True
            self._outgoing.steps += 1
        if self._interim:
            waiter.set_result(self._interim.pop(0))
        elif self._head is not None:
            waiter.set_result(self._head)
        elif self._error is not None:
            waiter.set_exception(self._error)

    def give_up(self, error: Exception) -> None:
        """The exchange can't go on from our side: who waits for the response gets this error."""
        if not self._done:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self.close()
        self._wake()

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._done:  # nobody asked: whatever it is, this connection can't be trusted any more
            self._buffer = data
            if not self.busy:
                self._ended()
                self.close()
            return
        if self._unsent:  # an answer to no question; nor will there be one
            self._fail(self._unfit())
            return
        try:
            if self._head is None:
                if self._buffer:
                    data = self._more_of_head(data)
                    if not data:
                        return
                data = self._read_head(data)
                if self._head is None:
                    if self._interim:
                        self._wake()
                    return
                self.deadline = 0.0  # from here on it runs only while somebody waits for more (`arrival`)
            if not self._done:
                self._read_body(data)
        except WireError as error:
            self._fail(self._broken(BadResponse, f"sent a malformed response ({error.reason})"))
        else:
            self._wake()

    def _more_of_head(self, data: bytes) -> bytes:
        """The head so far, to be read again; b"" while no further line has ended. Looking at all of it for each byte
        that comes would be work for the square of its length."""
        before = self._buffer
        whole = before + data
        if b"\n" in data or len(before) < len(_STARTS) or len(whole) > _MAX_HEAD or is_hopeless(before[-1:] + data):
            return whole
        self._buffer = whole
        return b""

    def _read_head(self, data: bytes) -> bytes:
        """Read interim heads until the final one; what follows it is returned."""
        while True:
            found = read_response(data, self._bodyless, self._fields)
            if found is None:
                if len(data) > _MAX_HEAD or not _STARTS.startswith(data[:7]) or is_hopeless(data):
                    raise WireError(502, "head_malformed")
                self._buffer = data
                return b""
            head, end = found
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                return self._switch(head, data)
            self._interim.append(head)
            if len(self._interim) > _MOST_INTERIM:
                raise WireError(502, "too_many_interim_responses")
            if head.status == 100 and not self.request_sent:
                self._await_client()
            elif self._awaited and self.deadline:
                due = monotonic() + self._response_timeout
                self._wheel.arm(self, min(due, self._until, NEVER if self._within is None else self._due))
        self._buffer = b""
        self._head = head
        if head.fields is not self._fields:
            self._fields = head.fields
            if b"keep-alive" in head.special:
                self.announced = announced(head.special[b"keep-alive"])
        length = self._left = head.length
        self._decoder = ChunkedBody() if length == -1 else None
        if length == len(data):  # the whole body came with the head: what small responses do
            if data:
                self._keep(data)
            data = b""
        elif length:
            return data
        self._finish(data)
        return b""

    def _switch(self, head: ResponseHead, rest: bytes) -> bytes:
        """The endpoint speaks another protocol from here on: read nothing more until somebody takes over."""
        if not self._upgrade:
            raise WireError(502, "upgrade_not_asked_for")
        self._transport.pause_reading()
        self._head = head
        self._buffer = rest
        self._decoder = None
        self._left = -1  # whatever else happens here is a broken exchange
        return b""

    def _read_body(self, data: bytes) -> None:
        decoder = self._decoder
        if decoder is not None:
            for piece in decoder.feed(data):
                self._keep(piece)
            if decoder.done:
                self._finish(decoder.rest)
        elif self._left >= 0:
            size = len(data)
            if size < self._left:
                self._left -= size
                self._keep(data)
            else:
                rest = data[self._left :]
                self._keep(data if not rest else data[: self._left])
                self._left = 0
                self._finish(rest)
        else:
            self._keep(data)
        if self._held > _BODY_HIGH and not self._paused and not self._done:
            self._paused = True
            self.deadline = 0.0  # it is not the endpoint that stands still
            self._transport.pause_reading()

    def _keep(self, piece: bytes) -> None:
        if piece:
            add(self._chunks, piece)
            self._held += len(piece)

    def _finish(self, rest: bytes) -> None:
        self._done = True
        self.deadline = 0.0
        self.served += 1
        self.since = monotonic()  # the endpoint counts from here, however long the client takes for what is held here
        self._buffer = rest

    def eof_received(self) -> bool:
        self._eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.busy and not self.closed:
            self._ended()
        self.closed = True
        self.deadline = 0.0
        if not self._done and self._error is None:
            # Without it TLS was cut off, by anybody, and the body may be too (RFC 9112, section 9.8).
            if self._head is not None and self._left == -2 and self._eof and exc is None:
                self._finish(b"")
            elif self._unsent:
                self._error = self._unfit()
            else:
                self._error = self._broken(ConnectionCut, f"{_CLOSED} in the middle" if self._head else _CLOSED)
        if self.choked is not None:
            if not self.choked.done():
                self.choked.set_result(None)
            self.choked = None
        self._wake()
        if self.counted:
            self.endpoint.pool.lost(self)

    def _ended(self) -> None:
        """The endpoint has ended it while it was idle."""
        if self.counted:
            self.endpoint.pool.ended(self)

    def pause_writing(self) -> None:
        self.choked = self._loop.create_future()

    def resume_writing(self) -> None:
        if self.choked is not None:
            if not self.choked.done():
                self.choked.set_result(None)
            self.choked = None

    def overdue(self) -> None:
        if not self.busy:
            self.close()  # idle for long enough
        elif self._head is None and monotonic() >= self._until:
            self._fail(self._broken(OutOfTime, "no response before the time for the request was over"))
        elif self._head is None and self._awaited:
            seconds = self._response_timeout
            if self._within is not None and monotonic() >= self._due:
                seconds = self._within
            self._fail(self._broken(ResponseTimeout, f"no response within {round(seconds, 3):g} s"))
        else:
            self._fail(self._broken(IdleTimeout, f"nothing moved for {self._idle_timeout:g} s"))

    def _broken(self, kind: type[UpstreamError], message: str) -> UpstreamError:
        return kind(self.endpoint.name, message, sent=True, reused=self.served > 0)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "busy" if self.busy else "idle"
        return f"<Connection {self.endpoint.name} {state} {self.served} served>"


_STARTS = b"HTTP/1."


# Schemes that prove who a connection is, and not who asks (RFC 4559, section 6): whoever had it next would be taken for
# the one before. HAProxy keeps such a connection for its client; here it is closed.
_OF_CONNECTIONS = re.compile(rb"(?:\A|,)[ \t]*(?:ntlm|negotiate)\b", re.IGNORECASE)


def _is_somebodys(head: ResponseHead) -> bool:
    """Whether the endpoint may from now on take all that comes by this connection for one client's."""
    asked = head.fields.listed(b"www-authenticate")
    return asked is not None and _OF_CONNECTIONS.search(asked) is not None
