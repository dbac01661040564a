"""Names of destinations: looked up once for all who ask at the same moment, and remembered for seconds.

Either this machine's own way (getaddrinfo, with all that /etc/nsswitch.conf says), in threads, or a name server that
the configuration names. One that nobody waits for any more leaves the line.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any, Protocol, TypeVar

from gateway.errors import NameUnknown

# Threads of the loop that may be taken up by getaddrinfo, of at least five; each for 10 s or more when no name server
# answers. Passwords and files need some, too.
_THREADS = 3
_QUESTIONS = 256  # names at once that a name server is asked for
_WAITING = 1024  # names under way; a further one is not looked up
_KEPT = 5.0  # seconds for which addresses are taken to hold; less where the answer says so
_UNKNOWN_KEPT = 1.0  # and for which a name is taken to have none
_MOST_KEPT = 4096
_PATIENCE = 1.0  # seconds with the name server until it is asked again
_LIFETIME = 5.0  # seconds for one lookup

_Found = TypeVar("_Found")


class Source(Protocol):
    """Where addresses are asked for."""

    async def addresses(self, name: str) -> tuple[list[str], float]:
        """And for how many seconds they hold. Raises NameUnknown."""
        ...


class _Turns:
    """So many at a time. Who gives up leaves the line, but what he has begun goes on, and it is its turn until it is
    over: a thread can't be ended, and a question that is broken off leaves its socket with uvloop for good."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def take(self, work: Callable[[], Coroutine[Any, Any, _Found]]) -> _Found:
        await self._free.acquire()
        task = asyncio.get_running_loop().create_task(work())
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._free.release()
        if not task.cancelled():
            task.exception()  # that nobody may be there to hear


class Machine:
    """This machine's own way."""

    def __init__(self) -> None:
        self._turns = _Turns(_THREADS)

    async def addresses(self, name: str) -> tuple[list[str], float]:
        try:
            ask = partial(asyncio.to_thread, socket.getaddrinfo, name, None, type=socket.SOCK_STREAM)
            return [literal(where) for _, _, _, _, where in await self._turns.take(ask)], _KEPT
        except (OSError, UnicodeError) as error:
            raise NameUnknown(name, getattr(error, "strerror", None) or str(error)) from None


class Server:
    """A name server."""

    def __init__(self, address: str) -> None:
        from gateway.upstream.nameservers import NameServers  # which few need

        self._servers = NameServers([address])
        self._turns = _Turns(_QUESTIONS)

    async def addresses(self, name: str) -> tuple[list[str], float]:
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
            return ["::1", "127.0.0.1"], _KEPT
        return await self._turns.take(partial(self._servers.addresses, name, _PATIENCE, _LIFETIME))


class Resolver:
    """What is remembered of a source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # Until when, the addresses, and why there are none.
        self._known: dict[str, tuple[float, tuple[str, ...], str]] = {}
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._waiting: Counter[str] = Counter()  # who waits for each

    async def addresses(self, name: str) -> tuple[str, ...]:
        """The addresses of a name, families by turns. Raises NameUnknown."""
        known = self._known.get(name)
        if known is None or known[0] < monotonic():
            lookup = self._lookups.get(name)
            if lookup is None:
                if len(self._lookups) >= _WAITING:
                    raise NameUnknown(name, "too many names are being looked up already")
                lookup = asyncio.get_running_loop().create_task(self._look_up(name), name="lookup")
                self._lookups[name] = lookup
                lookup.add_done_callback(partial(self._forget, name))
            self._waiting[name] += 1
            try:
                await asyncio.wait((lookup,))
            finally:
                self._waiting[name] -= 1
                if not self._waiting[name]:
                    del self._waiting[name]
                    lookup.cancel()  # does nothing to one that is over
                    self._forget(name, lookup)  # who comes now begins anew
            known = self._known.get(name)
            if lookup.cancelled() or known is None:
                raise NameUnknown(name, "was not looked up to the end")
        if not known[1]:
            raise NameUnknown(name, known[2])
        return known[1]

    def _forget(self, name: str, lookup: asyncio.Task[None]) -> None:
        if self._lookups.get(name) is lookup:
            del self._lookups[name]

    async def _look_up(self, name: str) -> None:
        try:
            found, ttl = await self._source.addresses(name)
            known = monotonic() + min(ttl, _KEPT), by_turns(found), ""
        except NameUnknown as unknown:
            known = monotonic() + _UNKNOWN_KEPT, (), str(unknown).removeprefix(f"{name}: ")
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[name] = known

    def close(self) -> None:
        for lookup in [*self._lookups.values()]:
            lookup.cancel()


def resolver_of(server: str | None) -> Resolver:
    return Resolver(Server(server) if server is not None else Machine())


def by_turns(addresses: list[str]) -> tuple[str, ...]:
    """Each once, the families by turns from that of the first on (RFC 8305, section 4): where one leads nowhere the
    other is soon tried."""
    rest = [*dict.fromkeys(addresses)]
    first = [one for one in rest if (":" in one) is (":" in rest[0])]
    second = [one for one in rest if (":" in one) is not (":" in rest[0])]
    turns = [one for pair in zip(first, second, strict=False) for one in pair]
    return (*turns, *first[len(second) :], *second[len(first) :])


def literal(where: tuple[object, ...]) -> str:
    """The address in what getaddrinfo returns, with its zone where it has one."""
    host = str(where[0])
    scope = where[3] if len(where) > 3 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host
