"""Names of destinations: looked up once for all who ask at the same moment, and remembered for seconds.

Either this machine's own way (getaddrinfo, with all that /etc/nsswitch.conf says), in threads, or a name server that
the configuration names. One that nobody waits for any more leaves the line; but what has been asked goes on, and takes
its place until it is over: a thread can't be ended, and a question that is broken off leaves its socket with uvloop for
good.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from time import monotonic
from typing import Protocol

from gateway.errors import NameUnknown

# Threads of the loop that may be taken up by getaddrinfo, of at least five; each for 10 s or more when no name server
# answers. Passwords and files need some, too.
_THREADS = 3
_QUESTIONS = 256  # names at once that a name server is asked for
_WAITING = 1024  # names under way; a further one is not looked up
# Of these for one client: enough for the pages of several people behind one address, and it takes sixteen clients to
# fill the line, or four to have all questions to a name server.
_OF_CLIENT = 64
_KEPT = 5.0  # seconds for which addresses are taken to hold; less where the answer says so
_UNKNOWN_KEPT = 1.0  # and for which a name is taken to have none
_MOST_KEPT = 4096
_PATIENCE = 1.0  # seconds with the name server until it is asked again
_LIFETIME = 5.0  # seconds for one lookup


class Source(Protocol):
    """Where addresses are asked for."""

    async def addresses(self, name: str) -> tuple[list[str], float]:
        """And for how many seconds they hold. Raises NameUnknown."""
        ...


class Machine:
    """This machine's own way."""

    async def addresses(self, name: str) -> tuple[list[str], float]:
        try:
            found = await asyncio.to_thread(socket.getaddrinfo, name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NameUnknown(name, getattr(error, "strerror", None) or str(error)) from None
        return [literal(where) for _, _, _, _, where in found], _KEPT


class Server:
    """A name server."""

    def __init__(self, address: str) -> None:
        from gateway.upstream.nameservers import NameServers  # which few need

        self._servers = NameServers([address])

    async def addresses(self, name: str) -> tuple[list[str], float]:
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
            return ["::1", "127.0.0.1"], _KEPT
        return await self._servers.addresses(name, _PATIENCE, _LIFETIME)


_Known = tuple[float, tuple[str, ...], str]  # until when, the addresses, and why there are none


class _Lookup:
    """Of one name. client: who has begun it; waiting: how many wait for it; asked: whether it is its turn."""

    __slots__ = ("asked", "client", "task", "waiting")

    def __init__(self, client: bytes) -> None:
        self.client = client
        self.waiting = 0
        self.asked = False
        self.task: asyncio.Task[None]


class Resolver:
    """What is remembered of a source."""

    def __init__(self, source: Source, at_once: int = _QUESTIONS) -> None:
        """at_once: names that it is asked for at the same time."""
        self._source = source
        self._turns = asyncio.Semaphore(at_once)
        self._known: dict[str, _Known] = {}
        self._lookups: dict[str, _Lookup] = {}
        self._begun: Counter[bytes] = Counter()  # lookups by client

    async def addresses(self, name: str, client: bytes = b"") -> tuple[str, ...]:
        """The addresses of a name, families by turns. client: who asks, b"" for nobody in particular. Raises
        NameUnknown."""
        found = self.known(name)
        if found is None:
            lookup = self._lookups.get(name) or self._begin(name, client)
            lookup.waiting += 1
            try:
                await asyncio.wait((lookup.task,))
            finally:
                lookup.waiting -= 1
                if not (lookup.waiting or lookup.asked):
                    lookup.task.cancel()
                    self._forget(name, lookup)  # who comes now begins anew
            known = self._known.get(name)
            if lookup.task.cancelled() or known is None:
                raise NameUnknown(name, "was not looked up to the end")
            found = _told(name, known)
        return found

    def known(self, name: str) -> tuple[str, ...] | None:
        """The same where they are remembered; None where they are not."""
        known = self._known.get(name)
        return _told(name, known) if known is not None and known[0] >= monotonic() else None

    def _begin(self, name: str, client: bytes) -> _Lookup:
        """Raises NameUnknown."""
        if len(self._lookups) >= _WAITING or (client and self._begun[client] >= _OF_CLIENT):
            raise NameUnknown(name, "too many names are being looked up already")
        lookup = self._lookups[name] = _Lookup(client)
        self._begun[client] += 1
        lookup.task = asyncio.get_running_loop().create_task(self._look_up(name, lookup), name="lookup")
        lookup.task.add_done_callback(lambda task: self._forget(name, lookup))
        return lookup

    def _forget(self, name: str, lookup: _Lookup) -> None:
        if self._lookups.get(name) is lookup:
            del self._lookups[name]
            self._begun[lookup.client] -= 1
            if not self._begun[lookup.client]:
                del self._begun[lookup.client]

    async def _look_up(self, name: str, lookup: _Lookup) -> None:
        async with self._turns:
            lookup.asked = True
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
            if not lookup.asked:
                lookup.task.cancel()


def _told(name: str, known: _Known) -> tuple[str, ...]:
    """The addresses. Raises NameUnknown when there are none."""
    if not known[1]:
        raise NameUnknown(name, known[2])
    return known[1]


def resolver_of(server: str | None) -> Resolver:
    return Resolver(Server(server)) if server is not None else Resolver(Machine(), _THREADS)


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
