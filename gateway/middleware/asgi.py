"""Any ASGI middleware class as a layer: a translator on both sides of code that was not written for a gateway.

Towards it a request is a plain ASGI scope and a response a list of pairs. What it changes is checked and put back into
the heads that everything else here works on; what ASGI has no word for (interim responses, a switch of protocols,
trailers behind a body) goes round it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, Literal
from urllib.parse import quote, unquote
from zlib import crc32

from gateway.answer import answer
from gateway.config.fields import PluginOptions
from gateway.errors import Refused, StartError
from gateway.metrics.plan import LAYER_FAILED
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.plugged import Use, as_bytes, built, found, is_from_outside
from gateway.plugins import retell
from gateway.wire import HOP_BY_HOP, Pair, RequestHead, is_authority, is_field, is_method, is_target

log = logging.getLogger("gateway.middleware")

# Where a scope carries the request's `_Passage` from the translator's outer side to its inner one.
_KEY = "gateway.passage"
_FRAMING = (b"content-length", b"transfer-encoding")
# What may stand in a path unquoted (RFC 3986, section 3.3).
_SAFE = "/:@!$&'()*+,;=~"


class Options(Base):
    kind: Literal["asgi"] = "asgi"
    use: Use
    """The class, as "module:Name"; the module is looked for in `process.python_path`, then among what is installed. It
    is called with the application it wraps and the options."""
    options: PluginOptions = {}
    """What else its constructor gets, by keyword. A table { env = "NAME", default = "TEXT" } or { file = "PATH" } in it
    stands for a secret: the text of that variable or file. No secret is shown anywhere, nor a text whose name ends in
    secret, password, token, key or the like."""


class Asgi(Middleware):
    """Runs any ASGI middleware class, unchanged: from a file of your own, or from an installed package such as
    Starlette. It may change the request and the response, answer itself, or wrap bodies; trailers and interim responses
    go round it, and so does what follows a switch of protocols. Lifespan is not passed to it. What it does against the
    rules of ASGI (a second answer, none at all, a second call of the application) is answered 500
    (`middleware_failed`). Nothing is held back here; what the class holds back is its own.

    Order: where the class wants to be; one that reads bodies belongs inside `compress`.
    """

    OPTIONS = Options
    EXAMPLE = '{ kind = "asgi", use = "my_middleware:Timing", options = { header = "x-took" } }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self.use = use = options.use
        self.inner = app
        make = found("asgi", use, place.plugin)
        self._foreign: Any = None
        if make is None:
            return
        if not callable(make):
            raise StartError(f'asgi "{use}": expected a class, got {type(make).__name__}')
        self._foreign = built("asgi", use, lambda: make(_enter, **options.options))
        if not callable(self._foreign):
            raise StartError(f'asgi "{use}": what it makes can\'t be called with scope, receive and send')

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self._foreign is None:
            return self._app(scope, receive, send)
        return _Passage(self, scope, receive, send).run(self._foreign)

    def failed(self, exchange: Any, error: BaseException) -> None:
        """Count a mistake of the foreign code, and write it down. Which of several layers of this kind has made it, is
        known only here."""
        place = self._place
        place.cells[place.at + LAYER_FAILED] += 1
        route = exchange.route.name if exchange.route is not None else "-"
        log.error("route %s, layer %s: it failed on %r", route, place.layer, exchange.target, exc_info=error)


async def _enter(scope: Scope, receive: Receive, send: Send) -> None:
    """The application that foreign code wraps."""
    passage = scope.get(_KEY)
    if type(passage) is not _Passage or scope.get("type") != "http":
        raise RuntimeError("it called the application with a scope that is not the request's")
    await passage.enter(scope, receive, send)


class _Passage:
    """One request on its way through foreign code, and its response on the way back.

    Most of its facts keep the value that they have here: to set each of them for each request would cost a quarter of
    what this layer costs.
    """

    _listening: asyncio.Lock | None = None
    _failure: Exception | None = None  # what went wrong further in, or further out
    _called = False  # the application was
    _left = False  # the foreign code has returned
    # The response as it came from further in: its head, and the list that the foreign code got for it.
    _status = 0
    _untouched: Any = None
    _fields: list[Pair] | None = None
    _ended = False
    _switched = False  # to another protocol
    _is_broken = False  # it made a mistake, which was answered
    # The response as it goes out.
    _started = False
    _over = False
    # Trailers go with a body that the foreign code has left alone.
    _trailing = False
    _trailers: list[Pair] | None = None
    _own_trailers = False
    _crc_in = _crc_out = 0

    def __init__(self, layer: Asgi, scope: Scope, receive: Receive, send: Send) -> None:
        self._layer = layer
        self._scope = scope
        self._receive = receive
        self._send = self._foreign_send = send
        self._exchange = scope["gateway"]
        self._head: RequestHead = scope["headers"]
        self._before = self._head.pairs()
        self._given = self._before.copy()  # the foreign code's own, which it may change
        self._given_receive = self.receive
        self._given_send = self.send

    async def run(self, foreign: Any) -> None:
        scope, head = self._scope, self._head
        plain = {**scope, "headers": self._given, _KEY: self}
        plain["extensions"] = {**(scope.get("extensions") or {})}
        raw, query = scope["raw_path"], scope["query_string"]
        if head.target != (raw + b"?" + query if query else raw):
            retell(plain, head.target)  # a layer further out has changed the head
            query = plain["query_string"]
        self._asked = (plain["method"], plain["path"], plain["raw_path"], query)
        task = asyncio.current_task()
        try:
            await foreign(plain, self._given_receive, self._given_send)
            self._left = True
            # What broke off further in has been cut already.
            broke_off = self._untouched is not None and not self._ended
            if not (self._over or self._switched or self._exchange.gone or broke_off):
                what = "before its answer was whole" if self._started else "without an answer"
                raise RuntimeError(f"{self._layer.use} returned {what}")
        except BaseException as error:
            if is_from_outside(error, task):
                raise
            self._left = True
            if self._switched or self._is_broken:
                log.debug("layer %s: when all was said: %r", self._layer.use, error)
                return
            if not self._started:  # whatever it got from further in, nobody has seen it
                self._exchange.begun = False
            # What it was told by somebody else says more than what it made of that.
            if self._failure is not None:
                raise self._failure from None
            self._layer.failed(self._exchange, error)
            raise Refused("middleware_failed", f"{self._layer.use} failed") from None
        if self._trailing:
            await self._end()

    # What the foreign code calls, from the outside.

    async def receive(self) -> Message:
        """Two may wait at once, as some do to hear of a client that leaves; each message goes to one of them."""
        if self._listening is None:
            self._listening = asyncio.Lock()
        async with self._listening:
            try:
                return await self._receive()
            except Refused as error:
                self._failure = error
                raise

    @property
    def is_over(self) -> bool:
        """Whether the body of the request matters to nobody any more."""
        return self._over or self._switched or bool(self._exchange.gone)

    def failed_to_receive(self, error: BaseException) -> Message:
        """What is told further in when the foreign code's own receive raises this: once that the client is gone, if
        that is so. Raises what is at the bottom of it."""
        if self._exchange.gone:
            return {"type": "http.disconnect"}
        if self._failure is None:
            self._layer.failed(self._exchange, error)
            self._failure = Refused("middleware_failed", f"{self._layer.use} failed on the body of the request")
        raise self._failure from None

    async def send(self, message: Message) -> None:
        if self._left:
            raise RuntimeError("it sent something after it had returned")
        kind = message["type"]
        if kind == "http.response.body":
            await self._send_body(message)
        elif kind == "http.response.start":
            if self._started:
                raise RuntimeError("it began a second answer")
            self._started = True
            await self._passed_on(self._begun(message))
        elif kind == "http.response.trailers" and self._own_trailers:
            ours, self._trailers = self._trailers or [], []
            fields = ours + _checked(message.get("headers", ()))
            self._trailing = self._own_trailers = message.get("more_trailers", False)
            await self._passed_on({**message, "headers": fields})
        elif kind != "http.response.trailers":
            await self._passed_on(message)

    def _begun(self, message: Message) -> Message:
        """The start of the answer, as everything else here wants it."""
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ValueError(f"not the status of an answer: {status!r}")
        headers = message.get("headers", ())
        fields: Any
        if self._untouched is not None and status == self._status and headers == self._fields:
            fields = self._untouched
        else:
            fields = _checked(headers)
            lengths = {value for name, value in fields if name == b"content-length"}
            if len(lengths) > 1 or not all(value.isdigit() for value in lengths):
                raise ValueError(f"not a content-length: {b', '.join(sorted(lengths))!r}")
        self._own_trailers = bool(message.get("trailers"))
        self._trailing = self._trailing or self._own_trailers
        self._exchange.begun = True
        return {"type": "http.response.start", "status": status, "headers": fields, "trailers": self._trailing}

    async def _send_body(self, message: Message) -> None:
        if not self._started or self._over:
            raise RuntimeError("it sent a body " + ("after the end of its answer" if self._started else "first"))
        body, more = message.get("body", b""), message.get("more_body", False)
        if type(body) is not bytes:
            body = as_bytes(body)
        self._over = not more
        if self._trailing:
            self._crc_out = crc32(body, self._crc_out)
        await self._passed_on({"type": "http.response.body", "body": body, "more_body": more})
        if self._over and self._trailing and self._trailers is not None and not self._own_trailers:
            await self._end()

    async def _end(self) -> None:
        """Send the trailers that were promised; none behind a body that is not the one they belong to."""
        self._trailing = False
        fields = self._trailers if self._trailers and self._crc_in == self._crc_out else []
        await self._send({"type": "http.response.trailers", "headers": fields, "more_trailers": False})

    async def _passed_on(self, message: Message) -> None:
        try:
            await self._send(message)
        except Exception as error:
            self._failure = error
            raise

    # What the foreign code calls, on the inside.

    async def enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._called:
            raise RuntimeError("it called the application twice for one request")
        self._called = True
        is_wrapped = receive is not self._given_receive
        inside = self._taken_back(scope, is_wrapped)
        self._foreign_send = send
        if is_wrapped:
            receive = _Wrapped(self, receive, self._head)
        if send is not self._given_send:
            send = self.from_inside
        try:
            await self._layer.inner(inside, receive, send if send is not self._given_send else self.straight)
        except Exception as error:
            self._failure = error
            raise

    def straight(self, message: Message) -> Awaitable[None]:
        """ASGI's send for a response in which the foreign code takes no part."""
        kind = message["type"]
        if kind == "http.response.start":
            if self._started:
                raise RuntimeError("the application answered what it had answered itself")
            self._started = True
            self._switched = message["status"] == 101
            self._untouched = message["headers"]
        elif kind == "http.response.body":
            self._over = self._ended = not message.get("more_body", False)
        return self._send(message)

    async def from_inside(self, message: Message) -> None:
        """ASGI's send for a response that goes through the foreign code."""
        kind = message["type"]
        if kind == "http.response.body":
            if self._trailing:
                self._crc_in = crc32(message.get("body", b""), self._crc_in)
            self._ended = not message.get("more_body", False)
            await self._handed(message)
        elif kind == "http.response.start":
            if message["status"] == 101:
                self._switched = self._started = True
                await self._send(message)
                return
            if self._untouched is not None:
                raise RuntimeError("the application began a second answer")
            self._status = message["status"]
            self._untouched = message["headers"]
            self._fields = list(self._untouched)
            given = self._fields.copy()
            self._trailing = bool(message.get("trailers"))
            # It may be held back, and yet there must not be another one.
            self._exchange.begun = True
            await self._handed({"type": "http.response.start", "status": self._status, "headers": given})
        elif kind == "http.response.trailers":
            self._trailers = [*(self._trailers or ()), *message["headers"]]
            if self._over and self._trailing and not self._own_trailers and not message.get("more_trailers", False):
                await self._end()
        else:
            await self._send(message)

    async def _handed(self, message: Message) -> None:
        """Give the foreign code a part of the response. A mistake of its own must not look like one of whoever sends
        the response: it is told here, and answered here if nothing has gone out."""
        task = asyncio.current_task()
        try:
            await self._foreign_send(message)
        except BaseException as error:
            if error is self._failure or is_from_outside(error, task):
                raise
            self._layer.failed(self._exchange, error)
            self._is_broken = True
            if not self._started:
                self._started = self._over = True
                await answer(self._exchange, self._send, "middleware_failed")
            raise Refused("middleware_failed", "it failed on the response") from None

    # What the foreign code has made of the request.

    def _taken_back(self, scope: Scope, is_wrapped: bool) -> Scope:
        """The scope for what is further in, with the request's own head changed in place. is_wrapped: whether the body
        is another one. Raises ValueError for what can't be a request."""
        head = self._head
        old_method, old_path, old_raw, old_query = self._asked
        inside = {**scope, "headers": head, "gateway": self._exchange}
        headers = scope.get("headers", ())
        if headers is not self._given or headers != self._before:
            self._change(_checked(headers), is_wrapped)
        method = scope.get("method")
        if method != old_method:
            self._set_method(method)
        query = scope.get("query_string", b"")
        path, raw = scope.get("path"), scope.get("raw_path")
        if path != old_path or raw != old_raw or query != old_query:
            if path != old_path and (raw == old_raw or not raw or unquote(raw) != path):
                raw = quote(str(path), safe=_SAFE).encode()
            target = (raw or b"") + (b"?" + query if query else b"")
            if not is_target(target) or not (target.startswith(b"/") or target == b"*"):
                raise ValueError(f"not a request target: {target!r}")
            head.retarget(target)
            retell(inside, target)
        return inside

    def _set_method(self, method: object) -> None:
        made = method.encode("latin-1", "replace") if isinstance(method, str) else b""
        old = self._head.method
        if not is_method(made) or made == b"CONNECT":
            raise ValueError(f"not a method: {method!r}")
        if (made == b"HEAD") != (old == b"HEAD"):
            raise ValueError("HEAD can't become another method, nor another one HEAD: its answer has no body")
        self._head.method = made
        self._head.retarget(self._head.target)

    def _change(self, fields: list[Pair], is_wrapped: bool) -> None:
        """Put these fields into the head. Framing is ours: what they say of it only counts for another body, and that
        goes on in chunks."""
        head = self._head
        before, after = _by_name(self._before), _by_name(fields)
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        if is_wrapped and not changed.isdisjoint(_FRAMING):
            head.reframe()
        changed -= HOP_BY_HOP
        changed -= {b"content-length", b"expect"}
        if b"host" in changed:
            changed.discard(b"host")
            hosts = after.get(b"host", [])
            if len(hosts) != 1 or not is_authority(hosts[0]):
                raise ValueError(f"not a host: {b', '.join(hosts)!r}")
            head.special = {**head.special, b"host": hosts[0]}
        if changed:
            head.drop(frozenset(changed))
            lines = [b"\r\n" + name + b": " + value for name, value in fields if name in changed]
            if lines:
                head.add(b"".join(lines))


