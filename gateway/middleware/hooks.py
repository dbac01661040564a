"""Hooks: a Python class of one's own that changes requests and responses, as Go's ReverseProxy has Rewrite,
ModifyResponse and ErrorHandler. What the class is given is in `gateway/plugins.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from gateway.answer import answer
from gateway.blame import told
from gateway.config.fields import PluginOptions
from gateway.config.quantities import Duration, Size
from gateway.config.values import parse_duration, parse_size
from gateway.errors import Refused, StartError
from gateway.metrics.plan import LAYER_FAILED
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.plugged import (
    TookTooLong,
    Use,
    Waiting,
    as_bytes,
    begin,
    built,
    check_shape,
    found,
    options_of,
    rest,
    with_second,
    within,
)
from gateway.plugins import Answer, Failure, Request, Response
from gateway.wire import Pair, ResponseHead, edited, reframed, value_of

log = logging.getLogger("gateway.middleware")

# What no longer holds of a body that was changed, and can't be told anew before it ends.
_DIGESTS = frozenset((b"digest", b"content-digest", b"repr-digest", b"content-md5"))
_PARTLY = _DIGESTS | {b"accept-ranges"}
# What asks for a body in a form in which it can't be looked into as a whole: coded, or only parts of it.
_FORMS = frozenset((b"accept-encoding", b"range", b"if-range"))
# Of a body that is replaced, what is read so that the connection to the endpoint can be used again.
_DISCARDED = 64 * 1024
_BODYLESS = (204, 304)


class Options(Base):
    kind: Literal["hooks"] = "hooks"
    use: Use
    """The class, as "module:Name"; the module is looked for in `process.python_path`, then among what is installed."""
    options: PluginOptions = {}
    """What its constructor gets, by keyword; or, where the class has a pydantic model or dataclass `Options`, what that
    is made of, which the constructor then gets. A table { env = "NAME", default = "TEXT" } or { file = "PATH" } in it
    stands for a secret: the text of that variable or file. No secret is shown anywhere, nor a text whose name ends in
    secret, password, token, key or the like."""
    timeout: Duration = parse_duration("1s")
    """How long one call of a method may take. One that does not await can't be ended, and holds up everything."""
    max_chunk: Size = parse_size("1MiB")
    """The most that a method for bodies may give back for one part."""
    on_failure: Literal["refuse", "bypass"] = "refuse"
    """What becomes of the request or response when its method fails or takes too long: it is answered 500, or goes on
    without the method. A body whose method fails is always cut: what the method held back is lost."""


