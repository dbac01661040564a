"""Connections that a client has asked for: to one of several addresses, for a tunnel.

Addresses race (RFC 8305, section 5): one that leads nowhere costs a quarter of a second, and not the client's patience.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any

from gateway.config.values import TcpAddress
from gateway.errors import ConnectTimeout, DescriptorsExhausted, UpstreamError
from gateway.listeners.admission import Admission
from gateway.listeners.egress import Egress
from gateway.relay import End
from gateway.upstream.dial import dial_with, too_late
from gateway.upstream.remote import Remote

_DELAY = 0.25  # seconds until the next address is tried beside the last one (RFC 8305, section 5)
# Addresses at a time. For a further one the first is given up, which has had a second then: many that are silent must
# not take a descriptor each for as long as the client waits.
_RACING = 4


class Held(asyncio.Protocol):
    """A connection of which nobody has said yet what becomes of it: what comes is kept, and not much of it."""

    transport: Any = None

    def __init__(self) -> None:
        self.closed = False
        self._before = b""
        self._ended = False
        self._paused = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._before += data
        self._pause()

    def eof_received(self) -> bool:
        self._ended = True
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True

    def _pause(self) -> None:
        if not (self._paused or self._ended or self.closed):
            self._paused = True
            self.transport.pause_reading()

    def detach(self) -> End:
        """Give the transport away to a relay."""
        self._pause()
        before, self._before = self._before, b""
        return End(self.transport, before, self._ended, self.closed)


async def connect(addresses: Sequence[TcpAddress], within: float, admission: Admission) -> tuple[Held, TcpAddress]:
    """A connection to one of these addresses, within so many seconds, and which it is. They are begun in order. Raises
    UpstreamError, that of the last attempt."""
    if len(addresses) > 1:
        return await _raced(addresses, within, admission)
    [address] = addresses
    remote = _remote(address)
    try:
        async with asyncio.timeout(within):
            return await dial_with(asyncio.get_running_loop(), Held, remote), address
    except TimeoutError:
        raise too_late(remote, within) from None


async def _raced(addresses: Sequence[TcpAddress], within: float, admission: Admission) -> tuple[Held, TcpAddress]:
    """The next is begun as soon as one has failed, or none has come to an end for a while; the first to be connected
    wins. Each beside one needs room for a descriptor, or takes the place of the first."""
    loop = asyncio.get_running_loop()
    end = monotonic() + within
    rest = deque(addresses)
    racing: dict[asyncio.Task[Held], TcpAddress] = {}  # the one that was begun first at the front
    taken = 0
    failure: UpstreamError
    try:
        while rest or racing:
            if rest:
                if len(racing) > taken:
                    if len(racing) < _RACING and admission.takes_more():
                        taken += 1
                    else:
                        _give_up(racing)
                last = rest.popleft()
                racing[loop.create_task(dial_with(loop, Held, _remote(last)), name="attempt")] = last
            left = end - monotonic()
            ended, _ = await asyncio.wait(
                racing, timeout=min(left, _DELAY) if rest else left, return_when=asyncio.FIRST_COMPLETED
            )
            for task in ended:
                address = racing.pop(task)
                try:
                    return task.result(), address
                except DescriptorsExhausted as error:
                    failure = error
                    rest.clear()
                except UpstreamError as error:
                    failure = error
            if not ended and monotonic() >= end:
                raise too_late(_remote(last), within)
        raise failure
    finally:
        while racing:
            _give_up(racing)
        admission.give_back(taken)


def _give_up(racing: dict[asyncio.Task[Held], TcpAddress]) -> None:
    """The attempt that was begun first; what it has opened is closed."""
    task = next(iter(racing))
    del racing[task]
    if not task.cancel() and task.exception() is None:  # it came to its end just now
        task.result().transport.abort()


async def reach(
    egress: Egress, client: str, host: str, port: int, within: float, admission: Admission
) -> tuple[Held, TcpAddress]:
    """The same for a host that a client names; to look it up is part of the time. Raises EgressDenied and NameUnknown,
    too."""
    end = monotonic() + within
    addresses = await admitted(egress, client, host, port, within)
    return await connect(addresses, end - monotonic(), admission)


async def admitted(egress: Egress, client: str, host: str, port: int, within: float) -> list[TcpAddress]:
    """Where to connect to for a host, found out within so many seconds. Raises EgressDenied, and UpstreamError when
    there is nowhere."""
    known = egress.known(host, port)
    if known is not None:
        return known
    try:
        async with asyncio.timeout(within):
            return await egress.admit(host, port, client)
    except TimeoutError:
        raise ConnectTimeout(host, f"not looked up within {round(within, 3):g} s") from None


def _remote(address: TcpAddress) -> Remote:
    """Somewhere that belongs to no upstream."""
    return Remote("", str(address), address, b"", 0)
