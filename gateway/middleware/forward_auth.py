"""The kind `forward_auth`: another server is asked about each request."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Awaitable
from hashlib import blake2s
from time import monotonic
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator

from gateway.config.fields import FilePath, Flag
from gateway.config.http import FieldName, HttpUrl, Method
from gateway.config.quantities import Duration
from gateway.config.values import parse_duration as _time
from gateway.config.values import without_credentials
from gateway.errors import DescriptorsExhausted, PortsExhausted, QueueTimeout, UpstreamError
from gateway.middleware.identity.decisions import Decision, Decisions
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.written import passed_on
from gateway.upstream.reply import Patience, Reply
from gateway.wire import HOP_BY_HOP, Pair, RequestHead, amended, tokens

log = logging.getLogger("gateway.middleware")

# Of an answer that refuses: a page to log in on, with its script.
_LONGEST_ANSWER = 1024 * 1024
# Decisions that each worker remembers, and the bytes they are held in.
_MOST_DECISIONS, _MOST_BYTES, _LARGEST = 10_000, 8 * 1024 * 1024, 16 * 1024
_REMEMBERED = (401, 403)
# Nobody was asked, for we had no room to: whoever takes all of it must not get in by that.
_OUR_OWN = (QueueTimeout, DescriptorsExhausted, PortsExhausted)
_MAX_AGE = re.compile(rb"max-age=(\d{1,9})")

UNIX = "unix"  # the client's address when it has none
# Of this hop, and so not shown.
_FRAMING = HOP_BY_HOP | {b"host", b"content-length", b"via", b"expect", b"max-forwards"}
# Who asks, what for and by which way: ours to say, in this order.
_SAID = (b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-for")
_OURS = frozenset(_SAID)
# Of the body, which is not sent; and conditions, by which the answer might be that nothing has changed.
_OF_THE_BODY = frozenset(
    (
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-md5",
        b"content-digest",
        b"repr-digest",
        b"range",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
    )
)
# Of a body that did not come, because the server was asked with HEAD.
_OF_NO_BODY = _OF_THE_BODY | {b"content-length", b"accept-ranges", b"etag", b"last-modified"}
# By these a server decides, also when it is to write them.
_CREDENTIALS = frozenset((b"authorization", b"cookie"))
# What a cache key calls them.
_PSEUDO = {":method": _SAID[0], ":path": _SAID[1], ":scheme": _SAID[2], ":authority": _SAID[3]}


def _copied(value: str) -> str:
    if value.encode() in _OURS:
        raise ValueError(f"{value} is always written by the gateway")
    if value.encode() in _OF_THE_BODY:
        raise ValueError(f"{value} tells of the body, which the server that is asked does not see")
    return passed_on(value)


def _key(value: str) -> str:
    if value not in _PSEUDO and not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value):
        raise ValueError(f"expected the name of a field, {', '.join(_PSEUDO)}")
    return value.lower()


class Options(Base):
    FILES: ClassVar[tuple[str, ...]] = ("ca",)

    kind: Literal["forward_auth"] = "forward_auth"
    url: HttpUrl
    """What is asked. Redirects are not followed: they are an answer for the client."""
    method: Method = "GET"
    """How. An answer to HEAD that refuses reaches the client without a body."""
    timeout: Duration = _time("5s")
    """For the connection and the whole answer."""
    ca: FilePath | None = None
    """A file with the certificates that are trusted when the URL is of https; the system's when absent."""
    request_headers: tuple[FieldName, ...] | None = None
    """The fields of the request that the server is shown; all when absent, but for those that concern the body, this
    hop, or conditions."""
    copy_headers: tuple[Annotated[FieldName, AfterValidator(_copied)], ...] = ()
    """Fields of an answer that lets the request pass which the application gets. What the client sent under these names
    never reaches it."""
    copy_cookies: Flag = False
    """Whether the client gets the cookies that such an answer sets."""
    user_header: FieldName | None = None
    """The field of such an answer that says who the client is, for the access log."""
    fail_open: Flag = False
    """Whether requests pass when the server gives no answer, or one of 5xx; then without any of `copy_headers`. Whoever
    can make it fail gets in. What it has refused never passes, nor what it wasn't asked about because all connections
    to it are taken."""
    cache: Duration | None = None
    """For how long a decision holds for requests that are alike: an answer of 2xx, 401 or 403 that sets no cookie, and
    no longer than its Cache-Control says. Not at all when absent. Each worker remembers 10,000 in 8 MiB at the most."""
    cache_key: tuple[Annotated[str, AfterValidator(_key)], ...] = (
        *_PSEUDO,
        "authorization",
        "cookie",
    )
    """What makes requests alike: fields, and ":method", ":scheme", ":authority" and ":path" (with its query), as the
    server is told of them. It must name all that the server decides by: "x-forwarded-for" too where that is the
    client's address."""


