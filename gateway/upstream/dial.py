"""Opening a connection to an endpoint. Its failures are `ConnectFailed` and `ConnectTimeout`, never an OSError."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

from gateway.config.values import UnixAddress
from gateway.errors import ConnectFailed, ConnectTimeout, DescriptorsExhausted
from gateway.tls import Tls, trouble
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.http1 import Connection
from gateway.wheel import Wheel


async def dial(
    endpoint: Endpoint, wheel: Wheel, connect: float, response: float, idle: float, tls: Tls | None = None
) -> Connection:
    """A new connection. connect, response, idle: the upstream's timeouts in seconds; a TLS handshake is part of the
    first."""
    loop = asyncio.get_running_loop()
    context, name = tls or (None, None)

    def make() -> Connection:
        return Connection(endpoint, wheel, response, idle)

    try:
        async with asyncio.timeout(connect):
            if isinstance(endpoint.address, UnixAddress):
                _, connection = await loop.create_unix_connection(
                    make, endpoint.address.path, ssl=context, server_hostname=name
                )
            else:
                transport, connection = await loop.create_connection(
                    make, endpoint.address.host, endpoint.address.port, ssl=context, server_hostname=name
                )
                sock = transport.get_extra_info("socket")
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError:
        raise ConnectTimeout(endpoint.name, f"no connection within {round(connect, 3):g} s") from None
    except ssl.SSLError as error:
        raise ConnectFailed(endpoint.name, trouble(error)) from None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise DescriptorsExhausted(endpoint.name, f"cannot connect ({error.strerror})") from None
        reason = error.strerror or str(error)
        raise ConnectFailed(endpoint.name, f"cannot connect ({reason})") from None
    return connection
