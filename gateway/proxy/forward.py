"""The heart: carries one request to an endpoint and its response back.

Everything streams: a part is passed on before the next is read, and whoever is slower is waited for. The response is
read while the request body may still be on its way, so an origin can refuse early. Nothing that was sent is sent twice
unless `retry.py` says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache, partial
from time import monotonic
from typing import Any

from gateway.errors import NoEndpoint, UpstreamError
from gateway.metrics.plan import UPSTREAM_RETRIES
from gateway.parts import WRITE
from gateway.proxy.answers import answer
from gateway.proxy.hash_key import HashKey
from gateway.proxy.headers import (
    asking_lines,
    hops_malformed,
    last_hop,
    outbound,
    traced,
    upgrade_asked,
    went_round,
)
from gateway.proxy.retry import again, elsewhere
from gateway.proxy.rewrite import Mapping, Rewrite, join, mapped_back
from gateway.proxy.tunnel import Tunnel
from gateway.scoreboard import Cells
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.http1 import Connection
from gateway.upstream.upstream import Upstream
from gateway.wire import RequestHead, ResponseHead, passable_trailers, trailer_section

# A kept connection may turn out closed, and so may the next; a third time it is not a coincidence.
_MOST_AGAIN = 2

# Endpoints may come and go.
_MOST_MAPPINGS = 1024

_PREFIX = re.compile(rb"\r\nx-forwarded-prefix: ([^\r\n]*)")

Trailers = list[tuple[bytes, bytes]]


class Forward:
    """An ASGI application: a route's way to its upstream."""

    def __init__(
        self,
        upstream: Upstream,
        via: bytes,
        cells: Cells,
        tunnel: Tunnel,
        upgrade: Collection[bytes] | None,
        rewrite: Rewrite | None,
        key: HashKey | None,
    ) -> None:
        """via: our name; upgrade: the protocols that may be switched to, in lower case, None for any; key: what the
        upstream's balancer goes by, None when it goes by nothing."""
        self._upstream = upstream
        self._via = via
        self._cells = cells
        self._tunnel = tunnel
        self._upgrade = upgrade
        self._rewrite = rewrite
        self._key = key
        self._prefix = rewrite.prefix if rewrite is not None else b""
        self._mapping = lru_cache(_MOST_MAPPINGS)(partial(Mapping.of, rewrite))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["gateway"]
        head: RequestHead = scope["headers"]
        upgrade = b""
        if head.fields.asking:
            if await self._is_over_here(exchange, head, send):
                return
            upgrade = upgrade_asked(head, self._upgrade)
        if self._prefix:
            head.introduced = self._with_prefix(head.introduced or b"")
        key = b"" if self._key is None else self._key(exchange, head)
        tried: tuple[Endpoint, ...] = ()
        failure: UpstreamError | None = None
        repeats = 0
        while True:
            try:
                with self._upstream.lease(key, tried) as lease:
                    endpoint = lease.endpoint
                    exchange.endpoint = endpoint.name
                    connection = None if repeats else lease.take()
                    if connection is not None:
                        exchange.reused = True
                    else:
                        exchange.reused = False
                        began = monotonic()
                        connection = await lease.connect()
                        exchange.connect_time = monotonic() - began
                    last, trailers = await self._carry(exchange, head, upgrade, connection, receive, send)
                break
            except NoEndpoint:
                if failure is not None:
                    raise failure from None  # why the ones that were asked failed says more than that none is left
                raise
            except UpstreamError as error:
                if exchange.answered:
                    raise
                if elsewhere(error, head.method, head.length != 0) and (not error.sent or repeats < _MOST_AGAIN):
                    tried = (*tried, endpoint)
                    repeats += error.sent
                elif again(error, head.method, head.length != 0) and repeats < _MOST_AGAIN:
                    repeats += 1
                else:
                    raise
                failure = error
                exchange.retries += 1
                self._cells[endpoint.cells + UPSTREAM_RETRIES] += 1
        if last is not None:
            await send({"type": "http.response.body", "body": last, "more_body": False})
            if trailers is not None:
                await send({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})

    async def _is_over_here(self, exchange: Any, head: RequestHead, send: Any) -> bool:
        """Answer what must not go any further: what went round, and what has no hop left (RFC 9110, section 7.6)."""
        if went_round(head, self._via):
            await answer(exchange, send, "loop_detected")
        elif hops_malformed(head):
            await answer(exchange, send, "max_forwards_malformed")
        elif last_hop(head):
            if head.method == b"TRACE":
                body, kind = traced(head), b"message/http"
            else:
                body, kind = b"", b"text/plain"
            headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            return False
        return True

    def _request(self, head: RequestHead, upgrade: bytes, endpoint: Endpoint, expect: bool) -> bytes:
        """The head as the endpoint gets it."""
        asking = asking_lines(head, upgrade, expect) if head.fields.asking else b""
        lines = head.lines
        if self._rewrite is not None or endpoint.base:
            target = head.target if self._rewrite is None else self._rewrite.target(head.target)
            lines = head.lines_to(join(endpoint.base, target))
        host = endpoint.host or head.special.get(b"host") or endpoint.authority
        return outbound(head, lines, host, self._via, asking)

    def _with_prefix(self, introduced: bytes) -> bytes:
        """The lines about the client, with one that tells of the prefix that is stripped: behind what a trusted proxy
        has stripped before us."""
        before = _PREFIX.search(introduced)
        if before is None:
            return introduced + b"\r\nx-forwarded-prefix: " + self._prefix
        return introduced[: before.end()].rstrip(b"/") + self._prefix + introduced[before.end() :]

    async def _carry(
        self, exchange: Any, head: RequestHead, upgrade: bytes, connection: Connection, receive: Any, send: Any
    ) -> tuple[bytes | None, Trailers | None]:
        """Send the request, pass the response on but for its last part, which is returned with its trailers: by then
        the connection is free again and need not wait for a slow client. None for a part when all is over."""
        endpoint = connection.endpoint
        bodyless = head.method == b"HEAD"
        pump = None
        if not head.length:
            request = self._request(head, upgrade, endpoint, False)
            connection.send(request, bodyless, more=False, upgrade=upgrade != b"")
        elif 0 < head.length <= WRITE and exchange.received:
            body = (await receive())["body"]  # all of it: what is there and small is handed over in one part
            request = self._request(head, b"", endpoint, exchange.expects and not endpoint.is_old)
            connection.send(request + body, bodyless, more=False)
        else:
            # An endpoint of HTTP/1.0 knows nothing of a 100: there it is us who ask for the body.
            expecting = exchange.expecting and not endpoint.is_old
            request = self._request(head, b"", endpoint, exchange.expects and not endpoint.is_old)
            connection.send(request, bodyless, more=True, expecting=expecting)
            pump = exchange.listener.loop.create_task(_pump(exchange, head, connection, receive, expecting))
        try:
            response = await connection.response()
            while response.status < 200:
                if response.status == 101:
                    await self._tunnel.run(exchange, connection, response, upgrade, send)
                    return None, None
                await send({"type": "http.response.interim", "status": response.status, "headers": response})
                response = await connection.response()
            exchange.first_byte = monotonic() - exchange.started
            endpoint.is_old = not response.minor
            if self._rewrite is not None or endpoint.base or endpoint.host:
                response = self._mapped_back(exchange, response, endpoint)
            trailing = response.length == -1
            await send(
                {"type": "http.response.start", "status": response.status, "headers": response, "trailers": trailing}
            )
            while True:
                part = connection.take()
                if connection.over:
                    return part, passable_trailers(connection.trailers, response) if trailing else None
                # The first turn flushes the head even when no byte of the body has come yet.
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await connection.arrival()
        finally:
            if pump is not None:
                pump.cancel()

    def _mapped_back(self, exchange: Any, response: ResponseHead, endpoint: Endpoint) -> ResponseHead:
        """The response with its locations and cookies as the client knows them."""
        mapping = self._mapping(endpoint.base, endpoint.authority, endpoint.host)
        if mapping is None:
            return response
        block = response.fields.block
        mapped = mapped_back(block, mapping, exchange.scheme.encode(), exchange.host)
        return response if mapped is block else response.with_fields(mapped)


async def _pump(exchange: Any, head: RequestHead, connection: Connection, receive: Any, expecting: bool) -> None:
    """Pass the request body on until it ends or the connection does. expecting: the endpoint asks for it first."""
    if expecting:
        await exchange.prompted()
    chunked = head.length < 0
    more = True
    while more and not connection.closed:
        message = await receive()
        if message["type"] != "http.request":
            return
        body, more = message["body"], message["more_body"]
        pieces: tuple[bytes, ...]
        if not chunked:
            pieces = (body,)
        else:
            end = b"" if more else trailer_section(passable_trailers(exchange.trailers, head))
            pieces = (b"%x\r\n" % len(body), body, b"\r\n" + end) if body else (end,)
        await connection.send_body(pieces, more)