class ForwardAuth(Middleware):
    """Asks another server about each request, with its head and without its body; X-Forwarded-Method, -Uri, -Proto,
    -Host and -For say what is asked for, whatever the client says. An answer of 2xx lets the request pass. Any other
    goes to the client as it is, with its status, fields and body (1 MiB at the most): a redirect to a page to log in
    on, a 401 with its challenge. When there is no answer in time, or one of 5xx, or one that can't be passed on, the
    request is refused with 503 `auth_unavailable`.

    Order: inside of limits, which protect the server that is asked, and of cors; outside of whatever uses the fields
    that it gives."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "forward_auth", url = "http://127.0.0.1:9006/check", copy_headers = ["x-user"] }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._url = without_credentials(options.url)  # for the log
        self._server = place.clients.server(options.url, ca=options.ca, key=f"{place.layer}: ca")
        self._method = options.method.encode()
        self._patience = Patience(total=options.timeout)
        self._copied = frozenset(name.encode() for name in options.copy_headers)
        self._hidden = _OF_THE_BODY | _OURS | (self._copied - _CREDENTIALS)
        self._shown = None
        if options.request_headers is not None:
            self._shown = frozenset(name.encode() for name in options.request_headers) - _FRAMING - self._hidden
        self._user = options.user_header.encode() if options.user_header is not None else None
        self._copies_cookies = options.copy_cookies
        self._fails_open = options.fail_open
        self._lasts = options.cache or 0.0
        names = [_PSEUDO.get(name, name.encode()) for name in options.cache_key]
        # Of what is said the number of each, of fields their names.
        self._key_names = [_SAID.index(name) if name in _SAID else name for name in names]
        self._decisions = Decisions(os.urandom(32), _MOST_DECISIONS, _MOST_BYTES, _LARGEST)
        # A request of ours that comes back to where it was made would be asked about, and so on without end.
        who = f"{socket.gethostname()}\0{place.identity}\0{options.url}".encode()
        self._via = b"gateway-auth-" + blake2s(who, digest_size=6).hexdigest().encode()
        self._is_down = False
        self._is_odd = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange, head = scope["gateway"], scope["headers"]
        via = head.special.get(b"via")
        if via is not None and any(hop.split()[1:2] == [self._via] for hop in tokens(via)):
            await self._place.refuse(exchange, send, "loop_detected")
            return
        said = _said(exchange, head)
        key = b""
        if self._lasts:
            key = self._decisions.key(self._key_parts(said, head))
            known = self._decisions.get(key, monotonic())
            if known is not None:
                await self._carry_out(known, scope, receive, send)
                return
        try:
            reply = await self._server.open(self._method, self._question(said, head, via), patience=self._patience)
            try:
                status = reply.head.status
                if status >= 500:
                    raise _Unfit(self._url, f"answered {status}")
                if self._is_down:
                    self._is_down = False
                    log.info("%s answers again", self._url)
                if not 200 <= status < 300:
                    await self._deny(exchange, send, reply, key)
                    return
                decision, cookies = self._pass(reply), _cookies(reply)
            finally:
                reply.discard()
        except UpstreamError as error:
            if exchange.begun:
                raise  # in the middle of the answer: the client must see that it is cut
            await self._without(scope, receive, send, error)
            return
        if key and not cookies:
            self._remember(key, decision, reply)
        if cookies and self._copies_cookies:
            send = _also(send, cookies)
        await self._carry_out(decision, scope, receive, send)

    # The question.

    def _question(self, said: Said, head: RequestHead, via: bytes | None) -> bytes:
        """The field lines that the server is shown."""
        if self._shown is None:
            lines = head.fields.without(self._hidden).ordinary
            if head.added:
                lines += b"".join([_line(*pair) for pair in _pairs(head.added) if pair[0] not in self._hidden])
        else:
            lines = b"".join([_line(*pair) for pair in head.pairs() if pair[0] in self._shown])
        told = [_line(name, value) for name, value in zip(_SAID, said, strict=True) if value]
        return b"".join((lines, *told, b"\r\nvia: ", via + b", " if via else b"", b"1.1 ", self._via))

    def _key_parts(self, said: Said, head: RequestHead) -> list[bytes]:
        """What makes requests alike, as the server is told of it; of fields every one of a name, for it sees them
        all."""
        parts = []
        pairs = head.pairs()
        for name in self._key_names:
            if isinstance(name, int):
                parts.append(said[name])
            else:
                values = [value for known, value in pairs if known == name]
                parts += [b"%d" % len(values), *values]
        return parts

    # The answer.

    def _pass(self, reply: Reply) -> Decision:
        lines = b""
        if self._copied:
            lines = b"".join([_line(*pair) for pair in reply.head.pairs() if pair[0] in self._copied])
        user = reply.head.value(self._user) if self._user is not None else None
        return Decision(True, lines, (user or b"").decode("utf-8", "replace"))

    async def _deny(self, exchange: Any, send: Send, reply: Reply, key: bytes) -> None:
        """Pass a refusal on, as its body comes. One that can't be passed on is a refusal all the same."""
        head = reply.head
        fields = tuple(head.pairs())
        if self._method == b"HEAD":
            fields = (*(pair for pair in fields if pair[0] not in _OF_NO_BODY), (b"content-length", b"0"))
        if head.length > _LONGEST_ANSWER:
            await self._refuse_alone(exchange, send, f"its answer has {head.length} bytes")
            return
        if key and head.status in _REMEMBERED and 0 <= head.length <= _LARGEST:
            try:
                body = await reply.whole(_LARGEST)
            except UpstreamError as error:
                await self._refuse_alone(exchange, send, error)
                return
            decision = Decision(False, status=head.status, fields=fields, body=body)
            if not any(name == b"set-cookie" for name, _ in fields):
                self._remember(key, decision, reply)
            await self._refuse(exchange, send, decision)
            return
        self._denied(exchange)
        await send({"type": "http.response.start", "status": head.status, "headers": [*fields]})
        if exchange.method != b"HEAD":
            async for part in reply.parts(_LONGEST_ANSWER):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, exchange: Any, send: Send, decision: Decision) -> None:
        self._denied(exchange)
        await send({"type": "http.response.start", "status": decision.status, "headers": [*decision.fields]})
        body = decision.body if exchange.method != b"HEAD" else b""
        await send({"type": "http.response.body", "body": body})

    async def _refuse_alone(self, exchange: Any, send: Send, why: object) -> None:
        """Without the answer that refused."""
        if not self._is_odd:
            self._is_odd = True
            log.warning("%s refused a request with an answer that can't be passed on: %s", self._url, why)
        await self._place.refuse(exchange, send, "auth_unavailable")

    def _denied(self, exchange: Any) -> None:
        self._place.refused()
        exchange.reason = "auth_denied"
        exchange.begun = True

    def _carry_out(self, decision: Decision, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if not decision.passes:
            return self._refuse(scope["gateway"], send, decision)
        if self._copied:
            head: RequestHead = scope["headers"]
            head.drop(self._copied)
            if decision.lines:
                head.add(decision.lines)
        if decision.user:
            scope["gateway"].user = decision.user
        return self._app(scope, receive, send)

    async def _without(self, scope: Scope, receive: Receive, send: Send, error: UpstreamError) -> None:
        """The server can't be asked."""
        passes = self._fails_open and not isinstance(error, _OUR_OWN)
        if not self._is_down:
            self._is_down = True
            what = "requests pass unasked" if passes else "requests are refused"
            log.warning("%s can't be asked, %s: %s", self._url, what, error)
        if passes:
            await self._carry_out(Decision(True), scope, receive, send)
        else:
            await self._place.refuse(scope["gateway"], send, "auth_unavailable")

    def _remember(self, key: bytes, decision: Decision, reply: Reply) -> None:
        said = reply.head.value(b"cache-control") or b""
        lasts = self._lasts
        if said:
            said = said.lower()
            if b"no-store" in said or b"no-cache" in said:
                return
            found = _MAX_AGE.search(said)
            if found is not None:
                lasts = min(lasts, float(found[1]))
        if lasts > 0:
            self._decisions.keep(key, decision, monotonic() + lasts)


class _Unfit(UpstreamError):
    """An answer that decides nothing."""

    reason = "auth_unavailable"


# A request, in the order of _SAID: b"" for what there is not.
Said = tuple[bytes, bytes, bytes, bytes, bytes]


def _said(exchange: Any, head: RequestHead) -> Said:
    client = exchange.client
    return (
        exchange.method,
        exchange.target,
        exchange.scheme.encode(),
        head.value(b"x-forwarded-host") or exchange.host,
        client.encode() if client != UNIX else b"",
    )


def _cookies(reply: Reply) -> bytes:
    """The lines that set cookies, CRLF before each."""
    if reply.head.value(b"set-cookie") is None:
        return b""
    return b"".join([_line(*pair) for pair in reply.head.pairs() if pair[0] == b"set-cookie"])


def _also(send: Send, lines: bytes) -> Send:
    """A send that puts these fields into the response."""

    def tell(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = amended(message, frozenset(), lines)
        return send(message)

    return tell


def _line(name: bytes, value: bytes) -> bytes:
    return b"\r\n%b: %b" % (name, value)


def _pairs(lines: bytes) -> list[Pair]:
    """Field lines, CRLF before each, as pairs of lower-case names and values."""
    pairs = (line.partition(b":") for line in lines.split(b"\r\n")[1:])
    return [(name.lower(), value.strip(b" \t")) for name, _, value in pairs]
