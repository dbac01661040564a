"""Asking other servers beside the data path: who may do this, what keys there are, what a hook wants to know.

The connections are the data path's own (`pool.py`, `http1.py`), over TLS where the URL says so. Where they lead is no
endpoint of an upstream: nobody judges it, and it has no series. Nothing is added to a request but Host and what frames
it, no redirect is followed, and no cookie kept: one client's must never be sent with another's request.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterable, Iterable
from time import monotonic
from typing import NamedTuple

from gateway.config.upstreams import Pool as PoolConfig
from gateway.config.upstreams import UpstreamTimeouts
from gateway.config.values import HttpUrl, parse_http_url
from gateway.errors import ConnectionCut, ConnectTimeout, OutOfTime, UpstreamError
from gateway.metrics.plan import CELLS
from gateway.scoreboard import Cells
from gateway.tls import Tls, client_context
from gateway.upstream.http1 import Connection
from gateway.upstream.lifetime import NEVER
from gateway.upstream.pool import Pool
from gateway.upstream.remote import Remote
from gateway.upstream.reply import MOST_BODY, TIMEOUT, Patience, Reply, end, send_parts
from gateway.wheel import TICK, Wheel
from gateway.wire import Pair

# Pools that are kept. A configuration asks a handful of servers; a plug-in that asks any server there is must not make
# us keep a pool for each.
_MOST_POOLS = 64
# Requests that may be made twice though they may have arrived (RFC 9110, section 9.2.2).
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
# With these a body is expected, and that there is none must be said (RFC 9110, section 8.6).
_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))
# Ours to say: where a request goes and how it is framed.
_OURS = frozenset(
    (
        b"host",
        b"connection",
        b"content-length",
        b"expect",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_TARGET = re.compile(rb"[\x21\x22\x24-\x7e\x80-\xff]+")


class Answer(NamedTuple):
    """A whole response."""

    status: int
    fields: list[Pair]  # lower-case names; without those that concern one hop only
    body: bytes

    def value(self, name: bytes) -> bytes | None:
        """The first field of this lower-case name."""
        return next((value for known, value in self.fields if known == name), None)


class Clients:
    """The servers that one process asks. Needs a running event loop not before one is asked."""

    def __init__(self, wheel: Wheel, cells: Cells, most_pools: int = _MOST_POOLS) -> None:
        """cells: the seat of this process, which counts the connections."""
        self._wheel = wheel
        self._cells = cells
        # What pools count of endpoints, of all of them together: nobody reads it.
        self._series: Cells = memoryview(bytearray(8 * CELLS["upstream"])).cast("Q")
        self._most = most_pools
        self._pools: OrderedDict[tuple[str, ssl.SSLContext | None, str], Pool] = OrderedDict()
        self._contexts: dict[tuple[str | None, bool], ssl.SSLContext] = {}

    def server(
        self,
        url: str | HttpUrl,
        *,
        ca: str | None = None,
        verify: bool = True,
        server_name: str | None = None,
        key: str = "ca",
    ) -> Server:
        """The server of a URL. ca: a file with the certificates that are trusted, None for the system's. server_name:
        what its certificate must be for, its host when absent. key: where the configuration names the file.

        Raises ValueError for what is no URL, StartError for a file that holds no certificates.
        """
        where = parse_http_url(url) if isinstance(url, str) else url
        tls = None
        if where.is_https:
            context = self._contexts.get((ca, verify))
            if context is None:
                context = self._contexts[ca, verify] = client_context(key, ca, verify)
            tls = Tls(context, server_name or where.peer.host)
        return Server(self, where, tls)

    async def ask(
        self,
        method: bytes,
        url: str | HttpUrl,
        fields: Iterable[Pair] = (),
        body: bytes = b"",
        *,
        within: float = TIMEOUT,
        most: int = MOST_BODY,
        ca: str | None = None,
    ) -> Answer:
        """One request and its whole answer. Who asks often keeps the `server`. Raises as that does, and
        UpstreamError."""
        return await self.server(url, ca=ca).ask(method, lines_of(fields), body, within=within, most=most)

    def pool(self, where: HttpUrl, tls: Tls | None) -> Pool:
        """The pool for a server; the one that was not asked for longest makes room."""
        pools = self._pools
        key = (where.origin, tls.context if tls else None, tls.server_name if tls else "")
        pool = pools.get(key)
        if pool is not None:
            pools.move_to_end(key)
            return pool
        remote = Remote("sub-request", where.origin, where.peer, where.authority.encode(), 0)
        pool = Pool(remote, PoolConfig(), UpstreamTimeouts(), self._wheel, self._cells, tls=tls, series=self._series)
        remote.pool = pools[key] = pool
        if len(pools) > self._most:
            pools.popitem(last=False)[1].close()
        return pool

    def close(self) -> None:
        """Keep no connection any more: idle ones are closed now, busy ones when they are done."""
        pools, self._pools = self._pools, OrderedDict()
        for pool in pools.values():
            pool.close()

    def __repr__(self) -> str:
        return f"<Clients {len(self._pools)} pools>"


class Server:
    """One of them, with a resource that is asked for where no other target is given."""

    __slots__ = ("_clients", "_host", "_target", "_tls", "url")

    def __init__(self, clients: Clients, url: HttpUrl, tls: Tls | None) -> None:
        self._clients = clients
        self._tls = tls
        self._target = url.target.encode()
        self._host = url.authority.encode()
        self.url = url

    async def ask(
        self,
        method: bytes = b"GET",
        lines: bytes = b"",
        body: bytes = b"",
        *,
        target: bytes | None = None,
        host: bytes | None = None,
        within: float = TIMEOUT,
        most: int = MOST_BODY,
    ) -> Answer:
        """A request and its whole answer. lines: field lines, CRLF before each, that are known to be well-formed
        (`lines_of`). within: seconds for all of it. most: bytes of the answer's body. Raises UpstreamError."""
        patience = Patience(total=within)
        reply = await self.open(method, lines, body, target=target, host=host, patience=patience)
        try:
            return Answer(reply.head.status, reply.head.pairs(), await reply.whole(most))
        finally:
            reply.close()

    async def open(
        self,
        method: bytes = b"GET",
        lines: bytes = b"",
        body: bytes | AsyncIterable[bytes] = b"",
        *,
        length: int = -1,
        target: bytes | None = None,
        host: bytes | None = None,
        patience: Patience | None = None,
    ) -> Reply:
        """A request, and its answer as it begins: who gets that must `close` it. length: bytes of a body that comes in
        parts, -1 when nobody knows. Raises UpstreamError, and whatever the body raises."""
        patience = patience or Patience()
        until = NEVER if patience.total is None else monotonic() + patience.total
        pool = self._clients.pool(self.url, self._tls)
        head = b"%b %b HTTP/1.1\r\nhost: %b%b" % (method, target or self._target, host or self._host, lines)
        if not isinstance(body, bytes):
            framing = b"transfer-encoding: chunked" if length < 0 else b"content-length: %d" % length
            head += b"\r\n%b\r\n\r\n" % framing
        elif body or method in _WITH_BODY:
            head += b"\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        else:
            head += b"\r\n\r\n"
        repeatable = method in _IDEMPOTENT and isinstance(body, bytes)
        connection = pool.take(repeatable)
        if connection is not None:
            try:
                return await self._exchange(pool, connection, head, method, body, length, patience, until)
            except ConnectionCut as error:
                # A kept connection that the server was just closing. Nobody has read anything of the body's parts
                # when not one byte was sent.
                if error.sent and not repeatable:
                    raise
        connection = await self._connect(pool, patience, until)
        return await self._exchange(pool, connection, head, method, body, length, patience, until)

    async def _connect(self, pool: Pool, patience: Patience, until: float) -> Connection:
        left = until - monotonic()
        within = left if patience.connect is None else min(left, patience.connect)
        try:
            return await pool.acquire(None if within == NEVER else max(0.0, within))
        except ConnectTimeout as error:
            if monotonic() + TICK >= until:  # the event loop's clock is coarser, and may be early by ours
                raise OutOfTime(error.endpoint, "no connection before the time for the request was over") from None
            raise

    async def _exchange(
        self,
        pool: Pool,
        connection: Connection,
        head: bytes,
        method: bytes,
        body: bytes | AsyncIterable[bytes],
        length: int,
        patience: Patience,
        until: float,
    ) -> Reply:
        pump: asyncio.Task[None] | None = None
        try:
            more = not isinstance(body, bytes)
            connection.send(head, method == b"HEAD", more, within=patience.response, until=until)
            if not isinstance(body, bytes):
                pump = asyncio.get_running_loop().create_task(send_parts(connection, body, length), name="sub-request")
            response = await connection.response()
            while response.status < 200:
                response = await connection.response()
        except BaseException as error:
            end(pool, connection, pump)
            if isinstance(error, UpstreamError) and pump is not None and pump.done() and not pump.cancelled():
                failure = pump.exception()
                if failure is not None:
                    raise failure from None  # the body ended the exchange, not the server
            raise
        return Reply(pool, connection, pump, response, patience, until)


def lines_of(fields: Iterable[Pair]) -> bytes:
    """Field lines, CRLF before each, without those that are ours to say. Raises ValueError for what would be another
    field, or none."""
    lines = []
    for name, value in fields:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"not a header field: {name[:60]!r}")
        if name.lower() not in _OURS:
            lines.append(b"\r\n%b: %b" % (name, value))
    return b"".join(lines)


def checked_target(target: bytes) -> bytes:
    """A request target as it is. Raises ValueError for what can't stand in a request line."""
    if not _TARGET.fullmatch(target):
        raise ValueError(f"not a request target: {target[:60]!r}")
    return target
