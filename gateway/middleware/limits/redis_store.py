"""Accounts of rates that several gateways keep together, in Redis or Valkey: the ledger's arithmetic as a script that
the server runs, by the server's own clock, so that machines whose clocks differ count alike.

Whoever can't be reached is not waited for by each request: after a failure nobody asks for a moment, and then one
request does; meanwhile the machine counts alone.
"""

from __future__ import annotations

import asyncio
import logging
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator

from gateway.config.fields import Secret
from gateway.errors import StartError

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("gateway.middleware")

# Seconds after a failure in which the server is left alone.
_PAUSE = 1.0
_MOST_CONNECTIONS = 64  # of one worker; who finds none free counts that as a failure

# All times in microseconds, which a double holds exactly until the year 2255. A key is kept no longer than it says
# something.
_SPEND = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost, depth = tonumber(ARGV[1]), tonumber(ARGV[2])
local owed = math.max((tonumber(redis.call('GET', KEYS[1])) or 0) - now, 0)
local due = math.min(owed, depth) + cost
if due <= depth or owed > depth then
  local kept = due <= depth and due or depth
  redis.call('SET', KEYS[1], string.format('%.0f', now + kept), 'PX', math.ceil(kept / 1000) + 1)
end
return string.format('%.0f', depth - due)
"""
_REFUND = """
local value = tonumber(redis.call('GET', KEYS[1]))
if value then
  redis.call('SET', KEYS[1], string.format('%.0f', value - ARGV[1]), 'KEEPTTL')
end
"""


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_good = bool(parts.hostname) if parts.scheme in ("redis", "rediss") else parts.path.startswith("/")
        is_good = is_good and parts.scheme in ("redis", "rediss", "unix") and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good:  # the value may hold a password
        raise ValueError('expected an address such as "redis://user:password@host:6379/0"')
    return value


RedisUrl = Annotated[Secret, AfterValidator(_url)]


class RedisStore:
    """timeout: seconds for one call. prefix: what the accounts of this limit are kept under. where: for the log."""

    def __init__(self, url: str, timeout: float, prefix: str, where: str) -> None:
        """Raises StartError."""
        try:
            import redis.asyncio
        except ImportError:
            raise StartError(f"{where}: a store needs the package redis: install gateway[redis]") from None
        self._errors = (redis.RedisError, OSError, TimeoutError)
        self._url = url
        self._timeout = timeout
        self._prefix = f"gateway:{prefix}:".encode()
        self._where = where
        self._server = _told(url)
        self._client: Redis | None = None
        self._spend: Any = None
        self._refund: Any = None
        self._is_away = False
        self._asking = False
        self._next_try = 0.0

    async def spend(self, key: bytes, cost: int, depth: int) -> int | None:
        """As the ledger's, to the microsecond. None: the store is away."""
        if self._is_away and (self._asking or monotonic() < self._next_try):
            return None
        if self._client is None:
            self._connect()
        self._asking = True
        try:
            async with asyncio.timeout(self._timeout):
                left = await self._spend(keys=[self._name(key)], args=[-(-cost // 1000), -(-depth // 1000)])
        except self._errors as error:
            self._failed(error)
            return None
        finally:
            self._asking = False
        if self._is_away:
            self._is_away = False
            log.warning("%s: the store %s is back", self._where, self._server)
        return int(left) * 1000

    async def refund(self, key: bytes, cost: int) -> None:
        if self._is_away or self._client is None:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._refund(keys=[self._name(key)], args=[-(-cost // 1000)])
        except self._errors as error:
            self._failed(error)

    def _name(self, key: bytes) -> bytes:
        """Under which an account is kept. Hashed: keys may be secrets of clients."""
        return self._prefix + blake2b(key, digest_size=16).hexdigest().encode()

    def _connect(self) -> None:
        """Nothing is sent before the first call, and never before the fork: this runs in a request."""
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=_MOST_CONNECTIONS,
            timeout=self._timeout,
            retry=Retry(NoBackoff(), 1),  # a kept connection may be a dead one; the next is new
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
        )
        self._client = Redis(connection_pool=pool)
        self._spend = self._client.register_script(_SPEND)
        self._refund = self._client.register_script(_REFUND)

    def _failed(self, error: BaseException) -> None:
        self._next_try = monotonic() + _PAUSE
        if not self._is_away:
            self._is_away = True
            # The kind only: what it says may hold what is in the URL. Of a cause, the library tells in general terms.
            kind = type(error.__cause__ if isinstance(error.__cause__, Exception) else error).__name__
            log.error("%s: the store %s is away (%s): this machine counts alone", self._where, self._server, kind)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose(close_connection_pool=True)


def _told(url: str) -> str:
    """The server as people may see it."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix:{parts.path}"
    return f"{parts.hostname}:{parts.port or 6379}"
