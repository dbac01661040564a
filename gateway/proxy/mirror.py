"""Copies of a route's requests for another upstream, which nobody waits for.

The body is kept as it passes, by reference, while the primary streams it; once the request is whole a task of its own
sends the copy. Whatever is too much is not copied, and that is counted: a body above its limit, more bytes held than
the copies that may be under way could have, a copy too many, an upstream that is not ready. The primary never waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from copy import copy
from typing import Any

from gateway.config.model import Mirror as MirrorConfig
from gateway.config.upstreams import Upstream as UpstreamConfig
from gateway.errors import ConnectFailed, ConnectionCut, ConnectTimeout, UpstreamError
from gateway.metrics.plan import MIRROR_DROPPED, MIRROR_FAILED, MIRROR_SENT
from gateway.parts import add
from gateway.proxy.hash_key import HashKey
from gateway.proxy.headers import (
    hops_malformed,
    last_hop,
    upgrade_asked,
    with_prefix,
)
from gateway.proxy.onward import Onward
from gateway.proxy.retry import IDEMPOTENT
from gateway.proxy.rewrite import Rewrite
from gateway.scoreboard import Cells
from gateway.upstream.http1 import Connection
from gateway.upstream.upstream import Upstream
from gateway.wire import Pair, RequestHead, passable_trailers, trailer_section, went_round

log = logging.getLogger("gateway.proxy")

# What is read of an answer so that its connection can be used again; a longer one costs the connection.
_DISCARDED = 64 * 1024


class _Copy:
    """A request without its client. size: bytes of body that are held for it."""

    __slots__ = ("head", "key", "parts", "size", "trailers")

    def __init__(self, head: RequestHead, key: bytes) -> None:
        self.head = head
        self.key = key
        self.parts: list[bytes] = []
        self.size = 0
        self.trailers: list[Pair] = []


class Copies:
    """Where the copies of one route go, and how many are under way."""

    def __init__(
        self,
        upstream: Upstream,
        upstream_config: UpstreamConfig,
        config: MirrorConfig,
        via: bytes,
        rewrite: Rewrite | None,
        key: HashKey | None,
        cells: Cells,
        at: int,
    ) -> None:
        """via: our name; key: what the upstream's balancer goes by, None when it goes by nothing; at: where the cells
        of its series start."""
        self._upstream = upstream
        self._onward = Onward(via, rewrite)
        self._prefix = rewrite.prefix if rewrite is not None else b""
        self._key = key
        self._cells = cells
        self._at = at
        self._most = config.max_requests
        self._longest = config.body
        self._room = config.body * config.max_requests  # bytes of bodies, of copies that become whole and of whole ones
        self._held = 0
        self._tasks: set[asyncio.Task[None]] = set()
        times = upstream_config.timeouts
        # Each wait has its own limit; together they are one for what always goes on a little.
        self._time = upstream_config.pool.queue_timeout + times.connect + times.response + times.idle

    def begun(self, exchange: Any, head: RequestHead) -> _Copy | None:
        """A copy of a request, without its body yet; None when the body is known to be too large."""
        if head.length > self._longest:
            self._count(MIRROR_DROPPED)
            return None
        key = b"" if self._key is None else self._key(exchange, head)
        mine = copy(head)
        if self._prefix:
            mine.introduced = with_prefix(head.introduced or b"", self._prefix)
        return _Copy(mine, key)

    def keeps(self, one: _Copy, body: bytes) -> bool:
        """Hold a part of the body. False when there is no room: then there is no copy."""
        size = len(body)
        if one.size + size > self._longest or self._held + size > self._room:
            self.drop(one)
            return False
        one.size += size
        self._held += size
        add(one.parts, body)
        return True

    def drop(self, one: _Copy) -> None:
        """There will be no copy, though there could have been one."""
        self._count(MIRROR_DROPPED)
        self.forget(one)

    def forget(self, one: _Copy) -> None:
        self._held -= one.size
        one.size = 0
        one.parts = []

    def send(self, one: _Copy, loop: asyncio.AbstractEventLoop) -> None:
        """The request is whole: send it, as soon as the event loop comes to it."""
        if len(self._tasks) >= self._most:
            self.drop(one)
            return
        task = loop.create_task(self._send(one), name="mirror")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self, outcome: int) -> None:
        self._cells[self._at + outcome] += 1

    async def _send(self, one: _Copy) -> None:
        try:
            async with asyncio.timeout(self._time):
                try:
                    await self._carry(one, is_first=True)
                except ConnectionCut as error:
                    # A kept connection that was closed as we wrote says nothing about the endpoint.
                    if not error.reused or one.head.method not in IDEMPOTENT:
                        raise
                    await self._carry(one, is_first=False)
        except UpstreamError as error:
            tried = error.sent or isinstance(error, ConnectFailed | ConnectTimeout)
            self._count(MIRROR_FAILED if tried else MIRROR_DROPPED)
        except TimeoutError:
            self._count(MIRROR_FAILED)
        except Exception:
            log.exception("a copy of %r failed", one.head.target)
            self._count(MIRROR_FAILED)
        else:
            self._count(MIRROR_SENT)
        finally:
            self.forget(one)

    async def _carry(self, one: _Copy, is_first: bool) -> None:
        """Send it on a kept connection or a new one, and throw the answer away."""
        with self._upstream.lease(one.key, ()) as lease:
            connection = lease.take(one.head.method in IDEMPOTENT and not one.head.length) if is_first else None
            if connection is None:
                connection = await lease.connect()
            head = self._onward.head(one.head, lease.endpoint)  # it neither waits for a 100 nor offers another protocol
            bodyless = one.head.method == b"HEAD"
            if not one.head.length:
                connection.send(head, bodyless, more=False)
            else:
                connection.send(head, bodyless, more=True)
                await connection.send_body(_framed(one), more=False)
            while (await connection.response()).status < 200:
                pass
            await _discard(connection)


def _framed(one: _Copy) -> tuple[bytes, ...]:
    """The body as its head frames it."""
    if one.head.length > 0:
        return tuple(one.parts)
    end = trailer_section(passable_trailers(one.trailers, one.head))
    return (b"%x\r\n" % one.size, *one.parts, b"\r\n" + end) if one.size else (end,)


async def _discard(connection: Connection) -> None:
    """Read a short body to its end. A longer one is left, and with it the connection."""
    size = len(connection.take())
    while not connection.over and size <= _DISCARDED:
        await connection.arrival()
        size += len(connection.take())


class _Tee:
    """ASGI's receive, by which a request's body becomes its copy's."""

    __slots__ = ("_copies", "_copy", "_exchange", "_receive")

    def __init__(self, copies: Copies, one: _Copy, exchange: Any, receive: Any) -> None:
        self._copies = copies
        self._copy: _Copy | None = one  # None when nothing more is to be kept
        self._exchange = exchange
        self._receive = receive

    async def __call__(self) -> Any:
        try:
            message = await self._receive()
        except Exception:  # a layer around us refuses the body
            self.forget()
            raise
        one = self._copy
        if one is not None and message["type"] == "http.request":
            if not self._copies.keeps(one, message["body"]):
                self._copy = None
            elif not message["more_body"]:
                self._copy = None
                # Of a body that is not all here the listener has thrown away the rest, after its answer. How long it
                # came says nothing: layers may make another one of it.
                if not self._exchange.skipped and (one.head.length < 0 or one.size == one.head.length):
                    one.trailers = self._exchange.trailers
                    self._copies.send(one, self._exchange.listener.loop)
                else:
                    self._copies.drop(one)
        return message

    async def finish(self) -> None:
        """The primary is done and may not have asked for all of the body. What is there already is taken without
        waiting; a body of which more is to come is not waited for."""
        while self._copy is not None and self._exchange.received:
            message = await self()
            if message["type"] != "http.request":
                break
        if self._copy is not None:
            self._copies.drop(self._copy)
            self._copy = None

    def forget(self) -> None:
        """The client is gone, or its body was refused."""
        if self._copy is not None:
            self._copies.forget(self._copy)
            self._copy = None


