"""Which pages of other origins may read responses: the CORS protocol of the Fetch standard."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, WithJsonSchema, model_validator

from gateway.config.fields import Flag, Regex
from gateway.config.http import FieldName, Method
from gateway.config.quantities import Duration
from gateway.config.values import parse_duration, shown
from gateway.middleware.content.lists import VARY, vary_line, varying
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.wire import ResponseHead, edited, listed, tokens, value_of, with_headers

# An origin: a scheme, a name of 253 characters at the most, a port. Nothing longer is shown to a regular expression.
_LONGEST = 300
_MOST_KNOWN = 1024  # origins whose verdict is remembered
# The names that a page wants to send: a browser sorts them and writes them in lower case.
_LONGEST_NAMES = 4096
_TOKENS = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?")
_USUAL_PORT = {"http": "80", "https": "443"}


def _origin(value: str) -> str:
    """As browsers write it, for it is compared byte for byte."""
    what = 'an origin such as "https://app.example.com"'
    if value in ("*", "null"):
        return value
    if not _ORIGIN.fullmatch(value):
        raise ValueError(f'expected {what}, in lower case and without a path, "*" or "null", got {shown(value)}')
    scheme, _, rest = value.partition("://")
    if _USUAL_PORT.get(scheme) == rest.rpartition(":")[2]:
        raise ValueError(f"browsers don't say the usual port: expected {what}, got {shown(value)}")
    return value


OriginText = Annotated[
    str,
    AfterValidator(_origin),
    WithJsonSchema({"type": "string", "examples": ["https://app.example.com", "http://localhost:3000", "*", "null"]}),
]


class Options(Base):
    PREFLIGHTS: ClassVar[bool] = True

    kind: Literal["cors"] = "cors"
    """Lets pages of other origins read responses (CORS)."""
    origins: tuple[OriginText, ...] = ()
    """Whose pages: origins as browsers write them, "*" for any, "null" for pages that have none, such as files and
    sandboxed frames."""
    origin_regex: Regex | None = None
    """Further origins: a regular expression that must match the whole of one, such as
    'https://[a-z0-9-]+\\.preview\\.example\\.com'."""
    methods: tuple[Method, ...] = ("GET", "HEAD", "POST")
    """What pages may do; "*" for anything. GET, HEAD and POST are never asked for by browsers."""
    headers: tuple[FieldName, ...] | Literal["mirror"] = ("content-type",)
    """The request fields that pages may set, beyond those that every page may; "mirror" for whatever they ask for."""
    expose_headers: tuple[FieldName, ...] = ()
    """The response fields that pages may read, beyond those that every page may; "*" for all."""
    credentials: Flag = False
    """Whether pages may send cookies and the like, and so act as the person in front of the browser. Not together with
    "*" or "null": either lets any page in the world do so."""
    max_age: Duration = parse_duration("10m")
    """How long a browser may remember what a preflight was answered. Most of them forget after two hours."""
    private_network: Flag = False
    """Whether pages of the public network may be told that they can reach this private one (Private Network Access)."""
    mode: Literal["own", "merge", "passthrough"] = "own"
    """What becomes of such fields of the origin server: "own" drops them, and what stands here decides; "merge" keeps
    those of a response that has any and fills in the others; with "passthrough" the origin server answers preflights
    itself and its responses are left alone, and only the gateway's own answers, such as its 401 and 502, get fields."""

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if not self.origins and self.origin_regex is None:
            raise ValueError("expected origins or origin_regex")
        if "*" in self.headers:
            raise ValueError('expected headers = "mirror" for any: browsers do not take "*" for all of them')
        if self.credentials:
            for origin in ("*", "null"):
                if origin in self.origins:
                    raise ValueError(f'credentials = true with the origin "{origin}" lets any page act as its visitor')
            if "*" in self.expose_headers:
                raise ValueError('with credentials = true browsers take "*" in expose_headers for the name of a field')
        return self


