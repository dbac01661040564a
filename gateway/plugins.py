"""What a plug-in of the kind "hooks" is given: the request, the response, and what went wrong.

A plug-in is a class in a file of your own; `process.python_path` says where. It has any of these methods, each `def` or
`async def`; what it does not have costs nothing:

    from gateway.plugins import Failure, Request, Response

    class Hooks:
        def __init__(self, greeting: str) -> None:                          # the layer's `options`
            self.greeting = greeting

        async def rewrite_request(self, request: Request) -> None: ...      # before it goes on; may answer it instead
        async def modify_response(self, response: Response) -> None: ...    # its head, before it goes to the client
        async def on_error(self, request: Request, error: Failure) -> None: ...      # the gateway answers in its stead
        def transform_request_body(self, chunk: bytes, request: Request) -> bytes: ...
        def transform_response_body(self, chunk: bytes, response: Response) -> bytes: ...
        async def close(self) -> None: ...                                  # the worker ends

The constructor also runs in `gateway check`, where no event loop does. What it raises refuses the configuration.

One object serves all requests of its layer at once: what belongs to one request is kept in `request.state`. Everything
runs in the worker's event loop, where a method that blocks holds up all other requests; no limit of time can end one
that does not await.

A body goes through its method as it streams, part by part, and never as a whole: the method is called with each part,
and at the end once with b"", when it gives back what it still holds. Where parts begin and end means nothing. The
second parameter may be left out. For a layer with `transform_response_body` endpoints are asked for whole bodies that
are not compressed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from gateway.reasons import REASONS
from gateway.wire import (
    HOP_BY_HOP,
    IDENTITY,
    IDENTITY_PREFIXES,
    Pair,
    RequestHead,
    cookie,
    edited,
    is_authority,
    is_field,
    is_target,
    parameter,
    value_of,
)

__all__ = ["Failure", "Headers", "Request", "Response"]

Fields = Mapping[str, str] | Iterable[tuple[str, str]]

# The gateway frames messages itself, and what ends at this hop is gone before a plug-in looks.
_FRAMING = HOP_BY_HOP | {b"content-length", b"expect"}
_BODYLESS = (204, 304)


class Headers(ABC):
    """The fields of a message. Names are compared without regard to case, and one may occur more than once. Bytes are
    latin-1, so that none are lost.

    The fields that end at this hop (Connection, Transfer-Encoding, Upgrade and their like; RFC 9110, section 7.6.1) are
    not among them. They can't be set, and neither can Content-Length. Changes are checked when they are made:
    ValueError for what can't stand in a message.
    """

    __slots__ = ()

    @abstractmethod
    def _first(self, name: bytes) -> bytes | None:
        """The first field of a lower-case name."""

    @abstractmethod
    def _pairs(self) -> Iterable[Pair]:
        """All fields, in order."""

    @abstractmethod
    def _edit(self, drop: frozenset[bytes], add: bytes) -> None:
        """Remove the fields of some names, and put these lines behind the others."""

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value."""
        key = _key(name)
        value = None if key in HOP_BY_HOP else self._first(key)
        return default if value is None else value.decode("latin-1")

    def all(self, name: str) -> list[str]:
        """Every value."""
        key = _key(name)
        return [value.decode("latin-1") for known, value in self._own() if known == key]

    def items(self) -> list[tuple[str, str]]:
        """Every field in order, names in lower case."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._own()]

    def add(self, name: str, value: str) -> None:
        """One more field."""
        self._edit(frozenset(), _line(name, value))

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        """This one value, in the place of all there are."""
        line = _line(name, value)
        self._edit(frozenset((_key(name),)), line)

    def __delitem__(self, name: str) -> None:
        """Every field of the name; it need not be there."""
        key = _key(name)
        if key in _FRAMING:
            raise ValueError(f"{name} can't be removed: the gateway frames messages itself")
        self._edit(frozenset((key,)), b"")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        """Each name once."""
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self._own()))

    def __len__(self) -> int:
        return len(self._own())

    def __repr__(self) -> str:
        return f"<Headers {self.items()}>"

    def _own(self) -> list[Pair]:
        return [(known, value) for name, value in self._pairs() if (known := name.lower()) not in HOP_BY_HOP]


def _key(name: str) -> bytes:
    return name.lower().encode("latin-1", "replace")


def _line(name: str, value: str) -> bytes:
    """A field line, CRLF before it. Raises ValueError."""
    key = _key(name)
    if key in _FRAMING:
        raise ValueError(f"{name} can't be set: the gateway frames messages itself")
    try:
        text = value.encode("latin-1").strip(b" \t")
    except UnicodeEncodeError:
        raise ValueError(f"{name}: a field holds latin-1 only, got {value!r}") from None
    if not is_field(key, text):
        raise ValueError(f"not a header field: {name!r}: {value!r}")
    return b"\r\n" + key + b": " + text


class _RequestHeaders(Headers):
    __slots__ = ("_head",)

    def __init__(self, head: RequestHead) -> None:
        self._head = head

    def _first(self, name: bytes) -> bytes | None:
        return self._head.value(name)

    def _pairs(self) -> Iterable[Pair]:
        return self._head.pairs()

    def _edit(self, drop: frozenset[bytes], add: bytes) -> None:
        if b"host" in drop or add.startswith(b"\r\nhost:"):
            raise ValueError("Host is set by `request.host`")
        if drop:
            self._head.drop(drop)
        if add:
            name = add[2:].partition(b":")[0]
            if self._head.introduced is None and (name in IDENTITY or name.startswith(IDENTITY_PREFIXES)):
                self._head.introduced = b""  # what the client said of itself goes
            self._head.add(add)


class _ResponseHeaders(Headers):
    __slots__ = ("source",)

    def __init__(self, source: Any) -> None:
        self.source = source  # as ASGI messages have it

    def _first(self, name: bytes) -> bytes | None:
        return value_of(self.source, name)

    def _pairs(self) -> Iterable[Pair]:
        return self.source  # type: ignore[no-any-return]

    def _edit(self, drop: frozenset[bytes], add: bytes) -> None:
        source = self.source
        if b"date" in drop or add.startswith(b"\r\ndate:"):
            source = list(source)  # a head from an endpoint keeps its Date apart
        self.source = edited(source, drop, add)


class Answer(NamedTuple):
    """What a plug-in answers: as an ASGI application would."""

    status: int
    fields: list[Pair]
    body: bytes


class Failure(NamedTuple):
    """Why the gateway answers a request itself.

    reason: a code of the table of reasons, such as "connection_refused"; status: what the client is told unless the
    plug-in answers; text: one sentence for people.
    """

    reason: str
    status: int
    text: str

    @classmethod
    def of(cls, reason: str, status: int) -> Failure:
        known = REASONS.get(reason)
        return cls(reason, status, known.text if known is not None else "")


class Request:
    """A request on its way to an endpoint.

    It may be given other header fields, another target and another host. `state` is a dict for whatever the plug-in
    wants to know again later in the same request; no other layer sees it. `answer`: what `respond` was told, which
    only the methods that may use it can. `transform`: whether its body goes through
    `transform_request_body`; True unless `rewrite_request` says otherwise.
    """

    __slots__ = ("_exchange", "_head", "_headers", "_scope", "_state", "answer", "may_respond", "transform")

    def __init__(self, scope: dict[str, Any]) -> None:
        self._scope = scope
        self._exchange = scope["gateway"]
        self._head: RequestHead = scope["headers"]
        self._headers: _RequestHeaders | None = None
        self._state: dict[str, Any] | None = None
        self.answer: Answer | None = None
        self.may_respond = False
        self.transform = True

    @property
    def headers(self) -> Headers:
        headers = self._headers
        if headers is None:
            headers = self._headers = _RequestHeaders(self._head)
        return headers

    @property
    def method(self) -> str:
        return self._head.method.decode("ascii")

    @property
    def target(self) -> str:
        """Path and query as they go over the wire, percent-encoded: "/a%20b?c=d". May be set, to one that begins with
        a slash; the route is chosen already, by what the client asked for."""
        return self._head.target.decode("latin-1")

    @target.setter
    def target(self, target: str) -> None:
        try:
            value = target.encode("latin-1")
        except UnicodeEncodeError:
            raise ValueError(f"not a request target: {target!r}; percent-encode what is not ASCII") from None
        if not value.startswith(b"/") or not is_target(value):
            raise ValueError(f"not a request target: {target!r}")
        self._head.retarget(value)
        retell(self._scope, value)

    @property
    def path(self) -> str:
        """The part of the target before "?", percent-encoded as it came."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The part of the target behind "?", "" for none."""
        return self.target.partition("?")[2]

    @property
    def host(self) -> str:
        """Whom the request is for: "example.com:8080". May be set; an upstream with a `host` of its own sends that."""
        return (self._head.special.get(b"host") or b"").decode("latin-1")

    @host.setter
    def host(self, host: str) -> None:
        value = host.encode("latin-1", "replace")
        if not value or not is_authority(value):
            raise ValueError(f"not a host: {host!r}")
        self._head.special = {**self._head.special, b"host": value}

    def parameter(self, name: str) -> str | None:
        """The first query parameter of this name, decoded; None for none."""
        value = parameter(self._head.target, name.encode())
        return None if value is None else value.decode("utf-8", "replace")

    def cookie(self, name: str) -> str | None:
        """The value of a cookie, None for none."""
        return cookie(self._head, name.encode("latin-1", "replace")).decode("latin-1") or None

    @property
    def client_ip(self) -> str:
        """Who the client is, as far as trusted proxies are believed; "unix" for one that came by a Unix socket."""
        return self._exchange.client  # type: ignore[no-any-return]

    @property
    def scheme(self) -> str:
        """ "http" or "https", as the client spoke it."""
        return self._exchange.scheme  # type: ignore[no-any-return]

    @property
    def request_id(self) -> str:
        """What the layer "request_id" gave it; "" where there is none further out."""
        return self._exchange.request_id  # type: ignore[no-any-return]

    @property
    def route(self) -> str:
        """The name of its route, "" when none takes it."""
        route = self._exchange.route
        return "" if route is None else route.name

    @property
    def user(self) -> str:
        """Who the client has proved to be, "" for nobody."""
        return self._exchange.user  # type: ignore[no-any-return]

    @property
    def claims(self) -> Mapping[str, Any] | None:
        """Of its token, once a layer further out has verified that; else None. A copy, which belongs to the request."""
        return self._exchange.claims  # type: ignore[no-any-return]

    @property
    def state(self) -> dict[str, Any]:
        if self._state is None:
            self._state = {}
        return self._state

    def respond(self, status: int, headers: Fields = (), body: bytes | str = b"") -> None:
        """Answer the request so, in the place of what is further in; from `rewrite_request` and `on_error` only. Text
        goes out in UTF-8, as text/plain unless the headers say otherwise. The layers further out see it like any other
        response, this one's `modify_response` does not. Raises ValueError."""
        if not self.may_respond:
            raise RuntimeError("a request is answered from rewrite_request and on_error only")
        if not 200 <= status <= 599:
            raise ValueError(f"not the status of an answer: {status}")
        fields: list[Pair] = []
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            key, _, text = _line(name, value)[2:].partition(b": ")
            fields.append((key, text))
        if isinstance(body, str) and not any(name == b"content-type" for name, _ in fields):
            fields.append((b"content-type", b"text/plain; charset=utf-8"))
        body = _encoded(body)
        if status not in _BODYLESS:
            fields.append((b"content-length", b"%d" % len(body)))
        elif body:
            raise ValueError(f"an answer with status {status} has no body")
        self.answer = Answer(status, fields, body)


