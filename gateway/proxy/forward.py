"""The heart: carries one request to an endpoint and its response back.

Everything streams: a part is passed on before the next is read, and whoever is slower is waited for. The response is
read while the request body may still be on its way, so an origin can refuse early. Nothing that was sent is sent twice
unless `retry.py` says so.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from gateway.errors import NoEndpoint, UpstreamError
from gateway.metrics.plan import UPSTREAM_RETRIES
from gateway.parts import WRITE
from gateway.proxy.headers import outbound
from gateway.proxy.retry import again, elsewhere
from gateway.scoreboard import Cells
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.http1 import Connection
from gateway.upstream.upstream import Upstream
from gateway.wire import RequestHead

# A kept connection may turn out closed, and so may the next; a third time it is not a coincidence.
_MOST_AGAIN = 2


class Forward:
    """An ASGI application: a route's way to its upstream."""

    def __init__(self, upstream: Upstream, via: bytes, cells: Cells) -> None:
        self._upstream = upstream
        self._via = via
        self._cells = cells

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["gateway"]
        head: RequestHead = scope["headers"]
        tried: tuple[Endpoint, ...] = ()
        failure: UpstreamError | None = None
        repeats = 0
        while True:
            try:
                with self._upstream.lease(b"", tried) as lease:
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
                    last = await self._carry(exchange, head, connection, receive, send)
                break
            except NoEndpoint:
                if failure is not None:
                    raise failure from None  # why the ones that were asked failed says more than that none is left
                raise
            except UpstreamError as error:
                if exchange.answered:
                    raise
                if elsewhere(error):
                    tried = (*tried, endpoint)
                elif again(error, head.method, head.length != 0) and repeats < _MOST_AGAIN:
                    repeats += 1
                else:
                    raise
                failure = error
                exchange.retries += 1
                self._cells[endpoint.cells + UPSTREAM_RETRIES] += 1
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _carry(self, exchange: Any, head: RequestHead, connection: Connection, receive: Any, send: Any) -> bytes:
        """Send the request, pass the response on but for its last part, which is returned: by then the connection is
        free again and need not wait for a slow client."""
        request = outbound(head, exchange.forwarded, self._via, connection.endpoint.name.encode())
        bodyless = head.method == b"HEAD"
        pump = None
        if not head.length:
            connection.send(request, bodyless, more=False)
        elif 0 < head.length <= WRITE and exchange.received:
            body = (await receive())["body"]  # all of it: what is there and small is handed over in one part
            connection.send(request + body, bodyless, more=False)
        else:
            connection.send(request, bodyless, more=True)
            pump = asyncio.get_running_loop().create_task(_pump(connection, receive, head.length < 0))
        try:
            response = await connection.response()
            exchange.first_byte = monotonic() - exchange.started
            await send({"type": "http.response.start", "status": response.status, "headers": response})
            while True:
                part = connection.take()
                if connection.over:
                    return part
                # The first turn flushes the head even when no byte of the body has come yet.
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await connection.arrival()
        finally:
            if pump is not None:
                pump.cancel()


async def _pump(connection: Connection, receive: Any, chunked: bool) -> None:
    """Pass the request body on until it ends or the connection does."""
    more = True
    while more and not connection.closed:
        message = await receive()
        if message["type"] != "http.request":
            return
        body, more = message["body"], message["more_body"]
        pieces: tuple[bytes, ...]
        if not chunked:
            pieces = (body,)
        elif body:
            pieces = (b"%x\r\n" % len(body), body, b"\r\n" if more else b"\r\n0\r\n\r\n")
        else:
            pieces = (b"" if more else b"0\r\n\r\n",)
        await connection.send_body(pieces, more)
