"""The heart: carries one request to an endpoint and its response back.

Everything streams: a part is passed on before the next is read, and whoever is slower is waited for. The response is
read while the request body may still be on its way, so an origin can refuse early. Nothing that was sent is sent twice
unless `retry.py` says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import lru_cache, partial
from time import monotonic, time
from typing import Any

from gateway.answer import answer
from gateway.errors import Busy, ConnectTimeout, Declined, NoEndpoint, OutOfTime, UpstreamError
from gateway.metrics.plan import UPSTREAM_RETRIES
from gateway.parts import WRITE
from gateway.proxy.hash_key import HashKey
from gateway.proxy.headers import (
    hops_malformed,
    last_hop,
    traced,
    upgrade_asked,
    with_prefix,
)
from gateway.proxy.onward import Onward
from gateway.proxy.persistence import Persistence
from gateway.proxy.retry import Course, retry_after
from gateway.proxy.rewrite import Mapping, Rewrite, mapped_back
from gateway.proxy.tunnel import Tunnel
from gateway.scoreboard import Cells
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.group import Group, Turn
from gateway.upstream.http1 import Connection
from gateway.upstream.lifetime import NEVER
from gateway.wire import RequestHead, ResponseHead, cookie, passable_trailers, trailer_section, went_round

Trailers = list[tuple[bytes, bytes]]

# Endpoints may come and go.
_MOST_MAPPINGS = 1024


class Forward:
    """An ASGI application: a route's way to its upstream."""

    def __init__(
        self,
        upstream: Group,
        via: bytes,
        cells: Cells,
        tunnel: Tunnel,
        upgrade: Collection[bytes] | None,
        rewrite: Rewrite | None,
        key: HashKey | None,
        persistence: Persistence,
    ) -> None:
        """via: our name; upgrade: the protocols that may be switched to, in lower case, None for any; key: what the
        upstream's balancer goes by, None when it goes by nothing."""
        self._upstream = upstream
        self._via = via
        self._onward = Onward(via, rewrite)
        self._cells = cells
        self._tunnel = tunnel
        self._upgrade = upgrade
        self._rewrite = rewrite
        self._key = key
        self._prefix = rewrite.prefix if rewrite is not None else b""
        self._mapping = lru_cache(_MOST_MAPPINGS)(partial(Mapping.of, rewrite))
        self._persistence = persistence
        self._policy = persistence.policy
        self._hedging = persistence.hedging
        self._sticky = upstream.sticky
        self._is_alone = persistence.fallback is None  # nobody else can answer
        self._is_careful = persistence.is_careful

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["gateway"]
        head: RequestHead = scope["headers"]
        upgrade = b""
        if head.fields.asking:
            if await self._is_over_here(exchange, head, send):
                return
            upgrade = upgrade_asked(head, self._upgrade)
        introduced = head.introduced
        if self._prefix:
            head.introduced = with_prefix(introduced or b"", self._prefix)
        key = b"" if self._key is None else self._key(exchange, head)
        bound = None if self._sticky is None else self._sticky.bound(cookie(head, self._sticky.cookie))
        course = self._persistence.course(exchange, head, receive) if self._is_careful or head.length else None
        try:
            while True:
                try:
                    try:
                        tried = () if course is None else course.tried
                        lease = self._upstream.lease(key, tried, bound, None, self._is_alone)
                    except Busy as busy:
                        lease = await self._wait(key, course, bound, busy)
                except NoEndpoint as error:
                    if course is not None and await self._persistence.starts_over(course):
                        continue
                    if self._persistence.fallback is not None:
                        head.introduced = introduced
                        await self._persistence.fall_back(scope, receive, send, course)
                        return
                    if course is not None and course.failure is not None:
                        raise course.failure from None  # says more than that none is left
                    raise error
                exchange.endpoint = lease.endpoint.name
                try:
                    if course is not None and course.is_hedged and not upgrade and lease.endpoint is not bound:
                        last, trailers = await self._race(exchange, head, lease, key, course, send)
                    else:
                        with lease:
                            last, trailers = await self._carry(exchange, head, upgrade, lease, receive, send, course)
                    break
                except UpstreamError as error:
                    if exchange.begun:
                        raise
                    if course is None:
                        course = Course(self._policy, head.method, exchange.started)
                    lease, course.failed = course.failed or lease, None
                    if not await self._persistence.goes_on(exchange, head, course, lease, error):
                        raise
                    exchange.retries += 1
                    self._cells[lease.endpoint.cells + UPSTREAM_RETRIES] += 1
        finally:
            if course is not None:
                self._persistence.end(course)
        if last is not None:
            await send({"type": "http.response.body", "body": last, "more_body": False})
            if trailers is not None:
                await send({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})

    # Attempts.

    async def _wait(self, key: bytes, course: Course | None, bound: Endpoint | None, busy: Busy) -> Turn:
        """A lease once there is room. Raises UpstreamError."""
        if course is None:
            return await self._upstream.wait(key, (), bound, busy, None, self._is_alone)
        within = course.left(monotonic())
        lease = await self._upstream.wait(key, course.tried, bound, busy, within, self._is_alone)
        if course.is_over(monotonic()):
            with lease:
                raise OutOfTime(lease.endpoint.name, "there was room when the time for the request was over")
        return lease

    async def _race(
        self, exchange: Any, head: RequestHead, lease: Turn, key: bytes, course: Course, send: Any
    ) -> tuple[bytes | None, Trailers | None]:
        """An attempt, and another beside it if it stays silent."""
        facts: dict[Turn, tuple[bool, float]] = {}
        lost: list[tuple[Turn, BaseException]] = []

        def second() -> Turn:
            return self._upstream.lease(key, (*course.tried, lease.endpoint))

        async def ask(one: Turn) -> ResponseHead:
            connection = await self._connected(exchange, one, course, True)
            facts[one] = exchange.reused, exchange.connect_time
            request = self._onward.head(head, one.endpoint)
            within = course.within(monotonic(), one.began)
            bodyless = head.method == b"HEAD"
            connection.send(request, bodyless, more=False, within=within, until=course.until, repeatable=True)
            response = await connection.response()
            while response.status < 200:
                if one is lease and not exchange.begun:
                    await send({"type": "http.response.interim", "status": response.status, "headers": response})
                response = await connection.response()
            return response

        assert self._hedging is not None
        try:
            won, response = await self._hedging.race(lease, second, ask, lost)
        except UpstreamError:
            *others, (course.failed, _) = lost
            course.tried = (*course.tried, *(self._lost(exchange, *other) for other in others))
            raise
        with won:
            for other in lost:
                self._lost(exchange, *other)
            exchange.endpoint = won.endpoint.name
            exchange.reused, exchange.connect_time = facts[won]
            course.failed = won  # if it is sent away after all
            return await self._pass_on(exchange, head, won, response, send, course)

    def _lost(self, exchange: Any, lease: Turn, error: BaseException) -> Any:
        """Note one of two attempts that did not win; its endpoint."""
        why = error.reason if isinstance(error, UpstreamError) else "overtaken"
        exchange.attempts.append((lease.endpoint.name, why, monotonic() - lease.began))
        return lease.endpoint

    async def _connected(self, exchange: Any, lease: Turn, course: Course | None, repeatable: bool) -> Connection:
        """A connection for the request: a kept one, unless those have proved bad. Raises UpstreamError."""
        connection = None if course is not None and course.wants_new_connection else lease.take(repeatable)
        if connection is not None:
            exchange.reused = True
            exchange.connect_time = 0.0
            return connection
        exchange.reused = False
        began = monotonic()
        if course is None:
            connection = await lease.connect()
        else:
            connection = await self._dialled(lease, course, began)
        exchange.connect_time = monotonic() - began
        return connection

    async def _dialled(self, lease: Turn, course: Course, now: float) -> Connection:
        """A new connection within the time of the attempt, and of all attempts."""
        bounds = [bound for bound in (course.within(now, lease.began), course.left(now)) if bound is not None]
        try:
            return await lease.connect(min(bounds, default=None))
        except ConnectTimeout as error:
            if course.is_over(monotonic()):
                raise OutOfTime(lease.endpoint.name, "no connection before the time for the request was over") from None
            raise error

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

    async def _carry(
        self,
        exchange: Any,
        head: RequestHead,
        upgrade: bytes,
        lease: Turn,
        receive: Any,
        send: Any,
        course: Course | None,
    ) -> tuple[bytes | None, Trailers | None]:
        """Send the request, pass the response on but for its last part, which is returned with its trailers: by then
        the connection is free again and need not wait for a slow client. None for a part when all is over."""
        repeatable = head.method in self._policy.methods and not head.length
        connection = None if course is not None and course.wants_new_connection else lease.take(repeatable)
        if connection is not None:
            exchange.reused = True
        else:
            connection = await self._connected(exchange, lease, course, repeatable)
        endpoint = lease.endpoint
        bodyless = head.method == b"HEAD"
        pump = tape = within = None
        until = NEVER
        if course is not None:
            within, until = course.within(monotonic(), lease.began), course.until
            tape = course.tape
            if tape is not None:
                receive = tape.receive
        try:
            if not head.length:
                request = self._onward.head(head, endpoint, upgrade)
                offers = upgrade != b""
                connection.send(
                    request, bodyless, more=False, upgrade=offers, within=within, until=until, repeatable=repeatable
                )
            elif 0 < head.length <= WRITE and exchange.received:
                # All of it, and all of it is there: what was kept of a body may come in parts.
                body = exchange.unsent
                if not body:
                    message = await receive()
                    body = message["body"]
                    while message["more_body"]:
                        message = await receive()
                        body += message["body"]
                    exchange.unsent = body
                request = self._onward.head(head, endpoint, expect=exchange.expects and not endpoint.is_old)
                connection.send(request + body, bodyless, more=False, within=within, until=until)
                exchange.unsent = b""
            else:
                # An endpoint of HTTP/1.0 knows nothing of a 100: there it is us who ask for the body.
                expecting = exchange.expecting and not endpoint.is_old
                request = self._onward.head(head, endpoint, expect=exchange.expects and not endpoint.is_old)
                connection.send(request, bodyless, more=True, expecting=expecting, within=within, until=until)
                pump = exchange.listener.loop.create_task(_pump(exchange, head, connection, receive, expecting))
            response = await connection.response()
            while response.status < 200:
                if response.status == 101:
                    lease.answered(101)
                    await self._tunnel.run(exchange, connection, response, upgrade, send)
                    return None, None
                await send({"type": "http.response.interim", "status": response.status, "headers": response})
                response = await connection.response()
            return await self._pass_on(exchange, head, lease, response, send, course)
        finally:
            if pump is not None:
                pump.cancel()
                if tape is not None and not exchange.begun:
                    await asyncio.wait([pump])  # two must not listen to the same body

    async def _pass_on(
        self, exchange: Any, head: RequestHead, lease: Turn, response: ResponseHead, send: Any, course: Course | None
    ) -> tuple[bytes | None, Trailers | None]:
        """The final response, as `_carry` has it."""
        connection, endpoint = lease.connection, lease.endpoint
        assert connection is not None
        lease.answered(response.status)
        if course is not None:
            may_decline = response.status in self._policy.statuses
            if may_decline and await self._persistence.declines(response, course, endpoint):
                connection.take()  # what has come of it: when that is all, the connection stays in use
                raise Declined.with_status(endpoint.name, response.status, retry_after(response, time()))
            if exchange.attempts:
                exchange.attempts.append((endpoint.name, "", monotonic() - lease.began))
        exchange.first_byte = monotonic() - exchange.started
        endpoint.is_old = not response.minor
        if self._rewrite is not None or endpoint.is_elsewhere:
            response = self._mapped_back(exchange, response, endpoint)
        if self._sticky is not None:
            response = self._bound(exchange, head, response, endpoint)
        trailing = response.length == -1
        exchange.begun = True
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

    def _mapped_back(self, exchange: Any, response: ResponseHead, endpoint: Endpoint) -> ResponseHead:
        """The response with its locations and cookies as the client knows them."""
        mapping = self._mapping(endpoint.base, endpoint.authority, endpoint.host)
        if mapping is None:
            return response
        block = response.fields.block
        mapped = mapped_back(block, mapping, exchange.scheme.encode(), exchange.host)
        return response if mapped is block else response.with_fields(mapped)

    def _bound(self, exchange: Any, head: RequestHead, response: ResponseHead, endpoint: Endpoint) -> ResponseHead:
        """The response with the cookie that binds its client to the endpoint, unless the client has it."""
        assert self._sticky is not None
        value = cookie(head, self._sticky.cookie)
        line = self._sticky.line(endpoint, value, exchange.scheme == "https")
        if not line:
            return response
        block = response.fields.block
        return response.with_fields(block + line if block else line.removeprefix(b"\r\n"))


async def _pump(exchange: Any, head: RequestHead, connection: Connection, receive: Any, expecting: bool) -> None:
    """Pass the request body on until it ends or the connection does. expecting: the endpoint asks for it first."""
    try:
        await _pass_body(exchange, head, connection, receive, expecting)
    except Exception as error:  # of a layer, or what a layer found in the body: the exchange ends with it
        connection.give_up(error)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Something that a layer waited for was cancelled: to raise this would end the pump, and nobody would know.
        ended = RuntimeError("what the body of the request comes from was cancelled")
        connection.give_up(ended.with_traceback(error.__traceback__))


async def _pass_body(exchange: Any, head: RequestHead, connection: Connection, receive: Any, expecting: bool) -> None:
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
