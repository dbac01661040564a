"""From http to https."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Literal

from gateway.config.addresses import Port
from gateway.config.http import RedirectStatus, UrlPath
from gateway.middleware.content.location import in_location
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base

# A path with one of these may be read as another one further inside, and so is no exception.
_CROOKED = re.compile(rb"[%\\;]|/\.|//")


class Options(Base):
    kind: Literal["redirect_https"] = "redirect_https"
    """Sends clients that come by http to https."""
    status: RedirectStatus = 308
    """301, 302, 303, 307 or 308. With 307 and 308 the client repeats its method and body."""
    port: Port = 443
    """Where https is spoken."""
    except_paths: tuple[UrlPath, ...] = ("/.well-known/acme-challenge/",)
    """Paths below these are served by http as well. As it is, those by which a certificate authority asks for the proof
    that a name is yours (RFC 8555)."""


class RedirectHttps(Middleware):
    """Answers a request that came by http with a redirect to the same place by https; one that came by https goes on.
    How it came says the listener: behind a proxy that ends TLS, `trusted_proxies` must name that proxy. The host is
    that of the request, its port is `port`. A request without a host is answered 400 (`host_missing`). It reads no
    body, and it sends no Strict-Transport-Security: `security_headers` does.

    Order: outermost, before anything is decided by what came over the open network."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "redirect_https" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._status = options.status
        self._port = b"" if options.port == 443 else b":%d" % options.port
        self._except = tuple([path.encode() for path in options.except_paths])
        body = f"{options.status} {HTTPStatus(options.status).phrase}: use https\n".encode()
        self._fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        self._body = {"type": "http.response.body", "body": body}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = scope["gateway"]
        if exchange.scheme == "https":
            return self._app(scope, receive, send)
        return self._by_http(scope, receive, send)

    async def _by_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange, target = scope["gateway"], scope["headers"].target
        if self._is_excepted(target.partition(b"?")[0]):
            await self._app(scope, receive, send)
            return
        host = _without_port(exchange.host)
        if not host:
            await self._place.refuse(exchange, send, "host_missing")
            return
        if not target.startswith(b"/"):
            target = b"/"  # "*"
        target = in_location(target)
        exchange.begun = True
        fields = [(b"location", b"https://%b%b%b" % (host, self._port, target)), *self._fields]
        await send({"type": "http.response.start", "status": self._status, "headers": fields})
        await send(self._body)

    def _is_excepted(self, path: bytes) -> bool:
        for prefix in self._except:
            if path.startswith(prefix):
                return _CROOKED.search(path, len(prefix) - 1) is None
        return False


def _without_port(authority: bytes) -> bytes:
    """The host of an authority that is known to be one."""
    host, colon, port = authority.rpartition(b":")
    return host if colon and b"]" not in port else authority