class _Wrapped:
    """ASGI's receive around foreign code's own: an endpoint that is told how long a body is gets as much of it, neither
    more, which would be read as another request, nor less. What goes wrong is told and answered here, for whoever
    listens further in may be another task, which nobody hears of."""

    __slots__ = ("_head", "_is_over", "_owed", "_passage", "_receive")

    def __init__(self, passage: _Passage, receive: Receive, head: RequestHead) -> None:
        self._passage = passage
        self._receive = receive
        self._head = head
        self._owed = head.length
        self._is_over = not head.length

    async def __call__(self) -> Message:
        task = asyncio.current_task()
        try:
            message = await self._receive()
            if message["type"] == "http.request":
                return self._part(message)
            if message["type"] != "http.disconnect":
                raise ValueError(f"not a part of a request: {message['type']!r}")
            # Before its end this is the client's word, and its alone.
            if not (self._is_over or self._passage.is_over):
                raise RuntimeError("it said that the client is gone, which is there")
            return message
        except BaseException as error:
            # A listener that is cancelled has no more use for a body, whatever becomes of the cancellation in there.
            if is_from_outside(error, task) or (task is not None and task.cancelling()):
                raise
            return self._passage.failed_to_receive(error)

    def _part(self, message: Message) -> Message:
        body, more = as_bytes(message.get("body", b"")), bool(message.get("more_body", False))
        if self._head.length >= 0:
            self._owed -= len(body)
            if self._owed < 0 or (self._owed and not more):
                raise ValueError("it changed the length of the request's body, but not its content-length")
        self._is_over = not more
        return {"type": "http.request", "body": body, "more_body": more}


def _checked(headers: Any) -> list[Pair]:
    """Pairs as they stand on the wire, names in lower case. Raises ValueError."""
    fields = []
    for name, value in headers:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise ValueError(f"a header field is a pair of bytes, got {name!r}: {value!r}")
        if not is_field(name, value):
            raise ValueError(f"not a header field: {name!r}: {value!r}")
        fields.append((name.lower(), value.strip(b" \t")))
    return fields


def _by_name(fields: list[Pair]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    return found