class Mirror:
    """An ASGI application: another one, whose requests are copied."""

    def __init__(
        self,
        app: Any,
        copies: Copies,
        percent: float,
        chance: Callable[[], float],
        via: bytes,
        upgrade: Collection[bytes] | None,
    ) -> None:
        """percent: how many of a hundred. chance: a number from 0 to below 1, another one each time. via, upgrade: as
        for `Forward`."""
        self._app = app
        self._copies = copies
        self._share = percent / 100
        self._chance = chance
        self._via = via
        self._upgrade = upgrade

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Not a coroutine where there is no body to wait for."""
        exchange = scope["gateway"]
        head: RequestHead = scope["headers"]
        if self._chance() < self._share and not (head.fields.asking and self._goes_nowhere(head)):
            one = self._copies.begun(exchange, head)
            if one is not None and not head.length:
                # Its task begins when this one waits: by then the primary is on its way.
                self._copies.send(one, exchange.listener.loop)
            elif one is not None:
                return self._teed(scope, _Tee(self._copies, one, exchange, receive), send)
        return self._app(scope, receive, send)  # type: ignore[no-any-return]

    def _goes_nowhere(self, head: RequestHead) -> bool:
        """Whether there is nothing to copy: the gateway answers the request itself (a copy of what went round would go
        round too), or it may become a tunnel."""
        return (
            went_round(head, self._via)
            or hops_malformed(head)
            or last_hop(head)
            or upgrade_asked(head, self._upgrade) != b""
        )

    async def _teed(self, scope: Any, tee: _Tee, send: Any) -> None:
        try:
            await self._app(scope, tee, send)
        except asyncio.CancelledError:
            tee.forget()
            raise
        finally:
            await tee.finish()