class Hooks(Middleware):
    """Runs the methods of a Python class on requests and responses: `rewrite_request`, `modify_response`, `on_error`,
    and `transform_request_body` and `transform_response_body` for bodies. Bodies are never held back here; what a
    method keeps of one is its own. A layer that changes response bodies asks the endpoint for whole ones that are not
    compressed. Answers 500 (`middleware_failed`, or `hook_timeout` for what took too long) when a method fails.

    Order: inside what refuses requests, so that it isn't asked about those, and inside `compress`, so that it sees
    bodies as they are.
    """

    OPTIONS = Options
    EXAMPLE = '{ kind = "hooks", use = "my_hooks:Hooks", options = { greeting = "hello" } }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._use = options.use
        self.timeout = options.timeout
        self._most = options.max_chunk
        self.bypasses = options.on_failure == "bypass"
        self._told: set[str] = set()
        self._made = self._build(options, place)
        made = self._made
        self.rewrite = getattr(made, "rewrite_request", None)
        self.modify = getattr(made, "modify_response", None)
        self.error = getattr(made, "on_error", None)
        self.inbound = with_second(getattr(made, "transform_request_body", None))
        self.outbound = with_second(getattr(made, "transform_response_body", None))
        self._answers = bool(self.modify or self.error or self.outbound)
        # Whether a request has to be waited for before it goes on, or after.
        self._is_plain = not (self.rewrite or self.error or self.inbound)

    def _build(self, options: Options, place: Place) -> Any:
        """The plug-in; None while a configuration is only tried. Raises StartError."""
        use, given = options.use, dict(options.options)
        made = found("hooks", use, place.plugin)
        if made is None:
            return None
        if not isinstance(made, type):
            raise StartError(f'hooks "{use}": expected a class, got {type(made).__name__}')
        model = getattr(made, "Options", None)
        if model is None:
            plugin = built("hooks", use, lambda: made(**given))
        else:
            value = options_of("hooks", use, model, given)
            plugin = built("hooks", use, lambda: made(value))
        check_shape(use, plugin)
        return plugin

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine where only responses matter."""
        if not self._is_plain:
            return self._run(scope, receive, send)
        if not self._answers:
            return self._app(scope, receive, send)
        if self.outbound is not None:
            scope["headers"].drop(_FORMS)
        return self._app(scope, receive, _Responder(self, Request(scope), scope, send))

    def _run(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request = Request(scope)
        if self.rewrite is not None:
            request.may_respond = True
            try:
                outcome = begin(self.rewrite, request)
            except Exception as error:
                return self._not_rewritten(scope, receive, send, request, error)
            if type(outcome) is Waiting:
                return self._rewritten(scope, receive, send, request, outcome)
        return self._go_on(scope, receive, send, request)

    async def _rewritten(self, scope: Scope, receive: Receive, send: Send, request: Request, waiting: Waiting) -> None:
        try:
            await rest(self.timeout, waiting)
        except Exception as error:
            await self._not_rewritten(scope, receive, send, request, error)
        else:
            await self._go_on(scope, receive, send, request)

    async def _not_rewritten(
        self, scope: Scope, receive: Receive, send: Send, request: Request, error: Exception
    ) -> None:
        reason = self.tell("rewrite_request", scope, error)
        if self.bypasses:
            request.answer = None
            await self._go_on(scope, receive, send, request)
        else:
            await answer(scope["gateway"], send, reason)

    def _go_on(self, scope: Scope, receive: Receive, send: Send, request: Request) -> Awaitable[None]:
        """Hand the request on, unless it was answered."""
        request.may_respond = False
        if request.answer is not None:
            return _answer(scope, send, request.answer)
        head = scope["headers"]
        if self.inbound is not None and head.length and request.transform:
            head.reframe()
            head.drop(_DIGESTS)
            receive = _Inbound(self, request, scope, receive)
        if self.outbound is not None:
            head.drop(_FORMS)
        if self._answers:
            send = _Responder(self, request, scope, send)
        return self._app(scope, receive, send)

    async def instead(self, scope: Scope, request: Request, failure: Failure) -> Answer | None:
        """What the plug-in answers where the gateway would; None when it leaves that alone, or fails at it."""
        assert self.error is not None
        request.answer = None
        request.may_respond = True
        try:
            await within(self.timeout, self.error, request, failure)
        except Exception as error:
            self.tell("on_error", scope, error)
            return None
        finally:
            request.may_respond = False
        return request.answer

    async def transformed(self, hook: str, call: Callable[..., Any], chunk: bytes, of: Any, scope: Scope) -> bytes:
        """What a method for bodies gives back for a part. Raises Refused."""
        try:
            made = as_bytes(await within(self.timeout, call, chunk, of))
            if len(made) > self._most:
                raise ValueError(f"{len(made)} bytes came back for {len(chunk)}, more than max_chunk allows")
        except Exception as error:
            raise Refused(self.tell(hook, scope, error), f"{hook} of {self._use} failed") from None
        return made

    def tell(self, hook: str, scope: Scope, error: Exception) -> str:
        """Count a failure and write it down, the way through the code that led there the first time only; the reason
        that a client is told."""
        place, exchange = self._place, scope["gateway"]
        place.cells[place.at + LAYER_FAILED] += 1
        timed_out = isinstance(error, TookTooLong)
        what = f"took longer than {self.timeout:g}s" if timed_out else f"failed: {told(error)}"
        log.error(
            "route %s, layer %s: %s of %s %s, on %r",
            exchange.route.name if exchange.route is not None else "-",
            place.layer,
            hook,
            self._use,
            what,
            exchange.target,
            exc_info=error if not timed_out and hook not in self._told else None,
        )
        self._told.add(hook)
        return "hook_timeout" if timed_out else "middleware_failed"

    async def close(self) -> None:
        close = getattr(self._made, "close", None)
        if close is not None:
            try:
                await within(self.timeout, close)
            except Exception as error:
                log.error("layer %s: close of %s failed: %s", self._place.layer, self._use, told(error))


class _Inbound:
    """ASGI's receive: the request body as `transform_request_body` makes it."""

    __slots__ = ("_is_over", "_layer", "_receive", "_request", "_scope")

    def __init__(self, layer: Hooks, request: Request, scope: Scope, receive: Receive) -> None:
        self._layer = layer
        self._request = request
        self._scope = scope
        self._receive = receive
        self._is_over = False

    async def __call__(self) -> Message:
        while True:
            message = await self._receive()
            if self._is_over or message["type"] != "http.request":
                return message
            body, more = message.get("body", b""), message.get("more_body", False)
            made = b""
            if body:
                made = await self._transformed(body)
            if not more:
                self._is_over = True
                made += await self._transformed(b"")
            if made or not more:
                return {"type": "http.request", "body": made, "more_body": more}

    async def _transformed(self, chunk: bytes) -> bytes:
        layer = self._layer
        assert layer.inbound is not None
        return await layer.transformed("transform_request_body", layer.inbound, chunk, self._request, self._scope)


