"""A route that sends its clients elsewhere."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from gateway.config.model import Redirect as RedirectConfig
from gateway.proxy.paths import escaped


class Redirect:
    """An ASGI application whose answer is a Location. Of a request only the query gets into it, and only behind a "?":
    no link can be made that leads elsewhere."""

    def __init__(self, config: RedirectConfig) -> None:
        self._status = config.status
        self._keep_query = config.keep_query
        target, hash_, fragment = config.to.encode().partition(b"#")
        self._before = target
        self._between = b"&" if b"?" in target else b"?"
        self._after = hash_ + fragment
        body = f"{config.status} {HTTPStatus(config.status).phrase}: {config.to}\n".encode()
        self._fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        self._body = {"type": "http.response.body", "body": body}

    def location(self, query: bytes) -> bytes:
        """Where a request with this query is sent."""
        if not query or not self._keep_query:
            return self._before + self._after
        return self._before + self._between + escaped(query) + self._after

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"location", self.location(scope["query_string"])), *self._fields]
        await send({"type": "http.response.start", "status": self._status, "headers": fields})
        await send(self._body)
