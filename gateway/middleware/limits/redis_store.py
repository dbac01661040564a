"""Accounts of rates that several gateways keep together, in Redis or Valkey: the ledger's arithmetic as a script that
the server runs, by the server's own clock, so that machines whose clocks differ count alike.

Whoever can't be reached is not waited for by each request: after a failure nobody asks for a moment, and then one
request does; meanwhile the machine counts alone. A failure is a connection that fails, an answer that is an error, or
that no answer has come for twice the time that one may take. A single answer that is late is no failure: its request
is counted here, and the next one asks again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
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
_MOST_CONNECTIONS = 16  # of one worker; who finds none free waits, and the store is not to be blamed for that
_MOST_WAITING = 1024  # of one worker for a connection; whoever comes then is counted by this machine
# Seconds in which what has come is read before an answer counts as late: the event loop may have been busy.
_GRACE = 0.01
# Seconds between two lines of the log that the store is away.
_QUIET = 10.0

# All times in nanoseconds since November 2023: a double holds them to 16 ns until 2028, and to 32 until 2033. A key is
# kept no longer than it says something.
_SPEND = """
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000000 + time[2] * 1000
local cost, depth = tonumber(ARGV[1]), tonumber(ARGV[2])
local owed = math.max((tonumber(redis.call('GET', KEYS[1])) or 0) - now, 0)
local due = math.min(owed, depth) + cost
if due <= depth or owed > depth then
  local kept = due <= depth and due or depth
  redis.call('SET', KEYS[1], string.format('%.0f', now + kept), 'PX', math.ceil(kept / 1000000) + 1)
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
        is_good = _is_address(value)
    except ValueError:
        is_good = False
    if not is_good:  # the value may hold a password
        raise ValueError(
            'expected an address such as "redis://user:password@host:6379/0" or "unix:///run/redis.sock?db=0", and '
            "nothing more in it"
        )
    return value


def _is_address(value: str) -> bool:
    """Whether it says what the library will understand as it is meant: of all else that can stand in an address it
    believes much, and finds out later. Raises ValueError."""
    parts = urlsplit(value)
    database = ""
    if parts.query:
        name, _, database = parts.query.partition("=")
        if name != "db" or not database:
            return False
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.startswith("/"):
            return False
    elif parts.scheme in ("redis", "rediss"):
        path = parts.path.removeprefix("/")
        if not parts.hostname or (path and database) or parts.port == 0:
            return False
        database = database or path
    else:
        return False
    return not parts.fragment and (not database or (database.isascii() and database.isdigit()))


RedisUrl = Annotated[Secret, AfterValidator(_url)]


class RedisStore:
    """timeout: seconds for one call. prefix: what the accounts of this limit are kept under. where: for the log. ca: a
    file with what certificates must come from, None for what this machine trusts anyway."""

    def __init__(self, url: str, timeout: float, prefix: str, where: str, ca: str | None = None) -> None:
        """Raises StartError."""
        try:
            import redis.asyncio
        except ImportError:
            raise StartError(f"{where}: a store needs the package redis: install gateway[redis]") from None
        if ca is not None:
            try:
                ssl.create_default_context(cafile=ca)
            except (OSError, ValueError) as error:
                raise StartError(f"{where}: store_ca {ca}: no certificates can be read from it: {error}") from None
        self._late = (TimeoutError, redis.TimeoutError)
        self._url = url
        self._ca = ca
        self._timeout = timeout
        self._prefix = f"gateway:{prefix}:".encode()
        self._where = where
        self._server = _told(url)
        self._client: Redis | None = None
        self._room = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._inside = 0  # calls that are made, and those that wait
        self._spend: Any = None
        self._refund: Any = None
        self._is_away = False
        self._asking = False
        self._next_try = 0.0
        self._silent_since = 0.0  # when the first answer was late after the last that came; 0: that one was in time
        self._is_told = False  # that it is away
        self._next_line = 0.0

    async def spend(self, key: bytes, cost: int, depth: int) -> int | None:
        """As the ledger's. None: the store is away, or its answer is late."""
        if not self._is_asked():
            return None
        left = await self._call(lambda: self._spend(keys=[self._name(key)], args=[cost, depth]))
        return None if left is None else int(left)

    async def refund(self, key: bytes, cost: int) -> None:
        if not self._is_away:
            await self._call(lambda: self._refund(keys=[self._name(key)], args=[cost]))

    def _is_asked(self) -> bool:
        """Of one that is away, one request at a time finds out whether it is back."""
        return not self._is_away or not (self._asking or monotonic() < self._next_try)

    async def _call(self, script: Callable[[], Awaitable[Any]]) -> Any:
        """What a script returns; None: it is away, or late. Only the call is timed, not the wait for a connection."""
        if self._inside >= _MOST_CONNECTIONS + _MOST_WAITING:
            return None
        tries = self._is_away
        self._asking |= tries
        self._inside += 1
        try:
            async with self._room:
                if self._is_away and not tries:
                    return None
                if self._client is None:
                    self._connect()
                found = await self._timed(script)
        except self._late as error:
            now = monotonic()
            self._silent_since = self._silent_since or now
            if tries or now - self._silent_since >= self._timeout:
                self._failed(error)
            return None
        except Exception as error:  # whatever it is that the library doesn't know how to say
            self._failed(error)
            return None
        finally:
            self._inside -= 1
            if tries:
                self._asking = False
        self._silent_since = 0.0
        if self._is_away:
            self._is_away = False
            if self._is_told:
                self._is_told = False
                log.warning("%s: the store %s is back", self._where, self._server)
        return found

    async def _timed(self, script: Callable[[], Awaitable[Any]]) -> Any:
        """Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            timer = loop.call_later(self._timeout, lambda: limit.reschedule(loop.time() + _GRACE))
            try:
                return await script()
            finally:
                timer.cancel()

    def _name(self, key: bytes) -> bytes:
        """Under which an account is kept. Hashed: keys may be secrets of clients."""
        return self._prefix + blake2b(key, digest_size=16).hexdigest().encode()

    def _connect(self) -> None:
        """Nothing is sent before the first call, and never before the fork: this runs in a request."""
        from redis.asyncio import ConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        more: dict[str, Any] = {"ssl_ca_certs": self._ca} if self._ca is not None else {}
        # No limits of time of its own: it blames the server for a loop that was busy.
        pool = ConnectionPool.from_url(
            self._url,
            max_connections=_MOST_CONNECTIONS,
            retry=Retry(NoBackoff(), 1),  # a kept connection may be a dead one; the next is new
            socket_timeout=None,
            socket_connect_timeout=None,
            **more,
        )
        client: Redis = Redis(connection_pool=pool)
        self._spend = client.register_script(_SPEND)
        self._refund = client.register_script(_REFUND)
        self._client = client

    def _failed(self, error: BaseException) -> None:
        now = monotonic()
        self._next_try = now + _PAUSE
        if self._is_away:
            return
        self._is_away = True
        if now < self._next_line:
            return
        self._next_line = now + _QUIET
        self._is_told = True
        # Not what it says, which may hold what is in the URL.
        log.error("%s: the store %s is away (%s): this machine counts alone", self._where, self._server, _kind(error))

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


def _kind(error: BaseException) -> str:
    """What failed, without what the library says of it. It may hold the true reason within others."""
    known: BaseException | None = error
    while known is not None:
        if isinstance(known, ssl.SSLCertVerificationError):
            return f"its certificate: {known.verify_message}"
        known = known.__cause__ or known.__context__
    return type(error.__cause__ if isinstance(error.__cause__, Exception) else error).__name__