class _Responder:
    """ASGI's send, for one response. outer: the send of the layer further out. is_over: no method has anything more to
    do with the response."""

    __slots__ = ("_discarded", "_layer", "_request", "_response", "_scope", "is_over", "outer")

    def __init__(self, layer: Hooks, request: Request, scope: Scope, send: Send) -> None:
        self._layer = layer
        self._request = request
        self._scope = scope
        self._response: Response | None = None  # whose body is transformed
        self._discarded = -1  # bytes of a body that were thrown away, when another answer is sent in its place
        self.outer = send
        self.is_over = False

    def __call__(self, message: Message) -> Awaitable[None]:
        if self.is_over:
            return self.outer(message)
        kind = message["type"]
        if kind == "http.response.start" and message["status"] != 101:
            return self._start(message)
        if kind == "http.response.body" or kind == "http.response.trailers":
            if self._discarded >= 0:
                return self._discard(message)
            if self._response is not None:
                return self._body(self._response, message)
        return self.outer(message)

    def _start(self, message: Message) -> Awaitable[None]:
        layer = self._layer
        self.is_over = True  # unless it turns out otherwise
        if self._scope["gateway"].reason:  # the gateway's own answer: something has failed
            return self.outer(message) if layer.error is None else self._instead(message)
        headers = message.get("headers", ())
        response = Response(message["status"], headers, self._request)
        if layer.modify is not None:
            kept = list(headers) if layer.bypasses else None
            try:
                outcome = begin(layer.modify, response)
            except Exception as error:
                return self._not_modified(message, kept, error)
            if type(outcome) is Waiting:
                return self._modified(message, response, kept, outcome)
        return self._go_on(message, response)

    async def _instead(self, message: Message) -> None:
        """The plug-in's answer, or that of the gateway."""
        scope, layer = self._scope, self._layer
        failure = Failure.of(scope["gateway"].reason, message["status"])
        made = await layer.instead(scope, self._request, failure)
        if made is None:
            await self.outer(message)
        else:
            self._begin_discarding()  # it is a page of ours, which is short
            await _answer(scope, self.outer, made)

    async def _modified(self, message: Message, response: Response, kept: list[Pair] | None, waiting: Waiting) -> None:
        try:
            await rest(self._layer.timeout, waiting)
        except Exception as error:
            await self._not_modified(message, kept, error)
        else:
            await self._go_on(message, response)

    async def _not_modified(self, message: Message, kept: list[Pair] | None, error: Exception) -> None:
        """kept: the fields as they were, where the response is to go on without the method."""
        reason = self._layer.tell("modify_response", self._scope, error)
        if kept is None:
            self._begin_discarding()
            await answer(self._scope["gateway"], self.outer, reason)
            self._end_soon(message.get("headers", ()))
        else:
            await self._go_on(message, Response(message["status"], kept, self._request))

    def _go_on(self, message: Message, response: Response) -> Awaitable[None]:
        """Send the head, however it was changed."""
        if response.body is not None:
            return self._replace(response, message.get("headers", ()))
        layer = self._layer
        source = response.source
        status = response.status
        changed: Message = {}
        if layer.outbound is not None and response.transform:
            source = _of_another_body(source)
            changed["trailers"] = False
            if status not in _BODYLESS and self._scope["gateway"].head.method != b"HEAD":
                self._response = response
                self.is_over = False
        elif status != message["status"] and (status in _BODYLESS) != (message["status"] in _BODYLESS):
            source = reframed(source)
        if status != message["status"] or source is not message.get("headers") or changed:
            message = {**message, **changed, "status": status, "headers": source}
        return self.outer(message)

    async def _replace(self, response: Response, headers: Any) -> None:
        body = response.body or b""
        drop = frozenset((b"content-length", b"transfer-encoding", *_PARTLY))
        fields = edited(list(response.source), drop, b"")
        if response.status in _BODYLESS:
            body = b""
        else:
            fields.append((b"content-length", b"%d" % len(body)))
        self._begin_discarding()
        await _answer(self._scope, self.outer, Answer(response.status, fields, body))
        self._end_soon(headers)

    def _begin_discarding(self) -> None:
        """Whatever still comes is thrown away: another answer goes out."""
        self.is_over = False
        self._discarded = 0

    def _end_soon(self, headers: Any) -> None:
        """The body that is thrown away is read to its end if that is near; else whoever sends it is stopped. Unless the
        other answer is held back further out: to stop here would be to cut that one."""
        length = headers.length if type(headers) is ResponseHead else int(value_of(headers, b"content-length") or -1)
        if not 0 <= length <= _DISCARDED and self._scope["gateway"].complete:
            raise Refused("middleware_failed", "another answer was sent in its place")

    async def _discard(self, message: Message) -> None:
        self._discarded += len(message.get("body", b""))
        if self._discarded > _DISCARDED and self._scope["gateway"].complete:
            raise Refused("middleware_failed", "another answer was sent in its place")

    async def _body(self, response: Response, message: Message) -> None:
        layer, scope = self._layer, self._scope
        if message["type"] == "http.response.trailers":
            return  # they speak of the body as it was
        transform = layer.outbound
        assert transform is not None
        body, more = message.get("body", b""), message.get("more_body", False)
        made = b""
        if body:
            made = await layer.transformed("transform_response_body", transform, body, response, scope)
        if not more:
            made += await layer.transformed("transform_response_body", transform, b"", response, scope)
        # An empty part is a wish to have the head on its way.
        if made or not more or not body:
            await self.outer({"type": "http.response.body", "body": made, "more_body": more})


async def _answer(scope: Scope, send: Send, answer: Answer) -> None:
    scope["gateway"].begun = True
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.fields})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def _of_another_body(headers: Any) -> Any:
    """The fields of a response whose body is changed on its way: of the old body only what still holds. A strong ETag
    becomes a weak one (RFC 9110, section 8.8.1)."""
    etag = value_of(headers, b"etag")
    if etag is not None and not etag.startswith(b"W/"):
        headers = edited(headers, frozenset((b"etag",)), b"\r\netag: W/" + etag)
    return reframed(edited(headers, _PARTLY, b""))
