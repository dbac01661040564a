"""Names for a request: an id that people quote, and its place in a trace (W3C Trace Context)."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable
from typing import Any, Literal

from gateway.config.fields import Flag
from gateway.config.quantities import PercentOrZero
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.written import OwnName
from gateway.wire import RequestHead, amended

# Level 1, section 3.2: version, trace-id, parent-id, flags, in lower case. A later version may say more behind them.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?"
)
_LONGEST_TRACEPARENT = 512
# What others may call a request; long enough not to be guessed, short enough for a log.
_ID = re.compile(rb"[A-Za-z0-9_-]{8,128}")
_TRACE_FIELDS = frozenset((b"traceparent", b"tracestate"))
# Requests for which randomness is fetched at once: a system call for each would be a tenth of what this layer costs.
_BATCH = 64


class Options(Base):
    kind: Literal["request_id"] = "request_id"
    header: OwnName = "x-request-id"
    """The field that carries the id."""
    response: Flag = True
    """Whether the client is told the id in the same field."""
    trace: Literal["continue", "restart", "off"] = "continue"
    """What becomes of a client's traceparent: "continue" takes a well-formed one up, "restart" begins a trace at this
    gateway, "off" leaves both fields alone."""
    sampled: PercentOrZero = 100.0
    """Of a hundred traces that begin here, so many ask to be recorded (the sampled flag)."""


class RequestId(Middleware):
    """Gives each request an id and a place in a trace, forwards both, and puts both into the access log. An id that the
    client sent is taken only from `trusted_proxies` of the listener, and only when it has 8 to 128 letters, digits,
    "_" and "-"; else a new one of 32 hexadecimal digits is made. A malformed traceparent, or a second
    one, begins a new trace, and its tracestate is dropped.

    Order: outermost, so that whatever is refused further in can be found by its id."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "request_id" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._name = options.header.lower().encode()
        self._line = b"\r\n" + self._name + b": "
        self._names = frozenset((self._name,))
        # Dropped together, and from every request: also from trailers, which some servers put among the fields.
        self._all = self._names | _TRACE_FIELDS
        self._tells = options.response
        self._traces = options.trace != "off"
        self._continues = options.trace == "continue"
        self._sampled = int(options.sampled / 100 * (1 << 32))
        self._samples_all = options.sampled == 100
        self._random = b""
        self._next = 0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange, head = scope["gateway"], scope["headers"]
        random = self._digits()
        known = head.value(self._name) if exchange.vouched else None
        if known is None or _ID.fullmatch(known) is None:
            known = random[:32]
        exchange.request_id = known.decode()
        line = self._line + known
        if self._traces:
            traced = self._traced(exchange, head, random)
            head.drop(self._all)
            head.add(line + traced)
        else:
            head.drop(self._names)
            head.add(line)
        if not self._tells:
            return self._app(scope, receive, send)
        names = self._names

        def tell(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = amended(message, names, line)
            return send(message)

        return self._app(scope, receive, tell)

    def _traced(self, exchange: Any, head: RequestHead, random: bytes) -> bytes:
        """The lines of this hop in the trace, which take the place of those that came."""
        given = head.value(b"traceparent")
        if given is not None and self._continues and len(given) <= _LONGEST_TRACEPARENT:
            found = _TRACEPARENT.fullmatch(given)
            is_good = found is not None and (found[5] is None or found[1] != b"00")
            if found is not None and is_good and not head.repeats(b"traceparent"):  # of two, others went by either
                exchange.trace = found[2].decode()
                state = head.listed(b"tracestate")
                state = b"\r\ntracestate: " + state if state is not None else b""
                # We know the flags of version 00; of a later one only that bit is handed on that means the same there.
                flags = found[4] if found[1] == b"00" else b"%02x" % (int(found[4], 16) & 1)
                return b"\r\ntraceparent: 00-%b-%b-%b%b" % (found[2], random[64:], flags, state)
        # Without a parent there is nobody whose state it could be.
        trace = random[32:64]
        exchange.trace = trace.decode()
        sampled = self._samples_all or int(trace[:8], 16) < self._sampled
        return b"\r\ntraceparent: 00-%b-%b-%b" % (trace, random[64:], b"01" if sampled else b"00")

    def _digits(self) -> bytes:
        """80 random hexadecimal digits: for an id, a trace and a hop in it."""
        at = self._next
        if at == len(self._random):
            # Fetched in the process that uses it: two workers with the same would give out the same ids.
            self._random = os.urandom(40 * _BATCH).hex().encode()
            at = 0
        self._next = at + 80
        return self._random[at : at + 80]