class Response:
    """A response on its way to the client: its head, before any of its body.

    Its status and header fields may be changed. `transform`: whether its body goes through `transform_response_body`;
    True unless `modify_response` says otherwise.
    """

    __slots__ = ("_body", "_headers", "_status", "request", "transform")

    def __init__(self, status: int, headers: Any, request: Request) -> None:
        self._status = status
        self._headers = _ResponseHeaders(headers)
        self.request = request
        self._body: bytes | None = None
        self.transform = True

    @property
    def headers(self) -> Headers:
        return self._headers

    @property
    def source(self) -> Any:
        """The header fields as ASGI messages have them."""
        return self._headers.source

    @property
    def status(self) -> int:
        return self._status

    @status.setter
    def status(self, status: int) -> None:
        if not 200 <= status <= 599:
            raise ValueError(f"not the status of an answer: {status}")
        self._status = status

    @property
    def body(self) -> bytes | None:
        """What takes the place of the body that comes, None for nothing; `replace` says what."""
        return self._body

    def replace(self, body: bytes | str, content_type: str | None = None) -> None:
        """Send this body, as it is, and nothing of the one that comes; if that is long it isn't read to its end. Text
        goes out in UTF-8."""
        self._body = _encoded(body)
        del self.headers["content-encoding"]
        if content_type is not None:
            self.headers["content-type"] = content_type


def _encoded(body: bytes | str) -> bytes:
    """Raises TypeError, also for the number or list that bytes() would make something of."""
    if isinstance(body, str):
        return body.encode()
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"a body is bytes or text, got {type(body).__name__}")
    return bytes(body)


def retell(scope: dict[str, Any], target: bytes) -> None:
    """Have an ASGI scope say what a target says."""
    path, _, query = target.partition(b"?")
    text = path.decode("latin-1")
    scope["path"] = unquote(text) if "%" in text else text
    scope["raw_path"] = path
    scope["query_string"] = query