class Cors(Middleware):
    """Answers preflights (OPTIONS with Origin and Access-Control-Request-Method) with 204, or with 403
    (`origin_denied`) when the origin may not, and adds Access-Control-Allow-Origin and its like to the responses of
    other requests, the gateway's own among them: else no page could tell a 401 from a broken network. Requests from
    elsewhere go on like any other, for it is the browser that keeps their responses from the page: what must not be
    done at all needs authentication. A preflight belongs to the route of the request that it asks for, so a route with
    `methods` need not list OPTIONS. WebSockets are not bound by any of this. It never looks at a body.

    Order: before authentication and limits, for preflights carry no credentials; and outside whatever refuses, so that
    pages can read refusals."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "cors", origins = ["https://app.example.com"], credentials = true, max_age = "10m" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._origins = frozenset([origin.encode() for origin in options.origins])
        self._regex = re.compile(options.origin_regex) if options.origin_regex is not None else None
        self._known: dict[bytes, bool] = {}
        self._mode = options.mode
        # One answer for everybody needs no Vary: then caches may keep it for everybody.
        self._any = b"*" in self._origins
        credentials = b"\r\naccess-control-allow-credentials: true" if options.credentials else b""
        exposed = ", ".join(options.expose_headers).encode()
        self._after_origin = credentials + (b"\r\naccess-control-expose-headers: " + exposed if exposed else b"")
        self._methods = b"" if "*" in options.methods else ", ".join(options.methods).encode()
        self._headers = None if options.headers == "mirror" else ", ".join(options.headers).encode()
        self._preflight = credentials + b"\r\naccess-control-max-age: %d" % options.max_age
        self._private = options.private_network

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        head = scope["headers"]
        origin = head.value(b"origin")
        if (
            origin is not None
            and scope["method"] == "OPTIONS"
            and self._mode != "passthrough"
            and head.value(b"access-control-request-method") is not None
        ):
            return self._answer_preflight(scope["gateway"], head, origin, send)
        lines = b""
        if origin is not None and self._allows(origin):
            lines = b"\r\naccess-control-allow-origin: %b%b" % (b"*" if self._any else origin, self._after_origin)

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start" and message["status"] != 101:
                message = with_headers(message, self._edited(message["headers"], lines))
            return send(message)

        return self._app(scope, receive, sending)

    def _allows(self, origin: bytes) -> bool:
        if self._any or origin in self._origins:
            return True
        if self._regex is None or len(origin) > _LONGEST:
            return False
        known = self._known.get(origin)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[origin] = self._regex.fullmatch(origin.decode("latin-1")) is not None
        return known

    def _edited(self, headers: Any, lines: bytes) -> Any:
        """A response with what the page may do with it. lines: b"" for one that no page of another origin may read."""
        if self._mode == "passthrough" and type(headers) is ResponseHead:
            return headers
        if self._mode == "merge":
            headers = self._merged(headers, lines)
            return headers if self._any else varying(headers, b"Origin")
        line = b"" if self._any else vary_line(headers, b"Origin")
        return edited(headers, _ALLOWING_AND_VARY, lines + line) if line else edited(headers, _ALLOWING, lines)

    def _merged(self, headers: Any, lines: bytes) -> Any:
        said = listed(headers, b"access-control-allow-origin")
        if said is None:
            return edited(headers, _NONE, lines)
        first = value_of(headers, b"access-control-allow-origin")
        if said == first or first is None:
            return headers
        # Several are none: a browser lets nobody read such a response. All the same is what was meant by one.
        if len({*tokens(said)}) > 1:
            return edited(headers, _ALLOWING, lines)
        credentials = value_of(headers, b"access-control-allow-credentials")
        once = b"\r\naccess-control-allow-origin: " + first
        if credentials is not None:
            once += b"\r\naccess-control-allow-credentials: " + credentials
        return edited(headers, _ONCE, once)

    async def _answer_preflight(self, exchange: Any, head: Any, origin: bytes, send: Send) -> None:
        """The answer to: may a page of this origin do that?"""
        if not self._allows(origin):
            fields = () if self._any else ((b"vary", _VARY),)
            await self._place.refuse(exchange, send, "origin_denied", fields)
            return
        method = head.value(b"access-control-request-method")
        names = listed(head, b"access-control-request-headers") or b""
        lines = [b"\r\naccess-control-allow-origin: ", b"*" if self._any else origin, self._preflight]
        if self._methods or _TOKENS.fullmatch(method):
            lines += [b"\r\naccess-control-allow-methods: ", self._methods or method]
        allowed = self._headers
        if allowed is None:
            allowed = names if len(names) <= _LONGEST_NAMES and _TOKENS.fullmatch(names) else b""
        if allowed:
            lines += [b"\r\naccess-control-allow-headers: ", allowed]
        if self._private and head.value(b"access-control-request-private-network") == b"true":
            lines.append(b"\r\naccess-control-allow-private-network: true")
        if not self._any or self._headers is None or not self._methods:
            lines += [b"\r\nvary: ", _VARY]
        exchange.begun = True
        await send({"type": "http.response.start", "status": 204, "headers": edited([], _NONE, b"".join(lines))})
        await send({"type": "http.response.body", "body": b""})


_NONE: frozenset[bytes] = frozenset()
_ONCE = frozenset((b"access-control-allow-origin", b"access-control-allow-credentials"))
_ALLOWING = _ONCE | {
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-allow-private-network",
    b"access-control-expose-headers",
    b"access-control-max-age",
}
_ALLOWING_AND_VARY = _ALLOWING | VARY
_VARY = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
