"""Opening a connection to an endpoint, for HTTP or whatever else. Its failures are UpstreamErrors by which nothing was
sent, never an OSError.

What this machine is short of, descriptors or ports, is not tried for again at once: trying is what costs most then (the
kernel looks through all ports there are), and each request would do it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, TypeVar

from gateway.config.values import TcpAddress, UnixAddress
from gateway.errors import ConnectFailed, ConnectTimeout, DescriptorsExhausted, PortsExhausted
from gateway.tls import Tls, trouble
from gateway.upstream.http1 import Connection
from gateway.upstream.remote import Remote
from gateway.wheel import Wheel

# Seconds for which a shortage is taken to last. Ten vain attempts a second are no load, and nobody waits for long when
# it is over.
_PAUSE = 0.1
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Linux: the port is chosen when the connection is made, and need only differ from those of connections to the same
# endpoint. Chosen by bind() it would have to differ from all.
_IP_BIND_ADDRESS_NO_PORT = 24


class Shortage:
    """Something that this machine has none of for a moment."""

    __slots__ = ("_until", "why")

    def __init__(self) -> None:
        self._until = 0.0
        self.why = ""

    def begin(self, why: str) -> None:
        self._until = monotonic() + _PAUSE
        self.why = why

    @property
    def lasts(self) -> bool:
        return self._until > 0 and monotonic() < self._until


_Made = TypeVar("_Made", bound=asyncio.BaseProtocol)

# Descriptors are the process's.
_descriptors = Shortage()


class Sources:
    """The addresses of this machine from which an endpoint is dialled, in turns; without any the kernel chooses.

    For connections from one address to one endpoint there are as many ports as the kernel may choose from, some 28,000.
    """

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        self._by_family: dict[int, deque[tuple[str, Shortage]]] = {}
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            self._by_family.setdefault(family, deque()).append((address, Shortage()))
        self.ports = Shortage()  # of all of them together

    def __bool__(self) -> bool:
        return bool(self._by_family)

    def of(self, family: int) -> tuple[tuple[str, Shortage], ...]:
        """Those of a family, the one first whose turn it is."""
        ours = self._by_family.get(family)
        if ours is None:
            return ()
        ours.rotate(-1)
        return tuple(ours)


async def dial(
    endpoint: Remote,
    wheel: Wheel,
    connect: float,
    response: float,
    idle: float,
    tls: Tls | None = None,
    sources: Sources | None = None,
    preface: bytes = b"",
) -> Connection:
    """A new connection. connect, response, idle: the upstream's timeouts in seconds; a TLS handshake is part of the
    first. preface: as for `dial_with`."""

    def make() -> Connection:
        return Connection(endpoint, wheel, response, idle)

    try:
        async with asyncio.timeout(connect):
            return await dial_with(asyncio.get_running_loop(), make, endpoint, tls, sources, preface)
    except TimeoutError:
        raise too_late(endpoint, connect) from None


def too_late(endpoint: Remote, connect: float) -> ConnectTimeout:
    return ConnectTimeout(endpoint.name, f"no connection within {round(connect, 3):g} s")


async def dial_with(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[], _Made],
    endpoint: Remote,
    tls: Tls | None = None,
    sources: Sources | None = None,
    preface: bytes = b"",
) -> _Made:
    """What `make` makes, connected. How long that may take is the caller's business. preface: sent before anything
    else, a TLS handshake too; not together with sources."""
    if _descriptors.lasts:
        raise DescriptorsExhausted(endpoint.name, _descriptors.why)
    if sources is not None and sources.ports.lasts:
        raise PortsExhausted(endpoint.name, sources.ports.why)
    context, name = tls or (None, None)
    address = endpoint.address
    try:
        if preface:
            sock = await _begun(loop, address, preface)
            _, made = await loop.create_connection(make, sock=sock, ssl=context, server_hostname=name)
        elif isinstance(address, UnixAddress):
            _, made = await loop.create_unix_connection(make, address.path, ssl=context, server_hostname=name)
        elif sources:
            sock = await _connected(loop, address, sources)
            _, made = await loop.create_connection(make, sock=sock, ssl=context, server_hostname=name)
        else:
            _, made = await loop.create_connection(
                make, address.host, address.port, ssl=context, server_hostname=name
            )
    except ssl.SSLError as error:
        raise ConnectFailed(endpoint.name, trouble(error)) from None
    except OSError as error:
        why = f"cannot connect ({error.strerror or error})"
        if error.errno in _NO_DESCRIPTOR:
            _descriptors.begin(why)
            raise DescriptorsExhausted(endpoint.name, why) from None
        if error.errno == errno.EADDRNOTAVAIL:
            if sources is not None:
                sources.ports.begin(why)
            raise PortsExhausted(endpoint.name, why) from None
        raise ConnectFailed(endpoint.name, why, errno=error.errno) from None
    return made


async def _connected(loop: asyncio.AbstractEventLoop, address: TcpAddress, sources: Sources) -> socket.socket:
    """A socket that is connected from the first of the sources that has a port left. Raises OSError."""
    failure = OSError("none of the source addresses is of its family")
    for family, kind, protocol, _, where in await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        for source, shortage in sources.of(family):
            if shortage.lasts:
                failure = OSError(errno.EADDRNOTAVAIL, shortage.why)
                continue
            try:
                return await _opened(loop, family, kind, protocol, where, source=source)
            except OSError as error:
                failure = error
                if error.errno != errno.EADDRNOTAVAIL:
                    break  # the same from every source
                why = f"{error.strerror}: {source}"
                shortage.begin(why)
                failure = OSError(error.errno, why)
    raise failure


async def _begun(loop: asyncio.AbstractEventLoop, address: TcpAddress | UnixAddress, preface: bytes) -> socket.socket:
    """A socket that is connected, on which this was sent. Raises OSError."""
    found: list[Any]
    if isinstance(address, UnixAddress):
        found = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", address.path)]
    else:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failure = OSError("it has no address")
    for family, kind, protocol, _, where in found:
        try:
            return await _opened(loop, family, kind, protocol, where, preface=preface)
        except OSError as error:
            failure = error
    raise failure


async def _opened(
    loop: asyncio.AbstractEventLoop,
    family: int,
    kind: int,
    protocol: int,
    where: Any,
    source: str = "",
    preface: bytes = b"",
) -> socket.socket:
    """A socket that is connected to one place. Raises OSError, in the kernel's words instead of the loop's."""
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        if source:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        await loop.sock_connect(sock, where)
        if preface:
            await loop.sock_sendall(sock, preface)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, os.strerror(error.errno or errno.EIO)) from None
    except BaseException:
        sock.close()
        raise
    return sock
