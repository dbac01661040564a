"""Connections that a client has asked for: to one of several addresses, for a tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, TypeVar

from gateway.config.values import TcpAddress
from gateway.errors import ConnectTimeout, DescriptorsExhausted, UpstreamError
from gateway.listeners.egress import Egress
from gateway.relay import End
from gateway.upstream.dial import dial_with, too_late
from gateway.upstream.remote import Remote

_LEAST = 0.25  # seconds for an attempt, however many addresses there are (RFC 8305, section 5)


class Connected(asyncio.BaseProtocol):
    """A protocol that knows its transport."""

    transport: Any = None


Made = TypeVar("Made", bound=Connected)


class Held(Connected, asyncio.Protocol):
    """A connection of which nobody has said yet what becomes of it: what comes is kept, and not much of it."""

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


async def connect(
    addresses: Sequence[TcpAddress], within: float, make: Callable[[], Made]
) -> tuple[Any, Made, TcpAddress]:
    """A transport, what `make` has made as its protocol, and which of the addresses it was. They are tried in order; of
    the time, `within` seconds, each gets an equal part of what is left. Raises UpstreamError, of the last attempt."""
    end = monotonic() + within
    for place, address in enumerate(addresses):
        left = end - monotonic()
        if left <= 0 and place:
            break
        share = min(left, max(left / (len(addresses) - place), _LEAST))
        remote = _remote(address)
        try:
            async with asyncio.timeout(share):
                made = await dial_with(asyncio.get_running_loop(), make, remote)
        except DescriptorsExhausted:
            raise
        except UpstreamError as error:
            failure = error
            continue
        except TimeoutError:
            failure = too_late(remote, share)
            continue
        return made.transport, made, address
    raise failure


async def reach(
    egress: Egress, host: str, port: int, within: float, make: Callable[[], Made]
) -> tuple[Any, Made, TcpAddress]:
    """The same for a host that a client names; to look it up is part of the time. Raises EgressDenied and NameUnknown,
    too."""
    end = monotonic() + within
    addresses = await admitted(egress, host, port, within)
    return await connect(addresses, end - monotonic(), make)


async def admitted(egress: Egress, host: str, port: int, within: float) -> list[TcpAddress]:
    """Where to connect to for a host, found out within so many seconds. Raises EgressDenied, and UpstreamError when
    there is nowhere."""
    try:
        async with asyncio.timeout(within):
            return await egress.admit(host, port)
    except TimeoutError:
        raise ConnectTimeout(host, f"not looked up within {round(within, 3):g} s") from None


def _remote(address: TcpAddress) -> Remote:
    """Somewhere that belongs to no upstream."""
    return Remote("", str(address), address, b"", 0)
