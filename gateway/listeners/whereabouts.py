"""Where endpoints are, for who sends datagrams: he can't wait for a name to be looked up with a datagram in his hand.

An address is known at once. A name is looked up beforehand and again and again, and what was found last holds while
that fails.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from time import monotonic
from typing import Any, NamedTuple

from gateway.config.values import TcpAddress, UnixAddress

# Seconds after which a name is looked up again; and for how long a worker that begins waits for the first answers.
_FRESH = 30.0
_PATIENCE = 2.0

Place = tuple[socket.AddressFamily, Any]  # what socket() and connect() take


class _Known(NamedTuple):
    place: Place | None  # None: its name could not be looked up yet
    until: float


class Whereabouts:
    def __init__(self) -> None:
        self._known: dict[TcpAddress, _Known] = {}
        self._looking: dict[TcpAddress, asyncio.Task[None]] = {}

    async def begin(self, addresses: Iterable[TcpAddress | UnixAddress]) -> None:
        """Look these up, before the first datagram asks where they are."""
        for address in addresses:
            self.of(address)
        if self._looking:
            await asyncio.wait(self._looking.values(), timeout=_PATIENCE)

    def of(self, address: TcpAddress | UnixAddress) -> Place | None:
        """None: not known, or not yet."""
        if isinstance(address, UnixAddress):
            return None
        known = self._known.get(address)
        if known is None:
            place = _place(address)
            if place is None:
                self._look(address)
                return None
            known = self._known[address] = _Known(place, float("inf"))
        elif known.until < monotonic():
            self._look(address)
        return known.place

    def _look(self, address: TcpAddress) -> None:
        if address not in self._looking:
            self._looking[address] = asyncio.get_running_loop().create_task(self._resolve(address))

    async def _resolve(self, address: TcpAddress) -> None:
        known = self._known.get(address)
        place = known.place if known is not None else None
        try:
            found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
            place = found[0][0], found[0][4]
        except (OSError, UnicodeError):
            pass
        finally:
            self._known[address] = _Known(place, monotonic() + _FRESH)
            del self._looking[address]

    def close(self) -> None:
        for task in self._looking.values():
            task.cancel()


def _place(address: TcpAddress) -> Place | None:
    """That of a literal address; None for a name."""
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError):
        return None
    return found[0][0], found[0][4]
